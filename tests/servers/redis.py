"""A throw-away Redis server on a loopback port, holding nothing on disk."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from tests.servers import process

MISSING = "no redis-server on this machine (Debian: apt-get install redis-server)"


def binary() -> str | None:
    """Return the path of redis-server, or None."""
    return shutil.which("redis-server")


@contextmanager
def server() -> Iterator[str]:
    """Run a server and yield its `REDIS_URL`; RuntimeError when none is installed."""
    program = binary()
    if program is None:
        raise RuntimeError(MISSING)
    port = process.free_port()
    home = Path(tempfile.mkdtemp(prefix="sluice-redis-"))
    client = redis.Redis(host="127.0.0.1", port=port)

    def answers() -> bool:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False

    try:
        running = process.start(
            process.as_user(
                [
                    *(program, "--port", str(port), "--bind", "127.0.0.1"),
                    *("--save", "", "--appendonly", "no", "--dir", str(home)),
                ]
            ),
            log=home / "log",
            answers=answers,
        )
        try:
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.stop(running)
    finally:
        client.close()
        shutil.rmtree(home, ignore_errors=True)
