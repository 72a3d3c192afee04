"""What became of a file: the entries of a session's manifest. Pure."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class FileAction(StrEnum):
    """What was done with a file, seen from the engineer."""

    UPLOAD = "upload"
    DOWNLOAD = "download"
    REMOVE = "remove"
    RENAME = "rename"
    MAKE_FOLDER = "make folder"
    CHANGE = "change"
    LINK = "link"
    LOOK = "look"


class FileResult(StrEnum):
    """How it ended."""

    COMPLETE = "complete"
    PARTIAL = "partial"
    DENIED = "denied"
    FAILED = "failed"


RESULT_SENTENCES: Final[dict[FileResult, str]] = {
    FileResult.COMPLETE: "It was done; a file went over whole, and its checksum holds.",
    FileResult.PARTIAL: "Something else than one whole file went over.",
    FileResult.DENIED: "Sluice refused it, and the asset was not asked.",
    FileResult.FAILED: "The asset refused it or reported an error.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FileNote:
    """One entry of the manifest."""

    action: FileAction
    path: str
    """As the client wrote it; bytes that are not UTF-8 are lone surrogates."""
    result: FileResult
    started_at: dt.datetime
    ended_at: dt.datetime
    second_path: str = ""
    """The new name, or what a link leads to."""
    size: int = 0
    """Bytes of content that passed."""
    sha256: str = ""
    """Hex digest over bytes 0 to `size`; empty when what passed was no such run."""
    reason: str = ""
    """Why it was denied or failed, or is partial; for people."""


def text_of(path: bytes) -> str:
    """Return a path of the protocol as text that loses nothing."""
    return path.decode("utf-8", "surrogateescape")


def printable(text: str) -> str:
    """Return `text` for rows and pages: what is not UTF-8 or not printable, escaped."""
    plain = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in plain
    )
