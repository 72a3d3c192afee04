"""SFTP version 3 as it stands on the wire (draft-ietf-secsh-filexfer-02). Pure.

A frame is a length (u32, of what follows), a type (u8), and for all but INIT and
VERSION a request id (u32). All numbers are big-endian; a string is a length and bytes.
Only what the gateway has to understand is parsed: requests, and the small answers.
Contents of files (WRITE, DATA) are never taken apart here, only their heads.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from enum import IntEnum, IntFlag
from typing import Final, NamedTuple

VERSION: Final = 3

MAX_FRAME: Final = 256 * 1024
"""Longest frame, as OpenSSH's SFTP_MAX_MSG_LENGTH."""

MAX_WHOLE_FRAME: Final = 34_000
"""Longest frame that is looked at as a whole: the draft's own size for a packet (3)."""

MAX_HANDLE: Final = 256
"""Longest handle (draft, 6.3)."""

HEAD: Final = struct.Struct(">IBI")
"""Length, type, id."""

LENGTH: Final = struct.Struct(">I")
_OFFSET_LENGTH: Final = struct.Struct(">QI")


class FrameError(ValueError):
    """The bytes are no SFTP that can be followed; the text says why."""


class FrameType(IntEnum):
    """SSH_FXP_* (draft, 3)."""

    INIT = 1
    VERSION = 2
    OPEN = 3
    CLOSE = 4
    READ = 5
    WRITE = 6
    LSTAT = 7
    FSTAT = 8
    SETSTAT = 9
    FSETSTAT = 10
    OPENDIR = 11
    READDIR = 12
    REMOVE = 13
    MKDIR = 14
    RMDIR = 15
    REALPATH = 16
    STAT = 17
    RENAME = 18
    READLINK = 19
    SYMLINK = 20
    STATUS = 101
    HANDLE = 102
    DATA = 103
    NAME = 104
    ATTRS = 105
    EXTENDED = 200
    EXTENDED_REPLY = 201


class Status(IntEnum):
    """SSH_FX_* (draft, 7)."""

    OK = 0
    EOF = 1
    NO_SUCH_FILE = 2
    PERMISSION_DENIED = 3
    FAILURE = 4
    BAD_MESSAGE = 5
    NO_CONNECTION = 6
    CONNECTION_LOST = 7
    OP_UNSUPPORTED = 8


class OpenFlag(IntFlag):
    """SSH_FXF_* (draft, 6.3)."""

    READ = 1
    WRITE = 2
    APPEND = 4
    CREAT = 8
    TRUNC = 16
    EXCL = 32


OPEN_FLAGS: Final = 63


class AttributeFlag(IntFlag):
    """SSH_FILEXFER_ATTR_* (draft, 5)."""

    SIZE = 1
    UIDGID = 2
    PERMISSIONS = 4
    ACMODTIME = 8
    EXTENDED = 0x80000000


class Attributes(NamedTuple):
    """What of ATTRS (draft, 5) rights depend on; None where it is not given."""

    flags: int = 0
    size: int | None = None
    permissions: int | None = None


class Request(NamedTuple):
    """A request, WRITE excepted. Fields that its type does not have are empty."""

    type: int
    id: int
    path: bytes = b""
    second_path: bytes = b""
    """New name of RENAME, second of SYMLINK and of the extensions with two paths."""
    handle: bytes = b""
    offset: int = 0
    length: int = 0
    flags: int = 0
    """Open flags."""
    attributes: Attributes = Attributes()
    extension: bytes = b""


class Fields:
    """Takes the fields of one frame in order. Raises: FrameError when it ends early."""

    def __init__(self, frame: bytes, position: int) -> None:
        self._frame = frame
        self._position = position

    def u32(self) -> int:
        """Take a number of four bytes."""
        start = self._position
        self._position = start + 4
        if self._position > len(self._frame):
            raise FrameError("frame ends in a number")
        return int.from_bytes(self._frame[start : self._position], "big")

    def u64(self) -> int:
        """Take a number of eight bytes."""
        return self.u32() << 32 | self.u32()

    def string(self, limit: int = MAX_WHOLE_FRAME) -> bytes:
        """Take a string of at most `limit` bytes."""
        size = self.u32()
        start = self._position
        self._position = start + size
        if size > limit or self._position > len(self._frame):
            raise FrameError("string is longer than its frame or its limit")
        return self._frame[start : self._position]

    def path(self) -> bytes:
        """Take a path; one with a NUL would mean different things to servers."""
        path = self.string()
        if b"\0" in path:
            raise FrameError("a path with a NUL in it")
        return path

    def attributes(self) -> Attributes:
        """Take ATTRS (draft, 5)."""
        flags = self.u32()
        if flags & ~0x8000000F:
            raise FrameError("attributes of another version")
        size = self.u64() if flags & AttributeFlag.SIZE else None
        if flags & AttributeFlag.UIDGID:
            self.u64()
        permissions = self.u32() if flags & AttributeFlag.PERMISSIONS else None
        if flags & AttributeFlag.ACMODTIME:
            self.u64()
        if flags & AttributeFlag.EXTENDED:
            for _ in range(self.u32()):
                self.string()
                self.string()
        return Attributes(flags, size, permissions)

    @property
    def left(self) -> int:
        """Return how many bytes were not taken."""
        return len(self._frame) - self._position

    def end(self) -> None:
        """Require that nothing is left."""
        if self._position != len(self._frame):
            raise FrameError("frame is longer than its fields")


