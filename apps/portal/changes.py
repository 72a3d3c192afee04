"""Tells browsers what changed: from the ledger's wake-ups to the channel layer.

One `ChangesBridge` per portal process, kept running by the supervisor. A wake-up is
only a hint that the ledger grew; what is new is read from the ledger, and each event's
kind is sent to the people and sites it concerns. Nothing but kinds is sent: the page
asks again, and its view decides what the person sees.
"""

import asyncio
import logging
import uuid
from collections import defaultdict
from dataclasses import dataclass

from channels.db import DatabaseSyncToAsync
from channels.layers import get_channel_layer
from django.db import Error
from django.db.models import Model

from apps.access.models import AccessRequest, Grant
from apps.accounts.models import User
from apps.audit import wakeup
from apps.audit.models import AuditEvent
from apps.audit.operations import ledger_head
from apps.inventory.models import Asset, Conduit, Site, TargetAccount, Zone
from apps.inventory.queries import sites_of, sites_visible_to
from apps.recordings.models import Recording
from apps.sessions.models import Session
from apps.vault.models import Lease

logger = logging.getLogger(__name__)

# Hints of the same moment travel together; a person does not see a tenth of a second.
_GATHER_SECONDS = 0.05
_LOOK_SECONDS = 5.0
_MOST_EVENTS = 200
EVERYBODY = "changes.everybody"


def person_group(user_id: object) -> str:
    """Return the channel-layer group of one person."""
    return f"changes.person.{user_id}"


def staff_group(site_id: object) -> str:
    """Return the channel-layer group of a site's approvers and auditors."""
    return f"changes.staff.{site_id}"


def members_group(site_id: object) -> str:
    """Return the channel-layer group of everybody who may see a site's inventory."""
    return f"changes.members.{site_id}"


def groups_of(user: User) -> list[str]:
    """Return the groups `user` listens to: their own, and those of their sites."""
    groups = [EVERYBODY, person_group(user.pk)]
    groups += [members_group(site.pk) for site in sites_visible_to(user)]
    if user.is_approver or user.is_auditor:
        groups += [staff_group(site.pk) for site in sites_of(user)]
    return groups


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What the ledger gained: up to `seq`, and which kinds concern which group."""

    seq: int
    kinds: dict[str, set[str]]


class ChangesBridge:
    """Reads what the ledger gained and says so to the channel layer."""

    def __init__(self) -> None:
        self._woken = asyncio.Event()
        self._seq = 0

    async def run(self) -> None:
        """Run until cancelled. A database that is away is tried again."""
        loop = asyncio.get_running_loop()

        def wake(_topic: str) -> None:
            loop.call_soon_threadsafe(self._woken.set)

        forget = wakeup.listen(wake)
        try:
            self._seq = await _ask_head()
            while True:
                await self._wait()
                await self._tell()
        finally:
            forget()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                await self._woken.wait()
        except TimeoutError:
            return
        await asyncio.sleep(_GATHER_SECONDS)
        self._woken.clear()

    async def _tell(self) -> None:
        try:
            news = await _ask_news(self._seq)
        except Error:
            logger.warning("The ledger could not be read; trying again.", exc_info=True)
            return
        self._seq = news.seq
        layer = get_channel_layer()
        if layer is None:
            return
        for group, kinds in news.kinds.items():
            message = {
                "type": "changed",
                "group": group,
                "kinds": sorted(kinds),
                "seq": news.seq,
            }
            await layer.group_send(group, message)


def news_since(seq: int) -> News:
    """Return what the ledger gained after event `seq`."""
    kinds: dict[str, set[str]] = defaultdict(set)
    for event in AuditEvent.objects.filter(seq__gt=seq).order_by("seq")[:_MOST_EVENTS]:
        seq = event.seq
        for group in _audience(event):
            kinds[group].add(event.kind)
    return News(seq=seq, kinds=dict(kinds))


def _audience(event: AuditEvent) -> set[str]:
    """Return the groups an event concerns: who did it, whose it is, and its site."""
    kind, identifier = event.object_type, _identifier(event.object_id)
    actor = _identifier(event.actor_id)
    groups = {person_group(actor)} if actor else set()
    if kind == "gateway":
        groups.add(EVERYBODY)
    if identifier is None:
        return groups
    if kind == "person":
        groups.add(person_group(identifier))
    owner, site = _owner_and_site(kind, identifier)
    if owner is not None:
        groups.add(person_group(owner))
    if site is not None:
        in_sight_of = members_group if kind in _INVENTORY else staff_group
        groups.add(in_sight_of(site))
    return groups


def _identifier(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


# For each type of object: where its owner and its site stand.
_PLACES: dict[str, tuple[type[Model], str | None, str]] = {
    "request": (AccessRequest, "requester_id", "asset__zone__site_id"),
    "grant": (Grant, "person_id", "asset__zone__site_id"),
    "session": (Session, "person_id", "asset__zone__site_id"),
    "recording": (
        Recording,
        "session__person_id",
        "session__asset__zone__site_id",
    ),
    "lease": (Lease, "session__person_id", "account__asset__zone__site_id"),
    "asset": (Asset, None, "zone__site_id"),
    "account": (TargetAccount, None, "asset__zone__site_id"),
    "zone": (Zone, None, "site_id"),
    "conduit": (Conduit, None, "from_zone__site_id"),
    "site": (Site, None, "pk"),
}
_INVENTORY = frozenset({"asset", "account", "zone", "conduit", "site"})


def _owner_and_site(kind: str, identifier: uuid.UUID) -> tuple[object, object]:
    """Return the person a thing belongs to and its site, None where there is none."""
    if kind not in _PLACES:
        return None, None
    model, owner, site = _PLACES[kind]
    rows = model._default_manager.filter(pk=identifier)
    row = rows.values_list(owner or "pk", site).first()
    if row is None:
        return None, None
    return (row[0] if owner else None), row[1]


def _head() -> int:
    return ledger_head()[0]


_ask_head = DatabaseSyncToAsync(_head, thread_sensitive=False)
_ask_news = DatabaseSyncToAsync(news_since, thread_sensitive=False)
ask_groups = DatabaseSyncToAsync(groups_of, thread_sensitive=False)
