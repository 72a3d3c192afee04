"""Every write to the vault: secrets, authorities, service keys and leases.

Withdrawing a lease is `apps.vault.withdrawals`; its door is here, too.
"""

import datetime as dt
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings
from django.db import IntegrityError, transaction

from apps.audit import operations as audit
from apps.audit.kinds import Kind
from apps.audit.operations import Party
from apps.inventory.crypto_profiles import PROFILES
from apps.inventory.models import CredentialKind, Site, TargetAccount
from apps.vault import certificates, ssh_keys
from apps.vault.certificates import (
    CERTIFICATE_ALGORITHM,
    TooLateForCertificateError,
    UserCertificate,
    generate_authority,
    issue_certificate,
)
from apps.vault.leases import LeasedCredential
from apps.vault.login_credentials import LoginCredential, packed
from apps.vault.models import (
    AccountCredential,
    CertificateAuthority,
    Lease,
    LeaseState,
    ServiceKey,
    ServiceKeyPurpose,
)
from apps.vault.queries import due_withdrawals, next_try_at
from apps.vault.secret_values import Secret
from apps.vault.stored import (
    as_login,
    credential_purpose,
    fingerprint_of,
    lock_account,
    next_version,
    open_secret,
    retire,
    seal_secret,
)
from apps.vault.withdrawals import LeaseInUseError, withdraw_lease

__all__ = [
    "LeaseInUseError",
    "LoadedServiceKey",
    "NoCredentialError",
    "VaultRefusedError",
    "due_withdrawals",
    "end_lease",
    "extend_lease",
    "host_keys",
    "lease_credential",
    "load_service_key",
    "make_authority",
    "next_host_key",
    "next_try_at",
    "open_secret",
    "prepare_host_key",
    "seal_secret",
    "service_key",
    "store_credential",
    "switch_host_key",
    "withdraw_lease",
]

_PARTY = audit.system("vault")


class NoCredentialError(LookupError):
    """The vault has nothing to log in with as this account; the message says why."""


class VaultRefusedError(ValueError):
    """The vault cannot take this; the message says why and what to do."""


@transaction.atomic
def store_credential(
    *,
    account: TargetAccount,
    kind: str,
    secret: Secret,
    by: Party,
    now: dt.datetime,
) -> AccountCredential:
    """Put the key (private, OpenSSH or PEM) or password of `account` into the vault.

    It takes the place of the one in use, as after an asset was installed anew.

    Raises: VaultRefusedError for an account of another kind, an unusable key, an empty
    password (R12), or while a rotation is running.
    """
    if kind != account.credential_kind or kind == CredentialKind.CERTIFICATE:
        raise VaultRefusedError(
            f"This account logs in by {account.credential_kind}: store that, or change "
            "the account first."
        )
    if secret.is_blank():
        raise VaultRefusedError(f"The {kind} is empty.")
    public_line = ""
    if kind == CredentialKind.KEY:
        try:
            key = ssh_keys.load_private_key(secret)
        except ssh_keys.PrivateKeyRefusedError as error:
            raise VaultRefusedError(str(error)) from None
        secret, public_line = ssh_keys.private_text(key), ssh_keys.public_line(key)
    lock_account(account.pk)
    for previous in AccountCredential.objects.filter(account=account, replaced_at=None):
        if previous.claimed_until is not None and previous.claimed_until > now:
            raise VaultRefusedError(
                "Sluice is rotating this credential right now: try again in a minute."
            )
        retire(previous, now=now)
    credential = AccountCredential.objects.create(
        account=account,
        kind=kind,
        secret=seal_secret(
            purpose=credential_purpose(account.pk), secret=secret, now=now
        ),
        public_line=public_line,
        version=next_version(account.pk),
        created_at=now,
        installed_at=now,
    )
    audit.record(
        Kind.SECRET_STORED,
        now=now,
        actor=by,
        subject=account.party,
        data={
            "kind": kind,
            "version": credential.version,
            "fingerprint": fingerprint_of(public_line),
        },
    )
    return credential


