"""The recorder thread: nothing lost, nothing unbounded, fails closed (R23)."""

import asyncio
import ctypes
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.recordings.frames import MAX_EVENT_BYTES, Event, EventKind, encode_resize
from apps.recordings.reader import RecordingReader, recover
from apps.recordings.seal import CLOSED, SealSigner, key_fingerprint, verify_seal
from apps.recordings.verifier import load_keys, verify_recording
from apps.recordings.writer import (
    BACKLOG_LIMIT_BYTES,
    FlushedEvents,
    Recorder,
    RecorderThread,
    RecordingFailedError,
    StillWrittenError,
    read_sealed,
    seal_recovered,
)
from tests.recordings.making import (
    DATA_KEY,
    HEADER,
    SIGNING_KEY,
    STARTED_AT,
    open_recorder,
    public_key_file,
)


async def until(condition: Callable[[], object]) -> None:
    """Wait until the condition holds; the test's own time limit ends it."""
    while not condition():  # noqa: ASYNC110 - the thread under test has no such event
        await asyncio.sleep(0.005)


def payloads(path: Path) -> list[tuple[EventKind, int, bytes]]:
    with RecordingReader(path, DATA_KEY) as reader:
        return [(e.kind, e.channel, e.data) for e in reader.events()]


@asynccontextmanager
async def hung_thread(thread: RecorderThread, folder: Path) -> AsyncIterator[None]:
    """Keep the recorder thread busy with a signature that does not come."""
    reached, let_go = threading.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def sign(digest: bytes) -> bytes:
        reached.set()
        let_go.wait()
        return SIGNING_KEY.sign(digest)

    def blocking() -> Recorder:
        return thread.open(
            folder / "slow",
            header=HEADER,
            data_key=DATA_KEY,
            signer=SealSigner(key_id="slow", sign=sign),
            loop=loop,
        )

    slow = await asyncio.to_thread(blocking)
    sealed = slow.close()
    await asyncio.to_thread(reached.wait)
    try:
        yield
    finally:
        let_go.set()
        with suppress(RecordingFailedError):  # It took too long, say some tests.
            await asyncio.wrap_future(sealed)


async def failure_of(recorder: Recorder) -> RecordingFailedError:
    reported: asyncio.Future[RecordingFailedError] = (
        asyncio.get_running_loop().create_future()
    )
    recorder.on_failure(reported.set_result)
    return await asyncio.wait_for(reported, 10)


async def test_what_is_added_is_what_is_read(
    recorder_thread: RecorderThread, folder: Path
) -> None:
    path = folder / "a.slrec"
    recorder = await open_recorder(recorder_thread, path)
    expected = []
    for n in range(2000):
        kind = list(EventKind)[n % 3]
        data = os.urandom(n % 300)
        recorder.add(kind, n % 7, data)
        expected.append((kind, n % 7, data))
        if n % 100 == 0:
            await asyncio.sleep(0.005)
    recorder.add(EventKind.RESIZE, 1, encode_resize(80, 24))
    sealed = await asyncio.wrap_future(recorder.close())
    assert payloads(path) == [
        *expected,
        (EventKind.RESIZE, 1, encode_resize(80, 24)),
    ]
    assert sealed == read_sealed(path)
    assert sealed.seal.how == CLOSED
    assert sealed.size == path.stat().st_size
    assert sealed.bytes_in == sum(
        len(data) for kind, _, data in expected if kind is EventKind.INPUT
    )
    assert sealed.segments > 1
    assert verify_seal(
        sealed.seal.to_json(),
        root_hash=sealed.root_hash,
        signature=sealed.signature,
        key=SIGNING_KEY.public_key(),
    )
    keys = load_keys([str(public_key_file(folder))])
    assert verify_recording(str(path), keys).ok
    assert recorder.backlog == 0


