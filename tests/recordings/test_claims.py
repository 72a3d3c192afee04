"""Files whose hashes and signature are right and whose structure or claims are not.

A holder of the signing key, or a fault in the writer, could make them: the verifier and
the reader do not rely on signatures alone.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from apps.recordings.frames import (
    FRAME_END,
    FRAME_START,
    HASH_BYTES,
    SEGMENT_HEADER_BYTES,
    SegmentHeader,
    encode_header,
    unpack_segment_header,
)
from apps.recordings.hashchain import first_link, next_link
from apps.recordings.output import read_sealed
from apps.recordings.reader import RecordingBrokenError, RecordingReader, recover
from apps.recordings.seal import CLOSED, Seal, as_signer, encode_seal
from apps.recordings.verifier import Report, load_keys, verify_recording
from tests.recordings.making import (
    DATA_KEY,
    HEADER,
    SIGNING_KEY,
    public_key_file,
    recording_bytes,
    short_batches,
)

Segments = list[tuple[SegmentHeader, bytes]]


def parsed(content: bytes) -> Segments:
    """Return headers and ciphertexts of an unsealed recording."""
    segments: Segments = []
    offset = len(encode_header(HEADER))
    while offset < len(content):
        header = unpack_segment_header(content[offset : offset + SEGMENT_HEADER_BYTES])
        end = offset + header.total_length
        cipher = content[offset + SEGMENT_HEADER_BYTES : end - HASH_BYTES]
        segments.append((header, cipher))
        offset = end
    return segments


def rebuilt(segments: Segments, /, **claims: Any) -> bytes:
    """Return a file of these segments, chained and signed anew."""
    content = encode_header(HEADER)
    link = first_link(content)
    index = []
    for header, cipher in segments:
        if header.starts_frame:
            index.append((header.number, len(content), header.first_microseconds))
        link = next_link(link, header.pack(), cipher)
        content += header.pack() + cipher + link
    signer = as_signer(SIGNING_KEY)
    seal = Seal(
        how=CLOSED,
        segments=len(segments),
        bytes_in=0,
        bytes_out=0,
        duration_microseconds=segments[-1][0].last_microseconds,
        root_hash=link,
        index=tuple(index),
        dropped_bytes=0,
        sealed_at=datetime(2026, 3, 4, tzinfo=UTC),
        signer=signer.key_id,
    )
    seal = replace(seal, **claims)
    return content + encode_seal(seal, signer=signer, offset=len(content))


@pytest.fixture
def segments() -> Segments:
    return parsed(recording_bytes(short_batches(4), sealed=False))


def check(folder: Path, content: bytes) -> Report:
    path = folder / "made"
    path.write_bytes(content)
    return verify_recording(str(path), load_keys([str(public_key_file(folder))]))


def test_a_rebuilt_file_holds(folder: Path, segments: Segments) -> None:
    """Otherwise the tests below would prove nothing."""
    report = check(folder, rebuilt(segments))
    assert report.ok, report


def swap(segments: Segments) -> None:
    segments[1], segments[2] = segments[2], segments[1]


def repeat(segments: Segments) -> None:
    segments.insert(2, segments[1])


def remove(segments: Segments) -> None:
    del segments[1]


def change(**changes: int) -> Callable[[Segments], None]:
    def alter(segments: Segments) -> None:
        header, cipher = segments[2]
        segments[2] = (header._replace(**changes), cipher)

    alter.__name__ = f"change_{'_'.join(changes)}"
    return alter


def end_frame_before(segments: Segments) -> None:
    header, cipher = segments[1]
    segments[1] = (header._replace(flags=FRAME_END), cipher)


def start_without_frame(segments: Segments) -> None:
    header, cipher = segments[0]
    segments[0] = (header._replace(flags=0), cipher)


@pytest.mark.parametrize(
    "alter",
    [
        swap,
        repeat,
        remove,
        change(number=7),
        change(frame=3),
        change(flags=FRAME_START),
        change(first_microseconds=3),
        end_frame_before,
        start_without_frame,
    ],
)
def test_segments_out_of_order_are_found(
    folder: Path, segments: Segments, alter: Callable[[Segments], None]
) -> None:
    alter(segments)
    report = check(folder, rebuilt(segments))
    assert not report.ok
    assert str(report.where).startswith("segment ")
    with (
        RecordingReader(folder / "made", DATA_KEY) as reader,
        pytest.raises(RecordingBrokenError),
    ):
        list(reader.events())


@pytest.mark.parametrize(
    "claims",
    [
        {"segments": 5},
        {"root_hash": bytes(32)},
        {"index": ()},
        {"index": ((0, 9, 0),)},
        {"duration_microseconds": 1},
    ],
)
def test_wrong_claims_of_a_seal_are_found(
    folder: Path, segments: Segments, claims: dict[str, Any]
) -> None:
    report = check(folder, rebuilt(segments, **claims))
    assert not report.ok
    assert str(report.where).startswith("seal at byte ")


@pytest.mark.parametrize("claims", [{"segments": 5}, {"root_hash": bytes(32)}])
def test_the_reader_and_recovery_refuse_a_seal_of_other_segments(
    folder: Path, segments: Segments, claims: dict[str, Any]
) -> None:
    path = folder / "made"
    path.write_bytes(rebuilt(segments, **claims))
    with (
        RecordingReader(path, DATA_KEY) as reader,
        pytest.raises(RecordingBrokenError),
    ):
        list(reader.events())
    with pytest.raises(RecordingBrokenError, match="other segments"):
        recover(path)


@pytest.mark.parametrize("offset", [0, 1 << 60])
def test_an_index_that_points_outside_is_refused(
    folder: Path, segments: Segments, offset: int
) -> None:
    path = folder / "made"
    path.write_bytes(rebuilt(segments, index=((0, 0, 0), (2, offset, 1))))
    with (
        RecordingReader(path, DATA_KEY) as reader,
        pytest.raises(RecordingBrokenError, match="points outside"),
    ):
        list(reader.events(2_000_000))


def test_an_index_that_points_between_segments_is_refused(
    folder: Path, segments: Segments
) -> None:
    path = folder / "made"
    start = len(encode_header(HEADER))
    path.write_bytes(rebuilt(segments, index=((0, start, 0), (2, start + 50, 1))))
    with (
        RecordingReader(path, DATA_KEY) as reader,
        pytest.raises(RecordingBrokenError, match="no segment begins"),
    ):
        list(reader.events(2_000_000))


def test_a_seal_survives(folder: Path, segments: Segments) -> None:
    path = folder / "made"
    path.write_bytes(rebuilt(segments, bytes_in=None, dropped_bytes=12))
    sealed = read_sealed(path)
    assert sealed is not None
    assert (sealed.bytes_in, sealed.seal.dropped_bytes) == (None, 12)
    assert sealed.seal.sealed_at == datetime(2026, 3, 4, tzinfo=UTC)


@pytest.mark.parametrize(
    "claims",
    [
        {"segments": "4"},
        {"segments": -1},
        {"bytes_in": 1.5},
        {"duration_microseconds": None},
        {"duration_microseconds": True},
        {"dropped_bytes": [1]},
        {"how": 1},
        {"signer": None},
        {"index": ((0, "12", 0),)},
        {"index": ((0, 12),)},
    ],
)
def test_a_seal_with_claims_of_another_kind_is_refused(
    folder: Path, segments: Segments, claims: dict[str, Any]
) -> None:
    path = folder / "made"
    path.write_bytes(rebuilt(segments, **claims))
    with pytest.raises(RecordingBrokenError, match="seal is malformed"):
        read_sealed(path)