@transaction.atomic
def make_authority(*, site: Site, by: Party, now: dt.datetime) -> CertificateAuthority:
    """Make the SSH user authority of `site`; its hosts then have to trust it.

    Raises: VaultRefusedError when the site has one.
    """
    private_key, public_line = generate_authority()
    try:
        with transaction.atomic():
            authority = CertificateAuthority.objects.create(
                site=site,
                public_line=public_line,
                fingerprint=ssh_keys.fingerprint(public_line),
                secret=seal_secret(
                    purpose=f"authority {site.pk}", secret=private_key, now=now
                ),
                created_at=now,
            )
    except IntegrityError:
        raise VaultRefusedError(f"{site.name} has an authority already.") from None
    audit.record(
        Kind.AUTHORITY_MADE,
        now=now,
        actor=by,
        subject=site.party,
        data={"fingerprint": authority.fingerprint, "public_key": public_line},
    )
    return authority


@dataclass(frozen=True, slots=True)
class LoadedServiceKey:
    """One of Sluice's own Ed25519 keys, ready to sign."""

    id: uuid.UUID
    public_line: str
    fingerprint: str
    private_pem: Secret
    signer: Ed25519PrivateKey

    def sign(self, message: bytes) -> bytes:
        """Return the 64 byte Ed25519 signature of `message` (RFC 8032)."""
        return self.signer.sign(message)


def service_key(purpose: str, *, now: dt.datetime) -> LoadedServiceKey:
    """Return Sluice's key for `purpose` (of `ServiceKeyPurpose`), made at first use."""
    purpose = ServiceKeyPurpose(purpose).value
    row = _service_key_in_use(purpose)
    if row is None:
        try:
            row = _make_service_key(purpose, now=now)
        except IntegrityError:
            # Another process has made it in this moment: theirs counts.
            row = _service_key_in_use(purpose)
            if row is None:
                raise
    return _loaded(row)


def issue_host_certificate(
    *, public_line: str, names: Sequence[str], now: dt.datetime
) -> str:
    """Return a certificate (a line) by which the key answers as the host `names`.

    Signed by Sluice's own authority for jumps, which is made at first use. Good for a
    day. Raises: ValueError for unusable names or another key than Ed25519.
    """
    authority = service_key(ServiceKeyPurpose.JUMP_AUTHORITY, now=now)
    return certificates.issue_host_certificate(
        authority=authority.private_pem,
        public_line=public_line,
        names=names,
        serial=secrets.randbelow(2**63) + 1,
        now=now,
    )


def load_service_key(key_id: uuid.UUID) -> LoadedServiceKey:
    """Return one of Sluice's own keys, also a retired one, ready to sign."""
    return _loaded(ServiceKey.objects.select_related("secret").get(pk=key_id))


def _loaded(row: ServiceKey) -> LoadedServiceKey:
    private_pem = open_secret(row.secret)
    signer = ssh_keys.load_private_key(private_pem)
    if not isinstance(signer, Ed25519PrivateKey):
        raise TypeError(f"the {row.purpose} key is not an Ed25519 key")
    return LoadedServiceKey(
        row.pk, row.public_line, row.fingerprint, private_pem, signer
    )


def _service_key_in_use(purpose: str) -> ServiceKey | None:
    return (
        ServiceKey.objects.select_related("secret")
        .filter(purpose=purpose, retired_at=None, in_use_since__isnull=False)
        .first()
    )


def host_keys(*, now: dt.datetime) -> list[LoadedServiceKey]:
    """Return the gateway's host keys: the one in use, then the next if there is one."""
    current = service_key(ServiceKeyPurpose.GATEWAY_HOST, now=now)
    following = next_host_key()
    return [current, *([_loaded(following)] if following else [])]


def next_host_key() -> ServiceKey | None:
    """Return the host key that clients are told of and that is not used yet."""
    return (
        ServiceKey.objects.select_related("secret")
        .filter(
            purpose=ServiceKeyPurpose.GATEWAY_HOST, retired_at=None, in_use_since=None
        )
        .first()
    )


