"""What an SFTP channel has open and under way, and what its answers mean for files."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final, Protocol

from apps.gateway.sftp_frames import (
    MAX_FRAME,
    AttributeFlag,
    FrameError,
    FrameType,
    OpenFlag,
    Request,
    Status,
    parse_attributes,
    parse_handle,
    parse_status,
)
from apps.gateway.sftp_lengths import Adding
from apps.gateway.sftp_policy import (
    MAX_PATH,
    Denial,
    SftpPolicy,
    opens_for_writing,
)
from apps.gateway.transfers import Reorder, Transfer
from apps.recordings.manifest import FileAction, FileNote, FileResult, text_of

HANDLES: Final = 256
"""Handles that may be open at the same time in one channel."""

REMEMBERED: Final = 1024
"""Paths remembered as one's own, and sizes of files that were looked at."""

_SIZE_UNKNOWN: Final = "the asset does not say how long the file is"

HELD: Final = "held until an approver of the site releases it"
NOT_HELD: Final = "it cannot be held for release now"
HELD_ORDER: Final = "a file that is held has to be written in order"

_STATUS_TEXT: Final = {
    Status.EOF: "end of file",
    Status.NO_SUCH_FILE: "no such file",
    Status.PERMISSION_DENIED: "the asset denied it",
    Status.OP_UNSUPPORTED: "the asset cannot do that",
}

_ACTIONS: Final[dict[int, FileAction]] = {
    FrameType.REMOVE: FileAction.REMOVE,
    FrameType.RMDIR: FileAction.REMOVE,
    FrameType.RENAME: FileAction.RENAME,
    FrameType.MKDIR: FileAction.MAKE_FOLDER,
    FrameType.SETSTAT: FileAction.CHANGE,
    FrameType.FSETSTAT: FileAction.CHANGE,
    FrameType.SYMLINK: FileAction.LINK,
}
_EXTENSION_ACTIONS: Final[dict[bytes, FileAction]] = {
    b"posix-rename@openssh.com": FileAction.RENAME,
    b"hardlink@openssh.com": FileAction.LINK,
    b"lsetstat@openssh.com": FileAction.CHANGE,
}


class HeldFile(Protocol):
    """What keeps an upload that is held for release."""

    def write(self, piece: bytes) -> None:
        """Take what follows."""

    def finish(self, done: Callable[[str], None]) -> None:
        """Call `done` once all is kept, with an empty text, or with what went wrong."""

    def give_up(self, why: str) -> None:
        """Keep nothing of it."""


class Holding(Protocol):
    """Where uploads go that are held for release."""

    @property
    def full(self) -> bool:
        """Say whether the client has to wait."""

    def open(self, path: bytes, done: Callable[[HeldFile | None], None]) -> None:
        """Begin an upload; `done` gets what keeps it, or None when that failed."""


class OpenFile:
    """A handle of the asset."""

    __slots__ = ("adding", "append", "download", "folder", "held", "path", "upload")

    def __init__(self, path: bytes, *, folder: bool = False) -> None:
        self.path = path
        self.folder = folder
        self.append = False
        self.held: HeldFile | None = None
        """What takes its content instead of the asset."""
        self.adding: Adding | None = None
        """How long it can be; only where that is limited and it is added to."""
        self.download: Transfer | None = None
        self.upload: Transfer | None = None


class Pending:
    """A request without an answer, in its place among the others."""

    __slots__ = (
        "answered",
        "file",
        "held",
        "id",
        "length",
        "likely",
        "offset",
        "own",
        "reply",
        "request",
        "sent",
        "since",
    )

    def __init__(self, number: int, request: Request | None) -> None:
        self.id = number
        self.request = request
        """None for a WRITE."""
        self.file: OpenFile | None = None
        self.own = False
        self.offset = 0
        self.length = 0
        self.since = 0
        """The count of reshuffles when it was sent."""
        self.likely = 0
        self.sent = self.answered = False
        self.held = False
        """Whether the gateway answers it in place of the asset."""
        self.reply: bytes | None = None
        """What the gateway answers by itself, once it is its turn."""

    @property
    def kind(self) -> int:
        """Return the type of the request."""
        return FrameType.WRITE if self.request is None else self.request.type


