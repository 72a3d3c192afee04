"""Reading people and their factors."""

import datetime as dt
import uuid

from django.db.models import Q, QuerySet
from django_otp.plugins.otp_static.models import StaticDevice
from django_otp.plugins.otp_totp.models import TOTPDevice

from apps.accounts.models import SignInGrace, SshPublicKey, User


def person_by_handle(handle: str) -> User | None:
    """Return the enabled person with this handle, whatever its case."""
    return User.objects.enabled().filter(username__iexact=handle).first()


def person(user_id: uuid.UUID) -> User | None:
    """Return the enabled person with this identifier."""
    return User.objects.enabled().filter(pk=user_id).first()


def search_people(*, text: str = "", role: str = "", state: str = "") -> QuerySet[User]:
    """Return people by handle; every filter that is not empty narrows it.

    `role` is a role's name, `state` is `enabled` or `disabled`.
    """
    found = User.objects.order_by("username")
    if text:
        found = found.filter(
            Q(username__icontains=text)
            | Q(full_name__icontains=text)
            | Q(organisation__icontains=text)
        )
    if role:
        found = found.filter(**{f"is_{role}": True})
    if state:
        found = found.filter(disabled_at__isnull=state == "enabled")
    return found


def usable_key(*, handle: str, fingerprint: str) -> SshPublicKey | None:
    """Return the key `fingerprint` when it belongs to this enabled person."""
    return (
        SshPublicKey.objects.usable()
        .select_related("user")
        .filter(user__username__iexact=handle, fingerprint=fingerprint)
        .first()
    )


def sign_in_stands(user: User, key_id: uuid.UUID, *, at: dt.datetime) -> bool:
    """Say whether a sign-in as `user` by this key, made `at`, is still worth something.

    Not when the key may no longer be signed in with, nor after what ends graces: it
    asks for every factor again.
    """
    void = user.graces_void_before
    return (void is None or at > void) and SshPublicKey.objects.usable().filter(
        pk=key_id, user=user
    ).exists()


def keys_of(user: User) -> QuerySet[SshPublicKey]:
    """Return the keys of `user` that were not removed, newest first."""
    return SshPublicKey.objects.filter(user=user, removed_at=None)


def totp_device(user: User) -> TOTPDevice | None:
    """Return the confirmed one-time-code device of `user`."""
    return TOTPDevice.objects.filter(user=user, confirmed=True).first()


def recovery_codes_left(user: User) -> int:
    """Return how many unused recovery codes `user` has."""
    device = StaticDevice.objects.filter(user=user, confirmed=True).first()
    return device.token_set.count() if device else 0


def graces_of(user: User, *, now: dt.datetime) -> QuerySet[SignInGrace]:
    """Return where `user` can sign in over SSH with the key alone at `now`."""
    return SignInGrace.objects.select_related("key").filter(user=user, ends_at__gt=now)
