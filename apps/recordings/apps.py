"""Django's registration of the recordings context."""

from django.apps import AppConfig


class RecordingsConfig(AppConfig):
    """Registers `apps.recordings`."""

    name = "apps.recordings"
