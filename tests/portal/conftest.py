"""The scene of the table in `routes`, made once for a module that walks all of it."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import transaction
from django.test import Client

from tests.portal import routes
from tests.portal.doors import sign_in
from tests.portal.routes import ANONYMOUS, Scene


@pytest.fixture(scope="module")
def scene(django_db_setup: None, django_db_blocker: Any) -> Iterator[Scene]:
    """One plant for the whole module: each test runs in a savepoint behind it."""
    with django_db_blocker.unblock(), transaction.atomic():
        yield routes.scene()
        transaction.set_rollback(True)


@pytest.fixture(scope="module")
def browsers(scene: Scene) -> dict[str, Client]:
    """Everybody's browser, signed in with both factors."""
    browsers = {role: sign_in(scene.person(role)).client for role in routes.SIGNED_IN}
    return {ANONYMOUS: Client(), **browsers}
