"""R20: one hostile peer in each direction, on real sockets, against a real process.

Stock ssh that is stopped while the asset prints without end, and an asset that reads
nothing while the client sends without end.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from jumpserver.demo.scene import SCADA
from jumpserver.demo.ssh_client import SshChannel
from tests.e2e.production import Production, production, until
from tests.e2e.test_production import give_access
from tests.servers import postgresql, redis

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

MOST_GROWTH = 24 << 20
"""Above an idle gateway; 4 MB were seen for both directions together."""

WATCHED_SECONDS = 6.0


@pytest.fixture(scope="module")
def plant(ssh_binary: str, sshd_binary: str) -> Iterator[Production]:
    if postgresql.binaries() is None:
        pytest.skip(postgresql.MISSING)
    if redis.binary() is None:
        pytest.skip(redis.MISSING)
    with production() as here:
        here.broker.stop()
        here.start("portal")
        here.start("gateway")
        yield here
        # Shown when a test has failed.
        sys.stdout.write(here.logs())


def open_session(plant: Production, command: str) -> SshChannel:
    channel = plant.ssh("engineer").connect(f"historian@{SCADA}").open(command)
    channel.transcript.wait_for("ready")
    return channel


def watch(plant: Production, name: str, idle: int) -> None:
    """Look at the gateway for some seconds: it may not grow, and may not die."""
    end, grown = time.monotonic() + WATCHED_SECONDS, 0
    while time.monotonic() < end:
        now, peak = plant.memory("gateway")
        grown = peak - idle
        assert grown < MOST_GROWTH, f"{name}: {grown >> 20} MB above an idle gateway"
        time.sleep(0.2)
    sys.stdout.write(
        f"{name}: idle {idle >> 20} MB, now {now >> 20} MB, peak {peak >> 20} MB\n"
    )


def test_r20_memory_stays_bounded_in_both_directions(plant: Production) -> None:
    give_access(plant, "engineer", SCADA)
    # Everything that is loaded once is loaded.
    first = open_session(plant, "echo ready")
    assert first.exit_status() == 0
    first.close()
    idle, _ = plant.memory("gateway")

    printing = open_session(plant, "echo ready; cat /dev/zero")
    printing._process.send_signal(signal.SIGSTOP)  # type: ignore[attr-defined]
    try:
        watch(plant, "a client that does not read", idle)

        deaf = open_session(plant, "echo ready; sleep 1000")
        sent = 0

        def send() -> None:
            nonlocal sent
            with suppress(OSError):
                while True:
                    sent += os.write(deaf._terminal, bytes(65536))  # type: ignore[attr-defined]

        sender = threading.Thread(target=send, daemon=True)
        sender.start()

        def held_back() -> bool:
            before = sent
            time.sleep(0.5)
            return sent == before > 0

        until(held_back, "the client held back", seconds=60)
        watch(plant, "and an asset that does not read", idle)
        # Windows and buffers of the way hold it, not more.
        assert sent < 16 << 20
    finally:
        printing._process.send_signal(signal.SIGCONT)  # type: ignore[attr-defined]
    # A third works as if nothing were.
    third = open_session(plant, "echo ready; exit 5")
    assert third.exit_status() == 5
    for channel in (third, deaf, printing):
        channel.close()
    sender.join(10)
    until(
        lambda: (
            not plant.rows(
                "select id from jump_sessions_session where ended_at is null"
            )
        ),
        "all sessions ended",
    )
