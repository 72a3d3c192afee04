"""The ways to the same target, for the stock OpenSSH client.

All of them are entries of one `ssh_config`, so that the client's settings are the same
for all, also for the connection that `ProxyJump` makes by itself.
"""

import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from benchmarks.processes import LOOPBACK, BenchmarkError, wait_until
from benchmarks.product import ASSET, Person, Product
from benchmarks.sshd import PROMPT, Sshd
from benchmarks.terminal import Terminal
from jumpserver.demo.sshd import calling_user

GCM = "aes128-gcm@openssh.com"
"""What the gateway and the client agree on; others are measured with it as well."""
CODE_PROMPT = b"One-time code: "

_CONFIGURATION = """\
Host *
  HostName {address}
  User {user}
  IdentitiesOnly yes
  IdentityAgent none
  PreferredAuthentications publickey,keyboard-interactive
  UserKnownHostsFile "{known_hosts}"
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  UpdateHostKeys no
  ConnectTimeout 15
  LogLevel ERROR
  # OpenSSH 9.5 and newer send keys in steps of 20 ms, which would be all one measures.
  IgnoreUnknown ObscureKeystrokeTiming
  ObscureKeystrokeTiming no
Host direct jump direct_gcm jump_gcm
  Port {target_port}
  HostKeyAlias target
  IdentityFile "{key}"
Host direct_gcm jump_gcm hop_gcm
  Ciphers {gcm}
Host jump
  ProxyJump hop
Host jump_gcm
  ProxyJump hop_gcm
Host hop hop_gcm
  Port {hop_port}
  HostKeyAlias hop
  IdentityFile "{key}"
"""
_ENTRY = """\
Host {name}
  Port {port}
  HostKeyAlias {name}
  IdentityFile "{key}"
"""


@dataclass(frozen=True, slots=True)
class Client:
    """The `ssh` of this machine with the configuration of this run."""

    start: tuple[str, ...]

    def command(self, *arguments: str) -> list[str]:
        """Return a command line."""
        return [*self.start, *arguments]


def write_configuration(
    directory: Path, *, key: Path, target: Sshd, hop: Sshd, doors: "Mapping[str, Door]"
) -> Client:
    """Write `ssh_config` and `known_hosts`; return the client that uses them.

    `doors` are the servers that lead on to the target by themselves.
    """
    binary = shutil.which("ssh")
    if binary is None:
        raise BenchmarkError(
            "there is no ssh on this machine (Debian: apt-get install openssh-client)"
        )
    known_hosts = directory / "known_hosts"
    known_hosts.write_text(
        f"target {target.host_key}\nhop {hop.host_key}\n"
        + "".join(f"{name} {door.host_key}\n" for name, door in doors.items())
    )
    configuration = directory / "ssh_config"
    configuration.write_text(
        _CONFIGURATION.format(
            address=LOOPBACK,
            user=calling_user(),
            gcm=GCM,
            known_hosts=known_hosts,
            key=key,
            target_port=target.port,
            hop_port=hop.port,
        )
        + "".join(
            _ENTRY.format(name=name, port=door.port, key=key)
            for name, door in doors.items()
        )
    )
    return Client((binary, "-F", str(configuration)))


class Door(Protocol):
    """A server that leads on to the target by itself."""

    port: int
    host_key: str


class System(Protocol):
    """A way to the target."""

    @property
    def name(self) -> str:
        """Its name in the result."""

    @property
    def client(self) -> Client:
        """The client that goes this way."""

    @property
    def share(self) -> float:
        """How much of the data, and of the rounds, it gets: less when it is slow."""

    def options(self) -> list[str]:
        """Return options for one more log-in; they say who signs in, where needed."""

    @property
    def destination(self) -> list[str]:
        """Return what follows the options: where to go."""


@dataclass(frozen=True, slots=True)
class OpenSshSystem:
    """An entry of `ssh_config`: a key is all it takes."""

    name: str
    client: Client
    share: float = 1.0

    def options(self) -> list[str]:
        """Return none."""
        return []

    @property
    def destination(self) -> list[str]:
        """Return the entry's name."""
        return [self.name]


