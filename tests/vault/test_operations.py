"""Secrets, authorities, service keys and leases through their one door."""

import datetime as dt
import threading
import uuid
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    SSHCertificate,
    load_ssh_public_identity,
)
from django.db import IntegrityError, connections, transaction

from apps.audit.kinds import Kind
from apps.audit.models import AuditEvent
from apps.inventory.models import Site, TargetAccount
from apps.vault import operations, queries, ssh_keys
from apps.vault.leases import LeasedCredential
from apps.vault.models import (
    AccountCredential,
    CertificateAuthority,
    Lease,
    LeaseState,
    ServiceKey,
    ServiceKeyPurpose,
    StoredSecret,
)
from apps.vault.operations import NoCredentialError, VaultRefusedError
from apps.vault.sealing import SealBrokenError
from apps.vault.secret_values import Secret
from tests import factories
from tests.factories import SET_UP, clock

pytestmark = [pytest.mark.django_db, pytest.mark.both_databases]

HOUR = dt.timedelta(hours=1)


def _account(kind: str, here: factories.Plant | None = None) -> TargetAccount:
    here = here or factories.plant()
    return factories.asset_with_account(
        f"asset-{uuid.uuid4().hex[:8]}", here.cell, "operator", credential_kind=kind
    )[1]


def _store(account: TargetAccount, secret: Secret) -> AccountCredential:
    return operations.store_credential(
        account=account,
        kind=account.credential_kind,
        secret=secret,
        by=SET_UP,
        now=clock(),
    )


def _key() -> tuple[Secret, str]:
    key = ssh_keys.generate_key()
    return ssh_keys.private_text(key), ssh_keys.public_line(key)


def _lease(account: TargetAccount, **changes: Any) -> LeasedCredential:
    now = clock()
    arguments: dict[str, Any] = {
        "account_id": account.pk,
        "holder": uuid.uuid4(),
        "deadline": now + HOUR,
        "now": now,
    }
    return operations.lease_credential(**{**arguments, **changes})


def _audited(kind: Kind) -> AuditEvent:
    event = AuditEvent.objects.filter(kind=kind).order_by("seq").last()
    assert event is not None, kind
    return event


def test_a_sealed_secret_opens_and_its_row_holds_nothing_readable():
    row = operations.seal_secret(
        purpose="test", secret=Secret("zwölf Äpfel"), now=clock()
    )
    stored = StoredSecret.objects.get(pk=row.pk)
    assert operations.open_secret(stored).reveal() == "zwölf Äpfel"
    assert "Äpfel".encode() not in bytes(stored.ciphertext)
    stored.purpose = "other"
    with pytest.raises(SealBrokenError):
        operations.open_secret(stored)


def test_the_ciphertext_of_one_row_does_not_open_in_another():
    one = operations.seal_secret(purpose="test", secret=Secret("one"), now=clock())
    two = operations.seal_secret(purpose="test", secret=Secret("two"), now=clock())
    StoredSecret.objects.filter(pk=one.pk).update(
        ciphertext=two.ciphertext, wrapped_key=two.wrapped_key
    )
    one.refresh_from_db()
    with pytest.raises(SealBrokenError):
        operations.open_secret(one)


def test_storing_a_key_audits_its_fingerprint_and_not_the_key():
    secret, line = _key()
    credential = _store(_account("key"), secret)
    assert (credential.version, credential.public_line) == (1, line)
    event = _audited(Kind.SECRET_STORED)
    assert ssh_keys.fingerprint(line) in event.data
    assert secret.reveal()[40:90] not in event.data


def test_storing_again_replaces_and_destroys_what_was_there():
    account = _account("password")
    first = _store(account, Secret("first password"))
    second = _store(account, Secret("second password"))
    first.refresh_from_db()
    assert first.replaced_at is not None
    assert first.secret is None
    assert second.version == 2
    leased = _lease(account)
    assert leased.password == Secret("second password")


@pytest.mark.parametrize("text", ["", " ", "\t\n"])
@pytest.mark.parametrize("kind", ["key", "password"])
def test_r12_an_empty_credential_is_refused(kind, text):
    with pytest.raises(VaultRefusedError, match="empty"):
        _store(_account(kind), Secret(text))
    assert not AccountCredential.objects.exists()


def test_an_unusable_key_is_refused_without_repeating_it():
    with pytest.raises(VaultRefusedError, match="BEGIN line") as refused:
        _store(_account("key"), Secret("not a key at all"))
    assert "not a key at all" not in str(refused.value)


