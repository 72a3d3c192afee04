"""A process that records the time every few milliseconds until it is killed.

    python -m tests.recordings.typist PATH

Prints a line once it writes. With SLUICE_TEST_FILE_LIMIT set, files may not grow beyond
that many bytes, and it prints what the recorder says then.
"""

import asyncio
import os
import resource
import sys
import time
from pathlib import Path

from apps.recordings.frames import EventKind
from apps.recordings.writer import RecorderThread, RecordingFailedError
from tests.recordings.making import open_recorder


async def type_on(path: Path) -> None:
    """Add the nanoseconds of the wall clock as input, on and on."""
    thread = RecorderThread(minimum_free_bytes=0)
    thread.start()
    recorder = await open_recorder(thread, path)
    failures: list[RecordingFailedError] = []
    recorder.on_failure(failures.append)
    sys.stdout.write("writing\n")
    sys.stdout.flush()
    while not failures:
        recorder.add(EventKind.INPUT, 1, b"%d" % time.time_ns())
        await asyncio.sleep(0.002)
    try:
        recorder.add(EventKind.INPUT, 1, b"unrecorded")
    except RecordingFailedError as error:
        sys.stdout.write(f"refused: {error}\n")
    sys.stdout.write(f"failed: {failures[0]}\n")
    thread.stop()


if __name__ == "__main__":
    limit = int(os.environ.get("SLUICE_TEST_FILE_LIMIT", "0"))
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    asyncio.run(type_on(Path(sys.argv[1])))
