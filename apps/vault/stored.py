"""The stored form of secrets and of the credentials of target accounts.

Building blocks for operations, inside their transactions; none of them writes an audit
event of its own.
"""

import base64
import datetime as dt
import uuid

from django.conf import settings
from django.db.models import Max

from apps.inventory.models import CredentialKind, TargetAccount
from apps.vault import ssh_keys
from apps.vault.login_credentials import LoginCredential
from apps.vault.models import AccountCredential, StoredSecret
from apps.vault.sealing import KeyEncryptionKey, SealedSecret, seal, unseal
from apps.vault.secret_values import Secret


def seal_secret(*, purpose: str, secret: Secret, now: dt.datetime) -> StoredSecret:
    """Store `secret` sealed, for `purpose` and nothing else.

    A building block for operations: it writes no audit event of its own.
    """
    row = StoredSecret(purpose=purpose, created_at=now)
    sealed = seal(
        secret.reveal().encode(), kek=_vault_key(), purpose=purpose, row_id=row.id
    )
    row.ciphertext = sealed.ciphertext
    row.wrapped_key = sealed.wrapped_key
    row.kek_id = sealed.kek_id
    row.save(force_insert=True)
    return row


def open_secret(row: StoredSecret) -> Secret:
    """Return the secret in `row`.

    Raises: sealing.WrongKekError, sealing.SealBrokenError.
    """
    sealed = SealedSecret(
        ciphertext=bytes(row.ciphertext),
        wrapped_key=bytes(row.wrapped_key),
        kek_id=row.kek_id,
    )
    return Secret(
        unseal(sealed, kek=_vault_key(), purpose=row.purpose, row_id=row.id).decode()
    )


def _vault_key() -> KeyEncryptionKey:
    return KeyEncryptionKey(base64.b64decode(settings.SLUICE_VAULT_KEY, validate=True))


def lock_account(account_id: uuid.UUID) -> None:
    """Keep other writers of this account's credentials out until the commit."""
    TargetAccount.objects.select_for_update().get(pk=account_id)


def credential_purpose(account_id: uuid.UUID) -> str:
    """Return what a credential of this account is sealed for."""
    return f"account {account_id}"


def next_version(account_id: uuid.UUID) -> int:
    """Return the number of the account's next credential, 1 for the first."""
    last = AccountCredential.objects.filter(account_id=account_id).aggregate(
        last=Max("version")
    )["last"]
    return (last or 0) + 1


def fingerprint_of(public_line: str) -> str:
    """Return the fingerprint of a public key line; empty for a password's."""
    return ssh_keys.fingerprint(public_line) if public_line else ""


def retire(credential: AccountCredential, *, now: dt.datetime) -> None:
    """Mark `credential` replaced and destroy its secret; leases keep their own copy."""
    secret = credential.secret
    credential.replaced_at = now
    credential.secret = None
    credential.claimed_until = None
    credential.save(update_fields=["replaced_at", "secret", "claimed_until"])
    if secret is not None:
        secret.delete()


def as_login(stored: AccountCredential) -> LoginCredential:
    """Return the opened credential, ready to log in with."""
    if stored.secret is None:
        raise ValueError("the secret of a replaced credential is destroyed")
    secret = open_secret(stored.secret)
    if stored.kind == CredentialKind.PASSWORD:
        return LoginCredential(password=secret)
    return LoginCredential(private_key=secret)
