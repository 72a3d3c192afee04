"""Both factors, on every page that is not part of signing in."""

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.contrib.auth import logout
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import resolve_url

from apps.portal.roles import has_both_factors

View = Callable[..., HttpResponseBase]


class VerifiedMiddleware:
    """Refuse whoever is signed in without a verified second factor; store no page.

    Stands behind django's LoginRequiredMiddleware, which refuses the anonymous, and
    lets the same views through (`login_not_required`). Somebody is signed in but not
    verified when their factor was taken away meanwhile: the session is ended, because
    it proves too little now.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        # After sign-out, the Back button must not show what was on the screen.
        response.headers.setdefault("Cache-Control", "no-store")
        if request.headers.get("HX-Request") and _leads_to_sign_in(response):
            # A fragment cannot hold the sign-in page: the whole browser goes there.
            refresh = HttpResponse(status=204)
            refresh.headers["HX-Refresh"] = "true"
            return refresh
        return response

    def process_view(
        self, request: HttpRequest, view: View, _args: Any, _kwargs: Any
    ) -> HttpResponse | None:
        if not getattr(view, "login_required", True):
            return None
        if has_both_factors(request):
            return None
        logout(request)
        return redirect_to_login(request.get_full_path())


def _leads_to_sign_in(response: HttpResponse) -> bool:
    location = response.headers.get("Location", "").partition("?")[0]
    return response.status_code == 302 and location == resolve_url(settings.LOGIN_URL)
