"""Keeping an SFTP channel inside the folders an asset's rules name.

What a path leads to only the asset knows, so it is asked before the request goes on:
REALPATH for the path, or for its folder where the request is about the name itself;
then LSTAT for each part below the folder, since a server whose REALPATH does not follow
links would let one lead outside. The client waits meanwhile, so nothing it sends in
this channel can come in between. Pure: a generator yields questions and is sent the
answers.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Generator
from typing import Final, NamedTuple

from apps.gateway.sftp_frames import (
    FrameError,
    FrameType,
    OpenFlag,
    Request,
    Status,
    encode_name,
    parse_attributes,
    parse_first_name,
    parse_status,
)
from apps.gateway.sftp_policy import Denial, SftpPolicy

DEPTH: Final = 40
"""Parts a path may have below its folder."""


class Question(NamedTuple):
    """A request of the gateway's own: LSTAT, STAT or REALPATH of a path."""

    kind: FrameType
    path: bytes


class Answer(NamedTuple):
    """What the asset answered: the type of the frame and the whole frame."""

    kind: int
    frame: bytes


Verdict = Denial | bytes | None
"""Denied; answered by the gateway with this frame; or None: it goes to the asset."""

Asking = Generator[list[Question], list[Answer], Verdict]

_FOLLOWED: Final = frozenset(
    {FrameType.OPEN, FrameType.OPENDIR, FrameType.STAT, FrameType.SETSTAT}
)
_LOOKED_AT: Final = frozenset({FrameType.LSTAT, FrameType.READLINK})
_NAMED: Final = frozenset({FrameType.REMOVE, FrameType.RMDIR, FrameType.MKDIR})
_OUTSIDE: Final = Denial("the path is outside the folders you may use")
_UNCLEAR: Final = Denial("the asset does not say where the path leads")


