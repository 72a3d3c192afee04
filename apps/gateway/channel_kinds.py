"""Every kind of channel that SSH knows, and what one of each kind needs. Pure.

One table for the code and for the tests. The code opens nothing that has no row or
whose row names no right; the tests make one case of each cell. A kind that SSH gains is
refused until it has a row here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import Final

from apps.access.permits import ConnectionPermit


class Gate(StrEnum):
    """What has to hold before, and while, a channel is open."""

    AUTH = "auth"
    """The sign-in is complete (R35)."""
    ACTIVE = "active"
    """The session's state is active (R19)."""
    MFA = "mfa"
    """All factors, for this name, and fresh enough for the zone (R4, R11, R28)."""
    GRANT = "grant"
    """An approved grant for person, asset and account covers this moment (R2)."""
    RIGHT = "right"
    """The grant and the conduit name this kind of access (R27)."""
    PIN = "pin"
    """The asset shows a host key that is pinned (R10, R39)."""
    REC = "rec"
    """The recorder is open and healthy (R23)."""
    CUT = "cut"
    """Expiry, revocation and terminate reach it, with the asset's end mode."""
    BOUND = "bound"
    """Buffers are bounded in both directions (R20)."""
    AUDIT = "audit"
    """Opening, refusal and close are written down, or nothing opens (R22)."""


class Right(Enum):
    """What in a permit lets a kind through."""

    SERVICE = auto()
    """The service of the same name."""
    ANY_TRANSFER = auto()
    """Any right to files; each operation inside is then judged by its own."""
    DESTINATION = auto()
    """The service that names exactly this destination."""
    NOTHING = auto()
    """No grant can name it: refused, whatever the gates say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelKind:
    """One row. `channel_types` are words of CHANNEL_OPEN, `requests` of CHANNEL_REQUEST
    or GLOBAL_REQUEST, by which a client asks for it (RFC 4254, OpenSSH's PROTOCOL)."""

    name: str
    right: Right
    channel_types: tuple[str, ...] = ()
    requests: tuple[str, ...] = ()
    opened_as: str = ""
    """The kind whose rules it gets, where that is another."""

    @property
    def refused(self) -> bool:
        """Say whether it is refused always."""
        return self.right is Right.NOTHING

    @property
    def gates(self) -> frozenset[Gate]:
        """Return what it needs; of a refused kind, what is tested of the refusal."""
        return frozenset({Gate.AUTH, Gate.AUDIT}) if self.refused else frozenset(Gate)


SESSION_TYPE: Final = "session"
FORWARD_TYPE: Final = "direct-tcpip"

KINDS: Final[tuple[ChannelKind, ...]] = (
    ChannelKind(
        name="shell",
        right=Right.SERVICE,
        channel_types=(SESSION_TYPE,),
        requests=("shell",),
    ),
    ChannelKind(
        name="exec",
        right=Right.SERVICE,
        channel_types=(SESSION_TYPE,),
        requests=("exec",),
    ),
    ChannelKind(
        name="sftp",
        right=Right.ANY_TRANSFER,
        channel_types=(SESSION_TYPE,),
        requests=("subsystem",),
    ),
    # The old form, `scp -O`: never judged by its text (R10). The new form is sftp.
    ChannelKind(
        name="scp",
        right=Right.SERVICE,
        channel_types=(SESSION_TYPE,),
        requests=("exec",),
        opened_as="exec",
    ),
    ChannelKind(name="forward", right=Right.DESTINATION, channel_types=(FORWARD_TYPE,)),
    # Through a connection that names no asset; what is inside is one of the above.
    ChannelKind(
        name="jump",
        right=Right.SERVICE,
        channel_types=(FORWARD_TYPE,),
        opened_as="exec",
    ),
    ChannelKind(
        name="streamlocal",
        right=Right.NOTHING,
        channel_types=(
            "direct-streamlocal@openssh.com",
            "forwarded-streamlocal@openssh.com",
        ),
    ),
    ChannelKind(
        name="streamlocal-forward",
        right=Right.NOTHING,
        requests=("streamlocal-forward@openssh.com",),
    ),
    ChannelKind(
        name="agent",
        right=Right.NOTHING,
        channel_types=("auth-agent@openssh.com",),
        requests=("auth-agent-req@openssh.com",),
    ),
    ChannelKind(
        name="x11", right=Right.NOTHING, channel_types=("x11",), requests=("x11-req",)
    ),
    ChannelKind(
        name="tcpip-forward",
        right=Right.NOTHING,
        channel_types=("forwarded-tcpip",),
        requests=("tcpip-forward",),
    ),
    ChannelKind(name="tun", right=Right.NOTHING, channel_types=("tun@openssh.com",)),
    ChannelKind(name="subsystem", right=Right.NOTHING, requests=("subsystem",)),
)
"""`subsystem` is every one but `sftp`."""

_BY_NAME: Final = {kind.name: kind for kind in KINDS}

OPENABLE_TYPES: Final = frozenset(
    name for kind in KINDS if not kind.refused for name in kind.channel_types
)
"""The words of CHANNEL_OPEN that are looked at further; others are refused at once."""

SUBSYSTEMS: Final = frozenset({"sftp"})


def is_granted(kind: str, service: str, permit: ConnectionPermit) -> bool:
    """Say whether a permit lets a channel of this kind open.

    `service` is what it asks for: of a forward the one that names its destination. A
    kind without a row, or without a right, is never granted.
    """
    row = _BY_NAME.get(kind)
    if row is None or row.refused or row.opened_as:
        return False
    if row.right is Right.ANY_TRANSFER:
        return permit.may_transfer
    return service in permit.services
