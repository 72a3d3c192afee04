"""Sessions through the running gateway, with asyncssh and OpenSSH as clients."""

import asyncio

import asyncssh
import pytest

from apps.sessions.models import Session
from tests.gateway.conftest import until


async def ended_session(client):
    return await until(
        lambda: client.ask(
            lambda: (
                Session.objects.exclude(ended_at=None).order_by("-opened_at").first()
            )
        )
    )


async def test_a_command_runs_and_its_parts_come_back(client):
    await client.ask(client.here.grant)
    connection = await client.connect()
    result = await connection.run("both hello")
    assert (result.stdout, result.stderr) == ("hello\n", "hello\n")
    assert result.exit_status == 0
    result = await connection.run("exit 7")
    assert result.exit_status == 7
    connection.close()
    session = await ended_session(client)
    assert session.end_reason == "finished"


async def test_stock_openssh_sees_one_prompt_and_the_exit_status(client, ssh_binary):
    await client.ask(client.here.grant)
    result = await client.run_openssh("exit 7")
    assert result.returncode == 7, result.stderr
    result = await client.run_openssh("stdout it works")
    assert result.stdout == b"it works\n", result.stderr
    assert result.returncode == 0
