"""`scada-01`: OpenSSH's own sshd, run as the calling user on a high port.

It trusts the site's user CA and maps the certificate principal `historian` to the
account that runs the demo. sshd reads the CA, principals and revoked-keys files at
every log-in, so they may be written while it runs. Where no sshd is usable,
`sshd_stand_in` takes its place.
"""

import asyncio
import contextlib
import grp
import os
import pwd
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import asyncssh

from jumpserver.demo import keeper
from jumpserver.demo.plant_files import (
    load_or_create_key,
    make_private_directory,
    public_line,
    write_private,
)
from jumpserver.demo.ssh_target import LOOPBACK

NAME = "scada-01"
PRINCIPAL = "historian"
START_SECONDS = 10.0
STOP_SECONDS = 6.0
PORT_ATTEMPTS = 5
PRIVILEGE_SEPARATION_DIRECTORY = Path("/run/sshd")


class SshdDidNotStart(RuntimeError):  # noqa: N818 - reads as the fact it states
    """sshd ended or stayed silent; the message holds the end of its log."""


class ScadaFiles:
    """The files of `scada-01`, the same for sshd and its stand-in."""

    def __init__(self, directory: Path) -> None:
        self.directory = make_private_directory(directory)
        self.user_ca = directory / "user_ca.pub"
        self.principals = directory / "principals"
        self.revoked_keys = directory / "revoked_keys"
        self.host_key = directory / "host_key"
        self.config = directory / "sshd_config"
        self.log = directory / "sshd.log"
        # A plant's server does not run what the owner of this account has in `.bashrc`,
        # and a session that is cut leaves nothing half done there.
        self.home = make_private_directory(directory / "home")
        self.public_line = public_line(
            load_or_create_key(self.host_key, "ssh-ed25519", comment=NAME)
        )
        for path in (self.user_ca, self.revoked_keys):
            # sshd refuses every key while the file of revoked keys is missing.
            if not path.exists():
                write_private(path, b"")
        write_private(self.principals, f"{PRINCIPAL}\n".encode())

    def describe(self, port: int, *, is_stand_in: bool) -> dict[str, Any]:
        """Return what `state.json` says of this asset."""
        return {
            "name": NAME,
            "kind": "scada_server",
            "address": LOOPBACK,
            "port": port,
            "host_key": self.public_line,
            "crypto_profile": "modern",
            "user_ca_file": str(self.user_ca),
            "revoked_keys_file": None if is_stand_in else str(self.revoked_keys),
            "log_file": str(self.log),
            "stand-in": is_stand_in,
            "accounts": [
                {
                    "login": calling_user(),
                    "principal": PRINCIPAL,
                    "credential_kind": "certificate",
                    "secret_file": None,
                }
            ],
        }


class OpenSshd:
    """The target: one sshd below a keeper that ends it and all its sessions."""

    name = NAME

    def __init__(self, directory: Path, binary: Path) -> None:
        self._files = ScadaFiles(directory)
        self._binary = binary
        self._keeper: asyncio.subprocess.Process | None = None
        self._port = 0

    async def start(self, wanted_port: int) -> int:
        """Start sshd on `wanted_port` if it is free, else on another; return it.

        sshd cannot bind port 0, so a free port is looked up first; somebody may take
        it meanwhile, hence several attempts. Raises: SshdDidNotStart.
        """
        make_privilege_separation_directory()
        reason = ""
        for _ in range(PORT_ATTEMPTS):
            self._port = find_free_port(wanted_port)
            write_private(self._files.config, self._configuration().encode())
            await self._spawn()
            try:
                async with asyncio.timeout(START_SECONDS):
                    await self._wait_for_banner()
            except (TimeoutError, SshdDidNotStart) as failure:
                await self.stop()
                reason = str(failure)
            else:
                return self._port
        raise SshdDidNotStart(f"{reason}\n{self._end_of_log()}")

    async def stop(self) -> None:
        """End sshd and every process of its sessions."""
        process, self._keeper = self._keeper, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    def describe(self) -> dict[str, Any]:
        """Return what `state.json` says of this asset."""
        return self._files.describe(self._port, is_stand_in=False)

    async def _spawn(self) -> None:
        with self._files.log.open("ab") as log:
            self._files.log.chmod(0o600)
            self._keeper = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-S",
                keeper.__file__,
                str(self._binary),
                "-D",
                "-e",
                "-f",
                str(self._files.config),
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def _wait_for_banner(self) -> None:
        while True:
            if self._keeper is None or self._keeper.returncode is not None:
                raise SshdDidNotStart("sshd ended at once")
            if await greets(LOOPBACK, self._port):
                return
            await asyncio.sleep(0.01)

    def _end_of_log(self) -> str:
        with contextlib.suppress(OSError):
            return self._files.log.read_text(errors="replace")[-2000:]
        return ""

    def _environment(self) -> dict[str, str]:
        """Return what sessions find in their environment, beside sshd's own."""
        return {"HOME": str(self._files.home)}

    def _configuration(self) -> str:
        files = self._files
        environment = " ".join(
            f'"{name}={value}"' for name, value in self._environment().items()
        )
        lines = [
            f"ListenAddress {LOOPBACK}",
            f"Port {self._port}",
            f"HostKey {_quoted(files.host_key)}",
            "PidFile none",
            f"UsePAM {'yes' if needs_pam() else 'no'}",
            "StrictModes no",
            "PermitRootLogin prohibit-password",
            f"AllowUsers {calling_user()}",
            "PubkeyAuthentication yes",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "AuthenticationMethods publickey",
            "AuthorizedKeysFile none",
            f"TrustedUserCAKeys {_quoted(files.user_ca)}",
            f"AuthorizedPrincipalsFile {_quoted(files.principals)}",
            f"RevokedKeys {_quoted(files.revoked_keys)}",
            "Subsystem sftp internal-sftp",
            "AcceptEnv LANG LC_*",
            f"SetEnv {environment}",
            "X11Forwarding no",
            "PrintMotd no",
            "PrintLastLog no",
            "UseDNS no",
            "LoginGraceTime 30",
            "MaxStartups 100:30:200",
            "LogLevel VERBOSE",
        ]
        return "\n".join(lines) + "\n"


