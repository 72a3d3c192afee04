"""Every write to the inventory. Only administrators come here; the portal checks."""

import datetime as dt
import uuid
import zoneinfo
from collections.abc import Iterable, Mapping

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from apps.accounts.models import BANNER_LENGTH, User
from apps.accounts.notices import NoticeRefusedError, clean_text
from apps.accounts.public_keys import PublicKeyRefusedError, fingerprint_of
from apps.accounts.ssh_sign_in import end_graces
from apps.audit import operations as audit
from apps.audit.kinds import Kind
from apps.audit.operations import Party
from apps.inventory.addresses import parse_address, refusal
from apps.inventory.file_rules import FileRuleError, check_extensions, check_roots
from apps.inventory.host_keys import parse_host_key
from apps.inventory.models import (
    NO_GRACE_FROM_SL_T,
    Asset,
    Conduit,
    CredentialKind,
    HostKey,
    Site,
    SiteMembership,
    TargetAccount,
    Zone,
)
from apps.inventory.services import UnknownServiceError, check_services
from apps.inventory.sign_ins import SignIn


class InventoryRefusedError(ValueError):
    """The inventory cannot hold this; the message says why and what to do."""


def _refuse(error: ValidationError) -> InventoryRefusedError:
    return InventoryRefusedError(" ".join(error.messages))


def _check_zone_name(name: str) -> None:
    try:
        zoneinfo.ZoneInfo(name)
    except (ValueError, zoneinfo.ZoneInfoNotFoundError, OSError):
        raise InventoryRefusedError(
            f"There is no time zone {name!r}: use a name such as Europe/Amsterdam."
        ) from None


@transaction.atomic
def add_site(
    *, slug: str, name: str, time_zone: str, by: Party, now: dt.datetime
) -> Site:
    """Add a site. Raises: InventoryRefusedError."""
    _check_zone_name(time_zone)
    site = Site(slug=slug, name=name, time_zone=time_zone)
    try:
        site.full_clean()
    except ValidationError as error:
        raise _refuse(error) from None
    site.save(force_insert=True)
    audit.record(Kind.SITE_ADDED, now=now, actor=by, subject=site.party)
    return site


@transaction.atomic
def set_site_banner(
    *, site_id: uuid.UUID, banner: str, by: Party, now: dt.datetime
) -> Site:
    """Replace what people are told at a site. Raises: InventoryRefusedError."""
    site = Site.objects.select_for_update().get(pk=site_id)
    before = site.banner
    try:
        site.banner = clean_text(banner, BANNER_LENGTH, "banner")
    except NoticeRefusedError as error:
        raise InventoryRefusedError(str(error)) from None
    site.save(update_fields=["banner"])
    audit.record(
        Kind.SITE_CHANGED,
        now=now,
        actor=by,
        subject=site.party,
        data={"banner": {"before": before, "after": site.banner}},
    )
    return site


@transaction.atomic
def add_member(*, site: Site, user: User, by: Party, now: dt.datetime) -> bool:
    """Make `user` a member of `site`; returns False when they were one already.

    Raises: InventoryRefusedError when somebody lets themselves in (R17).
    """
    if by == user.party:
        raise InventoryRefusedError(
            "You cannot add yourself to a site: ask another administrator."
        )
    _membership, made = SiteMembership.objects.get_or_create(site=site, user=user)
    if made:
        audit.record(
            Kind.MEMBER_ADDED,
            now=now,
            actor=by,
            subject=user.party,
            data={"site": site.name},
        )
    return made


@transaction.atomic
def remove_member(*, site: Site, user: User, by: Party, now: dt.datetime) -> bool:
    """End the membership; the watchdog ends what depends on it."""
    deleted, _ = SiteMembership.objects.filter(site=site, user=user).delete()
    if deleted:
        end_graces(user_id=user.pk, because=Kind.MEMBER_REMOVED, by=by, now=now)
        audit.record(
            Kind.MEMBER_REMOVED,
            now=now,
            actor=by,
            subject=user.party,
            data={"site": site.name},
        )
    return bool(deleted)


