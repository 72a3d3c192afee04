"""Addresses of the WebSockets."""

from django.urls import path

from apps.portal.consumers import ChangesConsumer, TerminalConsumer, WatchConsumer

websocket_urlpatterns = [
    path("ws/changes/", ChangesConsumer.as_asgi()),
    path("ws/terminal/<uuid:grant_id>/", TerminalConsumer.as_asgi()),
    path("ws/watch/<uuid:session_id>/", WatchConsumer.as_asgi()),
]
