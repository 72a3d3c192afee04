"""WebSockets: who is let in, what they carry, that they end with the right (R13)."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from channels.db import database_sync_to_async
from django.conf import settings as django_settings

from apps.access import operations as access
from apps.access.models import Grant
from apps.accounts import operations as accounts
from apps.accounts.models import User
from apps.audit.operations import ledger_head
from apps.inventory import operations as inventory
from apps.portal.changes import ChangesBridge, news_since, person_group, staff_group
from apps.recordings.frames import EventKind
from apps.sessions import gateways
from apps.sessions.link_frames import (
    FrameType,
    WatchedEvent,
    decode_size,
    encode_event,
    encode_frame,
    encode_json,
)
from apps.sessions.models import Session
from jumpserver.asgi import application
from tests import factories
from tests.portal import plant_work
from tests.portal.doors import sign_in
from tests.portal.link_server import LinkConnection, LinkServer, link_server
from tests.portal.websocket import BrowserSocket

pytestmark = pytest.mark.django_db(transaction=True)

ORIGIN = b"http://127.0.0.1"


@dataclass
class Scene:
    """A plant with a live session and the gateway's link."""

    here: factories.Plant
    grant: Grant
    session: Session
    link: LinkServer


def _scene(path: Path) -> tuple[factories.Plant, Grant, Session]:
    here = factories.plant()
    grant = factories.grant(here)
    session = plant_work.live_session(grant, plant_work.gateway(path))
    return here, grant, session


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with link_server(tmp_path) as link:
        here, grant, session = await database_sync_to_async(_scene)(link.path)
        yield Scene(here, grant, session, link)


def _cookie(person: User) -> bytes:
    """Return the cookie of a browser this person is signed in with."""
    name = django_settings.SESSION_COOKIE_NAME
    if person.pk not in _signed_in:
        # A one-time code is good once, so each person comes in by the door once.
        _signed_in[person.pk] = sign_in(person).client.cookies[name].value
    return f"{name}={_signed_in[person.pk]}".encode()


_signed_in: dict[uuid.UUID, str] = {}


async def browser(
    path: str,
    person: User | None = None,
    *,
    origin: bytes = ORIGIN,
    app: Any = application,
) -> BrowserSocket:
    """Return a WebSocket of this person's browser, not connected yet."""
    headers = [(b"origin", origin), (b"host", b"127.0.0.1")]
    if person is not None:
        cookie = await database_sync_to_async(_cookie)(person)
        headers.append((b"cookie", cookie))
    return BrowserSocket(app, path, headers=headers)


async def open_terminal(
    scene: Scene, *, app: Any = application
) -> tuple[BrowserSocket, LinkConnection]:
    """Return a terminal that is ready, and the gateway's end of it."""
    where = f"/ws/terminal/{scene.grant.pk}/"
    socket = await browser(where, scene.here.engineer, app=app)
    assert await socket.connect() is None
    await socket.say(type="resize", columns=132, rows=43)
    gateway = await scene.link.connection()
    hello, ticket = await gateway.redeem()
    assert hello == {"columns": 132, "rows": 43, "term": "xterm-256color"}
    assert ticket is not None
    assert ticket.user == scene.here.engineer
    assert ticket.grant_id == scene.grant.pk
    assert ticket.source_address == "192.0.2.7"
    gateway.writer.write(encode_json(FrameType.READY, {"session": "S-1", "asset": "a"}))
    assert await socket.said() == {"type": "ready", "session": "S-1", "asset": "a"}
    return socket, gateway


@pytest.mark.parametrize("path", ["changes", "terminal", "watch"])
async def test_the_anonymous_get_nothing(scene: Scene, path: str) -> None:
    tail = {"changes": "", "terminal": f"{scene.grant.pk}/"}.get(
        path, f"{scene.session.pk}/"
    )
    socket = await browser(f"/ws/{path}/{tail}")
    assert await socket.connect() == 4404


async def test_another_origin_gets_nothing(scene: Scene) -> None:
    socket = await browser(
        "/ws/changes/", scene.here.engineer, origin=b"https://elsewhere.example"
    )
    assert await socket.connect() is not None


@pytest.mark.parametrize(
    "who", ["second_engineer", "approver", "auditor", "administrator"]
)
async def test_a_terminal_is_its_grants_persons(scene: Scene, who: str) -> None:
    person = getattr(scene.here, who)
    for grant_id in [scene.grant.pk, uuid.uuid4()]:
        socket = await browser(f"/ws/terminal/{grant_id}/", person)
        assert await socket.connect() == 4404


@pytest.mark.parametrize("who", ["engineer", "second_engineer", "administrator"])
async def test_watching_is_for_approvers_and_auditors(scene: Scene, who: str) -> None:
    person = getattr(scene.here, who)
    for session_id in [scene.session.pk, uuid.uuid4()]:
        socket = await browser(f"/ws/watch/{session_id}/", person)
        assert await socket.connect() == 4404


