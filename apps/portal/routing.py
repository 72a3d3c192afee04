"""Addresses of the WebSockets."""

from typing import Any

from django.urls import URLPattern, path

from apps.portal.consumers import ChangesConsumer, TerminalConsumer, WatchConsumer


def _at(route: str, consumer: Any) -> URLPattern:
    # Django's types know only views; the router of Channels takes ASGI applications.
    pattern: URLPattern = path(route, consumer.as_asgi())
    return pattern


websocket_urlpatterns = [
    _at("ws/changes/", ChangesConsumer),
    _at("ws/terminal/<uuid:grant_id>/", TerminalConsumer),
    _at("ws/watch/<uuid:session_id>/", WatchConsumer),
]
