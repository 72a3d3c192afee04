"""State machines as inline SVG: the same table gives the same bytes, always.

A machine is a mapping of each state to the states that may follow it, as the
`TRANSITIONS` tables of the product; the first key is where it begins. States stand in
columns by the longest way to them. A step to the next column is a line, a step over
columns is an arc above, a step back is an arc below.
"""

from collections.abc import Mapping, Set
from enum import StrEnum
from html import escape
from typing import NamedTuple

Machine = Mapping[StrEnum, Set[StrEnum]]
Step = tuple[str, str]

_BOX_WIDTH, _BOX_HEIGHT = 102, 34
_COLUMN, _ROW = 150, 52
_MARGIN, _ARC = 16, 26


class _Point(NamedTuple):
    """Where the middle of a box is, in pixels."""

    x: float
    y: float


def steps_of(machine: Machine) -> list[Step]:
    """Return every step of `machine` as (from, to), in the order of its states."""
    order = list(machine)
    return [
        (state.value, following.value)
        for state in order
        for following in sorted(machine[state], key=order.index)
    ]


def _backward(machine: Machine) -> set[Step]:
    """Return the steps that lead back to a state on the way to them."""
    found: set[Step] = set()
    seen: set[str] = set()
    steps = steps_of(machine)

    def visit(state: str, way: tuple[str, ...]) -> None:
        seen.add(state)
        for start, end in steps:
            if start != state:
                continue
            if end in (*way, state):
                found.add((start, end))
            elif end not in seen:
                visit(end, (*way, state))

    for state in machine:
        if state.value not in seen:
            visit(state.value, ())
    return found


def _columns(machine: Machine, backward: set[Step]) -> dict[str, int]:
    """Return the column of each state: the length of the longest way to it."""
    forward = [step for step in steps_of(machine) if step not in backward]
    columns = {state.value: 0 for state in machine}
    for _ in machine:
        for start, end in forward:
            columns[end] = max(columns[end], columns[start] + 1)
    return columns


def _places(columns: Mapping[str, int], top: float) -> dict[str, _Point]:
    rows: dict[int, list[str]] = {}
    for state, column in columns.items():
        rows.setdefault(column, []).append(state)
    tallest = max(len(states) for states in rows.values())
    middle = top + tallest * _ROW / 2
    places = {}
    for column, states in rows.items():
        first = middle - (len(states) - 1) * _ROW / 2
        for number, state in enumerate(states):
            x = _MARGIN + column * _COLUMN + _BOX_WIDTH / 2
            places[state] = _Point(x, first + number * _ROW)
    return places


def _arrow(start: _Point, end: _Point, *, span: int, back: bool, tip: str) -> str:
    """Return the path between two boxes; `span` is how many columns it crosses."""
    if back or span > 1:
        side = 1 if back else -1
        y1, y2 = start.y + side * _BOX_HEIGHT / 2, end.y + side * _BOX_HEIGHT / 2
        # Beside each other, so that arcs that leave and arrive do not touch.
        shift = 18 if not back else -18
        x1, x2 = start.x + shift, end.x - shift - 6 * (span - 2) * (not back)
        lift = side * _ARC * (abs(span) + 0.35)
        shape = (
            f"M{x1:g} {y1:g} C{x1:g} {y1 + lift:g} {x2:g} {y2 + lift:g} {x2:g} {y2:g}"
        )
    else:
        x1, x2 = start.x + _BOX_WIDTH / 2, end.x - _BOX_WIDTH / 2
        bend = (x2 - x1) / 2
        shape = (
            f"M{x1:g} {start.y:g} C{x1 + bend:g} {start.y:g} "
            f"{x2 - bend:g} {end.y:g} {x2:g} {end.y:g}"
        )
    return (
        f'<path d="{shape}" fill="none" stroke="currentColor" '
        f'marker-end="url(#{tip})"/>'
    )


def _box(state: str, place: _Point, *, is_first: bool, is_last: bool) -> str:
    left, top = place.x - _BOX_WIDTH / 2, place.y - _BOX_HEIGHT / 2
    weight = 2.5 if is_first or is_last else 1.25
    dashes = ' stroke-dasharray="6 3"' if is_first else ""
    return (
        f'<rect x="{left:g}" y="{top:g}" width="{_BOX_WIDTH}" height="{_BOX_HEIGHT}" '
        f'rx="6" fill="none" stroke="currentColor" stroke-width="{weight}"{dashes}/>'
        f'<text x="{place.x:g}" y="{place.y + 5:g}" text-anchor="middle" '
        f'font-size="14" fill="currentColor">{escape(state)}</text>'
    )


def svg(machine: Machine, *, title: str) -> str:
    """Return `machine` as one SVG element without blank lines.

    Dashed: where it begins. Heavy: nothing follows.
    """
    backward = _backward(machine)
    columns = _columns(machine, backward)
    spans = {
        (start, end): columns[end] - columns[start] for start, end in steps_of(machine)
    }
    above = max(
        [0, *(s for step, s in spans.items() if s > 1 and step not in backward)]
    )
    below = max([0, *(abs(spans[step]) for step in backward)])
    top = _MARGIN + (_ARC * (above + 0.35) * 0.75 if above else 0)
    places = _places(columns, top)
    width = 2 * _MARGIN + max(columns.values()) * _COLUMN + _BOX_WIDTH
    height = (
        max(place.y for place in places.values())
        + _BOX_HEIGHT / 2
        + _MARGIN
        + (_ARC * (below + 0.35) * 0.75 if below else 0)
    )
    said = "; ".join(f"{start} to {end}" for start, end in steps_of(machine))
    first = next(iter(machine)).value
    # Unique on a page with several machines.
    tip = "tip-" + "-".join(title.lower().split())
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width:g}" '
        f'height="{height:g}" viewBox="0 0 {width:g} {height:g}" '
        f'aria-label="{escape(title)}: {escape(said)}" '
        'font-family="system-ui, sans-serif">',
        f'<defs><marker id="{tip}" viewBox="0 0 8 8" refX="7.5" refY="4" '
        'markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0L8 4L0 8Z" fill="currentColor"/>'
        "</marker></defs>",
        *(
            _arrow(
                places[start],
                places[end],
                span=abs(spans[start, end]),
                back=(start, end) in backward,
                tip=tip,
            )
            for start, end in steps_of(machine)
        ),
        *(
            _box(
                state.value,
                places[state.value],
                is_first=state.value == first,
                is_last=not machine[state],
            )
            for state in machine
        ),
        "</svg>",
    ]
    return "\n".join(parts)
