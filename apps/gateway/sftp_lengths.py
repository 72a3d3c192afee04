"""How long a file that is added to can have become, in all channels of a session. Pure.

A write that appends makes a file longer by what it holds; every other makes it reach to
a place at most. Which names and handles mean the same file only the asset knows, and of
what is not answered it is not known when it is done. So a file is at most as long as it
was, or as any other write since may reach, and all that was appended since on top.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Adding:
    """A file that is open to be added to."""

    reach: int
    """How far other writes, of whatever file, may reach since its size was asked."""
    since: int
    """What had been appended for sure when its size was asked."""
    size: int | None = None
    """What the asset said; None while it has not."""


class Lengths:
    """The writes of a session. Bytes."""

    def __init__(self) -> None:
        self._appended = 0
        self._settled = 0
        self._under_way: dict[object, int] = {}
        self._lost = 0
        self._files: set[Adding] = set()

    @property
    def appending(self) -> int:
        """Return what is appended and not answered: it may come on top of a write that
        reaches to a place."""
        return self._appended - self._settled

    def begin(self) -> Adding:
        """Follow a file from now on: its size is asked for in this moment."""
        reach = max(self._under_way.values(), default=0)
        adding = Adding(max(reach, self._lost), self._settled)
        self._files.add(adding)
        return adding

    def end(self, adding: Adding) -> None:
        """Follow it no longer: it was closed."""
        self._files.discard(adding)

    def longest(self, adding: Adding, count: int) -> int | None:
        """Return how long it can be once `count` more is appended; None: unknown."""
        if adding.size is None:
            return None
        appended = self._appended - adding.since
        return max(adding.size, adding.reach) + appended + count

    def appends(self, count: int) -> None:
        """Note an appending write that goes to the asset."""
        self._appended += count

    def appended(self, count: int) -> None:
        """Note that it was answered."""
        self._settled += count

    def reaches(self, key: object, end: int) -> None:
        """Note another write, or a new size, that goes to the asset."""
        self._under_way[key] = end
        for adding in self._files:
            adding.reach = max(adding.reach, end)

    def reached(self, key: object) -> None:
        """Note that it was answered."""
        self._under_way.pop(key, None)

    def lose(self, key: object) -> None:
        """Note that its channel ended first: nobody will know when it is done."""
        self._lost = max(self._lost, self._under_way.pop(key, 0))
