"""The sign-in notice as the gateway tells it: held in memory, renewed on a wake-up.

So no connection waits for the database before it is told anything.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import uuid
from dataclasses import dataclass
from typing import Final

from django.db import Error as DatabaseError

from apps.accounts.notices import current_notice
from apps.audit import wakeup
from apps.audit.kinds import Kind
from apps.gateway.blocking import Blocking

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 5.0
"""A change is seen at once by a wake-up, and after so long without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What an engineer is told, and asked to agree to."""

    id: uuid.UUID | None = None
    banner: str = ""
    consent: str = ""
    consent_required: bool = False
    greets: bool = False
    made_at: dt.datetime | None = None

    @property
    def consent_to(self) -> uuid.UUID | None:
        """Return which notice whoever signs in agrees to; None if there is none."""
        return self.id if self.consent_required else None

    @property
    def consent_since(self) -> dt.datetime | None:
        """Return since when people have to agree to this text; None if they need not.

        Whoever signed in before that has not agreed to it.
        """
        return self.made_at if self.consent_required else None


class Notices:
    """The notice that holds now."""

    def __init__(self, blocking: Blocking) -> None:
        self._blocking = blocking
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.current = Notice()

    async def load(self) -> None:
        """Read the notice. Raises: DatabaseError; the one before holds on then."""
        self.current = await self._blocking.run(_read)

    def _changed(self, topic: str) -> None:
        """Wake up; called in the thread that committed a change."""
        if topic in {wakeup.UNKNOWN, Kind.NOTICE_CHANGED}:
            self._loop.call_soon_threadsafe(self._wake.set)

    async def run(self) -> None:
        """Follow changes until cancelled."""
        forget = wakeup.listen(self._changed)
        try:
            while True:
                try:
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._wake.wait()
                except TimeoutError:
                    pass
                self._wake.clear()
                try:
                    await self.load()
                except DatabaseError:
                    logger.exception("the sign-in notice could not be read")
        finally:
            forget()


def _read() -> Notice:
    row = current_notice()
    if row is None:
        return Notice()
    return Notice(
        id=row.pk,
        banner=row.banner,
        consent=row.consent,
        consent_required=row.consent_required,
        greets=row.greets,
        made_at=row.made_at,
    )