class Bookkeeping:
    """Handles, transfers, and the entries of the manifest they lead to."""

    def __init__(
        self,
        policy: SftpPolicy,
        *,
        clock: Callable[[], dt.datetime],
        on_file: Callable[[FileNote], None],
    ) -> None:
        self._policy = policy
        self._lengths = policy.usage.lengths
        self._clock = clock
        self._on_file = on_file
        self._handles: dict[bytes, OpenFile] = {}
        self._opening = 0
        self._closing: set[OpenFile] = set()
        self._reorder = Reorder()
        self._held_count = 0
        self.unsized: list[tuple[bytes, OpenFile]] = []
        """Open files whose size nobody has asked for."""
        self._own: dict[bytes, None] = {}
        self._own_since = policy.usage.reshuffles
        self._sizes: dict[bytes, int] = {}

    # Requests.

    def judge(self, pending: Pending, request: Request) -> Denial | None:
        """Find what a request is about and return why it is denied, or None."""
        if request.handle:
            pending.file = self._handles.get(request.handle)
            if pending.file is None:
                return Denial("no such handle", Status.FAILURE)
        file = pending.file
        pending.own = (
            file.upload is not None if file is not None else self._is_own(request.path)
        )
        denial = self._policy.judge(request, own=pending.own)
        if denial is not None:
            return denial
        if request.type in {FrameType.OPEN, FrameType.OPENDIR}:
            if len(self._handles) + self._opening >= HANDLES:
                return Denial("too many open files", Status.FAILURE)
        elif request.type == FrameType.READ:
            pending.offset, pending.length = request.offset, request.length
            if file is None or file.download is None:
                return Denial("not open for reading", Status.FAILURE)
            pending.likely = min(request.length, MAX_FRAME)
            size = file.download.expected_size
            if size is not None:
                pending.likely = max(0, min(pending.likely, size - request.offset))
            denial = self._policy.judge_read(request.offset, pending.likely)
            if denial is not None:
                file.download.deny(denial.message)
        return denial

    def judge_write(
        self, pending: Pending, handle: bytes, offset: int, count: int
    ) -> Denial | None:
        """Find what a WRITE is about and return why it is denied, or None."""
        file = self._handles.get(handle)
        if file is None or file.upload is None:
            return Denial("not open for writing", Status.FAILURE)
        pending.file = file
        pending.offset = file.upload.moved if file.append else offset
        pending.length = count
        if file.held is not None and offset != file.upload.position:
            file.upload.deny(HELD_ORDER)
        if file.upload.denied:
            # No holes: what follows a part that is missing is not written, either.
            return Denial(file.upload.problem)
        end: int | None = pending.offset + count + self._lengths.appending
        if self.must_size(file):
            adding = file.adding
            end = self._lengths.longest(adding, count) if adding else None
        if end is None:
            denial: Denial | None = Denial(_SIZE_UNKNOWN)
        else:
            denial = self._policy.judge_write(end, count)
        if denial is not None:
            file.upload.deny(denial.message)
        return denial

    def sent(self, pending: Pending) -> None:
        """Note that a request goes to the asset."""
        pending.sent = True
        request, file = pending.request, pending.file
        if request is None:
            self._policy.usage.moved += pending.length
            if self._policy.rules.file_bytes and file is not None:
                if file.append:
                    self._lengths.appends(pending.length)
                else:
                    self._lengths.reaches(pending, pending.offset + pending.length)
        elif request.type in {FrameType.OPEN, FrameType.OPENDIR}:
            self._opening += 1
        elif request.type == FrameType.CLOSE and file is not None:
            del self._handles[request.handle]
            self._closing.add(file)
        elif (
            request.type == FrameType.FSETSTAT
            and file is not None
            and file.upload is not None
            and request.attributes.size is not None
        ):
            file.upload.cut_to(request.attributes.size)
        elif request.type == FrameType.SETSTAT and request.attributes.size is not None:
            # By its name a file is reached that is being written, too.
            for other in self._handles.values():
                if other.path == request.path and other.upload is not None:
                    other.upload.cut_to(request.attributes.size)
        if request is not None and request.type != FrameType.READ:
            if request.attributes.size is not None:
                self._lengths.reaches(pending, request.attributes.size)
            self._forget_own(pending, request)

    def _forget_own(self, pending: Pending, request: Request) -> None:
        """Forget what is one's own where names may soon stand for something else: in
        all channels and at once, as only the asset knows which names mean the same."""
        action = self._action(request)
        if action is FileAction.RENAME and pending.own:
            self._own.pop(request.path, None)
        elif action is FileAction.RENAME or (
            action is FileAction.LINK
            and not (pending.own and request.type == FrameType.EXTENDED)
        ):
            self._policy.usage.reshuffles += 1
        pending.since = self._policy.usage.reshuffles

    def _is_own(self, path: bytes) -> bool:
        """Say whether a file or folder of this name was made in this channel."""
        if self._own_since != self._policy.usage.reshuffles:
            self._own_since = self._policy.usage.reshuffles
            self._own.clear()
        return path in self._own

    def denied(self, request: Request, denial: Denial) -> None:
        """Write a denied request into the manifest; reads and writes are in their
        file's own entry."""
        action = self._action(request)
        if request.type == FrameType.OPEN:
            action = (
                FileAction.UPLOAD if opens_for_writing(request) else FileAction.DOWNLOAD
            )
        elif request.type == FrameType.READ or (
            action is None and denial.status is not Status.PERMISSION_DENIED
        ):
            return
        self._note(
            request, action or FileAction.LOOK, FileResult.DENIED, denial.message
        )

    def _action(self, request: Request) -> FileAction | None:
        if request.type == FrameType.EXTENDED:
            return _EXTENSION_ACTIONS.get(request.extension)
        return _ACTIONS.get(request.type)

    def _note(
        self, request: Request, action: FileAction, result: FileResult, reason: str
    ) -> None:
        now = self._clock()
        self._on_file(
            FileNote(
                action=action,
                path=text_of(request.path[:MAX_PATH]),
                second_path=text_of(request.second_path[:MAX_PATH]),
                result=result,
                reason=reason,
                started_at=now,
                ended_at=now,
            )
        )

    # What is held for release; the asset is not asked.

    def begin_held(self) -> None:
        """Note that a file is being opened that the asset does not get."""
        self._policy.usage.held_files += 1
        self._opening += 1

    def held_opened(self, request: Request, held: HeldFile | None) -> bytes | None:
        """Return the handle of a file that is held, or None when that failed."""
        self._opening -= 1
        if held is None:
            self._note(request, FileAction.UPLOAD, FileResult.FAILED, NOT_HELD)
            return None
        self._held_count += 1
        handle = b"sluice-held-%d" % self._held_count
        while handle in self._handles:
            self._held_count += 1
            handle = b"sluice-held-%d" % self._held_count
        file = self._handles[handle] = OpenFile(request.path)
        file.held = held
        file.upload = self._transfer(FileAction.UPLOAD, request)
        return handle

    def held_written(self, pending: Pending) -> None:
        """Note that a WRITE to a held file is let through to the store."""
        self._policy.usage.moved += pending.length

    def close_held(self, handle: bytes) -> OpenFile:
        """Take a handle that is closed out of the open ones."""
        file = self._handles.pop(handle)
        self._closing.add(file)
        return file

    def held_closed(self, file: OpenFile, problem: str) -> None:
        """Write a held file into the manifest."""
        self._closing.discard(file)
        upload = file.upload
        if upload is None:
            return
        note = upload.finish(closed=not problem, now=self._clock())
        if note.result is FileResult.COMPLETE and not problem:
            self._policy.usage.held.add(file.path)
            note = replace(note, result=FileResult.HELD, reason=HELD)
        elif note.result is FileResult.COMPLETE:
            note = replace(note, result=FileResult.FAILED, reason=problem)
        self._on_file(note)

    # Answers.

    def content(self, pending: Pending, piece: bytes | memoryview) -> None:
        """Take content that passes, of a WRITE or of the answer to a READ."""
        file = pending.file
        if file is None:
            return
        transfer = file.upload if pending.request is None else file.download
        if transfer is not None:
            transfer.take(pending.offset, piece)
        if file.held is not None:
            file.held.write(bytes(piece))
        pending.offset += len(piece)
        if pending.request is not None:
            self._policy.moved(len(piece), pending.offset)

    def answered(self, pending: Pending, kind: int, frame: bytes) -> None:
        """Understand a whole answer; DATA only once all of it has passed.

        Raises: FrameError.
        """
        request, file = pending.request, pending.file
        status = parse_status(frame) if kind == FrameType.STATUS else Status.OK
        self._lengths.reached(pending)
        if request is None:
            if file is not None and self.must_size(file):
                self._lengths.appended(pending.length)
            if status != Status.OK and file is not None and file.upload is not None:
                file.upload.fail(_reason(status))
        elif request.type == FrameType.READ:
            self._policy.read_answered(pending.likely)
            self._read_answered(pending, status)
        elif request.type in {FrameType.OPEN, FrameType.OPENDIR}:
            self._opening -= 1
            self._opened(pending, request, kind, frame, status)
        elif request.type == FrameType.CLOSE:
            if file is not None:
                self._closing.discard(file)
                self._finish(file, closed=status == Status.OK)
        elif kind == FrameType.ATTRS:
            self._looked(request, file, parse_attributes(frame).size)
        else:
            self._changed(pending, request, status)

    def _read_answered(self, pending: Pending, status: int) -> None:
        download = pending.file.download if pending.file is not None else None
        if download is None or status == Status.OK:
            return
        if status != Status.EOF:
            download.fail(_reason(status))
        elif pending.offset == download.position:
            download.expected_size = download.position

    def _opened(
        self, pending: Pending, request: Request, kind: int, frame: bytes, status: int
    ) -> None:
        folder = request.type == FrameType.OPENDIR
        if kind != FrameType.HANDLE:
            if not folder:
                action = (
                    FileAction.UPLOAD
                    if opens_for_writing(request)
                    else FileAction.DOWNLOAD
                )
                self._note(request, action, FileResult.FAILED, _reason(status))
            return
        handle = parse_handle(frame)
        if handle in self._handles:
            raise FrameError("the asset gave out a handle that is in use")
        file = OpenFile(request.path, folder=folder)
        self._handles[handle] = file
        if folder:
            return
        if request.flags & OpenFlag.READ or not request.flags:
            file.download = self._transfer(FileAction.DOWNLOAD, request)
            file.download.expected_size = self._sizes.get(request.path)
        if opens_for_writing(request):
            file.append = bool(request.flags & OpenFlag.APPEND)
            file.upload = self._transfer(FileAction.UPLOAD, request)
            self._remember_own(pending, request.path)
            self._sizes.pop(request.path, None)
        download = file.download
        if self.must_size(file) or (download and download.expected_size is None):
            self.unsized.append((handle, file))

    def _transfer(self, action: FileAction, request: Request) -> Transfer:
        empty = OpenFlag.TRUNC | OpenFlag.EXCL
        return Transfer(
            action,
            text_of(request.path),
            started_at=self._clock(),
            reorder=self._reorder,
            whole=bool(request.flags & empty),
        )

    def _finish(self, file: OpenFile, *, closed: bool) -> None:
        if file.adding is not None:
            self._lengths.end(file.adding)
        for transfer in (file.download, file.upload):
            if transfer is None:
                continue
            if transfer is file.download and file.upload and not transfer.moved:
                # Opened for both, and only written.
                continue
            self._on_file(transfer.finish(closed=closed, now=self._clock()))

    def _looked(
        self, request: Request, file: OpenFile | None, size: int | None
    ) -> None:
        if size is None:
            return
        if file is not None:
            if file.download is not None:
                file.download.expected_size = size
            return
        self.note_size(request.path, size)

    def must_size(self, file: OpenFile) -> bool:
        """Say whether the client has to wait until the size of a file is known."""
        return file.append and self._policy.rules.file_bytes > 0

    def asked_size(self, file: OpenFile) -> bool:
        """Note that the size of a file is asked for; say whether the client waits."""
        if not self.must_size(file):
            return False
        file.adding = self._lengths.begin()
        return True

    def sized(self, file: OpenFile, answer: bytes | memoryview) -> None:
        """Take the answer to the gateway's own question for a size."""
        if answer[4] != FrameType.ATTRS:
            return
        size = parse_attributes(bytes(answer)).size
        if file.adding is not None:
            file.adding.size = size
        if file.download is not None and file.download.expected_size is None:
            file.download.expected_size = size

    def note_size(self, path: bytes, size: int) -> None:
        """Remember how large a file was when it was looked at."""
        self._sizes.pop(path, None)
        self._sizes[path] = size
        if len(self._sizes) > REMEMBERED:
            del self._sizes[next(iter(self._sizes))]

    def _changed(self, pending: Pending, request: Request, status: int) -> None:
        action, done = self._action(request), status == Status.OK
        if action is None:
            return
        if done and (
            action is FileAction.MAKE_FOLDER
            or (action is FileAction.RENAME and pending.own)
        ):
            self._remember_own(pending, request.second_path or request.path)
        if pending.own and action is FileAction.CHANGE:
            resized = bool(request.attributes.flags & AttributeFlag.SIZE)
            if pending.file is not None or not resized:
                upload = pending.file.upload if pending.file is not None else None
                if not done and resized and upload is not None:
                    upload.fail(_reason(status))
                return
        self._note(
            request,
            action,
            FileResult.COMPLETE if done else FileResult.FAILED,
            "" if done else _reason(status),
        )

    def _remember_own(self, pending: Pending, path: bytes) -> None:
        """Remember what came of a request, unless names have changed since."""
        if pending.since != self._policy.usage.reshuffles:
            return
        self._is_own(path)
        self._own[path] = None
        if len(self._own) > REMEMBERED:
            del self._own[next(iter(self._own))]

    def end(self, order: Iterable[Pending]) -> None:
        """Write what is still open into the manifest; the channel has ended.

        `order` is what was not answered.
        """
        for pending in order:
            self._lengths.lose(pending)
            request = pending.request
            if request is None or request.type != FrameType.READ:
                continue
            if pending.reply is None and not pending.answered:
                self._policy.read_answered(pending.likely)
        files = [*self._handles.values(), *self._closing]
        self._handles.clear()
        self._closing.clear()
        for file in files:
            if file.held is not None:
                file.held.give_up("the channel ended before it was closed")
            self._finish(file, closed=False)


def _reason(status: int) -> str:
    try:
        return _STATUS_TEXT.get(Status(status), "the asset reported a failure")
    except ValueError:
        return "the asset reported a failure"
