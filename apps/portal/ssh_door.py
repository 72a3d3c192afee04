"""Where people reach the gateway with ssh, as shown on pages."""

from collections.abc import Iterable
from dataclasses import dataclass

from django.conf import settings

from apps.inventory.services import SFTP_SERVICES, ForwardDestination, Service
from apps.sessions.queries import running_gateways


@dataclass(frozen=True, slots=True, kw_only=True)
class SshDoor:
    """Host and port people give to ssh."""

    host: str
    port: int

    def command(self, person: str, asset: str, account: str | None = None) -> str:
        """Return the line that connects `person` to `asset`, ready to paste.

        Every part was checked when it was stored: none needs quoting in a shell.
        """
        who = "@".join(part for part in (person, account, asset) if part)
        port = "" if self.port == 22 else f"-p {self.port} "
        return f"ssh {port}{who}@{self.host}"

    def file_commands(
        self, person: str, asset: str, account: str | None, services: Iterable[str]
    ) -> tuple[str, ...]:
        """Return the lines that move files, for the rights among `services`."""
        given = SFTP_SERVICES & set(services)
        if not given:
            return ()
        who = "@".join(part for part in (person, account, asset) if part)
        port = "" if self.port == 22 else f"-P {self.port} "
        lines = [f"sftp {port}{who}@{self.host}"]
        if Service.SFTP_UP in given:
            lines.append(f"scp {port}FILE {who}@{self.host}:")
        if Service.SFTP_DOWN in given:
            lines.append(f"scp {port}{who}@{self.host}:FILE .")
        return tuple(lines)

    def jump_command(self, person: str, asset: str, account: str) -> str:
        """Return the line that connects through a jump, `ssh -J`."""
        return f"ssh -J {self.jump_host(person)} {account}@{asset}"

    def jump_host(self, person: str) -> str:
        """Return the gateway as `ssh -J` and ProxyJump take it."""
        port = "" if self.port == 22 else f":{self.port}"
        return f"{person}@{self.host}{port}"

    def forward_command(self, connect: str, destination: ForwardDestination) -> str:
        """Return the line that forwards a local port to `destination`.

        `connect` is what `command` returns. Ports below 1024 need root on most hosts.
        """
        port = destination.port
        local = port if port >= 1024 else port + 10_000
        options = f"ssh -N -L {local}:{destination} "
        return options + connect.removeprefix("ssh ")

    @property
    def known_hosts_name(self) -> str:
        """Return the host as OpenSSH's known_hosts names it (sshd(8))."""
        return self.host if self.port == 22 else f"[{self.host}]:{self.port}"


def ssh_door() -> SshDoor:
    """Return the door of the gateway that started last, else what is configured.

    The running gateway knows its port even when it was told to take a free one.
    """
    host, port = settings.SSH_PUBLIC_HOST or settings.SSH_HOST, settings.SSH_PORT
    gateway = running_gateways().first()
    if gateway is not None:
        _, _, text = gateway.ssh_address.rpartition(":")
        if text.isdigit():
            port = int(text)
    return SshDoor(host=host, port=port)