async def test_an_approver_of_another_site_watches_nothing(scene: Scene) -> None:
    other = await database_sync_to_async(factories.plant)()
    socket = await browser(f"/ws/watch/{scene.session.pk}/", other.approver)
    assert await socket.connect() == 4404


async def test_a_terminal_carries_bytes_both_ways_unchanged(scene: Scene) -> None:
    socket, gateway = await open_terminal(scene)
    every_byte = bytes(range(256))
    await socket.send(every_byte)
    frame = await gateway.next()
    assert frame == (FrameType.INPUT, every_byte)
    gateway.writer.write(encode_frame(FrameType.OUTPUT, every_byte))
    assert await socket.data() == every_byte
    await socket.say(type="resize", columns=99999, rows=-1)
    frame = await gateway.next()
    assert frame is not None
    assert decode_size(frame.payload) == (65535, 0)
    await socket.disconnect()
    assert await gateway.next() is None


async def test_the_reason_of_the_end_reaches_the_browser(scene: Scene) -> None:
    socket, gateway = await open_terminal(scene)
    gateway.writer.write(encode_frame(FrameType.NOTICE, b"1 minute left"))
    ended = {"status": None, "signal": None, "message": "access revoked by carla"}
    gateway.writer.write(encode_json(FrameType.EXIT, ended))
    gateway.writer.close()
    assert await socket.said() == {"type": "notice", "text": "1 minute left"}
    assert await socket.said() == {"type": "exit", **ended}
    assert await socket.said() == {"type": "closed"}
    closing = await socket.output()
    assert closing["type"] == "websocket.close"


async def test_a_refusal_of_the_gateway_is_told(scene: Scene) -> None:
    socket = await browser(f"/ws/terminal/{scene.grant.pk}/", scene.here.engineer)
    assert await socket.connect() is None
    await socket.say(type="resize", columns=80, rows=24)
    gateway = await scene.link.connection()
    await gateway.next()
    gateway.writer.write(encode_frame(FrameType.ERROR, b"the asset cannot be reached"))
    gateway.writer.close()
    assert await socket.said() == {
        "type": "error",
        "text": "the asset cannot be reached",
    }


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"type":"resize"}', '{"type":"resize","columns":"a","rows":1}'],
)
async def test_malformed_control_is_ignored(scene: Scene, text: str) -> None:
    socket, gateway = await open_terminal(scene)
    await socket.send_text(text)
    await socket.send(b"still here")
    assert await gateway.next() == (FrameType.INPUT, b"still here")
    await socket.disconnect()


async def test_frames_that_are_none_end_the_terminal(scene: Scene) -> None:
    socket, gateway = await open_terminal(scene)
    gateway.writer.write(b"\xff" * 64)
    message = await socket.said()
    assert message["type"] == "error"


async def test_a_slow_browser_slows_the_gateway_down(scene: Scene) -> None:
    """R20: what the browser does not take is not kept for it in memory."""
    may_take = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        async def send_when_taken(message: Any) -> None:
            if message.get("bytes") is not None:
                await may_take.wait()
            await send(message)

        await application(scope, receive, send_when_taken)

    socket, gateway = await open_terminal(scene, app=slow)
    piece = encode_frame(FrameType.OUTPUT, b"x" * 65536)
    written = 0
    while not await _stalls(gateway, piece):
        written += 1
        assert written < 64
    may_take.set()
    for _ in range(written + 1):
        assert len(await socket.data()) == 65536
    await socket.disconnect()


async def _stalls(gateway: LinkConnection, piece: bytes) -> bool:
    """Send a piece; say whether the portal left it unread."""
    gateway.writer.write(piece)
    try:
        async with asyncio.timeout(1):
            await gateway.writer.drain()
    except TimeoutError:
        return True
    return False


async def test_signing_out_closes_what_is_open(scene: Scene) -> None:
    bridge = asyncio.create_task(ChangesBridge().run())
    socket, gateway = await open_terminal(scene)
    await database_sync_to_async(_disable)(scene)
    closing = await socket.output()
    assert (closing["type"], closing["code"]) == ("websocket.close", 4401)
    await socket.disconnect()
    assert await gateway.next() is None
    bridge.cancel()


def _disable(scene: Scene) -> None:
    accounts.disable_person(
        user_id=scene.here.engineer.pk,
        by=scene.here.administrator,
        now=factories.clock(),
    )


