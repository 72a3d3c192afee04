"""Which addresses an asset may never have (R26). Pure rules.

A jump server that could be pointed at itself, at its own network's link-local range or
at a cloud's metadata service would be a way around every zone.
"""

import ipaddress

_METADATA = {
    ipaddress.ip_address("169.254.169.254"),
    ipaddress.ip_address("100.100.100.200"),
    ipaddress.ip_address("fd00:ec2::254"),
}

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def parse_address(text: str) -> IpAddress | None:
    """Return the IP address in `text`, or None when it is a name."""
    try:
        return ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return None


def refusal(address: IpAddress) -> str | None:
    """Return why `address` may not be a target, or None when it may.

    IPv4 addresses inside IPv6 ones (mapped, 6to4, Teredo) count as what they carry.
    """
    if isinstance(address, ipaddress.IPv6Address):
        carried = address.ipv4_mapped or address.sixtofour
        if carried is None and address.teredo:
            carried = address.teredo[1]
        if carried is not None:
            return refusal(carried)
    if address in _METADATA:
        return "it is a metadata service"
    if address.is_loopback:
        return "it is a loopback address"
    if address.is_link_local:
        return "it is a link-local address"
    if address.is_unspecified:
        return "it is the unspecified address"
    if address.is_multicast:
        return "it is a multicast address"
    if isinstance(address, ipaddress.IPv4Address) and (
        address == ipaddress.ip_address("255.255.255.255")
        or address in ipaddress.ip_network("0.0.0.0/8")
    ):
        return "it is a broadcast or this-network address"
    return None
