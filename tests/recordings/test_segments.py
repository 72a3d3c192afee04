"""Framing, compression and encryption of segments."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.recordings.frames import (
    FRAME_BYTES,
    SEGMENT_HEADER_BYTES,
    Event,
    EventKind,
    LayoutError,
    SegmentHeader,
    unpack_segment_header,
)
from apps.recordings.segments import (
    WHOLE_FRAME_BYTES,
    SegmentDecoder,
    SegmentEncoder,
)

HEADER = b"header bytes"
KEY = bytes(32)

Segment = tuple[bytes, SegmentHeader, bytes]


def split(segment: bytes) -> Segment:
    head = segment[:SEGMENT_HEADER_BYTES]
    return head, unpack_segment_header(head), segment[SEGMENT_HEADER_BYTES:-32]


def output(microseconds: int, data: bytes) -> Event:
    return Event(EventKind.OUTPUT, 1, microseconds, data)


events_in_order = st.lists(
    st.tuples(
        st.sampled_from(EventKind),
        st.integers(0, 9),
        st.integers(0, 40_000_000),
        st.binary(max_size=300),
    ),
    max_size=30,
)


@given(events_in_order, st.integers(1, 7))
def test_any_sequence_of_events_survives(
    raw: list[tuple[EventKind, int, int, bytes]], batch: int
) -> None:
    now, events = 0, []
    for kind, channel, gap, data in raw:
        now += gap
        events.append(Event(kind, channel, now, data))
    encoder = SegmentEncoder(header=HEADER, data_key=KEY)
    decoder = SegmentDecoder(header=HEADER, data_key=KEY)
    found: list[Event] = []
    for start in range(0, len(events), batch):
        for segment in encoder.encode(events[start : start + batch]):
            found += decoder.decode(*split(segment))
    assert found == events


def test_each_frame_decodes_without_the_others() -> None:
    encoder = SegmentEncoder(header=HEADER, data_key=KEY)
    events = [output(n * 10_000_000, b"%d" % n) for n in range(12)]
    segments = [split(s) for e in events for s in encoder.encode([e])]
    starts = [n for n, s in enumerate(segments) if s[1].starts_frame]
    assert starts == [0, 3, 6, 9]
    assert [number for number, _, _ in encoder.index] == starts
    for begin, end in pairwise([*starts, len(segments)]):
        decoder = SegmentDecoder(header=HEADER, data_key=KEY)
        found = [e for s in segments[begin:end] for e in decoder.decode(*s)]
        assert found == events[begin:end]


def test_a_frame_ends_at_one_megabyte() -> None:
    encoder = SegmentEncoder(header=HEADER, data_key=KEY)
    flood = [output(n, bytes(1 << 18)) for n in range(10)]
    segments = [split(s)[1] for s in encoder.encode(flood)]
    assert [s.ends_frame for s in segments] == [True, True, True]
    assert all(s.plain_length < 2 * FRAME_BYTES for s in segments)


def test_a_large_piece_is_a_frame_by_itself() -> None:
    """Typing before and after it is in frames of its own; all of it can be read."""
    noise = random.Random(1).randbytes(WHOLE_FRAME_BYTES)  # noqa: S311 - the same bytes
    events = [output(0, b"a"), output(1, noise), output(2, b"b"), output(3, b"c")]
    encoder = SegmentEncoder(header=HEADER, data_key=KEY)
    segments = [split(s) for e in events for s in encoder.encode([e])]
    assert [(s[1].starts_frame, s[1].ends_frame) for s in segments] == [
        (True, False),
        (True, True),
        (True, False),
        (False, False),
    ]
    assert [number for number, _, _ in encoder.index] == [0, 1, 2]
    assert [s[1].frame for s in segments] == [0, 1, 2, 2]
    decoder = SegmentDecoder(header=HEADER, data_key=KEY)
    assert [e for s in segments for e in decoder.decode(*s)] == events
    alone = SegmentDecoder(header=HEADER, data_key=KEY)
    assert alone.decode(*segments[1]) == [events[1]]


def test_threads_do_not_share_a_compressor() -> None:
    """Two recordings written at the same time by two threads are both whole."""
    floods = [bytes([n]) * (WHOLE_FRAME_BYTES * 4) for n in (1, 2)]
    barrier = threading.Barrier(2)

    def write(flood: bytes) -> list[Segment]:
        encoder = SegmentEncoder(header=HEADER, data_key=KEY)
        barrier.wait(10)
        return [split(s) for n in range(20) for s in encoder.encode([output(n, flood)])]

    with ThreadPoolExecutor(2) as pool:
        written = list(pool.map(write, floods))
    for flood, segments in zip(floods, written, strict=True):
        decoder = SegmentDecoder(header=HEADER, data_key=KEY)
        found = b"".join(e.data for s in segments for e in decoder.decode(*s))
        assert found == flood * 20


def test_rest_gives_up_an_old_frame_only() -> None:
    encoder = SegmentEncoder(header=HEADER, data_key=KEY)
    list(encoder.encode([output(0, b"a")]))
    encoder.rest(29_999_999)
    assert not split(next(encoder.encode([output(1, b"b")])))[1].starts_frame
    encoder.rest(30_000_000)
    assert split(next(encoder.encode([output(2, b"c")])))[1].starts_frame


def test_a_frame_cannot_be_entered_in_its_middle() -> None:
    encoder = SegmentEncoder(header=HEADER, data_key=KEY)
    list(encoder.encode([output(0, b"a")]))
    second = split(next(encoder.encode([output(1, b"b")])))
    with pytest.raises(LayoutError, match="no beginning"):
        SegmentDecoder(header=HEADER, data_key=KEY).decode(*second)


@pytest.mark.parametrize(
    ("header", "key"), [(b"other header", KEY), (HEADER, bytes([1] * 32))]
)
def test_other_keys_and_other_headers_do_not_decrypt(header: bytes, key: bytes) -> None:
    encoder = SegmentEncoder(header=HEADER, data_key=KEY)
    segment = split(next(encoder.encode([output(0, b"secret")])))
    with pytest.raises(LayoutError, match="decrypt"):
        SegmentDecoder(header=header, data_key=key).decode(*segment)


def test_plain_text_is_not_in_the_segment() -> None:
    encoder = SegmentEncoder(header=HEADER, data_key=KEY)
    assert b"password" not in next(encoder.encode([output(0, b"password" * 20)]))


def test_a_key_has_32_bytes() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        SegmentEncoder(header=HEADER, data_key=bytes(16))


def test_bytes_are_counted_in_each_direction() -> None:
    encoder = SegmentEncoder(header=HEADER, data_key=KEY)
    batch = [
        Event(EventKind.INPUT, 1, 0, b"abc"),
        Event(EventKind.OUTPUT, 1, 0, b"de"),
        Event(EventKind.STDERR, 1, 0, b"f"),
        Event(EventKind.NOTICE, 1, 0, b"not counted"),
    ]
    list(encoder.encode(batch))
    assert (encoder.bytes_in, encoder.bytes_out) == (3, 3)
