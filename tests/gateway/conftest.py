"""A running gateway, a person who may use it, and real SSH clients to come with.

The gateway runs in the test's own event loop, on the test database; targets run in a
thread, as other machines would.
"""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from django_otp.oath import TOTP

from apps.access.models import Grant
from apps.accounts import operations as accounts
from apps.accounts.models import User
from apps.gateway.limits import LoginLimits
from apps.gateway.service import GatewayService, GatewaySettings
from apps.gateway.upstream import UpstreamSettings
from apps.gateway.watchdog import WatchdogSettings
from apps.inventory.models import Asset, TargetAccount
from apps.vault import operations as vault
from apps.vault.secret_values import Secret
from tests import factories, openssh
from tests.targets import Target, echo_target, in_background

LOCAL = UpstreamSettings(
    tcp_seconds=3, kex_seconds=3, auth_seconds=5, allow_local_targets=True
)


@dataclass
class Person:
    """An engineer with an SSH key and one-time codes; each code works once."""

    user: User
    key: asyncssh.SSHKey
    codes: list[str]

    def code(self) -> str:
        return self.codes.pop()


def enrol(user: User) -> Person:
    """Give `user` a key and a second factor as the portal does."""
    now = factories.clock()
    key = asyncssh.generate_private_key("ssh-ed25519")
    accounts.add_key(
        user=user,
        name="laptop",
        text=key.export_public_key().decode(),
        by=user.party,
        now=now,
    )
    device = accounts.start_totp_enrolment(user=user)
    totp = TOTP(device.bin_key, device.step, device.t0, device.digits, device.drift)
    totp.time = now.timestamp()
    code = f"{totp.token():06d}"
    codes = accounts.confirm_totp_enrolment(user=user, code=code, now=now)
    return Person(user, key, codes)


@dataclass
class Here:
    """The plant, one asset of it that answers, and who may use it."""

    plant: factories.Plant
    target: Target
    asset: Asset
    account: TargetAccount
    engineer: Person

    def grant(self, **options: Any) -> Grant:
        """Let the engineer use the asset from now on."""
        return factories.grant(self.plant, account=self.account, **options)

    @property
    def address(self) -> str:
        """The user name to connect with."""
        return f"{self.engineer.user.username}@{self.asset.name}"


def reachable(
    plant: factories.Plant, name: str, target: Target, **fields: Any
) -> tuple[Asset, TargetAccount]:
    """Make an asset of the plant at `target`, host key pinned and credential kept."""
    kind, secret = "password", target.password or "unused"
    if target.client_key is not None and not target.password:
        kind = "key"
        secret = target.client_key.export_private_key("openssh").decode()
    asset, account = factories.asset_with_account(
        name,
        plant.cell,
        target.login,
        port=target.port,
        credential_kind=kind,
        **fields,
    )
    if target.host_key:
        factories.pin(
            asset,
            plant.administrator,
            plant.second_administrator,
            line=target.host_key,
        )
    vault.store_credential(
        account=account,
        kind=kind,
        secret=Secret(secret),
        by=plant.administrator.party,
        now=factories.clock(),
    )
    return asset, account


@pytest.fixture
def target_context() -> AbstractAsyncContextManager[Target]:
    """The target that `here` uses; override for odd ones."""
    return echo_target()


@pytest.fixture
def target(target_context) -> Iterator[Target]:
    with in_background(target_context) as running:
        yield running


@pytest.fixture
def asset_fields() -> dict[str, Any]:
    """Fields of the asset, such as its end mode."""
    return {}


@pytest.fixture
def here(transactional_db, target, asset_fields) -> Here:
    plant = factories.plant()
    asset, account = reachable(
        plant, f"target-{plant.site.slug}", target, **asset_fields
    )
    return Here(plant, target, asset, account, enrol(plant.engineer))


@pytest.fixture
def settings_of_gateway(tmp_path) -> GatewaySettings:
    return GatewaySettings(
        name="gateway-test",
        version="test",
        data_dir=tmp_path,
        login=LoginLimits(total=50, per_source=20, login_seconds=10),
        upstream=LOCAL,
        watchdog=WatchdogSettings(check_seconds=0.2, heartbeat_seconds=0.2),
        stop_seconds=0.2,
        # The targets here cannot change a password; tests of the vault do that.
        withdraws=False,
    )