@pytest.mark.parametrize(
    ("of_account", "given"),
    [("key", "password"), ("password", "key"), ("certificate", "certificate")],
)
def test_a_credential_of_another_kind_is_refused(of_account, given):
    with pytest.raises(VaultRefusedError, match="logs in by"):
        operations.store_credential(
            account=_account(of_account),
            kind=given,
            secret=Secret("x"),
            by=SET_UP,
            now=clock(),
        )


def test_storing_waits_for_a_running_rotation():
    account = _account("password")
    credential = _store(account, Secret("first password"))
    AccountCredential.objects.create(
        account=account,
        kind="password",
        secret=operations.seal_secret(
            purpose="x", secret=Secret("pending"), now=clock()
        ),
        version=2,
        created_at=clock(),
        claimed_until=clock() + HOUR,
    )
    with pytest.raises(VaultRefusedError, match="rotating"):
        _store(account, Secret("second password"))
    credential.refresh_from_db()
    assert credential.replaced_at is None
    AccountCredential.objects.filter(version=2).update(claimed_until=clock() - HOUR)
    assert _store(account, Secret("third password")).version == 3


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        ("one_credential_in_use_per_account", {"installed": True, "version": 2}),
        ("one_credential_per_account_and_version", {"installed": False, "version": 1}),
        ("certificates_are_not_stored", {"kind": "certificate", "version": 2}),
        ("credential_not_replaced_has_its_secret", {"sealed": False, "version": 2}),
    ],
)
def test_the_database_keeps_the_rules_of_credentials(rule, changes):
    account = _account("password")
    _store(account, Secret("a password"))
    secret = operations.seal_secret(purpose="x", secret=Secret("x"), now=clock())
    with pytest.raises(IntegrityError), transaction.atomic():
        AccountCredential.objects.create(
            account=account,
            kind=changes.get("kind", "password"),
            version=changes["version"],
            created_at=clock(),
            installed_at=clock() if changes.get("installed") else None,
            secret=secret if changes.get("sealed", True) else None,
        )
    names = {c.name for c in AccountCredential._meta.constraints}
    assert rule in names


def test_a_site_has_one_authority():
    site = factories.plant().site
    authority = operations.make_authority(site=site, by=SET_UP, now=clock())
    assert queries.authority_of(site) == authority
    assert authority.fingerprint in _audited(Kind.AUTHORITY_MADE).data
    with pytest.raises(VaultRefusedError, match="already"):
        operations.make_authority(site=site, by=SET_UP, now=clock())
    assert CertificateAuthority.objects.count() == 1
    # The refused one left no secret behind.
    assert StoredSecret.objects.count() == 1


def test_a_service_key_is_made_at_first_use_and_stays():
    first = operations.service_key(ServiceKeyPurpose.RECORDING_SEAL, now=clock())
    again = operations.service_key("recording-seal", now=clock())
    other = operations.service_key("gateway-host", now=clock())
    assert (first.id, first.public_line) == (again.id, again.public_line)
    assert other.public_line != first.public_line
    first.signer.public_key().verify(again.sign(b"message"), b"message")
    assert AuditEvent.objects.filter(kind=Kind.SERVICE_KEY_MADE).count() == 2
    assert "PRIVATE" not in repr(first)
    assert operations.load_service_key(first.id).public_line == first.public_line
    with pytest.raises(ServiceKey.DoesNotExist):
        operations.load_service_key(uuid.uuid4())


def test_there_is_no_service_key_for_an_unknown_purpose():
    with pytest.raises(ValueError, match="not a valid"):
        operations.service_key("anything", now=clock())


@pytest.mark.django_db(transaction=True)
def test_threads_that_make_a_service_key_at_once_get_the_same():
    barrier = threading.Barrier(4)
    lines: list[str] = []

    def use() -> None:
        try:
            barrier.wait(10)
            lines.append(
                operations.service_key("gateway-host", now=clock()).public_line
            )
        finally:
            connections.close_all()

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(lines) == 4
    assert len(set(lines)) == 1
    assert ServiceKey.objects.count() == 1
    assert StoredSecret.objects.count() == 1
    assert AuditEvent.objects.filter(kind=Kind.SERVICE_KEY_MADE).count() == 1


