"""What the demo plant keeps on disk between two starts: keys, secrets, state.

Directories are 0700 and files 0600. Every file is replaced atomically, so that a
`kill -9` leaves either the old or the new content.
"""

import json
import os
import secrets
import tempfile
from pathlib import Path
from typing import Any

import asyncssh


def make_private_directory(path: Path) -> Path:
    """Create `path` with its parents if missing, and make it 0700."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)
    return path


def write_private(path: Path, content: bytes) -> None:
    """Replace the file at `path` with `content`, mode 0600, atomically."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def remove_file(path: Path) -> None:
    """Remove the file at `path` if it is there."""
    path.unlink(missing_ok=True)


def read_state(path: Path) -> dict[str, Any]:
    """Return the JSON object at `path`, or an empty one if missing or damaged.

    Only remembered ports are taken from it, so a damaged file costs new ports.
    """
    try:
        state = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write `state` as indented UTF-8 JSON, mode 0600, atomically."""
    write_private(path, json.dumps(state, indent=2, ensure_ascii=False).encode())


def load_or_create_key(
    path: Path, algorithm: str, *, comment: str, bits: int | None = None
) -> asyncssh.SSHKey:
    """Return the private key at `path` (OpenSSH format), made at first use.

    `bits` is the size of an RSA key. Raises: asyncssh.KeyImportError if the file
    is damaged: a host key must never change silently.
    """
    if path.exists():
        return asyncssh.read_private_key(path)
    if bits is None:
        key = asyncssh.generate_private_key(algorithm, comment=comment)
    else:
        key = asyncssh.generate_private_key(algorithm, comment=comment, key_size=bits)
    write_private(path, key.export_private_key("openssh"))
    return key


def public_line(key: asyncssh.SSHKey) -> str:
    """Return `key` as one `type base64 comment` line without the line end."""
    return key.export_public_key("openssh").decode().strip()


def create_password(path: Path) -> str:
    """Make a random password of 144 bits, keep it in `path`, and return it."""
    password = secrets.token_urlsafe(18)
    write_private(path, f"{password}\n".encode())
    return password