_PATH_ONLY: Final = frozenset(
    {
        FrameType.LSTAT,
        FrameType.OPENDIR,
        FrameType.REMOVE,
        FrameType.RMDIR,
        FrameType.REALPATH,
        FrameType.STAT,
        FrameType.READLINK,
    }
)
_HANDLE_ONLY: Final = frozenset({FrameType.CLOSE, FrameType.FSTAT, FrameType.READDIR})
_PATH_ATTRIBUTES: Final = frozenset({FrameType.SETSTAT, FrameType.MKDIR})
_TWO_PATHS: Final = frozenset({FrameType.RENAME, FrameType.SYMLINK})

EXTENSION_FIELDS: Final[Mapping[bytes, str]] = {
    b"posix-rename@openssh.com": "pp",
    b"hardlink@openssh.com": "pp",
    b"fsync@openssh.com": "h",
    b"statvfs@openssh.com": "p",
    b"fstatvfs@openssh.com": "h",
    b"lsetstat@openssh.com": "pa",
    b"expand-path@openssh.com": "p",
    b"limits@openssh.com": "",
    b"users-groups-by-id@openssh.com": "ss",
}
"""Fields of the extensions that are understood: path, handle, attributes, string.
OpenSSH's PROTOCOL, 4."""


def parse_request(frame: bytes) -> Request:
    """Return the request in one whole frame, its length included; not INIT or WRITE.

    Raises: FrameError for an unknown type and for a frame that does not hold exactly
    the fields of its type. The fields of an extension that is not understood are left.
    """
    _, kind, number = HEAD.unpack_from(frame)
    fields = Fields(frame, HEAD.size)
    if kind == FrameType.READ:
        request = Request(
            kind,
            number,
            handle=fields.string(MAX_HANDLE),
            offset=fields.u64(),
            length=fields.u32(),
        )
    elif kind in _HANDLE_ONLY:
        request = Request(kind, number, handle=fields.string(MAX_HANDLE))
    elif kind in _PATH_ONLY:
        request = Request(kind, number, path=fields.path())
    elif kind == FrameType.OPEN:
        request = Request(
            kind,
            number,
            path=fields.path(),
            flags=fields.u32(),
            attributes=fields.attributes(),
        )
    elif kind in _PATH_ATTRIBUTES:
        request = Request(
            kind, number, path=fields.path(), attributes=fields.attributes()
        )
    elif kind == FrameType.FSETSTAT:
        request = Request(
            kind,
            number,
            handle=fields.string(MAX_HANDLE),
            attributes=fields.attributes(),
        )
    elif kind in _TWO_PATHS:
        request = Request(kind, number, path=fields.path(), second_path=fields.path())
    elif kind == FrameType.EXTENDED:
        return _parse_extended(number, fields)
    else:
        raise FrameError(f"request of unknown type {kind}")
    fields.end()
    return request


def _parse_extended(number: int, fields: Fields) -> Request:
    request = Request(FrameType.EXTENDED, number, extension=fields.string())
    kinds = EXTENSION_FIELDS.get(request.extension)
    if kinds is None:
        return request
    paths = []
    for kind in kinds:
        if kind == "p":
            paths.append(fields.path())
        elif kind == "h":
            request = request._replace(handle=fields.string(MAX_HANDLE))
        elif kind == "a":
            request = request._replace(attributes=fields.attributes())
        else:
            fields.string()
    fields.end()
    if paths:
        request = request._replace(path=paths[0])
    if len(paths) > 1:
        request = request._replace(second_path=paths[1])
    return request


