"""Assets that cannot be connected to, each with its own line (R10, R26, R39, R34)."""

import dataclasses
import json
from typing import Any

import asyncssh
import pytest

from apps.audit.kinds import Kind
from apps.audit.models import AuditEvent
from apps.gateway.upstream import SENTENCES, UpstreamProblem
from apps.inventory import operations as inventory
from apps.sessions.models import Session
from apps.vault import operations as vault
from apps.vault.models import LeaseState
from apps.vault.secret_values import Secret
from tests import factories
from tests.gateway.conftest import Client, reachable, running, until
from tests.targets import (
    closing_target,
    echo_target,
    hanging_target,
    in_background,
)


async def refused_line(client, *problems: UpstreamProblem) -> str:
    """Connect with the stock client; return the ledger's detail of the refusal."""
    await client.ask(client.here.grant)
    result = await client.run_openssh("stdout x")
    assert result.returncode == 255
    said = [p for p in problems if f"Sluice: {SENTENCES[p]}".encode() in result.stderr]
    assert said, result.stderr

    def look():
        session = Session.objects.exclude(ended_at=None).select_related("lease").first()
        if session is None:
            return None
        assert session.end_reason == "target_lost"
        assert session.lease is None or session.lease.state != LeaseState.ISSUED
        return session.end_detail

    detail = await until(lambda: client.ask(look))
    assert detail.startswith(said[0].value)
    assert not client.service.core.live
    return detail


class TestHanging:
    @pytest.fixture
    def target_context(self):
        return hanging_target()

    async def test_an_asset_that_hangs_at_the_key_exchange(self, client, ssh_binary):
        def pin():
            factories.pin(
                client.here.asset,
                client.here.plant.administrator,
                client.here.plant.second_administrator,
            )

        await client.ask(pin)
        detail = await refused_line(client, UpstreamProblem.SILENT)
        assert "key exchange" in detail


class TestClosing:
    @pytest.fixture
    def target_context(self):
        return closing_target()

    async def test_an_asset_that_closes_at_once(self, client, ssh_binary):
        def pin():
            factories.pin(
                client.here.asset,
                client.here.plant.administrator,
                client.here.plant.second_administrator,
            )

        await client.ask(pin)
        await refused_line(client, UpstreamProblem.CLOSED_EARLY)


async def test_an_asset_that_is_not_there(client, ssh_binary, free_port):
    def move():
        client.here.asset.port = free_port
        client.here.asset.save(update_fields=["port"])

    await client.ask(move)
    await refused_line(client, UpstreamProblem.UNREACHABLE)


async def test_an_asset_without_a_route(client, ssh_binary):
    def move():
        client.here.asset.address = "192.0.2.7"
        client.here.asset.save(update_fields=["address"])

    await client.ask(move)
    await refused_line(client, UpstreamProblem.UNREACHABLE)


async def test_a_name_that_does_not_resolve(client, ssh_binary):
    def move():
        client.here.asset.address = "pump.invalid"
        client.here.asset.save(update_fields=["address"])

    await client.ask(move)
    await refused_line(client, UpstreamProblem.UNREACHABLE)


async def test_r10_a_changed_host_key_is_blocked_before_the_credential(
    client, ssh_binary
):
    """R10, R16: the pin is of another key, so nothing is sent."""

    def repin():
        plant = client.here.plant
        for key in client.here.asset.host_keys.all():
            inventory.remove_host_key(
                key_id=key.pk, by=plant.administrator.party, now=factories.clock()
            )
        factories.pin(
            client.here.asset, plant.administrator, plant.second_administrator
        )

    await client.ask(repin)
    await refused_line(client, UpstreamProblem.HOST_KEY_CHANGED)
    assert client.here.target.sessions == 0


async def test_r39_without_a_pin_nothing_reaches_the_port(client, ssh_binary):
    """R39: refused by the decision; no connection is made."""

    def unpin():
        client.here.grant()
        for key in client.here.asset.host_keys.all():
            inventory.remove_host_key(
                key_id=key.pk,
                by=client.here.plant.administrator.party,
                now=factories.clock(),
            )

    await client.ask(unpin)
    result = await client.run_openssh("stdout x")
    assert result.returncode == 255
    assert client.here.target.connections == 0


