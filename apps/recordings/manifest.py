"""What became of a file: the entries of a session's manifest. Pure."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from apps.recordings.frames import LayoutError


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
    HELD = "held"


RESULT_SENTENCES: Final[dict[FileResult, str]] = {
    FileResult.COMPLETE: "It was done; a file went over whole, and its checksum holds.",
    FileResult.PARTIAL: "Something else than one whole file went over.",
    FileResult.DENIED: "Sluice refused it, and the asset was not asked.",
    FileResult.HELD: "It is held for release and has not reached the asset.",
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


def encode_note(note: FileNote) -> bytes:
    """Return the payload of a FILE event."""
    value = dataclasses.asdict(note)
    for name in ("started_at", "ended_at"):
        value[name] = value[name].astimezone(dt.UTC).isoformat()
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def decode_note(payload: bytes) -> FileNote:
    """Return what a FILE event says; unknown members are ignored.

    Raises: LayoutError.
    """
    try:
        value: Any = json.loads(payload)
        return FileNote(
            action=FileAction(value["action"]),
            path=_text(value["path"]),
            second_path=_text(value["second_path"]),
            result=FileResult(value["result"]),
            size=int(value["size"]),
            sha256=_text(value["sha256"]),
            reason=_text(value["reason"]),
            started_at=dt.datetime.fromisoformat(value["started_at"]),
            ended_at=dt.datetime.fromisoformat(value["ended_at"]),
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise LayoutError("file payload is malformed") from error


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not text")
    return value


def sentence(note: FileNote) -> str:
    """Return an entry in one line, for people; nothing in it steers a terminal."""
    parts = [note.action.value, printable(note.path)]
    if note.second_path:
        parts.append(f"-> {printable(note.second_path)}")
    if note.action in {FileAction.UPLOAD, FileAction.DOWNLOAD}:
        parts.append(f"({note.size} bytes)")
    parts.append(note.result.value)
    if note.reason:
        parts.append(f"- {printable(note.reason)}")
    return " ".join(parts)
