"""Which state may follow which, for leases. Pure."""

from enum import StrEnum


class LeaseStep(StrEnum):
    """States of a lease."""

    ISSUED = "issued"
    WITHDRAWING = "withdrawing"
    PROVED_DEAD = "proved_dead"
    OPEN = "open"


TRANSITIONS: dict[LeaseStep, frozenset[LeaseStep]] = {
    LeaseStep.ISSUED: frozenset({LeaseStep.WITHDRAWING}),
    LeaseStep.WITHDRAWING: frozenset({LeaseStep.PROVED_DEAD, LeaseStep.OPEN}),
    LeaseStep.OPEN: frozenset({LeaseStep.PROVED_DEAD}),
    LeaseStep.PROVED_DEAD: frozenset(),
}
