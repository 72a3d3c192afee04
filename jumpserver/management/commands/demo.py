"""`manage.py demo`: the product with a demo plant, and the story of its main job."""

import importlib
import tempfile
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from jumpserver.demo.people_file import people_path
from jumpserver.demo.processes import (
    DemoProcesses,
    DemoRefusedError,
    Stopped,
    describe,
    stop_on_signals,
    wipe,
)
from jumpserver.private_files import write_private_json

_STAGE = "jumpserver.demo.stage"
_SUMMARY = "jumpserver.demo.summary"


class Command(BaseCommand):
    """Start the product with a demo plant; play the story, or only serve."""

    help = (
        "Start Sluice with a demo plant of real SSH targets, play the story once, and "
        "stay up until Ctrl-C. Everything lives in one data directory; a second start "
        "resumes it."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "--data", type=Path, default=Path("var"), metavar="DIR",
            help="data directory (default: var)",
        )  # fmt: skip
        parser.add_argument(
            "--portal-port", type=_port, default=8443, metavar="PORT",
            help="port of the portal; 0 takes a free one (default: 8443)",
        )  # fmt: skip
        parser.add_argument(
            "--ssh-port", type=_port, default=2222, metavar="PORT",
            help="port of the SSH gateway; 0 takes a free one (default: 2222)",
        )  # fmt: skip
        parser.add_argument(
            "--ready-file", type=Path, metavar="FILE",
            help="file to write (mode 0600, JSON) once everything answers",
        )  # fmt: skip
        parser.add_argument(
            "--reset", action="store_true", help="wipe the data directory first"
        )
        parser.add_argument(
            "--again", action="store_true", help="play the story once more"
        )
        how = parser.add_mutually_exclusive_group()
        how.add_argument("--serve", action="store_true", help="without the story")
        how.add_argument(
            "--scripted", action="store_true",
            help="play the story in a temporary data directory on free ports, without "
            "a terminal, one line a step; fails at the first step that does not hold",
        )  # fmt: skip
        parser.add_argument(
            "--json", action="store_true", help="with --scripted: one JSON line a step"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Run until SIGTERM or Ctrl-C, or to the end of the scripted story."""
        if options["json"] and not options["scripted"]:
            raise CommandError("--json goes with --scripted.")
        stop_on_signals()
        try:
            if options["scripted"]:
                self._play_scripted(as_json=options["json"])
            else:
                self._run(**options)
        except DemoRefusedError as error:
            raise CommandError(str(error)) from None
        except Stopped:
            if options["scripted"]:
                raise CommandError("Stopped before the end of the story.") from None

    def _run(self, **options: Any) -> None:
        if options["reset"]:
            wipe(options["data"])
        ready_file: Path | None = options["ready_file"]
        is_fresh = not people_path(options["data"]).exists()
        processes = DemoProcesses(
            options["data"],
            portal_port=options["portal_port"],
            ssh_port=options["ssh_port"],
        )
        if ready_file is not None:
            # Whoever waits for it must not find that of a start that was killed.
            ready_file.unlink(missing_ok=True)
        with processes:
            try:
                if ready_file is not None:
                    write_private_json(ready_file, describe(processes.running()))
                if options["serve"]:
                    self.stdout.write(
                        f"Sluice answers at {processes.running().portal_url}"
                    )
                    self.stdout.flush()
                else:
                    _show(processes, is_fresh=is_fresh, again=options["again"])
                processes.wait_until_a_part_ends()
            finally:
                if ready_file is not None:
                    ready_file.unlink(missing_ok=True)

    def _play_scripted(self, *, as_json: bool) -> None:
        with tempfile.TemporaryDirectory(prefix="sluice-demo-") as directory:
            processes = DemoProcesses(Path(directory), portal_port=0, ssh_port=0)
            with processes:
                stage = importlib.import_module(_STAGE)
                if not stage.rehearse(processes, self.stdout, as_json=as_json):
                    raise CommandError("The story did not hold.")


def _show(processes: DemoProcesses, *, is_fresh: bool, again: bool) -> None:
    """Play the story unless it was played here, and say who can sign in and where.

    A story that does not hold is shown as such, and the product stays up for whoever
    wants to look why. What is shown with is loaded only now: a start that resumes, or
    only serves, does not wait for the story's clients.
    """
    played = processes.data_directory / "demo" / "story.json"
    if again or not played.exists():
        holds = importlib.import_module(_STAGE).perform(processes, is_fresh=is_fresh)
        write_private_json(played, {"holds": holds})
    importlib.import_module(_SUMMARY).show(processes.running())


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise ValueError(text)
    return number
