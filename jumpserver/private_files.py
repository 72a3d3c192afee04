"""Writing files that only this user can read, whole or not at all."""

import json
import os
from pathlib import Path


def write_private_json(path: Path, value: object) -> None:
    """Write JSON that only this user can read, whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=2)
        file.write("\n")
    draft.replace(path)
