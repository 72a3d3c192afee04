"""Django's registration of the inventory context."""

from django.apps import AppConfig


class InventoryConfig(AppConfig):
    """Registers `apps.inventory`."""

    name = "apps.inventory"
