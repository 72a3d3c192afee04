"""The real OpenSSH servers: the target, and the hop that `ssh -J` goes through.

Both run as the calling user on a free port of 127.0.0.1, with one configuration, apart
from what only the target needs: it also takes certificates of the site's authority,
for that is how the gateway signs in.
"""

import subprocess
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from benchmarks.processes import (
    LOOPBACK,
    BenchmarkError,
    KeptProcess,
    free_port,
    greets,
)
from jumpserver.demo.sshd import (
    calling_user,
    choose_sshd,
    make_privilege_separation_directory,
    needs_pam,
)

PRINCIPAL = "operator"
PROMPT = "sluice-bench> "

_START_SECONDS = 15.0
_START_FILES = (".profile", ".zshrc")


def make_key(path: Path) -> str:
    """Make an ed25519 key pair without passphrase at `path`; return its public line."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return path.with_name(f"{path.name}.pub").read_text().strip()


@dataclass(kw_only=True)
class Sshd:
    """One running sshd; a context manager.

    `home` becomes the home directory of its sessions: shells there start the same way
    on every machine and show `PROMPT`.
    """

    directory: Path
    authorized_key: str
    home: Path
    force_command: str = ""
    """Run instead of whatever is asked for (`ForceCommand`)."""
    port: int = 0
    host_key: str = ""

    def __post_init__(self) -> None:
        self.directory.mkdir(mode=0o700)
        self.host_key = make_key(self.directory / "host_key")
        self._file("authorized_keys").write_text(f"{self.authorized_key}\n")
        self._file("user_ca").write_text("")
        self._file("principals").write_text(f"{PRINCIPAL}\n")
        self._stack = ExitStack()

    def _file(self, name: str) -> Path:
        return self.directory / name

    def __enter__(self) -> Self:
        binary = choose_sshd()
        if binary is None:
            raise BenchmarkError(
                "there is no sshd that this user can run with terminals (Debian: "
                "apt-get install openssh-server, or run as root)"
            )
        make_privilege_separation_directory()
        self.port = free_port()
        configuration = self._file("sshd_config")
        configuration.write_text(self._configuration())
        kept = self._stack.enter_context(
            KeptProcess(
                [str(binary), "-D", "-e", "-f", str(configuration)],
                log=self._file("log"),
            )
        )
        kept.wait_until(lambda: greets(self.port), seconds=_START_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def trust_also(self, authority: str) -> None:
        """Take certificates of `authority`, a public line; read at each log-in."""
        with self._file("user_ca").open("a") as file:
            file.write(f"{authority}\n")

    def _configuration(self) -> str:
        settings = {
            "ListenAddress": LOOPBACK,
            "Port": str(self.port),
            "HostKey": f'"{self._file("host_key")}"',
            "PidFile": "none",
            "UsePAM": "yes" if needs_pam() else "no",
            "StrictModes": "no",
            "PermitRootLogin": "prohibit-password",
            "AllowUsers": calling_user(),
            "AuthenticationMethods": "publickey",
            "AuthorizedKeysFile": f'"{self._file("authorized_keys")}"',
            "TrustedUserCAKeys": f'"{self._file("user_ca")}"',
            "AuthorizedPrincipalsFile": f'"{self._file("principals")}"',
            "SetEnv": f'"HOME={self.home}"',
            "PrintMotd": "no",
            "PrintLastLog": "no",
            "UseDNS": "no",
            "MaxStartups": "200",
            "MaxSessions": "20",
            "LogLevel": "ERROR",
            "Subsystem": "sftp internal-sftp",
        }
        if self.force_command:
            settings["ForceCommand"] = self.force_command
        return "".join(f"{name} {value}\n" for name, value in settings.items())


def make_home(directory: Path) -> Path:
    """Return a new home directory whose shells show `PROMPT` and nothing else."""
    directory.mkdir(mode=0o700)
    for name in _START_FILES:
        (directory / name).write_text(f"PS1='{PROMPT}'\n")
    (directory / ".hushlogin").touch()
    return directory
