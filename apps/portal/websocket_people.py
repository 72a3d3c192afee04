"""Who is behind a WebSocket, asked again as often as needed.

A WebSocket outlives the request that opened it, so the person is read anew from the
portal session each time: signed out, disabled or without factor means nobody.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

from channels.db import DatabaseSyncToAsync
from django.conf import settings
from django.contrib.auth import get_user
from django.http import HttpRequest
from django_otp import DEVICE_ID_SESSION_KEY
from django_otp.models import Device

from apps.accounts.models import User

AGREED_TO: Final = "agreed_to"
"""Under this name a portal session keeps which notice its person agreed to."""


def verified_person(session_key: str | None) -> User | None:
    """Return who is signed in by this session with both factors, if anybody is."""
    if not session_key:
        return None
    request = HttpRequest()
    request.session = import_module(settings.SESSION_ENGINE).SessionStore(session_key)
    person = get_user(request)
    if not isinstance(person, User) or person.disabled_at is not None:
        return None
    device_id = request.session.get(DEVICE_ID_SESSION_KEY)
    device = Device.from_persistent_id(device_id) if device_id else None
    if device is None or device.user_id != person.pk or not device.confirmed:
        return None
    return person


def agreed_notice(session_key: str | None) -> str:
    """Return the id of the notice that was agreed to in this session, or nothing."""
    if not session_key:
        return ""
    store = import_module(settings.SESSION_ENGINE).SessionStore(session_key)
    return str(store.get(AGREED_TO, ""))


# Not thread-sensitive: the default would run every WebSocket's question in one thread.
ask_verified_person = DatabaseSyncToAsync(verified_person, thread_sensitive=False)


def session_key_of(scope: Mapping[str, Any]) -> str | None:
    """Return the portal session's key of a WebSocket's scope."""
    return getattr(scope.get("session"), "session_key", None)
