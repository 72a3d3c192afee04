"""What holds on every page of the table: headers, links, and that text stays text."""

import re
from html.parser import HTMLParser
from urllib.parse import urldefrag, urlsplit

import pytest
from django.db import transaction
from django.test import Client

from apps.access import operations as access
from apps.accounts import operations as accounts
from apps.inventory import operations as inventory
from apps.inventory.models import Asset
from apps.sessions.models import Channel
from tests import factories
from tests.portal import routes
from tests.portal.routes import ROUTES, Route, Scene
from tests.portal.streamed import drain

pytestmark = pytest.mark.django_db

PAGES = [
    pytest.param(route, role, id=f"{route.name}, {role}")
    for route in ROUTES
    for role in routes.EVERYBODY
    if route.expected("GET", role) == 200
    and route.name
    not in (
        "held-content",
        "recording-cast",
        "recording-download",
        "verifier-download",
        "signing-keys",
    )
]
STYLED = {"terminal", "session-watch", "recording-replay"}
COMPILED = {"recording-replay"}
MARKUP = '"><img src=x onerror=alert(1)>'
TEMPLATE = "{{ 7|add:7 }}{% now 'Y' %}"
EVIL = f"{MARKUP}{TEMPLATE}"


class Found(HTMLParser):
    """What a page links to, sends to, loads, and would run by itself."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loads: set[str] = set()
        self.active: list[str] = []
        self._inline: str = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "a" and "href" in given:
            self.links.add(given["href"])
        if tag in ("script", "img", "iframe", "embed", "object"):
            self.loads.add(given.get("src", ""))
        if tag == "link":
            self.loads.add(given["href"])
        if tag == "script" and not given.get("src"):
            self.active.append("inline script")
        if tag == "style":
            self.active.append("inline style")
        self.active += [
            f"{tag} {name}"
            for name, value in given.items()
            if name.startswith("on")
            or name == "style"
            or value.lower().strip().startswith("javascript:")
        ]


def page(browsers: dict[str, Client], route: Route, role: str, scene: Scene) -> str:
    answer = browsers[role].get(route.address(route.target(scene)))
    assert answer.status_code == 200
    return str(answer.content.decode())


def policy_of(header: str) -> dict[str, set[str]]:
    """Return the directives of a Content-Security-Policy."""
    parts = [part.split() for part in header.split(";") if part.strip()]
    return {part[0]: set(part[1:]) for part in parts}


@pytest.mark.parametrize(("route", "role"), PAGES)
def test_the_policy_of_every_page(
    route: Route, role: str, scene: Scene, browsers: dict[str, Client]
) -> None:
    """R14: nothing inline runs; styles and WebAssembly only where they are needed."""
    answer = browsers[role].get(route.address(route.target(scene)))
    assert "Content-Security-Policy-Report-Only" not in answer.headers
    policy = policy_of(answer.headers["Content-Security-Policy"])
    wasm = {"'wasm-unsafe-eval'"} if route.name in COMPILED else set()
    styles = {"'unsafe-inline'"} if route.name in STYLED else set()
    assert policy["script-src"] == {"'self'"} | wasm
    assert policy["style-src"] == {"'self'"} | styles
    for name in ("default-src", "base-uri", "frame-ancestors"):
        assert policy[name] == {"'none'"}, name
    assert policy["form-action"] == {"'self'"}
    assert policy["connect-src"] == {"'self'"}
    assert not {"object-src", "worker-src", "frame-src", "child-src"} & set(policy)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Referrer-Policy"] == "same-origin"
    assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Server" not in answer.headers


@pytest.mark.parametrize("address", ["/nothing/", "/people/", "/requests/new/"])
def test_the_policy_of_refusals(address: str, browsers: dict[str, Client]) -> None:
    for role in (routes.ANONYMOUS, routes.AUDITOR):
        for method in ("get", "post", "delete"):
            answer = getattr(browsers[role], method)(address)
            assert answer.status_code in (302, 404, 405)
            policy = policy_of(answer.headers["Content-Security-Policy"])
            assert policy["script-src"] == policy["style-src"] == {"'self'"}


@pytest.mark.parametrize(("route", "role"), PAGES)
def test_nothing_inline_and_nothing_from_elsewhere(
    route: Route, role: str, scene: Scene, browsers: dict[str, Client]
) -> None:
    found = Found(page(browsers, route, role, scene))
    assert found.active == []
    assert all(address.startswith("/static/") for address in found.loads), found.loads


@pytest.mark.parametrize("role", routes.SIGNED_IN)
def test_no_page_offers_what_it_would_refuse(
    role: str, scene: Scene, browsers: dict[str, Client]
) -> None:
    """Every link a person is shown leads somewhere they may go."""
    shown: dict[str, str] = {}
    for parameter in PAGES:
        route, reader = parameter.values
        assert isinstance(route, Route)
        if reader == role:
            where = route.address(route.target(scene))
            answer = browsers[role].get(where)
            for link in Found(answer.content.decode()).links:
                plain = urldefrag(link).url
                place = plain if not plain.startswith("?") else where + plain
                if place:
                    shown.setdefault(place, where)
    outside = {link for link in shown if urlsplit(link).netloc}
    assert outside == set()
    broken = []
    for link, where in sorted(shown.items()):
        with transaction.atomic():
            answer = browsers[role].get(link)
            drain(answer)
            transaction.set_rollback(True)
        if answer.status_code not in (200, 302):
            broken.append(f"{where} shows {link}: {answer.status_code}")
    assert broken == []


@pytest.fixture
def evil(scene: Scene) -> Scene:
    """The scene, with markup and template syntax wherever people may type."""
    here, now = scene.here, factories.clock()
    for user in (here.engineer, here.approver, here.second_engineer, scene.spare):
        accounts.change_person(
            user_id=user.pk,
            full_name=f"{EVIL[:60]}",
            organisation=EVIL[:60],
            email="",
            roles=frozenset(user.role_names),
            by=here.administrator,
            now=now,
        )
    Asset.objects.filter(pk=here.asset.pk).update(
        description=EVIL, vendor=EVIL, model=EVIL
    )
    inventory.change_zone(
        zone_id=here.cell.pk,
        changes={"name": EVIL, "purdue_level": "2", "sl_t": 3},
        by=here.administrator.party,
        now=now,
    )
    inventory.add_site(
        slug="evil", name=EVIL, time_zone="UTC", by=factories.SET_UP, now=now
    )
    accounts.add_key(
        user=here.engineer,
        name=EVIL[:80],
        text=f"{factories.ed25519_line()} {MARKUP}",
        by=here.engineer.party,
        now=now,
    )
    Channel.objects.update(command=EVIL)
    type(scene.asked).objects.update(reason=EVIL)
    access.deny_request(
        request_id=scene.asked.pk,
        version=scene.asked.version,
        approver=here.approver,
        comment=EVIL,
        source_address="192.0.2.8",
        now=now,
    )
    revoked = access.revoke_grant(
        grant_id=scene.grant.pk, by=here.approver, reason=EVIL, now=now
    )
    assert revoked
    return scene


def test_what_people_type_stays_text(evil: Scene, browsers: dict[str, Client]) -> None:
    """R5, R14: neither markup nor template syntax comes alive on any page."""
    shown = set()
    for parameter in PAGES:
        route, role = parameter.values
        assert isinstance(route, Route)
        address = route.address(route.target(evil))
        html = browsers[str(role)].get(address).content.decode()
        assert "<img src=x" not in html, address
        assert not re.search(r">\s*14\s*20\d\d", html), address
        assert Found(html).active == [], address
        if "&lt;img src=x" in html:
            shown.add(route.name)
    # It was really there to be shown.
    assert shown >= {
        "account",
        "approvals",
        "asset-detail",
        "assets",
        "ledger",
        "my-access",
        "people",
        "person-detail",
        "recording-replay",
        "request-detail",
        "session-detail",
        "sessions",
        "zones",
    }
