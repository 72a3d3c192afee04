"""Error pages: they say what to do, and nothing about what is inside."""

import pytest
from django.test import Client, RequestFactory

from apps.portal.views import errors
from tests import factories
from tests.portal.doors import sign_in


@pytest.mark.parametrize(
    ("view", "status"),
    [
        (errors.bad_request, 400),
        (errors.permission_denied, 403),
        (errors.page_not_found, 404),
    ],
)
def test_they_need_no_database_and_repeat_nothing(view: object, status: int) -> None:
    """Without the `db` mark a query fails: these pages work when it is away."""
    assert callable(view)
    answer = view(RequestFactory().get("/x/"), ValueError("secret inside"))
    html = answer.content.decode()
    assert answer.status_code == status
    assert f"Error {status}" in html
    assert "secret inside" not in html
    assert 'href="/"' in html


def test_the_last_resort_needs_nothing() -> None:
    answer = errors.server_error(RequestFactory().get("/x/"))
    assert answer.status_code == 500
    assert "Something broke on our side" in answer.content.decode()


@pytest.mark.django_db
def test_unknown_and_forbidden_look_alike() -> None:
    """R1: from outside nobody learns what exists."""
    here = factories.plant()
    client = sign_in(here.engineer).client
    pages = {
        client.get(address).content
        for address in (
            f"/people/{here.approver.pk}/",
            "/people/00000000-0000-7000-8000-000000000000/",
            "/nothing/of/this/name/",
        )
    }
    assert len(pages) == 1


@pytest.mark.django_db
def test_an_unknown_host_name_is_refused() -> None:
    answer = Client(HTTP_HOST="evil.example").get("/sign-in/")
    assert answer.status_code == 400
    assert b"evil.example" not in answer.content
