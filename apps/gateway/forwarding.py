"""Where a forward may lead: exactly where the permit says, by an address judged here.

A destination is compared in its one spelling (`inventory.services`). A host name is
resolved by the gateway, every answer is judged, and the asset is then asked for exactly
those literal addresses: a name that means one thing to the judge and another to the
asset would be a way around the rules (R26, DNS rebinding). No name is looked up before
the permit was found to hold it, as a look-up by itself carries text out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from apps.gateway.name_lookups import FORWARD_NAMES, Address, LookupFailedError
from apps.gateway.session_context import ChannelRefusedError
from apps.inventory.addresses import parse_address, refusal
from apps.inventory.services import (
    ForwardDestination,
    UnknownServiceError,
    parse_destination,
)

RESOLVE_SECONDS: Final = 5.0

ADDRESS_LIMIT: Final = 4
"""Addresses of one name that are tried; a name with more is tried in its first ones."""

UNKNOWN_ORIGIN: Final = "unknown"


@dataclass(frozen=True, slots=True)
class AskedForward:
    """What a client put into its direct-tcpip message (RFC 4254 7.2), not judged."""

    host: bytes
    port: int
    origin_host: bytes
    origin_port: int

    @property
    def origin(self) -> tuple[str, int]:
        """Return where the client says the connection came from.

        Informative only; what is no address or port is not passed on.
        """
        address = parse_address(self.origin_host[:64].decode("ascii", "replace"))
        port = self.origin_port if self.origin_port <= 65535 else 0
        return (str(address) if address else UNKNOWN_ORIGIN), port


def destination_of(asked: AskedForward, *, allow_local: bool) -> ForwardDestination:
    """Return the destination a client asked for, in its one spelling.

    Raises: ChannelRefusedError; the text never repeats what could not be read.
    """
    try:
        host = asked.host[:256].decode("ascii")
        return parse_destination(host, asked.port, allow_local=allow_local)
    except UnicodeDecodeError:
        raise ChannelRefusedError("the destination is no host name") from None
    except UnknownServiceError as error:
        line = str(error).partition(":")[0].removesuffix(".")
        raise ChannelRefusedError(line[:1].lower() + line[1:]) from None


async def addresses_of(
    destination: ForwardDestination, *, allow_local: bool
) -> tuple[str, ...]:
    """Return the literal addresses to ask the asset for, judged, in their order.

    Raises: ChannelRefusedError when the name cannot be resolved by the gateway, or any
    of its addresses may not be a destination (R26).
    """
    literal = parse_address(destination.host)
    found = [literal] if literal else await _resolve(destination)
    for address in found:
        reason = refusal(address)
        if reason is not None and not allow_local:
            raise ChannelRefusedError(
                f"{destination.host} is {address}, which cannot be a destination: "
                f"{reason}"
            )
    return tuple(str(address) for address in found[:ADDRESS_LIMIT])


async def _resolve(
    destination: ForwardDestination,
) -> list[Address]:
    try:
        return await FORWARD_NAMES.addresses(
            destination.host, destination.port, seconds=RESOLVE_SECONDS
        )
    except LookupFailedError:
        raise ChannelRefusedError(
            f"the gateway cannot resolve the name {destination.host}"
        ) from None
