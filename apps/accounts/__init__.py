"""The accounts context: people, roles, factors and keys."""