async def test_times_are_those_of_the_monotonic_clock(
    recorder_thread: RecorderThread, folder: Path
) -> None:
    before = time.monotonic_ns()
    recorder = await open_recorder(recorder_thread, folder / "a")
    recorder.add(EventKind.OUTPUT, 1, b"first")
    await asyncio.sleep(0.05)
    recorder.add(EventKind.OUTPUT, 1, b"second")
    sealed = await asyncio.wrap_future(recorder.close())
    took = (time.monotonic_ns() - before) // 1000
    with RecordingReader(folder / "a", DATA_KEY) as reader:
        first, second = (event.microseconds for event in reader.events())
    assert second - first >= 50_000
    assert second <= sealed.duration_microseconds <= took
    sealed_after = (sealed.seal.sealed_at - STARTED_AT).total_seconds()
    assert sealed_after == pytest.approx(sealed.duration_microseconds / 1e6)


async def test_a_changing_buffer_is_copied(
    recorder_thread: RecorderThread, folder: Path
) -> None:
    recorder = await open_recorder(recorder_thread, folder / "a")
    buffer = bytearray(b"before")
    recorder.add(EventKind.OUTPUT, 1, memoryview(buffer))
    buffer[:] = b"after!!"
    await asyncio.wrap_future(recorder.close())
    assert payloads(folder / "a") == [(EventKind.OUTPUT, 1, b"before")]


async def test_a_large_paste_is_cut_into_pieces(
    recorder_thread: RecorderThread, folder: Path
) -> None:
    recorder = await open_recorder(recorder_thread, folder / "a")
    paste = os.urandom(10 << 20)
    recorder.add(EventKind.INPUT, 1, paste)
    assert recorder.over_limit
    sealed = await asyncio.wrap_future(recorder.close())
    found = payloads(folder / "a")
    assert b"".join(data for _, _, data in found) == paste
    assert max(len(data) for _, _, data in found) == MAX_EVENT_BYTES
    assert sealed.bytes_in == len(paste)


async def test_a_large_payload_that_is_no_stream_is_refused(
    recorder_thread: RecorderThread, folder: Path
) -> None:
    recorder = await open_recorder(recorder_thread, folder / "a")
    with pytest.raises(ValueError, match="NOTICE"):
        recorder.add(EventKind.NOTICE, 1, bytes(MAX_EVENT_BYTES + 1))


async def test_the_file_is_there_and_closed_to_others_before_opening_returns(
    recorder_thread: RecorderThread, folder: Path
) -> None:
    recorder = await open_recorder(recorder_thread, folder / "a")
    assert stat.S_IMODE((folder / "a").stat().st_mode) == 0o600
    found = recover(folder / "a")
    assert found.header["session"] == HEADER["session"]
    assert found.header["signer"] == key_fingerprint(SIGNING_KEY.public_key())
    assert found.dropped_bytes == 0
    recorder.close()


async def test_waiting_events_are_written_within_a_flush_interval(
    folder: Path,
) -> None:
    thread = RecorderThread(minimum_free_bytes=0)
    thread.start()
    recorder = await open_recorder(thread, folder / "a")
    for _ in range(3):
        recorder.add(EventKind.OUTPUT, 1, b"x")
        began = time.monotonic()
        await until(lambda: recorder.backlog == 0)
        assert time.monotonic() - began < 1
    assert recover(folder / "a").segments == 3
    await asyncio.to_thread(thread.stop)


async def test_a_megabyte_wakes_the_thread_at_once(folder: Path) -> None:
    thread = RecorderThread(flush_interval_seconds=3600, minimum_free_bytes=0)
    thread.start()
    recorder = await open_recorder(thread, folder / "a")
    await asyncio.sleep(0.05)
    recorder.add(EventKind.OUTPUT, 1, b"a little")
    await asyncio.sleep(0.05)
    assert recorder.backlog > 0
    assert recorder.seconds_behind > 0.04
    recorder.add(EventKind.OUTPUT, 1, bytes(1 << 20))
    await until(lambda: recorder.backlog == 0)
    assert recorder.seconds_behind == 0
    await asyncio.to_thread(thread.stop)


