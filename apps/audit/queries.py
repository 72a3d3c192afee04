"""Reading the ledger: filters for people, and checking the chain."""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass

from django.db.models import Q, QuerySet

from apps.audit.chain import GENESIS, leaf_hash, link_hash
from apps.audit.models import AuditEvent


def search(
    *,
    text: str = "",
    kind: str = "",
    actor: str = "",
    outcome: str = "",
    since: dt.datetime | None = None,
    until: dt.datetime | None = None,
) -> QuerySet[AuditEvent]:
    """Return events, newest first; every filter that is not empty narrows it.

    `kind` is a whole kind or a prefix ending in a dot; the period is half-open.
    """
    events = AuditEvent.objects.order_by("-seq")
    if text:
        events = events.filter(
            Q(object_label__icontains=text)
            | Q(actor_label__icontains=text)
            | Q(data__icontains=text)
        )
    if kind:
        events = (
            events.filter(kind__startswith=kind)
            if kind.endswith(".")
            else events.filter(kind=kind)
        )
    if actor:
        events = events.filter(actor_label__icontains=actor)
    if outcome:
        events = events.filter(outcome=outcome)
    if since is not None:
        events = events.filter(at__gte=since)
    if until is not None:
        events = events.filter(at__lt=until)
    return events


@dataclass(frozen=True, slots=True)
class ChainVerdict:
    """What a check of the chain found; `broken_at` is the first bad number."""

    checked: int
    broken_at: int | None
    reason: str

    def __bool__(self) -> bool:
        return self.broken_at is None


def verify_chain() -> ChainVerdict:
    """Recompute the whole chain from the rows and say where it first breaks."""
    previous, expected = GENESIS, 1
    for event in AuditEvent.objects.order_by("seq").iterator(chunk_size=2000):
        if event.seq != expected:
            return ChainVerdict(expected - 1, expected, f"number {expected} is missing")
        leaf = leaf_hash(event.canonical())
        if leaf != bytes(event.leaf_hash):
            return ChainVerdict(expected - 1, event.seq, "the event was altered")
        if bytes(event.previous_hash) != previous:
            return ChainVerdict(expected - 1, event.seq, "the chain was cut here")
        previous = link_hash(previous, leaf)
        if previous != bytes(event.hash):
            return ChainVerdict(expected - 1, event.seq, "the chain hash is wrong")
        expected += 1
    return ChainVerdict(expected - 1, None, "")


def export_lines(*, first: int = 1) -> Iterator[dict[str, object]]:
    """Yield a JSON-ready line per event from number `first` (verifier's format)."""
    for event in (
        AuditEvent.objects.filter(seq__gte=first).order_by("seq").iterator(2000)
    ):
        yield {
            "event": event.canonical(),
            "leaf_hash": bytes(event.leaf_hash).hex(),
            "hash": bytes(event.hash).hex(),
        }
