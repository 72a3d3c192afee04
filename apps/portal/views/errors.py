"""Pages for what went wrong; they read nothing, so that they still work then."""

from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string


def bad_request(_request: HttpRequest, exception: Exception) -> HttpResponse:
    del exception  # what it says is for the log
    return _page(400)


def permission_denied(_request: HttpRequest, exception: Exception) -> HttpResponse:
    del exception
    return _page(403)


def page_not_found(_request: HttpRequest, exception: Exception) -> HttpResponse:
    del exception  # it lists the addresses there are
    return _page(404)


def server_error(_request: HttpRequest) -> HttpResponse:
    return _page(500)


def _page(status: int) -> HttpResponse:
    return HttpResponse(render_to_string(f"{status}.html"), status=status)