def parse_write_head(
    data: bytes | memoryview, position: int
) -> tuple[int, bytes, int, int, int] | None:
    """Return (id, handle, offset, content length, content position) of a WRITE.

    None when the head is not all there yet. Raises: FrameError.
    """
    size = len(data)
    fixed = position + HEAD.size + 4
    if size < fixed:
        return None
    length, _, number = HEAD.unpack_from(data, position)
    (handle_length,) = LENGTH.unpack_from(data, fixed - 4)
    if handle_length > MAX_HANDLE:
        raise FrameError("handle is too long")
    content = fixed + handle_length + _OFFSET_LENGTH.size
    if size < content:
        return None
    handle = bytes(data[fixed : fixed + handle_length])
    offset, count = _OFFSET_LENGTH.unpack_from(data, fixed + handle_length)
    if content - position + count != length + 4:
        raise FrameError("content of a write does not fill its frame")
    return number, handle, offset, count, content


def parse_init(frame: bytes) -> int:
    """Return the version in an INIT frame; extensions behind it are left.

    Raises: FrameError.
    """
    return Fields(frame, 5).u32()


def parse_version(frame: bytes) -> tuple[int, dict[bytes, bytes]]:
    """Return version and extensions of a VERSION frame. Raises: FrameError."""
    fields = Fields(frame, 5)
    version = fields.u32()
    extensions = {}
    while fields.left:
        name = fields.string()
        extensions[name] = fields.string()
    return version, extensions


def parse_status(frame: bytes) -> int:
    """Return the code of a STATUS frame; message and language are left."""
    return Fields(frame, HEAD.size).u32()


def parse_handle(frame: bytes) -> bytes:
    """Return the handle in a HANDLE frame. Raises: FrameError."""
    fields = Fields(frame, HEAD.size)
    handle = fields.string(MAX_HANDLE)
    fields.end()
    return handle


def parse_first_name(frame: bytes) -> bytes:
    """Return the only path in a NAME frame that answers REALPATH or READLINK.

    Raises: FrameError.
    """
    fields = Fields(frame, HEAD.size)
    if fields.u32() != 1:
        raise FrameError("not one name")
    return fields.string()


def parse_attributes(frame: bytes) -> Attributes:
    """Return the attributes in an ATTRS frame. Raises: FrameError."""
    return Fields(frame, HEAD.size).attributes()


def encode_string(value: bytes) -> bytes:
    """Return a string with its length."""
    return LENGTH.pack(len(value)) + value


def encode_frame(kind: int, body: bytes) -> bytes:
    """Return a frame of type `kind` around `body`."""
    return LENGTH.pack(len(body) + 1) + bytes((kind,)) + body


def encode_status(number: int, code: Status, message: str) -> bytes:
    """Return a STATUS frame."""
    body = LENGTH.pack(number) + LENGTH.pack(code)
    text = encode_string(message.encode())
    return encode_frame(FrameType.STATUS, body + text + encode_string(b"en"))


def encode_name(number: int, path: bytes) -> bytes:
    """Return a NAME frame with one path and no attributes."""
    name = encode_string(path) * 2 + LENGTH.pack(0)
    return encode_frame(FrameType.NAME, LENGTH.pack(number) + LENGTH.pack(1) + name)


def encode_init() -> bytes:
    """Return INIT of the version that is understood here."""
    return encode_frame(FrameType.INIT, LENGTH.pack(VERSION))


def encode_version(extensions: Mapping[bytes, bytes]) -> bytes:
    """Return VERSION 3 with `extensions` in their order."""
    pairs = b"".join(
        encode_string(name) + encode_string(value) for name, value in extensions.items()
    )
    return encode_frame(FrameType.VERSION, LENGTH.pack(VERSION) + pairs)


def encode_path_request(kind: FrameType, number: int, path: bytes) -> bytes:
    """Return a request that has a path and nothing else."""
    return encode_frame(kind, LENGTH.pack(number) + encode_string(path))


def encode_handle_request(kind: FrameType, number: int, handle: bytes) -> bytes:
    """Return a request that has a handle and nothing else."""
    return encode_frame(kind, LENGTH.pack(number) + encode_string(handle))


def encode_handle(number: int, handle: bytes) -> bytes:
    """Return a HANDLE frame."""
    return encode_frame(FrameType.HANDLE, LENGTH.pack(number) + encode_string(handle))


def encode_size(number: int, size: int) -> bytes:
    """Return an ATTRS frame that says how large a file is and nothing else."""
    body = LENGTH.pack(number) + LENGTH.pack(AttributeFlag.SIZE)
    return encode_frame(FrameType.ATTRS, body + struct.pack(">Q", size))
