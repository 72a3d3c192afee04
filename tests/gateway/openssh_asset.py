"""An asset that is OpenSSH's own sshd, with a home of its own for files and commands.

Import the fixtures by name in the test module: `sshd_asset` and `files` (the gateway in
front of it, as the engineer's machine sees it).
"""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from apps.inventory import operations as inventory
from apps.inventory.models import Asset, TargetAccount
from apps.inventory.services import SFTP_SERVICES
from apps.sessions.models import Session
from apps.vault import operations as vault
from apps.vault.secret_values import Secret
from jumpserver.demo.ssh_target import LOOPBACK
from jumpserver.demo.sshd import OpenSshd, calling_user
from tests import factories
from tests.gateway.conftest import Client, Here, enrol, running, until
from tests.targets import Target
from tests.vault.conftest import running as target_running

EVERY_RIGHT = ("exec", "shell", *sorted(SFTP_SERVICES))
SFTP_SERVER = Path("/usr/lib/openssh/sftp-server")


class KeySshd(OpenSshd):
    """Takes one key; SFTP and commands begin in `home`."""

    def __init__(self, directory: Path, binary: Path) -> None:
        super().__init__(directory / "sshd", binary)
        self.home = directory / "home"
        self.home.mkdir()
        self.keys = directory / "authorized_keys"
        self.key = asyncssh.generate_private_key("ssh-ed25519")
        self.keys.write_bytes(self.key.export_public_key())

    def _environment(self) -> dict[str, str]:
        return {**super()._environment(), "SLUICE_HOME": str(self.home)}

    def _configuration(self) -> str:
        text = super()._configuration()
        return text.replace(
            "AuthorizedKeysFile none", f"AuthorizedKeysFile {self.keys}"
        ).replace("internal-sftp", f"internal-sftp -d {self.home}")


@pytest.fixture
def sshd_asset(tmp_path: Path, sshd_binary: str) -> Iterator[KeySshd]:
    """The asset, running."""
    sshd = KeySshd(tmp_path, Path(sshd_binary))
    with target_running(sshd):
        yield sshd


@dataclass
class Files:
    """The engineer's machine, with a folder, before a gateway and an sshd behind it."""

    client: Client
    sshd: KeySshd
    asset: Asset
    account: TargetAccount
    local: Path

    @property
    def home(self) -> Path:
        """Where the account's files are on the asset."""
        return self.sshd.home

    @property
    def address(self) -> str:
        """The user name to connect with."""
        return f"{self.client.here.engineer.user.username}@{self.asset.name}"

    async def grant(self, *services: str) -> Any:
        """Let the engineer do exactly this from now on."""

        def make() -> Any:
            here = self.client.here
            inventory.change_conduit(
                conduit_id=here.plant.conduit.pk,
                services=list(EVERY_RIGHT),
                by=factories.SET_UP,
                now=factories.clock(),
            )
            return factories.grant(here.plant, account=self.account, services=services)

        return await self.client.ask(make)

    async def change(self, **changes: object) -> None:
        """Change the asset as an administrator does."""
        await self.client.ask(
            inventory.change_asset,
            asset_id=self.asset.pk,
            changes=changes,
            by=factories.SET_UP,
            now=factories.clock(),
        )

    async def run(
        self,
        program: str,
        *arguments: str,
        given: bytes = b"",
        options: Sequence[str] = (),
        seconds: float = 30,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run `sftp` or `scp` of OpenSSH in the local folder; `HOST:` stands for the
        asset in the arguments."""
        line, environment = self.client.openssh(
            program=program, options=list(options), user_string=self.address
        )
        host = line.pop()
        arguments = tuple(
            part.replace("HOST:", f"{host}:") if part != "HOST" else host
            for part in arguments
        )
        process = await asyncio.create_subprocess_exec(
            *line,
            *arguments,
            cwd=self.local,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(given), seconds)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise
        assert process.returncode is not None
        return subprocess.CompletedProcess(line, process.returncode, out, err)

    async def sftp(self, *commands: str, **options: Any) -> tuple[int, str]:
        """Run commands of a batch in stock `sftp`; return its status and what it said.

        A leading `-` lets the batch go on after a failure.
        """
        batch = "\n".join(commands).encode() + b"\n"
        done = await self.run(
            "sftp", "HOST", given=batch, options=["-b", "-"], **options
        )
        return done.returncode, (done.stdout + done.stderr).decode()

    async def settled(self) -> Session:
        """Return the newest session, once it has ended and is written down."""

        def ended() -> Session | None:
            session = Session.objects.order_by("-opened_at").first()
            done = session is not None and session.ended_at is not None
            return session if done else None

        session: Session = await until(lambda: self.client.ask(ended))
        return session


@pytest.fixture
async def files(
    transactional_db: None,
    sshd_asset: KeySshd,
    settings_of_gateway: Any,
    tmp_path: Path,
) -> AsyncIterator[Files]:
    """A gateway that runs, and the asset with an account that has a key."""

    def make() -> tuple[Here, Asset, TargetAccount]:
        plant = factories.plant()
        described = sshd_asset.describe()
        asset, account = factories.asset_with_account(
            f"files-{plant.site.slug}",
            plant.cell,
            calling_user(),
            port=described["port"],
            credential_kind="key",
        )
        line = " ".join(described["host_key"].split()[:2])
        factories.pin(asset, plant.administrator, plant.second_administrator, line=line)
        vault.store_credential(
            account=account,
            kind="key",
            secret=Secret(sshd_asset.key.export_private_key("openssh").decode()),
            by=plant.administrator.party,
            now=factories.clock(),
        )
        target = Target(port=described["port"], host_key=line, address=LOOPBACK)
        here = Here(plant, target, asset, account, enrol(plant.engineer))
        return here, asset, account

    local = tmp_path / "local"
    local.mkdir()
    async with running(settings_of_gateway) as service:
        here, asset, account = await service.core.blocking.run(make)
        client = Client(service, here, tmp_path)
        async with client._stack:
            yield Files(client, sshd_asset, asset, account, local)