async def test_watching_passes_events_on_as_they_are_numbered(scene: Scene) -> None:
    socket = await browser(f"/ws/watch/{scene.session.pk}/", scene.here.approver)
    assert await socket.connect() is None
    gateway = await scene.link.connection()
    _hello, ticket = await gateway.redeem()
    assert ticket is not None
    assert ticket.session_id == scene.session.pk
    gateway.writer.write(encode_json(FrameType.READY, {"session": "S-1"}))
    assert (await socket.said())["type"] == "ready"
    payload = encode_event(WatchedEvent(41, EventKind.OUTPUT, 1, 5, b"\xff\x00tank"))
    gateway.writer.write(encode_frame(FrameType.EVENT, payload))
    assert await socket.data() == payload
    await socket.send(b"rm -rf /")
    await socket.send_text('{"type":"resize","columns":1,"rows":1}')
    await socket.disconnect()
    # Nothing of a watcher's browser ever reaches the gateway by itself.
    assert await gateway.next() is None


async def test_a_watcher_types_while_the_gateway_lets_them(scene: Scene) -> None:
    socket = await browser(f"/ws/watch/{scene.session.pk}/", scene.here.approver)
    assert await socket.connect() is None
    gateway = await scene.link.connection()
    await gateway.redeem()
    gateway.writer.write(encode_json(FrameType.READY, {"session": "S-1"}))
    assert (await socket.said())["type"] == "ready"
    await _typing(socket, gateway, allowed=True)
    await socket.send(b"mine")
    typed = await gateway.next()
    assert typed is not None
    assert (typed.type, typed.payload) == (FrameType.INPUT, b"mine")
    await _typing(socket, gateway, allowed=False)
    await socket.send(b"no more")
    await socket.disconnect()
    assert await gateway.next() is None


async def _typing(
    socket: BrowserSocket, gateway: LinkConnection, *, allowed: bool
) -> None:
    gateway.writer.write(encode_json(FrameType.TYPING, {"allowed": allowed}))
    told = await socket.said()
    assert (told["type"], told["allowed"]) == ("typing", allowed)


async def test_watching_ends_with_the_right_to_watch(scene: Scene) -> None:
    bridge = asyncio.create_task(ChangesBridge().run())
    where = f"/ws/watch/{scene.session.pk}/"
    socket = await browser(where, scene.here.second_approver)
    assert await socket.connect() is None
    gateway = await scene.link.connection()
    await gateway.redeem()
    gateway.writer.write(encode_json(FrameType.READY, {"session": "S-1"}))
    assert (await socket.said())["type"] == "ready"
    await database_sync_to_async(_leave)(scene)
    closing = await socket.output()
    assert (closing["type"], closing["code"]) == ("websocket.close", 4404)
    await socket.disconnect()
    assert await gateway.next() is None
    bridge.cancel()


def _leave(scene: Scene) -> None:
    inventory.remove_member(
        site=scene.here.site,
        user=scene.here.second_approver,
        by=factories.SET_UP,
        now=factories.clock(),
    )


async def test_no_gateway_is_no_terminal(scene: Scene) -> None:
    def stop() -> None:
        gateways.stop_gateway(
            gateway_id=scene.session.gateway_id, now=factories.clock()
        )

    await database_sync_to_async(stop)()
    socket = await browser(f"/ws/terminal/{scene.grant.pk}/", scene.here.engineer)
    assert await socket.connect() == 4404


async def test_changes_say_the_kind_to_those_it_concerns(scene: Scene) -> None:
    bridge = asyncio.create_task(ChangesBridge().run())
    approver = await browser("/ws/changes/", scene.here.approver)
    stranger_plant = await database_sync_to_async(factories.plant)()
    stranger = await browser("/ws/changes/", stranger_plant.approver)
    for socket in (approver, stranger):
        assert await socket.connect() is None
    await database_sync_to_async(_ask)(scene)
    kinds: set[str] = set()
    while "access.request.submitted" not in kinds:
        told = await approver.said()
        assert set(told) == {"changed"}
        assert isinstance(told["changed"], list)
        kinds |= set(told["changed"])
    # What they did themselves, signing in, may still be on its way to them.
    while not await stranger.silent(0.5):
        told = await stranger.said()
        assert all(kind.startswith("accounts.") for kind in told["changed"])
    bridge.cancel()
    await approver.disconnect()
    await stranger.disconnect()


def _ask(scene: Scene) -> None:
    factories.request(scene.here, requester=scene.here.second_engineer)


def test_news_name_their_audience() -> None:
    here = factories.plant()
    seq, _ = ledger_head()
    grant = factories.grant(here)
    access.revoke_grant(
        grant_id=grant.pk, by=here.approver, reason="x", now=factories.clock()
    )
    news = news_since(seq)
    assert "access.grant.revoked" in news.kinds[person_group(here.engineer.pk)]
    assert "access.grant.revoked" in news.kinds[staff_group(here.site.pk)]
    assert person_group(here.second_engineer.pk) not in news.kinds
    assert news.seq == ledger_head()[0]