def find_sshd() -> Path | None:
    """Return the sshd binary of this machine, or None."""
    # A user's PATH often lacks the sbin directories.
    found = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    return Path(found).resolve() if found else None


def choose_sshd() -> Path | None:
    """Return the sshd to run as the calling user, or None to use the stand-in.

    Without root sshd ends every session with a terminal unless terminals come in the
    group `tty` by themselves: a devpts mounted with gid=, as Debian does and a bare
    container may not.
    """
    binary = find_sshd()
    if binary is None or os.geteuid() == 0:
        return binary
    ours, theirs = os.openpty()
    try:
        group = os.fstat(theirs).st_gid
    finally:
        os.close(ours)
        os.close(theirs)
    try:
        wanted = grp.getgrnam("tty").gr_gid
    except KeyError:
        wanted = os.getegid()
    return binary if group == wanted else None


def calling_user() -> str:
    """Return the login name of the account that runs the demo."""
    return pwd.getpwuid(os.geteuid()).pw_name


def needs_pam() -> bool:
    """Return whether the calling user's account is locked for sshd without PAM.

    Without PAM sshd refuses accounts whose shadow password begins with `!`, which is
    how many installers leave root. Only root can see that, and only for root it counts:
    other users cannot read the shadow file, and neither can their sshd.
    """
    try:
        shadow = Path("/etc/shadow").read_text()
    except OSError:
        return False
    login = calling_user()
    return any(
        fields[0] == login and len(fields) > 1 and fields[1].startswith("!")
        for fields in (line.split(":") for line in shadow.splitlines())
    )


def make_privilege_separation_directory() -> None:
    """Make the empty directory that sshd wants when started as root."""
    if os.geteuid() == 0:
        PRIVILEGE_SEPARATION_DIRECTORY.mkdir(mode=0o755, exist_ok=True)


def find_free_port(wanted_port: int) -> int:
    """Return `wanted_port` if it can be bound on loopback now, else a free one."""
    for port in (wanted_port, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((LOOPBACK, port))
                found: int = probe.getsockname()[1]
                return found
    raise OSError("no free port on loopback")


async def greets(address: str, port: int) -> bool:
    """Return whether an SSH server answers there (RFC 4253 section 4.2)."""
    try:
        reader, writer = await asyncio.open_connection(address, port)
    except OSError:
        return False
    try:
        async with asyncio.timeout(START_SECONDS):
            return (await reader.readline()).startswith(b"SSH-2.0-")
    except (OSError, TimeoutError, ValueError):
        return False
    finally:
        writer.close()
        with contextlib.suppress(OSError, asyncssh.Error):
            await writer.wait_closed()


def _quoted(path: Path) -> str:
    """Return `path` as one sshd_config argument; `%` would be a token there."""
    return '"' + str(path).replace("%", "%%") + '"'
