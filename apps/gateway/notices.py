"""The sign-in notice as the gateway tells it: held in memory, renewed on a wake-up.

So no connection waits for the database before it is told anything.
"""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass

from apps.access.permits import ConnectionPermit
from apps.accounts.notices import current_notice
from apps.audit.kinds import Kind
from apps.gateway.blocking import Blocking
from apps.gateway.following import Follower


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What an engineer is told, and asked to agree to."""

    id: uuid.UUID | None = None
    banner: str = ""
    consent: str = ""
    consent_required: bool = False
    greets: bool = False
    made_at: dt.datetime | None = None

    def first_lines(self, permit: ConnectionPermit, deadline: dt.datetime) -> list[str]:
        """Return what a shell on a terminal begins with."""
        lines = []
        if self.greets:
            lines.append(
                f"Sluice: {permit.handle} on {permit.asset_name} as "
                f"{permit.account_name}, until {deadline:%H:%M} UTC, recorded"
            )
        if self.consent and not self.consent_required:
            lines += self.consent.splitlines()
        return lines

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
        self.current = Notice()
        self._follower = Follower(
            self.load, frozenset({Kind.NOTICE_CHANGED}), "the sign-in notice"
        )

    async def load(self) -> None:
        """Read the notice. Raises: DatabaseError; the one before holds on then."""
        self.current = await self._blocking.run(_read)

    async def run(self) -> None:
        """Follow changes until cancelled."""
        await self._follower.run()


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
