"""Where something may be put into the output of a terminal: pieces, cuts, sequences."""

import pyte
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from apps.gateway.screen import CANCEL, ScreenTracker
from apps.gateway.terminal_lines import line_bytes, overdrawn_bytes, plain, title_bytes

TOKENS = [
    b"text ",
    "é€\U0001f600".encode(),
    b"\r\n",
    b"\x1b[31m",
    b"\x1b[0m",
    b"\x1b[2J",
    b"\x1b[12;40H",
    b"\x1b[?25l",
    b"\x1b[?1049h",
    b"\x1b[?1049l",
    b"\x1b[?25l",
    b"\x1b[?12;25h",
    b"\x1b[H",
    b"\x1b[3;1H",
    b"\x1b7",
    b"\x1b8",
    b"\x1b(B",
    b"\x1b=",
    b"\x1b]0;a title\x07",
    b"\x1b]8;;http://x\x1b\\",
    b"\x1bPq#0;2;0;0;0\x1b\\",
    b"\x1b[>c",
    b"\x1b[4l",
]
STREAMS = st.lists(st.sampled_from(TOKENS), max_size=20).map(b"".join)
BYTES = st.binary(max_size=60) | st.text(max_size=20).map(str.encode)


def fed(*pieces: bytes) -> ScreenTracker:
    screen = ScreenTracker()
    for piece in pieces:
        screen.feed(piece)
    return screen


def facts(screen: ScreenTracker) -> tuple[bool, ...]:
    return (
        screen.at_boundary,
        screen.at_line_start,
        screen.full_screen,
        screen.saves_cursor,
    )


@given(st.one_of(STREAMS, BYTES, st.tuples(STREAMS, BYTES).map(b"".join)))
@example(b"\x1b[?1049h\x1b7")
@example(b"\xe2\x82")
@example(b"\x1b]0;\x1b[1m")
def test_how_the_output_is_cut_makes_no_difference(stream):
    """In one piece, and byte by byte."""
    assert facts(fed(stream)) == facts(fed(*(bytes([byte]) for byte in stream)))


@given(STREAMS)
def test_whole_tokens_end_at_a_boundary(stream):
    assert fed(stream).at_boundary


@pytest.mark.parametrize(
    "token", [t for t in TOKENS if t.startswith(b"\x1b") or t[0] > 0x7F]
)
def test_no_token_may_be_cut_in_two(token):
    whole = token if token[0] == 0x1B else "€".encode()
    for cut in range(1, len(whole)):
        screen = fed(b"before", whole[:cut])
        # ST is two bytes: between them a new sequence has begun.
        assert not screen.at_boundary, whole[:cut]
        screen.feed(whole[cut:])
        assert screen.at_boundary


@given(STREAMS, st.data())
def test_a_title_at_any_boundary_leaves_the_screen_as_it_was(stream, data):
    """Against a terminal: pyte shows the same with and without what was put in."""
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=4).map(sorted))
    tracker, without, with_it = ScreenTracker(), b"", b""
    at = 0
    for cut in [*cuts, len(stream)]:
        piece, at = stream[at:cut], cut
        tracker.feed(piece)
        without += piece
        with_it += piece
        if tracker.at_boundary:
            with_it += title_bytes("5 minutes left")
    screens = []
    for output in (without, with_it):
        screen = pyte.Screen(60, 14)
        pyte.ByteStream(screen).feed(output)
        screens.append((screen.display, screen.cursor.x, screen.cursor.y))
    assert screens[0] == screens[1]


@pytest.mark.parametrize(
    ("pieces", "full"),
    [
        ([b"\x1b[?1049h"], True),
        ([b"\x1b[?10", b"49h"], True),
        ([b"\x1b", b"[?47h"], True),
        ([b"\x1b[?1049;25h"], True),
        ([b"\x1b[?1049h draw \x1b[?1049l"], False),
        ([b"\x1b[?1049l\x1b[?1047h"], True),
        ([b"\x1b[?25h"], False),
        ([b"[?1049h"], False),
    ],
)
def test_a_full_screen_program_is_noticed(pieces, full):
    assert fed(*pieces).full_screen is full


def test_a_saved_cursor_counts_from_when_the_program_took_the_screen():
    assert fed(b"\x1b7\x1b[?1049h").saves_cursor is False
    assert fed(b"\x1b[?1049h", b"\x1b", b"7").saves_cursor
    assert fed(b"\x1b[?1049h\x1b[s").saves_cursor
    assert fed(b"\x1b[?1049h\x1b[?1048h").saves_cursor


def test_a_line_has_begun_once_anything_is_shown():
    assert fed(b"ls\r\n").at_line_start
    assert fed(b"ls\r", b"\n").at_line_start
    assert not fed(b"ls\r\n$ ").at_line_start
    assert not fed(b"50 %\r").at_line_start
    assert not fed(b"ls\r\n\x1b[32m").at_line_start


def test_what_was_left_half_way_can_be_cancelled():
    for begun in (b"\x1b[31", b"\x1b]0;title", b"\x1bPq", b"\x1b("):
        screen = fed(begun)
        assert not screen.at_boundary
        screen.feed(CANCEL)
        assert screen.at_boundary


def test_eight_bit_text_does_not_hold_notices_for_ever():
    """A charset that is not UTF-8: at most the last three bytes look unfinished."""
    assert not fed(b"caf\xe9").at_boundary
    assert fed(b"caf\xe9 ").at_boundary
    assert fed(b"\xff\xfe").at_boundary


@given(st.text(max_size=40))
def test_what_people_write_cannot_steer_a_terminal(text):
    assert plain(text).isprintable()
    assert title_bytes(text).count(b"\x07") == 2
    assert title_bytes(text).count(b"\x1b") == 1
    assert line_bytes(text, at_line_start=True).count(b"\n") == 1
    assert overdrawn_bytes(text).count(b"\n") == 0


@pytest.mark.parametrize(
    ("pieces", "full"),
    [
        ([b"\x1b[?25l\x1b[H\x1b[2J"], True),  # top
        ([b"\x1b[?25l", b"text\r\n", b"\x1b[3;1H"], True),
        ([b"\x1b[?2", b"5l\x1b[", b"H"], True),
        ([b"\x1b[?25l\x1b[H", b"\x1b[?12l\x1b[?25h"], False),
        ([b"\x1b[?25l\x1b[H\x1b[?25h\x1b[?25l"], False),
        ([b"\x1b[H\x1b[2J$ "], False),  # clear
        ([b"\x1b[?25l\x1b[1A\x1b[2K 40 %\r\n"], False),  # a progress bar
        ([b"\x1b[H\x1b[?25l 40 %\r\n"], False),
        ([b"\x1b[?1049h\x1b[?25l\x1b[H\x1b[?25h"], True),
    ],
)
def test_a_program_may_have_the_screen_without_the_other_one(
    pieces: list[bytes], full: bool
) -> None:
    screen = ScreenTracker()
    for piece in pieces:
        screen.feed(piece)
    assert screen.full_screen is full
