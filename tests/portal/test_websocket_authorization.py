"""R13: WebSockets open for whom the table names, and for nobody else."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.conf import settings
from django.test import Client
from django.utils import timezone

from apps.accounts import operations as accounts
from apps.portal import consumers
from apps.portal.changes import ChangesBridge
from apps.sessions.models import ConnectionTicket
from jumpserver.asgi import application
from tests.portal import routes
from tests.portal.doors import PASSWORD, sign_in
from tests.portal.routes import ANONYMOUS, SOCKETS, Scene, Socket

pytestmark = pytest.mark.django_db(transaction=True)

HOST = "127.0.0.1"
ORIGIN = f"http://{HOST}"


def headers_of(client: Client, *, origin: str = ORIGIN, **more: str) -> list[Any]:
    """Return the headers a browser with these cookies sends."""
    cookies = "; ".join(f"{name}={m.value}" for name, m in client.cookies.items())
    named = {"host": HOST, "origin": origin, "cookie": cookies, **more}
    return [
        (name.replace("_", "-").encode(), value.encode())
        for name, value in named.items()
        if value
    ]


@asynccontextmanager
async def websocket(
    path: str, headers: list[Any]
) -> AsyncIterator[ApplicationCommunicator]:
    """Knock at `path`; the first message is the answer."""
    scope = {
        "type": "websocket",
        "path": path,
        "headers": headers,
        "client": (HOST, 54321),
        "query_string": b"",
        "subprotocols": [],
    }
    socket = ApplicationCommunicator(application, scope)
    await socket.send_input({"type": "websocket.connect"})
    try:
        yield socket
    finally:
        await socket.send_input({"type": "websocket.disconnect", "code": 1000})
        await socket.wait(timeout=5)


async def knock(path: str, headers: list[Any]) -> tuple[str, int]:
    """Return the type of the first message that comes back, and its close code."""
    async with websocket(path, headers) as socket:
        answer = await socket.receive_output(timeout=5)
        return answer["type"], answer.get("code", 0)


@asynccontextmanager
async def running(part: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run `part` beside the block."""
    task = asyncio.create_task(part)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def scene() -> Scene:
    return routes.scene()


@pytest.mark.parametrize("socket", SOCKETS, ids=lambda socket: socket.route)
async def test_who_may(socket: Socket, scene: Scene) -> None:
    """Unknown and forbidden look alike, and the anonymous learn no more than that."""
    refused = ("websocket.close", consumers.REFUSED)
    found = {ANONYMOUS: await knock(socket.address(scene), headers_of(Client()))}
    expected: dict[str, Any] = {ANONYMOUS: refused}
    for role in routes.SIGNED_IN:
        signed_in = await sync_to_async(sign_in)(scene.person(role))
        headers = headers_of(signed_in.client)
        found[role] = await knock(socket.address(scene), headers)
        may = role in socket.accepts
        expected[role] = ("websocket.accept", 0) if may else refused
        if socket.unknown:
            assert await knock(socket.unknown, headers) == refused, role
    assert found == expected


@pytest.mark.parametrize("socket", SOCKETS, ids=lambda socket: socket.route)
async def test_other_origins_and_lone_passwords_are_refused(
    socket: Socket, scene: Scene
) -> None:
    person = scene.person(socket.accepts[0])
    client = (await sync_to_async(sign_in)(person)).client
    address = socket.address(scene)
    assert (await knock(address, headers_of(client)))[0] == "websocket.accept"
    for origin in ("https://evil.example", "http://127.0.0.1.evil.example", "null"):
        headers = headers_of(client, origin=origin)
        assert (await knock(address, headers))[0] == "websocket.close", origin
    half = Client()
    credentials = {"username": person.username, "password": PASSWORD}
    await sync_to_async(half.post)("/sign-in/", credentials)
    assert settings.SESSION_COOKIE_NAME in half.cookies
    assert (await knock(address, headers_of(half)))[0] == "websocket.close"


async def test_headers_that_name_somebody_are_ignored(scene: Scene) -> None:
    """R13: who one is comes from the session alone."""
    headers = headers_of(
        Client(),
        remote_user=scene.here.engineer.username,
        x_remote_user=scene.here.engineer.username,
        x_forwarded_user=scene.here.engineer.username,
        authorization="Basic ZW5naW5lZXI6eA==",
    )
    answer = await knock("/ws/changes/", headers)
    assert answer == ("websocket.close", consumers.REFUSED)


async def test_the_address_written_down_is_the_peers(scene: Scene) -> None:
    """R13: without a trusted proxy, X-Forwarded-For is what the client says."""
    signed_in = await sync_to_async(sign_in)(scene.here.engineer)
    headers = headers_of(signed_in.client, x_forwarded_for="203.0.113.66")
    await knock(f"/ws/terminal/{scene.grant.pk}/", headers)
    ticket = await ConnectionTicket.objects.aget()
    assert ticket.source_address == HOST


async def test_a_websocket_ends_with_the_persons_rights(scene: Scene) -> None:
    """Disabled by an administrator: the open WebSocket closes at the next hint."""
    person = scene.here.second_engineer
    client = (await sync_to_async(sign_in)(person)).client
    async with (
        running(ChangesBridge().run()),
        websocket("/ws/changes/", headers_of(client)) as socket,
    ):
        assert (await socket.receive_output(timeout=5))["type"] == "websocket.accept"
        await sync_to_async(accounts.disable_person)(
            user_id=person.pk, by=scene.here.administrator, now=timezone.now()
        )
        # Sooner than it would look by itself.
        answer = await socket.receive_output(timeout=consumers._LOOK_SECONDS / 2)
        assert answer["type"] == "websocket.close"
        assert answer["code"] == consumers.SIGNED_OUT
