"""The API keeps what its description promises, whatever it is sent."""

import uuid
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import pytest
import schemathesis
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import ignored_auth

from apps.api.urls import description
from apps.sessions.models import Session
from tests import factories
from tests.api.test_sessions import Program
from tests.portal import plant_work

pytestmark = [pytest.mark.django_db, pytest.mark.timeout(240)]

EXAMPLES = 20


def operations() -> list[Any]:
    """Return the operations of the API, as schemathesis reads its description."""
    schema = schemathesis.openapi.from_dict(description())
    schema.app = get_wsgi_application()
    return [found.ok() for found in schema.get_all_operations()]


def cases(operation: Any) -> st.SearchStrategy[Any]:
    """Return requests as described, and ones that break the description."""
    good = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    if not operation.path_parameters and not operation.body:
        return good
    return good | operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)


@pytest.fixture(scope="module")
def known() -> list[Any]:
    return operations()


@pytest.fixture(autouse=True)
def one_transaction() -> Iterator[None]:
    """Keep the connection over requests, as Django's own test client does."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


def may_be_there(case: Any) -> bool:
    """Say whether the address is one at all: who asks does not matter for others."""
    wanted = (case.path_parameters or {}).get("session_id")
    try:
        return wanted is None or bool(uuid.UUID(str(wanted)))
    except ValueError:
        return False


NAMES = [f"{one.method.upper()} {one.path}" for one in operations()]


@pytest.mark.parametrize("number", range(len(NAMES)), ids=NAMES)
def test_every_answer_is_one_of_those_described(known: list[Any], number: int) -> None:
    """Odd bodies, queries, headers and ids: also of a session that is there."""
    here = factories.plant()
    live = plant_work.live_session(factories.grant(here), plant_work.gateway())
    tokens = {
        "approver": Program(here.approver).secret,
        "stranger": Program(here.second_engineer).secret,
        "reader": Program(here.approver, "sessions:read").secret,
        "nobody": "sluice_" + "x" * 43,
    }

    @given(
        case=cases(known[number]),
        who=st.sampled_from([*["approver"] * 3, *tokens]),
        there=st.booleans(),
    )
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def asked(case: Any, who: str, there: bool) -> None:
        if there and case.path_parameters:
            case.path_parameters["session_id"] = str(live.pk)
        headers = {"Authorization": f"Bearer {tokens[who]}"}
        # Which token it is the check cannot know; the statuses below do.
        answer = case.call(headers=headers)
        case.validate_response(answer, excluded_checks=[ignored_auth])
        seen.add(answer.status_code)
        if answer.status_code != HTTPStatus.NOT_FOUND or may_be_there(case):
            assert (answer.status_code == HTTPStatus.UNAUTHORIZED) == (who == "nobody")

    seen: set[int] = set()
    asked()
    assert seen & {HTTPStatus.OK, HTTPStatus.CONFLICT}
    assert Session.objects.filter(pk=live.pk).exists()
