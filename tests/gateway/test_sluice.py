"""`ssh me@gateway sluice ...`: live sessions controlled from another terminal."""

import asyncio
import json
import shlex
from types import SimpleNamespace

import asyncssh
import pytest

from apps.access import operations as access
from apps.accounts import operations as accounts
from apps.accounts import queries as people
from apps.audit.kinds import Kind
from apps.audit.models import AuditEvent
from apps.gateway import jumps, live_watch
from apps.gateway.commands import command_session
from apps.gateway.commands.answers import NOT_FOUND_LINE, NOTHING_LINE
from apps.gateway.jumps import NO_ASSET_LINE
from apps.gateway.live_watch import NO_LONGER_LINE
from apps.inventory import operations as inventory
from apps.sessions import watches
from apps.sessions.link_frames import FrameType
from apps.sessions.models import Session, Watch
from tests import factories
from tests.gateway.conftest import enrol, until
from tests.gateway.test_live_control import shown_until
from tests.gateway.test_sessions import ended_session
from tests.gateway.test_terminal_link import portal, watch_ticket
from tests.terminal import Terminal


@pytest.fixture
async def works(client):
    """The engineer at a terminal, and an approver who has signed in by the handle."""
    await client.ask(client.here.grant)
    approver = await client.ask(enrol, client.here.plant.approver)
    connection = await client.connect()
    process = await connection.create_process(term_type="vt100", encoding=None)
    process.stdin.write(b"hello")
    await shown_until(process.stdout, b"hello")
    desk = await client.connect(approver.user.username, person=approver)
    session = await client.ask(Session.objects.get)
    return SimpleNamespace(
        process=process, approver=approver, desk=desk, session=session
    )


async def sluice(connection, *words, **options):
    line = " ".join(["sluice", *map(shlex.quote, words)])
    result = await asyncio.wait_for(connection.run(line, **options), 20)
    return result.exit_status, result.stdout, result.stderr


def events_of(kind):
    rows = AuditEvent.objects.filter(kind=kind).order_by("seq")
    return [(row.actor_label, row.source_address, json.loads(row.data)) for row in rows]


async def test_a_session_is_controlled_from_another_terminal(client, works):
    """Each by the same operation as in the portal, written down with its door."""
    name = works.session.short_id
    status, out, err = await sluice(works.desk, "sessions")
    assert (status, err) == (0, "")
    heading, row = out.splitlines()
    assert heading.split()[:3] == ["SESSION", "PERSON", "ASSET"]
    assert row.split()[:3] == [
        name,
        client.here.engineer.user.username,
        client.here.asset.name,
    ]
    assert row.endswith("watch, control, terminate, hand over")
    status, out, _ = await sluice(works.desk, "sessions", "--json")
    [told] = json.loads(out)["sessions"]
    assert (told["id"], told["short_id"]) == (str(works.session.pk), name)
    assert told["may"] == dict.fromkeys(
        ("watch", "control", "terminate", "hand_over"), True
    )
    assert told["typist"] == client.here.engineer.user.username

    done = await sluice(works.desk, "message", name, "step", "away", "--yes")
    assert done == (0, f"{name}: the message is on its way\n", "")
    await shown_until(works.process.stdout, b"says: step away")
    reason = ("--reason", "alarm in cell 3", "--yes", "--json")
    status, out, _ = await sluice(works.desk, "freeze", name.lower(), *reason)
    assert (status, json.loads(out)["accepted"]) == (0, True)
    await shown_until(works.process.stdout, b"froze your input: alarm in cell 3")
    status, _, _ = await sluice(works.desk, "resume", str(works.session.pk), "--yes")
    assert status == 0
    await shown_until(works.process.stdout, b"let your input through")
    status, _, err = await sluice(works.desk, "resume", name, "--yes")
    assert (status, err) == (
        1,
        "Sluice: Nobody froze the session, so nobody can resume it.\n",
    )
    status, _, _ = await sluice(
        works.desk, "terminate", name, "--reason", "shift ends", "--yes"
    )
    assert status == 0
    await shown_until(works.process.stdout, b"shift ends")
    assert (await ended_session(client)).end_reason == "terminated"
    for kind in (
        Kind.SESSION_MESSAGE_SENT,
        Kind.SESSION_FREEZE_ASKED,
        Kind.SESSION_RESUME_ASKED,
        Kind.SESSION_TERMINATE_ASKED,
    ):
        [(actor, address, data)] = await client.ask(events_of, kind)
        assert actor == works.approver.user.username
        assert (address, data["door"]) == ("127.0.0.1", "ssh")
    assert await sluice(works.desk, "sessions") == (0, f"{NOTHING_LINE}\n", "")


