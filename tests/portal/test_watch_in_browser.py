"""The watch page in Chromium, fed with events as the gateway sends them."""

import json

import pytest
from django.conf import settings
from playwright.sync_api import Page, WebSocketRoute
from pytest_django.live_server_helper import LiveServer

from apps.recordings.frames import EventKind, encode_open, encode_resize
from apps.sessions.link_frames import WatchedEvent, encode_event
from tests.portal import routes
from tests.portal.browser import browser, in_a_thread
from tests.portal.doors import sign_in

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(120)]

_SMALL = encode_resize(20, 5)
ROWS = "document.querySelectorAll('.xterm-rows > div').length"


def test_the_screen_follows_the_engineers_window(
    live_server: LiveServer, chromium_path: str
) -> None:
    """Also to sizes that no screen has: the watcher's browser stays alive."""
    scene = routes.scene()
    cookies = sign_in(scene.person(routes.APPROVER)).client.cookies
    cookie = {
        "name": settings.SESSION_COOKIE_NAME,
        "value": cookies[settings.SESSION_COOKIE_NAME].value,
        "url": live_server.url,
    }
    opened = encode_open("shell", columns=80, rows=24, term="xterm")
    sizes = [(120, 36), (2**32 - 1, 2**32 - 1), (0, 0), (90, 30)]
    events = [
        WatchedEvent(1, EventKind.OPEN, 1, 0, opened),
        WatchedEvent(2, EventKind.OUTPUT, 1, 1, b"PUMP STATION\r\n"),
        *(
            WatchedEvent(number, EventKind.RESIZE, 1, number, encode_resize(*size))
            for number, size in enumerate(sizes, 3)
        ),
    ]

    def walk() -> list[int]:
        sockets: list[WebSocketRoute] = []
        with browser(chromium_path) as chromium:
            context = chromium.new_context()
            context.add_cookies([cookie])  # type: ignore[list-item]
            page = context.new_page()
            page.route_web_socket("**/ws/watch/**", lambda each: sockets.append(each))
            page.goto(f"{live_server.url}/sessions/{scene.live.pk}/watch/")
            while not sockets:
                page.wait_for_timeout(10)
            sockets[0].send(json.dumps({"type": "ready"}))
            seen = []
            for event, rows in zip(events, [24, 24, 36, 200, 200, 30], strict=True):
                sockets[0].send(encode_event(event))
                page.wait_for_function(f"() => {ROWS} === {rows}", timeout=10_000)
                seen.append(page.evaluate(ROWS))
            assert "PUMP STATION" in page.locator(".xterm-rows").inner_text()
            type_in(page, sockets[0])
            return seen

    def type_in(page: Page, socket: WebSocketRoute) -> None:
        """Keys go out only between the two words of the gateway."""
        sent: list[bytes] = []
        socket.on_message(lambda keys: sent.append(bytes(keys)))  # type: ignore[arg-type]
        for allowed, keys in ((None, "no"), (True, "yes"), (False, "never")):
            if allowed is not None:
                socket.send(json.dumps({"type": "typing", "allowed": allowed}))
                state = "You type" if allowed else "Live"
                page.locator("[data-terminal-state]").filter(has_text=state).wait_for()
            page.locator("[data-terminal-screen] textarea").focus()
            page.keyboard.type(keys)
        socket.send(encode_event(WatchedEvent(99, EventKind.RESIZE, 1, 99, _SMALL)))
        page.wait_for_function(f"() => {ROWS} === 5", timeout=10_000)
        assert b"".join(sent) == b"yes"

    assert in_a_thread(walk) == [24, 24, 36, 200, 200, 30]
