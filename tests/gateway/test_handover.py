"""Typing handed over: whose keys reach the asset, and that the recording says so."""

import asyncio
import datetime as dt
import json
from types import SimpleNamespace

import asyncssh
import pytest
from django.db import OperationalError

from apps.access import operations as access
from apps.access.models import Grant
from apps.accounts import operations as accounts
from apps.audit.kinds import Kind
from apps.audit.models import AuditEvent
from apps.recordings.frames import EventKind
from apps.sessions import handover, tickets
from apps.sessions.link_frames import FrameType, decode_json
from apps.sessions.models import Session
from tests import factories
from tests.gateway.conftest import enrol, until
from tests.gateway.test_live_control import freeze, noted, resume, shown_until
from tests.gateway.test_sessions import ended_session, recorded
from tests.gateway.test_sluice import sluice
from tests.gateway.test_terminal_link import portal, watch_ticket

ESC = b"\x1d"


def make_receiver(here):
    plant = here.plant
    user = factories.person("engineer", "approver", site=plant.site)
    factories.grant(plant, account=here.account, person=user)
    return enrol(user)


@pytest.fixture
async def scene(client):
    """The engineer in a shell; somebody who could type watches it by SSH."""
    await client.ask(client.here.grant)
    receiver = await client.ask(make_receiver, client.here)
    connection = await client.connect()
    engineer = await connection.create_process(term_type="vt100", encoding=None)
    engineer.stdin.write(b"a")
    await shown_until(engineer.stdout, b"a")
    session = await client.ask(Session.objects.get)
    desk = await client.connect(receiver.user.username, person=receiver)
    watcher = await desk.create_process(
        f"sluice watch {session.short_id}", term_type="vt100", encoding=None
    )
    await shown_until(watcher.stdout, b"a")
    return SimpleNamespace(
        client=client,
        connection=connection,
        engineer=engineer,
        receiver=receiver,
        name=receiver.user.username,
        desk=desk,
        watcher=watcher,
        session=session,
    )


async def keys(process, *typed):
    """Type as a hand does: each key alone."""
    for key in typed:
        await asyncio.sleep(0.1)
        process.stdin.write(key)


async def hand_over(scene, by=None, to=None):
    answer = await scene.client.ask(
        handover.hand_over,
        session_id=scene.session.pk,
        by=by or scene.client.here.engineer.user,
        to=to or scene.name,
        now=factories.clock(),
    )
    assert answer, answer
    await shown_until(scene.watcher.stdout, b"you type from now on")


async def arrived(scene, data):
    target = scene.client.here.target

    async def there():
        return bytes(target.received) == data

    await until(there)


def written(*kinds):
    rows = AuditEvent.objects.filter(kind__in=kinds).order_by("seq")
    return [(row.kind, row.actor_label, json.loads(row.data)) for row in rows]


ABOUT_TYPING = (
    Kind.SESSION_HANDED_OVER,
    Kind.SESSION_TYPIST_CHANGED,
    Kind.SESSION_TAKEN_BACK,
)


async def typist_of(client):
    session = await client.ask(Session.objects.get)
    return session.typist_id


async def test_one_hands_over_at_the_terminal_and_takes_back(scene):
    """Every key has its typist: in the recording, before the first of them."""
    client, engineer, watcher = scene.client, scene.engineer, scene.watcher
    me = client.here.engineer.user.username
    await keys(watcher, b"unasked")
    await keys(engineer, b"\r", ESC, b"h")
    await shown_until(engineer.stdout, f"to whom ({scene.name})?".encode())
    await keys(engineer, b"nobody\r")
    await shown_until(engineer.stdout, b"not handed over.")
    await keys(engineer, ESC, b"h")
    await shown_until(engineer.stdout, b"to whom")
    await keys(engineer, scene.name.encode() + b"\r")
    await shown_until(engineer.stdout, scene.name.encode() + b" types from now on")
    await shown_until(watcher.stdout, b"you type from now on")

    await keys(watcher, b"bob\x03")
    await arrived(scene, b"a\rbob\x03")
    await keys(engineer, b"mine")
    engineer.send_signal("INT")
    engineer.send_break(100)
    with pytest.raises(asyncssh.ChannelOpenError):
        await scene.connection.create_process(term_type="vt100")
    assert (await scene.connection.run("both x")).exit_status == 0
    # Anywhere in a line: what is typed there goes nowhere.
    await keys(engineer, ESC, b"w")
    await shown_until(engineer.stdout, scene.name.encode() + b" watches just now")
    await keys(engineer, ESC, b"b")
    await shown_until(engineer.stdout, f"{me} types again".encode())
    await shown_until(watcher.stdout, b"you only watch again")
    await keys(watcher, b"too late")
    await keys(engineer, b"back")
    await shown_until(engineer.stdout, b"back")
    assert b"too late" not in client.here.target.received
    assert b"mine" not in client.here.target.received

    async def all_written():
        return len(await client.ask(written, *ABOUT_TYPING)) == 4

    await until(all_written)
    events = await client.ask(written, *ABOUT_TYPING)
    assert [(kind, who) for kind, who, _ in events] == [
        (Kind.SESSION_HANDED_OVER, me),
        (Kind.SESSION_TYPIST_CHANGED, "gateway"),
        (Kind.SESSION_TAKEN_BACK, "gateway"),
        (Kind.SESSION_TYPIST_CHANGED, "gateway"),
    ]
    assert events[0][2]["door"] == "terminal"
    assert events[2][2]["why"] == "taken back at the terminal"
    assert [data["typist"] for _, _, data in events[1::2]] == [scene.name, me]

    assert client.here.target.signals == []
    engineer.close()
    scene.connection.close()
    recording = await client.ask(recorded, await ended_session(client))
    typist, typed = me, {me: b"", scene.name: b""}
    for event in recording:
        if event.kind is EventKind.MARK and event.data.startswith(b"typing: "):
            typist = event.data.decode().split()[1]
        elif event.kind is EventKind.INPUT and event.channel == 1:
            typed[typist] += event.data
    assert typed == {me: b"a\rback", scene.name: b"bob\x03"}
    told = b"".join(e.data for e in recording if e.kind is EventKind.NOTICE)
    assert scene.name.encode() + b" types from now on" in told
    assert f"{me} types again".encode() in told


