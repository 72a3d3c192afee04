"""WCAG 2.2 AA on every page of the table, in both themes and two widths.

The pages of signing in, empty and full ones, and forms with errors are looked at in
`tests/portal`. Terminal, watch and replay are looked at as they come, before anything
runs in them.
"""

import pytest
from django.conf import settings
from django.test import Client
from playwright.sync_api import Browser
from pytest_django.live_server_helper import LiveServer

from tests.portal import routes
from tests.portal.browser import Eye, browser, in_a_thread
from tests.portal.doors import sign_in
from tests.portal.routes import ROUTES, Scene

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(240),
]

_FILES = {
    "held-content",
    "recording-cast",
    "recording-download",
    "verifier-download",
    "signing-keys",
}
# Each page once, as the first of these sees it: they see most of it.
_SEES_MOST = [routes.APPROVER, routes.AUDITOR, routes.ADMINISTRATOR, routes.OWNER]
_EVERYBODYS = routes.OWNER


def pages_of(role: str) -> list[tuple[str, routes.Route]]:
    """Return the pages this role is looked at with."""
    found = []
    for route in ROUTES:
        readers = [each for each in _SEES_MOST if route.expected("GET", each) == 200]
        if len(readers) == len(_SEES_MOST):
            readers = [_EVERYBODYS]
        if readers[:1] == [role] and route.name not in _FILES:
            found.append((route.name, route))
    return found


def test_every_page_is_somebodys() -> None:
    """So that no new page escapes: whatever answers 200 to somebody is looked at."""
    looked_at = {name for role in _SEES_MOST for name, _ in pages_of(role)}
    everything = {
        route.name
        for route in ROUTES
        if any(route.expected("GET", role) == 200 for role in routes.SIGNED_IN)
    }
    assert everything - looked_at == _FILES


def look(
    chromium: Browser, address: str, client: Client, places: list[tuple[str, str]]
) -> list[str]:
    """Return what is wrong with these pages for whoever has the cookies of `client`."""
    context = chromium.new_context()
    cookie = client.cookies[settings.SESSION_COOKIE_NAME]
    context.add_cookies(
        [{"name": cookie.key, "value": cookie.value, "url": f"{address}/"}]
    )
    page = context.new_page()
    eye = Eye(page)
    for name, where in places:
        answer = page.goto(f"{address}{where}")
        assert answer is not None
        if answer.status != 200 or page.url != f"{address}{where}":
            eye.problems.append(f"{name}: {answer.status} at {page.url}")
        eye.look(name)
    context.close()
    return eye.problems


@pytest.mark.parametrize("role", _SEES_MOST)
def test_every_page_is_accessible(
    role: str, live_server: LiveServer, chromium_path: str
) -> None:
    scene: Scene = routes.scene()
    client = sign_in(scene.person(role)).client
    places = [
        (f"{name} as {role}", route.address(route.target(scene)))
        for name, route in pages_of(role)
    ]

    def walk() -> list[str]:
        with browser(chromium_path) as chromium:
            return look(chromium, live_server.url, client, places)

    assert in_a_thread(walk) == []
