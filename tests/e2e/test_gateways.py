"""Several gateways on one database: what the others do when one of them dies.

No worker, no beat and no broker: who notices is whoever still runs.
"""

import sys
import time
from collections.abc import Iterator

import pytest

from jumpserver.demo.scene import HMI, SCADA
from jumpserver.demo.ssh_client import SshChannel, SshConnection
from tests.e2e.production import Production, production, until
from tests.e2e.test_production import give_access, session_of
from tests.servers import postgresql, redis

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

LOST_SECONDS = 4
"""The default."""


@pytest.fixture(scope="module")
def plant(ssh_binary: str, sshd_binary: str) -> Iterator[Production]:
    if postgresql.binaries() is None:
        pytest.skip(postgresql.MISSING)
    if redis.binary() is None:
        pytest.skip(redis.MISSING)
    with production() as here:
        here.environment["SLUICE_GATEWAY_LOST_SECONDS"] = str(LOST_SECONDS)
        here.broker.stop()
        here.start("portal")
        yield here
        # Shown when a test has failed.
        sys.stdout.write(here.logs())


def work(
    plant: Production, username: str, asset: str
) -> tuple[SshConnection, SshChannel, str]:
    """Have somebody work on an asset through the gateway that was started last."""
    grant = give_access(plant, username, asset)
    connection = plant.ssh(username).connect(asset)
    channel = connection.open("cat", size=None)
    channel.type("here I am\n")
    channel.transcript.wait_for("here I am")
    return connection, channel, session_of(plant, grant, "ssh")


def ended_as(plant: Production, session: str, reason: str) -> bool:
    return bool(
        plant.rows(
            "select id from jump_sessions_session where id = %s and end_reason = %s",
            session,
            reason,
        )
    )


def test_another_gateway_puts_everything_in_order(plant: Production) -> None:
    """R23 and R29 as well: what was recorded is sealed, and the credential dies."""
    plant.start_gateway("gateway-a")
    connection, channel, session = work(plant, "vendor", HMI)
    shown = time.monotonic()
    plant.start_gateway("gateway-b")
    # The portal looks as well; here the other gateway is to be the only one left.
    plant.stop("portal")
    until(lambda: time.monotonic() - shown > 1.5, "the recording on the disk")
    plant.kill("gateway-a")
    channel.transcript.wait_for_end(seconds=10)
    connection.close()
    until(lambda: ended_as(plant, session, "gateway_lost"), "gateway lost")
    ((late, state),) = plant.rows(
        "select extract(epoch from s.ended_at - g.seen_at), s.state "
        "from jump_sessions_session s join jump_sessions_gatewaynode g "
        "on s.gateway_id = g.id where s.id = %s",
        session,
    )
    assert state == "ended"
    # From the last heartbeat: 4.0 to 4.8 s on an idle machine.
    assert LOST_SECONDS - 0.5 <= late < LOST_SECONDS + 10
    until(
        lambda: plant.rows(
            "select id from recordings_recording where session_id = %s "
            "and state = 'sealed' and sealed_how = 'recovered' and bytes_out >= 10",
            session,
        ),
        "the recording sealed by the other gateway",
    )
    until(
        lambda: plant.rows(
            "select l.id from vault_lease l join jump_sessions_session s "
            "on s.lease_id = l.id where s.id = %s and l.state = 'proved_dead'",
            session,
        ),
        "the lease proved dead by the other gateway",
        seconds=60,
    )
    # And the engineer goes on there, with the same grant.
    again = plant.ssh("vendor").connect(HMI)
    assert again.open("echo still served").exit_status() == 0
    again.close()
    assert plant.stop("gateway-b") == 0
    plant.start("portal")


def test_the_portal_notices_as_well(plant: Production) -> None:
    """It was the last gateway: nobody else is left to look."""
    plant.start_gateway("gateway-c")
    connection, channel, session = work(plant, "engineer", HMI)
    plant.kill("gateway-c")
    channel.transcript.wait_for_end(seconds=10)
    connection.close()
    until(lambda: ended_as(plant, session, "gateway_lost"), "gateway lost")
    until(
        lambda: plant.rows(
            "select id from recordings_recording where session_id = %s "
            "and state = 'sealed' and sealed_how = 'recovered'",
            session,
        ),
        "the recording sealed by the portal",
    )


def test_a_suspended_gateway_finds_itself_given_up(plant: Production) -> None:
    """A virtual machine that was paused: its sessions are over when it wakes up."""
    plant.start_gateway("gateway-d")
    connection, channel, session = work(plant, "engineer", SCADA)
    plant.pause("gateway-d")
    try:
        until(lambda: ended_as(plant, session, "gateway_lost"), "gateway lost")
    finally:
        plant.resume("gateway-d")
    channel.transcript.wait_for_end(seconds=15)
    connection.close()
    assert plant.wait_for_exit("gateway-d") == 0
    assert "given up for lost" in plant.log("gateway-d")
    # Its own end did not write over what the books say.
    assert ended_as(plant, session, "gateway_lost")
