"""R1, R15: every address of the API, for every role, with a token and with a cookie."""

import json
import uuid
from typing import Any

import pytest
from django.db import transaction
from django.test import Client

from apps.accounts import api_tokens
from apps.audit.models import AuditEvent
from tests import factories
from tests.api.routes import API_ROUTES, ApiRoute
from tests.portal.doors import add_person, sign_in
from tests.portal.routes import ANONYMOUS, OWNER, SIGNED_IN, Scene

pytestmark = pytest.mark.django_db

by_name = pytest.mark.parametrize("route", API_ROUTES, ids=lambda route: route.name)


def ask(
    client: Client, route: ApiRoute, address: str, method: str = "", **headers: str
) -> Any:
    return client.generic(
        method or route.method,
        address,
        json.dumps(route.body) if route.body is not None else "",
        content_type="application/json",
        headers=headers,
    )


def token_of(scene: Scene, role: str, *scopes: str) -> str:
    _token, secret = api_tokens.make_token(
        user=scene.person(role),
        name="test",
        scopes=scopes or api_tokens.SCOPES,
        days=1,
        source_address="192.0.2.7",
        now=factories.clock(),
    )
    return secret


@by_name
@pytest.mark.parametrize("by", ["cookie", "token"])
def test_as_every_role(
    route: ApiRoute, scene: Scene, browsers: dict[str, Client], by: str
) -> None:
    address = route.address(route.target(scene))
    found = {}
    for role, browser in browsers.items():
        with transaction.atomic():
            if by == "cookie" or role == ANONYMOUS:
                answer = ask(browser, route, address)
            else:
                bearer = f"Bearer {token_of(scene, role)}"
                answer = ask(Client(), route, address, Authorization=bearer)
            transaction.set_rollback(True)
        found[role] = answer.status_code
        if answer.status_code >= 400:
            assert answer["Content-Type"] == "application/problem+json"
            assert answer.json()["status"] == answer.status_code
            assert answer.json()["code"]
    assert found == {role: route.expected(role) for role in browsers}


@pytest.mark.parametrize(
    "route",
    [route for route in API_ROUTES if route.is_about_one],
    ids=lambda route: route.name,
)
def test_unknown_and_forbidden_look_alike(
    route: ApiRoute, scene: Scene, browsers: dict[str, Client]
) -> None:
    unknown = route.address({"session_id": uuid.uuid4()})
    known = route.address(route.target(scene))
    for role in SIGNED_IN:
        if route.expected(role) == 404:
            answers = [ask(browsers[role], route, each) for each in (unknown, known)]
            assert answers[0].status_code == answers[1].status_code == 404
            assert answers[0].content == answers[1].content


@by_name
def test_a_token_is_for_its_scopes_only(route: ApiRoute, scene: Scene) -> None:
    other = (set(api_tokens.SCOPES) - {route.scope}).pop()
    address = route.address(route.target(scene))
    for role in SIGNED_IN:
        with transaction.atomic():
            bearer = f"Bearer {token_of(scene, role, other)}"
            before = AuditEvent.objects.count()
            answer = ask(Client(), route, address, Authorization=bearer)
            assert answer.status_code == 403
            assert answer.json()["code"] == "scope_missing"
            assert AuditEvent.objects.count() == before
            transaction.set_rollback(True)


@by_name
@pytest.mark.parametrize(
    "bearer",
    ["", "Bearer ", "Bearer sluice_", "Bearer sluice_" + "x" * 43, "Basic abc", "x"],
)
def test_a_wrong_token_is_not_helped_by_a_cookie(
    route: ApiRoute, scene: Scene, browsers: dict[str, Client], bearer: str
) -> None:
    """R15: whoever sends a token is judged by it."""
    address = route.address(route.target(scene))
    answer = ask(browsers[OWNER], route, address, Authorization=bearer)
    assert answer.status_code == 401
    assert answer.json()["code"] == "unauthenticated"


@by_name
def test_other_methods_do_nothing(
    route: ApiRoute, scene: Scene, browsers: dict[str, Client]
) -> None:
    address = route.address(route.target(scene))
    events = AuditEvent.objects.count()
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE"} - {route.method}:
        assert ask(browsers[OWNER], route, address, method).status_code == 405
    assert AuditEvent.objects.count() == events


@pytest.mark.parametrize(
    "route",
    [route for route in API_ROUTES if route.method == "POST"],
    ids=lambda route: route.name,
)
def test_a_cookie_alone_does_not_write(
    route: ApiRoute, scene: Scene, browsers: dict[str, Client]
) -> None:
    """Another site's page must not act in the name of whoever opens it."""
    strict = Client(enforce_csrf_checks=True)
    strict.cookies.update(browsers[OWNER].cookies)
    events = AuditEvent.objects.count()
    answer = ask(strict, route, route.address(route.target(scene)))
    assert answer.status_code == 403
    assert answer.json()["code"] == "forbidden"
    assert AuditEvent.objects.count() == events


@pytest.mark.parametrize(
    "rest", ["", "nothing", "sessions/", "sessions/7", "sessions/x/freeze", "docs"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_what_has_no_address_is_a_problem_too(rest: str, method: str) -> None:
    """The same for everybody: nothing is told about who asks, and nothing is a page."""
    for client in (Client(), sign_in(add_person("somebody", "approver")).client):
        answer = client.generic(method, f"/api/v1/{rest}", "{}")
        assert answer.status_code == 404
        assert answer["Content-Type"] == "application/problem+json"
        assert answer.json()["code"] == "not_found"