async def test_watchers_get_every_event_after_it_is_written(
    recorder_thread: RecorderThread, folder: Path
) -> None:
    recorder = await open_recorder(recorder_thread, folder / "a")
    seen: list[Event] = []
    gone: list[FlushedEvents] = []
    loop_thread = threading.get_ident()

    def watch(events: FlushedEvents) -> None:
        assert threading.get_ident() == loop_thread
        assert events.first_number == len(seen)
        assert recover(folder / "a", DATA_KEY).bytes_out == 2 * (
            len(seen) + len(events)
        )
        seen.extend(events)

    unsubscribe = recorder.subscribe(gone.append)
    recorder.subscribe(watch)
    unsubscribe()
    unsubscribe()
    for n in range(20):
        recorder.add(EventKind.OUTPUT, 1, b"%02d" % n)
        await until(lambda: recorder.backlog == 0)
    await until(lambda: len(seen) == 20)
    recorder.close()
    with RecordingReader(folder / "a", DATA_KEY) as reader:
        assert seen == list(reader.events())
    assert gone == []


async def test_one_failing_watcher_does_not_disturb_the_others(
    recorder_thread: RecorderThread, folder: Path
) -> None:
    recorder = await open_recorder(recorder_thread, folder / "a")
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda loop, context: complaints.append(context["exception"])
    )

    def fail(events: FlushedEvents) -> None:
        raise RuntimeError("watcher")

    seen: list[Event] = []
    recorder.subscribe(fail)
    recorder.subscribe(seen.extend)
    recorder.add(EventKind.OUTPUT, 1, b"x")
    await until(lambda: seen)
    assert [str(error) for error in complaints] == ["watcher"]
    assert recorder.failed is None


async def test_closing_twice_gives_the_same_seal_and_nothing_can_be_added(
    recorder_thread: RecorderThread, folder: Path
) -> None:
    recorder = await open_recorder(recorder_thread, folder / "a")
    recorder.add(EventKind.OUTPUT, 1, b"x")
    future = recorder.close()
    assert recorder.close() is future
    with pytest.raises(RecordingFailedError, match="closed"):
        recorder.add(EventKind.OUTPUT, 1, b"y")
    sealed = await asyncio.wrap_future(future)
    assert sealed.bytes_out == 1
    assert recorder.failed is None


async def test_stopping_seals_what_is_open(folder: Path) -> None:
    thread = RecorderThread(flush_interval_seconds=3600, minimum_free_bytes=0)
    thread.start()
    recorders = [await open_recorder(thread, folder / f"{n}") for n in range(5)]
    for recorder in recorders:
        recorder.add(EventKind.OUTPUT, 1, b"last words")
    await asyncio.to_thread(thread.stop)
    for n in range(5):
        assert payloads(folder / f"{n}") == [(EventKind.OUTPUT, 1, b"last words")]
        assert read_sealed(folder / f"{n}") is not None
    assert not thread.alive
    with pytest.raises(RecordingFailedError, match="not running"):
        await open_recorder(thread, folder / "late")


async def test_the_source_is_paused_and_told_to_go_on(
    recorder_thread: RecorderThread, folder: Path
) -> None:
    """R20: the protocol of `over_limit` and `on_drained`."""
    recorder = await open_recorder(recorder_thread, folder / "a")
    calls: list[str] = []
    recorder.on_drained(lambda: calls.append("at once"))
    await until(lambda: calls == ["at once"])
    async with hung_thread(recorder_thread, folder):
        while not recorder.over_limit:
            recorder.add(EventKind.OUTPUT, 1, bytes(65536))
        recorder.on_drained(lambda: calls.append("first"))
        recorder.on_drained(lambda: calls.append("second"))
        await asyncio.sleep(0.05)
        assert calls == ["at once"]
        assert recorder.backlog > BACKLOG_LIMIT_BYTES
        assert recorder.seconds_behind >= 0.05
    await until(lambda: len(calls) == 3)
    assert calls == ["at once", "first", "second"]
    assert recorder.backlog < BACKLOG_LIMIT_BYTES // 2
    assert recorder.seconds_behind == 0


