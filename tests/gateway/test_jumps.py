"""`ssh -J me@gateway account@asset`: controlled and recorded, never a blind pipe.

R3, R19, R25, R27, R34.
"""

import asyncio
import json
import secrets

import asyncssh
import pytest

from apps.access import authorization
from apps.access import operations as access
from apps.access.denials import DenialCode
from apps.accounts import operations as accounts
from apps.accounts import queries as people
from apps.accounts import ssh_sign_in
from apps.audit.kinds import Kind
from apps.audit.models import AuditEvent
from apps.gateway import jumps
from apps.gateway.inner_engineer import InnerEngineer
from apps.gateway.jumps import JUMP_LIMIT, NO_ASSET_LINE
from apps.recordings.frames import EventKind
from apps.sessions.models import Session
from apps.vault import operations as vault
from apps.vault.models import ServiceKeyPurpose
from tests import factories
from tests.gateway.conftest import enrol, reachable, until
from tests.gateway.forwards import HOST, carry, destination, echo, grant_forwards
from tests.gateway.test_refusals import refused_kinds
from tests.gateway.test_sessions import ended_session, joined, kinds, recorded
from tests.servers import sshd
from tests.targets import Target


@pytest.fixture
def target(tmp_path, sshd_binary):
    with sshd.running(tmp_path / "sshd", sshd_binary) as running:
        yield Target(
            port=running.port,
            host_key=running.host_key,
            login=running.login,
            client_key=sshd.private_key(running),
        )


async def authority_line(client):
    key = await client.ask(
        vault.service_key, ServiceKeyPurpose.JUMP_AUTHORITY, now=factories.clock()
    )
    return key.public_line


async def jump_command(client, *command, to=None, options=(), person=None):
    """A stock `ssh -J` whose known_hosts trusts the gateway's authority for assets."""
    person = person or client.here.engineer
    line, environment = client.openssh(person=person)
    identity = line[line.index("-i") + 1]
    known_hosts = client.directory / "known_hosts-jump"
    known_hosts.write_text(
        f"[{HOST}]:{client.port} {client.service.host_key_line}\n"
        f"@cert-authority target-*,*.{client.here.plant.site.slug} "
        f"{await authority_line(client)}\n"
    )
    config = client.directory / "config-jump"
    config.write_text(
        f"""Host *
  UserKnownHostsFile {known_hosts}
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  IdentityFile {identity}
  IdentitiesOnly yes
  IdentityAgent none
  ConnectTimeout 10
"""
    )
    to = to or f"{client.here.account.name}@{client.here.asset.name}"
    gateway = f"{person.user.username}@{HOST}:{client.port}"
    return ["ssh", "-F", config, "-J", gateway, *options, to, *command], environment


