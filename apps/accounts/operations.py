"""Every write to people and their factors."""

import datetime as dt
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django_otp.plugins.otp_static.models import StaticDevice
from django_otp.plugins.otp_totp.models import TOTPDevice

from apps.accounts.api_tokens import revoke_all
from apps.accounts.models import HANDLE, SshPublicKey, User
from apps.accounts.public_keys import PublicKeyRefusedError, parse_public_key
from apps.accounts.ssh_sign_in import end_graces
from apps.audit import operations as audit
from apps.audit.kinds import Kind
from apps.audit.models import Outcome
from apps.audit.operations import NOBODY, Party

ROLES = ("engineer", "approver", "auditor", "administrator")
_RECOVERY_CODES = 10


class PersonRefusedError(ValueError):
    """A person cannot be added or changed like this; the message says why."""


class FactorRefusedError(ValueError):
    """A factor cannot be enrolled like this; the message says why."""


def _check_password(password: str, user: User) -> None:
    """Return when `password` will do for `user`. Raises: PersonRefusedError."""
    # Length alone would let twelve blanks pass (R12).
    if not password.strip():
        raise PersonRefusedError("A password of nothing but blanks is no password.")
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise PersonRefusedError(" ".join(error.messages)) from None


@transaction.atomic
def add_person(
    *,
    username: str,
    full_name: str,
    password: str,
    roles: frozenset[str],
    by: Party,
    now: dt.datetime,
    email: str = "",
    organisation: str = "",
) -> User:
    """Add a named person with the given roles (names of `ROLES`).

    Raises: PersonRefusedError when the handle, the password or a role cannot be used.
    """
    handle = username.strip().lower()
    unknown = roles - set(ROLES)
    if unknown:
        raise PersonRefusedError(f"There is no role {', '.join(sorted(unknown))}.")
    user = User(
        username=handle,
        full_name=full_name.strip(),
        email=email,
        organisation=organisation,
        created_at=now,
        **{f"is_{role}": role in roles for role in ROLES},
    )
    try:
        HANDLE(handle)
    except ValidationError as error:
        raise PersonRefusedError(" ".join(error.messages)) from None
    _check_password(password, user)
    user.set_password(password)
    try:
        with transaction.atomic():
            user.save(force_insert=True)
    except IntegrityError:
        raise PersonRefusedError(
            f"The handle {handle} is taken: choose another."
        ) from None
    audit.record(
        Kind.PERSON_ADDED,
        now=now,
        actor=by,
        subject=user.party,
        data={"roles": sorted(roles), "organisation": organisation},
    )
    return user


@transaction.atomic
def change_person(
    *,
    user_id: uuid.UUID,
    full_name: str,
    email: str,
    organisation: str,
    roles: frozenset[str],
    by: User,
    now: dt.datetime,
) -> User:
    """Change a person's name, address and roles.

    Nobody changes their own roles (R17): an administrator who could make themselves
    auditor or approver would be above every rule.
    Raises: PersonRefusedError.
    """
    user = User.objects.select_for_update().get(pk=user_id)
    unknown = roles - set(ROLES)
    if unknown:
        raise PersonRefusedError(f"There is no role {', '.join(sorted(unknown))}.")
    before = set(user.role_names)
    if user.pk == by.pk and before != set(roles):
        raise PersonRefusedError(
            "You cannot change your own roles: ask another administrator."
        )
    user.full_name, user.email, user.organisation = full_name, email, organisation
    for role in ROLES:
        setattr(user, f"is_{role}", role in roles)
    user.save()
    if before != set(roles):
        end_graces(user_id=user.pk, because=Kind.PERSON_CHANGED, by=by.party, now=now)
    audit.record(
        Kind.PERSON_CHANGED,
        now=now,
        actor=by.party,
        subject=user.party,
        data={"roles_before": sorted(before), "roles": sorted(roles)},
    )
    return user


