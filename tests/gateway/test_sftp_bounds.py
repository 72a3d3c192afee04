"""What an SFTP channel may hold: paths, sizes over several openings, what is own."""

import struct
import tracemalloc

import pytest

from apps.gateway.sftp_frames import (
    FrameType,
    OpenFlag,
    Status,
    encode_handle_request,
    encode_path_request,
    encode_string,
    parse_status,
)
from apps.gateway.sftp_inspector import OUTSTANDING, SftpInspector
from apps.gateway.sftp_policy import MAX_PATH, Usage
from apps.inventory.file_rules import MEGABYTE, FileRules
from apps.recordings.manifest import FileNote, FileResult
from tests.gateway.sftp_wire import (
    ALL,
    agreed,
    frames_of,
    opened,
    opening,
    request,
    status,
    taken,
    u32,
    write,
)


def test_a_path_has_an_end_and_what_is_unanswered_its_bound():
    """Answered in its turn, whatever is asked about it; none of it is kept."""
    made, notes = agreed()
    longest, longer = b"x" * MAX_PATH, b"x" * (MAX_PATH + 1)
    asked = [
        encode_path_request(FrameType.STAT, 1, longest),
        encode_path_request(FrameType.STAT, 2, longer),
        opening(3, longer, OpenFlag.READ),
        request(FrameType.RENAME, 4, encode_string(b"a"), encode_string(longer)),
        encode_path_request(FrameType.REALPATH, 5, b"y"),
    ]
    made.client_data(b"".join(asked))
    assert frames_of(taken(made.to_asset)) == [asked[0], asked[4]]
    assert not made.to_client
    made.asset_data(status(1, Status.NO_SUCH_FILE))
    answers = frames_of(taken(made.to_client))
    assert [parse_status(answer) for answer in answers] == [2, 4, 4, 4]
    assert b"at most 4096 bytes" in answers[1]
    assert [note.result for note in notes] == [FileResult.DENIED] * 2
    assert max(len(note.path) for note in notes) == MAX_PATH

    made, _ = agreed()
    two = encode_string(longest) * 2
    unknown = encode_string(b"u" * 30_000)
    tracemalloc.start()
    try:
        for number in range(OUTSTANDING):
            made.client_data(
                request(FrameType.EXTENDED, number, unknown)
                if number % 2
                else request(FrameType.RENAME, number, two)
            )
            made.to_asset.clear()
        assert made.stalled
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < OUTSTANDING * (MAX_PATH + 1500)


def limited(*, usage: Usage | None = None) -> tuple[SftpInspector, list[FileNote]]:
    """Return a channel in which a file may have at most one megabyte."""
    return agreed(rules=FileRules(file_bytes=MEGABYTE), usage=usage)


def adding(made: SftpInspector, handle: bytes, size: int | None) -> None:
    """Open a file to add to it; the asset says that it has `size` bytes, or nothing."""
    made.client_data(opening(9, b"f", OpenFlag.WRITE | OpenFlag.APPEND))
    made.asset_data(request(FrameType.HANDLE, 9, encode_string(handle)))
    taken(made.to_client)
    _, asked = frames_of(taken(made.to_asset))
    assert asked[4] == FrameType.FSTAT
    assert made.stalled, "nothing is added before the size is known"
    number = int.from_bytes(asked[5:9], "big")
    attributes = u32(0) if size is None else u32(1) + struct.pack(">Q", size)
    made.asset_data(request(FrameType.ATTRS, number, attributes))
    assert not made.stalled
    assert not made.to_client


def added(made: SftpInspector, handle: bytes, count: int, *, answer=True) -> bool:
    """Say whether `count` bytes may be added."""
    made.client_data(write(3, handle, 0, bytes(count)))
    passed = bool(taken(made.to_asset))
    if passed and answer:
        made.asset_data(status(3, 0))
    taken(made.to_client)
    return passed


def closed(made: SftpInspector, handle: bytes) -> None:
    made.client_data(encode_handle_request(FrameType.CLOSE, 4, handle))
    made.asset_data(status(4, 0))
    taken(made.to_asset)
    taken(made.to_client)


def test_a_file_that_is_added_to_counts_with_what_it_has():
    made, notes = limited()
    adding(made, b"h", 0)
    assert added(made, b"h", 200_000)
    assert added(made, b"h", 200_000)
    closed(made, b"h")
    adding(made, b"h", 400_000)
    for _ in range(3):
        assert added(made, b"h", 200_000)
    assert not added(made, b"h", 1)
    closed(made, b"h")
    assert [note.result for note in notes] == [FileResult.PARTIAL, FileResult.DENIED]
    assert "at most 1 MB" in notes[1].reason


