"""`manage.py host_key`: replace the gateway's host key without surprising anybody."""

import datetime as dt
import getpass
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.audit.operations import Party
from apps.vault import operations as vault


class Command(BaseCommand):
    """Prepare the next host key, switch to it, or show both."""

    help = (
        "Replace the gateway's host key. `prepare` makes the next one: clients with "
        "UpdateHostKeys learn it at their next connection. `switch` puts it to use and "
        "retires the one before. `show` prints both. A running gateway follows within "
        "seconds; live sessions go on."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("step", choices=["show", "prepare", "switch"])

    def handle(self, *_args: Any, **options: Any) -> None:
        """Do the step, then show what is."""
        now = dt.datetime.now(dt.UTC)
        by = Party("system", "system:host_key", getpass.getuser())
        try:
            if options["step"] == "prepare":
                vault.prepare_host_key(by=by, now=now)
            elif options["step"] == "switch":
                vault.switch_host_key(by=by, now=now)
        except vault.VaultRefusedError as error:
            raise CommandError(str(error)) from None
        names = ["in use", "next"]
        for name, key in zip(names, vault.host_keys(now=now), strict=False):
            self.stdout.write(f"{name:6}  {key.fingerprint}  {key.public_line}")
