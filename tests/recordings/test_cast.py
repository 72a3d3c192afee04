"""The asciicast export: golden lines, split characters, bounded memory."""

import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.recordings.cast import cast_lines, first_terminal
from apps.recordings.frames import (
    Event,
    EventKind,
    encode_close,
    encode_open,
    encode_resize,
)
from tests.recordings.making import HEADER

OPEN = Event(
    EventKind.OPEN, 1, 0, encode_open("shell", columns=100, rows=30, term="xterm")
)
SESSION = [
    OPEN,
    Event(EventKind.NOTICE, 0, 500, b"Recorded.\r\n"),
    Event(EventKind.OUTPUT, 1, 1_000_000, b"pump \xe2\x82"),
    Event(EventKind.INPUT, 1, 1_250_000, b"secret\r"),
    Event(EventKind.OUTPUT, 1, 1_500_000, b"\xac \x1b[1mon\xff"),
    Event(EventKind.RESIZE, 1, 2_000_000, encode_resize(132, 43)),
    Event(EventKind.RESIZE, 1, 2_100_000, encode_resize(0, 0)),
    Event(EventKind.MARK, 0, 2_500_000, b"frozen"),
    Event(EventKind.OPEN, 2, 2_600_000, encode_open("exec", command="id")),
    Event(EventKind.STDERR, 2, 2_700_000, b"no such user\n"),
    Event(EventKind.SIGNAL, 1, 2_800_000, b"INT"),
    Event(EventKind.CLOSE, 1, 3_000_000, encode_close(exit_status=0)),
]
FIRST_LINE = (
    '{"version": 2, "width": 100, "height": 30, "timestamp": 1772600767,'
    ' "title": "account operator asset hmi-pump-01 person ana session S-7QK2M"}\n'
)


def test_golden_export_of_one_channel() -> None:
    """Input is left out unless asked for: it holds typed passwords."""
    assert list(cast_lines(SESSION, header=HEADER, channel=1)) == [
        FIRST_LINE,
        '[0.0005, "o", "Recorded.\\r\\n"]\n',
        '[1.0, "o", "pump "]\n',
        '[1.5, "o", "€ \\u001b[1mon�"]\n',
        '[2.0, "r", "132x43"]\n',
        '[2.5, "m", "frozen"]\n',
    ]


def test_golden_export_of_all_channels_with_input() -> None:
    lines = list(cast_lines(SESSION, header=HEADER, include_input=True))
    assert lines[0] == FIRST_LINE
    assert '[1.25, "i", "secret\\r"]\n' in lines
    assert '[2.7, "o", "no such user\\n"]\n' in lines


def test_a_mark_before_the_window_is_known_is_kept() -> None:
    mark = Event(EventKind.MARK, 0, 0, b"start")
    lines = list(cast_lines([mark, OPEN], header=HEADER))
    assert lines == [FIRST_LINE, '[0.0, "m", "start"]\n']


def test_without_a_window_80_by_24_is_assumed() -> None:
    for events in ([], [SESSION[9]], [SESSION[6]]):
        first = json.loads(next(cast_lines(events, header={})))
        assert first == {"version": 2, "width": 80, "height": 24}


def test_first_terminal() -> None:
    assert first_terminal(SESSION) == 1
    assert first_terminal(SESSION[8:]) is None


def pieces(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    start = 0
    for cut in sorted(min(cut, len(data)) for cut in cuts):
        yield data[start:cut]
        start = cut
    yield data[start:]


@given(
    st.one_of(
        st.text(max_size=60).map(lambda t: t.encode("utf-8", "replace")),
        st.binary(max_size=60),
    ),
    st.text(max_size=30).map(lambda t: t.encode("utf-8", "replace")),
    st.lists(st.integers(0, 60), max_size=12),
)
def test_split_characters_are_joined(
    data: bytes, other: bytes, cuts: list[int]
) -> None:
    """However the bytes of interleaved channels are cut, the text is the same."""
    events = []
    for left, right in zip(pieces(data, cuts), pieces(other, cuts), strict=True):
        events.append(Event(EventKind.OUTPUT, 1, 0, left))
        events.append(Event(EventKind.OUTPUT, 2, 0, right))
    for channel, whole in ((1, data), (2, other)):
        lines = list(cast_lines(events, header={}, channel=channel))[1:]
        text = "".join(json.loads(line)[2] for line in lines)
        assert text == whole.decode("utf-8", "replace")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                sorted(
                    set(EventKind) - {EventKind.OPEN, EventKind.RESIZE, EventKind.FILE}
                )
            ),
            st.binary(max_size=30),
        ),
        max_size=20,
    )
)
def test_every_line_is_one_line_of_json(raw: list[tuple[EventKind, bytes]]) -> None:
    """R30: recorded bytes stay text, whatever they are."""
    events = [Event(kind, 1, n, data) for n, (kind, data) in enumerate(raw)]
    for line in cast_lines(events, header={}, include_input=True):
        assert line.count("\n") == 1
        json.loads(line.encode("utf-8"))


def test_streams_without_reading_ahead() -> None:
    """Bounded memory: a line leaves before the next event is read."""
    read = 0

    def endless() -> Iterator[Event]:
        nonlocal read
        yield OPEN
        while True:
            read += 1
            yield Event(EventKind.OUTPUT, 1, read, b"x")

    lines = cast_lines(endless(), header={})
    for _ in range(100):
        next(lines)
    assert read == 99


@pytest.mark.parametrize(
    ("columns", "shown"), [(1, 1), (500, 500), (65535, 500), (2**32 - 1, 500)]
)
def test_windows_are_shown_no_larger_than_screens_are(columns: int, shown: int) -> None:
    """An engineer's terminal must not be able to stop the auditor's browser."""
    resize = Event(EventKind.RESIZE, 1, 0, encode_resize(columns, 1))
    assert json.loads(next(cast_lines([resize], header={})))["width"] == shown