@dataclass
class Client:
    """Comes to the gateway as an engineer's machine would."""

    service: GatewayService
    here: Here
    directory: Path
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    @property
    def port(self) -> int:
        return self.service.ssh_port

    @property
    def known_hosts(self) -> tuple[list[asyncssh.SSHKey], list[Any], list[Any]]:
        """The gateway's host key, for asyncssh."""
        return [asyncssh.import_public_key(self.service.host_key_line)], [], []

    async def ask(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run something that uses the database."""
        return await self.service.core.blocking.run(function, *args, **kwargs)

    async def connect(
        self,
        user_string: str | None = None,
        *,
        person: Person | None = None,
        code: str | None = None,
        **options: Any,
    ) -> asyncssh.SSHClientConnection:
        """Sign in with key and code; returns when authentication is complete."""
        person = person or self.here.engineer
        connection = await asyncssh.connect(
            "127.0.0.1",
            self.port,
            username=user_string or self.here.address,
            client_keys=[person.key],
            known_hosts=self.known_hosts,
            agent_path=None,
            config=None,
            **{
                "client_factory": lambda: CodeTyper(code or person.code()),
                **options,
            },
        )
        self._stack.push_async_callback(_close, connection)
        return connection

    def openssh(
        self,
        *command: str,
        user_string: str | None = None,
        person: Person | None = None,
        options: list[str] | None = None,
        program: str = "ssh",
    ) -> tuple[list[str], dict[str, str]]:
        """Return a command line of the stock client, and its environment."""
        person = person or self.here.engineer
        identity = self.directory / f"id-{person.user.username}"
        if not identity.exists():
            identity.touch(mode=0o600)
            identity.write_bytes(person.key.export_private_key("openssh"))
        askpass = self.directory / "askpass"
        askpass.write_text(f"#!/bin/sh\necho '{person.code()}'\n")
        askpass.chmod(0o700)
        line = openssh.ssh_command(
            self.directory,
            address="127.0.0.1",
            port=self.port,
            host_key=self.service.host_key_line,
            login=user_string or self.here.address,
            identity=identity,
            options=["-oBatchMode=no", *(options or [])],
            program=program,
        )
        line = [part for part in line if part != "-oBatchMode=yes"]
        environment = {
            **os.environ,
            "SSH_ASKPASS": str(askpass),
            "SSH_ASKPASS_REQUIRE": "force",
            "DISPLAY": ":0",
            "LC_ALL": "C.UTF-8",
        }
        return [*line, *command], environment

    async def run_openssh(
        self, *command: str, given: bytes = b"", seconds: float = 20, **options: Any
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the stock client to its end."""
        line, environment = self.openssh(*command, **options)
        process = await asyncio.create_subprocess_exec(
            *line,
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


async def _close(connection: asyncssh.SSHClientConnection) -> None:
    connection.abort()
    await connection.wait_closed()


class CodeTyper(asyncssh.SSHClient):
    """Answers the one prompt with a code and remembers what was asked."""

    def __init__(self, code: str) -> None:
        self.code = code
        self.prompts: list[str] = []
        self.lost: asyncio.Future[Exception | None] = (
            asyncio.get_running_loop().create_future()
        )

    def kbdint_auth_requested(self) -> str:
        return ""

    def kbdint_challenge_received(
        self, name: str, instructions: str, lang: str, prompts: Any
    ) -> list[str]:
        self.prompts += [prompt for prompt, _ in prompts]
        return [self.code for _ in prompts]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(exc)


@asynccontextmanager
async def running(settings: GatewaySettings) -> AsyncIterator[GatewayService]:
    service = GatewayService(settings)
    await service.start()
    try:
        yield service
    finally:
        await service.stop(0)


@pytest.fixture
async def client(here, settings_of_gateway, tmp_path) -> AsyncIterator[Client]:
    """A gateway that runs, as seen by the engineer."""
    async with running(settings_of_gateway) as service:
        client = Client(service, here, tmp_path)
        async with client._stack:
            yield client


async def until(
    question: Callable[[], Awaitable[Any]], seconds: float = 30, pause: float = 0.02
) -> Any:
    """Return the first true answer to `question`."""
    async with asyncio.timeout(seconds):
        while not (answer := await question()):  # noqa: ASYNC110
            await asyncio.sleep(pause)
    return answer
