"""What one session may do with files: its rights, its limits, and what it has used."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from apps.gateway import sftp_rights
from apps.gateway.sftp_frames import (
    FrameError,
    FrameType,
    OpenFlag,
    Request,
    Status,
)
from apps.gateway.sftp_lengths import Lengths
from apps.inventory.file_rules import MEGABYTE, FileRules
from apps.recordings.manifest import text_of


@dataclass(frozen=True, slots=True)
class Denial:
    """Why a request is not let through, and the status it is answered with."""

    message: str
    status: Status = Status.PERMISSION_DENIED


@dataclass(slots=True)
class Usage:
    """What a session has done to files, in all its channels. Bytes, unless said."""

    moved: int = 0
    """Content in both directions."""
    asked: int = 0
    """Asked for in reads that are not answered yet."""
    lengths: Lengths = field(default_factory=Lengths)
    held: set[bytes] = field(default_factory=set)
    """Paths of uploads that are held for release."""
    held_files: int = 0
    """Uploads that began to be held."""
    reshuffles: int = 0
    """How often a name may have come to stand for another file."""


MAX_PATH: Final = 4096
"""Longest path, as Linux's PATH_MAX; so that what is unanswered stays bounded."""

HELD_FILES: Final = 200
"""Uploads of one session that may be held."""

HELD_WHOLE: Final = (
    "uploads are held for release here: a file is written anew and from its beginning"
)
HELD_NAME: Final = "this file is held for release and cannot be changed any more"

_NOT_ANEW: Final = OpenFlag.READ | OpenFlag.APPEND | OpenFlag.EXCL
_NAMING: Final = frozenset(
    {
        FrameType.REMOVE,
        FrameType.RENAME,
        FrameType.SETSTAT,
        FrameType.SYMLINK,
        FrameType.EXTENDED,
    }
)

TOO_MUCH: Final = "the files of this session would be more than is allowed"


class SftpPolicy:
    """Judges requests for one channel; the usage is the whole session's."""

    def __init__(
        self, services: frozenset[str], rules: FileRules, usage: Usage
    ) -> None:
        self.services = services
        self.rules = rules
        self.usage = usage

    def judge(self, request: Request, *, own: bool) -> Denial | None:
        """Return why a request is denied, or None. Paths are not confined here."""
        if max(len(request.path), len(request.second_path)) > MAX_PATH:
            return Denial(f"a path may have at most {MAX_PATH} bytes", Status.FAILURE)
        if request.type == FrameType.EXTENDED:
            extension = sftp_rights.EXTENSIONS.get(request.extension)
            if extension is None or not extension.offered:
                return Denial("unknown extension", Status.OP_UNSUPPORTED)
        missing = sftp_rights.needs(request, own=own) - self.services
        if missing:
            return Denial(sftp_rights.sentence(frozenset(missing)))
        return (
            self._judge_name(request)
            or self._judge_size(request)
            or self._judge_held(request)
        )

    def _judge_held(self, request: Request) -> Denial | None:
        """Judge what could change content on the asset while uploads are held."""
        if not self.rules.uploads_held:
            return None
        if request.type == FrameType.OPEN and opens_for_writing(request):
            if request.flags & _NOT_ANEW:
                return Denial(HELD_WHOLE, Status.OP_UNSUPPORTED)
            if self.usage.held_files >= HELD_FILES:
                return Denial(f"a session may have {HELD_FILES} files held")
            return None
        if request.type == FrameType.SETSTAT and request.attributes.size is not None:
            return Denial(HELD_WHOLE, Status.OP_UNSUPPORTED)
        if request.type in _NAMING and (
            {request.path, request.second_path} & self.usage.held
        ):
            return Denial(HELD_NAME)
        return None

    def _judge_name(self, request: Request) -> Denial | None:
        """Judge the endings of files that are moved, and of their new names."""
        if request.type == FrameType.OPEN:
            names = [request.path]
        elif request.type in {FrameType.RENAME, FrameType.SYMLINK} or (
            request.type == FrameType.EXTENDED and request.second_path
        ):
            names = [request.path, request.second_path]
        else:
            return None
        for name in names:
            if problem := self.rules.extension_problem(text_of(name)):
                return Denial(problem)
        return None

    def _judge_size(self, request: Request) -> Denial | None:
        size = request.attributes.size
        if size is not None and request.type != FrameType.OPEN:
            return self.file_size_problem(size + self.usage.lengths.appending)
        return None

    def file_size_problem(self, size: int) -> Denial | None:
        """Return why a file of `size` bytes may not be moved, or None."""
        limit = self.rules.file_bytes
        if limit and size > limit:
            return Denial(f"a file may have at most {limit // MEGABYTE} MB")
        return None

    def judge_read(self, offset: int, likely: int) -> Denial | None:
        """Return why a read may not go to the asset; None counts it as asked for.

        `likely`: bytes it will be answered with, as far as that is known. Clients read
        ahead, far behind the end of a file.
        """
        denial = self.file_size_problem(offset + 1) if likely else None
        if denial is not None:
            return denial
        total = self.rules.session_bytes
        if total and self.usage.moved + self.usage.asked + likely > total:
            return Denial(TOO_MUCH)
        self.usage.asked += likely
        return None

    def read_answered(self, likely: int) -> None:
        """Count a read as answered."""
        self.usage.asked -= likely

    def moved(self, count: int, end: int) -> None:
        """Count content that the asset sent, up to `end` of its file.

        Raises: FrameError when that is more than may be moved: the file has become
        larger than was known when its reads were let through.
        """
        self.usage.moved += count
        denial = self.file_size_problem(end)
        if denial is not None:
            raise FrameError(denial.message)
        if 0 < self.rules.session_bytes < self.usage.moved:
            raise FrameError(TOO_MUCH)

    def judge_write(self, end: int, count: int) -> Denial | None:
        """Return why a write that makes its file at least `end` bytes is denied."""
        denial = self.file_size_problem(end)
        if denial is None:
            total = self.rules.session_bytes
            if total and self.usage.moved + count > total:
                denial = Denial(TOO_MUCH)
        return denial


def opens_for_writing(request: Request) -> bool:
    """Say whether an OPEN is the beginning of an upload."""
    return bool(request.flags & ~OpenFlag.READ)
