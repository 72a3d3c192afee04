"""The engineer-facing port as a stranger's scanner and a stock client see it."""

import asyncio
import json
import shutil
import sys
from pathlib import Path

import pytest

from apps.audit.kinds import Kind
from apps.audit.models import AuditEvent
from apps.vault import operations as vault
from apps.vault.operations import VaultRefusedError
from tests.factories import SET_UP, clock
from tests.gateway.conftest import running, until

NO_POST_QUANTUM = "does not provide protection against post-quantum attacks"


def ssh_audit() -> str:
    beside = Path(sys.executable).with_name("ssh-audit")
    found = str(beside) if beside.exists() else shutil.which("ssh-audit")
    if not found:
        pytest.skip("no ssh-audit (it is among the development requirements)")
    return found


@pytest.mark.timeout(180)
async def test_ssh_audit_finds_nothing_but_old_clients_key_exchange(client):
    process = await asyncio.create_subprocess_exec(
        ssh_audit(),
        "--json",
        "--skip-rate-test",
        f"--port={client.port}",
        "127.0.0.1",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), 120)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    report = json.loads(out or b"{}")
    assert report.get("kex"), err
    assert report["banner"]["raw"] == "SSH-2.0-Sluice"
    assert report["kex"][0]["algorithm"] == "mlkem768x25519-sha256"
    assert not report["cves"]
    found = [
        (entry["algorithm"], level, text)
        for part in ("kex", "key", "enc", "mac")
        for entry in report[part]
        for level in ("fail", "warn")
        for text in entry["notes"].get(level, [])
    ]
    assert {name for name, _, _ in found} <= {
        "curve25519-sha256",
        "curve25519-sha256@libssh.org",
    }
    assert all(level == "warn" and NO_POST_QUANTUM in text for _, level, text in found)


def known(client) -> Path:
    return client.directory / f"known_hosts-{client.port}"


async def run_remembering(client, *command, keep=False):
    """Run stock ssh with a known_hosts of its own that it may write to."""
    before = known(client).read_text() if keep else ""
    line, environment = client.openssh(*command, options=["-oUpdateHostKeys=yes"])
    if keep:
        known(client).write_text(before)
    process = await asyncio.create_subprocess_exec(
        *line,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    out, err = await asyncio.wait_for(process.communicate(), 20)
    return process.returncode, out, err


def blobs(text: str) -> set[str]:
    """Return the keys of known_hosts lines or public lines, without names."""
    return {
        part
        for line in text.splitlines()
        for part in line.split()
        if part.startswith("AAAA")
    }


async def switch_and_follow(client):
    made = await client.ask(vault.switch_host_key, by=SET_UP, now=clock())

    async def followed():
        return client.service.host_key_line == made.public_line

    await until(followed)
    return made


async def test_a_stock_client_learns_the_next_key_before_it_is_used(
    client, settings_of_gateway, ssh_binary
):
    await client.ask(client.here.grant)
    old = client.service.host_key_line
    following = await client.ask(vault.prepare_host_key, by=SET_UP, now=clock())

    async def announced():
        return len(client.service._host_key_pairs) == 2

    await until(announced)
    code, out, err = await run_remembering(client, "stdout in")
    assert (code, out) == (0, b"in\n"), err
    assert blobs(known(client).read_text()) == blobs(f"{old}\n{following.public_line}")

    assert (await switch_and_follow(client)).pk == following.pk
    code, out, err = await run_remembering(client, "stdout in", keep=True)
    assert (code, out) == (0, b"in\n"), err
    # The old one is announced no more, so the client forgets it.
    assert blobs(known(client).read_text()) == blobs(following.public_line)


async def test_after_a_restart_the_new_key_is_the_one_that_was_learned(
    client, settings_of_gateway, ssh_binary
):
    await client.ask(client.here.grant)
    made = await client.ask(vault.prepare_host_key, by=SET_UP, now=clock())
    await client.ask(vault.switch_host_key, by=SET_UP, now=clock())
    await client.service.stop(0)
    async with running(settings_of_gateway) as again:
        assert again.host_key_line == made.public_line
        client.service = again
        code, out, err = await run_remembering(client, "stdout in")
        assert (code, out) == (0, b"in\n"), err


async def test_who_did_not_learn_it_is_warned(client, ssh_binary):
    await client.ask(client.here.grant)
    line, environment = client.openssh("stdout in")
    await client.ask(vault.prepare_host_key, by=SET_UP, now=clock())
    await switch_and_follow(client)
    process = await asyncio.create_subprocess_exec(
        *line,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    _, err = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 255
    assert b"REMOTE HOST IDENTIFICATION HAS CHANGED" in err


async def test_live_sessions_go_on_over_a_switch(client):
    await client.ask(client.here.grant)
    connection = await client.connect()
    process = await connection.create_process(encoding=None)
    await client.ask(vault.prepare_host_key, by=SET_UP, now=clock())
    await switch_and_follow(client)
    process.stdin.write(b"still here")
    assert await asyncio.wait_for(process.stdout.readexactly(10), 5) == b"still here"


async def test_each_step_is_in_the_ledger_and_none_is_skipped(client):
    with pytest.raises(VaultRefusedError, match="prepare one first"):
        await client.ask(vault.switch_host_key, by=SET_UP, now=clock())
    await client.ask(vault.prepare_host_key, by=SET_UP, now=clock())
    with pytest.raises(VaultRefusedError, match="switch to it first"):
        await client.ask(vault.prepare_host_key, by=SET_UP, now=clock())
    await client.ask(vault.switch_host_key, by=SET_UP, now=clock())

    def kinds():
        wanted = [Kind.GATEWAY_KEY_PREPARED, Kind.GATEWAY_KEY_SWITCHED]
        events = AuditEvent.objects.filter(kind__in=wanted).order_by("seq")
        return [event.kind for event in events]

    assert await client.ask(kinds) == [
        Kind.GATEWAY_KEY_PREPARED,
        Kind.GATEWAY_KEY_SWITCHED,
    ]
