"""A throw-away PostgreSQL cluster; also runs a command with `DATABASE_URL` set to one.

`python -m tests.servers.postgresql -- pytest -m both_databases` starts a cluster, runs
the command on it and returns the command's exit status.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from tests.servers import process

MISSING = "no PostgreSQL server on this machine (Debian: apt-get install postgresql)"
_DATABASE = "sluice"


def binaries() -> Path | None:
    """Return the folder of the newest PostgreSQL server installed, or None."""
    found = [
        path.parent
        for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")
        if path.parent.parent.name.isdigit()
    ]
    if found:
        return max(found, key=lambda path: int(path.parent.name))
    initdb = shutil.which("initdb")
    return Path(initdb).resolve().parent if initdb else None


class Server:
    """A cluster that can be away for a while; it keeps its address and what it holds.

    It listens on a Unix socket in a private folder and on no port. As root it runs as
    the `postgres` account, because the server refuses root.
    """

    def __init__(self, folder: Path, home: Path) -> None:
        self._folder, self._home = folder, home
        self._user = "postgres" if os.geteuid() == 0 else None
        self._running: subprocess.Popen[bytes] | None = None
        self.url = f"postgresql://{_DATABASE}@/{_DATABASE}?host={quote(str(home))}"

    def create(self) -> None:
        """Make the cluster and its one database, and leave it running."""
        if self._user is not None:
            shutil.chown(self._home, self._user, self._user)
        _initialise(self._folder, self._home, self._user)
        self.start()
        subprocess.run(
            [self._folder / "createdb", "-h", self._home, "-U", _DATABASE, _DATABASE],
            check=True,
            cwd="/",
        )

    def start(self) -> None:
        """Start it; returns when it answers."""
        self._running = process.start(
            process.as_user(
                [
                    *(str(self._folder / "postgres"), "-D", str(self._home / "data")),
                    *("-c", "listen_addresses="),
                    *("-c", f"unix_socket_directories={self._home}"),
                    # Nothing here has to survive a power cut.
                    *("-c", "fsync=off", "-c", "synchronous_commit=off"),
                    *("-c", "full_page_writes=off", "-c", "max_connections=200"),
                ],
                self._user,
            ),
            log=self._home / "log",
            answers=lambda: _answers(self._folder, self._home),
        )

    def stop(self) -> None:
        """End it as an administrator would; whoever is connected is cut off."""
        if self._running is not None:
            process.stop(self._running)
            self._running = None


@contextmanager
def server() -> Iterator[Server]:
    """Run an empty cluster. Raises RuntimeError when no server is installed."""
    folder = binaries()
    if folder is None:
        raise RuntimeError(MISSING)
    home = Path(tempfile.mkdtemp(prefix="sluice-pg-"))
    running = Server(folder, home)
    try:
        running.create()
        yield running
    finally:
        running.stop()
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def cluster() -> Iterator[str]:
    """Run an empty cluster and yield its `DATABASE_URL`; raises as `server` does."""
    with server() as running:
        yield running.url


def _initialise(folder: Path, home: Path, user: str | None) -> None:
    command = [
        *(str(folder / "initdb"), "-D", str(home / "data"), "-U", _DATABASE),
        *("--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"),
    ]
    done = subprocess.run(
        process.as_user(command, user), capture_output=True, check=False, cwd="/"
    )
    if done.returncode:
        raise process.ServerDidNotStartError(done.stderr.decode(errors="replace"))


def _answers(folder: Path, home: Path) -> bool:
    return (
        subprocess.run(
            [folder / "pg_isready", "-q", "-h", home], check=False, cwd="/"
        ).returncode
        == 0
    )


def main(arguments: list[str]) -> int:
    """Run `arguments` (after an optional `--`) with `DATABASE_URL` of a new cluster."""
    command = arguments[1:] if arguments[:1] == ["--"] else arguments
    process.heed_interrupts()
    if binaries() is None:
        sys.stderr.write(f"not run on PostgreSQL: {MISSING}\n")
        return 0
    with cluster() as url:
        return subprocess.run(
            command, env={**os.environ, "DATABASE_URL": url}, check=False
        ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
