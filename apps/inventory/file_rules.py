"""What files may be moved to and from an asset, beside the rights to move any. Pure.

An administrator sets it for each asset; the permit carries it, frozen.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

ROOTS: Final = 16
EXTENSIONS: Final = 64
MEGABYTE: Final = 1_000_000

_EXTENSION: Final = re.compile(r"[a-z0-9][a-z0-9_+-]{0,15}(\.[a-z0-9_+-]{1,15})?")


class FileRuleError(ValueError):
    """The text is no rule for files; the message says why and what to write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRules:
    """Limits on the files of one session. Empty, or 0, is no limit."""

    roots: tuple[str, ...] = ()
    """Absolute folders on the asset; with any, nothing outside them can be named."""
    allowed_extensions: frozenset[str] = frozenset()
    """Endings without the first dot, in small letters; with any, only these."""
    denied_extensions: frozenset[str] = frozenset()
    file_bytes: int = 0
    """Largest file."""
    session_bytes: int = 0
    """Most bytes of all files of a session, both directions."""
    uploads_held: bool = False
    """Whether uploads wait for a second person before they reach the asset."""

    @property
    def any(self) -> bool:
        """Say whether there is any limit."""
        return self != NO_RULES

    def extension_problem(self, path: str) -> str:
        """Return why a file of this name may not be moved, or an empty text."""
        name = path.rstrip("/").rpartition("/")[2].lower()
        # What Windows leaves out of a name: final dots and blanks, and a stream's name.
        names = {name.rstrip(". "), name.partition(":")[0].rstrip(". ")}
        for each in sorted(names):
            endings = {each[at + 1 :] for at, c in enumerate(each) if c == "."}
            if found := sorted(endings & self.denied_extensions):
                return f"files ending in .{found[0]} may not be moved"
            if self.allowed_extensions and not endings & self.allowed_extensions:
                shown = ", ".join(
                    f".{word}" for word in sorted(self.allowed_extensions)
                )
                return f"only files ending in {shown} may be moved"
        return ""


NO_RULES: Final = FileRules()


def check_roots(lines: Iterable[str]) -> list[str]:
    """Return the folders, each once, without final slashes.

    Raises: FileRuleError for one that is not absolute or has dots in it.
    """
    found: list[str] = []
    for line in lines:
        text = line.strip()
        if not text:
            continue
        parts = text.split("/")
        if not text.startswith("/") or any(part in {".", ".."} for part in parts):
            raise FileRuleError(
                f"“{text[:80]}” is no folder: write the whole path from /, "
                "without . and .., such as /srv/projects."
            )
        if len(text) > 200 or not text.isprintable():
            raise FileRuleError("A folder has at most 200 printable characters.")
        path = "/" + "/".join(part for part in parts if part)
        if path not in found:
            found.append(path)
    if len(found) > ROOTS:
        raise FileRuleError(f"There can be at most {ROOTS} folders.")
    return found


def check_extensions(words: Iterable[str]) -> list[str]:
    """Return the endings sorted, each once, in small letters and without the dot.

    Raises: FileRuleError.
    """
    found = set()
    for word in words:
        text = word.strip().lower().removeprefix("*").removeprefix(".")
        if not text:
            continue
        if not _EXTENSION.fullmatch(text):
            raise FileRuleError(
                f"“{word.strip()[:40]}” is no ending of a file name: "
                "write it as zip or tar.gz."
            )
        found.add(text)
    if len(found) > EXTENSIONS:
        raise FileRuleError(f"There can be at most {EXTENSIONS} endings.")
    return sorted(found)