@transaction.atomic
def prepare_host_key(*, by: Party, now: dt.datetime) -> ServiceKey:
    """Make the gateway's next host key, so that clients learn it before it is used.

    Raises: VaultRefusedError when there is one already.
    """
    service_key(ServiceKeyPurpose.GATEWAY_HOST, now=now)
    try:
        with transaction.atomic():
            row = _make_service_key(
                ServiceKeyPurpose.GATEWAY_HOST, now=now, in_use=False
            )
    except IntegrityError:
        raise VaultRefusedError(
            "The next host key is there already: switch to it first."
        ) from None
    audit.record(
        Kind.GATEWAY_KEY_PREPARED,
        now=now,
        actor=by,
        subject=_gateway_key_party(row),
        data={"fingerprint": row.fingerprint, "public_key": row.public_line},
    )
    return row


@transaction.atomic
def switch_host_key(*, by: Party, now: dt.datetime) -> ServiceKey:
    """Put the gateway's next host key to use and retire the one before.

    Raises: VaultRefusedError when no next one was prepared.
    """
    rows = list(
        ServiceKey.objects.select_for_update()
        .filter(purpose=ServiceKeyPurpose.GATEWAY_HOST, retired_at=None)
        .order_by("in_use_since")
    )
    current = next((row for row in rows if row.in_use_since is not None), None)
    following = next((row for row in rows if row.in_use_since is None), None)
    if following is None:
        raise VaultRefusedError("There is no next host key: prepare one first.")
    if current is not None:
        current.retired_at = now
        current.save(update_fields=["retired_at"])
    following.in_use_since = now
    following.save(update_fields=["in_use_since"])
    audit.record(
        Kind.GATEWAY_KEY_SWITCHED,
        now=now,
        actor=by,
        subject=_gateway_key_party(following),
        data={
            "fingerprint": following.fingerprint,
            "fingerprint_before": current.fingerprint if current else "",
            "known_for": now - following.created_at,
        },
    )
    return following


def _gateway_key_party(row: ServiceKey) -> Party:
    return Party("service-key", str(row.pk), ServiceKeyPurpose(row.purpose).label)


@transaction.atomic
def _make_service_key(
    purpose: str, *, now: dt.datetime, in_use: bool = True
) -> ServiceKey:
    key = ssh_keys.generate_key()
    line = ssh_keys.public_line(key)
    row = ServiceKey.objects.create(
        purpose=purpose,
        public_line=line,
        fingerprint=ssh_keys.fingerprint(line),
        secret=seal_secret(
            purpose=f"service key {purpose}",
            secret=ssh_keys.private_text(key),
            now=now,
        ),
        created_at=now,
        in_use_since=now if in_use else None,
    )
    audit.record(
        Kind.SERVICE_KEY_MADE,
        now=now,
        actor=_PARTY,
        subject=Party("service-key", str(row.pk), ServiceKeyPurpose(purpose).label),
        data={"purpose": purpose, "fingerprint": row.fingerprint, "public_key": line},
    )
    return row


@transaction.atomic
def lease_credential(
    *,
    account_id: uuid.UUID,
    holder: uuid.UUID,
    deadline: dt.datetime,
    now: dt.datetime,
    forwards: bool = False,
) -> LeasedCredential:
    """Hand out what it takes to log in once as the account, until `deadline`.

    A sealed copy stays with the lease until it is proved dead. `holder` is whoever it
    is for, as the caller names it.

    Raises: NoCredentialError.
    """
    account = TargetAccount.objects.select_related("asset__zone__site").get(
        pk=account_id
    )
    if deadline <= now:
        raise NoCredentialError("The deadline has passed.")
    lease = Lease(
        account=account,
        kind=account.credential_kind,
        holder=holder,
        issued_at=now,
        valid_until=deadline,
    )
    if account.credential_kind == CredentialKind.CERTIFICATE:
        certificate = _certificate_for(
            lease, deadline=deadline, now=now, forwards=forwards
        )
        credential = LoginCredential(
            private_key=certificate.private_key, certificate=certificate.line
        )
        lease.serial = certificate.serial
        lease.valid_until = certificate.valid_before
        lease.fingerprint = ssh_keys.fingerprint(certificate.public_line)
    else:
        stored = _credential_in_use(account)
        credential = as_login(stored)
        lease.credential = stored
        lease.fingerprint = fingerprint_of(stored.public_line)
    lease.secret = seal_secret(
        purpose=f"lease {lease.pk}", secret=packed(credential), now=now
    )
    lease.save(force_insert=True)
    audit.record(
        Kind.LEASE_ISSUED,
        now=now,
        actor=_PARTY,
        subject=lease.party,
        data={
            "kind": lease.kind,
            "account": account.party.id,
            "holder": holder,
            "serial": lease.serial,
            "fingerprint": lease.fingerprint,
            "version": lease.credential.version if lease.credential else None,
            "valid_until": lease.valid_until,
        },
    )
    return LeasedCredential(
        lease_id=lease.pk,
        kind=lease.kind,
        login=account.login,
        valid_until=lease.valid_until,
        private_key=credential.private_key,
        certificate=credential.certificate,
        password=credential.password,
    )


