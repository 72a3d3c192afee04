"""Django's registration of the sessions context."""

from django.apps import AppConfig


class SessionsConfig(AppConfig):
    """Registers `apps.sessions` under a label that Django's own sessions do not use."""

    name = "apps.sessions"
    label = "jump_sessions"
