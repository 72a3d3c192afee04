"""The inspector of an SFTP channel: bytes of both sides in, bytes for both sides out.

No input or output of its own, and no clock. Frames that are allowed leave as the bytes
they came as, whole runs of them in one piece, and contents of files are not waited for:
they stream through and are hashed on the way. A request that is denied never reaches
the asset; its answer takes its turn among the asset's own answers, as if the asset had
given it. What cannot be followed raises `FrameError`, and the channel must end.
"""

from __future__ import annotations

import datetime as dt
from collections import deque
from collections.abc import Callable
from typing import Final, cast

from apps.gateway import sftp_rights
from apps.gateway.sftp_bookkeeping import (
    NOT_HELD,
    Bookkeeping,
    HeldFile,
    Holding,
    OpenFile,
    Pending,
)
from apps.gateway.sftp_frames import (
    HEAD,
    LENGTH,
    MAX_FRAME,
    MAX_WHOLE_FRAME,
    VERSION,
    FrameError,
    FrameType,
    Request,
    Status,
    encode_handle,
    encode_handle_request,
    encode_init,
    encode_path_request,
    encode_size,
    encode_status,
    encode_version,
    parse_init,
    parse_request,
    parse_version,
    parse_write_head,
)
from apps.gateway.sftp_paths import Answer, Asking, Confinement, Question, Verdict
from apps.gateway.sftp_policy import (
    HELD_WHOLE,
    Denial,
    SftpPolicy,
    opens_for_writing,
)
from apps.recordings.manifest import FileNote

Buffer = bytes | memoryview

OUTSTANDING: Final = 1024
"""Requests without an answer; the client waits while there are more."""

_DATA_HEAD: Final = HEAD.size + 4

_ANSWERS: Final[dict[int, frozenset[int]]] = {
    FrameType.OPEN: frozenset({FrameType.HANDLE}),
    FrameType.OPENDIR: frozenset({FrameType.HANDLE}),
    FrameType.READ: frozenset({FrameType.DATA}),
    FrameType.READDIR: frozenset({FrameType.NAME}),
    FrameType.REALPATH: frozenset({FrameType.NAME}),
    FrameType.READLINK: frozenset({FrameType.NAME}),
    FrameType.STAT: frozenset({FrameType.ATTRS}),
    FrameType.LSTAT: frozenset({FrameType.ATTRS}),
    FrameType.FSTAT: frozenset({FrameType.ATTRS}),
    FrameType.EXTENDED: frozenset({FrameType.EXTENDED_REPLY, FrameType.NAME}),
}
"""What may answer a request, beside STATUS."""


class Inquiry:
    """Questions to the asset about a request, which waits for the answers."""

    __slots__ = ("answers", "asking", "frame", "numbers", "pending")

    def __init__(
        self, asking: Asking, pending: Pending | None = None, frame: bytes = b""
    ) -> None:
        self.asking = asking
        self.pending = pending
        self.frame = frame
        self.numbers: list[int] = []
        self.answers: dict[int, Answer] = {}


