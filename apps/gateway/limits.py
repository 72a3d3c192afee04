"""How many connections may be open before anybody has proved who they are. Pure.

R18: a flood of silent connections must neither exhaust the gateway nor keep a genuine
engineer out. Each source network has its own small quota, so that one of them cannot
use up the total; when the total is used up anyway, the oldest connection of the network
that holds most gives way to a newcomer from another one.

Connections that come and go quickly are limited by their rate: each costs a greeting,
and most of them a key exchange.

State is one entry per open unauthenticated connection, at most `total`, and one number
for each of the `SOURCES` networks that came last.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Final

SOURCES: Final = 4096
"""Source networks whose rate is remembered; the one longest quiet is forgotten."""


@dataclass(frozen=True, slots=True)
class LoginLimits:
    """Limits until authentication succeeds. Counts are connections."""

    total: int = 200
    per_source: int = 20
    login_seconds: float = 60.0
    burst: float = 100.0
    """Connections of one source at once, however short; they earn back slowly."""
    per_second: float = 20.0
    """Connections of one source that are earned back in a second."""


@dataclass(slots=True)
class Budget:
    """What may be used up at once, and how fast it comes back. Times are seconds of a
    monotonic clock."""

    burst: float
    per_second: float
    _left: float = field(init=False)
    _at: float | None = None

    def __post_init__(self) -> None:
        self._left = self.burst

    def earn(self, amount: float) -> None:
        """Give something back, never above the burst."""
        self._left = min(self.burst, self._left + amount)

    def spend(self, at: float, amount: float = 1.0) -> bool:
        """Use up `amount`; False, and nothing is used up, when it is not there."""
        if self._at is not None:
            self.earn((at - self._at) * self.per_second)
        self._at = at
        if self._left < amount:
            return False
        self._left -= amount
        return True


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
    _rates: OrderedDict[Hashable, Budget] = field(default_factory=OrderedDict)
    _count: int = 0
    refused: int = 0
    """Connections turned away since the start, for the metrics."""

    def admit(
        self, key: Hashable, address: str, drop: Callable[[], None], *, at: float
    ) -> bool:
        """Admit the connection `key` from `address`, or return False.

        `drop` closes it when it has to give way; it is called at most once, after
        which the connection no longer counts. `at` is a monotonic time in seconds.
        """
        source = source_of(address)
        if not self._rate_of(source).spend(at):
            self.refused += 1
            return False
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

    def _rate_of(self, source: Hashable) -> Budget:
        rate = self._rates.get(source)
        if rate is None:
            rate = Budget(self.limits.burst, self.limits.per_second)
            self._rates[source] = rate
            if len(self._rates) > SOURCES:
                self._rates.popitem(last=False)
        else:
            self._rates.move_to_end(source)
        return rate

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
