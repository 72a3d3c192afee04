"""Which state may follow which, for uploads that are held. Pure."""

from enum import StrEnum


class HeldState(StrEnum):
    """States of an upload that is held for release."""

    RECEIVING = "receiving"
    HELD = "held"
    RELEASED = "released"
    DELIVERED = "delivered"
    REJECTED = "rejected"
    EXPIRED = "expired"
    BROKEN = "broken"


TRANSITIONS: dict[HeldState, frozenset[HeldState]] = {
    HeldState.RECEIVING: frozenset({HeldState.HELD, HeldState.BROKEN}),
    HeldState.HELD: frozenset(
        {HeldState.RELEASED, HeldState.REJECTED, HeldState.EXPIRED}
    ),
    HeldState.RELEASED: frozenset({HeldState.DELIVERED, HeldState.EXPIRED}),
    HeldState.DELIVERED: frozenset(),
    HeldState.REJECTED: frozenset(),
    HeldState.EXPIRED: frozenset(),
    HeldState.BROKEN: frozenset(),
}

WITH_CONTENT = frozenset({HeldState.RECEIVING, HeldState.HELD, HeldState.RELEASED})
"""States in which the content is kept; it is destroyed on the way to any other."""
