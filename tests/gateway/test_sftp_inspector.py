"""The inspector of SFTP against OpenSSH's own sftp-server, a model, and nonsense."""

import hashlib
import itertools
import os
import struct
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
)

from apps.gateway.sftp_frames import (
    FrameError,
    FrameType,
    OpenFlag,
    Status,
    encode_frame,
    encode_handle_request,
    encode_path_request,
    encode_string,
    parse_handle,
    parse_status,
    parse_version,
)
from apps.gateway.sftp_inspector import OUTSTANDING, SftpInspector
from apps.inventory.file_rules import FileRules
from apps.recordings.manifest import FileResult
from tests.gateway.sftp_wire import (
    ALL,
    INIT,
    agreed,
    frames_of,
    inspector,
    opened,
    opening,
    read,
    request,
    status,
    taken,
    u32,
    write,
)

pytestmark = pytest.mark.timeout(240)

SFTP_SERVER = Path("/usr/lib/openssh/sftp-server")

needs_sftp_server = pytest.mark.skipif(
    not SFTP_SERVER.exists(), reason="OpenSSH's sftp-server is not installed"
)


class Server:
    """A real sftp-server in a folder, with or without the inspector before it."""

    def __init__(self, folder: Path, made: SftpInspector | None) -> None:
        self.made = made
        self.process = subprocess.Popen(
            [str(SFTP_SERVER), "-d", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.answers = b""
        self.sent = b""
        (self.version,) = self.ask(INIT)

    def ask(self, data: bytes, answers: int = 1) -> list[bytes]:
        """Send frames and return as many answers as are due."""
        if self.made is None:
            self._to_server(data)
        else:
            self.made.client_data(data)
            self._flush()
        while len(whole := self._whole()) < answers:
            piece = os.read(self.process.stdout.fileno(), 65536)
            assert piece, "the server ended"
            if self.made is None:
                self.answers += piece
            else:
                self.made.asset_data(piece)
                self._flush()
        self.answers = b""
        assert len(whole) == answers
        return whole

    def _whole(self) -> list[bytes]:
        data, found = self.answers, []
        while len(data) >= 4 and len(data) >= (
            end := 4 + int.from_bytes(data[:4], "big")
        ):
            found.append(data[:end])
            data = data[end:]
        return found

    def _flush(self) -> None:
        self._to_server(taken(self.made.to_asset))
        self.answers += taken(self.made.to_client)

    def _to_server(self, data: bytes) -> None:
        self.sent += data
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(10)


def snapshot(folder: Path) -> dict[str, object]:
    """Return what is in a folder: contents, link texts, permissions."""
    return {
        str(path.relative_to(folder)): (
            os.readlink(path)
            if path.is_symlink()
            else (path.read_bytes() if path.is_file() else "folder"),
            None if path.is_symlink() else path.stat().st_mode,
        )
        for path in folder.rglob("*")
    }


NAMES = st.sampled_from([b"a", b"b", b"d", b"d/a", b"d/e", b"\xff\xfe", b"", b"../x"])
FLAGS = st.integers(0, 63)
CONTENT = st.binary(max_size=300)
PLACES = st.sampled_from([0, 1, 100, 299])

RIGHT_OF = {
    FrameType.REMOVE: "sftp-delete",
    FrameType.RMDIR: "sftp-delete",
    FrameType.MKDIR: "sftp-mkdir",
    FrameType.RENAME: "sftp-rename",
    FrameType.SYMLINK: "sftp-symlink",
    FrameType.SETSTAT: "sftp-chmod",
}


class Differential(RuleBasedStateMachine):
    """The same requests to a bare server and to one behind the inspector, with some
    rights: what is allowed is answered and done alike, what is denied is neither."""

    handles = Bundle("handles")

    def __init__(self) -> None:
        super().__init__()
        self.root = tempfile.TemporaryDirectory()
        self.bare_folder = Path(self.root.name) / "one" / "in"
        self.folder = Path(self.root.name) / "two" / "in"
        self.bare_folder.mkdir(parents=True)
        self.folder.mkdir(parents=True)
        self.numbers = itertools.count(100)
        self.own: set[bytes] = set()
        self.flags_of: dict[bytes, int] = {}

    @initialize(services=st.sets(st.sampled_from(sorted(ALL)), min_size=1))
    def begin(self, services: set[str]) -> None:
        self.services = services
        self.bare = Server(self.bare_folder, None)
        made, self.notes = inspector(frozenset(services))
        self.guarded = Server(self.folder, made)

    def both(self, frame: bytes, *, allowed: bool) -> bytes:
        """Ask; return the answer that the client behind the inspector got."""
        before = len(self.guarded.sent)
        (answer,) = self.guarded.ask(frame)
        passed = self.guarded.sent[before:]
        if allowed:
            first, *others = frames_of(passed)
            assert first == frame, "it went on as something else"
            # What the gateway may ask by itself: how large a file is that is read.
            assert [other[4] for other in others] in ([], [FrameType.FSTAT])
            (expected,) = self.bare.ask(frame)
            assert masked(answer) == masked(expected)
        else:
            assert passed == b"", "it reached the server"
            assert answer[4] == FrameType.STATUS
            assert parse_status(answer) == Status.PERMISSION_DENIED
        return answer

    @rule(target=handles, path=NAMES, flags=FLAGS)
    def open(self, path: bytes, flags: int):
        needed = set()
        if flags & ~OpenFlag.READ:
            needed.add("sftp-up")
        if flags & OpenFlag.READ or not flags:
            needed.add("sftp-down")
        answer = self.both(
            opening(next(self.numbers), path, flags), allowed=needed <= self.services
        )
        if answer[4] != FrameType.HANDLE:
            return multiple()
        if flags & ~OpenFlag.READ:
            self.own.add(path)
        self.flags_of[parse_handle(answer)] = flags
        return parse_handle(answer)

    @rule(handle=handles, offset=PLACES, data=CONTENT)
    def write(self, handle, offset: int, data: bytes) -> None:
        if not self.is_open(handle) or not self.flags_of[handle] & ~OpenFlag.READ:
            return
        self.both(write(next(self.numbers), handle, offset, data), allowed=True)

    @rule(handle=handles, offset=PLACES, length=st.integers(1, 400))
    def read(self, handle, offset: int, length: int) -> None:
        flags = self.flags_of[handle]
        if not self.is_open(handle) or (flags & OpenFlag.READ == 0 and flags):
            return
        self.both(read(next(self.numbers), handle, offset, length), allowed=True)

    def is_open(self, name: bytes) -> bool:
        return name in self.guarded.made._books._handles

    @rule(handle=handles)
    def close(self, handle) -> None:
        if self.is_open(handle):
            frame = encode_handle_request(FrameType.CLOSE, next(self.numbers), handle)
            self.both(frame, allowed=True)

    @rule(
        kind=st.sampled_from(
            [
                FrameType.REMOVE,
                FrameType.RMDIR,
                FrameType.STAT,
                FrameType.LSTAT,
                FrameType.READLINK,
                FrameType.REALPATH,
            ]
        ),
        path=NAMES,
    )
    def ask_about(self, kind: FrameType, path: bytes) -> None:
        if kind is FrameType.REALPATH:
            # The answer names the folder, which differs; that it comes is enough.
            frame = encode_path_request(kind, next(self.numbers), path)
            (answer,) = self.guarded.ask(frame)
            (expected,) = self.bare.ask(frame)
            assert answer[4] == expected[4]
            return
        right = RIGHT_OF.get(kind)
        frame = encode_path_request(kind, next(self.numbers), path)
        self.both(frame, allowed=right is None or right in self.services)

    @rule(path=NAMES)
    def make_folder(self, path: bytes) -> None:
        frame = request(
            FrameType.MKDIR, next(self.numbers), encode_string(path), u32(0)
        )
        answer = self.both(frame, allowed="sftp-mkdir" in self.services)
        if parse_status(answer) == Status.OK:
            self.own.add(path)

    @rule(
        kind=st.sampled_from([FrameType.RENAME, FrameType.SYMLINK]),
        path=NAMES,
        other=NAMES,
    )
    def two_paths(self, kind: FrameType, path: bytes, other: bytes) -> None:
        frame = request(
            kind, next(self.numbers), encode_string(path), encode_string(other)
        )
        allowed = RIGHT_OF[kind] in self.services
        answer = self.both(frame, allowed=allowed)
        if allowed and kind is FrameType.RENAME and path in self.own:
            self.own.discard(path)
            if parse_status(answer) == Status.OK:
                self.own.add(other)
        elif allowed:
            self.own.clear()

    @rule(path=NAMES, mode=st.sampled_from([0o600, 0o640, 0o4755]))
    def change(self, path: bytes, mode: int) -> None:
        frame = request(
            FrameType.SETSTAT,
            next(self.numbers),
            encode_string(path),
            u32(4),
            u32(mode),
        )
        own = path in self.own and not mode & 0o6000
        self.both(frame, allowed=own or "sftp-chmod" in self.services)

    @invariant()
    def nothing_else_was_done(self) -> None:
        if hasattr(self, "guarded"):
            bare, here = self.bare_folder.parent, self.folder.parent
            assert snapshot(here) == snapshot(bare)

    def teardown(self) -> None:
        if hasattr(self, "guarded"):
            self.bare.close()
            self.guarded.close()
            self.guarded.made.end()
            for note in self.notes:
                assert note.sha256 == "" or note.size >= 0
                assert (note.result is FileResult.COMPLETE) <= (note.reason == "")
        self.root.cleanup()


def masked(answer: bytes) -> bytes:
    """Return an answer without the times in it."""
    if answer[4] == FrameType.ATTRS:
        return answer[:-8]
    return answer


Differential.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestDifferential = needs_sftp_server(Differential.TestCase)


def test_denied_requests_are_answered_in_their_turn():
    """Many requests at once: each denial waits for the answers before it, and the
    asset sees none of it."""
    made, notes = agreed(services=frozenset({"sftp-down"}))
    asked, denied = [], []
    burst = b""
    for number in range(100):
        if number % 3:
            burst += encode_path_request(FrameType.REMOVE, number, b"x")
            denied.append(number)
        else:
            burst += encode_path_request(FrameType.STAT, number, b"x")
            asked.append(number)
    made.client_data(burst)
    assert [int.from_bytes(f[5:9], "big") for f in frames_of(taken(made.to_asset))] == (
        asked
    )
    assert not made.to_client, "nothing before the first is answered"
    seen = []
    for number in asked:
        made.asset_data(status(number, Status.NO_SUCH_FILE))
        seen += frames_of(taken(made.to_client))
    numbers = [int.from_bytes(frame[5:9], "big") for frame in seen]
    assert numbers == list(range(100))
    assert [parse_status(frame) for frame in seen] == [
        Status.PERMISSION_DENIED if number % 3 else Status.NO_SUCH_FILE
        for number in range(100)
    ]
    assert len(notes) == len(denied)


def test_an_id_may_be_used_again_once_it_was_answered():
    """Also where the asset answers out of order and an earlier request still waits."""
    made, _ = agreed()
    made.client_data(encode_path_request(FrameType.STAT, 1, b"slow"))
    for _ in range(3):
        made.client_data(encode_path_request(FrameType.STAT, 2, b"quick"))
        made.asset_data(status(2, Status.NO_SUCH_FILE))
        assert taken(made.to_client) == status(2, Status.NO_SUCH_FILE)
    made.asset_data(status(1, Status.OK))
    assert taken(made.to_client) == status(1, Status.OK)
    assert not made._by_id


def test_a_denial_does_not_split_an_answer():
    """The turn of a denial comes in the middle of a chunk, never of a frame."""
    made, _ = agreed()
    opened(made, OpenFlag.READ)
    refused = request(FrameType.EXTENDED, 2, encode_string(b"no-such@example.org"))
    made.client_data(read(1, b"h", 0, 10) + refused + read(3, b"h", 10, 10))
    one = request(FrameType.DATA, 1, encode_string(b"0123456789"))
    two = request(FrameType.DATA, 3, encode_string(b"abcdefghij"))
    taken(made.to_asset)
    made.asset_data(one[:15])
    made.asset_data(one[15:] + two[:12])
    made.asset_data(two[12:])
    first, denial, second = frames_of(taken(made.to_client))
    assert (first, second) == (one, two)
    assert parse_status(denial) == Status.OP_UNSUPPORTED


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_how_bytes_are_cut_changes_nothing(data):
    """Any cutting of both streams gives the same bytes and the same checksum."""
    content = data.draw(st.binary(min_size=1, max_size=2000))
    piece = data.draw(st.integers(1, 700))
    parts = [content[at : at + piece] for at in range(0, len(content), piece)]
    made, notes = agreed()
    opened(made, OpenFlag.WRITE | OpenFlag.TRUNC | OpenFlag.READ)
    stream = b"".join(
        write(number, b"h", number * piece, part) for number, part in enumerate(parts)
    )
    stream += encode_path_request(FrameType.STAT, 5000, b"y")
    stream += encode_handle_request(FrameType.CLOSE, 5001, b"h")
    for part in cut(data, stream):
        made.client_data(part)
    assert taken(made.to_asset) == stream
    answers = b"".join(status(number, 0) for number in range(len(parts)))
    answers += status(5000, 2) + status(5001, 0)
    for part in cut(data, answers):
        made.asset_data(part)
    assert taken(made.to_client) == answers
    (note,) = notes
    assert note.result is FileResult.COMPLETE
    assert note.sha256 == hashlib.sha256(content).hexdigest()
    assert not made.stalled


def cut(data, stream: bytes) -> list[bytes]:
    places = data.draw(st.lists(st.integers(0, len(stream)), max_size=12).map(sorted))
    return [
        stream[begin:end]
        for begin, end in itertools.pairwise([0, *places, len(stream)])
        if end > begin
    ]


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_parts_out_of_order_are_hashed_in_order(data):
    content = os.urandom(1000)
    order = data.draw(st.permutations(range(10)))
    made, notes = agreed()
    opened(made, OpenFlag.READ)
    made.client_data(encode_path_request(FrameType.STAT, 7, b"f"))
    for number in order:
        made.client_data(read(number + 100, b"h", number * 100, 100))
    made.client_data(encode_handle_request(FrameType.FSTAT, 8, b"h"))
    made.asset_data(status(7, 2))
    for number in order:
        part = content[number * 100 : number * 100 + 100]
        made.asset_data(request(FrameType.DATA, number + 100, encode_string(part)))
    made.asset_data(request(FrameType.ATTRS, 8, u32(1), struct.pack(">Q", 1000)))
    made.client_data(encode_handle_request(FrameType.CLOSE, 9, b"h"))
    made.asset_data(status(9, 0))
    (note,) = notes
    assert note.result is FileResult.COMPLETE
    assert note.sha256 == hashlib.sha256(content).hexdigest()


def test_a_size_nobody_asked_for_is_asked_for_by_the_gateway():
    """The client sees nothing of it, and may even use the same id."""
    made, notes = agreed()
    made.client_data(opening(9, b"f", OpenFlag.READ))
    made.asset_data(request(FrameType.HANDLE, 9, encode_string(b"h")))
    _, question = frames_of(taken(made.to_asset))
    assert question[4] == FrameType.FSTAT
    number = int.from_bytes(question[5:9], "big")
    made.client_data(read(1, b"h", 0, 3) + read(number, b"h", 3, 3))
    assert made.stalled
    assert frames_of(taken(made.to_asset)) == [read(1, b"h", 0, 3)]
    attributes = u32(1) + struct.pack(">Q", 6)
    made.asset_data(request(FrameType.ATTRS, number, attributes))
    assert not made.stalled
    assert frames_of(taken(made.to_asset)) == [read(number, b"h", 3, 3)]
    made.client_data(encode_handle_request(FrameType.CLOSE, 2, b"h"))
    answers = [
        request(FrameType.DATA, 1, encode_string(b"abc")),
        request(FrameType.DATA, number, encode_string(b"def")),
        status(2, 0),
    ]
    taken(made.to_client)
    made.asset_data(b"".join(answers))
    assert frames_of(taken(made.to_client)) == answers
    (note,) = notes
    assert (note.result, note.size) == (FileResult.COMPLETE, 6)


def test_what_cannot_be_put_in_order_has_no_checksum():
    """Said, not papered over; and what was kept meanwhile is bounded."""
    made, notes = agreed()
    opened(made, OpenFlag.WRITE | OpenFlag.TRUNC)
    part = bytes(200_000)
    for number in range(60):
        made.client_data(write(number, b"h", (number + 1) * len(part), part))
        made.asset_data(status(number, 0))
        kept = made._books._reorder.room
        assert 0 <= kept <= 8 << 20
    assert made._books._reorder.room == 8 << 20, "given up, and room made again"
    made.client_data(encode_handle_request(FrameType.CLOSE, 99, b"h"))
    made.asset_data(status(99, 0))
    (note,) = notes
    assert (note.result, note.sha256) == (FileResult.PARTIAL, "")
    assert note.reason == "its parts did not come in order"


def test_an_upload_that_is_cut_by_its_path_is_not_called_whole():
    """The size may be set by name as well as by the handle that writes."""
    made, notes = agreed()
    opened(made, OpenFlag.WRITE | OpenFlag.CREAT | OpenFlag.TRUNC)
    made.client_data(write(1, b"h", 0, b"content"))
    made.asset_data(status(1, 0))
    to_nothing = u32(1) + struct.pack(">Q", 0)
    made.client_data(
        request(FrameType.SETSTAT, 2, encode_string(b"f"), to_nothing)
        + encode_handle_request(FrameType.CLOSE, 3, b"h")
    )
    made.asset_data(status(2, 0) + status(3, 0))
    change, upload = notes
    assert (change.path, change.result) == ("f", FileResult.COMPLETE)
    assert (upload.result, upload.sha256) == (FileResult.PARTIAL, "")
    assert "size was set" in upload.reason


def test_a_client_that_asks_on_and_on_has_to_wait():
    made, _ = agreed()
    burst = b"".join(
        encode_path_request(FrameType.STAT, number, b"x")
        for number in range(OUTSTANDING * 2)
    )
    made.client_data(burst)
    assert made.stalled
    assert len(frames_of(taken(made.to_asset))) == OUTSTANDING
    for number in range(OUTSTANDING * 2):
        made.asset_data(status(number, 2))
    assert not made.stalled
    assert len(frames_of(taken(made.to_client))) == OUTSTANDING * 2


BROKEN = {
    "no INIT": encode_path_request(FrameType.STAT, 1, b"x"),
    "a second INIT": INIT,
    "length 0": u32(0) + b"xxxx",
    "huge": u32(0xFFFFFFFF) + b"\x06" + bytes(100),
    "a long request": u32(200_000) + b"\x11" + bytes(40_000),
    "unknown type": request(77, 1),
    "an answer as a request": status(1, 0),
    "a path that is too long for its frame": request(FrameType.STAT, 1, u32(99), b"x"),
    "more than the fields": request(FrameType.STAT, 1, encode_string(b"x"), b"y"),
    "NUL": encode_path_request(FrameType.STAT, 1, b"a\0b"),
    "attributes of version 4": request(
        FrameType.SETSTAT, 1, encode_string(b"x"), u32(0x100)
    ),
    "a long handle": encode_handle_request(FrameType.CLOSE, 1, bytes(300)),
    "a write that is shorter than its frame": request(
        FrameType.WRITE, 1, encode_string(b"h"), bytes(8), u32(3), b"1234"
    ),
    "an id twice": encode_path_request(FrameType.STAT, 1, b"x") * 2,
}


@pytest.mark.parametrize("name", BROKEN)
def test_nonsense_of_a_client_ends_the_channel(name):
    made, _ = inspector() if name == "no INIT" else agreed()
    with pytest.raises(FrameError):
        made.client_data(BROKEN[name])


NONSENSE = {
    "text": b"Welcome to the plant\r\n",
    "an answer to nothing": status(4, 0),
    "an unknown type": request(150, 1),
    "data for a stat": request(FrameType.DATA, 1, encode_string(b"x")),
    "huge": u32(0x7FFFFFFF) + b"\x65" + bytes(20),
    "a long status": u32(100_000) + b"\x65" + u32(1) + bytes(50_000),
    "more than was asked for": request(FrameType.DATA, 2, encode_string(b"123456")),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_of_an_asset_ends_the_channel(name):
    made, _ = agreed()
    opened(made, OpenFlag.READ)
    made.client_data(encode_path_request(FrameType.STAT, 1, b"x"))
    made.client_data(read(2, b"h", 0, 5))
    with pytest.raises(FrameError):
        made.asset_data(NONSENSE[name])


def test_version_is_three_and_unknown_extensions_are_not_offered():
    made, _ = inspector()
    made.client_data(encode_frame(FrameType.INIT, u32(6)))
    assert taken(made.to_asset) == INIT
    pairs = (
        (b"posix-rename@openssh.com", b"1"),
        (b"copy-data", b"1"),
        (b"vendor-id", b"x"),
        (b"limits@openssh.com", b"1"),
        (b"run-anything@example.org", b"1"),
    )
    body = b"".join(encode_string(name) + encode_string(value) for name, value in pairs)
    made.asset_data(encode_frame(FrameType.VERSION, u32(3) + body))
    version, extensions = parse_version(taken(made.to_client))
    assert version == 3
    assert list(extensions) == [b"posix-rename@openssh.com", b"limits@openssh.com"]


@pytest.mark.parametrize("version", [0, 2, 4, 6])
def test_an_asset_of_another_version_is_refused(version):
    made, _ = inspector()
    made.client_data(INIT)
    with pytest.raises(FrameError):
        made.asset_data(encode_frame(FrameType.VERSION, u32(version)))


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=200)), max_size=30))
@settings(deadline=None, max_examples=300)
def test_any_bytes_end_in_an_error_or_in_little_memory(pieces):
    """Fuzz of both sides: nothing else is raised, and no more is kept than came."""
    made, notes = agreed(rules=FileRules(file_bytes=1000, session_bytes=5000))
    opened(made, OpenFlag.WRITE)
    came = 0
    try:
        for from_client, data in pieces:
            came += len(data)
            (made.client_data if from_client else made.asset_data)(data)
    except FrameError:
        pass
    kept = sum(map(len, (*made._waiting, made._client_rest, made._asset_rest)))
    assert kept <= came
    made.end()
    assert notes


FIELD = st.one_of(
    st.binary(max_size=20).map(encode_string),
    st.integers(0, 2**32 - 1).map(u32),
    st.sampled_from([b"h", b"f", b""]).map(encode_string),
)
FRAME = st.builds(
    lambda kind, number, fields: request(kind, number, *fields),
    st.one_of(st.sampled_from([int(kind) for kind in FrameType]), st.integers(0, 255)),
    st.integers(0, 5),
    st.lists(FIELD, max_size=4),
)


@given(st.lists(st.tuples(st.booleans(), FRAME), max_size=40))
@settings(deadline=None, max_examples=300)
def test_any_frames_end_in_an_error_or_in_order(pieces):
    """Fuzz with frames that are nearly right: what goes out is whole frames."""
    made, _ = agreed(services=frozenset({"sftp-down", "sftp-mkdir"}))
    opened(made, OpenFlag.READ)
    try:
        for from_client, data in pieces:
            (made.client_data if from_client else made.asset_data)(data)
    except FrameError:
        return
    for frame in frames_of(taken(made.to_asset)):
        assert frame[4] not in {FrameType.WRITE, FrameType.REMOVE, FrameType.RENAME}
    frames_of(taken(made.to_client))
    made.end()
