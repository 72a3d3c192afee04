"""Who is asking, and pages that only some roles may know of."""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase

from apps.accounts.models import User

P = ParamSpec("P")
R = TypeVar("R", bound=HttpResponseBase)
View = Callable[Concatenate[HttpRequest, P], R]


def signed_in(request: HttpRequest) -> User:
    """Return the person who asks. Raises: Http404 for the anonymous.

    The middleware lets nobody through who is not signed in with both factors; this is
    the second lock, and it tells the type checker who it is.
    """
    if not isinstance(request.user, User):
        raise Http404
    return request.user


def has_both_factors(request: HttpRequest) -> bool:
    """Say whether whoever asks is signed in with a verified second factor."""
    # django-otp's middleware puts the device there, None until it was verified.
    device = getattr(request.user, "otp_device", None)
    return request.user.is_authenticated and device is not None


def only_for(*roles: str) -> Callable[[View[P, R]], View[P, R]]:
    """Let people with one of `roles` in; for others the page does not exist."""

    def decorate(view: View[P, R]) -> View[P, R]:
        @wraps(view)
        def guarded(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> R:
            if not set(roles) & set(signed_in(request).role_names):
                raise Http404
            return view(request, *args, **kwargs)

        return guarded

    return decorate
