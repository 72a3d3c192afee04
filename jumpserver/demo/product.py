"""The product as the demo runs it: up to date, seeded, then `manage.py run`.

`python -m jumpserver.demo.product --plant-state FILE --ready-file F` does all of it in
one process, because a second start has five seconds in all. It is told everything
else by the environment, like any other start of the product.
"""

import argparse
import datetime as dt
import json
import sys
import time
from pathlib import Path
from typing import Any

import django
from django.conf import settings

django.setup()

# These need Django to be set up.
from django.core.management import call_command  # noqa: E402
from django.core.management.base import CommandError  # noqa: E402
from django.db import connection, connections  # noqa: E402
from django.db.migrations.executor import MigrationExecutor  # noqa: E402

from jumpserver.demo.seed import SeedError, seed  # noqa: E402
from jumpserver.lock import DataDirectoryInUseError, DataDirectoryLock  # noqa: E402
from jumpserver.management.commands.run import Command as RunCommand  # noqa: E402

_PLANT_SECONDS = 30.0
_POLL_SECONDS = 0.01


def wait_for_plant(state_file: Path) -> dict[str, Any]:
    """Return what the plant says of itself once it answers.

    Raises: TimeoutError when it does not.
    """
    deadline = time.monotonic() + _PLANT_SECONDS
    while not state_file.exists():
        if time.monotonic() > deadline:
            raise TimeoutError("the demo plant did not answer")
        time.sleep(_POLL_SECONDS)
    state: dict[str, Any] = json.loads(state_file.read_bytes())
    return state


def prepare(state_file: Path) -> None:
    """Bring the database up to date and the demo into it.

    Raises: DataDirectoryInUseError, SeedError, TimeoutError.
    """
    # Taken again by the supervisor: migrating below a running product is as bad as
    # running two of them.
    with DataDirectoryLock(settings.SLUICE_DATA_DIR):
        executor = MigrationExecutor(connection)
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            call_command("migrate", verbosity=0, interactive=False)
        seed(
            data_directory=settings.SLUICE_DATA_DIR,
            plant=wait_for_plant(state_file),
            now=dt.datetime.now(dt.UTC),
        )
        connections.close_all()


def main() -> int:
    """Parse the command line and run until SIGTERM; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m jumpserver.demo.product")
    parser.add_argument("--plant-state", type=Path, required=True, metavar="FILE")
    parser.add_argument("--ready-file", type=Path, required=True, metavar="FILE")
    options = parser.parse_args()
    try:
        prepare(options.plant_state)
        call_command(RunCommand(), ready_file=options.ready_file)
    except (CommandError, DataDirectoryInUseError, SeedError, TimeoutError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
