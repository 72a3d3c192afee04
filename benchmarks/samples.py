"""What a measurement yields, and how much of everything is measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

T = TypeVar("T")

MEGABYTE: Final = 1_000_000


class Sample(NamedTuple):
    """One measured value."""

    metric: str
    system: str
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much of everything. Rounds count samples per system; sizes are MB."""

    login_rounds: int = 20
    echo_rounds: int = 2
    echo_keys: int = 500
    transfer_rounds: int = 5
    zeros: int = 500
    random: int = 200
    flood: int = 100
    sftp: int = 300
    parallel_logins: int = 24

    def rounds(self, metric: str) -> int:
        """Return how many rounds `metric` takes."""
        return {"login": self.login_rounds, "echo": self.echo_rounds}.get(
            metric, self.transfer_rounds
        )


QUICK: Final = Sizes(
    login_rounds=2,
    echo_rounds=1,
    echo_keys=50,
    transfer_rounds=1,
    zeros=30,
    random=20,
    flood=5,
    sftp=20,
    parallel_logins=8,
)


def in_turn(systems: Sequence[T], number: int) -> list[T]:
    """Return `systems` beginning with another one in each round."""
    first = number % len(systems)
    return [*systems[first:], *systems[:first]]
