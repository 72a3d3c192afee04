"""What the inspector answers itself while uploads are held; both sides are played."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.gateway.sftp_bookkeeping import HeldFile
from apps.gateway.sftp_frames import (
    FrameError,
    FrameType,
    OpenFlag,
    Status,
    encode_frame,
    encode_string,
)
from apps.gateway.sftp_inspector import SftpInspector
from apps.gateway.sftp_policy import SftpPolicy, Usage
from apps.inventory.file_rules import FileRules
from apps.recordings.manifest import FileNote
from tests.gateway.sftp_wire import (
    ALL,
    INIT,
    NOW,
    frames_of,
    opening,
    request,
    status,
    taken,
    u32,
    write,
)

ANEW = OpenFlag.WRITE | OpenFlag.CREAT | OpenFlag.TRUNC
HANDLE = b"sluice-held-1"


class Store:
    """Keeps one upload in memory; the test says when it is open and when it is full."""

    def __init__(self) -> None:
        self.full = False
        self.content = b""
        self.given_up = ""
        self.opened: Callable[[HeldFile | None], None] | None = None
        self.closed: Callable[[str], None] | None = None

    def open(self, path: bytes, done: Callable[[HeldFile | None], None]) -> None:
        self.opened = done

    def write(self, piece: bytes) -> None:
        self.content += piece

    def finish(self, done: Callable[[str], None]) -> None:
        self.closed = done

    def give_up(self, why: str) -> None:
        self.given_up = why


def holding() -> tuple[SftpInspector, Store, list[FileNote]]:
    """Return an inspector that both sides have greeted, and where it keeps uploads."""
    notes: list[FileNote] = []
    store = Store()
    policy = SftpPolicy(ALL, FileRules(uploads_held=True), Usage())
    made = SftpInspector(policy, clock=lambda: NOW, on_file=notes.append, holding=store)
    made.client_data(INIT)
    made.asset_data(encode_frame(FrameType.VERSION, u32(3)))
    taken(made.to_asset)
    taken(made.to_client)
    return made, store, notes


def begin(made: SftpInspector, store: Store, flags: int = ANEW) -> None:
    """Open a file that is held."""
    made.client_data(opening(1, b"f", flags))
    assert store.opened is not None
    store.opened(store)
    (answer,) = frames_of(taken(made.to_client))
    assert answer == request(FrameType.HANDLE, 1, encode_string(HANDLE))


def codes(made: SftpInspector) -> list[int]:
    """Return the status of each answer the client gets."""
    frames = frames_of(taken(made.to_client))
    assert all(frame[4] == FrameType.STATUS for frame in frames)
    return [int.from_bytes(frame[9:13], "big") for frame in frames]


@given(
    st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=8),
    st.lists(st.integers(1, 60), min_size=1),
)
@settings(deadline=None, max_examples=150)
def test_content_comes_whole_however_it_was_cut(contents, cuts):
    """Nothing of it goes to the asset, and each WRITE has one answer."""
    made, store, notes = holding()
    begin(made, store)
    stream, offset = b"", 0
    for number, content in enumerate(contents, 2):
        stream += write(number, HANDLE, offset, content)
        offset += len(content)
    stream += request(FrameType.CLOSE, 100, encode_string(HANDLE))
    position = turn = 0
    while position < len(stream):
        size = cuts[turn % len(cuts)]
        made.client_data(stream[position : position + size])
        position, turn = position + size, turn + 1
    assert codes(made) == [Status.OK] * len(contents)
    assert store.content == b"".join(contents)
    assert store.closed is not None
    store.closed("")
    assert codes(made) == [Status.OK]
    assert taken(made.to_asset) == b""
    assert [(note.result, note.size) for note in notes] == [("held", offset)]


def test_answers_take_their_turn_behind_the_assets():
    made, store, _ = holding()
    begin(made, store)
    made.client_data(request(FrameType.STAT, 2, encode_string(b"x")))
    made.client_data(write(3, HANDLE, 0, b"content"))
    assert taken(made.to_client) == b""
    made.asset_data(status(2, Status.NO_SUCH_FILE))
    assert codes(made) == [Status.NO_SUCH_FILE, Status.OK]


def test_a_full_store_lets_the_client_wait():
    made, store, _ = holding()
    begin(made, store)
    made.client_data(write(2, HANDLE, 0, b"first"))
    store.full = True
    made.client_data(write(3, HANDLE, 5, b"second"))
    assert made.stalled
    assert store.content == b"first"
    store.full = False
    made.proceed()
    assert not made.stalled
    assert store.content == b"firstsecond"


@pytest.mark.parametrize("wrong", ["gap", "twice", "not cut", "cut short"])
def test_what_is_no_whole_file_is_given_up(wrong):
    """Out of order, or over a part of what the asset has: it is never held."""
    made, store, notes = holding()
    begin(made, store, OpenFlag.WRITE | OpenFlag.CREAT)
    made.client_data(write(2, HANDLE, 0, b"content"))
    if wrong in {"gap", "twice"}:
        made.client_data(write(3, HANDLE, 9 if wrong == "gap" else 0, b"content"))
    elif wrong == "cut short":
        cut = u32(1) + bytes(7) + b"\x03"
        made.client_data(request(FrameType.FSETSTAT, 3, encode_string(HANDLE), cut))
    taken(made.to_client)
    made.client_data(request(FrameType.CLOSE, 4, encode_string(HANDLE)))
    assert codes(made) == [Status.FAILURE]
    assert store.given_up
    assert store.closed is None
    assert [note.result for note in notes] != ["held"]
    assert taken(made.to_asset) == b""


def test_what_cannot_be_held_does_not_go_to_the_asset():
    made, store, notes = holding()
    made.client_data(opening(1, b"f", ANEW))
    assert store.opened is not None
    store.opened(None)
    assert codes(made) == [Status.FAILURE]
    assert [note.result for note in notes] == ["failed"]
    assert taken(made.to_asset) == b""


def test_an_asset_cannot_answer_what_it_was_not_asked():
    made, store, _ = holding()
    begin(made, store)
    made.client_data(request(FrameType.CLOSE, 2, encode_string(HANDLE)))
    with pytest.raises(FrameError):
        made.asset_data(status(2, Status.OK))


def test_the_end_of_the_channel_gives_up_what_is_open():
    made, store, notes = holding()
    begin(made, store)
    made.client_data(write(2, HANDLE, 0, b"content"))
    made.end()
    assert store.given_up
    assert [note.result for note in notes] == ["partial"]