@transaction.atomic
def add_zone(
    *,
    site: Site,
    name: str,
    purdue_level: str,
    sl_t: int,
    by: Party,
    now: dt.datetime,
    hosts_gateway: bool = False,
    parent: Zone | None = None,
    mfa_grace_minutes: int | None = None,
    idle_lock_minutes: int | None = None,
    idle_end_minutes: int | None = None,
) -> Zone:
    """Add a zone. Idle minutes: 0 is never, None what the settings say.

    Raises: InventoryRefusedError.
    """
    zone = Zone(
        site=site,
        name=name,
        purdue_level=purdue_level,
        sl_t=sl_t,
        hosts_gateway=hosts_gateway,
        parent=parent,
        mfa_grace_minutes=mfa_grace_minutes,
        idle_lock_minutes=idle_lock_minutes,
        idle_end_minutes=idle_end_minutes,
    )
    _save(zone, new=True)
    audit.record(
        Kind.ZONE_ADDED,
        now=now,
        actor=by,
        subject=zone.party,
        data={
            "site": site.name,
            "purdue_level": purdue_level,
            "sl_t": sl_t,
            "grace_minutes": zone.grace_minutes,
        },
    )
    return zone


ZONE_FIELDS = frozenset(
    {
        "name",
        "purdue_level",
        "sl_t",
        "parent",
        "hosts_gateway",
        "mfa_grace_minutes",
        "idle_lock_minutes",
        "idle_end_minutes",
    }
)


@transaction.atomic
def change_zone(
    *, zone_id: uuid.UUID, changes: Mapping[str, object], by: Party, now: dt.datetime
) -> Zone:
    """Change a zone; `changes` are names of `ZONE_FIELDS`.

    A security level that leaves no room for a grace takes the zone's own away.
    Raises: InventoryRefusedError, also when a zone would lie inside itself.
    """
    zone = Zone.objects.select_for_update().get(pk=zone_id)
    level_before = zone.sl_t
    before = _apply(zone, changes, ZONE_FIELDS)
    grace = zone.mfa_grace_minutes
    if (
        level_before < NO_GRACE_FROM_SL_T <= zone.sl_t
        and "mfa_grace_minutes" not in before
        and grace
    ):
        zone.mfa_grace_minutes = None
        before["mfa_grace_minutes"] = {"before": grace, "after": None}
    ancestor = zone.parent
    while ancestor is not None:
        if ancestor.pk == zone.pk:
            raise InventoryRefusedError("A zone cannot lie inside itself.")
        ancestor = ancestor.parent
    _save(zone, new=False)
    audit.record(Kind.ZONE_CHANGED, now=now, actor=by, subject=zone.party, data=before)
    return zone


@transaction.atomic
def add_conduit(
    *,
    name: str,
    from_zone: Zone,
    to_zone: Zone,
    services: Iterable[str],
    omits_forward_bytes: bool = False,
    by: Party,
    now: dt.datetime,
) -> Conduit:
    """Join two zones. Raises: InventoryRefusedError."""
    conduit = Conduit(
        name=name,
        from_zone=from_zone,
        to_zone=to_zone,
        services=_services(services),
        omits_forward_bytes=omits_forward_bytes,
    )
    _save(conduit, new=True)
    audit.record(
        Kind.CONDUIT_ADDED,
        now=now,
        actor=by,
        subject=conduit.party,
        data={
            "from": from_zone.name,
            "to": to_zone.name,
            "services": conduit.services,
            "omits_forward_bytes": omits_forward_bytes,
        },
    )
    return conduit


@transaction.atomic
def change_conduit(
    *,
    conduit_id: uuid.UUID,
    services: Iterable[str],
    omits_forward_bytes: bool = False,
    by: Party,
    now: dt.datetime,
) -> Conduit:
    """Change what may cross a conduit. Raises: InventoryRefusedError.

    With `omits_forward_bytes` the bytes of forwards are counted and not recorded, in
    sessions that begin from now on.
    """
    conduit = Conduit.objects.select_for_update().get(pk=conduit_id)
    before = conduit.services
    conduit.services = _services(services)
    conduit.omits_forward_bytes = omits_forward_bytes
    _save(conduit, new=False)
    audit.record(
        Kind.CONDUIT_CHANGED,
        now=now,
        actor=by,
        subject=conduit.party,
        data={
            "services_before": before,
            "services": conduit.services,
            "omits_forward_bytes": omits_forward_bytes,
        },
    )
    return conduit