class Confinement:
    """The folders of one channel, as the asset resolves them."""

    def __init__(
        self, policy: SftpPolicy, *, on_size: Callable[[bytes, int], None]
    ) -> None:
        self._on_size = on_size
        self._roots = [root.encode() for root in policy.rules.roots]
        self._policy = policy
        self._resolved: list[bytes] = []
        self.openssh_order = False
        """Whether SYMLINK has what it leads to first, as OpenSSH's server wants it."""

    @property
    def confines(self) -> bool:
        """Say whether there are folders to stay in."""
        return bool(self._roots)

    def begin(self) -> Asking:
        """Ask where the folders themselves are; one that is missing allows nothing."""
        answers = yield [Question(FrameType.REALPATH, root) for root in self._roots]
        for answer in answers:
            path = _path_in(answer)
            if path is not None and path.startswith(b"/"):
                self._resolved.append(path)
        return None

    def questions(self, request: Request) -> Asking | None:
        """Return what has to be asked before the request may go on, if anything."""
        sized = (
            request.type == FrameType.OPEN
            and bool(request.flags & OpenFlag.READ or not request.flags)
            and self._policy.rules.file_bytes > 0
        )
        confined = bool(self._roots) and bool(request.path or request.second_path)
        if request.type == FrameType.REALPATH and self._roots:
            return self._where(request)
        if confined or sized or (self._roots and self._has_path(request)):
            return self._check(request, sized=sized)
        return None

    @staticmethod
    def _has_path(request: Request) -> bool:
        return not request.handle and request.extension not in {
            b"limits@openssh.com",
            b"users-groups-by-id@openssh.com",
        }

    def _where(self, request: Request) -> Asking:
        """Answer REALPATH: a channel begins in its folder when the home is outside."""
        (answer,) = yield [Question(FrameType.REALPATH, request.path)]
        path = _path_in(answer)
        if path is None:
            # Not there: the asset says so by itself, unless it is not to be asked.
            return (yield from self._named(request.path)) and _OUTSIDE
        if self._root_of(path) is not None:
            return None
        if request.path in {b"", b"."} and self._resolved:
            return encode_name(request.id, self._resolved[0])
        return _OUTSIDE

    def _check(self, request: Request, *, sized: bool) -> Asking:
        if self._roots:
            denial = yield from self._confine(request)
            if denial is not None:
                return denial
        if sized:
            (answer,) = yield [Question(FrameType.STAT, request.path)]
            if answer.kind == FrameType.ATTRS:
                size = parse_attributes(answer.frame).size
                if size is not None:
                    self._on_size(request.path, size)
                    return self._policy.file_size_problem(size)
        return None

    def _confine(
        self, request: Request
    ) -> Generator[list[Question], list[Answer], Denial | None]:
        kind = request.type
        if kind in _FOLLOWED or request.extension == b"statvfs@openssh.com":
            return (yield from self._followed(request.path))
        if kind in _LOOKED_AT:
            return (yield from self._named(request.path, below=False))
        if kind in _NAMED or request.extension == b"lsetstat@openssh.com":
            return (yield from self._named(request.path))
        if kind == FrameType.SYMLINK:
            return (yield from self._linked(request))
        if kind == FrameType.RENAME or request.second_path:
            denial = yield from self._named(request.path)
            if denial is None and request.extension == b"hardlink@openssh.com":
                denial = yield from self._followed(request.path)
            if denial is None:
                denial = yield from self._named(request.second_path)
            return denial
        # A request with a path that nobody has thought about here.
        return _OUTSIDE

    def _linked(
        self, request: Request
    ) -> Generator[list[Question], list[Answer], Denial | None]:
        """Both the link and what it leads to must be inside, in either order of the two
        where the asset's is not known."""
        denial = yield from self._link(request.second_path, request.path)
        if denial is None and not self.openssh_order:
            denial = yield from self._link(request.path, request.second_path)
        return denial

    def _link(
        self, place: bytes, target: bytes
    ) -> Generator[list[Question], list[Answer], Denial | None]:
        denial = yield from self._named(place)
        if denial is not None:
            return denial
        if not target.startswith(b"/"):
            target = (place.rpartition(b"/")[0] or b".") + b"/" + target
        return (yield from self._followed(target))

    def _followed(
        self, path: bytes
    ) -> Generator[list[Question], list[Answer], Denial | None]:
        """Judge what a path leads to, links followed."""
        (answer,) = yield [Question(FrameType.REALPATH, path)]
        found = _path_in(answer)
        if found is None:
            return _UNCLEAR
        return (yield from self._inside(found, below=False))

    def _named(
        self, path: bytes, *, below: bool = True
    ) -> Generator[list[Question], list[Answer], Denial | None]:
        """Judge a name itself, which may be a link. `below`: not the folder itself."""
        folder, slash, name = path.rpartition(b"/")
        if name in {b"", b".", b".."}:
            (answer,) = yield [Question(FrameType.REALPATH, path)]
            found = _path_in(answer)
        else:
            folder = folder or (b"/" if slash else b".")
            (answer,) = yield [Question(FrameType.REALPATH, folder)]
            found = _path_in(answer)
            if found is not None:
                found = found.rstrip(b"/") + b"/" + name
        if found is None:
            return _UNCLEAR
        return (yield from self._inside(found, below=below, last=False))

    def _inside(
        self, path: bytes, *, below: bool, last: bool = True
    ) -> Generator[list[Question], list[Answer], Denial | None]:
        """Judge a resolved path, and that none of its parts is a link after all.

        `last`: its last part must not be one, either.
        """
        root = self._root_of(path)
        if root is None or (below and path.rstrip(b"/") == root.rstrip(b"/")):
            return _OUTSIDE
        rest = [part for part in path[len(root) :].split(b"/") if part]
        if len(rest) > DEPTH or b".." in rest or b"." in rest:
            return _OUTSIDE
        parts, so_far = [], root.rstrip(b"/")
        for part in rest if last else rest[:-1]:
            so_far += b"/" + part
            parts.append(Question(FrameType.LSTAT, so_far))
        if parts:
            answers = yield parts
            for number, answer in enumerate(answers):
                is_last = last and number == len(answers) - 1
                if not _is_no_link(answer, may_be_missing=is_last):
                    return _OUTSIDE
        return None

    def _root_of(self, path: bytes) -> bytes | None:
        for root in self._resolved:
            if path == root or path.startswith(root.rstrip(b"/") + b"/"):
                return root
        return None


def _path_in(answer: Answer) -> bytes | None:
    if answer.kind != FrameType.NAME:
        return None
    try:
        return parse_first_name(answer.frame)
    except FrameError:
        return None


def _is_no_link(answer: Answer, *, may_be_missing: bool) -> bool:
    if answer.kind == FrameType.ATTRS:
        mode = parse_attributes(answer.frame).permissions
        return mode is not None and not stat.S_ISLNK(mode)
    return may_be_missing and parse_status(answer.frame) == Status.NO_SUCH_FILE
