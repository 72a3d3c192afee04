"""Argon2 at its cheapest, so that making people does not dominate the tests."""

from django.contrib.auth.hashers import Argon2PasswordHasher


class CheapArgon2PasswordHasher(Argon2PasswordHasher):
    """The product's hasher with the least work it allows."""

    time_cost = 1
    memory_cost = 8
    parallelism = 1