async def test_it_can_be_done_with_sluice_and_on_the_portals_page(scene):
    """The link of the portal says when typing passes; who types may give it back."""
    client = scene.client
    approver = await client.ask(enrol, client.here.plant.approver)
    desk = await client.connect(approver.user.username, person=approver)
    scene.watcher.stdin.write(ESC)
    assert (await asyncio.wait_for(scene.watcher.wait(), 20)).exit_status == 0
    short = scene.session.short_id
    status, _, err = await sluice(desk, "handover", short, scene.name, "--yes")
    assert (status, "who watches" in err) == (1, True)
    ticket = await client.ask(
        tickets.issue_watch_ticket,
        user=scene.receiver.user,
        session_id=scene.session.pk,
        source_address="192.0.2.9",
        now=factories.clock(),
    )
    async with portal(client, ticket) as page:
        await page.next(FrameType.EVENT)
        page.send(FrameType.INPUT, b"not yet")
        for wrong in (("handover", short, "--yes"), ("handover", short, "x", "--back")):
            assert (await sluice(desk, *wrong))[0] == 2
        status, out, _ = await sluice(desk, "handover", short, scene.name, "--yes")
        assert (status, out) == (0, f"{short}: {scene.name} types from now on\n")
        told = await page.next(FrameType.TYPING)
        assert decode_json(told.payload) == {"allowed": True}
        ticket = await watch_ticket(client, scene.session.pk)
        async with portal(client, ticket) as other:
            await other.next(FrameType.EVENT)
            other.send(FrameType.INPUT, b"I only watch")
            page.send(FrameType.INPUT, b"page")
            await arrived(scene, b"apage")
        status, _, err = await sluice(desk, "handover", short, scene.name, "--yes")
        assert (status, "take that back first" in err) == (1, True)
        status, _, _ = await sluice(scene.desk, "handover", short, "--back", "--yes")
        assert status == 0
        told = await page.next(FrameType.TYPING)
        assert decode_json(told.payload) == {"allowed": False}
        page.send(FrameType.INPUT, b"late")
        assert (await sluice(desk, "handover", short, scene.name, "--yes"))[0] == 0
        await page.next(FrameType.TYPING)
    # The page was closed: its watch went, and the typing with it.
    me = client.here.engineer.user.username
    await shown_until(scene.engineer.stdout, f"{scene.name} watches no more".encode())
    scene.engineer.stdin.write(b"me")
    await arrived(scene, b"apageme")

    async def nobody():
        return await typist_of(client) is None

    await until(nobody)
    events = await client.ask(written, Kind.SESSION_TAKEN_BACK)
    assert [(who, data["from"]) for _, who, data in events] == [
        (scene.name, scene.name),
        ("gateway", scene.name),
    ]
    assert me not in {who for _, who, _ in events}


async def test_a_freeze_holds_the_receivers_keys_and_loses_none(scene):
    client = scene.client
    await hand_over(scene)
    scene.watcher.stdin.write(b"b")
    await arrived(scene, b"ab")
    await freeze(client)
    await noted(client, "frozen")
    scene.watcher.stdin.write(b"held")
    scene.engineer.stdin.write(b"mine")
    live = client.service.core.live[scene.session.pk]
    watch = live.handover.guest.watch

    async def held():
        return bool(watch.keyboard._channel._recv_buf)

    await until(held)
    assert client.here.target.received == b"ab"
    await resume(client)
    await arrived(scene, b"abheld")


