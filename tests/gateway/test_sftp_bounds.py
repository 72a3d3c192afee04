"""What an SFTP channel may hold: paths, sizes over several openings, what is own."""

import itertools
import struct
import tracemalloc
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.gateway.sftp_frames import (
    FrameType,
    OpenFlag,
    Status,
    encode_handle_request,
    encode_path_request,
    encode_string,
    parse_handle,
    parse_request,
    parse_status,
    parse_write_head,
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


class SlowAsset:
    """Two channels to one asset with one file of two names; answers come when asked.

    Requests of a channel are done in their order, those of two channels in any.
    """

    def __init__(self) -> None:
        usage = Usage()
        self.channels = [limited(usage=usage)[0] for _ in range(2)]
        self.todo: list[deque[bytes]] = [deque(), deque()]
        self.answers: list[deque[bytes]] = [deque(), deque()]
        self.opened: list[dict[bytes, bool]] = [{}, {}]
        self.size = 0
        self.numbers = itertools.count(10)

    def ask(self, channel: int, frame: bytes) -> None:
        self.channels[channel].client_data(frame)
        self._take(channel)

    def _take(self, channel: int) -> None:
        made = self.channels[channel]
        self.todo[channel] += frames_of(taken(made.to_asset))
        for frame in frames_of(taken(made.to_client)):
            if frame[4] == FrameType.HANDLE:
                self.opened[channel].setdefault(parse_handle(frame), True)

    def work(self, channel: int) -> None:
        """Do the next request; its answer is on its way."""
        if not self.todo[channel]:
            return
        frame = self.todo[channel].popleft()
        kind, number = frame[4], int.from_bytes(frame[5:9], "big")
        answer = status(number, 0)
        if kind == FrameType.OPEN:
            found = parse_request(frame)
            name = b"+" if found.flags & OpenFlag.APPEND else b"="
            if found.flags & OpenFlag.TRUNC:
                self.size = 0
            handle = name + str(next(self.numbers)).encode()
            answer = request(FrameType.HANDLE, number, encode_string(handle))
        elif kind == FrameType.FSTAT:
            attributes = u32(1) + struct.pack(">Q", self.size)
            answer = request(FrameType.ATTRS, number, attributes)
        elif kind == FrameType.WRITE:
            head = parse_write_head(frame, 0)
            assert head is not None
            _, handle, offset, count, _ = head
            start = self.size if handle.startswith(b"+") else offset
            self.size = max(self.size, start + count)
        elif kind in {FrameType.SETSTAT, FrameType.FSETSTAT}:
            self.size = parse_request(frame).attributes.size or 0
        self.answers[channel].append(answer)

    def hear(self, channel: int) -> None:
        if self.answers[channel]:
            self.channels[channel].asset_data(self.answers[channel].popleft())
            self._take(channel)

    def write(self, channel: int, which: int, offset: int, count: int) -> None:
        handles = list(self.opened[channel])
        if handles:
            handle = handles[which % len(handles)]
            self.ask(channel, write(next(self.numbers), handle, offset, bytes(count)))


PART = MEGABYTE // 10
STEPS = st.tuples(
    st.sampled_from(
        [
            "open",
            "add",
            "write",
            "write",
            "write",
            "stretch",
            "close",
            "work",
            "work",
            "hear",
            "hear",
        ]
    ),
    st.integers(0, 1),
    st.integers(0, 3),
    st.integers(0, 10),
)


@given(st.lists(STEPS, min_size=20, max_size=80))
@settings(deadline=None, max_examples=300)
def test_no_order_of_things_makes_a_file_too_long(steps) -> None:
    """By two names, several handles, two channels, whenever answers come."""
    asset = SlowAsset()
    for what, channel, which, part in steps:
        number = next(asset.numbers)
        if what in {"open", "add"}:
            flags = OpenFlag.WRITE | (OpenFlag.APPEND if what == "add" else 0)
            asset.ask(channel, opening(number, b"ab"[which % 2 :][:1], flags))
            for _ in range(which * 3):
                asset.work(channel)
                asset.hear(channel)
        elif what == "write":
            asset.write(channel, which, part * PART, 1 + part * PART // 5)
        elif what == "stretch":
            length = u32(1) + struct.pack(">Q", part * PART)
            asset.ask(
                channel,
                request(FrameType.SETSTAT, number, encode_string(b"b"), length),
            )
        elif what == "close":
            handles = list(asset.opened[channel])
            if handles:
                handle = handles[which % len(handles)]
                del asset.opened[channel][handle]
                asset.ask(
                    channel, encode_handle_request(FrameType.CLOSE, number, handle)
                )
        elif what == "work":
            asset.work(channel)
        else:
            asset.hear(channel)
        assert asset.size <= MEGABYTE
    for _ in range(200):
        for channel in (0, 1):
            asset.work(channel)
            asset.hear(channel)
            assert asset.size <= MEGABYTE
    assert not any(made.stalled for made in asset.channels)
