"""The byte layout: every value survives, everything else is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.recordings.frames import (
    FRAME_START,
    MAX_SEGMENT_BYTES,
    SEGMENT_HEADER_BYTES,
    ChannelClosed,
    ChannelOpened,
    Event,
    EventKind,
    LayoutError,
    SegmentHeader,
    decode_close,
    decode_events,
    decode_header_body,
    decode_open,
    decode_resize,
    encode_close,
    encode_event,
    encode_header,
    encode_open,
    encode_resize,
    unpack_segment_header,
)

any_event = st.builds(
    Event,
    st.sampled_from(EventKind),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
    st.binary(max_size=200),
)


@given(st.lists(any_event, max_size=20))
def test_events_survive(events: list[Event]) -> None:
    plain = b"".join(map(encode_event, events))
    assert list(decode_events(plain)) == events


@given(st.lists(any_event, min_size=1, max_size=5), st.data())
def test_cut_off_events_are_refused(events: list[Event], data: st.DataObject) -> None:
    plain = b"".join(map(encode_event, events))
    boundaries = {0}
    for event in events:
        boundaries.add(max(boundaries) + len(encode_event(event)))
    cut = data.draw(st.integers(0, len(plain)).filter(lambda at: at not in boundaries))
    with pytest.raises(LayoutError):
        list(decode_events(plain[:cut]))


@given(st.binary(max_size=100))
def test_garbage_gives_events_or_a_layout_error(garbage: bytes) -> None:
    try:
        events = list(decode_events(garbage))
    except LayoutError:
        return
    assert b"".join(map(encode_event, events)) == garbage


def test_unknown_kind_is_refused() -> None:
    plain = bytearray(encode_event(Event(EventKind.INPUT, 1, 2, b"x")))
    plain[0] = 99
    with pytest.raises(LayoutError, match="kind 99"):
        list(decode_events(bytes(plain)))


GOOD = SegmentHeader(7, FRAME_START, 100, 60, 5, 9, 3)


def test_segment_header_survives() -> None:
    assert unpack_segment_header(GOOD.pack()) == GOOD
    assert GOOD.total_length == SEGMENT_HEADER_BYTES + 60 + 32


@pytest.mark.parametrize(
    "changes",
    [
        {"flags": 4},
        {"plain_length": 0},
        {"plain_length": MAX_SEGMENT_BYTES + 1},
        {"cipher_length": 16},
        {"cipher_length": MAX_SEGMENT_BYTES + 1},
        {"first_microseconds": 10},
    ],
)
def test_impossible_segment_headers_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(LayoutError):
        unpack_segment_header(GOOD._replace(**changes).pack())


@given(st.binary(min_size=SEGMENT_HEADER_BYTES, max_size=SEGMENT_HEADER_BYTES))
def test_random_segment_headers_are_refused(raw: bytes) -> None:
    with pytest.raises(LayoutError):
        unpack_segment_header(raw)


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=5))
def test_header_survives(header: dict[str, str]) -> None:
    try:
        raw = encode_header(header)
    except UnicodeEncodeError:
        assert any(
            0xD800 <= ord(c) < 0xE000 for pair in header.items() for c in "".join(pair)
        )
        return
    assert decode_header_body(raw[12:]) == header


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b'{"a":1}', b'{ "a":"b"}', b'{"a":"b","a":"c"}', b'{"a":"\xff"}'],
)
def test_other_headers_are_refused(body: bytes) -> None:
    with pytest.raises(LayoutError):
        decode_header_body(body)


def test_header_takes_text_only() -> None:
    with pytest.raises(ValueError, match="must be text"):
        encode_header({"a": 1})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="too long"):
        encode_header({"a": "x" * 70_000})


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_resize_survives(columns: int, rows: int) -> None:
    assert decode_resize(encode_resize(columns, rows)) == (columns, rows)


def test_short_resize_is_refused() -> None:
    with pytest.raises(LayoutError):
        decode_resize(b"\0\0")


@given(st.binary(max_size=50))
def test_any_command_bytes_survive_in_an_open_event(command: bytes) -> None:
    opened = decode_open(encode_open("exec", command=command))
    assert opened.command is not None
    assert opened.command.encode("utf-8", "surrogateescape") == command
    assert not opened.has_pty


def test_open_with_pty_survives() -> None:
    payload = encode_open("shell", columns=80, rows=24, term="xterm")
    assert decode_open(payload) == ChannelOpened("shell", None, 80, 24, "xterm")
    assert decode_open(payload).has_pty


def test_close_survives() -> None:
    assert decode_close(encode_close(exit_status=3)) == ChannelClosed(3, None)
    assert decode_close(encode_close(exit_signal="KILL")) == ChannelClosed(None, "KILL")


@pytest.mark.parametrize(
    "payload", [b"", b"[]", b"{}", b'{"kind":1}', b'{"kind":"x","rows":"1"}', b"\xff"]
)
def test_malformed_open_is_refused(payload: bytes) -> None:
    with pytest.raises(LayoutError):
        decode_open(payload)


@pytest.mark.parametrize("payload", [b"", b"7", b'{"exit_status":"1"}'])
def test_malformed_close_is_refused(payload: bytes) -> None:
    with pytest.raises(LayoutError):
        decode_close(payload)
