"""R1, R13: every address and WebSocket, for every role, exactly as the table says."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.apps import apps
from django.db import transaction
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from apps.audit.models import AuditEvent
from apps.portal.routing import websocket_urlpatterns
from tests.api.routes import API_ROUTES
from tests.portal import routes
from tests.portal.doors import PASSWORD
from tests.portal.routes import ANONYMOUS, ROUTES, SOCKETS, TO_SIGN_IN, Route, Scene
from tests.portal.streamed import drain

# What may change when somebody is refused: the ledger's and the limiter's notes, and
# the portal session itself.
_NOTES = {"audit", "axes", "sessions"}
_NOTED_MODELS = {"access.Decision", "recordings.Viewing"}

pytestmark = pytest.mark.django_db

by_name = pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)


def everything() -> dict[str, list[Any]]:
    """Return the rows of every table that a refusal must leave as they are."""
    return {
        model._meta.label: list(model._default_manager.order_by("pk").values_list())
        for model in apps.get_models()
        if model._meta.app_label not in _NOTES
        and model._meta.label not in _NOTED_MODELS
    }


def ask(
    client: Client, method: str, address: str, body: dict[str, Any] | None = None
) -> Any:
    """Ask with a browser whose cookies stay as they were before."""
    before = dict(client.cookies)
    answer = client.generic(method, address) if body is None else None
    if answer is None:
        answer = client.post(address, body)
    client.cookies.clear()
    client.cookies.update(before)
    drain(answer)
    return answer


def outcome(answer: Any) -> routes.Outcome:
    """Return the status, or TO_SIGN_IN for a redirection to the sign-in page."""
    location = answer.headers.get("Location", "")
    if answer.status_code == 302 and location.startswith("/sign-in/?next="):
        return TO_SIGN_IN
    return int(answer.status_code)


def walk(patterns: list[Any], prefix: str = "", names: str = "") -> Iterator[str]:
    """Yield the full name of every URL pattern, or its route where it has none."""
    for pattern in patterns:
        place = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            namespace = f"{names}{pattern.namespace}:" if pattern.namespace else names
            yield from walk(pattern.url_patterns, place, namespace)
        else:
            assert isinstance(pattern, URLPattern)
            yield names + (pattern.name or place)


def test_every_address_is_in_the_table() -> None:
    """R1: an address that nobody thought about does not get in."""
    found = sorted(walk(get_resolver().url_patterns))
    pages = {f"portal:{route.name}" for route in ROUTES}
    # `tests.api.test_authorization` asks each of these as every role.
    json = {f"api:{route.name}" for route in API_ROUTES} | {"api:nowhere"}
    assert found == sorted(pages | json)


def test_every_websocket_is_in_the_table() -> None:
    """R13: nor does a WebSocket."""
    found = sorted(str(pattern.pattern) for pattern in websocket_urlpatterns)
    assert found == sorted(socket.route for socket in SOCKETS)


@by_name
def test_reading(route: Route, scene: Scene, browsers: dict[str, Client]) -> None:
    address = route.address(route.target(scene))
    found = {}
    for role, client in browsers.items():
        with transaction.atomic():
            found[role] = outcome(ask(client, "GET", address))
            transaction.set_rollback(True)
    assert found == {role: route.expected("GET", role) for role in browsers}


@by_name
def test_posting(route: Route, scene: Scene, browsers: dict[str, Client]) -> None:
    """R1, R6, R17: whoever is refused has changed nothing; what is done is written."""
    address, body = route.address(route.target(scene)), route.body(scene)
    before = everything()
    found, trespasses, unwritten = {}, [], []
    for role, client in browsers.items():
        expected = route.expected("POST", role)
        with transaction.atomic():
            events = AuditEvent.objects.count()
            found[role] = outcome(ask(client, "POST", address, body))
            if expected in (200, 302):
                if route.writes and AuditEvent.objects.count() == events:
                    unwritten.append(role)
            elif everything() != before:
                trespasses.append(role)
            transaction.set_rollback(True)
    assert found == {role: route.expected("POST", role) for role in browsers}
    assert trespasses == []
    assert unwritten == []


@by_name
def test_other_methods_do_nothing(
    route: Route, scene: Scene, browsers: dict[str, Client]
) -> None:
    address = route.address(route.target(scene))
    before = everything()
    found = {
        (role, method): outcome(ask(browsers[role], method, address))
        for role in (ANONYMOUS, routes.OWNER, routes.ADMINISTRATOR)
        for method in ("PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
    }
    assert set(found.values()) <= {405, TO_SIGN_IN}
    assert everything() == before


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "route",
    [route for route in ROUTES if route.target is not routes._nothing],
    ids=lambda route: route.name,
)
def test_unknown_and_forbidden_look_alike(
    route: Route, method: str, scene: Scene, browsers: dict[str, Client]
) -> None:
    """Nobody learns from an answer whether there is such a thing (R6)."""
    kwargs, body = route.target(scene), route.body(scene)
    there, nowhere = route.address(kwargs), route.address(routes.unknown(kwargs))
    given = None if method == "GET" else body
    for role in routes.SIGNED_IN:
        expected = route.expected(method, role)
        with transaction.atomic():
            absent = ask(browsers[role], method, nowhere, given)
            transaction.set_rollback(True)
        if expected == routes.REFUSED:
            with transaction.atomic():
                refused = ask(browsers[role], method, there, given)
                transaction.set_rollback(True)
            assert refused.status_code == absent.status_code == 404, role
            assert refused.content == absent.content, role
            assert dict(refused.headers) == dict(absent.headers), role
        elif expected != routes.WRONG_METHOD:
            assert absent.status_code == 404, role


@by_name
def test_a_post_without_its_token_is_refused(
    route: Route, scene: Scene, browsers: dict[str, Client]
) -> None:
    address, body = route.address(route.target(scene)), route.body(scene)
    before, events = everything(), AuditEvent.objects.count()
    for role, client in browsers.items():
        if route.expected("POST", role) in (TO_SIGN_IN, routes.WRONG_METHOD):
            continue
        forger = Client(enforce_csrf_checks=True)
        forger.cookies.update(client.cookies)
        answer = forger.post(address, body)
        assert answer.status_code == 403, role
    assert everything() == before
    assert AuditEvent.objects.count() == events


# Whoever has a browser has the password that is known here.
@pytest.mark.usefixtures("browsers")
@by_name
def test_a_password_alone_opens_nothing(route: Route, scene: Scene) -> None:
    """R4: between the two factors somebody is as anonymous as before."""
    client = Client()
    half = client.post(
        "/sign-in/",
        {"username": scene.person(routes.OWNER).username, "password": PASSWORD},
    )
    assert half.status_code == 302
    address = route.address(route.target(scene))
    for method in ("GET", "POST"):
        if route.expected(method, ANONYMOUS) == TO_SIGN_IN:
            answer = ask(client, method, address, route.body(scene) or None)
            assert outcome(answer) == TO_SIGN_IN, method
