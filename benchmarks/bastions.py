"""What others put before a target: OpenSSH with a recording ForceCommand, ssh-mitm.

Both get in with a key and go on to the target with a key of their own.
"""

import os
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from benchmarks.processes import (
    LOOPBACK,
    BenchmarkError,
    KeptProcess,
    free_port,
    greets,
)
from benchmarks.sshd import Sshd, make_key
from jumpserver.demo.sshd import calling_user

_START_SECONDS = 30.0
_INSTALL_SECONDS = 120.0

# With a terminal script(1) records the session. Without one it would put one in the
# way of the bytes, so tee(1) keeps both directions.
_FORCED = """\
#!/bin/bash
set -o pipefail
log=$(mktemp {recordings}/XXXXXXXXXX)
if [[ -n ${{SSH_TTY-}} ]]; then
  exec script -qefc 'ssh -F {configuration} -tt target ${{SSH_ORIGINAL_COMMAND:+\
"$SSH_ORIGINAL_COMMAND"}}' "$log"
fi
tee "$log.in" | ssh -F {configuration} -T target "${{SSH_ORIGINAL_COMMAND-}}" |
  tee "$log.out"
"""
_ONWARD = """\
Host target
  HostName {address}
  Port {port}
  User {user}
  IdentityFile "{key}"
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile "{known_hosts}"
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  LogLevel ERROR
"""


def openssh_bastion(
    directory: Path, *, key: Path, public_line: str, target: Sshd, home: Path
) -> Sshd:
    """Return an sshd that lets everybody on to the target, and records."""
    onward = directory.with_name(f"{directory.name}-onward")
    recordings = onward / "recordings"
    recordings.mkdir(parents=True, mode=0o700)
    known_hosts = onward / "known_hosts"
    known_hosts.write_text(f"[{LOOPBACK}]:{target.port} {target.host_key}\n")
    configuration = onward / "ssh_config"
    configuration.write_text(
        _ONWARD.format(
            address=LOOPBACK,
            port=target.port,
            user=calling_user(),
            key=key,
            known_hosts=known_hosts,
        )
    )
    forced = onward / "record"
    forced.write_text(
        _FORCED.format(configuration=configuration, recordings=recordings)
    )
    forced.chmod(0o700)
    return Sshd(
        directory=directory,
        authorized_key=public_line,
        home=home,
        force_command=str(forced),
    )


@dataclass(kw_only=True)
class SshMitm:
    """ssh-mitm from PyPI, installed into a directory of its own; a context manager."""

    directory: Path
    key: Path
    target: Sshd
    port: int = 0
    host_key: str = ""
    version: str = ""
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        self.directory.mkdir(mode=0o700)
        program = self._install()
        self.host_key = make_key(self.directory / "host_key")
        self.port = free_port()
        kept = self._stack.enter_context(
            KeptProcess(
                [
                    str(program),
                    "server",
                    *("--listen-address", LOOPBACK),
                    *("--listen-port", str(self.port)),
                    *("--remote-host", LOOPBACK),
                    *("--remote-port", str(self.target.port)),
                    *("--auth-username", calling_user()),
                    *("--auth-key", str(self.key)),
                    *("--host-key-ed25519", str(self.directory / "host_key")),
                    *("--session-log-dir", str(self.directory / "sessions")),
                    "--store-ssh-session",
                    "--accept-first-publickey",
                ],
                log=self.directory / "log",
                environment={**os.environ, "HOME": str(self.directory)},
            )
        )
        try:
            kept.wait_until(lambda: greets(self.port), seconds=_START_SECONDS)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _install(self) -> Path:
        """Return the program. Raises: BenchmarkError when it cannot be installed."""
        given = os.environ.get("BENCH_SSH_MITM", "")
        place = self.directory / "venv"
        program = Path(given) if given else place / "bin" / "ssh-mitm"
        try:
            if not given:
                _run([sys.executable, "-m", "venv", str(place)])
                _run([str(place / "bin" / "pip"), "install", "--quiet", "ssh-mitm"])
            self.version = _run([str(program), "--version"]).strip()
        except (OSError, subprocess.SubprocessError) as error:
            raise BenchmarkError(f"ssh-mitm cannot be installed: {error}") from error
        return program


def _run(command: list[str]) -> str:
    return subprocess.run(
        command,
        check=True,
        capture_output=True,
        text=True,
        timeout=_INSTALL_SECONDS,
        stdin=subprocess.DEVNULL,
    ).stdout
