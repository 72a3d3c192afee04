"""Who calls: a person in the portal with both factors, or by a personal token.

Either way it ends in a person, and what they may do is asked of the same functions as
everywhere else (R15).
"""

from dataclasses import dataclass
from http import HTTPStatus

from django.conf import settings
from django.http import HttpRequest
from django.utils import timezone
from ninja.security import APIKeyCookie, HttpBearer

from apps.accounts import api_tokens
from apps.accounts.models import User
from apps.api.problems import SCOPE_MISSING, ProblemError
from apps.portal.roles import has_both_factors


@dataclass(frozen=True, slots=True)
class Caller:
    """A person, and what this way of calling is for."""

    user: User
    scopes: frozenset[str]


class PortalSession(APIKeyCookie):
    """The cookie of somebody signed in to the portal; writes need the CSRF token."""

    param_name = settings.SESSION_COOKIE_NAME

    def __call__(self, request: HttpRequest) -> Caller | None:
        """Return the caller; a cookie counts only where no token was sent."""
        if "Authorization" in request.headers or self.param_name not in request.COOKIES:
            return None
        found: Caller | None = super().__call__(request)
        return found

    def authenticate(self, request: HttpRequest, key: str | None) -> Caller | None:  # noqa: ARG002
        """Return the caller when both factors were verified."""
        user = request.user
        if not isinstance(user, User) or not has_both_factors(request):
            return None
        return Caller(user, frozenset(api_tokens.SCOPES))


class PersonalToken(HttpBearer):
    """`Authorization: Bearer sluice_...`; cookies do not count beside it."""

    def authenticate(self, request: HttpRequest, token: str) -> Caller | None:  # noqa: ARG002
        """Return the caller when the token holds."""
        found = api_tokens.redeem(token, now=timezone.now())
        return Caller(found.user, frozenset(found.scopes)) if found else None


def caller(request: HttpRequest, scope: str) -> User:
    """Return who calls. Raises: ProblemError when the token is not for this."""
    found: Caller = request.auth  # type: ignore[attr-defined]  # set by django-ninja
    if scope not in found.scopes:
        raise ProblemError(
            HTTPStatus.FORBIDDEN, SCOPE_MISSING, f"The token is not for {scope}."
        )
    return found.user
