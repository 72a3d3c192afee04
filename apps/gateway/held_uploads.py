"""Uploads that are held for release: from the channel to the quarantine.

Content waits in memory up to a limit; then the client waits. Rows and files are written
in threads. Whoever is told of something is told on the gateway's loop.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable
from typing import Final

from django.db import Error as DatabaseError
from django.utils import timezone

from apps.gateway.owned_tasks import OwnedTasks
from apps.gateway.session_context import PaperworkSide
from apps.gateway.sftp_bookkeeping import HeldFile
from apps.quarantine import operations as quarantine
from apps.quarantine.store import HeldWriter

logger = logging.getLogger(__name__)

BACKLOG_BYTES: Final = 4 << 20
"""Content of one channel that may wait to be written."""

NOT_KEPT: Final = "the file could not be kept for release"

Run = Callable[..., None]
"""Runs a step of a channel and sends what comes of it."""


class HeldUploads:
    """What one session uploads. All methods run on the gateway's loop."""

    def __init__(
        self, core: PaperworkSide, tasks: OwnedTasks, session_id: uuid.UUID
    ) -> None:
        self.core = core
        self.tasks = tasks
        self.session_id = session_id

    def channel(self, run: Run, proceed: Callable[[], None]) -> ChannelHolding:
        """Return what keeps the uploads of one channel; `proceed` lets its client go
        on."""
        return ChannelHolding(self, run, proceed)


class ChannelHolding:
    """The uploads of one channel; a `sftp_bookkeeping.Holding`."""

    def __init__(
        self, session: HeldUploads, run: Run, proceed: Callable[[], None]
    ) -> None:
        self.session = session
        self.run = run
        self._proceed = proceed
        self._backlog = 0

    @property
    def full(self) -> bool:
        """Say whether the client has to wait."""
        return self._backlog > BACKLOG_BYTES

    def open(self, path: bytes, done: Callable[[HeldFile | None], None]) -> None:
        """Begin an upload; `done` gets what keeps it, or None when that failed."""
        upload = _Upload(self, path)
        self.session.tasks.spawn(upload.receive(done), "hold an upload")

    def added(self, count: int) -> None:
        """Count content that waits."""
        self._backlog += count

    def written(self, count: int) -> None:
        """Count content that waits no more."""
        was_full = self.full
        self._backlog -= count
        if was_full and not self.full:
            self.run(self._proceed)


class _Upload:
    """One file; a `sftp_bookkeeping.HeldFile`."""

    def __init__(self, channel: ChannelHolding, path: bytes) -> None:
        self._channel = channel
        self._blocking = channel.session.core.blocking
        self._path = path
        self._waiting: list[bytes] = []
        self._news = asyncio.Event()
        self._finished: Callable[[str], None] | None = None
        self._problem = ""
        self._over = False

    def write(self, piece: bytes) -> None:
        """Take what follows."""
        if not self._problem:
            self._waiting.append(piece)
            self._channel.added(len(piece))
            self._news.set()

    def finish(self, done: Callable[[str], None]) -> None:
        """Call `done` once all is kept, with an empty text, or with what went wrong."""
        if self._over:
            asyncio.get_running_loop().call_soon(self._channel.run, done, self._problem)
            return
        self._finished = done
        self._news.set()

    def give_up(self, why: str) -> None:
        """Keep nothing of it, unless it is whole already."""
        if self._finished is None:
            self._problem = self._problem or why
            self._news.set()

    async def receive(self, opened: Callable[[HeldFile | None], None]) -> None:
        """Keep the file, from its opening to its end."""
        try:
            receiving = await self._blocking.run(
                quarantine.begin_upload,
                session_id=self._channel.session.session_id,
                path=self._path,
                now=timezone.now(),
            )
        except (DatabaseError, OSError):
            logger.exception("an upload cannot be held")
            self._channel.run(opened, None)
            return
        try:
            writer = await self._blocking.run(
                HeldWriter,
                receiving.file,
                data_key=receiving.data_key,
                row_id=receiving.held_id,
            )
        except OSError as error:
            await self._break(receiving.held_id, str(error))
            self._channel.run(opened, None)
            return
        try:
            self._channel.run(opened, self)
            await self._keep(writer, receiving.held_id)
        finally:
            writer.close()

    async def _keep(self, writer: HeldWriter, held_id: uuid.UUID) -> None:
        try:
            await self._write(writer)
            if not self._problem:
                digest = await self._blocking.run(writer.finish)
                held = await self._blocking.run(
                    quarantine.hold_upload,
                    held_id=held_id,
                    size=writer.size,
                    sha256=digest,
                    now=timezone.now(),
                )
                self._problem = "" if held else NOT_KEPT
        except (OSError, DatabaseError):
            logger.exception("the upload %s cannot be kept", held_id)
            self._problem = NOT_KEPT
        self._drop_waiting()
        if self._problem:
            await self._break(held_id, self._problem)
        self._over = True
        if self._finished is not None:
            self._channel.run(self._finished, self._problem)

    async def _write(self, writer: HeldWriter) -> None:
        """Write until all is there or it was given up. Raises: OSError."""
        while not self._problem:
            if not self._waiting:
                if self._finished is not None:
                    return
                self._news.clear()
                await self._news.wait()
                continue
            pieces, self._waiting = self._waiting, []
            content = b"".join(pieces)
            try:
                await self._blocking.run(writer.append, content)
            finally:
                self._channel.written(len(content))

    def _drop_waiting(self) -> None:
        pieces, self._waiting = self._waiting, []
        self._channel.written(sum(map(len, pieces)))

    async def _break(self, held_id: uuid.UUID, problem: str) -> None:
        try:
            await self._blocking.run(
                quarantine.break_upload,
                held_id=held_id,
                problem=problem,
                now=timezone.now(),
            )
        except DatabaseError:
            # The sweep finds it once its session has ended.
            logger.exception("the upload %s is not given up yet", held_id)