async def test_who_may_not_is_told_as_of_a_session_that_does_not_exist(client, works):
    """R19: strangers, auditors who want to act, and the engineer's own session."""
    elsewhere = await client.ask(factories.plant)
    here = client.here
    name = works.session.short_id
    frozen = ("freeze", name, "--reason", "x", "--yes")
    said = set()
    for user, asked in (
        (
            elsewhere.approver,
            [frozen, ("watch", name), ("message", name, "x", "--yes")],
        ),
        (here.plant.auditor, [frozen, ("resume", name, "--yes")]),
        (here.plant.second_engineer, [frozen, ("terminate", *frozen[1:])]),
    ):
        person = await client.ask(enrol, user)
        connection = await client.connect(user.username, person=person)
        for words in (*asked, ("watch", "S-AAAAAA"), ("watch", "../../etc/passwd")):
            status, out, err = await sluice(connection, *words)
            assert (status, out) == (1, "")
            said.add(err)
    own = await client.connect(here.engineer.user.username)
    assert name in (await sluice(own, "sessions"))[1]
    status, _, err = await sluice(own, *frozen)
    said.add(err)
    assert said == {f"Sluice: {NOT_FOUND_LINE}\n"}
    assert not await client.ask(events_of, Kind.SESSION_FREEZE_ASKED)
    refused = await client.ask(events_of, Kind.CHANNEL_REFUSED)
    assert ("sluice freeze") in {data["kind"] for _, _, data in refused}
    # What is theirs, they may end.
    status, _, _ = await sluice(own, "terminate", name, "--reason", "x", "--yes")
    assert status == 0
    assert (await ended_session(client)).end_reason == "terminated"


async def test_wrong_use_is_one_line_and_does_nothing(client, works, ssh_binary):
    """Odd and huge arguments, controls in them, no terminal to ask on."""
    name = works.session.short_id
    for line in (
        "sluice freeze",
        "sluice sessions more",
        "sluice frobnicate",
        "sluice 'unfinished",
        f"sluice freeze {name} --yes",
        f"sluice freeze {name} --reason x",
        f"sluice watch {name} --channel -1",
        f"sluice message {name} 'a\x1b]52;c;aGk=\x07b' --yes",
        f"sluice message {name} 'two\nlines' --yes",
        f"sluice message {name} {'x' * 5000} --yes",
        "sluice \x1b[2J",
        "sluice \x00",
        "sluice @/etc/passwd",
        "sluice\n; id",
    ):
        result = await asyncio.wait_for(works.desk.run(line), 20)
        assert (result.exit_status, result.stdout) == (2, ""), line
        assert result.stderr.startswith("Sluice: ")
        assert result.stderr.count("\n") == 1
        assert result.stderr[:-1].isprintable()
    status, _, err = await sluice(works.desk, "message", name, "x" * 301, "--yes")
    assert (status, err) == (
        1,
        "Sluice: A message is one line of 1 to 300 characters.\n",
    )
    for line in ("id", "sluicegate sessions", "/bin/sluice", "sluice\n; id"):
        if line.startswith("sluice\n"):
            assert (await works.desk.run(line)).exit_status == 2
            continue
        with pytest.raises(asyncssh.ChannelOpenError):
            await works.desk.run(line)
    for words in ((), ("--help",), ("freeze", "--help")):
        status, out, err = await sluice(works.desk, *words)
        assert (status, err) == (0, "")
        assert out.startswith("usage: sluice")
    assert not await client.ask(events_of, Kind.SESSION_MESSAGE_SENT)
    # The stock client is told the same, with the same exit status.
    person = works.approver
    options = {"user_string": person.user.username, "person": person}
    result = await client.run_openssh("sluice", **options)
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout.startswith(b"usage: sluice")
    result = await client.run_openssh("sluice watch S-AAAAAA", **options)
    assert (result.returncode, result.stdout) == (1, b"")
    assert result.stderr == f"Sluice: {NOT_FOUND_LINE}\n".encode()
    result = await client.run_openssh(**options)
    assert NO_ASSET_LINE.encode() in result.stderr


