"""The authorizing of connections: the only place where a `ConnectionPermit` is made."""

import datetime as dt
import uuid
from dataclasses import dataclass

from django.conf import settings
from django.db import transaction

from apps.access import queries
from apps.access.decisions import note_decision
from apps.access.denials import DenialCode, Denied
from apps.access.models import Grant
from apps.access.permits import ConnectionPermit
from apps.access.policy import decide_connection, decide_freshness
from apps.accounts.models import User
from apps.accounts.queries import sign_in_stands
from apps.audit import operations as audit
from apps.audit.kinds import Kind
from apps.audit.models import Outcome
from apps.audit.operations import Party
from apps.inventory.addresses import parse_address, refusal
from apps.inventory.models import Asset
from apps.inventory.queries import asset_by_name, pinned_host_keys

# What anybody outside is told, whether the asset is unknown or merely not theirs.
NO_ACCESS_MESSAGE = (
    "no access: there is no active grant for this asset and account; "
    "ask for one in the portal"
)


_VOID = Denied(
    DenialCode.FULL_SIGN_IN_NEEDED, "Your sign-in no longer counts: connect again."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierSignIn:
    """A full sign-in: by which key, and when its code was checked."""

    key_id: uuid.UUID
    at: dt.datetime


@transaction.atomic
def authorize_connection(
    *,
    user: User,
    asset_name: str,
    account_name: str | None,
    source_address: str,
    door: str,
    now: dt.datetime,
    grace_age: dt.timedelta | None = None,
    earlier: EarlierSignIn | None = None,
) -> ConnectionPermit | Denied:
    """Decide whether `user` may connect now, and to exactly what.

    Without an account name the one account with an active grant is taken. Every
    decision is written down, allowed ones too. A denial says the same outside
    (`NO_ACCESS_MESSAGE`), whether the asset is unknown or only not theirs. `grace_age`
    is how old the full sign-in was when the key alone signed in; None when this
    sign-in was a full one. `earlier` is a full sign-in, by this connection or by the
    outer one of a jump, and must still stand.
    """
    person = User.objects.get(pk=user.pk)
    asset = asset_by_name(asset_name)
    void = earlier is not None and not sign_in_stands(
        person, earlier.key_id, at=earlier.at
    )
    if asset is None or void:
        return _denied(
            _VOID if void else Denied(DenialCode.UNKNOWN_ASSET),
            person=person,
            asset=None,
            asset_name=asset_name,
            account_name=account_name or "",
            source_address=source_address,
            now=now,
        )
    found = _pick_grant(person, asset, account_name, now=now)
    if isinstance(found, Denied):
        return _denied(
            found,
            person=person,
            asset=asset,
            asset_name=asset.name,
            account_name=account_name or "",
            source_address=source_address,
            now=now,
        )
    return _permit(
        person=person,
        grant=found,
        source_address=source_address,
        door=door,
        now=now,
        grace_age=grace_age,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class JumpDestination:
    """An asset that a person may knock at through a jump. No permit: that is decided
    when the account is known."""

    asset_name: str
    # The asset's name, alone and with its site.
    names: tuple[str, ...]
    port: int


@transaction.atomic
def find_jump_destination(
    *,
    user: User,
    earlier: EarlierSignIn,
    name: str,
    source_address: str,
    now: dt.datetime,
) -> JumpDestination | Denied:
    """Return the asset `name` or `name.site` when `user` holds or held a grant there.

    Every other name is answered alike, whether there is such an asset or not. The
    sign-in must still stand; when it does not, the name does not matter.
    """
    person = User.objects.get(pk=user.pk)
    label, dot, site = name.lower().removesuffix(".").partition(".")
    asset = asset_by_name(label)
    if asset is not None and dot and asset.zone.site.slug.lower() != site:
        asset = None
    denial = None
    if not sign_in_stands(person, earlier.key_id, at=earlier.at):
        denial = _VOID
    elif asset is None:
        denial = Denied(DenialCode.UNKNOWN_ASSET)
    elif not Grant.objects.filter(person=person, asset=asset).exists():
        denial = Denied(DenialCode.NO_GRANT)
    if asset is None or denial is not None:
        # A denial is falsy, so that `or` would lose it.
        return _denied(
            denial if denial is not None else Denied(DenialCode.UNKNOWN_ASSET),
            person=person,
            asset=asset,
            asset_name=asset.name if asset else name[:200],
            account_name="",
            source_address=source_address,
            now=now,
        )
    return JumpDestination(
        asset_name=asset.name,
        names=(asset.name, f"{asset.name}.{asset.zone.site.slug.lower()}"),
        port=asset.port,
    )


@transaction.atomic
def authorize_grant(
    *,
    user: User,
    grant_id: uuid.UUID,
    source_address: str,
    door: str,
    now: dt.datetime,
) -> ConnectionPermit | Denied:
    """Decide as `authorize_connection` does, for one grant of the person's own."""
    person = User.objects.get(pk=user.pk)
    grant = (
        Grant.objects.select_related("asset__zone__site", "account", "person")
        .filter(pk=grant_id, person=person)
        .first()
    )
    if grant is None:
        return _denied(
            Denied(DenialCode.NO_GRANT),
            person=person,
            asset=None,
            asset_name="",
            account_name="",
            source_address=source_address,
            now=now,
        )
    return _permit(
        person=person,
        grant=grant,
        source_address=source_address,
        door=door,
        now=now,
    )


def _pick_grant(
    person: User, asset: Asset, account_name: str | None, *, now: dt.datetime
) -> Grant | Denied:
    """Return the grant that ends last; else the newest dead one, to say why."""
    grants = Grant.objects.select_related("account").filter(person=person, asset=asset)
    if account_name is not None:
        grants = grants.filter(account__name=account_name)
    active = list(grants.active(at=now).order_by("-ends_at"))
    if len({grant.account_id for grant in active}) > 1:
        return Denied(DenialCode.ACCOUNT_AMBIGUOUS)
    newest = active[0] if active else grants.order_by("-starts_at").first()
    if newest is None:
        return Denied(DenialCode.NO_GRANT)
    newest.asset, newest.person = asset, person
    return newest


def _permit(
    *,
    person: User,
    grant: Grant,
    source_address: str,
    door: str,
    now: dt.datetime,
    grace_age: dt.timedelta | None = None,
) -> ConnectionPermit | Denied:
    asset, account = grant.asset, grant.account
    host_keys = pinned_host_keys(asset.pk)
    path = queries.path_facts(asset, host_keys=host_keys)
    verdict = decide_connection(
        queries.person_facts(person, asset.zone.site),
        path,
        queries.grant_facts(grant),
        now=now,
    )
    if verdict and grace_age is not None:
        verdict = decide_freshness(grace_age, asset.zone.grace_minutes) and verdict
    address = parse_address(asset.address)
    if verdict and address is not None and not settings.ALLOW_LOCAL_TARGETS:
        reason = refusal(address)
        if reason:
            verdict = Denied(
                DenialCode.ADDRESS_FORBIDDEN, f"{asset.address}: {reason}."
            )
    if isinstance(verdict, Denied):
        return _denied(
            verdict,
            person=person,
            asset=asset,
            asset_name=asset.name,
            account_name=account.name,
            source_address=source_address,
            now=now,
        )
    if grant.first_used_at is None:
        Grant.objects.filter(pk=grant.pk, first_used_at=None).update(first_used_at=now)
    note_decision(
        question="connection",
        verdict=verdict,
        user=person,
        asset_label=asset.name,
        asset_id=str(asset.pk),
        account_label=account.name,
        source_address=source_address,
        now=now,
    )
    audit.record(
        Kind.CONNECTION_ALLOWED,
        now=now,
        actor=person.party,
        subject=asset.party,
        source_address=source_address,
        data={
            "account": account.name,
            "grant": str(grant.pk),
            "door": door,
            "conduit": verdict.rule,
        },
    )
    return ConnectionPermit(
        user_id=person.pk,
        handle=person.username,
        site_id=asset.zone.site_id,
        asset_id=asset.pk,
        asset_name=asset.name,
        address=asset.address,
        port=asset.port,
        host_keys=host_keys,
        crypto_profile=asset.crypto_profile,
        account_id=account.pk,
        account_name=account.name,
        login=account.login,
        credential_kind=account.credential_kind,
        sign_in=account.sign_in,
        grant_id=grant.pk,
        services=frozenset(grant.services) & path.conduit_services,
        omits_forward_bytes=path.omits_forward_bytes,
        deadline=grant.ends_at,
        end_mode=asset.on_expiry,
        grace_seconds=asset.grace_seconds,
        in_operation=asset.in_operation,
        session_limit=asset.session_limit,
        file_rules=asset.file_rules,
        idle_lock_minutes=asset.locks_after_minutes,
        idle_end_minutes=asset.ends_after_minutes,
        source_address=source_address,
        door=door,
        issued_at=now,
    )


def _denied(
    denial: Denied,
    *,
    person: User,
    asset: Asset | None,
    asset_name: str,
    account_name: str,
    source_address: str,
    now: dt.datetime,
) -> Denied:
    """Write a denied connection down and return it."""
    note_decision(
        question="connection",
        verdict=denial,
        user=person,
        asset_label=asset_name,
        asset_id=str(asset.pk) if asset else "",
        account_label=account_name,
        source_address=source_address,
        now=now,
    )
    audit.record(
        Kind.CONNECTION_DENIED,
        now=now,
        actor=person.party,
        subject=asset.party if asset else Party("asset", "", asset_name[:200]),
        source_address=source_address,
        outcome=Outcome.DENIED,
        data={"code": denial.code, "account": account_name},
    )
    return denial


def outside_message(denial: Denied) -> str:
    """Return what the person outside is told: never whether an asset exists.

    An expired or revoked grant was theirs, so its end may be named.
    """
    if denial.code in _TELLING:
        return denial.message
    return NO_ACCESS_MESSAGE


_TELLING = frozenset(
    {
        DenialCode.GRANT_EXPIRED,
        DenialCode.GRANT_REVOKED,
        DenialCode.GRANT_FINISHED,
        DenialCode.GRANT_NOT_STARTED,
        DenialCode.ACCOUNT_AMBIGUOUS,
        DenialCode.FULL_SIGN_IN_NEEDED,
        DenialCode.NO_HOST_KEY,
        DenialCode.SESSION_LIMIT,
        DenialCode.ADDRESS_FORBIDDEN,
        DenialCode.NO_CONDUIT,
        DenialCode.NO_CREDENTIAL,
    }
)
