"""Brings released uploads to their assets, over live sessions of their own persons.

There is no other way to an asset than a session with its permit: a released upload
waits until its person has one to the same account that includes uploads. The gateway
writes on that session's connection, beside the target and under a name of its own, and
gives the file its name when all of it is there.
"""

from __future__ import annotations

import asyncio
import logging
import posixpath
import uuid
from contextlib import suppress
from typing import Any, Final

import asyncssh
from django.db import Error as DatabaseError
from django.utils import timezone

from apps.gateway.live import Core, LiveSession
from apps.quarantine import operations as quarantine
from apps.quarantine import queries
from apps.quarantine.operations import Delivery
from apps.recordings.frames import EventKind
from apps.recordings.manifest import (
    FileAction,
    FileNote,
    FileResult,
    printable,
    text_of,
)
from apps.recordings.output import RecordingFailedError

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0
STEP_SECONDS: Final = 60.0
"""Longest wait for one answer of the asset."""


class NotDeliveredError(Exception):
    """The upload did not reach its asset; the text says why."""


class HeldDelivery:
    """Looks for released uploads that a live session of this gateway can carry."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._under_way: set[uuid.UUID] = set()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if not self._core.draining:
                await self._look()

    async def _look(self) -> None:
        able = [
            session.session_id
            for session in self._core.live.values()
            if session.carries_uploads
        ]
        if not able:
            return
        try:
            found = await self._core.blocking.run(queries.deliverable, able)
        except DatabaseError:
            logger.exception("released uploads could not be looked for")
            return
        for held_id, session_id in found:
            session = self._core.live.get(session_id)
            if session is not None and held_id not in self._under_way:
                self._under_way.add(held_id)
                self._core.tasks.spawn(
                    self._deliver(session, held_id), "deliver a held upload"
                )

    async def _deliver(self, session: LiveSession, held_id: uuid.UUID) -> None:
        try:
            await self._core.check_now()
            if not session.carries_uploads:
                return
            delivery = await self._core.blocking.run(
                quarantine.begin_delivery,
                held_id=held_id,
                session_id=session.session_id,
                now=timezone.now(),
            )
            if delivery is not None:
                await self._carry(session, delivery)
        except DatabaseError:
            logger.exception("the delivery of %s is not written down", held_id)
        finally:
            self._under_way.discard(held_id)

    async def _carry(self, session: LiveSession, delivery: Delivery) -> None:
        problem = ""
        try:
            line = f"{printable(text_of(delivery.path))}: {_by(delivery)}"
            session.recorder.add(EventKind.NOTICE, 0, f"Sluice: {line}\r\n".encode())
            await self._write(session, delivery)
        except Exception as error:
            # Whatever it was: it stays released, and the page says why.
            logger.exception("%s was not delivered", delivery.held_id)
            problem = printable(str(error)) or type(error).__name__
        self._note(session, delivery, problem)
        if problem:
            await self._core.blocking.run(
                quarantine.note_not_delivered,
                held_id=delivery.held_id,
                session_id=session.session_id,
                problem=problem,
                now=timezone.now(),
            )
        else:
            await self._core.blocking.run(
                quarantine.note_delivered,
                held_id=delivery.held_id,
                session_id=session.session_id,
                now=timezone.now(),
            )

    def _note(self, session: LiveSession, delivery: Delivery, problem: str) -> None:
        path = text_of(delivery.path)
        with suppress(RecordingFailedError):
            session.note_file(
                FileNote(
                    action=FileAction.UPLOAD,
                    path=path,
                    result=FileResult.FAILED if problem else FileResult.COMPLETE,
                    started_at=delivery.started_at,
                    ended_at=timezone.now(),
                    size=0 if problem else delivery.size,
                    sha256="" if problem else delivery.sha256,
                    reason=problem or _by(delivery),
                )
            )
        what = f"was not delivered: {problem}" if problem else f"was {_by(delivery)}"
        session.notify(f"Sluice: {printable(path)} {what}")

    async def _write(self, session: LiveSession, delivery: Delivery) -> None:
        rules = session.permit.file_rules
        if found := rules.extension_problem(text_of(delivery.path)):
            raise NotDeliveredError(found)
        if 0 < rules.file_bytes < delivery.size:
            raise NotDeliveredError("it is larger than a file may be on this asset now")
        async with asyncio.timeout(STEP_SECONDS):
            sftp = await session.connection.start_sftp_client(path_encoding=None)
        try:
            async with asyncio.timeout(STEP_SECONDS):
                folder = await sftp.realpath(posixpath.dirname(delivery.path) or b".")
                await _confine(sftp, folder, rules.roots)
            name = posixpath.basename(delivery.path)
            if name in {b"", b".", b".."}:
                raise NotDeliveredError("the path names no file")
            beside = posixpath.join(
                folder, b".sluice-" + delivery.held_id.hex.encode() + b".part"
            )
            try:
                await self._fill(session, delivery, sftp, beside)
                async with asyncio.timeout(STEP_SECONDS):
                    await _rename(sftp, beside, posixpath.join(folder, name))
            except BaseException:
                with suppress(asyncssh.Error, OSError, TimeoutError):
                    async with asyncio.timeout(1):
                        await sftp.remove(beside)
                raise
        finally:
            sftp.exit()

    async def _fill(
        self, session: LiveSession, delivery: Delivery, sftp: Any, beside: bytes
    ) -> None:
        """Write the content under a name of its own and see that all of it is there."""
        async with asyncio.timeout(STEP_SECONDS):
            with suppress(asyncssh.SFTPError):
                await sftp.remove(beside)
            file = await sftp.open(
                beside,
                asyncssh.FXF_WRITE | asyncssh.FXF_CREAT | asyncssh.FXF_EXCL,
                encoding=None,
            )
        async with file:
            run = self._core.blocking.run
            while (piece := await run(next, delivery.content, None)) is not None:
                if not session.carries_uploads:
                    raise NotDeliveredError("the session was held or has ended")
                async with asyncio.timeout(STEP_SECONDS):
                    await file.write(piece)
        async with asyncio.timeout(STEP_SECONDS):
            size = (await sftp.stat(beside)).size
        if size != delivery.size:
            raise NotDeliveredError(f"the asset has {size} bytes of {delivery.size}")
        if not session.carries_uploads:
            raise NotDeliveredError("the session was held or has ended")


async def _confine(sftp: Any, folder: bytes, roots: tuple[str, ...]) -> None:
    """Raises: NotDeliveredError when `folder` is in none of the permit's folders."""
    for root in roots:
        inside = await sftp.realpath(root.encode())
        if folder == inside or folder.startswith(inside.rstrip(b"/") + b"/"):
            return
    if roots:
        raise NotDeliveredError("it is outside the folders of this asset")


async def _rename(sftp: Any, old: bytes, new: bytes) -> None:
    """Give a file its name, also over one that is there."""
    try:
        await sftp.posix_rename(old, new)
    except asyncssh.SFTPOpUnsupported:
        await sftp.rename(old, new)


def _by(delivery: Delivery) -> str:
    return f"delivered after release by {delivery.released_by}"
