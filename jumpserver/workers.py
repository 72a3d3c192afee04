"""A Celery worker and beat as threads of this process.

`celery.bin` would take the signals and the main thread, so the parts are started by
hand; beat gets its scheduler class named, because the embedded one ignores the setting.
"""

import logging
import threading
from typing import Any

from celery.beat import EmbeddedService, Scheduler
from celery.worker import WorkController

from jumpserver.celery import app

logger = logging.getLogger(__name__)

_STOP_SECONDS = 10.0
# It looks about at least once a second (`max_interval`).
_BEAT_STOP_SECONDS = 3.0


class _MemoryScheduler(Scheduler):
    """Keeps when each task ran last in memory: every task is a sweep over rows."""


class CeleryThreads:
    """The worker and beat of one process, each in a thread of its own."""

    def __init__(self, *, worker: bool, beat: bool) -> None:
        self._wants_worker, self._wants_beat = worker, beat
        self._worker: WorkController | None = None
        self._thread: threading.Thread | None = None
        self._beat: Any = None

    def start(self) -> None:
        """Start what was asked for."""
        app.finalize()
        if self._wants_worker:
            self._worker = WorkController(
                app=app,
                pool="threads",
                concurrency=2,
                without_heartbeat=True,
                without_mingle=True,
                without_gossip=True,
                loglevel="WARNING",
            )
            self._thread = threading.Thread(
                target=self._worker.start, name="celery-worker", daemon=True
            )
            self._thread.start()
        if self._wants_beat:
            self._beat = EmbeddedService(
                app, max_interval=1, thread=True, scheduler_cls=_MemoryScheduler
            )
            self._beat.start()

    def stop(self) -> None:
        """Stop both and wait for running tasks, at most thirteen seconds."""
        if self._beat is not None:
            # Its own stop() waits for ever while it looks for a broker that is away.
            self._beat.service.stop()
        if self._worker is not None:
            self._worker.stop(in_sighandler=False)
        if self._thread is not None:
            self._thread.join(_STOP_SECONDS)
            if self._thread.is_alive():
                logger.warning("The worker still runs a task; it is left behind")
        if self._beat is not None:
            self._beat.join(_BEAT_STOP_SECONDS)
