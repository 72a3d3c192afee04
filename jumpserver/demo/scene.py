"""What the steps of the story share: everybody's clients, and what was found so far."""

import dataclasses
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from jumpserver.demo.browser_terminal import BrowserStream
from jumpserver.demo.one_time_codes import CodeBook, step_now
from jumpserver.demo.portal_client import PortalClient
from jumpserver.demo.processes import DemoProcesses
from jumpserver.demo.ssh_client import SshChannel, SshClient, SshConnection
from jumpserver.demo.waterworks import ASSETS

HMI, SCADA, SWITCH, BENCH = "hmi-pump-01", "scada-01", "switch-old-01", "lab-bench-01"
ACCOUNTS = {asset.name: asset.account for asset in ASSETS}
REVOKE_SECONDS = 1.0


class DoesNotHoldError(AssertionError):
    """Something the product promises is not so; the message says what was found."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked, and what showed it."""

    checked: str
    evidence: str


@dataclass(kw_only=True)
class LiveAccess:
    """A connection of the story that goes on while other things happen."""

    connection: SshConnection
    terminal: SshChannel
    command: SshChannel | None = None
    browser: BrowserStream | None = None


@dataclass(kw_only=True)
class Found:
    """Identifiers and open ends that one step leaves to later ones."""

    request_path: str = ""
    grants: dict[tuple[str, str], str] = field(default_factory=dict)
    session_id: str = ""
    recording_id: str = ""
    engineer: LiveAccess | None = None
    vendor: LiveAccess | None = None
    vendor_deadline: float = 0.0
    streams: list[bytes] = field(default_factory=list)


class Scene:
    """The running demo and everybody's clients."""

    def __init__(
        self,
        processes: DemoProcesses,
        *,
        is_fresh: bool,
        note: Callable[[str], None],
    ) -> None:
        """`is_fresh`: nobody has used a code yet. `note` is told what is waited for,
        and "" when it has come.
        """
        self.processes = processes
        self.demo = processes.running()
        self.note = note
        self.found = Found()
        self.findings: list[Finding] = []
        self._temporary = tempfile.TemporaryDirectory(prefix="sluice-")
        self._directories = 0
        self.directory = Path(self._temporary.name)
        # Seeding has used a code of the half minute before; otherwise nobody knows.
        last = step_now() - (1 if is_fresh else 0)
        self._codes = {
            card.username: CodeBook.from_letters(card.totp_secret, last_step=last)
            for card in self.demo.people
        }
        self._portals: dict[str, PortalClient] = {}
        self._ssh: dict[str, SshClient] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close every client, whatever became of the story."""
        for access in (self.found.engineer, self.found.vendor):
            if access is None:
                continue
            if access.browser is not None:
                access.browser.close()
            access.connection.close()
        for portal in self._portals.values():
            portal.close()
        self._temporary.cleanup()

    def hold(self, condition: object, checked: str, evidence: object) -> None:
        """Note what was checked. Raises: DoesNotHoldError when it is not so."""
        if not condition:
            raise DoesNotHoldError(f"{checked}: {evidence}")
        self.findings.append(Finding(checked, str(evidence)))
        self.note("")

    def portal(self, username: str) -> PortalClient:
        """Return the person's browser, signed in with both factors."""
        if username not in self._portals:
            client = PortalClient(
                self.demo.portal_url,
                self.demo.person(username),
                self._codes_of(username),
            )
            self._portals[username] = client
            client.sign_in()
        return self._portals[username]

    def ssh(self, username: str) -> SshClient:
        """Return the person's SSH client."""
        if username not in self._ssh:
            # Short, since a socket's path in it may have 108 bytes at most (unix(7)).
            self._directories += 1
            directory = self.directory / str(self._directories)
            directory.mkdir(mode=0o700)
            self._ssh[username] = SshClient(
                self.demo,
                self.demo.person(username),
                self._codes_of(username),
                directory,
            )
        return self._ssh[username]

    def follow_restart(self) -> None:
        """Take over what changed with a restart of the product; people stay."""
        fresh = self.processes.running()
        self.demo = dataclasses.replace(fresh, people=self.demo.people)
        self._ssh.clear()

    def _codes_of(self, username: str) -> CodeBook:
        codes = self._codes[username]
        codes.waiting = lambda seconds: self.note(
            f"waiting {seconds:.0f} s for {username}'s next one-time code "
            "(each works once)"
        )
        return codes
