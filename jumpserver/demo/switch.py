"""`switch-old-01`: an SSH server that speaks only the algorithms of 2004.

Key exchange group1/group14 with SHA-1, CBC ciphers, hmac-sha1, an RSA host key that
signs with SHA-1 only; password log-in, a shell and nothing else, one session at a
time. The password is changed in-band, as on the devices it stands for.
"""

import asyncio
import base64
import hashlib
import json
import secrets
from pathlib import Path
from typing import Any

import asyncssh

from jumpserver.demo.plant_files import (
    create_password,
    load_or_create_key,
    make_private_directory,
    public_line,
    write_private,
)
from jumpserver.demo.ssh_target import (
    LOOPBACK,
    TargetProcess,
    TrackedServer,
    end_all,
    listen,
)
from jumpserver.demo.switch_cli import Hangup, Line, SwitchCli, SwitchState

LOGIN = "admin"
LEGACY_ALGORITHMS: dict[str, Any] = {
    "kex_algs": ["diffie-hellman-group14-sha1", "diffie-hellman-group1-sha1"],
    "encryption_algs": ["aes128-cbc", "3des-cbc"],
    "mac_algs": ["hmac-sha1"],
    "compression_algs": ["none"],
    "signature_algs": ["ssh-rsa"],
}
# RFC 7914 section 2: N = 2^14, r = 8 takes 16 MiB and about 50 ms.
SCRYPT_N, SCRYPT_R, SCRYPT_P = 2**14, 8, 1


class OldSwitch:
    """The target: its password, its state and its SSH server."""

    name = "switch-old-01"

    def __init__(self, directory: Path) -> None:
        make_private_directory(directory)
        self._initial_password = directory / "admin_password"
        self._password_hash = directory / "admin.json"
        key = load_or_create_key(
            directory / "host_key", "ssh-rsa", comment=self.name, bits=2048
        )
        self._public_line = public_line(key)
        (self._host_key,) = asyncssh.load_keypairs([key])
        # asyncssh would also offer rsa-sha2-*, which devices of that age lack.
        self._host_key.host_key_algorithms = (b"ssh-rsa",)
        if not self._password_hash.exists():
            self._write_hash(create_password(self._initial_password))
        self._state = SwitchState()
        self._connections: set[asyncssh.SSHServerConnection] = set()
        self._acceptor: asyncssh.SSHAcceptor | None = None
        self._port = 0
        self._is_busy = False

    async def start(self, wanted_port: int) -> int:
        """Listen; return the port."""
        self._acceptor = await listen(
            wanted_port,
            lambda: _SwitchServer(self._connections, self),
            self._host_key,
            public_key_auth=False,
            kbdint_auth=False,
            **LEGACY_ALGORITHMS,
        )
        self._port = self._acceptor.get_port()
        return self._port

    async def stop(self) -> None:
        """End every session."""
        await end_all(self._acceptor, self._connections)

    def describe(self) -> dict[str, Any]:
        """Return what `state.json` says of this asset."""
        return {
            "name": self.name,
            "kind": "switch",
            "address": LOOPBACK,
            "port": self._port,
            "host_key": self._public_line,
            "crypto_profile": "legacy-sha1",
            "accounts": [
                {
                    "login": LOGIN,
                    "principal": None,
                    "credential_kind": "password",
                    "secret_file": str(self._initial_password),
                }
            ],
        }

    async def check_password(self, password: str) -> bool:
        """Return whether `password` is the one in force, in constant time."""
        return await asyncio.to_thread(self._compare, password)

    async def store_password(self, password: str) -> None:
        """Replace the password; durable when this returns."""
        await asyncio.to_thread(self._write_hash, password)

    async def serve(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        """Run the command line on the only line there is, or say that it is busy."""
        line = Line(process)
        try:
            if self._is_busy:
                await line.write("\nLine busy\n")
                process.exit(1)
                await process.wait_closed()
                process.get_extra_info("connection").close()
                return
            self._is_busy = True
            try:
                await SwitchCli(
                    line,
                    self._state,
                    check_password=self.check_password,
                    store_password=self.store_password,
                ).run()
            finally:
                self._is_busy = False
            process.exit(0)
        except (Hangup, OSError, asyncssh.ConnectionLost):
            process.close()

    def _compare(self, password: str) -> bool:
        kept = json.loads(self._password_hash.read_bytes())
        derived = _derive(password, base64.b64decode(kept["salt"]))
        return secrets.compare_digest(derived, base64.b64decode(kept["hash"]))

    def _write_hash(self, password: str) -> None:
        salt = secrets.token_bytes(16)
        kept = {
            "salt": base64.b64encode(salt).decode(),
            "hash": base64.b64encode(_derive(password, salt)).decode(),
        }
        write_private(self._password_hash, json.dumps(kept).encode())


class _SwitchServer(TrackedServer):
    """One connection to the switch."""

    def __init__(
        self, connections: set[asyncssh.SSHServerConnection], switch: OldSwitch
    ) -> None:
        super().__init__(connections)
        self._switch = switch

    def password_auth_supported(self) -> bool:
        return True

    async def validate_password(self, username: str, password: str) -> bool:
        matches = await self._switch.check_password(password)
        return matches and username == LOGIN

    def session_requested(self) -> TargetProcess:
        return TargetProcess(self._switch.serve, allows_exec=False)


def _derive(password: str, salt: bytes) -> bytes:
    """Return the 32 bytes of scrypt (RFC 7914) over the UTF-8 password."""
    return hashlib.scrypt(
        password.encode("utf-8", "surrogatepass"),
        salt=salt,
        n=SCRYPT_N,
        r=SCRYPT_R,
        p=SCRYPT_P,
        dklen=32,
    )
