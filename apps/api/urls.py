"""The API as one set of addresses; none of them without authentication."""

from http import HTTPStatus
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.urls import URLPattern, re_path
from django.views.decorators.csrf import csrf_exempt
from ninja import NinjaAPI
from ninja.errors import AuthenticationError, HttpError, ValidationError

from apps.accounts.api_tokens import READ
from apps.api import sessions
from apps.api.callers import PersonalToken, PortalSession, caller
from apps.api.problems import (
    CONTENT_TYPE,
    FORBIDDEN,
    INVALID,
    UNAUTHENTICATED,
    ProblemError,
    not_found,
)

PREFIX = "/api/v1/"

api = NinjaAPI(
    title="Sluice",
    version="1",
    urls_namespace="api",
    auth=[PersonalToken(), PortalSession()],
    # The description is an operation of its own below, behind the same authentication.
    openapi_url=None,
    docs_url=None,
)
api.add_router("", sessions.router)


@api.get("/openapi.json", include_in_schema=False, url_name="openapi")
def openapi(request: HttpRequest) -> HttpResponse:
    """Return the description of this API (OpenAPI 3.1)."""
    caller(request, READ)
    return api.create_response(request, description(), status=HTTPStatus.OK)


def description() -> dict[str, Any]:
    """Return the description; errors have the content type they are sent with."""
    described: dict[str, Any] = api.get_openapi_schema(path_prefix=PREFIX)
    for path in described["paths"].values():
        for operation in path.values():
            for status, answer in operation["responses"].items():
                if int(status) >= HTTPStatus.BAD_REQUEST:
                    (shape,) = answer["content"].values()
                    answer["content"] = {CONTENT_TYPE: shape}
    return described


@api.exception_handler(ProblemError)
def _problem(request: HttpRequest, error: ProblemError) -> HttpResponse:
    response = api.create_response(request, error.body(), status=error.status)
    response.headers["Content-Type"] = CONTENT_TYPE
    return response


@api.exception_handler(AuthenticationError)
def _anonymous(request: HttpRequest, _error: AuthenticationError) -> HttpResponse:
    response = _problem(
        request,
        ProblemError(
            HTTPStatus.UNAUTHORIZED,
            UNAUTHENTICATED,
            "Sign in to the portal, or send a personal token.",
        ),
    )
    response.headers["WWW-Authenticate"] = "Bearer"
    return response


@api.exception_handler(ValidationError)
def _invalid(request: HttpRequest, error: ValidationError) -> HttpResponse:
    # Where and what, never the input itself: it may be a secret in the wrong place.
    places = "; ".join(
        f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}"
        for one in error.errors
    )
    return _problem(
        request,
        ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, INVALID, places[:500]),
    )


@api.exception_handler(Http404)
def _missing(request: HttpRequest, _error: Http404) -> HttpResponse:
    return _problem(request, not_found())


@api.exception_handler(PermissionDenied)
@api.exception_handler(HttpError)
def _refused(request: HttpRequest, error: Exception) -> HttpResponse:
    # A body that is no JSON, a missing CSRF token, a client without an address.
    status = getattr(error, "status_code", HTTPStatus.FORBIDDEN)
    code = FORBIDDEN if status == HTTPStatus.FORBIDDEN else INVALID
    return _problem(request, ProblemError(status, code, str(error)))


def _addresses() -> tuple[list[URLPattern], str, str]:
    """Return the patterns; they answer the anonymous themselves, with a problem.

    django-ninja's own start page is left out: nobody needs it.
    """
    patterns, app_name, namespace = api.urls
    kept = [
        pattern
        for pattern in patterns
        if isinstance(pattern, URLPattern) and pattern.name != "api-root"
    ]
    for pattern in kept:
        # As `login_not_required` does; the middleware knows browsers' pages only.
        pattern.callback.login_required = False  # type: ignore[attr-defined]
    kept.append(re_path("", _nowhere, name="nowhere"))
    return kept, app_name, namespace


@csrf_exempt
def _nowhere(_request: HttpRequest) -> HttpResponse:
    """Answer what no operation has the address of, such as ids that are none."""
    error = not_found()
    return JsonResponse(error.body(), status=error.status, content_type=CONTENT_TYPE)


_nowhere.login_required = False  # type: ignore[attr-defined]  # as above

urls = _addresses()
