"""The scene of the route table, for the API as well."""

from tests.portal.conftest import browsers, scene

__all__ = ["browsers", "scene"]