class SftpInspector:
    """One SFTP channel. Feed it with both sides, then take what it has for them."""

    def __init__(
        self,
        policy: SftpPolicy,
        *,
        clock: Callable[[], dt.datetime],
        on_file: Callable[[FileNote], None],
        holding: Holding | None = None,
    ) -> None:
        self.to_asset: list[Buffer] = []
        self.to_client: list[Buffer] = []
        self.frozen = False
        """While true no further request of the client is let through."""
        self._rules, self._holding = policy.rules, holding
        self._ended = False
        self._books = Bookkeeping(policy, clock=clock, on_file=on_file)
        self._paths = Confinement(policy, on_size=self._books.note_size)
        self._inquiry: Inquiry | None = None
        # The gateway's own FSTATs under way, and whether a client's id equals one.
        self._sizing: dict[int, OpenFile] = {}
        self._sizes_due = 0
        self._id_is_ours = False
        self._order: deque[Pending] = deque()
        self._by_id: dict[int, Pending] = {}
        self._waiting: deque[Buffer] = deque()
        self._greeted = self._agreed = False
        # A WRITE, or an answer, whose content is still passing.
        self._write: Pending | None = None
        self._write_left = 0
        self._answer: Pending | None = None
        self._answer_left = 0
        self._client_rest = b""
        self._asset_rest = b""

    @property
    def stalled(self) -> bool:
        """Say whether the client must wait, for whatever reason."""
        return bool(self._waiting) or self._must_wait()

    def _must_wait(self) -> bool:
        return (
            self.frozen
            or self._inquiry is not None
            or self._id_is_ours
            or self._sizes_due > 0
            or (self._holding is not None and self._holding.full)
            or len(self._order) >= OUTSTANDING
            or (self._greeted and not self._agreed)
        )

    def end(self) -> None:
        """Write what is unfinished into the manifest; the channel has ended."""
        self._ended = True
        self._books.end(self._order)
        self._order.clear()
        self._by_id.clear()

    # From the client.

    def client_data(self, data: bytes) -> None:
        """Take what the client sent. Raises: FrameError."""
        self._waiting.append(data)
        self.proceed()

    def proceed(self) -> None:
        """Take up what had to wait, as far as that is over. Raises: FrameError."""
        while self._waiting and not self._must_wait():
            self._take_client(self._waiting.popleft())

    def _take_client(self, data: Buffer) -> None:
        if self._client_rest:
            data = b"".join((self._client_rest, data))
            self._client_rest = b""
        begin, size = 0, len(data)
        position = 0
        if self._write is not None:
            passes = _passes(self._write)
            position = self._pass_write(self._write, data, 0)
            begin = 0 if passes else position
        while size - position > 4:
            if self._books.unsized:
                _emit(self.to_asset, data, begin, position)
                begin = position
                self._ask_sizes()
            if self._must_wait() or self._collides(data, position):
                _emit(self.to_asset, data, begin, position)
                self._waiting.appendleft(memoryview(data)[position:])
                return
            end, instead = self._next_request(data, position, size)
            if not end:
                break
            if instead is not None:
                _emit(self.to_asset, data, begin, position)
                begin = end
                if instead:
                    self.to_asset.append(instead)
            position = end
        _emit(self.to_asset, data, begin, position)
        self._client_rest = bytes(data[position:])

    def _ask_sizes(self) -> None:
        """Ask how large files are that were opened. The client only waits where a file
        is added to that may not become larger than its limit."""
        number = 1 << 32
        for handle, file in self._books.unsized:
            number -= 1
            while number in self._by_id or number in self._sizing:
                number -= 1
            self._sizing[number] = file
            self._sizes_due += self._books.asked_size(file)
            self.to_asset.append(encode_handle_request(FrameType.FSTAT, number, handle))
        self._books.unsized.clear()

    def _collides(self, data: Buffer, position: int) -> bool:
        """Say whether the next request has an id that the gateway uses just now."""
        if not self._sizing or len(data) - position < HEAD.size:
            return False
        self._id_is_ours = HEAD.unpack_from(data, position)[2] in self._sizing
        return self._id_is_ours

    def _next_request(
        self, data: Buffer, position: int, size: int
    ) -> tuple[int, bytes | None]:
        """Judge the frame at `position`; return its end, and what goes instead of it.

        End 0: it is not all there. Instead None: it passes as it is.
        """
        (length,) = LENGTH.unpack_from(data, position)
        kind = data[position + 4]
        if not 5 <= length <= MAX_FRAME:
            raise FrameError(f"a frame of {length} bytes")
        if kind == FrameType.WRITE:
            head = parse_write_head(data, position)
            if head is None:
                return 0, None
            number, handle, offset, count, content = head
            pending = self._begin_write(number, handle, offset, count)
            self._write_left = count
            end = self._pass_write(pending, data, content)
            return end, None if _passes(pending) else b""
        end = position + 4 + length
        if length > MAX_WHOLE_FRAME:
            raise FrameError(f"a request of {length} bytes")
        if end > size:
            return 0, None
        return end, self._judge(kind, bytes(data[position:end]))

    def _begin_write(
        self, number: int, handle: bytes, offset: int, count: int
    ) -> Pending:
        self._require_agreement()
        pending = self._new(number, None)
        denial = self._books.judge_write(pending, handle, offset, count)
        if denial is not None:
            self._deny(pending, denial)
        elif pending.file is not None and pending.file.held is not None:
            pending.held = True
            self._books.held_written(pending)
        else:
            self._books.sent(pending)
        return pending

    def _pass_write(self, pending: Pending, data: Buffer, position: int) -> int:
        """Take content of a write from `data`; return where it ends."""
        end = min(position + self._write_left, len(data))
        if pending.reply is None and end > position:
            self._books.content(pending, memoryview(data)[position:end])
        self._write_left -= end - position
        self._write = pending if self._write_left else None
        if pending.held and pending.reply is None and not self._write_left:
            self._reply(pending, encode_status(pending.id, Status.OK, ""))
        return end

    # What is held for release: the gateway answers in place of the asset.

    def _reply(self, pending: Pending, reply: bytes) -> None:
        pending.reply = reply
        self.to_client += self._due_replies()

    def _holds(self, pending: Pending, request: Request) -> bool:
        """Say whether a request is about a file that the asset does not get."""
        if pending.file is not None:
            return pending.file.held is not None
        return (
            self._rules.uploads_held
            and request.type == FrameType.OPEN
            and opens_for_writing(request)
        )

    def _hold(self, pending: Pending, request: Request) -> None:
        """Do what was asked of a held file; its answer takes its turn."""
        pending.held = True
        file = pending.file
        if request.type == FrameType.OPEN:
            self._open_held(pending, request)
        elif request.type == FrameType.CLOSE:
            self._close_held(pending, request)
        elif request.type == FrameType.FSTAT and file is not None and file.upload:
            self._reply(pending, encode_size(pending.id, file.upload.position))
        else:
            size = request.attributes.size
            if request.type == FrameType.FSETSTAT and file is not None and file.upload:
                if size is not None:
                    file.upload.cut_to(size)
            elif request.extension != b"fsync@openssh.com":
                self._deny(pending, Denial(HELD_WHOLE, Status.OP_UNSUPPORTED))
                return
            self._reply(pending, encode_status(pending.id, Status.OK, ""))

    def _open_held(self, pending: Pending, request: Request) -> None:
        if self._holding is None:
            self._deny(pending, Denial(NOT_HELD, Status.FAILURE))
            return
        self._books.begin_held()

        def opened(held: HeldFile | None) -> None:
            if self._ended:
                if held is not None:
                    held.give_up("the channel ended before it was open")
                return
            handle = self._books.held_opened(request, held)
            if handle is None:
                self._deny(pending, Denial(NOT_HELD, Status.FAILURE))
            else:
                self._reply(pending, encode_handle(pending.id, handle))

        self._holding.open(request.path, opened)

    def _close_held(self, pending: Pending, request: Request) -> None:
        file = self._books.close_held(request.handle)
        held, upload = file.held, file.upload
        if held is None or upload is None:
            raise FrameError("a handle that is not held")

        def closed(problem: str) -> None:
            if self._ended:
                return
            self._books.held_closed(file, problem)
            if problem:
                self._deny(pending, Denial(problem, Status.FAILURE))
            else:
                self._reply(pending, encode_status(pending.id, Status.OK, ""))

        if upload.denied or upload.failed or not upload.is_whole:
            problem = upload.problem or HELD_WHOLE
            held.give_up(problem)
            closed(problem)
        else:
            held.finish(closed)

    def _judge(self, kind: int, frame: bytes) -> bytes | None:
        """Judge a whole request; return what goes to the asset instead, or None."""
        if kind == FrameType.INIT:
            return self._greet(frame)
        self._require_agreement()
        request = parse_request(frame)
        pending = self._new(request.id, request)
        denial = self._books.judge(pending, request)
        if denial is not None:
            self._books.denied(request, denial)
            self._deny(pending, denial)
            return b""
        asking = self._paths.questions(request)
        if asking is not None:
            # Behind what goes before it; the answer may not come before this returns.
            return self._inquire(Inquiry(asking, pending, frame))
        if self._holds(pending, request):
            self._hold(pending, request)
            return b""
        self._books.sent(pending)
        return None

    def _inquire(self, inquiry: Inquiry) -> bytes:
        """Return the first questions of an inquiry; the client waits from here on."""
        self._inquiry = inquiry
        return self._ask(next(inquiry.asking))

    def _ask(self, questions: list[Question]) -> bytes:
        inquiry = cast(Inquiry, self._inquiry)
        inquiry.numbers, inquiry.answers = [], {}
        number, frames = 1 << 32, []
        for question in questions:
            number -= 1
            while number in self._by_id or number in self._sizing:
                number -= 1
            inquiry.numbers.append(number)
            frames.append(encode_path_request(question.kind, number, question.path))
        return b"".join(frames)

    def _inquiry_answered(self, inquiry: Inquiry, number: int, answer: Answer) -> None:
        """Take an answer to the gateway itself; the last one lets the client go on."""
        if number in inquiry.answers:
            raise FrameError("two answers to one question")
        inquiry.answers[number] = answer
        if len(inquiry.answers) < len(inquiry.numbers):
            return
        try:
            questions = inquiry.asking.send(
                [inquiry.answers[number] for number in inquiry.numbers]
            )
        except StopIteration as end:
            self._inquiry = None
            self._decide(inquiry, end.value)
        else:
            self.to_asset.append(self._ask(questions))

    def _decide(self, inquiry: Inquiry, verdict: Verdict) -> None:
        pending = inquiry.pending
        if pending is None or pending.request is None:
            return
        if isinstance(verdict, Denial):
            self._books.denied(pending.request, verdict)
            self._deny(pending, verdict, at_once=False)
        elif verdict is not None:
            pending.reply = verdict
        elif self._holds(pending, pending.request):
            self._hold(pending, pending.request)
        else:
            self._books.sent(pending)
            self.to_asset.append(inquiry.frame)

    def _greet(self, frame: bytes) -> bytes:
        if self._greeted:
            raise FrameError("a second INIT")
        if parse_init(frame) < VERSION:
            raise FrameError("the client speaks an older version of SFTP than 3")
        self._greeted = True
        return encode_init()

    def _require_agreement(self) -> None:
        if not self._agreed:
            raise FrameError("a request before INIT")

    def _new(self, number: int, request: Request | None) -> Pending:
        before = self._by_id.get(number)
        if before is not None and not before.answered:
            raise FrameError("a request id that is in use")
        pending = self._by_id[number] = Pending(number, request)
        self._order.append(pending)
        return pending

    def _deny(self, pending: Pending, denial: Denial, *, at_once: bool = True) -> None:
        pending.reply = encode_status(
            pending.id, denial.status, f"Sluice: {denial.message}"
        )
        if pending.request is not None:
            pending.request = Request(pending.kind, pending.id)
        if at_once:
            self.to_client += self._due_replies()

    # From the asset.

    def asset_data(self, data: bytes) -> None:
        """Take what the asset sent. Raises: FrameError."""
        self._take_asset(data)
        if self._books.unsized and self._write is None:
            self._ask_sizes()
        self.proceed()

    def _take_asset(self, data: Buffer) -> None:
        if self._asset_rest:
            data = b"".join((self._asset_rest, data))
            self._asset_rest = b""
        begin, size = 0, len(data)
        position = 0
        if self._answer is not None:
            position = self._pass_answer(self._answer, data, 0)
            begin = self._reply_between(data, begin, position)
        while size - position > 4:
            end, instead = self._next_answer(data, position, size)
            if not end:
                break
            if instead is not None:
                _emit(self.to_client, data, begin, position)
                begin = end
                if instead:
                    self.to_client.append(instead)
            position = end
            begin = self._reply_between(data, begin, position)
        _emit(self.to_client, data, begin, position)
        self._asset_rest = bytes(data[position:])

    def _reply_between(self, data: Buffer, begin: int, position: int) -> int:
        """Put in what the gateway answers at this point; return where to go on."""
        replies = self._due_replies()
        if not replies:
            return begin
        _emit(self.to_client, data, begin, position)
        self.to_client += replies
        return position

    def _next_answer(
        self, data: Buffer, position: int, size: int
    ) -> tuple[int, bytes | None]:
        """As `_next_request`, for the asset's side."""
        (length,) = LENGTH.unpack_from(data, position)
        kind = data[position + 4]
        if not 5 <= length <= MAX_FRAME:
            raise FrameError(f"an answer of {length} bytes")
        end = position + 4 + length
        if not self._agreed:
            if length > MAX_WHOLE_FRAME:
                raise FrameError("no VERSION")
            return (0, None) if end > size else (end, self._agree(data[position:end]))
        if size - position < HEAD.size:
            return 0, None
        _, _, number = HEAD.unpack_from(data, position)
        if self._inquiry is not None and number in self._inquiry.numbers:
            if length > MAX_WHOLE_FRAME:
                raise FrameError(f"an answer of {length} bytes")
            if end > size:
                return 0, None
            answer = Answer(kind, bytes(data[position:end]))
            self._inquiry_answered(self._inquiry, number, answer)
            return end, b""
        if number in self._sizing:
            if length > MAX_WHOLE_FRAME:
                raise FrameError(f"an answer of {length} bytes")
            if end > size:
                return 0, None
            file = self._sizing.pop(number)
            self._sizes_due -= self._books.must_size(file)
            self._books.sized(file, data[position:end])
            self._id_is_ours = False
            return end, b""
        pending = self._by_id.get(number)
        if pending is None or not pending.sent or pending.answered:
            raise FrameError("an answer that nobody asked for")
        if kind != FrameType.STATUS and kind not in _ANSWERS.get(pending.kind, ()):
            raise FrameError(f"an answer of type {kind} to a {pending.kind}")
        if kind == FrameType.DATA:
            return self._begin_data(pending, data, position, length), None
        if kind == FrameType.NAME and pending.kind == FrameType.READDIR:
            self._answer_left = end - position
            return self._pass_answer(pending, data, position), None
        if length > MAX_WHOLE_FRAME:
            raise FrameError(f"an answer of {length} bytes")
        if end > size:
            return 0, None
        self._books.answered(pending, kind, bytes(data[position:end]))
        pending.answered = True
        return end, None

    def _agree(self, frame: Buffer) -> bytes:
        if not self._greeted or frame[4] != FrameType.VERSION:
            raise FrameError("the asset sent something that is no SFTP")
        version, extensions = parse_version(bytes(frame))
        if version != VERSION:
            raise FrameError(f"the asset speaks version {version} of SFTP, not 3")
        self._agreed = True
        self._paths.openssh_order = any(
            name.endswith(b"@openssh.com") for name in extensions
        )
        shown = sftp_rights.offered(extensions)
        if self._paths.confines:
            shown.pop(b"expand-path@openssh.com", None)
            self.to_asset.append(self._inquire(Inquiry(self._paths.begin())))
        return encode_version(shown)

    def _begin_data(
        self, pending: Pending, data: Buffer, position: int, length: int
    ) -> int:
        """Begin to pass the answer to a READ; return where it ends in `data`."""
        content = position + _DATA_HEAD
        if len(data) < content:
            return 0
        (count,) = LENGTH.unpack_from(data, content - 4)
        if count != length - 9 or count > pending.length:
            raise FrameError("content that is longer than asked for or than its frame")
        self._answer_left = count
        return self._pass_answer(pending, data, content)

    def _pass_answer(self, pending: Pending, data: Buffer, position: int) -> int:
        """Let a long answer pass as far as it is there; return where it ends."""
        end = min(position + self._answer_left, len(data))
        if pending.kind == FrameType.READ and end > position:
            self._books.content(pending, memoryview(data)[position:end])
        self._answer_left -= end - position
        if self._answer_left:
            self._answer = pending
        else:
            self._answer = None
            if pending.kind == FrameType.READ:
                self._books.answered(pending, FrameType.DATA, b"")
            pending.answered = True
        return end

    def _due_replies(self) -> list[bytes]:
        """Forget what was answered, in order; return the replies whose turn it is."""
        order, replies = self._order, []
        while order:
            first = order[0]
            if first.reply is not None:
                replies.append(first.reply)
            elif not first.answered:
                break
            order.popleft()
            if self._by_id.get(first.id) is first:
                del self._by_id[first.id]
        return replies


def _passes(pending: Pending) -> bool:
    """Say whether content of a WRITE goes to the asset."""
    return pending.reply is None and not pending.held


def _emit(out: list[Buffer], data: Buffer, begin: int, end: int) -> None:
    """Add a part of `data`, without copying; all of it as it is."""
    if end - begin == len(data):
        out.append(data)
    elif end > begin:
        out.append(memoryview(data)[begin:end])
