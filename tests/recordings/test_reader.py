"""Reading: whole, from a time, growing, torn, damaged."""

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.recordings.frames import Event, EventKind
from apps.recordings.output import (
    AlreadySealedError,
    RecordingFailedError,
    read_sealed,
    seal_recovered,
)
from apps.recordings.reader import RecordingBrokenError, RecordingReader, recover
from apps.recordings.seal import RECOVERED
from apps.recordings.verifier import load_keys, verify_recording
from tests.recordings.making import (
    DATA_KEY,
    HEADER,
    SIGNING_KEY,
    STARTED_AT,
    public_key_file,
    recording_bytes,
    short_batches,
)


def written(folder: Path, content: bytes, name: str = "a.slrec") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def read_all(path: Path) -> list[Event]:
    with RecordingReader(path, DATA_KEY) as reader:
        return list(reader.events())


def flat(batches: list[list[Event]]) -> list[Event]:
    return [event for batch in batches for event in batch]


def test_reads_what_was_written(folder: Path) -> None:
    batches = short_batches()
    with RecordingReader(written(folder, recording_bytes(batches)), DATA_KEY) as reader:
        assert reader.header["session"] == HEADER["session"]
        assert list(reader.events()) == flat(batches)
        assert list(reader.events()) == flat(batches)
        assert list(reader.events(channel=2)) == []
        assert reader.seal is not None
        assert reader.duration == timedelta(seconds=3, microseconds=5)


def test_an_unsealed_recording_reads_to_its_end(folder: Path) -> None:
    batches = short_batches()
    path = written(folder, recording_bytes(batches, sealed=False))
    with RecordingReader(path, DATA_KEY) as reader:
        assert reader.seal is None
        assert list(reader.events()) == flat(batches)
        assert reader.duration == timedelta(seconds=3, microseconds=5)


def test_a_recording_without_events(folder: Path) -> None:
    path = written(folder, recording_bytes([]))
    assert read_all(path) == []
    found = read_sealed(path)
    assert found is not None
    assert found.segments == 0


def test_another_key_reads_nothing(folder: Path) -> None:
    path = written(folder, recording_bytes(short_batches()))
    with (
        RecordingReader(path, bytes(32)) as reader,
        pytest.raises(RecordingBrokenError, match="decrypt"),
    ):
        list(reader.events())


