"""The old scp protocol inside the streams of a command: noticed, and followed. Pure.

`scp -O` runs a command on the asset and talks to it: lines `Cmode size name`, `Dmode 0
name`, `E`, `T...`, contents behind C lines, and one byte (or a line behind 1 or 2) as
the answer to each. The command's text is never judged (R10): it is scp when somebody
speaks so. Then the rights and rules for files hold here as well, and each file is in
the manifest. Nothing is held back or changed; a refusal ends the channel before the
piece that it is about goes on.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from enum import Enum, auto
from typing import Final

from apps.gateway import sftp_rights
from apps.gateway.sftp_frames import FrameError, FrameType
from apps.gateway.sftp_policy import TOO_MUCH, Denial, SftpPolicy
from apps.gateway.transfers import Reorder, Transfer
from apps.inventory.services import Service
from apps.recordings.manifest import FileAction, FileNote, FileResult, text_of

LINE_LIMIT: Final = 4400
"""Longest control line: a name of 4096 bytes and its numbers."""

DEPTH: Final = 100

_LINE: Final = re.compile(
    rb"(?:(?P<kind>[CD])(?P<mode>[0-7]{4,6}) (?P<size>[0-9]{1,19}) (?P<name>[^\n]+)"
    rb"|T[0-9]+ [0-9]+ [0-9]+ [0-9]+)\n"
)
_BEGINNINGS: Final = frozenset(b"CDT")
_SFTP_INIT: Final = bytes((0, 0, 0, 5, FrameType.INIT, 0, 0, 0))


class TransferRefusedError(Exception):
    """The channel must end; the text is one line for the engineer."""


class _Stage(Enum):
    LINE = auto()
    ACCEPTED = auto()
    """A C line went out; the other side says whether it wants the file."""
    CONTENT = auto()
    STATUS = auto()
    """The sender's own byte behind the content."""
    TAKEN = auto()
    """The other side says whether it has the file."""


class ScpObserver:
    """One command. Give it each piece of both streams before it goes on."""

    def __init__(
        self,
        policy: SftpPolicy,
        *,
        clock: Callable[[], dt.datetime],
        on_file: Callable[[FileNote], None],
    ) -> None:
        self.done = False
        """True when this is no scp, and nothing has to be looked at any more."""
        self._policy = policy
        self._clock = clock
        self._on_file = on_file
        # Until it is known who sends files: how both sides began.
        self._client_began = b""
        self._asset_began = b""
        self._asset_is_no_source = False
        self._conversation: _Conversation | None = None

    def client_data(self, data: bytes) -> None:
        """Look at input before it goes on. Raises: TransferRefusedError."""
        if self._conversation is not None:
            self._conversation.take(data, from_client=True)
            return
        before = self._client_began
        began = self._client_began = (before + data)[:LINE_LIMIT]
        if began[:8] == _SFTP_INIT:
            raise TransferRefusedError("SFTP is spoken in the sftp subsystem only")
        if _SFTP_INIT.startswith(began[:8]):
            return
        if began[0] in _BEGINNINGS:
            self._begin_if_scp(before + data, FileAction.UPLOAD)
        elif began[0] or self._asset_is_no_source:
            self.done = True

    def asset_data(self, data: bytes) -> None:
        """Look at output before it goes on. Raises: TransferRefusedError."""
        if self._conversation is not None:
            self._conversation.take(data, from_client=False)
            return
        if self._asset_is_no_source:
            return
        before = self._asset_began
        began = self._asset_began = (before + data)[:LINE_LIMIT]
        if self._client_began[:1] == b"\0" and began[0] in _BEGINNINGS:
            self._begin_if_scp(before + data, FileAction.DOWNLOAD)
        else:
            self._asset_is_no_source = True
            self._asset_began = b""

    def _begin_if_scp(self, began: bytes, action: FileAction) -> None:
        """Begin to follow when the first line is there, and is one of scp."""
        end = began.find(b"\n", 0, LINE_LIMIT) + 1
        if not end and len(began) < LINE_LIMIT:
            return
        if not _LINE.fullmatch(began[:end]):
            if action is FileAction.UPLOAD:
                self.done = True
            else:
                self._asset_is_no_source = True
            return
        self._conversation = _Conversation(
            action, self._policy, clock=self._clock, on_file=self._on_file
        )
        self._conversation.take(began, from_client=action is FileAction.UPLOAD)

    def end(self) -> None:
        """Write what is unfinished into the manifest."""
        if self._conversation is not None:
            self._conversation.end()


