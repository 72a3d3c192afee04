"""Every address of the API, and what each role gets from it with a token or a cookie.

A role that is not named is answered as if there were no such thing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.urls import reverse

from apps.accounts.api_tokens import CONTROL, READ
from tests.portal.routes import (
    ANONYMOUS,
    APPROVER,
    AUDITOR,
    OWNER,
    SIGNED_IN,
    Scene,
)


def _nothing(_scene: Scene) -> dict[str, Any]:
    return {}


def _live(scene: Scene) -> dict[str, Any]:
    return {"session_id": scene.live.pk}


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiRoute:
    """One address: its method, the scope it needs, and who gets 200."""

    name: str
    method: str = "GET"
    scope: str = READ
    allowed: tuple[str, ...] = ()
    target: Callable[[Scene], dict[str, Any]] = _nothing
    body: Mapping[str, Any] | None = None
    # What those get for whom there is nothing to do.
    instead: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_about_one(self) -> bool:
        """Say whether the address names one session."""
        return self.target is _live

    def address(self, kwargs: Mapping[str, Any]) -> str:
        """Return the address for these identifiers."""
        return reverse(f"api:{self.name}", kwargs=dict(kwargs))

    def expected(self, role: str) -> int:
        """Return the status `role` gets."""
        if role == ANONYMOUS:
            return 401
        return self.instead.get(role, 200 if role in self.allowed else 404)


API_ROUTES = [
    ApiRoute(name="openapi", allowed=SIGNED_IN),
    ApiRoute(name="sessions", allowed=SIGNED_IN),
    ApiRoute(name="session", allowed=(OWNER, APPROVER, AUDITOR), target=_live),
    ApiRoute(
        name="session-freeze",
        method="POST",
        scope=CONTROL,
        allowed=(APPROVER,),
        target=_live,
        body={"reason": "alarm in cell 3"},
    ),
    ApiRoute(
        name="session-resume",
        method="POST",
        scope=CONTROL,
        target=_live,
        # Nobody froze it.
        instead={APPROVER: 409},
    ),
    ApiRoute(
        name="session-message",
        method="POST",
        scope=CONTROL,
        allowed=(APPROVER,),
        target=_live,
        body={"text": "please finish"},
    ),
    ApiRoute(
        name="session-handover",
        method="POST",
        scope=CONTROL,
        target=_live,
        body={"to": "nobody"},
        # Nobody of that name watches.
        instead={OWNER: 409, APPROVER: 409},
    ),
    ApiRoute(
        name="session-take-back",
        method="POST",
        scope=CONTROL,
        target=_live,
        # Nobody else types.
        instead={OWNER: 409, APPROVER: 409},
    ),
    ApiRoute(
        name="session-terminate",
        method="POST",
        scope=CONTROL,
        allowed=(OWNER, APPROVER),
        target=_live,
        body={"reason": "wrong pump"},
    ),
]