@transaction.atomic
def disable_person(*, user_id: uuid.UUID, by: User, now: dt.datetime) -> bool:
    """Disable a person at once; live sessions end at the next look of the watchdog.

    Returns False when they were disabled already. Raises: PersonRefusedError for
    oneself: the last administrator must not lock everybody out.
    """
    if user_id == by.pk:
        raise PersonRefusedError("You cannot disable yourself.")
    changed = User.objects.filter(pk=user_id, disabled_at=None).update(disabled_at=now)
    if changed != 1:
        return False
    user = User.objects.get(pk=user_id)
    end_graces(user_id=user.pk, because=Kind.PERSON_DISABLED, by=by.party, now=now)
    revoke_all(user_id=user.pk, because=Kind.PERSON_DISABLED, by=by.party, now=now)
    audit.record(Kind.PERSON_DISABLED, now=now, actor=by.party, subject=user.party)
    return True


@transaction.atomic
def enable_person(*, user_id: uuid.UUID, by: User, now: dt.datetime) -> bool:
    """Enable a disabled person again; returns False when they were enabled already."""
    changed = (
        User.objects.filter(pk=user_id)
        .exclude(disabled_at=None)
        .exclude(pk=by.pk)
        .update(disabled_at=None)
    )
    if changed != 1:
        return False
    user = User.objects.get(pk=user_id)
    audit.record(Kind.PERSON_ENABLED, now=now, actor=by.party, subject=user.party)
    return True


@transaction.atomic
def change_password(*, user: User, new_password: str, now: dt.datetime) -> None:
    """Change the person's own password. Raises: PersonRefusedError when it is weak."""
    _check_password(new_password, user)
    user.set_password(new_password)
    user.save(update_fields=["password"])
    end_graces(user_id=user.pk, because=Kind.PASSWORD_CHANGED, by=user.party, now=now)
    revoke_all(user_id=user.pk, because=Kind.PASSWORD_CHANGED, by=user.party, now=now)
    audit.record(Kind.PASSWORD_CHANGED, now=now, actor=user.party, subject=user.party)


@transaction.atomic
def reset_password(
    *, user_id: uuid.UUID, new_password: str, by: User, now: dt.datetime
) -> None:
    """Give a person who forgot theirs a new password; their portal sessions end.

    Raises: PersonRefusedError for oneself (a stolen portal session must not take the
    account over) and when the password is weak.
    """
    if user_id == by.pk:
        raise PersonRefusedError("Change your own password in My account.")
    user = User.objects.select_for_update().get(pk=user_id)
    _check_password(new_password, user)
    user.set_password(new_password)
    user.save(update_fields=["password"])
    end_graces(user_id=user.pk, because=Kind.PASSWORD_CHANGED, by=by.party, now=now)
    revoke_all(user_id=user.pk, because=Kind.PASSWORD_CHANGED, by=by.party, now=now)
    audit.record(Kind.PASSWORD_CHANGED, now=now, actor=by.party, subject=user.party)


@transaction.atomic
def add_key(
    *, user: User, name: str, text: str, by: Party, now: dt.datetime
) -> SshPublicKey:
    """Add an SSH public key from one line in OpenSSH's format.

    Raises: PublicKeyRefusedError when it is no such line or is in use already.
    """
    parsed = parse_public_key(text)
    key = SshPublicKey(
        user=user,
        name=(name.strip() or parsed.comment or parsed.algorithm)[:80],
        algorithm=parsed.algorithm,
        line=parsed.line,
        fingerprint=parsed.fingerprint,
        added_at=now,
    )
    try:
        with transaction.atomic():
            key.save(force_insert=True)
    except IntegrityError:
        raise PublicKeyRefusedError(
            "This key is in use already: make one for yourself alone."
        ) from None
    end_graces(user_id=user.pk, because=Kind.KEY_ADDED, by=by, now=now)
    audit.record(
        Kind.KEY_ADDED,
        now=now,
        actor=by,
        subject=user.party,
        data={"fingerprint": key.fingerprint, "algorithm": key.algorithm},
    )
    return key


