"""Whose address counts."""

import pytest
from django.core.exceptions import PermissionDenied
from django.test import RequestFactory, override_settings

from apps.portal.source import source_address


@pytest.mark.parametrize(
    ("proxies", "remote", "header", "expected"),
    [
        (0, "192.0.2.1", None, "192.0.2.1"),
        (0, "192.0.2.1", "203.0.113.5", "192.0.2.1"),
        (0, "2001:DB8:0:0:0:0:0:1", None, "2001:db8::1"),
        (0, "::ffff:192.0.2.1", None, "192.0.2.1"),
        (1, "10.0.0.1", "192.0.2.1", "192.0.2.1"),
        (1, "10.0.0.1", "203.0.113.5, 192.0.2.1", "192.0.2.1"),
        (2, "10.0.0.1", "203.0.113.5, 192.0.2.1, 10.0.0.2", "192.0.2.1"),
    ],
)
def test_the_address_the_last_trusted_proxy_saw(
    proxies: int,
    remote: str,
    header: str | None,
    expected: str,
) -> None:
    """R13: what stands left of it was written by the client."""
    headers = {"X-Forwarded-For": header} if header else {}
    request = RequestFactory().get("/", headers=headers, REMOTE_ADDR=remote)
    with override_settings(TRUSTED_PROXIES=proxies):
        assert source_address(request) == expected


@pytest.mark.parametrize(
    ("proxies", "remote", "header"),
    [
        (0, "", None),
        (0, "unix:", None),
        (1, "10.0.0.1", None),
        (1, "10.0.0.1", ""),
        (1, "10.0.0.1", "unknown"),
        (2, "10.0.0.1", "192.0.2.1"),
    ],
)
def test_an_unknown_source_is_refused(
    proxies: int, remote: str, header: str | None
) -> None:
    headers = {"X-Forwarded-For": header} if header is not None else {}
    request = RequestFactory().get("/", headers=headers, REMOTE_ADDR=remote)
    with override_settings(TRUSTED_PROXIES=proxies), pytest.raises(PermissionDenied):
        source_address(request)
