"""What may cross a conduit: the services, as they stand in rows and permits. Pure.

A service is a word, such as `shell` or `sftp-down`, or a forward with its one
destination, `forward:host:port`. Rows keep them as sorted lists of text. Each is a
right of its own: nothing implies anything else, except that any `sftp-` service lets
the `sftp` subsystem open, where folders can be listed and looked at.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from apps.inventory.addresses import parse_address, refusal

FORWARD_PREFIX: Final = "forward:"

# RFC 1123 2.1: labels of letters, digits and inner hyphens.
_HOST_NAME: Final = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
    r"(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*"
)
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")


class Service(StrEnum):
    """The services that are one word."""

    SHELL = "shell"
    EXEC = "exec"
    SFTP_DOWN = "sftp-down"
    SFTP_UP = "sftp-up"
    SFTP_DELETE = "sftp-delete"
    SFTP_RENAME = "sftp-rename"
    SFTP_MKDIR = "sftp-mkdir"
    SFTP_CHMOD = "sftp-chmod"
    SFTP_SYMLINK = "sftp-symlink"


LABELS: Final[dict[Service, str]] = {
    Service.SHELL: "Interactive shell",
    Service.EXEC: "Single commands",
    Service.SFTP_DOWN: "Download files",
    Service.SFTP_UP: "Upload files",
    Service.SFTP_DELETE: "Delete files and folders",
    Service.SFTP_RENAME: "Rename files and folders",
    Service.SFTP_MKDIR: "Make folders",
    Service.SFTP_CHMOD: "Change permissions and times of files",
    Service.SFTP_SYMLINK: "Make links",
}

SFTP_SERVICES: Final = frozenset(
    service for service in Service if service.value.startswith("sftp-")
)


class UnknownServiceError(ValueError):
    """The text is no service; the message says why and what to write instead."""


@dataclass(frozen=True, slots=True, order=True)
class ForwardDestination:
    """Where a forward may lead: one host and one port, as seen from the asset."""

    host: str
    """A literal address in its shortest form, or a host name in small letters."""
    port: int

    @property
    def service(self) -> str:
        """Return the service that names this destination."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{FORWARD_PREFIX}{host}:{self.port}"

    def __str__(self) -> str:
        return self.service.removeprefix(FORWARD_PREFIX)


def parse_destination(
    host: str, port: int, *, allow_local: bool = False
) -> ForwardDestination:
    """Return the destination that a client or an administrator wrote.

    Equal destinations compare equal however they were written (case, zeros in an
    address, brackets, a final dot). Raises: UnknownServiceError for what is neither an
    address nor a host name, for a port out of range, and, unless `allow_local`, for
    this machine itself, link-local and metadata addresses (R26).
    """
    if not 1 <= port <= 65535:
        raise UnknownServiceError("The port must be 1 to 65535.")
    address = parse_address(host)
    if address is not None:
        if isinstance(address, ipaddress.IPv6Address) and address.scope_id:
            raise UnknownServiceError("An address cannot have a zone index (%).")
        reason = refusal(address)
        if reason and not allow_local:
            raise UnknownServiceError(f"{address} cannot be a destination: {reason}.")
        return ForwardDestination(str(address), port)
    name = host.lower().removesuffix(".")
    if not _HOST_NAME.fullmatch(name) or name.rpartition(".")[2].isdigit():
        # All digits at the end: an old spelling of an IPv4 address (127.1).
        raise UnknownServiceError(
            "The destination is neither an address nor a host name: "
            "write host:port, such as 10.20.4.17:502."
        )
    if (name == "localhost" or name.endswith(".localhost")) and not allow_local:
        raise UnknownServiceError(
            f"{name} cannot be a destination: it is a loopback address."
        )
    return ForwardDestination(name, port)


def parse_forward(text: str, *, allow_local: bool = False) -> ForwardDestination:
    """Return the destination in `host:port` or `[address]:port`.

    Raises: UnknownServiceError.
    """
    host, colon, port = text.strip().rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not _PORT.fullmatch(port) or (":" in bare and not bracketed):
        raise UnknownServiceError(
            f"“{text.strip()[:80]}” is no destination: write host:port, such as "
            "10.20.4.17:502 or [fd00::17]:502."
        )
    return parse_destination(bare, int(port), allow_local=allow_local)


def check_services(services: Iterable[str], *, allow_local: bool = False) -> list[str]:
    """Return the services sorted, each once and in its one spelling.

    Raises: UnknownServiceError for the first that is none.
    """
    found = set()
    for text in services:
        if text.startswith(FORWARD_PREFIX):
            destination = parse_forward(
                text.removeprefix(FORWARD_PREFIX), allow_local=allow_local
            )
            found.add(destination.service)
        elif text in LABELS:
            found.add(Service(text).value)
        else:
            raise UnknownServiceError(f"There is no service {text[:80]}.")
    return sorted(found)


def forwards_of(services: Iterable[str]) -> frozenset[ForwardDestination]:
    """Return the destinations among services that were checked when they were kept."""
    return frozenset(
        parse_forward(text.removeprefix(FORWARD_PREFIX), allow_local=True)
        for text in services
        if text.startswith(FORWARD_PREFIX)
    )


def label_of(service: str) -> str:
    """Return what people are shown for a service; an unknown one as it is."""
    if service.startswith(FORWARD_PREFIX):
        return f"Forward to {service.removeprefix(FORWARD_PREFIX)}"
    return LABELS[Service(service)] if service in LABELS else service
