"""Reading requests and grants: who sees and decides what, and facts for the policy."""

import datetime as dt
import uuid
from collections.abc import Iterable

from django.conf import settings
from django.db.models import Q, QuerySet

from apps.access import policy
from apps.access.denials import Allowed, DenialCode, Denied
from apps.access.lifecycle import ExtensionState, RequestState
from apps.access.models import AccessRequest, Grant, GrantExtension
from apps.access.policy import (
    GrantFacts,
    PathFacts,
    PersonFacts,
    RequestRules,
    decide_approval,
    decide_connection,
)
from apps.accounts.models import User
from apps.accounts.queries import sign_in_stands
from apps.inventory.models import Asset, Conduit, Site, Zone
from apps.inventory.queries import (
    assets_with_host_key,
    conduit_to,
    conduits_into,
    gateway_zone,
    is_member,
    members_among,
    pinned_host_keys,
    sites_of,
)


def rules() -> RequestRules:
    """Return what requests must keep to, from the settings."""
    return RequestRules(
        step_minutes=settings.GRANT_STEP_MINUTES,
        maximum_minutes=settings.GRANT_MAXIMUM_MINUTES,
        work_order_pattern=settings.WORK_ORDER_PATTERN,
    )


def person_facts(user: User, site: Site, *, belongs: bool | None = None) -> PersonFacts:
    """Return what counts of `user` at `site`, read now.

    `belongs` says whether they are a member, where the caller has just read it.
    """
    return PersonFacts(
        disabled=user.disabled_at is not None,
        is_engineer=user.is_engineer,
        is_approver=user.is_approver,
        is_member=is_member(user, site) if belongs is None else belongs,
    )


def path_facts(asset: Asset, *, host_keys: tuple[str, ...] | None = None) -> PathFacts:
    """Return what counts of the way to `asset`, read now.

    `host_keys` are its pinned ones where the caller has just read them.
    """
    if host_keys is None:
        host_keys = pinned_host_keys(asset.pk)
    return _path(asset, conduit_to(asset), host_key_pinned=bool(host_keys))


def _path(asset: Asset, conduit: Conduit | None, *, host_key_pinned: bool) -> PathFacts:
    zone = conduit.from_zone if conduit else gateway_zone(asset.zone.site)
    return PathFacts(
        asset_retired=asset.retired_at is not None,
        gateway_zone=zone.name if zone else None,
        asset_zone=asset.zone.name,
        conduit=conduit.name if conduit else None,
        conduit_services=frozenset(conduit.services if conduit else ()),
        host_key_pinned=host_key_pinned,
        omits_forward_bytes=conduit is not None and conduit.omits_forward_bytes,
    )


def grant_facts(grant: Grant) -> GrantFacts:
    """Return what counts of `grant`."""
    return GrantFacts(
        starts_at=grant.starts_at,
        ends_at=grant.ends_at,
        revoked=grant.revoked_at is not None,
        finished=grant.finished_at is not None,
        services=frozenset(grant.services),
    )


def _zone_graces(user: User, *, now: dt.datetime, **where: object) -> list[int]:
    grants = (
        Grant.objects.active(at=now)
        .select_related("asset__zone")
        .filter(person=user, **where)
    )
    return [grant.asset.zone.grace_minutes for grant in grants]


def _all_zone_graces(user: User, *, now: dt.datetime) -> list[int]:
    graces = _zone_graces(user, now=now)
    if user.is_approver or user.is_auditor:
        overseen = Zone.objects.filter(site__in=sites_of(user), assets__isnull=False)
        graces += [zone.grace_minutes for zone in overseen.distinct()]
    return graces


def grace_minutes_for(user: User, *, asset_name: str | None, now: dt.datetime) -> int:
    """Return for how many minutes after a full sign-in the key alone will do now.

    Only for an asset that `user` holds an active grant on. Without a name (jumps and
    commands) every zone counts that it may lead to: those of all their grants and, of
    those who watch over sessions, all zones of their sites. 0 asks for the code.
    """
    if asset_name is None:
        return policy.grace_minutes(_all_zone_graces(user, now=now))
    return policy.grace_minutes(
        _zone_graces(user, now=now, asset__name__iexact=asset_name)
    )


def longest_grace_for(user: User, *, now: dt.datetime) -> int:
    """Return the minutes of the most generous zone that `user` may enter or oversee."""
    return max(_all_zone_graces(user, now=now), default=0)


def may_give_commands(
    user: User,
    *,
    key_id: uuid.UUID,
    signed_in_at: dt.datetime,
    age: dt.timedelta | None,
    now: dt.datetime,
) -> Allowed | Denied:
    """Say whether an SSH sign-in is still good for commands to the gateway.

    It must stand, and be as fresh as the strictest zone asks that a command may reach.
    `age` is None while the full sign-in is as good as just made.
    """
    person = User.objects.get(pk=user.pk)
    if person.disabled_at is not None:
        return Denied(DenialCode.PERSON_DISABLED)
    if not sign_in_stands(person, key_id, at=signed_in_at):
        return Denied(DenialCode.FULL_SIGN_IN_NEEDED)
    if age is None:
        return Allowed("full sign-in")
    return policy.decide_freshness(
        age, grace_minutes_for(person, asset_name=None, now=now)
    )


