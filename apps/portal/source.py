"""Where a request comes from."""

import ipaddress

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
    proxies = int(settings.TRUSTED_PROXIES)
    if proxies:
        header = request.headers.get("X-Forwarded-For", "")
        entries = [entry.strip() for entry in header.split(",")]
        if len(entries) < proxies:
            raise PermissionDenied("the proxy did not say who is calling")
        text = entries[-proxies]
    else:
        text = request.META.get("REMOTE_ADDR") or ""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise PermissionDenied("the client has no address") from None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(address)
