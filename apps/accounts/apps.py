"""Django's registration of the accounts context."""

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    """Registers `apps.accounts`."""

    name = "apps.accounts"