async def test_taking_back_during_a_freeze_leaves_nothing_of_the_receivers(scene):
    client = scene.client
    await hand_over(scene)
    await freeze(client)
    await noted(client, "frozen")
    scene.watcher.stdin.write(b"held")
    assert await client.ask(
        handover.take_back,
        session_id=scene.session.pk,
        by=client.here.engineer.user,
        now=factories.clock(),
    )
    await shown_until(scene.watcher.stdout, b"you only watch again")
    await resume(client)
    scene.engineer.stdin.write(b"me")
    await arrived(scene, b"ame")
    # Ctrl-] is the watcher's again, too.
    scene.watcher.stdin.write(ESC)
    assert (await asyncio.wait_for(scene.watcher.wait(), 20)).exit_status == 0


@pytest.mark.parametrize("what", ["revoked", "disabled", "expired", "lost", "gone"])
async def test_what_takes_the_receivers_right_takes_the_keyboard(scene, what):
    client, user = scene.client, scene.receiver.user
    await hand_over(scene)
    scene.watcher.stdin.write(b"b")
    await arrived(scene, b"ab")
    grant = await client.ask(Grant.objects.get, person=user)
    now = factories.clock()
    if what == "revoked":
        await client.ask(
            access.revoke_grant,
            grant_id=grant.pk,
            by=client.here.plant.approver,
            reason="x",
            now=now,
        )
    elif what == "disabled":
        await client.ask(
            accounts.disable_person,
            user_id=user.pk,
            by=client.here.plant.administrator,
            now=now,
        )
    elif what == "expired":
        await client.ask(Grant.objects.filter(pk=grant.pk).update, ends_at=now)
    elif what == "lost":
        scene.desk.abort()
    else:
        scene.watcher.stdin.write(ESC)
    me = client.here.engineer.user.username
    await shown_until(scene.engineer.stdout, f"{me} types again".encode())
    if what not in {"lost", "disabled"}:
        scene.watcher.stdin.write(b"evil")
    scene.engineer.stdin.write(b"me")
    await arrived(scene, b"abme")

    async def nobody():
        return await typist_of(client) is None

    await until(nobody)
    [(_, who, _)] = await client.ask(written, Kind.SESSION_TAKEN_BACK)
    assert who == "gateway"


async def test_the_end_of_the_receivers_access_is_a_timer_of_the_gateway(scene):
    client = scene.client
    ends_at = factories.clock() + dt.timedelta(seconds=4)
    mine = Grant.objects.filter(person=scene.receiver.user)
    await client.ask(mine.update, ends_at=ends_at)
    await hand_over(scene)
    told = f"types again: the access of {scene.name} has ended".encode()
    await shown_until(scene.engineer.stdout, told)
    assert factories.clock() >= ends_at
    scene.watcher.stdin.write(b"evil")
    scene.engineer.stdin.write(b"me")
    await arrived(scene, b"ame")


async def test_a_lock_returns_the_typing_and_asks_the_engineer_for_the_code(scene):
    client = scene.client
    await hand_over(scene)
    client.service.core.live[scene.session.pk].desk.lock()
    await shown_until(scene.engineer.stdout, b"locked after")
    await shown_until(scene.watcher.stdout, b"you only watch again")
    scene.watcher.stdin.write(b"evil")
    scene.engineer.stdin.write(client.here.engineer.code().encode() + b"\r")
    await shown_until(scene.engineer.stdout, b"unlocked")
    scene.engineer.stdin.write(b"me")
    await arrived(scene, b"ame")
    live = client.service.core.live[scene.session.pk]
    assert live.handover.guest is None
    assert not live.desk.is_locked


async def test_taken_back_while_the_database_is_away_is_written_when_it_is_there(
    scene, monkeypatch
):
    """The engineer does not wait for it, and a late answer hands nothing over."""
    client = scene.client
    await hand_over(scene)
    tries, plain = [], handover.end_hand_over

    def away_at_first(**asked):
        tries.append(asked["why"])
        if len(tries) < 3:
            raise OperationalError("away")
        return plain(**asked)

    monkeypatch.setattr(handover, "end_hand_over", away_at_first)
    await keys(scene.engineer, ESC, b"b")
    await shown_until(scene.engineer.stdout, b"types again")
    scene.watcher.stdin.write(b"evil")
    scene.engineer.stdin.write(b"me")
    await arrived(scene, b"ame")

    async def nobody():
        return await typist_of(client) is None

    await until(nobody)
    assert len(tries) >= 3
    assert client.service.core.live[scene.session.pk].handover.guest is None
    [(_, who, _)] = await client.ask(written, Kind.SESSION_TAKEN_BACK)
    assert who == "gateway"


async def test_what_is_no_longer_so_when_the_gateway_looks_is_not_handed_over(scene):
    """The row says so, but a second terminal opened meanwhile: given back at once."""
    client = scene.client
    live = client.service.core.live[scene.session.pk]
    second = await scene.connection.create_process(term_type="vt100", encoding=None)
    second.stdin.write(b"2")
    await shown_until(second.stdout, b"2")
    control = SimpleNamespace(
        typist_number=1,
        typist_noted=0,
        typist_id=scene.receiver.user.pk,
        typist=scene.name,
        typist_until=None,
    )
    live.handover.apply(control)
    assert live.handover.guest is None
    await shown_until(scene.engineer.stdout, b"not handed over: there is not one open")
