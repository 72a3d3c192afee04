"""Addresses of sessions: the list, one session, watching it, working in it."""

from django.urls import path

from apps.portal.views import live_control, sessions, terminal

urlpatterns = [
    path("sessions/", sessions.sessions, name="sessions"),
    path("sessions/<uuid:session_id>/", sessions.session_detail, name="session-detail"),
    path(
        "sessions/<uuid:session_id>/terminate/",
        sessions.terminate_session,
        name="session-terminate",
    ),
    path(
        "sessions/<uuid:session_id>/freeze/",
        live_control.freeze_session,
        name="session-freeze",
    ),
    path(
        "sessions/<uuid:session_id>/resume/",
        live_control.resume_session,
        name="session-resume",
    ),
    path(
        "sessions/<uuid:session_id>/message/",
        live_control.send_message,
        name="session-message",
    ),
    path(
        "sessions/<uuid:session_id>/handover/",
        live_control.hand_over,
        name="session-handover",
    ),
    path(
        "sessions/<uuid:session_id>/take-back/",
        live_control.take_back,
        name="session-take-back",
    ),
    path(
        "sessions/<uuid:session_id>/watch/",
        terminal.watch_session,
        name="session-watch",
    ),
    path("grants/<uuid:grant_id>/terminal/", terminal.terminal, name="terminal"),
    path(
        "grants/<uuid:grant_id>/terminal/consent/",
        terminal.terminal_consent,
        name="terminal-consent",
    ),
]