def test_a_certificate_lease_is_for_one_log_in_of_the_account(settings):
    settings.CERTIFICATE_LOGIN_SECONDS = 30
    account = _account("certificate")
    site: Site = account.asset.zone.site
    operations.make_authority(site=site, by=SET_UP, now=clock())
    now = clock()
    leased = _lease(account, now=now)
    assert (leased.kind, leased.login) == ("certificate", account.login)
    assert leased.valid_until == (now + dt.timedelta(seconds=30)).replace(microsecond=0)
    assert leased.certificate is not None
    certificate = load_ssh_public_identity(leased.certificate.encode())
    assert isinstance(certificate, SSHCertificate)
    assert list(certificate.valid_principals) == [account.name.encode()]
    assert certificate.key_id == f"sluice lease {leased.lease_id}".encode()
    lease = Lease.objects.get(pk=leased.lease_id)
    assert lease.serial == certificate.serial == 1
    assert _lease(account).certificate is not None
    authority = queries.authority_of(site)
    assert authority is not None
    assert authority.last_serial == 2
    assert '"serial":2' in _audited(Kind.LEASE_ISSUED).data


def test_a_certificate_never_outlives_the_deadline(settings):
    settings.CERTIFICATE_LOGIN_SECONDS = 30
    account = _account("certificate")
    operations.make_authority(site=account.asset.zone.site, by=SET_UP, now=clock())
    now = clock().replace(microsecond=900_000)
    leased = _lease(account, now=now, deadline=now + dt.timedelta(seconds=10))
    assert leased.valid_until <= now + dt.timedelta(seconds=10)
    with pytest.raises(NoCredentialError, match="less than a second"):
        _lease(account, now=now, deadline=now + dt.timedelta(milliseconds=50))


def test_key_and_password_leases_hand_out_what_is_in_use():
    secret, line = _key()
    account = _account("key")
    _store(account, secret)
    leased = _lease(account)
    assert leased.private_key is not None
    key = ssh_keys.load_private_key(leased.private_key)
    assert ssh_keys.public_line(key) == line
    assert leased.certificate is None
    assert leased.password is None
    lease = Lease.objects.get(pk=leased.lease_id)
    assert lease.fingerprint == ssh_keys.fingerprint(line)
    assert lease.credential is not None
    assert lease.credential.version == 1
    assert "PRIVATE" not in repr(leased)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("key", "holds no credential"),
        ("password", "holds no credential"),
        ("certificate", "no SSH authority"),
    ],
)
def test_without_a_credential_there_is_no_lease(kind, message):
    with pytest.raises(NoCredentialError, match=message):
        _lease(_account(kind))
    assert not Lease.objects.exists()


def test_a_profile_without_certificates_says_so():
    here = factories.plant()
    operations.make_authority(site=here.site, by=SET_UP, now=clock())
    _, account = factories.asset_with_account(
        "old-one",
        here.cell,
        "admin",
        credential_kind="certificate",
        crypto_profile="legacy-sha1",
    )
    with pytest.raises(NoCredentialError, match="has no certificates"):
        _lease(account)


def test_past_the_deadline_there_is_no_lease():
    account = _account("password")
    _store(account, Secret("a password"))
    now = clock()
    for deadline in (now, now - HOUR):
        with pytest.raises(NoCredentialError, match="deadline"):
            _lease(account, now=now, deadline=deadline)


def test_a_lease_ends_once():
    account = _account("password")
    _store(account, Secret("a password"))
    leased = _lease(account)
    now = clock()
    assert operations.due_withdrawals(now=now + HOUR) == []
    assert operations.next_try_at(leased.lease_id) is None
    assert operations.end_lease(lease_id=leased.lease_id, now=now)
    assert not operations.end_lease(lease_id=leased.lease_id, now=now + HOUR)
    lease = Lease.objects.get(pk=leased.lease_id)
    assert (lease.state, lease.ended_at) == (LeaseState.WITHDRAWING, now)
    assert AuditEvent.objects.filter(kind=Kind.LEASE_WITHDRAWING).count() == 1
    assert operations.due_withdrawals(now=now) == [leased.lease_id]
    assert operations.next_try_at(leased.lease_id) == now


def test_a_certificate_is_due_when_it_has_run_out():
    account = _account("certificate")
    operations.make_authority(site=account.asset.zone.site, by=SET_UP, now=clock())
    leased = _lease(account)
    operations.end_lease(lease_id=leased.lease_id, now=clock())
    just_before = leased.valid_until - dt.timedelta(microseconds=1)
    assert operations.due_withdrawals(now=just_before) == []
    assert operations.due_withdrawals(now=leased.valid_until) == [leased.lease_id]
