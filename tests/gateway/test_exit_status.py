"""The exit status reaches a client that has closed its side of the channel already.

On a shared connection (ControlMaster, as Ansible uses it) OpenSSH's client closes a
channel as soon as both directions have ended, which is often before the command itself
has. sshd then keeps its side open until it knows the status; so does the gateway.
"""

import asyncio

import pytest

from tests.gateway.conftest import until
from tests.targets import ssh_target

SECONDS_AFTER_OUTPUT = 0.3


async def _works_on_after_its_output(_, process):
    process.stdout.write(b"all said\n")
    process.stdout.write_eof()
    # What the scenario is about: the status comes later than the end of output.
    await asyncio.sleep(SECONDS_AFTER_OUTPUT)
    if process.command == "signal":
        process.exit_with_signal("TERM")
    else:
        process.exit(5)


@pytest.fixture
def target_context():
    return ssh_target(_works_on_after_its_output)


@pytest.fixture
def shared(tmp_path):
    """Options for a connection that stays open for a second after each command."""
    return [
        "-oControlMaster=auto",
        f"-oControlPath={tmp_path / 'mux'}",
        "-oControlPersist=1",
    ]


async def test_a_status_that_comes_after_the_end_of_output_is_not_lost(
    client, ssh_binary, shared
):
    await client.ask(client.here.grant)
    for _ in range(2):
        result = await client.run_openssh("status", options=shared)
        assert result.stdout == b"all said\n"
        assert result.returncode == 5, result.stderr


async def test_a_client_that_closed_early_leaves_nothing_open(
    client, ssh_binary, shared
):
    await client.ask(client.here.grant)
    result = await client.run_openssh("signal", options=shared)
    # What OpenSSH makes of a signal; it came after the client's own close.
    assert result.returncode == 255

    async def everybody_left() -> bool:
        return not client.service.core.live and not client.service._door.connections

    assert await until(everybody_left)
