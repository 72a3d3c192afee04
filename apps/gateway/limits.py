"""How many connections may be open before anybody has proved who they are. Pure.

R18: a flood of silent connections must neither exhaust the gateway nor keep a genuine
engineer out. Each source network has its own small quota, so that one of them cannot
use up the total; when the total is used up anyway, the oldest connection of the network
that holds most gives way to a newcomer from another one.

State is one entry per open unauthenticated connection and nothing else: it cannot grow
beyond `total`, and it forgets a source when its last connection goes.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class LoginLimits:
    """Limits until authentication succeeds. Counts are connections."""

    total: int = 200
    per_source: int = 20
    login_seconds: float = 60.0


def source_of(address: str) -> Hashable:
    """Return what counts as one source: an IPv4 address, or an IPv6 /64.

    A single host owns a whole /64, so that counting addresses there is no limit.
    Text that is no address counts as one source of its own.
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return parsed.ipv4_mapped
        return ipaddress.ip_network((parsed, 64), strict=False)
    return parsed


@dataclass(slots=True)
class LoginGate:
    """Admits unauthenticated connections and knows which one to give up."""

    limits: LoginLimits
    _waiting: dict[Hashable, dict[Hashable, Callable[[], None]]] = field(
        default_factory=dict
    )
    _count: int = 0
    refused: int = 0
    """Connections turned away since the start, for the metrics."""

    def admit(self, key: Hashable, address: str, drop: Callable[[], None]) -> bool:
        """Admit the connection `key` from `address`, or return False.

        `drop` closes it when it has to give way; it is called at most once, after
        which the connection no longer counts.
        """
        source = source_of(address)
        mine = self._waiting.get(source)
        if mine is not None and len(mine) >= self.limits.per_source:
            self.refused += 1
            return False
        if self._count >= self.limits.total and not self._make_room(source):
            self.refused += 1
            return False
        self._waiting.setdefault(source, {})[key] = drop
        self._count += 1
        return True

    def _make_room(self, newcomer: Hashable) -> bool:
        largest = max(self._waiting, key=lambda source: len(self._waiting[source]))
        held = len(self._waiting.get(newcomer, ()))
        if largest == newcomer or len(self._waiting[largest]) <= held + 1:
            return False
        oldest = next(iter(self._waiting[largest]))
        drop = self._waiting[largest][oldest]
        self._forget(largest, oldest)
        self.refused += 1
        drop()
        return True

    def release(self, key: Hashable, address: str) -> None:
        """Stop counting a connection: it has authenticated or is gone. Repeatable."""
        source = source_of(address)
        if key in self._waiting.get(source, ()):
            self._forget(source, key)

    def _forget(self, source: Hashable, key: Hashable) -> None:
        del self._waiting[source][key]
        if not self._waiting[source]:
            del self._waiting[source]
        self._count -= 1

    def __len__(self) -> int:
        """Return how many unauthenticated connections are open."""
        return self._count