async def test_many_small_events_count_as_the_memory_they_take(
    recorder_thread: RecorderThread, folder: Path
) -> None:
    """R20: 8 MB of single bytes would be a gigabyte of objects."""
    recorder = await open_recorder(recorder_thread, folder / "a")
    async with hung_thread(recorder_thread, folder):
        added = 0
        while not recorder.over_limit:
            recorder.add(EventKind.OUTPUT, 1, b"x")
            added += 1
    assert added < 60_000
    sealed = await asyncio.wrap_future(recorder.close())
    assert sealed.bytes_out == added


def test_a_flood_of_100_megabytes_stays_within_bounds(folder: Path) -> None:
    """R20: with the protocol kept, memory grows by a few backlogs, not by the flood."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.recordings.flood", str(folder / "a"), "100"],
        capture_output=True,
        timeout=50,
        check=True,
    )
    found = json.loads(result.stdout)
    assert found["bytes_out"] == 100 << 20
    assert found["pauses"] > 0
    assert found["peak_backlog"] < BACKLOG_LIMIT_BYTES + (1 << 16)
    assert found["grown_kilobytes"] < 64 << 10


async def test_opening_fails_before_anything_is_touched(
    recorder_thread: RecorderThread, folder: Path
) -> None:
    """R23: each of these is known before the asset hears of the session."""
    open_to_others = folder / "open"
    open_to_others.mkdir(mode=0o755)
    (folder / "there").write_bytes(b"evidence")
    (folder / "link").symlink_to(folder / "elsewhere")
    for path in (
        folder / "absent" / "a",
        open_to_others / "a",
        folder / "there",
        folder / "link",
    ):
        with pytest.raises(RecordingFailedError):
            await open_recorder(recorder_thread, path)
    assert (folder / "there").read_bytes() == b"evidence"
    assert sorted(os.listdir(folder)) == ["link", "open", "there"]


async def test_opening_fails_when_the_disk_is_nearly_full(folder: Path) -> None:
    thread = RecorderThread(minimum_free_bytes=1 << 60)
    thread.start()
    with pytest.raises(RecordingFailedError, match="free space"):
        await open_recorder(thread, folder / "a")
    await asyncio.to_thread(thread.stop)
    assert not (folder / "a").exists()


async def test_opening_fails_without_the_thread(folder: Path) -> None:
    with pytest.raises(RecordingFailedError, match="not running"):
        await open_recorder(RecorderThread(), folder / "a")
    assert not (folder / "a").exists()


@pytest.mark.parametrize(
    "changes",
    [{"started_at": "2026-03-04T05:06:07"}, {"started_at": "soon"}, {"salt": "00"}],
)
async def test_a_malformed_header_is_refused(
    recorder_thread: RecorderThread, folder: Path, changes: dict[str, str]
) -> None:
    with pytest.raises(ValueError, match=r"."):
        await open_recorder(recorder_thread, folder / "a", header={**HEADER, **changes})
    assert not (folder / "a").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte, where root allows to mount one."""
    path = tmp_path / "small"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", str(path)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small tmpfs needs root")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


