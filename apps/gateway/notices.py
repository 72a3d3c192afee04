"""The sign-in notice as the gateway tells it: held in memory, renewed on a wake-up.

So no connection waits for the database before it is told anything.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from apps.access.permits import ConnectionPermit
from apps.accounts.notices import current_notice
from apps.audit.kinds import Kind
from apps.gateway.blocking import Blocking
from apps.gateway.following import Follower
from apps.inventory.models import Site


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What an engineer is told, and asked to agree to."""

    id: uuid.UUID | None = None
    banner: str = ""
    """What anybody who connects is told: that of the gateway's site, or of all."""
    site_banners: Mapping[uuid.UUID, str] = field(default_factory=dict)
    """What is told at each site that has a text of its own."""
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
        site_banner = self.site_banners.get(permit.site_id, "")
        if site_banner != self.banner:
            # Not before the sign-in: it would tell strangers which assets there are.
            lines += site_banner.splitlines()
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

    def __init__(self, blocking: Blocking, *, site: str = "") -> None:
        self._blocking = blocking
        self._site = site
        self.current = Notice()
        self._follower = Follower(
            self.load,
            frozenset({Kind.NOTICE_CHANGED, Kind.SITE_CHANGED}),
            "the sign-in notice",
        )

    async def load(self) -> None:
        """Read the notice. Raises: DatabaseError; the one before holds on then."""
        self.current = await self._blocking.run(_read, self._site)

    async def run(self) -> None:
        """Follow changes until cancelled."""
        await self._follower.run()


def _read(site: str) -> Notice:
    row = current_notice()
    sites = list(Site.objects.exclude(banner=""))
    own = next((one.banner for one in sites if one.slug == site), "")
    site_banners = {one.pk: one.banner for one in sites}
    if row is None:
        return Notice(banner=own, site_banners=site_banners)
    return Notice(
        id=row.pk,
        banner=own or row.banner,
        site_banners=site_banners,
        consent=row.consent,
        consent_required=row.consent_required,
        greets=row.greets,
        made_at=row.made_at,
    )
