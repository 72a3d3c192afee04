"""The tests themselves cannot leave the machine."""

import errno
import socket

import pytest

from tests.network import OutsideNetworkBlockedError


def test_an_outside_address_is_blocked() -> None:
    with socket.socket() as client, pytest.raises(OutsideNetworkBlockedError):
        client.connect(("9.9.9.9", 53))
    with (
        socket.socket(type=socket.SOCK_DGRAM) as client,
        pytest.raises(OutsideNetworkBlockedError),
    ):
        client.sendto(b"x", ("9.9.9.9", 53))


def test_an_outside_name_is_not_looked_up() -> None:
    with pytest.raises(OutsideNetworkBlockedError):
        socket.getaddrinfo("sluice.example", 22)
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo("no-such-host.invalid", 22)


def test_a_documentation_address_is_unreachable() -> None:
    with socket.socket() as client:
        with pytest.raises(OSError, match="unreachable"):
            client.connect(("192.0.2.1", 22))
        assert client.connect_ex(("192.0.2.1", 22)) == errno.ENETUNREACH


def test_loopback_is_open() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname(), timeout=5) as client,
    ):
        peer, _ = server.accept()
        with peer:
            client.sendall(b"here")
            assert peer.recv(4) == b"here"