@pytest.mark.parametrize("sealed", [True, False])
@given(start=st.integers(0, 130_000_000))
def test_seeking_gives_exactly_the_events_from_then_on(
    sealed: bool, start: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    batches = [
        [Event(EventKind.OUTPUT, n % 2, n * 700_000 + m, b"%d" % n) for m in range(2)]
        for n in range(180)
    ]
    path = tmp_path_factory.getbasetemp() / f"seek-{sealed}"
    if not path.exists():
        path.write_bytes(recording_bytes(batches, sealed=sealed))
    with RecordingReader(path, DATA_KEY) as reader:
        assert len(reader.frames) == 5
        expected = [e for e in flat(batches) if e.microseconds >= start]
        assert list(reader.events(start)) == expected
        assert list(reader.events(start, channel=1)) == [
            e for e in expected if e.channel == 1
        ]


def test_seeking_reads_from_the_nearest_frame_only(folder: Path) -> None:
    batches = [
        [Event(EventKind.OUTPUT, 1, n * 31_000_000, b"%d" % n)] for n in range(5)
    ]
    content = bytearray(recording_bytes(batches))
    with RecordingReader(written(folder, bytes(content)), DATA_KEY) as reader:
        offset = reader.frames[0][1]
    content[offset + 50] ^= 1
    with RecordingReader(written(folder, bytes(content)), DATA_KEY) as reader:
        assert len(list(reader.events(3 * 31_000_000))) == 2
        with pytest.raises(RecordingBrokenError):
            list(reader.events())


def test_events_of_one_microsecond_over_two_frames_are_all_found(folder: Path) -> None:
    big = [Event(EventKind.OUTPUT, 1, 50, bytes(1 << 20)) for _ in range(3)]
    path = written(folder, recording_bytes([[*big]]))
    with RecordingReader(path, DATA_KEY) as reader:
        assert len(reader.frames) == 3
        assert len(list(reader.events(50))) == 3


def test_follows_a_growing_file_byte_by_byte(folder: Path) -> None:
    batches = short_batches()
    content = recording_bytes(batches)
    start = len(recording_bytes([], sealed=False))
    path = written(folder, content[:start])
    found: list[Event] = []
    with RecordingReader(path, DATA_KEY) as reader, path.open("ab", 0) as file:
        for offset in range(start, len(content)):
            file.write(content[offset : offset + 1])
            found += reader.read_new()
        assert reader.read_new() == []
        assert reader.seal is not None
    assert found == flat(batches)


def test_read_new_gives_a_bounded_piece_at_a_time(folder: Path) -> None:
    batches = short_batches(6)
    path = written(folder, recording_bytes(batches))
    with RecordingReader(path, DATA_KEY) as reader:
        pieces = []
        while piece := reader.read_new(max_bytes=1):
            pieces.append(piece)
    assert pieces == batches


def test_every_truncation_recovers_to_the_last_intact_segment(folder: Path) -> None:
    """Each prefix of a file, as a crash may leave it, gives all its whole segments."""
    batches = short_batches(3)
    whole = recording_bytes(batches)
    ends = [len(recording_bytes(batches[:n], sealed=False)) for n in range(4)]
    keys = load_keys([str(public_key_file(folder))])
    path = folder / "torn"
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        if size < ends[0]:
            with pytest.raises(RecordingBrokenError):
                recover(path)
            continue
        segments = sum(end <= size for end in ends) - 1
        found = recover(path, DATA_KEY)
        assert (found.segments, found.seal, found.damaged) == (segments, None, False)
        assert found.dropped_bytes == size - ends[segments]
        assert read_all(path) == flat(batches[:segments])
        sealed = seal_recovered(
            path, signer=SIGNING_KEY, now=STARTED_AT, data_key=DATA_KEY
        )
        assert sealed.seal.how == RECOVERED
        assert sealed.seal.dropped_bytes == size - ends[segments]
        assert (sealed.bytes_in, sealed.bytes_out) == (segments, segments * 8)
        assert sealed.size == path.stat().st_size
        assert read_sealed(path) == sealed
        assert read_all(path) == flat(batches[:segments])
        report = verify_recording(str(path), keys)
        assert report.ok, report


def test_recovery_of_a_sealed_file_is_refused(folder: Path) -> None:
    path = written(folder, recording_bytes(short_batches()))
    before = path.read_bytes()
    with pytest.raises(AlreadySealedError):
        seal_recovered(path, signer=SIGNING_KEY, now=STARTED_AT)
    assert path.read_bytes() == before


def test_recovery_without_the_key_counts_no_bytes(folder: Path) -> None:
    path = written(folder, recording_bytes(short_batches(), sealed=False))
    sealed = seal_recovered(path, signer=SIGNING_KEY, now=STARTED_AT)
    assert (sealed.segments, sealed.bytes_in, sealed.bytes_out) == (4, None, None)


def test_recovery_with_a_wrong_key_changes_nothing(folder: Path) -> None:
    content = recording_bytes(short_batches(), sealed=False)
    path = written(folder, content)
    with pytest.raises(RecordingBrokenError, match="decrypt"):
        seal_recovered(path, signer=SIGNING_KEY, now=STARTED_AT, data_key=bytes(32))
    assert path.read_bytes() == content


def test_a_tail_of_zeros_is_cut_off(folder: Path) -> None:
    """A power loss can leave a file longer than what was written to it."""
    content = recording_bytes(short_batches(), sealed=False)
    path = written(folder, content + bytes(5000))
    sealed = seal_recovered(path, signer=SIGNING_KEY, now=STARTED_AT)
    assert (sealed.segments, sealed.seal.dropped_bytes) == (4, 5000)


def test_recovery_never_cuts_off_intact_segments(folder: Path) -> None:
    """Damage with intact segments behind it is no torn tail (R29)."""
    content = bytearray(recording_bytes(short_batches(6), sealed=False))
    start = len(recording_bytes(short_batches(1), sealed=False))
    content[start + 60] ^= 1
    path = written(folder, bytes(content))
    assert recover(path).damaged
    with pytest.raises(RecordingFailedError, match="intact behind"):
        seal_recovered(path, signer=SIGNING_KEY, now=STARTED_AT)
    assert path.read_bytes() == bytes(content)


def test_no_flipped_byte_makes_a_sealed_file_recoverable(folder: Path) -> None:
    """A sealed recording can never be cut and sealed again (R29)."""
    content = recording_bytes(short_batches(2))
    path = folder / "flipped"
    resealed = []
    for offset in range(len(content)):
        flipped = bytearray(content)
        flipped[offset] ^= 0x41
        path.write_bytes(flipped)
        try:
            seal_recovered(path, signer=SIGNING_KEY, now=STARTED_AT)
        except (RecordingBrokenError, RecordingFailedError, AlreadySealedError):
            assert path.read_bytes() == bytes(flipped)
        else:
            resealed.append(offset)
    assert resealed == []


def test_a_flipped_byte_in_a_segment_is_found_while_reading(folder: Path) -> None:
    content = recording_bytes(short_batches(2))
    end = len(recording_bytes(short_batches(2), sealed=False))
    path = folder / "flipped"
    for offset in range(end):
        flipped = bytearray(content)
        flipped[offset] ^= 1
        path.write_bytes(flipped)
        with pytest.raises(RecordingBrokenError):
            read_all(path)


def test_removed_segments_are_found_while_reading(folder: Path) -> None:
    whole = recording_bytes(short_batches(3))
    ends = [len(recording_bytes(short_batches(n), sealed=False)) for n in range(4)]
    without_middle = whole[: ends[1]] + whole[ends[2] :]
    with pytest.raises(RecordingBrokenError, match="where 1 belongs"):
        read_all(written(folder, without_middle))


@pytest.mark.parametrize("content", [b"", b"SLREC1", b"garbage" * 100, bytes(100)])
def test_other_files_are_refused(folder: Path, content: bytes) -> None:
    with pytest.raises(RecordingBrokenError) as caught:
        RecordingReader(written(folder, content), DATA_KEY)
    assert caught.value.offset == 0
    assert caught.value.reason