async def test_on_a_terminal_it_asks_before_it_does(client, works, monkeypatch):
    name = works.session.short_id

    async def asked(answers, *words):
        line = " ".join(["sluice", *words, name])
        process = await works.desk.create_process(line, term_type="vt100")
        shown = ""
        for question, answer in answers:
            while question not in shown:
                shown += await asyncio.wait_for(process.stdout.read(100), 20)
            process.stdin.write(answer)
        return (await asyncio.wait_for(process.wait(), 20)).exit_status

    assert await asked([("Why? ", "alarm\r"), ("? [y/N]", "n\r")], "freeze") == 1
    assert await asked([("Why? ", "\x03")], "freeze") == 1
    monkeypatch.setattr(command_session, "ANSWER_SECONDS", 0.2)
    assert await asked([], "freeze") == 1
    monkeypatch.undo()
    assert not await client.ask(events_of, Kind.SESSION_FREEZE_ASKED)
    yes = [("Why? ", "gas\r"), (client.here.asset.name, "y\r")]
    assert await asked(yes, "freeze") == 0
    [(_, _, data)] = await client.ask(events_of, Kind.SESSION_FREEZE_ASKED)
    assert data["reason"] == "gas"


async def test_r28_a_command_needs_a_sign_in_as_fresh_as_the_strictest_zone_asks(
    client, works, monkeypatch
):
    """R28: an old connection is no way around, nor is one whose key is gone."""
    monkeypatch.setattr(jumps, "FRESH_SECONDS", 0.0)
    status, out, err = await sluice(works.desk, "sessions")
    assert (status, out) == (1, "")
    assert "one-time code" in err
    for zone in (client.here.plant.cell, client.here.plant.bench):
        await client.ask(
            inventory.change_zone,
            zone_id=zone.pk,
            changes={"sl_t": 2, "mfa_grace_minutes": 10},
            by=factories.SET_UP,
            now=factories.clock(),
        )
    assert (await sluice(works.desk, "sessions"))[0] == 0
    await client.ask(remove_keys, works.approver.user)
    status, _, err = await sluice(works.desk, "sessions")
    assert status == 1
    assert "one-time code" in err


def remove_keys(user):
    for key in people.keys_of(user):
        accounts.remove_key(key_id=key.pk, user=user, now=factories.clock())


def open_watches():
    return list(Watch.objects.filter(ended_at=None))


async def test_a_watch_follows_the_session_and_types_nothing(client, works, ssh_binary):
    """With the stock client: what was, what comes, who watches, Ctrl-] ends it."""
    line, environment = client.openssh(
        f"sluice watch {works.session.short_id}",
        user_string=works.approver.user.username,
        person=works.approver,
        options=["-tt"],
    )
    watcher = Terminal(line, environment={**environment, "TERM": "xterm"})

    async def sees(words):
        await asyncio.to_thread(watcher.wait_for, lambda text: words in text)

    try:
        await sees("hello")
        works.process.stdin.write(b"more")
        await sees("hellomore")
        [watch] = await client.ask(open_watches)
        assert (watch.door, watch.source_address) == ("ssh", "127.0.0.1")
        await asyncio.to_thread(watcher.type, "evil")
        works.process.stdin.write(b"\r")
        await asyncio.sleep(0.1)
        works.process.stdin.write(b"\x1d")
        await asyncio.sleep(0.1)
        works.process.stdin.write(b"w")
        name = works.approver.user.username
        await shown_until(works.process.stdout, f"{name} watches just now".encode())
        await asyncio.to_thread(watcher.type, "\x1d")
        assert await asyncio.to_thread(watcher.wait_until_ended) == 0
    finally:
        await asyncio.to_thread(watcher.close)
    assert b"evil" not in client.here.target.received
    [(_, _, began)] = await client.ask(events_of, Kind.SESSION_WATCHED)
    [(_, _, ended)] = await client.ask(events_of, Kind.SESSION_WATCH_ENDED)
    assert (began["door"], ended["door"]) == ("ssh", "ssh")
    assert not await client.ask(open_watches)


async def test_a_watch_ends_with_the_session_and_can_be_read_by_a_program(
    client, works
):
    watching = asyncio.ensure_future(
        sluice(works.desk, "watch", works.session.short_id, "--json")
    )
    await until(lambda: client.ask(open_watches))
    works.process.stdin.write(b"\x1b]52;c;aGk=\x07last words")
    await shown_until(works.process.stdout, b"last words")
    works.process.stdin.write_eof()
    works.process.close()
    grant = await client.ask(lambda: works.session.grant)
    await client.ask(
        access.finish_grant,
        grant_id=grant.pk,
        by=client.here.engineer.user,
        now=factories.clock(),
    )
    status, out, _ = await asyncio.wait_for(watching, 20)
    told = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert told[0]["kind"] == "open"
    text = "".join(one.get("text", "") for one in told)
    assert "hello" in text
    assert "last words" in text