@transaction.atomic
def remove_conduit(*, conduit_id: uuid.UUID, by: Party, now: dt.datetime) -> bool:
    """Remove a conduit: nothing crosses any more. Returns False when it was gone."""
    conduit = Conduit.objects.filter(pk=conduit_id).first()
    if conduit is None:
        return False
    party = conduit.party
    conduit.delete()
    audit.record(Kind.CONDUIT_REMOVED, now=now, actor=by, subject=party)
    return True


ASSET_FIELDS = frozenset(
    {
        "name",
        "zone",
        "kind",
        "description",
        "vendor",
        "model",
        "address",
        "port",
        "on_expiry",
        "grace_seconds",
        "in_operation",
        "crypto_profile",
        "session_limit",
        "file_roots",
        "file_endings_allowed",
        "file_endings_denied",
        "file_limit_mb",
        "files_limit_mb",
        "uploads_held",
        "idle_lock_minutes",
        "idle_end_minutes",
    }
)


@transaction.atomic
def add_asset(*, fields: Mapping[str, object], by: Party, now: dt.datetime) -> Asset:
    """Add an asset; `fields` are names of `ASSET_FIELDS`.

    Raises: InventoryRefusedError, also for addresses no target may have (R26).
    """
    asset = Asset()
    _apply(asset, fields, ASSET_FIELDS)
    _check_asset(asset)
    _save(asset, new=True)
    audit.record(
        Kind.ASSET_ADDED,
        now=now,
        actor=by,
        subject=asset.party,
        data={"zone": asset.zone.name, "address": asset.address, "port": asset.port},
    )
    return asset


@transaction.atomic
def change_asset(
    *, asset_id: uuid.UUID, changes: Mapping[str, object], by: Party, now: dt.datetime
) -> Asset:
    """Change an asset; raises InventoryRefusedError as `add_asset` does."""
    asset = Asset.objects.select_for_update().select_related("zone").get(pk=asset_id)
    before = _apply(asset, changes, ASSET_FIELDS)
    _check_asset(asset)
    _save(asset, new=False)
    audit.record(
        Kind.ASSET_CHANGED, now=now, actor=by, subject=asset.party, data=before
    )
    return asset


def _check_asset(asset: Asset) -> None:
    asset.name = asset.name.strip().lower()
    asset.address = asset.address.strip()
    try:
        asset.file_roots = "\n".join(check_roots(asset.file_roots.splitlines()))
        for name in ("file_endings_allowed", "file_endings_denied"):
            words = getattr(asset, name).replace(",", " ").split()
            setattr(asset, name, " ".join(check_extensions(words)))
    except FileRuleError as error:
        raise InventoryRefusedError(str(error)) from None
    address = parse_address(asset.address)
    if address is not None and not settings.ALLOW_LOCAL_TARGETS:
        reason = refusal(address)
        if reason:
            raise InventoryRefusedError(
                f"{asset.address} cannot be a target: {reason}."
            )


@transaction.atomic
def add_account(
    *,
    asset: Asset,
    name: str,
    credential_kind: str,
    by: Party,
    now: dt.datetime,
    login: str = "",
    sign_in: str = SignIn.SSH,
) -> TargetAccount:
    """Add a login of an asset; `login` is what is sent when it differs from `name`.

    `sign_in` is where the asset asks for the credential (`SignIn`).
    Raises: InventoryRefusedError.
    """
    account = TargetAccount(
        asset=asset,
        name=name,
        login=login or name,
        credential_kind=credential_kind,
        sign_in=sign_in,
    )
    if sign_in != SignIn.SSH and credential_kind != CredentialKind.PASSWORD:
        raise InventoryRefusedError(
            "At a device's own prompts only a password can be typed: choose that."
        )
    _save(account, new=True)
    audit.record(
        Kind.ACCOUNT_ADDED,
        now=now,
        actor=by,
        subject=account.party,
        data={"credential_kind": credential_kind, "sign_in": sign_in},
    )
    return account