@dataclass(frozen=True, slots=True)
class OtherSystem:
    """An endpoint somebody named: a whole `ssh` command with options and host."""

    name: str
    command: tuple[str, ...]
    share: float = 1.0

    @property
    def client(self) -> Client:
        """Return the command without its host."""
        return Client(self.command[:-1])

    def options(self) -> list[str]:
        """Return none."""
        return []

    @property
    def destination(self) -> list[str]:
        """Return its host."""
        return [self.command[-1]]


class SluiceSystem:
    """`ssh` to the gateway: a key, after one full sign-in with a one-time code.

    From then on the sign-in stands for the time of the zone's MFA grace, so that no
    person is in the log-ins.
    """

    share: Final = 1.0

    def __init__(self, name: str, client: Client, product: Product) -> None:
        self.name: Final = name
        self.client: Final = client
        self.product: Final = product
        self._person = product.person()
        sign_in_fully(self, self._person)

    def options(self) -> list[str]:
        """Say who signs in."""
        return _as(self._person)

    @property
    def destination(self) -> list[str]:
        """Return the entry's name."""
        return [self.name]


def _as(person: Person) -> list[str]:
    return ["-i", str(person.key), "-l", f"{person.username}@{ASSET}"]


def sign_in_fully(system: SluiceSystem, person: Person) -> None:
    """Sign in with key and one-time code, once."""
    code = person.codes.next_code().encode()
    command = system.client.command(*_as(person), *system.destination)
    with Terminal(command) as terminal:
        terminal.wait_for(CODE_PROMPT)
        terminal.type(code + b"\n")
        terminal.wait_for(PROMPT.encode())


def start(system: System, *arguments: str) -> Terminal:
    """Start `ssh` on a terminal of its own and sign in; `arguments` as for ssh.

    Options come first in `arguments`, then a command if any, after `--`.
    """
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    options, command = arguments[:cut], arguments[cut + 1 :]
    return Terminal(
        system.client.command(
            *system.options(), *options, *system.destination, *command
        )
    )


def log_in(system: System) -> float:
    """Sign in, wait for the shell's prompt, leave; return the seconds to the prompt."""
    with start(system) as terminal:
        return terminal.wait_for(PROMPT.encode()) - terminal.started


class OpenConnection:
    """A signed-in connection that takes commands (ControlMaster); a context manager.

    So transfers measure the transfer, not the log-in.
    """

    def __init__(self, system: System, directory: Path) -> None:
        self.system = system
        self._socket = directory / f"{system.name}.mux"
        self._stack = ExitStack()
        self._terminal = self._stack.enter_context(
            start(system, "-M", "-S", str(self._socket), "-N")
        )
        try:
            wait_until(self._socket.exists, f"the connection of {system.name}")
        except BaseException:
            self._stack.close()
            raise

    def command(self, command: str, *options: str) -> list[str]:
        """Return a command line that runs `command` over this connection."""
        return self.system.client.command(
            "-S", str(self._socket), *options, *self.system.destination, command
        )

    def forward(self, port: int) -> list[str]:
        """Return a command line that joins itself to `port` of the target."""
        return self.system.client.command(
            "-S",
            str(self._socket),
            "-W",
            f"{LOOPBACK}:{port}",
            *self.system.destination,
        )

    def sftp(self) -> list[str]:
        """Return a command line that takes SFTP commands on its standard input."""
        return [
            "sftp",
            *self.system.client.command()[1:],
            *("-o", f"ControlPath={self._socket}", "-b", "-"),
            *self.system.destination,
        ]

    def heard(self) -> str:
        """Return what the connection's own client said, such as why it ended."""
        return self._terminal.heard()

    def close(self) -> None:
        """End the connection."""
        self._stack.close()

    def __enter__(self) -> "OpenConnection":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def pause() -> None:
    """Let what the last log-in left behind come to its end on both sides."""
    time.sleep(0.15)
