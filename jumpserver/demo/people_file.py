"""`people.json` in the data directory: what the demo prints of its people.

Passwords and one-time-code secrets stand in it in the clear, because showing them is
what the demo is for; the file is 0600 like every other there. The product itself keeps
no such file.
"""

import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from jumpserver.private_files import write_private_json

# Without 0 and o, 1, l and i: people will type these.
_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"
_GROUPS, _GROUP_LENGTH = 4, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonCard:
    """What one person of the demo signs in with; `totp_secret` is base32.

    `ssh_private_key` is the path of their key, None for those who never connect.
    """

    username: str
    password: str
    totp_secret: str
    role: str
    ssh_private_key: str | None


def make_password() -> str:
    """Return a random password of 99 bits that can be typed."""
    return "-".join(
        "".join(secrets.choice(_LETTERS) for _ in range(_GROUP_LENGTH))
        for _ in range(_GROUPS)
    )


def people_path(data_directory: Path) -> Path:
    """Return where the file is."""
    return data_directory / "people.json"


def write_people(data_directory: Path, people: list[PersonCard]) -> None:
    """Write the file, mode 0600."""
    write_private_json(people_path(data_directory), [asdict(card) for card in people])


def read_people(data_directory: Path) -> list[PersonCard]:
    """Read the file. Raises: OSError, ValueError, TypeError when it is not ours."""
    cards = json.loads(people_path(data_directory).read_bytes())
    return [PersonCard(**card) for card in cards]