@transaction.atomic
def remove_key(*, key_id: uuid.UUID, user: User, now: dt.datetime) -> bool:
    """Remove a key of `user`; returns False when it is not theirs or is gone."""
    key = SshPublicKey.objects.filter(pk=key_id, user=user, removed_at=None).first()
    if key is None:
        return False
    changed = SshPublicKey.objects.filter(pk=key.pk, removed_at=None).update(
        removed_at=now
    )
    if changed != 1:
        return False
    end_graces(user_id=user.pk, because=Kind.KEY_REMOVED, by=user.party, now=now)
    audit.record(
        Kind.KEY_REMOVED,
        now=now,
        actor=user.party,
        subject=user.party,
        data={"fingerprint": key.fingerprint},
    )
    return True


@transaction.atomic
def start_totp_enrolment(
    *, user: User, shown_device_id: int | None = None
) -> TOTPDevice:
    """Return the unconfirmed one-time-code device of `user`.

    A waiting device is only shown again to the browser that was shown it before
    (`shown_device_id`); for any other it is replaced, because somebody who knows the
    first password could otherwise read the secret the person enrols with later.

    Raises: FactorRefusedError when a confirmed one exists: only an administrator's
    reset makes room for another.
    """
    if TOTPDevice.objects.filter(user=user, confirmed=True).exists():
        raise FactorRefusedError("You have a second factor already.")
    waiting = TOTPDevice.objects.filter(user=user, confirmed=False)
    shown = waiting.filter(pk=shown_device_id).first()
    if shown is not None:
        return shown
    waiting.delete()
    return TOTPDevice.objects.create(
        user=user, confirmed=False, name="authenticator", tolerance=1
    )


@transaction.atomic
def confirm_totp_enrolment(*, user: User, code: str, now: dt.datetime) -> list[str]:
    """Confirm the waiting device with a code and return the recovery codes, once.

    Raises: FactorRefusedError when nothing waits or the code is wrong.
    """
    device = (
        TOTPDevice.objects.select_for_update()
        .filter(user=user, confirmed=False)
        .first()
    )
    if device is None or TOTPDevice.objects.filter(user=user, confirmed=True).exists():
        raise FactorRefusedError("Start the enrolment again.")
    if not code.strip().isdigit() or not device.verify_token(code.strip()):
        raise FactorRefusedError(
            "That code is not right: check the clock of your phone and type the code "
            "that is shown now."
        )
    device.confirmed = True
    device.save()
    end_graces(user_id=user.pk, because=Kind.FACTOR_ENROLLED, by=user.party, now=now)
    audit.record(
        Kind.FACTOR_ENROLLED,
        now=now,
        actor=user.party,
        subject=user.party,
        data={"factor": "one-time code"},
    )
    return make_recovery_codes(user=user, now=now)


@transaction.atomic
def make_recovery_codes(*, user: User, now: dt.datetime) -> list[str]:
    """Make ten new recovery codes (80 bits each); the old ones are void."""
    StaticDevice.objects.filter(user=user).delete()
    device = StaticDevice.objects.create(user=user, name="recovery", confirmed=True)
    codes = []
    for _ in range(_RECOVERY_CODES):
        code = secrets.token_hex(8)
        device.token_set.create(token=code)
        codes.append(code)
    end_graces(
        user_id=user.pk, because=Kind.RECOVERY_CODES_MADE, by=user.party, now=now
    )
    audit.record(
        Kind.RECOVERY_CODES_MADE, now=now, actor=user.party, subject=user.party
    )
    return codes


@transaction.atomic
def reset_factors(*, user_id: uuid.UUID, by: User, now: dt.datetime) -> bool:
    """Remove a person's second factors, so that they enrol again at next sign-in.

    Returns False for oneself: a stolen portal session must not replace the factor.
    """
    if user_id == by.pk:
        return False
    user = User.objects.select_for_update().get(pk=user_id)
    TOTPDevice.objects.filter(user=user).delete()
    StaticDevice.objects.filter(user=user).delete()
    user.factors_reset_at = now
    user.save(update_fields=["factors_reset_at"])
    end_graces(user_id=user.pk, because=Kind.FACTOR_RESET, by=by.party, now=now)
    revoke_all(user_id=user.pk, because=Kind.FACTOR_RESET, by=by.party, now=now)
    audit.record(Kind.FACTOR_RESET, now=now, actor=by.party, subject=user.party)
    return True