async def test_who_may_watch_no_longer_is_cut_off_by_the_gateway(client, works):
    """Not only by the portal: a watch by SSH, and one on the portal's link."""
    watching = asyncio.ensure_future(
        sluice(works.desk, "watch", works.session.short_id)
    )
    async with portal(client, await watch_ticket(client, works.session.pk)) as page:
        await page.next(FrameType.EVENT)

        async def both():
            return len(await client.ask(open_watches)) == 2

        await until(both)
        await client.ask(
            inventory.remove_member,
            site=client.here.plant.site,
            user=works.approver.user,
            by=factories.SET_UP,
            now=factories.clock(),
        )
        refused = await page.next(FrameType.ERROR)
        assert refused.payload.decode() == NO_LONGER_LINE
    status, _, err = await asyncio.wait_for(watching, 20)
    assert (status, err) == (1, f"Sluice: {NO_LONGER_LINE}\n")

    async def none():
        return not await client.ask(open_watches)

    await until(none)
    begun = await client.ask(events_of, Kind.SESSION_WATCHED)
    assert sorted(data["door"] for _, _, data in begun) == ["portal", "ssh"]
    ended = await client.ask(events_of, Kind.SESSION_WATCH_ENDED)
    assert [data["why"] for _, _, data in ended] == [NO_LONGER_LINE] * 2
    # The session itself goes on.
    works.process.stdin.write(b"still here")
    await shown_until(works.process.stdout, b"still here")


async def test_a_connection_stays_while_a_command_runs_on_it_and_then_a_while(
    client, works, monkeypatch
):
    monkeypatch.setattr(jumps, "JUMP_IDLE_SECONDS", 0.5)
    person = works.approver
    connection = await client.connect(person.user.username, person=person)
    line = f"sluice watch {works.session.short_id}"
    process = await connection.create_process(line, term_type="vt100", encoding=None)
    await shown_until(process.stdout, b"hello")
    # Longer than the connection would stay alone.
    await asyncio.sleep(1.0)
    works.process.stdin.write(b"still")
    await shown_until(process.stdout, b"still")
    process.stdin.write(b"\x03")
    assert (await asyncio.wait_for(process.wait(), 20)).exit_status == 0
    await asyncio.wait_for(connection.wait_closed(), 20)


async def test_commands_and_watches_are_bounded(client, works, monkeypatch):
    monkeypatch.setattr(live_watch, "WATCHERS", 0)
    status, _, err = await sluice(works.desk, "watch", works.session.short_id)
    assert (status, "watch this session already" in err) == (1, True)
    monkeypatch.setattr(jumps, "COMMAND_BURST", 1.0)
    monkeypatch.setattr(jumps, "COMMANDS_PER_SECOND", 0.0)
    person = works.approver
    connection = await client.connect(person.user.username, person=person)
    assert (await sluice(connection, "sessions"))[0] == 0
    status, out, err = await sluice(connection, "sessions")
    assert (status, out) == (1, "")
    assert err == "Sluice: too many commands: wait a moment\n"


async def test_of_two_who_begin_to_watch_at_once_one_gets_the_last_place(
    client, works, monkeypatch
):
    """Both are let in, as there is room; then only one of them is shown anything."""
    monkeypatch.setattr(live_watch, "WATCHERS", 1)
    both, begin = asyncio.Barrier(2), watches.begin_watch
    loop = asyncio.get_running_loop()

    def together(**asked):
        begun = begin(**asked)
        asyncio.run_coroutine_threadsafe(both.wait(), loop).result(20)
        return begun

    monkeypatch.setattr(watches, "begin_watch", together)
    watching = [
        asyncio.ensure_future(sluice(works.desk, "watch", works.session.short_id))
        for _ in range(2)
    ]
    done, still = await asyncio.wait(
        watching, timeout=20, return_when=asyncio.FIRST_COMPLETED
    )
    assert (len(done), len(still)) == (1, 1)
    status, out, err = done.pop().result()
    assert (status, "watch this session already" in err) == (1, True)
    assert "hello" not in out
    (session,) = client.service.core.live.values()
    assert len(session.watchers) == 1
    works.process.stdin.write(b"still here")
    await shown_until(works.process.stdout, b"still here")
    for one in still:
        one.cancel()
    await asyncio.wait(still)


async def test_a_watch_by_ssh_ends_with_its_sign_in(client, works):
    watching = asyncio.ensure_future(
        sluice(works.desk, "watch", works.session.short_id)
    )
    await until(lambda: client.ask(open_watches))
    await client.ask(remove_keys, works.approver.user)
    status, _, err = await asyncio.wait_for(watching, 20)
    assert (status, err) == (1, f"Sluice: {NO_LONGER_LINE}\n")