async def test_a_full_disk_fails_the_recording_at_once(
    recorder_thread: RecorderThread, small_disk: Path
) -> None:
    """R23: disk full in mid-session; what was written stays and can be sealed."""
    path = small_disk / "a"
    recorder = await open_recorder(recorder_thread, path)
    recorder.add(EventKind.OUTPUT, 1, b"before")
    await until(lambda: recorder.backlog == 0)
    recorder.add(EventKind.OUTPUT, 1, os.urandom(1 << 20))
    failure = await failure_of(recorder)
    assert "No space left" in str(failure)
    assert recorder.failed is failure
    with pytest.raises(RecordingFailedError):
        recorder.add(EventKind.OUTPUT, 1, b"x")
    with pytest.raises(RecordingFailedError):
        await asyncio.wrap_future(recorder.close())
    # A callback that comes late is told as well.
    assert await failure_of(recorder) is failure
    # And before a session: the next one does not even begin.
    with pytest.raises(RecordingFailedError):
        await open_recorder(recorder_thread, small_disk / "b")
    assert not (small_disk / "b").exists()
    found = recover(path, DATA_KEY)
    assert found.segments == 1
    assert found.dropped_bytes > 0
    sealed = seal_recovered(path, signer=SIGNING_KEY, now=STARTED_AT, data_key=DATA_KEY)
    assert sealed.bytes_out == 6