@transaction.atomic
def pin_host_key(*, asset: Asset, text: str, by: User, now: dt.datetime) -> HostKey:
    """Pin a host key, one OpenSSH line; it counts when a second person confirms it.

    Raises: InventoryRefusedError when it is no key or is pinned already.
    """
    try:
        algorithm, line, blob = parse_host_key(text)
    except PublicKeyRefusedError as error:
        raise InventoryRefusedError(str(error)) from None
    key = HostKey(
        asset=asset,
        algorithm=algorithm,
        line=line,
        fingerprint=fingerprint_of(blob),
        pinned_by=by,
        pinned_at=now,
    )
    try:
        with transaction.atomic():
            key.save(force_insert=True)
    except IntegrityError:
        raise InventoryRefusedError("This key is pinned already.") from None
    audit.record(
        Kind.HOST_KEY_PINNED,
        now=now,
        actor=by.party,
        subject=asset.party,
        data={"fingerprint": key.fingerprint, "algorithm": algorithm},
    )
    return key


@transaction.atomic
def confirm_host_key(*, key_id: uuid.UUID, by: User, now: dt.datetime) -> bool:
    """Confirm a key that somebody else pinned; returns False when that is not so."""
    changed = (
        HostKey.objects.filter(pk=key_id, confirmed_by=None, removed_at=None)
        .exclude(pinned_by=by)
        .update(confirmed_by=by, confirmed_at=now)
    )
    if changed != 1:
        return False
    key = HostKey.objects.select_related("asset").get(pk=key_id)
    audit.record(
        Kind.HOST_KEY_CONFIRMED,
        now=now,
        actor=by.party,
        subject=key.asset.party,
        data={"fingerprint": key.fingerprint},
    )
    return True


@transaction.atomic
def remove_host_key(*, key_id: uuid.UUID, by: Party, now: dt.datetime) -> bool:
    """Take a pin away; an asset without a confirmed key cannot be reached (R39)."""
    changed = HostKey.objects.filter(pk=key_id, removed_at=None).update(removed_at=now)
    if changed != 1:
        return False
    key = HostKey.objects.select_related("asset").get(pk=key_id)
    audit.record(
        Kind.HOST_KEY_REMOVED,
        now=now,
        actor=by,
        subject=key.asset.party,
        data={"fingerprint": key.fingerprint},
    )
    return True


def _services(services: Iterable[str]) -> list[str]:
    try:
        return check_services(services, allow_local=settings.ALLOW_LOCAL_TARGETS)
    except UnknownServiceError as error:
        raise InventoryRefusedError(str(error)) from None


def _apply(
    row: Asset | Zone, changes: Mapping[str, object], allowed: Iterable[str]
) -> dict[str, object]:
    """Set the fields and return what they were and are, for the ledger."""
    unknown = set(changes) - set(allowed)
    if unknown:
        raise InventoryRefusedError(f"There is no field {', '.join(sorted(unknown))}.")
    shown: dict[str, object] = {}
    for name, value in changes.items():
        before = getattr(
            row, f"{name}_id" if name in {"zone", "parent"} else name, None
        )
        setattr(row, name, value)
        after = getattr(row, f"{name}_id" if name in {"zone", "parent"} else name, None)
        if before != after:
            shown[name] = {"before": before, "after": after}
    return shown


def _save(row: Asset | Zone | Conduit | TargetAccount, *, new: bool) -> None:
    """Validate and save; a broken rule becomes a sentence."""
    try:
        row.full_clean()
        with transaction.atomic():
            row.save(force_insert=new)
    except ValidationError as error:
        raise _refuse(error) from None
    except IntegrityError as error:
        raise InventoryRefusedError(
            f"This breaks a rule of the inventory: {error}"
        ) from None
