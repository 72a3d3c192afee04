"""Which gateways have fallen silent, as one observer sees it. Pure.

A gateway writes the time of its own clock into its row once a second. The observer
never compares that with a clock of its own, which may go differently: it only watches
whether the value still changes. Time in which the observer did not look (its process
was suspended, the database was away) counts against nobody.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

LOOKS: Final = 10
"""So often an observer looks before it gives a gateway up."""

LONGEST_PAUSE_SECONDS: Final = 1.0


@dataclass(slots=True)
class _Heard:
    seen_at: dt.datetime
    silent_seconds: float = 0.0


@dataclass(slots=True)
class HeartbeatObserver:
    """Remembers what was last heard of each gateway.

    `lost_seconds` of silence, seen by this observer itself, make a gateway lost.
    """

    lost_seconds: float
    _heard: dict[uuid.UUID, _Heard] = field(default_factory=dict)
    _looked_at: float | None = None

    @property
    def pause_seconds(self) -> float:
        """Return how long to wait between two looks."""
        return min(self.lost_seconds / LOOKS, LONGEST_PAUSE_SECONDS)

    def look(
        self, rows: Mapping[uuid.UUID, dt.datetime], *, at: float
    ) -> dict[uuid.UUID, dt.datetime]:
        """Return the gateways that are lost, with the value that no longer changes.

        `rows` holds `seen_at` of every running gateway, `at` is in seconds of a
        monotonic clock. A pause that was longer than meant counts as twice as long as
        meant, at most.
        """
        passed = 0.0
        if self._looked_at is not None:
            passed = min(at - self._looked_at, 2 * self.pause_seconds)
        self._looked_at = at
        heard: dict[uuid.UUID, _Heard] = {}
        for gateway_id, seen_at in rows.items():
            before = self._heard.get(gateway_id)
            if before is None or before.seen_at != seen_at:
                heard[gateway_id] = _Heard(seen_at)
            else:
                heard[gateway_id] = _Heard(seen_at, before.silent_seconds + passed)
        self._heard = heard
        return {
            gateway_id: one.seen_at
            for gateway_id, one in heard.items()
            if one.silent_seconds >= self.lost_seconds
        }
