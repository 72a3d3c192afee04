"""A sign-in between its first and its second factor.

The person is not signed in until both are through: until then the portal session holds
only what is needed to go on, on the server, for a few minutes and a few tries (R3, R4).
"""

import datetime as dt
import uuid
from dataclasses import dataclass

from django.http import HttpRequest

from apps.accounts import queries as accounts
from apps.accounts.models import User

LASTS = dt.timedelta(minutes=10)
TRIES = 5
_KEY = "pending_sign_in"


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingSignIn:
    """Whose password was right, where they want to go, and what they tried since."""

    person: User
    destination: str
    tries_left: int
    # The one-time-code device that was shown to this very browser, if any.
    device_id: int | None


def begin(
    request: HttpRequest, *, person: User, destination: str, now: dt.datetime
) -> None:
    """Remember that `person`'s password was right; nobody is signed in here now."""
    request.session.flush()
    request.session[_KEY] = {
        "person": str(person.pk),
        "destination": destination,
        "began_at": now.timestamp(),
        "tries_left": TRIES,
        "device_id": None,
        # A password that changed meanwhile voids what was begun with the old one.
        "password": person.get_session_auth_hash(),
    }


def current(request: HttpRequest, *, now: dt.datetime) -> PendingSignIn | None:
    """Return the sign-in that waits for its second factor, None when it lapsed."""
    kept = request.session.get(_KEY)
    if kept is None:
        return None
    age = now.timestamp() - kept["began_at"]
    person = accounts.person(uuid.UUID(kept["person"]))
    lapsed = (
        person is None
        or not 0 <= age < LASTS.total_seconds()
        or kept["tries_left"] < 1
        or kept["password"] != person.get_session_auth_hash()
    )
    if person is None or lapsed:
        forget(request)
        return None
    return PendingSignIn(
        person=person,
        destination=kept["destination"],
        tries_left=kept["tries_left"],
        device_id=kept["device_id"],
    )


def count_try(request: HttpRequest) -> None:
    """Take one try away; the sign-in lapses with the last one."""
    request.session[_KEY]["tries_left"] -= 1
    request.session.modified = True


def keep_device(request: HttpRequest, device_id: int) -> None:
    """Remember which device's secret this browser was shown."""
    request.session[_KEY]["device_id"] = device_id
    request.session.modified = True


def forget(request: HttpRequest) -> None:
    """Drop the waiting sign-in."""
    request.session.pop(_KEY, None)
