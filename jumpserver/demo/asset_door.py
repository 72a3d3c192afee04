"""Trying a key on an asset itself, past the gateway, with a library Sluice's own
connections do not use: the story's independent look at whether a credential is dead.
"""

import base64
import socket
from dataclasses import dataclass
from typing import Any, Self

import paramiko

_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Where an asset listens and how it proves to be itself."""

    address: str
    port: int
    host_key: str

    @classmethod
    def of(cls, asset: dict[str, Any]) -> Self:
        """Return the door of an asset as the plant describes it."""
        return cls(
            address=asset["address"], port=asset["port"], host_key=asset["host_key"]
        )


@dataclass(frozen=True, slots=True)
class DoorAnswer:
    """Whether the key opened the asset, and what was said."""

    is_open: bool
    said: str


def try_door(door: Door, login: str, key: paramiko.PKey) -> DoorAnswer:
    """Try to log in with `key`. Raises: OSError, paramiko.SSHException when nobody
    answers there or somebody else does: that would prove nothing.
    """
    connection = socket.create_connection((door.address, door.port), timeout=_SECONDS)
    transport = paramiko.Transport(connection)
    try:
        transport.start_client(timeout=_SECONDS)
        told = transport.get_remote_server_key().asbytes()
        if base64.b64encode(told).decode() != door.host_key.split()[1]:
            raise paramiko.SSHException("another host key than the asset's")
        try:
            transport.auth_publickey(login, key)
        except paramiko.AuthenticationException as refusal:
            return DoorAnswer(False, str(refusal).rstrip("."))  # noqa: FBT003
        return DoorAnswer(transport.is_authenticated(), "let in")
    finally:
        transport.close()