def test_a_file_size_limit_fails_the_recording(folder: Path) -> None:
    """R23: a write refused for any other reason, in a process of its own."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.recordings.typist", str(folder / "a")],
        env={**os.environ, "SLUICE_TEST_FILE_LIMIT": "3000"},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert "refused: a: [Errno 27] File too large" in result.stdout
    assert "failed: a: [Errno 27] File too large" in result.stdout
    assert recover(folder / "a").segments > 0


async def test_a_removed_file_fails_the_recording(folder: Path) -> None:
    """R23: bytes written to a file nobody can find again are not recorded."""
    thread = RecorderThread(
        flush_interval_seconds=0.02, fsync_interval_seconds=0.05, minimum_free_bytes=0
    )
    thread.start()
    recorder = await open_recorder(thread, folder / "a")
    recorder.add(EventKind.OUTPUT, 1, b"x")
    shutil.rmtree(folder)
    assert "removed" in str(await failure_of(recorder))
    assert thread.alive
    await asyncio.to_thread(thread.stop)


async def test_a_file_changed_by_others_fails_the_recording(folder: Path) -> None:
    thread = RecorderThread(
        flush_interval_seconds=0.02, fsync_interval_seconds=0.05, minimum_free_bytes=0
    )
    thread.start()
    recorder = await open_recorder(thread, folder / "a")
    other = await open_recorder(thread, folder / "b")
    with (folder / "a").open("ab") as file:
        file.write(b"x")
    assert "changed by others" in str(await failure_of(recorder))
    other.add(EventKind.OUTPUT, 1, b"y")
    assert (await asyncio.wrap_future(other.close())).bytes_out == 1
    await asyncio.to_thread(thread.stop)


async def test_a_killed_thread_fails_every_recording(folder: Path) -> None:
    """R23: killed writer, in mid-session and before it."""
    thread = RecorderThread(flush_interval_seconds=0.02, minimum_free_bytes=0)
    thread.start()
    recorders = [await open_recorder(thread, folder / f"{n}") for n in range(3)]
    [ident] = [t.ident for t in threading.enumerate() if t.name == "sluice-recorder"]
    assert ident is not None
    killed = ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(ident), ctypes.py_object(SystemExit)
    )
    assert killed == 1
    for recorder in recorders:
        await failure_of(recorder)
        with pytest.raises(RecordingFailedError):
            recorder.add(EventKind.OUTPUT, 1, b"x")
    assert not thread.alive
    with pytest.raises(RecordingFailedError):
        await open_recorder(thread, folder / "late")
    await asyncio.to_thread(thread.stop)


async def test_a_hung_disk_fails_the_recordings(folder: Path) -> None:
    """R23: typing may not go on for hours while nothing can be written."""
    thread = RecorderThread(
        flush_interval_seconds=0.02, stall_seconds=0.2, minimum_free_bytes=0
    )
    thread.start()
    busy = await open_recorder(thread, folder / "busy")
    idle = await open_recorder(thread, folder / "idle")
    closing = await open_recorder(thread, folder / "closing")
    async with hung_thread(thread, folder):
        busy.add(EventKind.INPUT, 1, b"x")
        sealed = closing.close()
        assert "nothing written for" in str(await failure_of(busy))
        with pytest.raises(RecordingFailedError):
            busy.add(EventKind.INPUT, 1, b"y")
        with pytest.raises(RecordingFailedError):
            await asyncio.wrap_future(sealed)
    # The thread goes on afterwards, for those that had nothing to lose.
    idle.add(EventKind.INPUT, 1, b"z")
    assert (await asyncio.wrap_future(idle.close())).bytes_in == 1
    assert thread.alive
    await asyncio.to_thread(thread.stop)
    # What could not be sealed can be recovered: the thread let go of the file.
    for name in ("busy", "closing"):
        seal_recovered(folder / name, signer=SIGNING_KEY, now=STARTED_AT)


async def test_a_signer_that_fails_is_never_silence(
    recorder_thread: RecorderThread, folder: Path
) -> None:
    """R29: no signature, no seal, and the failure is told."""
    loop = asyncio.get_running_loop()
    for name, result in (("raises", None), ("short", b"x")):

        def sign(digest: bytes, result: bytes | None = result) -> bytes:
            if result is None:
                raise PermissionError("the key is locked")
            return result

        signer = SealSigner(key_id="SHA256:none", sign=sign)

        def blocking(name: str = name, signer: SealSigner = signer) -> Recorder:
            return recorder_thread.open(
                folder / name,
                header=HEADER,
                data_key=DATA_KEY,
                signer=signer,
                loop=loop,
            )

        recorder = await asyncio.to_thread(blocking)
        with pytest.raises(RecordingFailedError):
            await asyncio.wrap_future(recorder.close())
        assert read_sealed(folder / name) is None
        await failure_of(recorder)


async def test_a_living_writer_is_not_recovered(
    recorder_thread: RecorderThread, folder: Path
) -> None:
    recorder = await open_recorder(recorder_thread, folder / "a")
    with pytest.raises(StillWrittenError):
        seal_recovered(folder / "a", signer=SIGNING_KEY, now=STARTED_AT)
    await asyncio.wrap_future(recorder.close())


async def test_a_closed_loop_does_not_hurt_the_thread(folder: Path) -> None:
    thread = RecorderThread(flush_interval_seconds=0.02, minimum_free_bytes=0)
    thread.start()

    def of_another_loop() -> Recorder:
        async def begin() -> Recorder:
            recorder = await open_recorder(thread, folder / "a")
            recorder.subscribe(lambda events: None)
            recorder.add(EventKind.OUTPUT, 1, b"x")
            return recorder

        return asyncio.run(begin())

    recorder = await asyncio.to_thread(of_another_loop)
    sealed = await asyncio.wrap_future(recorder.close())
    assert sealed.bytes_out == 1
    assert thread.alive
    await asyncio.to_thread(thread.stop)


def test_kill_9_loses_less_than_a_second(folder: Path) -> None:
    path = folder / "a"
    with subprocess.Popen(
        [sys.executable, "-m", "tests.recordings.typist", str(path)],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        deadline = time.monotonic() + 20
        while recover(path).segments < 5:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        killed_at = time.time_ns()
        process.send_signal(signal.SIGKILL)
    found = payloads(path)
    assert killed_at - int(found[-1][2]) < 1_000_000_000
    times = [int(data) for _, _, data in found]
    assert times == sorted(times)
    sealed = seal_recovered(
        path,
        signer=Ed25519PrivateKey.generate(),
        now=STARTED_AT,
        data_key=DATA_KEY,
    )
    assert sealed.bytes_in == sum(len(data) for _, _, data in found)
    assert payloads(path) == found
