"""Where a request or a WebSocket comes from."""

import ipaddress
from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest


def source_address(request: HttpRequest) -> str:
    """Return the address of the client, as text in its shortest form.

    With `TRUSTED_PROXIES` = n, the n-th entry from the right of X-Forwarded-For counts:
    each proxy appends the address it was called from, and what stands left of that was
    written by the client. With 0 the header is ignored. IPv4 inside IPv6 is unwrapped,
    so that one client has one address.

    Raises: PermissionDenied when there is none; an unknown source is refused.
    """
    return _address(
        forwarded=request.headers.get("X-Forwarded-For", ""),
        peer=request.META.get("REMOTE_ADDR") or "",
    )


def address_of_scope(scope: Mapping[str, Any]) -> str:
    """Return what `source_address` would, for the ASGI scope of a WebSocket.

    Raises: PermissionDenied as there.
    """
    forwarded = [
        value.decode("latin-1")
        for name, value in scope.get("headers", ())
        if name == b"x-forwarded-for"
    ]
    client = scope.get("client") or ("", 0)
    return _address(forwarded=",".join(forwarded), peer=str(client[0]))


def _address(*, forwarded: str, peer: str) -> str:
    proxies = int(settings.TRUSTED_PROXIES)
    if proxies:
        entries = [entry.strip() for entry in forwarded.split(",")]
        if len(entries) < proxies:
            raise PermissionDenied("the proxy did not say who is calling")
        text = entries[-proxies]
    else:
        text = peer
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise PermissionDenied("the client has no address") from None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(address)
