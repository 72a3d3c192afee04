"""Do the same with stock `ssh` twice, straight to a target and through the gateway.

What an engineer could tell apart is a defect: exit status, output, errors, what the
program on the target sees of its terminal and environment.
"""

import asyncio
import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from apps.accounts import operations as accounts
from apps.vault import operations as vault
from apps.vault.secret_values import Secret
from tests import factories, openssh
from tests.gateway.conftest import Client, Here, Person
from tests.servers.sshd import Sshd
from tests.targets import Target

SECONDS = 30.0

# Both differ from connection to connection, also without a gateway.
_CONNECTION = re.compile(rb"(?m)^(SSH_CLIENT|SSH_CONNECTION|SSH_TTY)=.*$")
_TTY = re.compile(rb"/dev/pts/\d+")
_GOODBYE = re.compile(rb"(?m)^(Shared connection|Connection) to \S+ closed\.\r?\n?")


@dataclass(frozen=True, slots=True)
class Seen:
    """What the engineer saw. On a terminal standard error is part of `output`."""

    status: int
    output: bytes
    errors: bytes = b""


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to do: a command, how `ssh` is called, and what it is given."""

    name: str
    command: Sequence[str] = ()
    options: Sequence[str] = ()
    given: bytes = b""
    environment: dict[str, str] = field(default_factory=dict)
    expects: Callable[[Seen], bool] | None = None
    """Holds for both, so that two equal failures do not pass."""


def normal(seen: Seen) -> Seen:
    """Return `seen` without what differs between any two connections."""

    def clean(text: bytes) -> bytes:
        text = _CONNECTION.sub(rb"\1", text)
        return _GOODBYE.sub(b"", _TTY.sub(b"/dev/pts/N", text))

    return Seen(seen.status, clean(seen.output), clean(seen.errors))


def account_of(sshd: Sshd) -> Target:
    """Return `sshd` as the fixtures know a target."""
    return Target(port=sshd.port, host_key=sshd.host_key, login=sshd.login)


def put_under_control(here: Here, sshd: Sshd) -> None:
    """Let the gateway sign in to `sshd` with its one key."""
    here.account.credential_kind = "key"
    here.account.save(update_fields=["credential_kind"])
    vault.store_credential(
        account=here.account,
        kind="key",
        secret=Secret(sshd.identity.read_text()),
        by=here.plant.administrator.party,
        now=factories.clock(),
    )


class Ways:
    """The two ways to one target."""

    def __init__(self, client: Client, sshd: Sshd, directory: Path) -> None:
        self.client = client
        self.sshd = sshd
        self.directory = directory

    async def direct(self, case: Case) -> tuple[list[str], dict[str, str]]:
        """Return the command line straight to the target, and its environment."""
        line = openssh.ssh_command(
            self.directory,
            address="127.0.0.1",
            port=self.sshd.port,
            host_key=self.sshd.host_key,
            login=self.sshd.login,
            identity=self.sshd.identity,
            options=list(case.options),
        )
        environment = {**os.environ, "LC_ALL": "C.UTF-8", **case.environment}
        return [*line, *case.command], environment

    async def through(self, case: Case) -> tuple[list[str], dict[str, str]]:
        """Return the command line through the gateway, and its environment."""
        person = await fresh_code(self.client)
        line, environment = self.client.openssh(
            *case.command, person=person, options=list(case.options)
        )
        return line, {**environment, **case.environment}

    async def both(self, case: Case) -> tuple[Seen, Seen]:
        """Do `case` both ways: direct, through the gateway."""
        lines = [await self.direct(case), await self.through(case)]
        seen = await asyncio.gather(*(run(*line, case.given) for line in lines))
        return normal(seen[0]), normal(seen[1])

    async def differences(self, cases: Sequence[Case]) -> list[str]:
        """Return one line for each of `cases` that is not the same both ways."""
        found = []
        for case in cases:
            direct, through = await self.both(case)
            if direct != through:
                found.append(
                    f"{case.name}:\n  direct  {_short(direct)}\n"
                    f"  gateway {_short(through)}"
                )
            elif case.expects is not None and not case.expects(direct):
                found.append(f"{case.name}: not as expected: {_short(direct)}")
        return found


async def fresh_code(client: Client) -> Person:
    """Return the engineer with at least one code that was not used yet."""
    person = client.here.engineer
    if not person.codes:
        person.codes += await client.ask(
            accounts.make_recovery_codes, user=person.user, now=factories.clock()
        )
    return person


async def run(
    line: Sequence[str],
    environment: dict[str, str],
    given: bytes = b"",
    seconds: float = SECONDS,
) -> Seen:
    """Run a client to its end, without a terminal."""
    process = await asyncio.create_subprocess_exec(
        *line,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(given), seconds)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return Seen(process.returncode, output, errors)


class OnTerminal:
    """A client on a terminal of its own, as a person has it."""

    def __init__(
        self,
        line: Sequence[str],
        environment: dict[str, str],
        *,
        columns: int = 97,
        rows: int = 31,
        settings: Sequence[str] = (),
    ) -> None:
        self._master, slave = pty.openpty()
        self.resize(columns, rows)
        if settings:
            subprocess.run(["stty", *settings], stdin=slave, check=True)
        os.set_blocking(self._master, False)
        self.received = b""
        self._more = asyncio.Event()
        self._over = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._master, self._read)
        self.process = subprocess.Popen(
            line,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**environment, "TERM": environment.get("TERM", "xterm-256color")},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)

    def resize(self, columns: int, rows: int) -> None:
        """Change the window; the client hears of it by itself."""
        size = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    def type(self, keys: bytes) -> None:
        """Send keys as typed."""
        os.write(self._master, keys)

    async def wait_for(self, text: bytes, seconds: float = SECONDS) -> None:
        """Return when `text` was shown."""
        try:
            async with asyncio.timeout(seconds):
                while text not in self.received and not self._over.is_set():
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            pass
        if text not in self.received:
            self.close()
            raise AssertionError(f"{text!r} never came: {self.received!r}")

    async def ended(self, seconds: float = SECONDS) -> Seen:
        """Return what was seen when the client has ended."""
        try:
            async with asyncio.timeout(seconds):
                await self._over.wait()
                status = await asyncio.to_thread(self.process.wait)
        except TimeoutError:
            raise AssertionError(f"never ended: {self.received!r}") from None
        finally:
            self.close()
        return Seen(status, self.received)

    def close(self) -> None:
        """End the client if it still runs."""
        if self._master >= 0:
            asyncio.get_running_loop().remove_reader(self._master)
            os.close(self._master)
            self._master = -1
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def _read(self) -> None:
        try:
            piece = os.read(self._master, 65536)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        self.received += piece
        self._more.set()
        if not piece:
            asyncio.get_running_loop().remove_reader(self._master)
            self._over.set()


def _short(seen: Seen) -> str:
    text = repr(seen)
    return text if len(text) < 1500 else f"{text[:700]} ... {text[-700:]}"