def standing(
    grant_ids: Iterable[uuid.UUID], *, now: dt.datetime
) -> dict[uuid.UUID, Allowed | Denied]:
    """Make the decision again for each of these grants; a grant not found is denied."""
    wanted = set(grant_ids)
    grants = list(
        Grant.objects.select_related("person", "asset__zone__site").filter(
            pk__in=wanted
        )
    )
    # As many queries for a thousand sessions as for one: this is asked every second.
    conduits = conduits_into(grant.asset.zone_id for grant in grants)
    pinned = assets_with_host_key(grant.asset_id for grant in grants)
    members = members_among(
        (grant.person_id, grant.asset.zone.site_id) for grant in grants
    )
    found: dict[uuid.UUID, Allowed | Denied] = {}
    for grant in grants:
        asset, site = grant.asset, grant.asset.zone.site
        found[grant.pk] = decide_connection(
            person_facts(
                grant.person, site, belongs=(grant.person_id, site.pk) in members
            ),
            _path(
                asset,
                conduits.get(asset.zone_id),
                host_key_pinned=asset.pk in pinned,
            ),
            grant_facts(grant),
            now=now,
        )
    return {
        grant_id: found.get(grant_id, Denied(DenialCode.NO_GRANT))
        for grant_id in wanted
    }


def usable_until(
    user: User, *, account_id: uuid.UUID, service: str, now: dt.datetime
) -> dt.datetime | None:
    """Return until when `user` could be given a permit for this account and service.

    None when not even now. Only grants of their own count, as somebody else approved
    them.
    """
    grants = (
        Grant.objects.active(at=now)
        .filter(person=user, account_id=account_id)
        .select_related("person", "asset__zone__site")
    )
    ends = []
    for grant in grants:
        path = path_facts(grant.asset)
        person = person_facts(grant.person, grant.asset.zone.site)
        stands = decide_connection(person, path, grant_facts(grant), now=now)
        if stands and service in frozenset(grant.services) & path.conduit_services:
            ends.append(grant.ends_at)
    return max(ends, default=None)


def approvers_for(asset: Asset, *, excluding: User) -> QuerySet[User]:
    """Return who could approve access to `asset` for `excluding`: never they."""
    return (
        User.objects.enabled()
        .filter(is_approver=True, site_memberships__site=asset.zone.site)
        .exclude(pk=excluding.pk)
        .order_by("full_name")
    )


def requests_visible_to(user: User) -> QuerySet[AccessRequest]:
    """Return the requests `user` may see: own; approvers' and auditors', the site's."""
    visible = Q(requester=user)
    if user.is_approver or user.is_auditor:
        visible |= Q(asset__zone__site__in=sites_of(user))
    return AccessRequest.objects.select_related(
        "requester", "asset__zone__site", "account"
    ).filter(visible)


def requests_awaiting(user: User, *, now: dt.datetime) -> QuerySet[AccessRequest]:
    """Return the requests this approver can decide now, oldest first."""
    if not user.is_approver:
        return AccessRequest.objects.none()
    return (
        AccessRequest.objects.select_related(
            "requester", "asset__zone__site", "account"
        )
        .filter(
            state=RequestState.PENDING,
            lapses_at__gt=now,
            asset__zone__site__in=sites_of(user),
        )
        .exclude(requester=user)
        .order_by("submitted_at")
    )


def extensions_visible_to(user: User) -> QuerySet[GrantExtension]:
    """Return the questions for more time `user` may see, as grants are seen."""
    return GrantExtension.objects.select_related(
        "requester",
        "decided_by",
        "grant__person",
        "grant__request",
        "grant__account",
        "grant__asset__zone__site",
    ).filter(grant__in=grants_visible_to(user).values("pk"))


def extensions_awaiting(user: User, *, now: dt.datetime) -> QuerySet[GrantExtension]:
    """Return the questions this approver can decide now; what ends first, first."""
    if not user.is_approver:
        return GrantExtension.objects.none()
    return (
        extensions_visible_to(user)
        .filter(
            state=ExtensionState.PENDING,
            grant__asset__zone__site__in=sites_of(user),
            grant__in=Grant.objects.active(at=now).values("pk"),
        )
        .exclude(requester=user)
        .order_by("grant__ends_at")
    )


def grants_of(user: User) -> QuerySet[Grant]:
    """Return the grants `user` has or had."""
    return Grant.objects.select_related(
        "asset__zone__site", "account", "request", "revoked_by"
    ).filter(person=user)


def grants_visible_to(user: User) -> QuerySet[Grant]:
    """Return the grants `user` may see: own; approvers' and auditors', the site's."""
    visible = Q(person=user)
    if user.is_approver or user.is_auditor:
        visible |= Q(asset__zone__site__in=sites_of(user))
    return Grant.objects.select_related(
        "person", "asset__zone__site", "account", "request", "revoked_by"
    ).filter(visible)


def may_decide(
    user: User, request: AccessRequest, *, now: dt.datetime
) -> Allowed | Denied:
    """Say whether `user` may approve or deny `request` now."""
    return decide_approval(
        person_facts(user, request.asset.zone.site),
        is_requester=user.pk == request.requester_id,
        is_pending=request.state == RequestState.PENDING and now < request.lapses_at,
        is_current=True,
    )


def may_decide_extension(
    user: User, extension: GrantExtension, *, now: dt.datetime
) -> Allowed | Denied:
    """Say whether `user` may approve or deny more time now."""
    grant = extension.grant
    return decide_approval(
        person_facts(user, grant.asset.zone.site),
        is_requester=user.pk == extension.requester_id,
        is_pending=extension.state == ExtensionState.PENDING and grant.is_active(now),
        is_current=True,
    )


def may_revoke(user: User, grant: Grant) -> Allowed | Denied:
    """Say whether `user` may revoke `grant`: an approver of its site may.

    The person themselves gives it back instead (`finish_grant`).
    """
    if user.disabled_at is not None or not user.is_approver:
        return Denied(DenialCode.NOT_PERMITTED)
    if not is_member(user, grant.asset.zone.site):
        return Denied(DenialCode.NOT_PERMITTED)
    return Allowed("approver of the site")
