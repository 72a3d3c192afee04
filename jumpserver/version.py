"""The version of Sluice, as CHANGELOG.md names it."""

import re
from pathlib import Path

_CHANGELOG = Path(__file__).resolve().parent.parent / "CHANGELOG.md"


def _newest_version() -> str:
    found = re.search(
        r"^## \[?(\d[^\]\s]*)", _CHANGELOG.read_text("utf-8"), re.MULTILINE
    )
    if found is None:
        raise RuntimeError("CHANGELOG.md names no version")
    return found.group(1)


VERSION = _newest_version()
