"""An asset that tries to open channels of its own towards the engineer (story A7)."""

import asyncio
from contextlib import suppress

import asyncssh
import pytest

from apps.audit.models import AuditEvent
from apps.gateway.live import ASSET_REFUSALS
from tests.gateway.test_refusals import CHANNEL_KINDS, refused_kinds
from tests.gateway.test_sessions import ended_session
from tests.targets import Target, ssh_target


async def _reach_back(_: Target, process: asyncssh.SSHServerProcess[bytes]) -> None:
    """Ask for a channel of each kind, so often as the command says; print refusals."""
    connection = process.channel.get_connection()
    times = int(process.command or "1")
    refused = 0
    for _time in range(times):
        for kind, payload in CHANNEL_KINDS.items():
            channel = asyncssh.channel.SSHTCPChannel(
                connection, asyncio.get_running_loop(), None, "strict", 1 << 16, 1 << 15
            )
            with suppress(asyncssh.ConnectionLost):
                with pytest.raises(asyncssh.ChannelOpenError) as refusal:
                    await channel._open(kind.encode(), payload)
                refused += (
                    refusal.value.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED
                )
    with suppress(OSError):
        process.stdout.write(f"{refused}\n".encode())
        process.exit(0)


@pytest.fixture
def target_context():
    return ssh_target(_reach_back)


async def test_every_kind_is_refused_and_written_down(client):
    """R19, R27: from the asset's side, too; the session goes on."""
    await client.ask(client.here.grant)
    connection = await client.connect()
    result = await connection.run("1")
    assert result.stdout == f"{len(CHANNEL_KINDS)}\n"
    assert await refused_kinds(client, len(CHANNEL_KINDS)) == sorted(CHANNEL_KINDS)
    actors = await client.ask(
        lambda: set(
            AuditEvent.objects.filter(outcome="denied").values_list(
                "actor_label", flat=True
            )
        )
    )
    assert actors == {client.here.asset.name}


async def test_an_asset_that_does_not_stop_is_cut(client):
    await client.ask(client.here.grant)
    connection = await client.connect()
    with suppress(asyncssh.Error):
        await connection.run(str(ASSET_REFUSALS))
    session = await ended_session(client)
    assert session.end_reason == "target_lost"
    assert str(ASSET_REFUSALS) in session.end_detail
