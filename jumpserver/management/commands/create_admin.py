"""`manage.py create_admin`: the only way to the first administrator (R9)."""

import datetime as dt
import getpass
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.accounts.operations import PersonRefusedError, add_person
from apps.audit.operations import Party


class Command(BaseCommand):
    """Add an administrator; the password is asked for, or read from standard input."""

    help = (
        "Add an administrator. There is no default one. The password is asked for "
        "twice, or read from standard input with --password-stdin; it is never an "
        "argument, because arguments can be read by other processes. The second factor "
        "is enrolled at the first sign-in."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("username", help="handle, such as anna.berg")
        parser.add_argument("--full-name", required=True)
        parser.add_argument("--email", default="")
        parser.add_argument(
            "--password-stdin",
            action="store_true",
            help="read the password from the first line of standard input",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Ask, check, add."""
        password = self._password(from_stdin=options["password_stdin"])
        try:
            user = add_person(
                username=options["username"],
                full_name=options["full_name"],
                email=options["email"],
                password=password,
                roles=frozenset({"administrator"}),
                by=Party("system", "system:create_admin", getpass.getuser()),
                now=dt.datetime.now(dt.UTC),
            )
        except PersonRefusedError as error:
            raise CommandError(str(error)) from None
        self.stdout.write(
            f"{user.username} was added. Sign in at the portal to enrol the second "
            "factor."
        )

    def _password(self, *, from_stdin: bool) -> str:
        if from_stdin:
            return sys.stdin.readline().rstrip("\n")
        if not sys.stdin.isatty():
            raise CommandError(
                "There is no terminal to ask for the password: use --password-stdin."
            )
        password = getpass.getpass("Password: ")
        if password != getpass.getpass("Password again: "):
            raise CommandError("The two passwords differ: nothing was added.")
        return password