async def run_jump(client, *command, given=b"", program=None, **options):
    line, environment = await jump_command(client, *command, **options)
    process = await asyncio.create_subprocess_exec(
        *map(str, line),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    out, err = await asyncio.wait_for(process.communicate(given), 30)
    return process.returncode, out, err


async def outer(client, person=None):
    """A connection that signed in by the handle alone."""
    person = person or client.here.engineer
    return await client.connect(person.user.username, person=person)


async def inner(client, connection, *, to=None, account=None, port=22, **options):
    """A connection through `connection`, which trusts only the authority."""
    authority = asyncssh.import_public_key(await authority_line(client))
    return await connection.connect_ssh(
        to or client.here.asset.name,
        port,
        username=client.here.account.name if account is None else account,
        known_hosts=([], [authority], []),
        client_keys=None,
        agent_path=None,
        config=None,
        **options,
    )


def denied_codes():
    events = AuditEvent.objects.filter(kind=Kind.CONNECTION_DENIED).order_by("seq")
    return [json.loads(event.data)["code"] for event in events]


async def test_a_jump_is_an_ordinary_session(client, ssh_binary):
    """Decided on, recorded, closed; stock ssh trusts the certificate."""
    await client.ask(client.here.grant)
    code, out, err = await run_jump(client, "echo out; echo err >&2; exit 7")
    assert (code, out) == (7, b"out\n"), err
    assert err.endswith(b"err\n")
    session = await ended_session(client)
    assert session.end_reason == "finished"
    assert session.source_address == HOST
    events = await client.ask(recorded, session)
    assert joined(events, EventKind.OUTPUT) == b"out\n"
    written = await client.ask(kinds)
    assert written.count(Kind.SIGNED_IN) == 1
    assert written.count(Kind.CONNECTION_ALLOWED) == 1


async def test_the_name_of_the_site_may_be_added(client, ssh_binary):
    await client.ask(client.here.grant)
    slug = client.here.plant.site.slug
    to = f"{client.here.account.name}@{client.here.asset.name}.{slug}"
    code, out, err = await run_jump(client, "echo out", to=to)
    assert (code, out) == (0, b"out\n"), err
    code, _, err = await run_jump(client, "echo out", to=to + "x")
    assert code == 255
    assert authorization.NO_ACCESS_MESSAGE.encode() in err


async def test_ten_megabytes_go_through_both_ways(client, ssh_binary):
    """Flow control through both connections."""
    sent = secrets.token_bytes(10 << 20)
    await client.ask(client.here.grant)
    code, out, err = await run_jump(client, "cat", given=sent)
    assert code == 0, err
    assert out == sent


async def test_forwards_work_inside_a_jump(client):
    """Every kind of channel goes the ordinary way, with the grant's services."""
    async with destination(echo) as there, destination(echo) as other:
        await client.ask(grant_forwards, client.here, there.service)
        connection = await inner(client, await outer(client))
        reader, writer = await connection.open_connection(HOST, there.port)
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.open_connection(HOST, other.port)
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.run("echo not granted")
        connection.abort()
    assert other.connections == 0


async def test_r19_unknown_and_forbidden_assets_are_answered_alike(client, ssh_binary):
    """R19: also with a wrong account; and nothing is dialled."""
    await client.ask(client.here.grant)
    plant = client.here.plant
    _, foreign = await client.ask(
        reachable, plant, f"target-foreign-{plant.site.slug}", client.here.target
    )
    said = set()
    for to in (
        "x@no-such-asset",
        f"x@{foreign.asset.name}",
        f"root@{HOST}",
        f"root@{plant.unreachable.name}",
    ):
        code, out, err = await run_jump(client, "id", to=to)
        assert (code, out) == (255, b"")
        [line] = [one for one in err.splitlines() if b"Sluice: " in one]
        said.add(line.partition(b"Sluice: ")[2])
    assert said == {authorization.NO_ACCESS_MESSAGE.encode()}
    code, out, err = await run_jump(
        client, "id", to=f"somebody-else@{client.here.asset.name}"
    )
    assert (code, out) == (255, b"")
    assert authorization.NO_ACCESS_MESSAGE.encode() in err
    codes = await client.ask(denied_codes)
    assert sorted(codes) == sorted(
        [DenialCode.UNKNOWN_ASSET] * 2 + [DenialCode.NO_GRANT] * 3
    )
    assert not await client.ask(Session.objects.exists)


@pytest.mark.parametrize("account", ["", "a b", "../x", "%u", "x" * 300])
async def test_r37_an_odd_account_is_one_that_does_not_exist(client, account):
    await client.ask(client.here.grant)
    connection = await outer(client)

    async def knock():
        through = await inner(client, connection, account=account)
        await through.run("id")

    with pytest.raises((asyncssh.Error, OSError)):
        await knock()
    assert not await client.ask(Session.objects.exists)


async def test_the_own_handle_stands_for_the_only_account(client, ssh_binary):
    """`ssh -J me@gateway asset` sends the local name, often the person's handle."""
    await client.ask(client.here.grant)
    me = client.here.engineer.user.username
    code, out, err = await run_jump(
        client, "echo out", to=f"{me.upper()}@{client.here.asset.name}"
    )
    assert (code, out) == (0, b"out\n"), err


async def test_a_handle_alone_opens_nothing_else(client, ssh_binary):
    """No shell, no forward, no listening: nothing of the gateway's own (R25)."""
    async with destination(echo) as there:
        await client.ask(carry, client.here, there.service)
        await client.ask(client.here.grant)
        connection = await outer(client)
        for asked in ({"command": "id"}, {"subsystem": "sftp"}):
            with pytest.raises(asyncssh.ChannelOpenError):
                await connection.run(**asked)
        for host, port in ((HOST, there.port), (HOST, client.port), ("", 22)):
            with pytest.raises(asyncssh.ChannelOpenError):
                await connection.open_connection(host, port)
        with pytest.raises(asyncssh.ChannelOpenError) as refusal:
            await connection.open_connection(client.here.asset.name, 80)
        assert "is reached on port 22 here" in refusal.value.reason
        with pytest.raises(asyncssh.ChannelListenError):
            await connection.forward_remote_port("", 0, HOST, 1)
        refused = await refused_kinds(client, 7)
        assert sorted(refused) == [
            *["direct-tcpip"] * 4,
            "exec",
            "subsystem sftp",
            "tcpip-forward",
        ]
    assert there.connections == 0
    assert not await client.ask(Session.objects.exists)
    result = await client.run_openssh(user_string=client.here.engineer.user.username)
    assert result.returncode == 255
    assert NO_ASSET_LINE.encode() in result.stderr


async def test_a_session_forward_to_an_assets_name_is_no_jump(client):
    await client.ask(client.here.grant)
    connection = await client.connect()
    with pytest.raises(asyncssh.ChannelOpenError) as refusal:
        await connection.open_connection(client.here.asset.name, 22)
    assert "the grant does not include a forward to" in refusal.value.reason


async def test_jumps_share_a_connection_up_to_the_limit(client):
    """Each with a session of its own; one that ends makes room."""
    await client.ask(client.here.grant)
    connection = await outer(client)
    inside = [await inner(client, connection) for _ in range(JUMP_LIMIT)]
    with pytest.raises(asyncssh.ChannelOpenError) as refusal:
        await inner(client, connection)
    assert f"at most {JUMP_LIMIT} jumps" in refusal.value.reason
    results = await asyncio.gather(*(one.run("echo x") for one in inside))
    assert [result.stdout for result in results] == ["x\n"] * JUMP_LIMIT
    assert len(client.service.core.live) == JUMP_LIMIT
    inside[0].close()
    await inside[0].wait_closed()

    async def has_room():
        return len(client.service.core.live) < JUMP_LIMIT

    await until(has_room)
    again = await inner(client, connection)
    assert (await again.run("echo again")).stdout == "again\n"


async def test_the_end_of_the_outer_connection_ends_what_is_inside(client):
    await client.ask(client.here.grant)
    connection = await outer(client)
    through = await inner(client, connection)
    process = await through.create_process("cat")
    connection.abort()
    await asyncio.wait_for(process.wait_closed(), 10)
    session = await ended_session(client)
    assert session.end_reason in {"client_lost", "finished"}

    async def nothing_left():
        return not client.service._door.connections

    await until(nothing_left)


async def test_a_revocation_reaches_through_the_jump(client, ssh_binary):
    grant = await client.ask(client.here.grant)
    line, environment = await jump_command(client, "cat")
    process = await asyncio.create_subprocess_exec(
        *map(str, line),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    process.stdin.write(b"before\n")
    assert await asyncio.wait_for(process.stdout.readline(), 20) == b"before\n"
    await client.ask(
        access.revoke_grant,
        grant_id=grant.pk,
        by=client.here.plant.approver,
        reason="shift ends",
        now=factories.clock(),
    )
    _, err = await asyncio.wait_for(process.communicate(), 10)
    assert process.returncode == 255
    assert b"shift ends" in err
    assert (await ended_session(client)).end_reason == "revoked"


async def test_a_removed_key_opens_no_further_jump(client):
    await client.ask(client.here.grant)
    connection = await outer(client)
    through = await inner(client, connection)
    user = client.here.engineer.user

    def remove():
        for key in people.keys_of(user):
            accounts.remove_key(key_id=key.pk, user=user, now=factories.clock())

    await client.ask(remove)
    with pytest.raises(asyncssh.ChannelOpenError) as refusal:
        await inner(client, connection)
    assert "Your sign-in no longer counts" in refusal.value.reason
    through.close()


async def test_r28_what_ends_graces_ends_what_an_old_sign_in_is_worth(
    client, monkeypatch
):
    """R28: for further jumps, and for one that is just being decided on."""
    await client.ask(client.here.grant)
    connection = await outer(client)
    reached, go = asyncio.Event(), asyncio.Event()
    plain = InnerEngineer._authorize

    async def slow(self, owner, login):
        reached.set()
        await go.wait()
        return await plain(self, owner, login)

    monkeypatch.setattr(InnerEngineer, "_authorize", slow)
    through = await inner(client, connection)
    await reached.wait()
    user = client.here.engineer.user
    await client.ask(
        ssh_sign_in.end_graces,
        user_id=user.pk,
        because=Kind.GRACE_ENDED,
        by=user.party,
        now=factories.clock(),
    )
    go.set()
    with pytest.raises((asyncssh.Error, OSError)):
        await through.run("id")
    with pytest.raises(asyncssh.ChannelOpenError) as refusal:
        await inner(client, connection)
    assert "Your sign-in no longer counts" in refusal.value.reason
    assert await client.ask(denied_codes) == [DenialCode.FULL_SIGN_IN_NEEDED] * 2
    assert not await client.ask(Session.objects.exists)


async def test_r28_a_later_jump_needs_a_fresh_sign_in_where_the_zone_says_so(
    client, monkeypatch
):
    """R28: level 3 asks for the code each time; an old connection is no way around."""
    await client.ask(client.here.grant)
    connection = await outer(client)
    through = await inner(client, connection)
    assert (await through.run("echo x")).stdout == "x\n"
    monkeypatch.setattr(jumps, "FRESH_SECONDS", 0.0)
    late = await inner(client, connection)
    with pytest.raises((asyncssh.Error, OSError)):
        await late.run("echo late")
    assert await client.ask(denied_codes) == [DenialCode.FULL_SIGN_IN_NEEDED]


async def test_an_idle_outer_connection_is_closed(client, monkeypatch):
    monkeypatch.setattr(jumps, "JUMP_IDLE_SECONDS", 0.3)
    connection = await outer(client)
    assert len(client.service._door.connections) == 1
    await asyncio.wait_for(connection.wait_closed(), 10)
    assert connection.is_closed()
    assert not client.service._door.connections
    assert not client.service.core.live


async def test_r18_an_inner_connection_that_says_nothing_is_closed(client, monkeypatch):
    """R18: the time for signing in counts inside, too."""
    await client.ask(client.here.grant)
    connection = await outer(client)
    reader, _ = await connection.open_connection(
        client.here.asset.name, 22, encoding=None
    )
    assert await reader.readline() == b"SSH-2.0-Sluice\r\n"
    limit = client.service._settings.login.login_seconds
    await asyncio.wait_for(reader.read(), limit + 10)
    assert not client.service.core.live


async def test_r34_the_inner_connection_keeps_the_same_rules(client, monkeypatch):
    """R34: strict key exchange inside, too."""
    await client.ask(client.here.grant)
    connection = await outer(client)
    monkeypatch.setattr(
        asyncssh.connection.SSHConnection,
        "_get_extra_kex_algs",
        lambda self: [b"ext-info-c"] if self.is_client() else [b"ext-info-s"],
    )
    with pytest.raises((asyncssh.KeyExchangeFailed, asyncssh.DisconnectError)) as error:
        await inner(client, connection)
    assert "strict key exchange" in str(error.value)


async def test_somebody_elses_grant_is_nothing_to_jump_with(client):
    """R11, R19: the person of the outer connection counts, and nobody else."""
    await client.ask(client.here.grant)
    other = await client.ask(enrol, client.here.plant.second_engineer)
    connection = await outer(client, other)
    with pytest.raises(asyncssh.ChannelOpenError) as refusal:
        await inner(client, connection)
    assert authorization.NO_ACCESS_MESSAGE in refusal.value.reason
    assert await refused_kinds(client, 1) == ["direct-tcpip"]
