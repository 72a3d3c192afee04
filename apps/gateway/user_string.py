"""The SSH user name as an address: who connects, to what, as whom. Pure.

`me@asset` and `me@account@asset`; `me` alone is somebody who jumps (`ssh -J`). `:` and
`+` may stand for `@`, because some clients and tools give `@` a meaning of their own.
One separator is used throughout.

The parts are names, never paths: nothing from here is put into a file name or a
template (R37). Whether they exist is decided elsewhere, and an unknown name is answered
like a forbidden one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

MAX_LENGTH: Final = 256
"""Characters of the whole string; asyncssh refuses 1024 bytes and more."""

MAX_PART: Final = 64
"""Characters of one name."""

SEPARATORS: Final = "@:+"

_PART: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_$-])?")
"""Letters, digits, `_ . -`, no leading or trailing dot, `$` last as in Windows."""


@dataclass(frozen=True, slots=True)
class ParsedLogin:
    """What the engineer asked for by the user name.

    `handle` and `asset` are lower case, as both are unique without regard to case;
    `account` is kept as typed, because login names on assets are case-sensitive. None
    means: the only account the engineer may use there. Without an asset the connection
    may carry jumps and nothing else.
    """

    handle: str
    account: str | None
    asset: str | None


class UserStringError(ValueError):
    """The user name cannot be an address. The text is one line for the engineer."""


USAGE: Final = "use me@asset or me@account@asset"


def parse_user_string(text: str) -> ParsedLogin:
    """Return what `text` asks for.

    Raises: UserStringError with a message that never repeats the input, as it may
    hold control characters or a password typed in the wrong place.
    """
    if len(text) > MAX_LENGTH:
        raise UserStringError(f"the user name is too long; {USAGE}")
    used = [separator for separator in SEPARATORS if separator in text]
    if len(used) > 1:
        raise UserStringError(f"the user name mixes separators; {USAGE}")
    parts = text.split(used[0]) if used else [text]
    if len(parts) > 3:
        raise UserStringError(f"the user name has too many parts; {USAGE}")
    if not all(parts):
        raise UserStringError(f"the user name has an empty part; {USAGE}")
    if not all(is_name(part) for part in parts):
        raise UserStringError(f"the user name has forbidden characters; {USAGE}")
    if len(parts) == 1:
        return ParsedLogin(handle=parts[0].lower(), account=None, asset=None)
    handle, *account, asset = parts
    return ParsedLogin(
        handle=handle.lower(),
        account=account[0] if account else None,
        asset=asset.lower(),
    )


def is_name(part: str) -> bool:
    """Say whether `part` can be a handle, an account or an asset."""
    return (
        len(part) <= MAX_PART and _PART.fullmatch(part) is not None and ".." not in part
    )
