"""The way of a session's manifest to the database: some entries at a time.

The recording has every entry at once, and nothing goes on without it. The rows are for
finding: they follow within a second, at most so many for each session, and while the
database is away they wait.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from contextlib import suppress
from typing import Final

from django.db import Error as DatabaseError
from django.utils import timezone

from apps.gateway.owned_tasks import OwnedTasks
from apps.gateway.session_context import PaperworkSide
from apps.recordings import operations as recordings
from apps.recordings.manifest import FileNote, FileResult

logger = logging.getLogger(__name__)

ROWS: Final = 5000
"""Entries of one session that become rows; the recording has the others, too."""

REFUSED_ROWS: Final = 200
"""Refused requests among them: whoever goes on asking fills no table."""

BATCH: Final = 50
"""Entries that are written in one transaction."""

GATHER_SECONDS: Final = 0.3
"""How long entries are gathered before they are written."""

RETRY_SECONDS: Final = 2.0


class FileLedger:
    """Takes the entries of one session. All methods run on the gateway's loop."""

    def __init__(
        self, core: PaperworkSide, tasks: OwnedTasks, recording_id: uuid.UUID
    ) -> None:
        self._core = core
        self._tasks = tasks
        self._recording_id = recording_id
        self._waiting: list[tuple[int, FileNote]] = []
        self._taken = self._refused = 0
        self._left_out = 0
        self._hurry = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None

    def add(self, channel: int, note: FileNote) -> None:
        """Take an entry."""
        refused = note.result is FileResult.DENIED
        if self._taken >= ROWS or (refused and self._refused >= REFUSED_ROWS):
            self._left_out += 1
            return
        self._taken += 1
        self._refused += refused
        self._waiting.append((channel, note))
        if self._writer is None:
            self._writer = self._tasks.spawn(self._write(), "write a manifest")

    async def finish(self) -> None:
        """Return when everything is written, or cannot be while the gateway stops."""
        self._hurry.set()
        if self._writer is not None:
            await asyncio.wait({self._writer})
        if self._left_out:
            await self._write_batch([], self._left_out)

    async def _write(self) -> None:
        while self._waiting:
            if len(self._waiting) < BATCH:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._hurry.wait(), GATHER_SECONDS)
            batch = self._waiting[:BATCH]
            if not await self._write_batch(batch, 0):
                break
            del self._waiting[: len(batch)]
        self._writer = None

    async def _write_batch(
        self, batch: list[tuple[int, FileNote]], left_out: int
    ) -> bool:
        """Write until it has worked; False when the gateway stops before that."""
        while True:
            try:
                await self._core.blocking.run(
                    recordings.note_files,
                    recording_id=self._recording_id,
                    notes=batch,
                    left_out=left_out,
                    now=timezone.now(),
                )
            except DatabaseError:
                logger.exception("the files of a session are not written yet")
                if self._core.draining:
                    return False
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return True
