"""Django's registration of the vault context."""

from django.apps import AppConfig


class VaultConfig(AppConfig):
    """Registers `apps.vault`."""

    name = "apps.vault"