@dataclass(frozen=True, slots=True)
class FactorVerdict:
    """Whether a one-time code was right; `wait_seconds` when tries are throttled."""

    accepted: bool
    wait_seconds: int = 0

    def __bool__(self) -> bool:
        return self.accepted


def verify_second_factor(*, user: User, code: str, now: dt.datetime) -> FactorVerdict:
    """Check a one-time or recovery code. Each code works once (RFC 6238 section 5.2).

    Tries are throttled per device, doubling from one second. Safe against two logins
    with the same code at once: the device row is locked while it is checked.
    """
    code = code.strip().replace(" ", "")
    # Only what a device or a recovery code could be goes near the database.
    if not (code.isascii() and code.isalnum() and len(code) <= 32):
        return FactorVerdict(accepted=False)
    with transaction.atomic():
        for device in (
            *TOTPDevice.objects.select_for_update().filter(user=user, confirmed=True),
            *StaticDevice.objects.select_for_update().filter(user=user, confirmed=True),
        ):
            if isinstance(device, TOTPDevice) != (code.isdigit() and len(code) == 6):
                continue
            allowed, detail = device.verify_is_allowed()
            if not allowed:
                until = (detail or {}).get("locked_until")
                wait = (until - now).total_seconds() if until else 1.0
                return FactorVerdict(accepted=False, wait_seconds=max(1, round(wait)))
            return FactorVerdict(accepted=bool(device.verify_token(code)))
    return FactorVerdict(accepted=False)


@transaction.atomic
def record_sign_in(
    *,
    user: User,
    door: str,
    source_address: str,
    now: dt.datetime,
    factors: tuple[str, ...],
) -> None:
    """Write that `user` signed in with all `factors` at `door` (the portal's)."""
    audit.record(
        Kind.SIGNED_IN,
        now=now,
        actor=user.party,
        subject=user.party,
        source_address=source_address,
        data={"door": door, "factors": list(factors)},
    )


@transaction.atomic
def record_sign_in_refused(
    *,
    handle: str,
    door: str,
    reason: str,
    source_address: str,
    now: dt.datetime,
    details: Mapping[str, object] | None = None,
) -> None:
    """Write that a sign-in as `handle` was refused; the handle need not exist."""
    audit.record(
        Kind.SIGN_IN_REFUSED,
        now=now,
        actor=Party("unknown", "", handle[:64]),
        subject=NOBODY,
        source_address=source_address,
        outcome=Outcome.DENIED,
        data={"door": door, "reason": reason, **(details or {})},
    )


@transaction.atomic
def record_signed_out(*, user: User, source_address: str, now: dt.datetime) -> None:
    """Write that `user` signed out of the portal."""
    audit.record(
        Kind.SIGNED_OUT,
        now=now,
        actor=user.party,
        subject=user.party,
        source_address=source_address,
    )


@transaction.atomic
def record_signed_out_everywhere(
    *, user: User, ended: int, source_address: str, now: dt.datetime
) -> None:
    """Write that `user` ended all their `ended` other portal sessions and graces."""
    end_graces(
        user_id=user.pk, because=Kind.SIGNED_OUT_EVERYWHERE, by=user.party, now=now
    )
    revoke_all(
        user_id=user.pk, because=Kind.SIGNED_OUT_EVERYWHERE, by=user.party, now=now
    )
    audit.record(
        Kind.SIGNED_OUT_EVERYWHERE,
        now=now,
        actor=user.party,
        subject=user.party,
        source_address=source_address,
        data={"portal_sessions": ended},
    )
