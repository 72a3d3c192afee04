"""Where to go next, when the address to go to came from outside."""

from django.conf import settings
from django.http import HttpRequest
from django.shortcuts import resolve_url
from django.utils.http import url_has_allowed_host_and_scheme

_LONGEST = 2000


def safe_destination(request: HttpRequest, wanted: str) -> str:
    """Return `wanted` when it stays on this host, else the start page (R7)."""
    # What has no slash in front would be taken for the name of a view.
    allowed = wanted.startswith("/") and len(wanted) <= _LONGEST
    allowed = allowed and url_has_allowed_host_and_scheme(
        wanted,
        allowed_hosts={request.get_host()},
        require_https=request.is_secure(),
    )
    return wanted if allowed else resolve_url(settings.LOGIN_REDIRECT_URL)
