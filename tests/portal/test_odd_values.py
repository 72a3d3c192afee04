"""Rubbish in every form and query of the table: an answer each time, never a fault.

On PostgreSQL text cannot hold NUL and numbers end sooner, so these run there as well.
"""

from typing import Any

import pytest
from django.db import transaction
from django.test import Client

from tests.portal import routes
from tests.portal.routes import ROUTES, Route, Scene
from tests.portal.streamed import drain

pytestmark = [pytest.mark.django_db, pytest.mark.both_databases]

ODD = [
    "",
    " ",
    "\x00",
    "a\x00b",
    "\x1b[2J\x07",
    "\u202e\u200b\ufeff",
    "é𝄞ﷺ",
    "-1",
    "0",
    "1e309",
    "9" * 40,
    "٣",
    "null",
    "../../etc/passwd",
    "' OR 1=1 --",
    "x" * 20_000,
    "00000000-0000-0000-0000-000000000000",
]
# What one field alone is sent; all of the others above come in all fields at once.
ODD_ALONE = ["a\x00b", "9" * 40, "x" * 20_000]
QUERY = [
    "page",
    "q",
    "kind",
    "role",
    "state",
    "asset",
    "person",
    "actor",
    "text",
    "outcome",
    "since",
    "until",
    "account",
    "next",
    "channel",
    "t",
    "download",
]
ANSWERS = {200, 302, 400, 404, 422}


def actor(route: Route, method: str) -> str | None:
    """Return a role that is let in, the one with most rights first."""
    for role in (routes.ADMINISTRATOR, routes.AUDITOR, routes.APPROVER, routes.OWNER):
        if route.expected(method, role) in (200, 302, 422):
            return role
    return None


READ = [route for route in ROUTES if actor(route, "GET")]
# A body without values has none to be odd; a new password ends the session.
SENT = [
    route
    for route in ROUTES
    if route.body is not routes._nothing
    and (actor(route, "POST") or route.name == "portal-session-end")
]


@pytest.mark.parametrize("route", READ, ids=lambda route: route.name)
def test_queries(route: Route, scene: Scene, browsers: dict[str, Client]) -> None:
    client = browsers[actor(route, "GET") or ""]
    address = route.address(route.target(scene))
    found: dict[str, int] = {}
    for odd in ODD:
        with transaction.atomic():
            answer = client.get(address, dict.fromkeys(QUERY, odd[:3000]))
            drain(answer)
            transaction.set_rollback(True)
        found[odd[:20]] = answer.status_code
    assert set(found.values()) <= ANSWERS, found


@pytest.mark.parametrize("route", SENT, ids=lambda route: route.name)
def test_bodies(route: Route, scene: Scene, browsers: dict[str, Client]) -> None:
    role = actor(route, "POST") or routes.OWNER
    address, whole = route.address(route.target(scene)), route.body(scene)
    cookies = dict(browsers[role].cookies)
    found: dict[tuple[str, str], int] = {}
    names = [*whole, None]
    for name in names:
        for odd in ODD if name is None else ODD_ALONE:
            body: dict[str, Any] = (
                dict.fromkeys(whole, odd) if name is None else {**whole, name: odd}
            )
            client = Client()
            client.cookies.update(cookies)
            with transaction.atomic():
                answer = client.post(address, body)
                transaction.set_rollback(True)
            found[str(name), odd[:20]] = answer.status_code
    assert set(found.values()) <= ANSWERS, found


@pytest.mark.parametrize("route", SENT, ids=lambda route: route.name)
def test_missing_fields(
    route: Route, scene: Scene, browsers: dict[str, Client]
) -> None:
    """Boxes that nobody ticked are not sent at all."""
    client = browsers[actor(route, "POST") or routes.OWNER]
    address, whole = route.address(route.target(scene)), route.body(scene)
    cookies, found = dict(client.cookies), {}
    for name in [*whole, None]:
        body = {k: v for k, v in whole.items() if name is not None and k != name}
        fresh = Client()
        fresh.cookies.update(cookies)
        with transaction.atomic():
            found[str(name)] = fresh.post(address, body).status_code
            transaction.set_rollback(True)
    assert set(found.values()) <= ANSWERS, found


def test_numbers_in_addresses(scene: Scene, browsers: dict[str, Client]) -> None:
    for number in ("0", "9" * 18, "9" * 19, "9" * 40):
        answer = browsers[routes.AUDITOR].get(f"/ledger/events/{number}/")
        assert answer.status_code == 404, number
    for path in ("/requests/not-a-uuid/", "/%00/", "/%ff%fe/"):
        answer = browsers[routes.OWNER].get(path)
        assert answer.status_code in (302, 400, 404), path
