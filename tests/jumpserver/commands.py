"""`manage.py` as an administrator calls it: a process, an environment, an answer."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
_SECONDS = 60
_DROPPED = ("SLUICE_", "DJANGO_", "DATABASE_URL", "REDIS_URL")


def environment(data: Path, **settings: str) -> dict[str, str]:
    """Return an environment with these settings of Sluice and no other."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(_DROPPED)}
    return {**kept, "SLUICE_DATA_DIR": str(data), **settings}


def manage(
    *arguments: str, data: Path, given: str = "", **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run `manage.py` to its end and return all it said."""
    return subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), *arguments],
        env=environment(data, **settings),
        input=given,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )


def start(
    *arguments: str, data: Path, log: Path, **settings: str
) -> subprocess.Popen[bytes]:
    """Start `manage.py` and leave it running; the caller ends it."""
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "manage.py"), *arguments],
            env=environment(data, **settings),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