async def test_a_credential_that_the_asset_refuses(client, ssh_binary):
    def forget():
        vault.store_credential(
            account=client.here.account,
            kind="password",
            secret=Secret("not the password"),
            by=client.here.plant.administrator.party,
            now=factories.clock(),
        )

    await client.ask(forget)
    detail = await refused_line(client, UpstreamProblem.CREDENTIAL_REFUSED)
    assert "not the password" not in detail


async def test_r26_loopback_is_no_target_unless_a_setting_says_so(
    here, settings_of_gateway, tmp_path, settings, ssh_binary
):
    """R26: judged when dialling, also for a name that resolves there."""
    strict = dataclasses.replace(
        settings_of_gateway,
        upstream=dataclasses.replace(
            settings_of_gateway.upstream, allow_local_targets=False
        ),
    )
    async with running(strict) as service:
        client = Client(service, here, tmp_path)
        await client.ask(here.grant)
        for address in ("127.0.0.1", "localhost"):

            def move(address=address):
                here.asset.address = address
                here.asset.save(update_fields=["address"])

            await client.ask(move)
            result = await client.run_openssh("stdout x")
            assert result.returncode == 255
            said = f"Sluice: {SENTENCES[UpstreamProblem.ADDRESS_FORBIDDEN]}"
            assert said.encode() in result.stderr
    assert here.target.connections == 0


OLD: dict[str, Any] = {
    "kex_algs": ["diffie-hellman-group14-sha1"],
    "encryption_algs": ["aes128-cbc"],
    "mac_algs": ["hmac-sha1"],
    "signature_algs": ["ssh-rsa"],
    "server_version": "OldSwitch",
}


class TestOldDevice:
    @pytest.fixture
    def target_context(self):
        key = asyncssh.generate_private_key("ssh-rsa", key_size=2048)
        return echo_target(host_key=key, **OLD)

    async def test_r10_the_modern_profile_does_not_reach_it(self, client, ssh_binary):
        """R10: nothing is negotiated down."""
        # Both ends notice it; either may be the first to close.
        await refused_line(
            client,
            UpstreamProblem.NO_COMMON_ALGORITHM,
            UpstreamProblem.CLOSED_EARLY,
        )
        assert client.here.target.sessions == 0

    @pytest.mark.filterwarnings("ignore:Diffie-Hellman over finite fields")
    async def test_its_own_profile_does(self, client):
        def choose():
            client.here.asset.crypto_profile = "legacy-sha1"
            client.here.asset.save(update_fields=["crypto_profile"])
            client.here.grant()

        await client.ask(choose)
        connection = await client.connect()
        result = await connection.run("flood 300000", encoding=None)
        assert len(result.stdout) == 300_000
        live = next(iter(client.service.core.live.values()))
        upstream = live._upstream.connection
        assert upstream.get_extra_info("recv_cipher") == "aes128-cbc"


class TestNoStrictKex:
    @pytest.fixture
    def target_context(self, monkeypatch):
        monkeypatch.setattr(
            asyncssh.connection.SSHServerConnection,
            "_get_extra_kex_algs",
            lambda self: (
                [b"ext-info-s"]
                if type(self) is asyncssh.SSHServerConnection
                else [b"ext-info-s", b"kex-strict-s-v00@openssh.com"]
            ),
        )
        return echo_target()

    async def test_r34_an_asset_without_strict_key_exchange(self, client, ssh_binary):
        """R34: refused on the modern profile."""
        await refused_line(client, UpstreamProblem.NO_COMMON_ALGORITHM)