def _certificate_for(
    lease: Lease, *, deadline: dt.datetime, now: dt.datetime, forwards: bool
) -> UserCertificate:
    asset = lease.account.asset
    if CERTIFICATE_ALGORITHM not in PROFILES[asset.crypto_profile].signatures:
        raise NoCredentialError(
            f"The crypto profile of {asset} has no certificates: use a key or password."
        )
    authority = (
        CertificateAuthority.objects.select_for_update(of=("self",))
        .select_related("secret")
        .filter(site=asset.zone.site, retired_at=None)
        .first()
    )
    if authority is None:
        raise NoCredentialError(f"{asset.zone.site} has no SSH authority yet.")
    authority.last_serial += 1
    authority.save(update_fields=["last_serial"])
    try:
        return issue_certificate(
            authority=open_secret(authority.secret),
            principal=lease.account.name,
            key_id=f"sluice lease {lease.pk}",
            serial=authority.last_serial,
            now=now,
            deadline=deadline,
            login_seconds=settings.CERTIFICATE_LOGIN_SECONDS,
            forwards=forwards,
        )
    except TooLateForCertificateError:
        raise NoCredentialError("The deadline is less than a second away.") from None


def _credential_in_use(account: TargetAccount) -> AccountCredential:
    stored = (
        AccountCredential.objects.select_related("secret")
        .filter(account=account, replaced_at=None, installed_at__isnull=False)
        .first()
    )
    if stored is None or stored.kind != account.credential_kind:
        raise NoCredentialError(f"The vault holds no credential for {account}.")
    return stored


@transaction.atomic
def extend_lease(*, lease_id: uuid.UUID, until: dt.datetime) -> bool:
    """Let a key or password be handed out for longer; returns False otherwise.

    A certificate keeps its own end: it is for the log-in, which is long over.
    """
    changed = (
        Lease.objects.filter(
            pk=lease_id, state=LeaseState.ISSUED, valid_until__lt=until
        )
        .exclude(kind=CredentialKind.CERTIFICATE)
        .update(valid_until=until)
    )
    return changed == 1


@transaction.atomic
def end_lease(*, lease_id: uuid.UUID, now: dt.datetime) -> bool:
    """Note that nobody needs the lease any more; returns False when it had ended.

    A certificate can be proved dead from the moment it has run out; anything else has
    to be withdrawn at once.
    """
    lease = Lease.objects.select_related("account__asset").get(pk=lease_id)
    due = (
        max(now, lease.valid_until) if lease.kind == CredentialKind.CERTIFICATE else now
    )
    changed = Lease.objects.filter(pk=lease_id, state=LeaseState.ISSUED).update(
        state=LeaseState.WITHDRAWING, ended_at=now, try_again_at=due
    )
    if changed != 1:
        return False
    audit.record(
        Kind.LEASE_WITHDRAWING,
        now=now,
        actor=_PARTY,
        subject=lease.party,
        data={"kind": lease.kind, "holder": lease.holder},
    )
    return True
