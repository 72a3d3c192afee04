"""Personal API tokens: made with a one-time code, shown once, kept as a hash (R2).

A token acts as its person and decides nothing: what it may do is what the person may do
now, within the scopes it was made for.
"""

import datetime as dt
import hashlib
import secrets
import uuid
from collections.abc import Iterable
from typing import Final

from django.db import transaction

from apps.accounts.models import ApiToken, User
from apps.audit import operations as audit
from apps.audit.kinds import Kind
from apps.audit.operations import Party

PREFIX: Final = "sluice_"
"""So that a scanner for leaked secrets knows one."""

READ: Final = "sessions:read"
CONTROL: Final = "sessions:control"
SCOPES: Final = (READ, CONTROL)
SCOPE_LABELS: Final = {
    READ: "Seeing live sessions",
    CONTROL: "Controlling live sessions",
}
MOST_DAYS: Final = 90
MOST_TOKENS: Final = 20
_USE_NOTED_EVERY: Final = dt.timedelta(minutes=1)

SIGNALS: Final = frozenset(
    {
        Kind.PERSON_DISABLED,
        Kind.PASSWORD_CHANGED,
        Kind.FACTOR_RESET,
        Kind.SIGNED_OUT_EVERYWHERE,
    }
)
"""What revokes every token of a person."""


class TokenRefusedError(ValueError):
    """A token cannot be made like this; the message says why."""


@transaction.atomic
def make_token(
    *,
    user: User,
    name: str,
    scopes: Iterable[str],
    days: int,
    source_address: str,
    now: dt.datetime,
) -> tuple[ApiToken, str]:
    """Make a token for `user` and return it with its secret, which is shown this once.

    The caller has checked a one-time code just now. Raises: TokenRefusedError.
    """
    wanted = sorted(set(scopes))
    if not wanted or set(wanted) - set(SCOPES):
        raise TokenRefusedError("Choose what the token is for.")
    if not 1 <= days <= MOST_DAYS:
        raise TokenRefusedError(f"A token holds for 1 to {MOST_DAYS} days.")
    if not name.strip().isprintable() or not name.strip():
        raise TokenRefusedError("Give the token a name to know it again.")
    User.objects.select_for_update(no_key=True).get(pk=user.pk)
    if ApiToken.objects.usable(at=now).filter(user=user).count() >= MOST_TOKENS:
        raise TokenRefusedError(f"You have {MOST_TOKENS} tokens: revoke one first.")
    secret = PREFIX + secrets.token_urlsafe(32)
    token = ApiToken.objects.create(
        user=user,
        name=name.strip()[:80],
        token_hash=_hash_of(secret),
        scopes=wanted,
        made_at=now,
        expires_at=now + dt.timedelta(days=days),
    )
    audit.record(
        Kind.API_TOKEN_MADE,
        now=now,
        actor=user.party,
        subject=token.party,
        source_address=source_address,
        data={"scopes": wanted, "expires_at": token.expires_at},
    )
    return token, secret


@transaction.atomic
def revoke_token(*, token_id: uuid.UUID, user: User, now: dt.datetime) -> bool:
    """Revoke one's own token; False when it is not theirs or was revoked already."""
    # The person is locked before their tokens, and these before the ledger.
    User.objects.select_for_update(no_key=True).get(pk=user.pk)
    changed = ApiToken.objects.filter(pk=token_id, user=user, revoked_at=None).update(
        revoked_at=now
    )
    if changed != 1:
        return False
    _note_revoked(ApiToken.objects.get(pk=token_id), user.party, "", now)
    return True


def revoke_all(
    *, user_id: uuid.UUID, because: Kind, by: Party, now: dt.datetime
) -> int:
    """Revoke every token of the person because of a signal, in its transaction.

    The caller has locked the person, and writes the signal's own event afterwards.
    """
    if because not in SIGNALS:
        raise ValueError(f"{because} does not revoke tokens")
    held = ApiToken.objects.select_for_update(of=("self",)).filter(
        user_id=user_id, revoked_at=None
    )
    tokens = list(held)
    ApiToken.objects.filter(pk__in=[token.pk for token in tokens]).update(
        revoked_at=now
    )
    for token in tokens:
        _note_revoked(token, by, because, now)
    return len(tokens)


def _note_revoked(token: ApiToken, by: Party, because: str, now: dt.datetime) -> None:
    audit.record(
        Kind.API_TOKEN_REVOKED,
        now=now,
        actor=by,
        subject=token.party,
        data={"because": because},
    )


def redeem(secret: str, *, now: dt.datetime) -> ApiToken | None:
    """Return the usable token that `secret` is, of a person who is not disabled."""
    if not secret.startswith(PREFIX) or len(secret) > 200:
        return None
    token = (
        ApiToken.objects.usable(at=now)
        .select_related("user")
        .filter(token_hash=_hash_of(secret))
        .first()
    )
    if token is None:
        return None
    if token.last_used_at is None or token.last_used_at < now - _USE_NOTED_EVERY:
        ApiToken.objects.filter(pk=token.pk).update(last_used_at=now)
    return token


def _hash_of(secret: str) -> bytes:
    # 256 random bits need no slow hash.
    return hashlib.sha256(secret.encode()).digest()
