"""Which right an SFTP request needs, and which extensions an asset may offer. Pure.

Listing and looking (OPENDIR, READDIR, STAT, READLINK, REALPATH...) come with any right
to files. Contents and changes have rights of their own, and nothing implies another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from apps.gateway.sftp_frames import (
    AttributeFlag,
    FrameType,
    OpenFlag,
    Request,
)
from apps.inventory.services import LABELS, Service

NOTHING: Final[frozenset[Service]] = frozenset()


@dataclass(frozen=True, slots=True)
class Extension:
    """What becomes of an extension. Without `offered` it is taken out of VERSION."""

    offered: bool
    needs: frozenset[Service]
    why: str
    """One sentence for the documentation."""


def _offered(why: str, *needs: Service) -> Extension:
    return Extension(offered=True, needs=frozenset(needs), why=why)


def _removed(why: str) -> Extension:
    return Extension(offered=False, needs=NOTHING, why=why)


EXTENSIONS: Final[dict[bytes, Extension]] = {
    b"posix-rename@openssh.com": _offered(
        "Renames, also over a file that is there.", Service.SFTP_RENAME
    ),
    b"hardlink@openssh.com": _offered("Makes a link.", Service.SFTP_SYMLINK),
    b"lsetstat@openssh.com": _offered(
        "Changes permissions and times of a link.", Service.SFTP_CHMOD
    ),
    b"fsync@openssh.com": _offered(
        "Asks that an upload is on the disk.", Service.SFTP_UP
    ),
    b"statvfs@openssh.com": _offered("Says how full a disk is."),
    b"fstatvfs@openssh.com": _offered("Says how full a disk is."),
    b"limits@openssh.com": _offered("Says how long packets may be."),
    b"expand-path@openssh.com": _offered("Resolves a path, as REALPATH does."),
    b"users-groups-by-id@openssh.com": _offered(
        "Says the names that belong to the numbers in a list of files."
    ),
    b"copy-data": _removed(
        "Copies inside the asset, so that no checksum could be taken on the way."
    ),
    b"home-directory": _removed("Names the homes of other people."),
}
"""Every other extension is unknown, and removed as well."""


def offered(extensions: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Return those of an asset's extensions that a client may know of."""
    return {
        name: value
        for name, value in extensions.items()
        if name in EXTENSIONS and EXTENSIONS[name].offered
    }


_NEEDS: Final[dict[int, frozenset[Service]]] = {
    FrameType.CLOSE: NOTHING,
    FrameType.LSTAT: NOTHING,
    FrameType.FSTAT: NOTHING,
    FrameType.STAT: NOTHING,
    FrameType.OPENDIR: NOTHING,
    FrameType.READDIR: NOTHING,
    FrameType.REALPATH: NOTHING,
    FrameType.READLINK: NOTHING,
    FrameType.READ: frozenset({Service.SFTP_DOWN}),
    FrameType.WRITE: frozenset({Service.SFTP_UP}),
    FrameType.REMOVE: frozenset({Service.SFTP_DELETE}),
    FrameType.RMDIR: frozenset({Service.SFTP_DELETE}),
    FrameType.RENAME: frozenset({Service.SFTP_RENAME}),
    FrameType.MKDIR: frozenset({Service.SFTP_MKDIR}),
    FrameType.SYMLINK: frozenset({Service.SFTP_SYMLINK}),
}

SPECIAL_MODES: Final = 0o6000
"""Set-user-id and set-group-id: never part of a mere upload."""


def needs(request: Request, *, own: bool) -> frozenset[Service]:
    """Return the rights a request needs. `own`: it is about a file that this channel
    uploads or uploaded, or a folder it made."""
    kind = request.type
    if kind == FrameType.OPEN:
        return _needs_of_open(request)
    if kind in {FrameType.SETSTAT, FrameType.FSETSTAT}:
        return _needs_of_setstat(request, own=own)
    if kind == FrameType.EXTENDED:
        return EXTENSIONS[request.extension].needs
    found = _NEEDS[kind]
    if kind == FrameType.MKDIR and _special(request):
        found |= {Service.SFTP_CHMOD}
    return found


def _special(request: Request) -> bool:
    return bool((request.attributes.permissions or 0) & SPECIAL_MODES)


def _needs_of_open(request: Request) -> frozenset[Service]:
    found = set()
    if request.flags & ~OpenFlag.READ:
        found.add(Service.SFTP_UP)
        if _special(request):
            found.add(Service.SFTP_CHMOD)
    if request.flags & OpenFlag.READ or not found:
        found.add(Service.SFTP_DOWN)
    return frozenset(found)


def _needs_of_setstat(request: Request, *, own: bool) -> frozenset[Service]:
    """A new size is a write. Times and permissions of one's own upload come with it."""
    flags, found = request.attributes.flags, set()
    if flags & AttributeFlag.SIZE:
        found.add(Service.SFTP_UP)
    other = flags & ~AttributeFlag.SIZE
    belongs_to_upload = (
        own
        and not other & ~(AttributeFlag.PERMISSIONS | AttributeFlag.ACMODTIME)
        and not _special(request)
    )
    if (other and not belongs_to_upload) or not flags:
        found.add(Service.SFTP_CHMOD)
    return frozenset(found)


def sentence(missing: frozenset[Service]) -> str:
    """Return what a client is told about rights it does not have."""
    what = ", ".join(
        LABELS[service].lower() for service in Service if service in missing
    )
    return f"your access does not include: {what}"
