"""`manage.py run`: run Sluice, all of it or some of its roles."""

import asyncio
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from jumpserver.lock import DataDirectoryInUseError
from jumpserver.supervisor import Role, RolesRefusedError, Supervisor, parse_roles


class Command(BaseCommand):
    """Run the portal, the gateway, the worker and beat, together or apart."""

    help = (
        "Run Sluice. Without --roles everything runs in this one process (embedded "
        "mode). With PostgreSQL and Redis the roles can run as processes of their own."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "--roles",
            default="all",
            help=f"comma-separated: {', '.join(role.value for role in Role)}, or all",
        )
        parser.add_argument(
            "--ready-file",
            type=Path,
            help="file to write (mode 0600, JSON) once everything answers",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Check, then run until SIGTERM or Ctrl-C."""
        try:
            roles = parse_roles(options["roles"])
        except RolesRefusedError as error:
            raise CommandError(str(error)) from None
        refuse_unmigrated()
        supervisor = Supervisor(
            roles=roles, ready_file=options["ready_file"], on_ready=self._say_ready
        )
        try:
            asyncio.run(supervisor.run())
        except DataDirectoryInUseError as error:
            raise CommandError(str(error)) from None
        except OSError as error:
            raise CommandError(
                f"Sluice cannot start: {error}. Is the port free (SLUICE_PORTAL_PORT, "
                "SLUICE_SSH_PORT)?"
            ) from None

    def _say_ready(self, supervisor: Supervisor) -> None:
        for name, value in supervisor.facts().items():
            self.stdout.write(f"{name}: {value}")
        self.stdout.flush()


def refuse_unmigrated() -> None:
    """Refuse to run on a database whose tables are not those of this version."""
    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        raise CommandError("The database is not up to date: run `manage.py migrate`.")
