"""The three ways to the same target, for the stock OpenSSH client.

All of them are entries of one `ssh_config`, so that the client's settings are the same
for all, also for the connection that `ProxyJump` makes by itself.
"""

import shutil
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from benchmarks.processes import LOOPBACK, BenchmarkError, wait_until
from benchmarks.product import ASSET, Product
from benchmarks.sshd import PROMPT, Sshd
from benchmarks.terminal import Terminal
from jumpserver.demo.sshd import calling_user

CIPHER = "aes128-gcm@openssh.com"
CODE_PROMPT = b"One-time code: "

_CONFIGURATION = """\
Host *
  HostName {address}
  User {user}
  Ciphers {cipher}
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
Host direct jump
  Port {target_port}
  HostKeyAlias target
  IdentityFile "{key}"
Host jump
  ProxyJump hop
Host hop
  Port {hop_port}
  HostKeyAlias hop
  IdentityFile "{key}"
Host sluice
  Port {gateway_port}
  HostKeyAlias gateway
"""


@dataclass(frozen=True, slots=True)
class Client:
    """The `ssh` of this machine with the configuration of this run."""

    binary: str
    configuration: Path

    def command(self, *arguments: str) -> list[str]:
        """Return a command line."""
        return [self.binary, "-F", str(self.configuration), *arguments]


def write_configuration(
    directory: Path, *, key: Path, target: Sshd, hop: Sshd, product: Product
) -> Client:
    """Write `ssh_config` and `known_hosts`; return the client that uses them."""
    binary = shutil.which("ssh")
    if binary is None:
        raise BenchmarkError(
            "there is no ssh on this machine (Debian: apt-get install openssh-client)"
        )
    known_hosts = directory / "known_hosts"
    known_hosts.write_text(
        f"target {target.host_key}\nhop {hop.host_key}\ngateway {product.host_key}\n"
    )
    configuration = directory / "ssh_config"
    configuration.write_text(
        _CONFIGURATION.format(
            address=LOOPBACK,
            user=calling_user(),
            cipher=CIPHER,
            known_hosts=known_hosts,
            key=key,
            target_port=target.port,
            hop_port=hop.port,
            gateway_port=product.port,
        )
    )
    return Client(binary, configuration)


class System(Protocol):
    """A way to the target."""

    @property
    def name(self) -> str:
        """Its entry in `ssh_config`, and its name in the result."""

    @property
    def client(self) -> Client:
        """The client that goes this way."""

    def options(self) -> list[str]:
        """Return options for one more log-in; they say who signs in, where needed."""

    def answer(self, terminal: Terminal) -> None:
        """Answer what the client asks for after it was started."""


@dataclass(frozen=True, slots=True)
class OpenSshSystem:
    """`ssh`, to the target itself or through the hop: a key is all it takes."""

    name: str
    client: Client

    def options(self) -> list[str]:
        """Return none."""
        return []

    def answer(self, terminal: Terminal) -> None:
        """Nothing is asked."""


class SluiceSystem:
    """`ssh` to the gateway: a key and a one-time code, another person each time."""

    name: Final = "sluice"

    def __init__(self, client: Client, product: Product) -> None:
        self.client: Final = client
        self._product = product
        self._code = ""

    def options(self) -> list[str]:
        """Take the next person and have their code ready."""
        person = self._product.person()
        self._code = person.codes.next_code()
        return ["-i", str(person.key), "-l", f"{person.username}@{ASSET}"]

    def answer(self, terminal: Terminal) -> None:
        """Type the code the moment it is asked for, as no person could."""
        terminal.wait_for(CODE_PROMPT)
        terminal.type(self._code.encode() + b"\n")


def start(system: System, *arguments: str) -> Terminal:
    """Start `ssh` on a terminal of its own and sign in; `arguments` as for ssh.

    Options come first in `arguments`, then a command if any, after `--`.
    """
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    options, command = arguments[:cut], arguments[cut + 1 :]
    terminal = Terminal(
        system.client.command(*system.options(), *options, system.name, *command)
    )
    try:
        system.answer(terminal)
    except BaseException:
        terminal.close()
        raise
    return terminal


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
            "-S", str(self._socket), *options, self.system.name, command
        )

    def heard(self) -> str:
        """Return what the connection's own client said, such as why it ended."""
        return self._terminal.heard()

    def __enter__(self) -> "OpenConnection":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def pause() -> None:
    """Let what the last log-in left behind come to its end on both sides."""
    time.sleep(0.15)
