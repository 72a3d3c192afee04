"""Sign-ins over SSH, and the grace after a full one (key and one-time code).

For a while after a full sign-in the same person with the same key from exactly the same
source address needs the key only, where the zone allows that. How long is the zone's
business and comes as an argument. Using a grace never extends it.

Locks are taken in the order key, person, grace, ledger; also by whoever ends graces.
"""

import datetime as dt
import uuid
from typing import Final

from django.db import transaction

from apps.accounts.models import SignInGrace, SshPublicKey, User
from apps.audit import operations as audit
from apps.audit.kinds import Kind
from apps.audit.operations import Party

DOOR: Final = "ssh"
FULL: Final = ("public_key", "one_time_code")
BY_GRACE: Final = ("public_key", "grace")

SIGNALS: Final = frozenset(
    {
        Kind.PERSON_CHANGED,
        Kind.PERSON_DISABLED,
        Kind.PASSWORD_CHANGED,
        Kind.FACTOR_ENROLLED,
        Kind.FACTOR_RESET,
        Kind.RECOVERY_CODES_MADE,
        Kind.KEY_ADDED,
        Kind.KEY_REMOVED,
        Kind.SIGNED_OUT_EVERYWHERE,
        Kind.MEMBER_REMOVED,
        Kind.GRANT_REVOKED,
        Kind.GRACE_ENDED,
    }
)
"""What ends every grace of a person. `PERSON_CHANGED` counts when roles changed;
`GRACE_ENDED` is somebody pressing the button for it."""


@transaction.atomic
def sign_in(
    *,
    user: User,
    key_id: uuid.UUID,
    grace_minutes: int,
    source_address: str,
    verified_at: dt.datetime,
    now: dt.datetime,
    consent_to: uuid.UUID | None = None,
) -> None:
    """Write that `user` signed in with key and code, and begin the grace.

    `grace_minutes` is the longest that any zone the person may enter allows; each zone
    asks for its own when the grace is used. `verified_at` is when the code was checked:
    a signal since then leaves no grace. `consent_to` is the notice they agreed to.
    """
    key = (
        SshPublicKey.objects.select_for_update(of=("self",), no_key=True)
        .filter(pk=key_id, user=user, removed_at=None)
        .first()
    )
    person = User.objects.select_for_update(no_key=True).get(pk=user.pk)
    until = None
    if key is not None:
        SshPublicKey.objects.filter(pk=key.pk).update(last_used_at=now)
        until = _begin_grace(
            person, key, grace_minutes, source_address, verified_at, now
        )
    audit.record(
        Kind.SIGNED_IN,
        now=now,
        actor=user.party,
        subject=user.party,
        source_address=source_address,
        data={
            "door": DOOR,
            "factors": list(FULL),
            "grace_until": until,
            "consent_to": consent_to,
        },
    )


def _begin_grace(
    person: User,
    key: SshPublicKey,
    minutes: int,
    source_address: str,
    verified_at: dt.datetime,
    now: dt.datetime,
) -> dt.datetime | None:
    """Replace the grace for this key and address; the caller holds the locks."""
    # What has ended is of no use to anybody; the ledger knows that it was.
    SignInGrace.objects.filter(user=person, ends_at__lte=now).delete()
    SignInGrace.objects.filter(
        user=person, key=key, source_address=source_address
    ).delete()
    void = person.graces_void_before
    if (
        minutes <= 0
        or not source_address
        or not person.is_active
        or (void is not None and verified_at <= void)
    ):
        return None
    until = now + dt.timedelta(minutes=minutes)
    SignInGrace.objects.create(
        user=person,
        key=key,
        source_address=source_address,
        signed_in_at=now,
        ends_at=until,
    )
    return until


@transaction.atomic
def sign_in_by_grace(
    *,
    user: User,
    key_id: uuid.UUID,
    minutes: int,
    source_address: str,
    now: dt.datetime,
    not_before: dt.datetime | None = None,
) -> dt.timedelta | None:
    """Sign `user` in by the key alone; return how long ago the full sign-in was.

    None when the code is needed: no grace for exactly this key and source address, or
    the full sign-in is `minutes` (the zone's) or more ago, or was before `not_before`
    (a text came since that has to be agreed to). The grace's row is locked, so that
    either this sign-in or what ends the grace comes first.
    """
    if minutes <= 0:
        return None
    key = (
        SshPublicKey.objects.usable()
        .select_for_update(of=("self",), no_key=True)
        .filter(pk=key_id, user=user)
        .first()
    )
    if key is None:
        return None
    grace = (
        SignInGrace.objects.select_for_update(of=("self",))
        .filter(
            user=user,
            key=key,
            source_address=source_address,
            signed_in_at__gt=now - dt.timedelta(minutes=minutes),
            signed_in_at__lte=now,
            ends_at__gt=now,
        )
        .first()
    )
    # A database may compare text by rules of its own; the address must be the same.
    if grace is None or grace.source_address != source_address:
        return None
    if not_before is not None and grace.signed_in_at < not_before:
        return None
    SshPublicKey.objects.filter(pk=key.pk).update(last_used_at=now)
    audit.record(
        Kind.SIGNED_IN,
        now=now,
        actor=user.party,
        subject=user.party,
        source_address=source_address,
        data={
            "door": DOOR,
            "factors": list(BY_GRACE),
            "full_sign_in_at": grace.signed_in_at,
        },
    )
    return now - grace.signed_in_at


@transaction.atomic
def end_graces(
    *, user_id: uuid.UUID, because: Kind, by: Party, now: dt.datetime
) -> int:
    """End every grace of the person because of a signal; return how many there were.

    Called before the signal's own event is written (see the order of locks).
    """
    if because not in SIGNALS:
        raise ValueError(f"{because} does not end graces")
    User.objects.filter(pk=user_id).update(graces_void_before=now)
    ended = SignInGrace.objects.filter(user_id=user_id, ends_at__gt=now).count()
    SignInGrace.objects.filter(user_id=user_id).delete()
    if ended:
        audit.record(
            Kind.GRACE_ENDED,
            now=now,
            actor=by,
            subject=User.objects.get(pk=user_id).party,
            data={"because": because, "graces": ended},
        )
    return ended


__all__ = ["SIGNALS", "end_graces", "sign_in", "sign_in_by_grace"]
