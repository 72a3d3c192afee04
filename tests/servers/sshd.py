"""A real OpenSSH server as a target, as strict or as old as a test wants it.

It runs as the calling user on a free port of 127.0.0.1, takes one key that it makes
itself, and dies with the test run.
"""

import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from jumpserver.demo.sshd import (
    calling_user,
    make_privilege_separation_directory,
    needs_pam,
)
from tests.servers import process

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Sshd:
    """A running sshd: where it is, its host key (public line), and who gets in.

    `identity` is the private key file of the only key it takes.
    """

    port: int
    host_key: str
    login: str
    identity: Path
    log: Path


@contextmanager
def running(
    directory: Path,
    binary: str,
    *,
    host_key: Sequence[str] = ("-t", "ed25519"),
    identity: Sequence[str] = ("-t", "ed25519"),
    settings: Mapping[str, str] | None = None,
) -> Iterator[Sshd]:
    """Run sshd in `directory`, which it fills.

    `host_key` and `identity` are arguments of ssh-keygen; `settings` are keywords of
    sshd_config, which take the place of those here. Raises ServerDidNotStartError.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    make_privilege_separation_directory()
    host_line = _make_key(directory / "host_key", host_key)
    line = _make_key(directory / "identity", identity)
    (directory / "authorized_keys").write_text(f"{line}\n")
    # Not what the owner of this account has in `.bashrc`: a shell that is cut in the
    # middle of that may leave a lock there which holds up every later one.
    home = directory / "home"
    home.mkdir(mode=0o700)
    port = process.free_port()
    given = {
        "ListenAddress": LOOPBACK,
        "Port": str(port),
        "HostKey": f'"{directory / "host_key"}"',
        "PidFile": "none",
        "UsePAM": "yes" if needs_pam() else "no",
        "StrictModes": "no",
        "PermitRootLogin": "prohibit-password",
        "AllowUsers": calling_user(),
        "AuthenticationMethods": "publickey",
        "AuthorizedKeysFile": f'"{directory / "authorized_keys"}"',
        "AcceptEnv": "LANG LC_*",
        "SetEnv": f'"HOME={home}"',
        "Subsystem": "sftp internal-sftp",
        "PrintMotd": "no",
        "PrintLastLog": "no",
        "UseDNS": "no",
        "LoginGraceTime": "60",
        "MaxStartups": "200",
        "LogLevel": "ERROR",
        **(settings or {}),
    }
    configuration = directory / "sshd_config"
    configuration.write_text(
        "".join(f"{key} {value}\n" for key, value in given.items())
    )
    log = directory / "log"
    server = process.start(
        process.as_user([binary, "-D", "-e", "-f", str(configuration)]),
        log=log,
        answers=lambda: greets(port),
    )
    try:
        yield Sshd(port, host_line, calling_user(), directory / "identity", log)
    finally:
        process.stop(server)


def _make_key(path: Path, arguments: Sequence[str]) -> str:
    subprocess.run(
        ["ssh-keygen", "-q", "-N", "", "-C", "", *arguments, "-f", str(path)],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return path.with_name(f"{path.name}.pub").read_text().strip()


def greets(port: int) -> bool:
    """Say whether an SSH server answers on `port`."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=5) as connection:
            return connection.recv(8).startswith(b"SSH-2.0-")
    except OSError:
        return False


def private_key(sshd: Sshd) -> asyncssh.SSHKey:
    """Return the key that gets in."""
    return asyncssh.read_private_key(sshd.identity)