def test_a_file_that_is_added_to_in_two_places_counts_once():
    """Through two handles, also of two channels, with answers still to come."""
    usage = Usage()
    one, _ = limited(usage=usage)
    two, _ = limited(usage=usage)
    adding(one, b"h", 0)
    assert added(one, b"h", 200_000, answer=False)
    adding(two, b"h", 0)
    adding(two, b"i", 0)
    for channel, handle in ((two, b"h"), (two, b"i")):
        assert added(channel, handle, 200_000)
    one.asset_data(status(3, 0))
    assert added(one, b"h", 200_000)
    assert added(two, b"i", 200_000)
    for channel, handle in ((one, b"h"), (two, b"h"), (two, b"i")):
        assert not added(channel, handle, 1)


@pytest.mark.parametrize("by_handle", [True, False])
def test_a_file_that_was_stretched_is_not_added_to_from_its_old_end(by_handle):
    made, _ = limited()
    adding(made, b"h", 0)
    whole = u32(1) + struct.pack(">Q", MEGABYTE)
    made.client_data(
        request(FrameType.FSETSTAT, 1, encode_string(b"h"), whole)
        if by_handle
        else request(FrameType.SETSTAT, 1, encode_string(b"./f"), whole)
    )
    made.asset_data(status(1, 0))
    taken(made.to_asset)
    assert not added(made, b"h", 1)


def test_what_an_asset_does_not_say_the_length_of_is_not_added_to():
    made, notes = limited()
    adding(made, b"h", None)
    assert not added(made, b"h", 1)
    closed(made, b"h")
    assert "does not say how long" in notes[0].reason


MODE = u32(4) + u32(0o600)


def chmod_passes(made: SftpInspector, path: bytes) -> bool:
    made.client_data(request(FrameType.SETSTAT, 77, encode_string(path), MODE))
    passed = bool(taken(made.to_asset))
    if passed:
        made.asset_data(status(77, 0))
    taken(made.to_client)
    return passed


def two_named(kind: int, number: int, path: bytes, other: bytes) -> bytes:
    return request(kind, number, encode_string(path), encode_string(other))


SWAPS = {
    "renamed onto it": two_named(FrameType.RENAME, 5, b"foreign", b"f"),
    "by another spelling": two_named(FrameType.RENAME, 5, b"foreign", b"/home/x/f"),
    "a folder above it": two_named(FrameType.RENAME, 5, b"folder", b"/home"),
    "a hard link": request(
        FrameType.EXTENDED,
        5,
        encode_string(b"hardlink@openssh.com"),
        encode_string(b"foreign"),
        encode_string(b"f"),
    ),
    "a link": two_named(FrameType.SYMLINK, 5, b"foreign", b"f"),
}


@pytest.mark.parametrize("where", ["before", "meanwhile", "another channel"])
@pytest.mark.parametrize("swap", SWAPS)
def test_a_name_that_may_stand_for_another_file_is_not_own_any_more(swap, where):
    usage = Usage()
    rights = ALL - {"sftp-chmod"}
    made, _ = agreed(services=rights, usage=usage)
    other, _ = agreed(services=rights, usage=usage)
    if where == "meanwhile":
        made.client_data(opening(9, b"f", OpenFlag.WRITE) + SWAPS[swap])
        made.asset_data(request(FrameType.HANDLE, 9, encode_string(b"h")))
        made.asset_data(status(5, 0))
    else:
        opened(made, OpenFlag.WRITE)
        assert chmod_passes(made, b"f")
        by = other if where == "another channel" else made
        by.client_data(SWAPS[swap])
        by.asset_data(status(5, 0))
    taken(made.to_asset)
    taken(made.to_client)
    assert not chmod_passes(made, b"f")
    opened(made, OpenFlag.WRITE, handle=b"new")
    assert chmod_passes(made, b"f"), "what is written after it is own again"


def test_what_is_own_stays_own_under_its_new_name():
    made, _ = agreed(services=ALL - {"sftp-chmod"})
    opened(made, OpenFlag.WRITE)
    made.client_data(two_named(FrameType.RENAME, 5, b"f", b"g"))
    assert not made.stalled
    made.asset_data(status(5, 0))
    taken(made.to_asset)
    assert chmod_passes(made, b"g")
    assert not chmod_passes(made, b"f")
