"""Keep the tests on this machine: loopback and Unix sockets only.

An address of the documentation ranges (RFC 5737, RFC 3849) answers "network is
unreachable" like a machine without a route, because tests use one as the target that
is not there. Any other outside address is a mistake in a test and says so. Names are
looked up for this machine only; `.invalid` (RFC 2606) does not exist.

libpq and other C libraries do not pass here; they are only ever given local addresses.
"""

import errno
import ipaddress
import os
import socket
from typing import Any

_UNREACHABLE = [
    ipaddress.ip_network(text)
    for text in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
]
_LOCAL_NAMES = {"", "localhost", "ip6-localhost", socket.gethostname()}


class OutsideNetworkBlockedError(RuntimeError):
    """A test tried to leave the machine.

    Not an OSError: code that handles a network failure must not swallow it.
    """


def _literal(host: object) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(str(host).partition("%")[0])
    except ValueError:
        return None


def check_address(family: int, address: Any) -> None:
    """Return when `address` is on this machine.

    Raises OSError (ENETUNREACH) for the documentation ranges and
    OutsideNetworkBlockedError for everything else.
    """
    if family not in {socket.AF_INET, socket.AF_INET6}:
        return
    host = address[0]
    if host in _LOCAL_NAMES:
        return
    literal = _literal(host)
    if literal is not None and (literal.is_loopback or literal.is_unspecified):
        return
    if literal is not None and any(literal in network for network in _UNREACHABLE):
        raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))
    raise OutsideNetworkBlockedError(f"tests may not connect to {host!r}")


def block(monkeypatch: Any) -> None:
    """Put the guard into `socket` until `monkeypatch` is undone."""
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex
    sendto, getaddrinfo = socket.socket.sendto, socket.getaddrinfo

    def guarded_connect(self: socket.socket, address: Any) -> None:
        check_address(self.family, address)
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        try:
            check_address(self.family, address)
        except OSError as error:
            return error.errno or errno.ENETUNREACH
        return connect_ex(self, address)

    def guarded_sendto(self: socket.socket, data: Any, *rest: Any) -> int:
        check_address(self.family, rest[-1])
        return sendto(self, data, *rest)

    def guarded_getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name is None or name in _LOCAL_NAMES or _literal(name) is not None:
            return getaddrinfo(host, *args, **kwargs)
        if name.endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        raise OutsideNetworkBlockedError(f"tests may not look up {name!r}")

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
    monkeypatch.setattr(socket.socket, "sendto", guarded_sendto)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_getaddrinfo)
