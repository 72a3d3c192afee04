"""`lab-bench-01`: an asset outside every conduit, which nothing may ever reach.

It lets nobody in and writes down every connection, so that a test can prove that not
one byte arrived.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncssh

from jumpserver.demo.plant_files import (
    create_password,
    load_or_create_key,
    make_private_directory,
    public_line,
)
from jumpserver.demo.ssh_target import (
    LOOPBACK,
    MODERN_ALGORITHMS,
    TrackedServer,
    end_all,
    listen,
)

LOGIN = "bench"


class LabBench:
    """The target that must stay untouched."""

    name = "lab-bench-01"

    def __init__(self, directory: Path) -> None:
        make_private_directory(directory)
        self.touched = directory / "touched"
        self._password = directory / "bench_password"
        if not self._password.exists():
            create_password(self._password)
        self._host_key = load_or_create_key(
            directory / "host_key", "ssh-ed25519", comment=self.name
        )
        self._connections: set[asyncssh.SSHServerConnection] = set()
        self._acceptor: asyncssh.SSHAcceptor | None = None
        self._port = 0

    async def start(self, wanted_port: int) -> int:
        """Listen; return the port."""
        self._acceptor = await listen(
            wanted_port,
            lambda: _BenchServer(self._connections, self.touched),
            self._host_key,
            **MODERN_ALGORITHMS,
        )
        self._port = self._acceptor.get_port()
        return self._port

    async def stop(self) -> None:
        """End every connection."""
        await end_all(self._acceptor, self._connections)

    def describe(self) -> dict[str, Any]:
        """Return what `state.json` says of this asset."""
        return {
            "name": self.name,
            "kind": "engineering_workstation",
            "address": LOOPBACK,
            "port": self._port,
            "host_key": public_line(self._host_key),
            "crypto_profile": "modern",
            "touched_file": str(self.touched),
            "accounts": [
                {
                    "login": LOGIN,
                    "principal": None,
                    "credential_kind": "password",
                    "secret_file": str(self._password),
                }
            ],
        }


class _BenchServer(TrackedServer):
    """One forbidden connection: noted before a byte of it is read."""

    def __init__(
        self, connections: set[asyncssh.SSHServerConnection], touched: Path
    ) -> None:
        super().__init__(connections)
        self._touched = touched

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        super().connection_made(conn)
        host, port = conn.get_extra_info("peername")[:2]
        with self._touched.open("a", encoding="utf-8") as record:
            record.write(f"{datetime.now(UTC).isoformat()} {host} {port}\n")

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, *_: str) -> bool:
        return False


def count_touches(touched_file: Path) -> int:
    """Return how many connections were ever made to the bench."""
    try:
        return len(touched_file.read_text(encoding="utf-8").splitlines())
    except FileNotFoundError:
        return 0
