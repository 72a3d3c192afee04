"""Addresses of the WebSockets."""

from typing import Any

from django.urls import path

from apps.portal.consumers import ChangesConsumer, TerminalConsumer, WatchConsumer


def _at(route: str, consumer: Any) -> Any:
    # Django's types know only views; the router of Channels takes ASGI applications.
    return path(route, consumer.as_asgi())


websocket_urlpatterns = [
    _at("ws/changes/", ChangesConsumer),
    _at("ws/terminal/<uuid:grant_id>/", TerminalConsumer),
    _at("ws/watch/<uuid:session_id>/", WatchConsumer),
]
