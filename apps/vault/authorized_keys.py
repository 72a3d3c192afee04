"""Replacing one key in an `authorized_keys` file, and nothing else. Pure.

Format: sshd(8), AUTHORIZED_KEYS FILE FORMAT: optional options (without blanks except
in double quotes), key type, base64 key, comment.
"""

import re

_KEY_TYPE = re.compile(rb"(?:ssh|ecdsa|sk)-[A-Za-z0-9@.-]+")
_KEY = re.compile(rb"([^\s]+)[ \t]+([A-Za-z0-9+/=]+)(?=[\s]|$)")


class KeyNotListedError(ValueError):
    """The key that was to be replaced is not in the file."""


def replace_key(content: bytes, *, old_line: str, new_line: str) -> bytes:
    """Return `content` with the old key replaced by the new one.

    `old_line` and `new_line` are public keys, "type base64". Options, comments, line
    ends and every other line stay byte for byte. Every line of the old key is changed,
    as one that stayed would still let it in; where the new key is listed already, the
    old one's lines are dropped.

    Raises: KeyNotListedError.
    """
    old, new = _words(old_line), _words(new_line)
    lines = content.splitlines(keepends=True)
    keys = [_find_key(line) for line in lines]
    if old not in [key and key[0] for key in keys]:
        raise KeyNotListedError("the key is not in the file")
    new_is_listed = new in [key and key[0] for key in keys]
    kept: list[bytes] = []
    for line, key in zip(lines, keys, strict=True):
        if key is None or key[0] != old:
            kept.append(line)
        elif not new_is_listed:
            _, start, end = key
            kept.append(line[:start] + b" ".join(new) + line[end:])
    return b"".join(kept)


def _words(line: str) -> tuple[bytes, bytes]:
    kind, blob = line.split()[:2]
    return kind.encode("ascii"), blob.encode("ascii")


def _find_key(line: bytes) -> tuple[tuple[bytes, bytes], int, int] | None:
    """Return ((type, base64), start, end) of the key in `line`, or None."""
    position = _skip_blanks(line, 0)
    if line[position : position + 1] in (b"#", b""):
        return None
    if not _KEY_TYPE.match(line, position):
        position = _skip_blanks(line, _skip_options(line, position))
    key = _KEY.match(line, position)
    if key is None or not _KEY_TYPE.fullmatch(key[1]):
        return None
    return (key[1], key[2]), key.start(), key.end()


def _skip_blanks(line: bytes, position: int) -> int:
    while line[position : position + 1] in (b" ", b"\t"):
        position += 1
    return position


def _skip_options(line: bytes, position: int) -> int:
    """Return where the options end: the first blank outside double quotes."""
    quoted = False
    while position < len(line):
        if line[position : position + 2] == b'\\"':
            position += 2
            continue
        letter = line[position : position + 1]
        if letter == b'"':
            quoted = not quoted
        elif letter in (b" ", b"\t") and not quoted:
            break
        position += 1
    return position