class _Conversation:
    """Files that go one way, as the sender's stream and the answers tell."""

    def __init__(
        self,
        action: FileAction,
        policy: SftpPolicy,
        *,
        clock: Callable[[], dt.datetime],
        on_file: Callable[[FileNote], None],
    ) -> None:
        self._action = action
        self._policy = policy
        self._clock = clock
        self._on_file = on_file
        self._right = (
            Service.SFTP_UP if action is FileAction.UPLOAD else Service.SFTP_DOWN
        )
        self._stage = _Stage.LINE
        self._line = b""
        self._complaint: bytearray | None = None
        self._folders: list[str] = []
        self._transfer: Transfer | None = None
        self._left = self._offset = 0
        self._reorder = Reorder()

    def take(self, data: bytes, *, from_client: bool) -> None:
        """Follow a piece. Raises: TransferRefusedError."""
        if from_client is (self._action is FileAction.UPLOAD):
            self._take_sent(data)
        else:
            self._take_answers(data)

    def _take_sent(self, data: bytes) -> None:
        position = 0
        while position < len(data):
            if self._stage is _Stage.ACCEPTED:
                # A sender that does not wait for the answer sends the content at once.
                self._begin_content()
            elif self._stage is _Stage.TAKEN:
                self._finish(closed=True)
            elif self._stage is _Stage.CONTENT:
                position = self._take_content(data, position)
            elif self._stage is _Stage.STATUS:
                if data[position]:
                    self._fail("the sender reported an error")
                    self._stage = _Stage.LINE
                else:
                    position += 1
                    self._stage = _Stage.TAKEN
            else:
                position = self._take_line(data, position)

    def _take_line(self, data: bytes, position: int) -> int:
        end = data.find(b"\n", position) + 1 or len(data)
        self._line += data[position:end]
        if len(self._line) > LINE_LIMIT:
            raise TransferRefusedError("the scp protocol cannot be followed")
        if self._line.endswith(b"\n"):
            line, self._line = self._line, b""
            self._control(line)
        return end

    def _control(self, line: bytes) -> None:
        if line[0] in (1, 2):
            # A warning or the last words of the sender.
            return
        if line == b"E\n":
            if self._folders:
                self._folders.pop()
            return
        found = _LINE.fullmatch(line)
        if found is None:
            raise TransferRefusedError("the scp protocol cannot be followed")
        if found["kind"] is None:
            return
        name = "/".join([*self._folders, text_of(found["name"])])
        if found["kind"] == b"D":
            self._judge(name, 0, folder=True)
            self._folders.append(text_of(found["name"]))
        else:
            size = int(found["size"])
            self._judge(name, size, folder=False)
            self._transfer = Transfer(
                self._action,
                name,
                started_at=self._clock(),
                reorder=self._reorder,
                whole=True,
            )
            self._transfer.expected_size = size
            self._left, self._offset = size, 0
            self._stage = _Stage.ACCEPTED

    def _judge(self, name: str, size: int, *, folder: bool) -> None:
        """Refuse a file or folder before its line goes on."""
        denial = self._denial(name, size, folder=folder)
        if denial is None:
            return
        now = self._clock()
        self._on_file(
            FileNote(
                action=self._action,
                path=name,
                result=FileResult.DENIED,
                reason=denial.message,
                started_at=now,
                ended_at=now,
            )
        )
        raise TransferRefusedError(denial.message)

    def _denial(self, name: str, size: int, *, folder: bool) -> Denial | None:
        needed = {self._right}
        if folder and self._action is FileAction.UPLOAD:
            needed.add(Service.SFTP_MKDIR)
        missing = needed - self._policy.services
        if missing:
            return Denial(sftp_rights.sentence(frozenset(missing)))
        rules = self._policy.rules
        if rules.uploads_held and self._action is FileAction.UPLOAD:
            return Denial(
                "uploads are held for release here: use sftp, or scp without its -O"
            )
        if rules.roots:
            return Denial("this asset takes files by SFTP only: leave out scp's -O")
        if len(self._folders) >= DEPTH:
            return Denial("too many folders inside each other")
        if folder:
            return None
        if problem := rules.extension_problem(name):
            return Denial(problem)
        total = rules.session_bytes
        if total and self._policy.usage.moved + size > total:
            return Denial(TOO_MUCH)
        return self._policy.file_size_problem(size)

    def _begin_content(self) -> None:
        self._stage = _Stage.CONTENT if self._left else _Stage.STATUS

    def _take_content(self, data: bytes, position: int) -> int:
        end = min(position + self._left, len(data))
        piece = memoryview(data)[position:end]
        if self._transfer is not None:
            self._transfer.take(self._offset, piece)
        self._offset += len(piece)
        self._left -= len(piece)
        try:
            self._policy.moved(len(piece), self._offset)
        except FrameError as error:
            raise TransferRefusedError(str(error)) from None
        if not self._left:
            self._stage = _Stage.STATUS
        return end

    def _take_answers(self, data: bytes) -> None:
        for byte in data:
            if self._complaint is not None:
                if byte == 10 or len(self._complaint) >= LINE_LIMIT:
                    self._complaint = None
                else:
                    self._complaint.append(byte)
            elif byte == 0:
                self._answered(well=True)
            else:
                if byte in (1, 2):
                    self._complaint = bytearray()
                self._answered(well=False)

    def _answered(self, *, well: bool) -> None:
        if self._stage is _Stage.ACCEPTED:
            if well:
                self._begin_content()
            else:
                self._fail("the receiver refused it")
                self._stage = _Stage.LINE
        elif self._stage is _Stage.TAKEN:
            if not well:
                self._fail("the receiver reported an error")
            self._finish(closed=well)

    def _fail(self, why: str) -> None:
        if self._transfer is not None:
            self._transfer.fail(why)
            if self._stage is not _Stage.TAKEN:
                self._finish(closed=False)

    def _finish(self, *, closed: bool) -> None:
        transfer, self._transfer = self._transfer, None
        if transfer is not None:
            self._on_file(transfer.finish(closed=closed, now=self._clock()))
        self._stage = _Stage.LINE

    def end(self) -> None:
        """Write what is unfinished into the manifest."""
        self._finish(closed=False)
