"""Writing recordings: one thread per process, one `Recorder` per session.

The gateway's event loop only appends to a list. The thread frames, compresses,
encrypts, hashes and writes; it flushes at 1 MB or every 200 ms and syncs to disk once a
second, so `kill -9` loses less than a second. It fails closed (R23): the first error
ends the recording, and its owner is told at once and must end the session.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.recordings.frames import MAX_EVENT_BYTES, STREAM_KINDS, Event, EventKind
from apps.recordings.output import (
    AlreadySealedError,
    OutputFile,
    RecordingFailedError,
    SealedRecording,
    StillWrittenError,
    read_sealed,
    seal_recovered,
)
from apps.recordings.seal import SealSigner, as_signer

__all__ = [
    "AlreadySealedError",
    "FlushedEvents",
    "Recorder",
    "RecorderThread",
    "RecordingFailedError",
    "SealedRecording",
    "StillWrittenError",
    "read_sealed",
    "seal_recovered",
]

logger = logging.getLogger(__name__)

WAKE_BYTES: Final = 1 << 20
"""The thread is woken when this much waits for it."""
BACKLOG_LIMIT_BYTES: Final = 8 << 20
"""More than this may not wait: the source must be paused."""
EVENT_COST_BYTES: Final = 160
"""What an event costs in memory beside its payload: many small ones count as well."""
STALL_SECONDS: Final = 10.0
"""When nothing could be written for so long, the recording has failed."""
MINIMUM_FREE_BYTES: Final = 32 << 20
"""With less free space than this no new recording is begun."""


class FlushedEvents(list[Event]):
    """Events that have just been written, as live watchers get them."""

    def __init__(self, events: list[Event], *, first_number: int) -> None:
        super().__init__(events)
        self.first_number = first_number
        """How many events of the recording come before these, to join without gap."""


class Recorder:
    """The recording of one session, as the gateway's event loop sees it.

    Every public method is called on that loop; callbacks run on it too.
    """

    def __init__(
        self,
        file: OutputFile,
        loop: asyncio.AbstractEventLoop,
        wake: threading.Event,
        *,
        stall_seconds: float,
    ) -> None:
        self._stall_seconds = stall_seconds
        self._file = file
        self._loop = loop
        self._wake = wake
        self._started_ns = time.monotonic_ns()
        # (kind, channel, monotonic nanoseconds, payload). The loop appends; the thread
        # cuts off the front. Both are single steps under the interpreter lock.
        self._queue: list[tuple[EventKind, int, int, bytes]] = []
        self._taken_ns: int | None = None
        self._added = 0
        self._written = 0
        self._events_written = 0
        self._refusal: RecordingFailedError | None = None
        self._failure: RecordingFailedError | None = None
        self._failure_reported = False
        self._failure_callbacks: list[Callable[[RecordingFailedError], None]] = []
        self._drained_callbacks: list[Callable[[], None]] = []
        self._watchers: list[Callable[[FlushedEvents], None]] = []
        self._closing_ns: int | None = None
        self._sealed: Future[SealedRecording] | None = None
        self._end_lock = threading.Lock()
        self._checked_ns = self._started_ns
        # The thread cannot tell that it hangs, so the loop has to look.
        self._on_loop(self._watch_for_stall)

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self._file.path

    @property
    def failed(self) -> RecordingFailedError | None:
        """Why the recording cannot go on, or None while it can."""
        return self._failure

    @property
    def backlog(self) -> int:
        """Bytes of memory held by events that are not yet written."""
        return self._added - self._written

    @property
    def over_limit(self) -> bool:
        """True when the source must be paused until `on_drained` calls."""
        return self._added - self._written > BACKLOG_LIMIT_BYTES

    @property
    def seconds_behind(self) -> float:
        """Age of the oldest event not yet written; grows when the disk hangs.

        Of a recording that is closed but not yet sealed: how long that takes.
        """
        oldest = self._taken_ns
        if oldest is None:
            head = self._queue[:1]
            if head:
                oldest = head[0][2]
            elif self._sealed is not None and not self._sealed.done():
                oldest = self._closing_ns
        return 0.0 if oldest is None else (time.monotonic_ns() - oldest) / 1e9

    def add(
        self, kind: EventKind, channel: int, data: bytes | bytearray | memoryview
    ) -> None:
        """Record one event now. Never blocks; anything but `bytes` is copied.

        Raises: RecordingFailedError after a failure and after `close`; ValueError for a
        payload over 1 MB that is no piece of a stream (a stream's is cut into pieces).
        """
        if self._refusal is not None:
            raise self._refusal
        if type(data) is not bytes:
            data = bytes(data)
        size = len(data)
        if size > MAX_EVENT_BYTES:
            self._add_pieces(kind, channel, data)
            return
        self._queue.append((kind, channel, time.monotonic_ns(), data))
        self._added += size + EVENT_COST_BYTES
        if self._added - self._written >= WAKE_BYTES and not self._wake.is_set():
            self._wake.set()

    def _add_pieces(self, kind: EventKind, channel: int, data: bytes) -> None:
        if kind not in STREAM_KINDS:
            raise ValueError(f"{kind.name} payload is over {MAX_EVENT_BYTES} bytes")
        for start in range(0, len(data), MAX_EVENT_BYTES):
            self.add(kind, channel, data[start : start + MAX_EVENT_BYTES])

    def on_drained(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, as soon as the backlog is under half the limit."""
        self._drained_callbacks.append(callback)
        # Looked at after appending; the thread looks the other way round.
        if self.backlog < BACKLOG_LIMIT_BYTES // 2:
            self._loop.call_soon(self._report_drained)

    def on_failure(self, callback: Callable[[RecordingFailedError], None]) -> None:
        """Call `callback` once with the reason when the recording cannot go on."""
        if self._failure_reported and self._failure is not None:
            self._loop.call_soon(callback, self._failure)
        else:
            self._failure_callbacks.append(callback)

    def subscribe(
        self, callback: Callable[[FlushedEvents], None]
    ) -> Callable[[], None]:
        """Call `callback` with the events of every flush; returns what ends that."""
        self._watchers.append(callback)

        def unsubscribe() -> None:
            if callback in self._watchers:
                self._watchers.remove(callback)

        return unsubscribe

    def close(self) -> Future[SealedRecording]:
        """Write what waits, seal the file, and say so in the future returned.

        Its exception is RecordingFailedError when that was not possible; the file is
        then without a seal, for `seal_recovered`. Calling again gives the same future.
        """
        with self._end_lock:
            if self._sealed is None:
                self._sealed = Future()
                # From here on nobody can cancel it under the thread's hands.
                self._sealed.set_running_or_notify_cancel()
                if self._failure is not None:
                    self._sealed.set_exception(self._failure)
                else:
                    self._refusal = RecordingFailedError("recording is closed")
                    self._closing_ns = time.monotonic_ns()
            sealed = self._sealed
        self._wake.set()
        return sealed

    # What follows runs in the recorder thread.

    def write_pending(self, *, sync_interval_seconds: float) -> bool:
        """Write what waits and sync when due; return False when sealed.

        Raises: OSError and whatever goes wrong; the caller then calls `fail`.
        """
        closing_ns = self._closing_ns  # Before the queue: nothing is added after it.
        count = len(self._queue)
        batch = self._queue[:count]
        if batch:
            self._taken_ns = batch[0][2]
            del self._queue[:count]
            self._write(batch, final=closing_ns is not None)
            self._taken_ns = None
        if self._failure is not None:
            raise self._failure
        if closing_ns is not None:
            self._seal(closing_ns)
            return False
        now_ns = time.monotonic_ns()
        if now_ns - self._checked_ns >= sync_interval_seconds * 1e9:
            self._file.sync()
            self._file.encoder.rest((now_ns - self._started_ns) // 1000)
            self._checked_ns = now_ns
        if self._drained_callbacks and self.backlog < BACKLOG_LIMIT_BYTES // 2:
            self._on_loop(self._report_drained)
        return True

    def _write(
        self, batch: list[tuple[EventKind, int, int, bytes]], *, final: bool
    ) -> None:
        start = self._started_ns
        events = [
            Event(kind, channel, (ns - start) // 1000, data)
            for kind, channel, ns, data in batch
        ]
        self._file.append(events, final=final)
        first_number = self._events_written
        self._events_written += len(events)
        self._written += sum(map(len, (event.data for event in events)))
        self._written += EVENT_COST_BYTES * len(events)
        if self._watchers:
            flushed = FlushedEvents(events, first_number=first_number)
            self._on_loop(self._show_watchers, flushed)

    def _seal(self, closing_ns: int) -> None:
        duration = (closing_ns - self._started_ns) // 1000
        sealed = self._file.seal(duration_microseconds=duration)
        with self._end_lock:
            if self._sealed is not None and self._failure is None:
                self._sealed.set_result(sealed)

    def fail(self, error: BaseException) -> None:
        """Give the recording up because of `error` and tell the loop."""
        # Closed first: whoever is told may want to recover the file at once.
        self._file.close()
        self._give_up(error)
        self._queue.clear()
        self._taken_ns = None

    def _give_up(self, error: BaseException) -> None:
        failure = RecordingFailedError(f"{self.path.name}: {error}")
        failure.__cause__ = error
        with self._end_lock:
            if self._failure is not None:
                return
            if self._sealed is not None:
                if self._sealed.done():
                    return
                self._sealed.set_exception(failure)
            self._failure = self._refusal = failure
        self._on_loop(self._report_failure)

    def _on_loop(self, callback: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            logger.warning("%s: the event loop is closed", self.path.name)

    # And this on the loop again. Each callback is its own step of the loop, so that one
    # that raises does not keep the others from being called.

    def _watch_for_stall(self) -> None:
        if self._failure is not None or (self._sealed and self._sealed.done()):
            return
        behind = self.seconds_behind
        if behind > self._stall_seconds:
            # Only the thread may close the file: it may be in the middle of a write.
            self._give_up(TimeoutError(f"nothing written for {behind:.1f} seconds"))
        else:
            self._loop.call_later(self._stall_seconds / 4, self._watch_for_stall)

    def _report_drained(self) -> None:
        callbacks, self._drained_callbacks[:] = self._drained_callbacks[:], []
        for callback in callbacks:
            self._loop.call_soon(callback)

    def _report_failure(self) -> None:
        self._failure_reported = True
        callbacks, self._failure_callbacks = self._failure_callbacks, []
        for callback in callbacks:
            self.on_failure(callback)

    def _show_watchers(self, flushed: FlushedEvents) -> None:
        for callback in self._watchers:
            self._loop.call_soon(callback, flushed)


class RecorderThread:
    """The thread that writes all recordings of this process."""

    def __init__(
        self,
        *,
        fsync_interval_seconds: float = 1.0,
        flush_interval_seconds: float = 0.2,
        stall_seconds: float = STALL_SECONDS,
        minimum_free_bytes: int = MINIMUM_FREE_BYTES,
    ) -> None:
        self._fsync_interval_seconds = fsync_interval_seconds
        self._flush_interval_seconds = flush_interval_seconds
        self._stall_seconds = stall_seconds
        self._minimum_free_bytes = minimum_free_bytes
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._recorders: list[Recorder] = []
        self._accepting = False
        self._thread = threading.Thread(
            target=self._run, name="sluice-recorder", daemon=True
        )

    @property
    def alive(self) -> bool:
        """True from `start` until `stop`, unless the thread died."""
        return self._accepting and self._thread.is_alive()

    def start(self) -> None:
        """Start the thread; once only."""
        self._accepting = True
        self._thread.start()

    def stop(self) -> None:
        """Seal every recording still open, then end the thread. Blocks until then.

        To be called when no session adds anything any more.
        """
        with self._lock:
            self._accepting = False
            recorders = list(self._recorders)
        for recorder in recorders:
            recorder.close()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()

    def open(
        self,
        path: Path,
        *,
        header: Mapping[str, str],
        data_key: bytes,
        signer: SealSigner | Ed25519PrivateKey,
        loop: asyncio.AbstractEventLoop,
    ) -> Recorder:
        """Create the recording at `path` and return its recorder; the header is synced.

        Blocking: call it from a worker thread, before anything touches the asset.
        `header` is plain text by name and needs `started_at` (ISO 8601 with time zone);
        `data_key` is 32 bytes; callbacks will come on `loop`.
        Raises: RecordingFailedError when it cannot be written here and now; ValueError
        for a header or a key that is malformed.
        """
        self._require_alive()
        try:
            file = OutputFile(
                path,
                header=header,
                data_key=data_key,
                signer=as_signer(signer),
                minimum_free_bytes=self._minimum_free_bytes,
            )
        except OSError as error:
            raise RecordingFailedError(f"{path.name}: {error}") from error
        recorder = Recorder(file, loop, self._wake, stall_seconds=self._stall_seconds)
        with self._lock:
            try:
                self._require_alive()
            except RecordingFailedError:
                file.close()
                raise
            self._recorders.append(recorder)
        self._wake.set()
        return recorder

    def _require_alive(self) -> None:
        if not self.alive:
            raise RecordingFailedError("the recorder thread is not running")

    def _run(self) -> None:
        try:
            while self._accepting or self._recorders:
                self._wake.wait(
                    self._flush_interval_seconds if self._recorders else None
                )
                self._wake.clear()
                self._write_all_pending()
        except BaseException as error:
            # Whatever ends this thread ends every recording: none may go on unwritten.
            logger.exception("the recorder thread died")
            self._die(error)

    def _write_all_pending(self) -> None:
        with self._lock:
            recorders = list(self._recorders)
        for recorder in recorders:
            try:
                open_still = recorder.write_pending(
                    sync_interval_seconds=self._fsync_interval_seconds
                )
            except Exception as error:
                logger.exception("recording %s failed", recorder.path.name)
                recorder.fail(error)
                open_still = False
            if not open_still:
                with self._lock:
                    self._recorders.remove(recorder)

    def _die(self, error: BaseException) -> None:
        with self._lock:
            self._accepting = False
            recorders, self._recorders = self._recorders, []
        for recorder in recorders:
            recorder.fail(error)
