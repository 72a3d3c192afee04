"""The inventory context: sites, zones, conduits, assets and their accounts."""
