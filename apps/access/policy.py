"""The policy decision point: pure functions of plain values and `now`.

Deny by default: every function names each condition on a line of its own and ends in
the one way to be allowed. Rows become facts in `access.queries`; nothing here reads
anything.
"""

import datetime as dt
import re
from collections.abc import Iterable
from dataclasses import dataclass

from apps.access.denials import Allowed, DenialCode, Denied


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonFacts:
    """What counts of a person, at one site."""

    disabled: bool
    is_engineer: bool
    is_approver: bool
    is_member: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PathFacts:
    """What counts of the way from the gateway to an asset."""

    asset_retired: bool
    gateway_zone: str | None
    asset_zone: str
    conduit: str | None
    conduit_services: frozenset[str]
    host_key_pinned: bool
    omits_forward_bytes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantFacts:
    """What counts of a grant."""

    starts_at: dt.datetime
    ends_at: dt.datetime
    revoked: bool
    finished: bool
    services: frozenset[str]


def decide_path(person: PersonFacts, path: PathFacts) -> Allowed | Denied:
    """Say whether this person may ever be led to this asset, grant or not.

    Source: IEC 62443-3-2 (zones and conduits): what no conduit permits is denied.
    """
    if person.disabled:
        return Denied(DenialCode.PERSON_DISABLED)
    if not person.is_engineer:
        return Denied(DenialCode.NOT_ENGINEER)
    if not person.is_member:
        return Denied(DenialCode.NOT_A_MEMBER)
    if path.asset_retired:
        return Denied(DenialCode.ASSET_RETIRED)
    if path.gateway_zone is None:
        return Denied(DenialCode.NO_GATEWAY_ZONE)
    if path.conduit is None:
        return Denied(
            DenialCode.NO_CONDUIT,
            f"No conduit leads from zone “{path.gateway_zone}” to zone "
            f"“{path.asset_zone}”: what no conduit permits is denied "
            f"(rule {DenialCode.NO_CONDUIT}).",
        )
    return Allowed(path.conduit)


def decide_connection(
    person: PersonFacts, path: PathFacts, grant: GrantFacts | None, *, now: dt.datetime
) -> Allowed | Denied:
    """Say whether a connection may start, or go on, at `now`.

    Asked at connect, on every new channel, on every signal and every few seconds.
    """
    verdict = decide_path(person, path)
    if not verdict:
        return verdict
    if grant is None:
        return Denied(DenialCode.NO_GRANT)
    if grant.revoked:
        return Denied(DenialCode.GRANT_REVOKED)
    if grant.finished:
        return Denied(DenialCode.GRANT_FINISHED)
    if now < grant.starts_at:
        return Denied(DenialCode.GRANT_NOT_STARTED)
    if now >= grant.ends_at:
        return Denied(DenialCode.GRANT_EXPIRED)
    if not path.host_key_pinned:
        return Denied(DenialCode.NO_HOST_KEY)
    if not grant.services & path.conduit_services:
        return Denied(DenialCode.SERVICE_NOT_IN_CONDUIT)
    return verdict


def grace_minutes(zones: Iterable[int]) -> int:
    """Return for how long after a full sign-in the key alone will do; 0 is never.

    `zones` are the numbers of the zones this sign-in may lead to: the shortest counts.
    A sign-in that may lead nowhere needs the code, so that an unknown asset, one that
    is not the person's, and one whose zone has no grace are asked for alike.
    """
    return min(zones, default=0)


def decide_freshness(age: dt.timedelta, minutes: int) -> Allowed | Denied:
    """Say whether a full sign-in of this `age` will do for a zone with this grace."""
    if age >= dt.timedelta(minutes=minutes):
        return Denied(DenialCode.FULL_SIGN_IN_NEEDED)
    return Allowed("grace")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFacts:
    """What somebody asks for."""

    services: frozenset[str]
    minutes: int
    reason: str
    work_order: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRules:
    """What the site accepts."""

    step_minutes: int
    maximum_minutes: int
    work_order_pattern: str


def decide_request(
    person: PersonFacts,
    path: PathFacts,
    request: RequestFacts,
    rules: RequestRules,
    *,
    approvers: int,
) -> Allowed | Denied:
    """Say whether a request may be put before the approvers."""
    verdict = decide_path(person, path)
    if not verdict:
        return verdict
    if not request.services:
        return Denied(DenialCode.SERVICES_MISSING)
    missing = request.services - path.conduit_services
    if missing:
        return Denied(
            DenialCode.SERVICE_NOT_IN_CONDUIT,
            f"Conduit {path.conduit} does not carry {', '.join(sorted(missing))}.",
        )
    duration = decide_minutes(request.minutes, rules)
    if not duration:
        return duration
    if not request.reason.strip():
        return Denied(DenialCode.REASON_MISSING)
    if not re.fullmatch(rules.work_order_pattern, request.work_order):
        return Denied(
            DenialCode.WORK_ORDER_REFUSED,
            "The work-order number must have the form "
            f"{rules.work_order_pattern} (for example WO-20417).",
        )
    if approvers == 0:
        return Denied(
            DenialCode.NO_APPROVER,
            "This site has no approver but you: ask an administrator to name one.",
        )
    return verdict


def decide_minutes(minutes: int, rules: RequestRules) -> Allowed | Denied:
    """Say whether so many minutes can be asked for or granted."""
    if not rules.step_minutes <= minutes <= rules.maximum_minutes:
        return Denied(
            DenialCode.DURATION_REFUSED,
            f"Ask for {rules.step_minutes} to {rules.maximum_minutes} minutes.",
        )
    if minutes % rules.step_minutes:
        return Denied(
            DenialCode.DURATION_REFUSED,
            f"Ask for a multiple of {rules.step_minutes} minutes.",
        )
    return Allowed("duration")


def decide_extension(
    grant: GrantFacts, minutes: int, rules: RequestRules
) -> Allowed | Denied:
    """Say whether a grant may end so many minutes later; the whole of it is capped."""
    granted = grant.ends_at - grant.starts_at
    if minutes < rules.step_minutes or minutes % rules.step_minutes:
        return Denied(
            DenialCode.DURATION_REFUSED,
            f"Ask for a multiple of {rules.step_minutes} minutes.",
        )
    # Compared this way round, as a number of any size can be asked for.
    if minutes > rules.maximum_minutes - granted / dt.timedelta(minutes=1):
        return Denied(
            DenialCode.DURATION_REFUSED,
            f"With that the access would be longer than {rules.maximum_minutes} "
            "minutes in all: ask for a new one.",
        )
    return Allowed("duration")


def decide_approval(
    approver: PersonFacts, *, is_requester: bool, is_pending: bool, is_current: bool
) -> Allowed | Denied:
    """Say whether this person may decide this request now (R21)."""
    if approver.disabled:
        return Denied(DenialCode.PERSON_DISABLED)
    if is_requester:
        return Denied(DenialCode.OWN_REQUEST)
    if not approver.is_approver:
        return Denied(DenialCode.NOT_APPROVER)
    if not approver.is_member:
        return Denied(DenialCode.NOT_APPROVER)
    if not is_pending:
        return Denied(DenialCode.REQUEST_NOT_PENDING)
    if not is_current:
        return Denied(DenialCode.REQUEST_CHANGED)
    return Allowed("approver of the site")


def clip_minutes(asked: int, granted: int) -> int:
    """Return what an approver granted, never more than what was asked."""
    return min(asked, granted)
