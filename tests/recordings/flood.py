"""A process that floods a recorder and keeps its protocol; prints what it used.

    python -m tests.recordings.flood PATH MEGABYTES

The payload does not compress, and nothing but `over_limit` holds the source back.
"""

import asyncio
import json
import os
import resource
import sys
from pathlib import Path

from apps.recordings.frames import EventKind
from apps.recordings.writer import RecorderThread
from tests.recordings.making import open_recorder

CHUNK_BYTES = 32768


async def flood(path: Path, megabytes: int) -> dict[str, int]:
    """Write random bytes; return peaks and counts."""
    thread = RecorderThread(minimum_free_bytes=0)
    thread.start()
    recorder = await open_recorder(thread, path)
    noise = os.urandom(CHUNK_BYTES)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pauses = peak = 0
    for _ in range(megabytes * (1 << 20) // CHUNK_BYTES):
        # A new object each time, as a socket gives it.
        recorder.add(EventKind.OUTPUT, 1, bytearray(noise))
        peak = max(peak, recorder.backlog)
        if recorder.over_limit:
            pauses += 1
            drained = asyncio.Event()
            recorder.on_drained(drained.set)
            await drained.wait()
    sealed = await asyncio.wrap_future(recorder.close())
    thread.stop()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "peak_backlog": peak,
        "pauses": pauses,
        "grown_kilobytes": after - before,
        "bytes_out": sealed.bytes_out or 0,
    }


if __name__ == "__main__":
    result = asyncio.run(flood(Path(sys.argv[1]), int(sys.argv[2])))
    sys.stdout.write(json.dumps(result))
