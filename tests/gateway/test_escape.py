"""In-band commands: what is one, and that everything else passes untouched."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.gateway.escape import (
    COMMANDS,
    QUIET_SECONDS,
    EscapeParser,
    LineReader,
    escape_name,
    parse_escape,
)

ESC = 0x1D
KEY = bytes([ESC])
SECONDS = itertools.count()
PACKETS = st.lists(
    st.one_of(
        st.binary(min_size=1, max_size=8),
        st.sampled_from([KEY, b"t", b"?", b"\r", b"x", KEY + b"t", b"\r" + KEY]),
    ),
    max_size=12,
)


def typed(parser: EscapeParser, *packets: bytes) -> tuple[bytes, list[str]]:
    """Type packets as a hand does: slowly."""
    passed, commands = b"", []
    for packet in packets:
        result = parser.feed(packet, float(next(SECONDS)))
        passed += result.passed
        if result.command:
            commands.append(result.command)
    return passed, commands


@pytest.mark.parametrize("letter", list(COMMANDS))
def test_each_command_at_the_start_and_after_a_line(letter):
    parser = EscapeParser(ESC)
    key = letter.encode()
    assert typed(parser, KEY, key) == (b"", [letter])
    assert typed(parser, b"ls", b"\r", KEY, key) == (b"ls\r", [letter])
    assert typed(parser, KEY, key) == (b"", [letter]), "still at the start of a line"


@pytest.mark.parametrize(
    "packets",
    [
        [b"l", KEY, b"t"],
        [KEY + b"t"],
        [b"\r" + KEY, b"t"],
        [b"pasted\r" + KEY + b"t\r"],
        [KEY, b"x"],
        [KEY, b"tt"],
        [KEY, b"\r"],
        [b"\x1b[200~\r", KEY + b"t"],
    ],
)
def test_anything_else_passes_untouched(packets):
    assert typed(EscapeParser(ESC), *packets) == (b"".join(packets), [])


def test_twice_sends_it_once():
    assert typed(EscapeParser(ESC), KEY, KEY) == (KEY, [])
    assert typed(EscapeParser(ESC), KEY, KEY, b"t") == (KEY + b"t", [])


def test_a_paste_that_was_cut_just_there_is_no_command():
    parser = EscapeParser(ESC)
    parser.feed(b"a pasted block of text\r", 1.0)
    assert parser.feed(KEY, 1.0 + QUIET_SECONDS / 2).passed == KEY
    parser.feed(b"typed\r", 2.0)
    parser.feed(KEY, 2.0)
    assert parser.feed(b"t", 2.0).command == "t"


def test_while_somebody_else_types_it_counts_anywhere_in_a_line():
    parser = EscapeParser(ESC)
    assert typed(parser, b"abc", KEY) == (b"abc" + KEY, [])
    assert parser.feed(b"abc", 100.0, anywhere=True) == (b"abc", None)
    assert parser.feed(KEY, 101.0, anywhere=True) == (b"", None)
    assert parser.feed(b"b", 102.0, anywhere=True) == (b"", "b")


def test_a_letter_that_does_not_come_gives_the_escape_to_the_asset():
    parser = EscapeParser(ESC)
    assert parser.feed(KEY, 1.0).passed == b""
    assert parser.waiting
    assert parser.give_up() == KEY
    assert parser.give_up() == b""
    assert parser.feed(b"t", 9.0).passed == b"t"


@given(PACKETS)
def test_nothing_is_lost_or_invented(packets):
    """What passes, with the commands put back, is what was typed."""
    parser = EscapeParser(ESC)
    passed, at, put_back = b"", 0.0, b""
    for packet in packets:
        at += 1.0
        result = parser.feed(packet, at)
        passed += result.passed
        put_back += result.passed
        if result.command:
            put_back += KEY + result.command.encode()
        elif packet == KEY and result.passed == KEY and put_back.endswith(KEY):
            # May have been typed twice: then one of the two was ours.
            continue
    rest = parser.give_up()
    whole = b"".join(packets)
    assert len(whole) - len(put_back + rest) <= whole.count(KEY)
    assert (put_back + rest).replace(KEY, b"") == whole.replace(KEY, b"")


@given(PACKETS)
def test_without_an_escape_or_in_a_full_screen_program_all_passes(packets):
    for parser, enabled in ((EscapeParser(None), True), (EscapeParser(ESC), False)):
        at, passed = 0.0, b""
        for packet in packets:
            at += 1.0
            passed += parser.feed(packet, at, enabled=enabled).passed
        assert passed == b"".join(packets)


def test_how_settings_name_an_escape():
    assert parse_escape("^]") == ESC
    assert escape_name(ESC) == "Ctrl-]"
    assert parse_escape("^_") == 0x1F
    assert parse_escape("off") is None
    for wrong in ("", "~", "^C", "^[", "^]x"):
        with pytest.raises(ValueError, match="no escape"):
            parse_escape(wrong)


def test_a_line_is_read_with_its_corrections():
    reader = LineReader(limit=20, echoes=True)
    assert reader.feed(b"12x") == (b"12x", None)
    assert reader.feed(b"\x7f3") == (b"\b \b3", None)
    assert reader.feed(b"\rdropped") == (b"\r\n", "123")
    assert reader.feed(b"\x7f\x15") == (b"", None)
    assert reader.feed(b"caf" + b"\xc3") == (b"caf", None)
    assert reader.feed(b"\xa9\n") == ("é\r\n".encode(), "café")


def test_a_code_is_not_echoed():
    reader = LineReader(limit=8, echoes=False)
    assert reader.feed(b"123456") == (b"", None)
    assert reader.feed(b"\x15654321\r") == (b"", "654321")


@pytest.mark.parametrize("key", [b"\x03", b"\x07", b"\x1b[A"])
def test_a_line_can_be_cancelled(key):
    reader = LineReader(limit=8, echoes=True)
    reader.feed(b"12")
    assert reader.feed(key)[1] is None
    assert reader.cancelled


@given(st.lists(st.binary(max_size=9), max_size=30))
def test_a_line_stays_within_its_limit(packets):
    reader = LineReader(limit=5, echoes=True)
    for packet in packets:
        _, line = reader.feed(packet)
        assert line is None or len(line) <= 5