async def test_r38_only_the_pinned_kind_of_host_key_is_asked_for(client, monkeypatch):
    """R38: the KEXINIT towards the asset lists the pin's algorithms and no more."""
    offered = []
    original = asyncssh.connection.SSHServerConnection.choose_server_host_key

    def note(self, algorithms):
        if type(self) is asyncssh.connection.SSHServerConnection:
            offered.append(list(algorithms))
        return original(self, algorithms)

    monkeypatch.setattr(
        asyncssh.connection.SSHServerConnection, "choose_server_host_key", note
    )
    await client.ask(client.here.grant)
    connection = await client.connect()
    await connection.run("stdout x")
    assert offered == [[b"ssh-ed25519"]]


async def test_two_assets_are_never_mixed_up(client, transactional_db):
    """R16: each is dialled at its own address with its own pin and credential."""
    with in_background(echo_target()) as second:
        plant = client.here.plant

        def prepare():
            client.here.grant()
            asset, account = reachable(plant, "second-asset", second)
            factories.grant(plant, account=account)
            return asset.name

        name = await client.ask(prepare)
        me = client.here.engineer.user.username
        first_connection = await client.connect()
        second_connection = await client.connect(f"{me}@{name}")
        await first_connection.run("stdout x")
        await second_connection.run("stdout x")
        await second_connection.run("stdout x")
        assert (client.here.target.sessions, second.sessions) == (1, 2)


async def test_an_asset_that_vanishes_ends_the_session(client):
    await client.ask(client.here.grant)
    connection = await client.connect()
    process = await connection.create_process("cat")
    process.stdin.write("x")
    await process.stdout.readexactly(1)
    live = next(iter(client.service.core.live.values()))
    live._upstream.connection._transport.abort()
    result = await process.wait()
    assert "the asset closed the connection" in result.stderr
    assert result.exit_status == 255

    def look():
        return Session.objects.exclude(ended_at=None).first()

    session = await until(lambda: client.ask(look))
    assert session.end_reason == "target_lost"


async def test_channels_that_the_asset_opens_are_refused(client):
    """A compromised asset reaches neither the engineer nor the gateway (R27)."""
    await client.ask(client.here.grant)
    connection = await client.connect()
    await connection.create_process("cat")
    live = next(iter(client.service.core.live.values()))
    refused: list[str] = []
    live._upstream.connection.on_refused_channel = refused.append
    kinds = ["session", "x11", "auth-agent@openssh.com", "forwarded-tcpip", "nonsense"]
    for kind in kinds:
        live._upstream.connection._process_channel_open(
            0,
            0,
            asyncssh.packet.SSHPacket(
                asyncssh.packet.String(kind)
                + asyncssh.packet.UInt32(7)
                + asyncssh.packet.UInt32(1 << 20)
                + asyncssh.packet.UInt32(1 << 15)
            ),
        )
    assert refused == kinds
    assert len(live._upstream.connection._channels) == 1


async def test_no_secret_is_in_the_ledger(client):
    await client.ask(client.here.grant)
    connection = await client.connect()
    await connection.run("stdout x")
    password = client.here.target.password

    def look():
        return [
            event.kind
            for event in AuditEvent.objects.all()
            if password in json.dumps(event.data)
        ]

    assert await client.ask(look) == []
    assert Kind.LEASE_ISSUED in await client.ask(
        lambda: list(AuditEvent.objects.values_list("kind", flat=True))
    )


class TestClientLeaves:
    @pytest.fixture
    def target_context(self):
        return hanging_target()

    async def test_a_client_that_leaves_while_the_asset_hangs(self, client):
        """The dialling stops, and the row, lease and recording are settled."""

        def pin():
            factories.pin(
                client.here.asset,
                client.here.plant.administrator,
                client.here.plant.second_administrator,
            )
            client.here.grant()

        await client.ask(pin)
        connection = await client.connect()

        async def dialled():
            return client.here.target.connections

        await until(dialled)
        connection.abort()

        def look():
            session = Session.objects.exclude(ended_at=None).first()
            return session.end_reason if session else None

        assert await until(lambda: client.ask(look), seconds=2) == "client_lost"
        assert not await client.ask(Session.objects.live().exists)
