"""Runs the product as `manage.py` does, with what only a benchmark may ask of it.

`python -m benchmarks.launch [--unrecorded] [--control SOCKET] run ...`

* `--unrecorded` throws away what sessions give their recorders, to show the price of
  recording. It replaces the method in this process: the product has no such switch,
  and the package it is installed from does not hold this module
  (`tests/benchmarks/test_launch.py`).
* `--control SOCKET` answers lines of JSON on a Unix socket with what a person would do
  in the portal, in the product's own process: `{"do": "grant", ...}` and
  `{"do": "revoke", ...}`. Only a benchmark's own directory holds the socket.
"""

import argparse
import datetime as dt
import json
import os
import socket
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any


def main(arguments: list[str]) -> None:
    """Run `manage.py` with what is left of `arguments`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.launch")
    parser.add_argument("--unrecorded", action="store_true")
    parser.add_argument("--control", type=Path)
    options, rest = parser.parse_known_args(arguments)
    import django  # noqa: PLC0415 - the settings come from the environment

    django.setup()
    if options.unrecorded:
        forget_what_is_recorded()
    if options.control is not None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(options.control))
        listener.listen()
        threading.Thread(target=_serve, args=(listener,), daemon=True).start()
    from django.core.management import (  # noqa: PLC0415
        execute_from_command_line,
    )

    execute_from_command_line(["manage.py", *rest])


def forget_what_is_recorded() -> None:
    """Make every recorder of this process take nothing."""
    from apps.recordings.writer import Recorder  # noqa: PLC0415

    def forget(self: Recorder, kind: int, channel: int, data: bytes) -> None:
        """Keep nothing."""

    Recorder.add = forget  # type: ignore[method-assign, assignment]


def _serve(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        with connection, connection.makefile("rw", encoding="utf-8") as lines:
            for line in lines:
                order = json.loads(line)
                what = order.pop("do")
                answer = _grant(**order) if what == "grant" else _revoke(**order)
                lines.write(json.dumps(answer) + "\n")
                lines.flush()


def _grant(*, engineer: str, account: str, seconds: float) -> dict[str, Any]:
    """Let `engineer` use the account from now on; say until when (POSIX seconds).

    Nobody may ask for so short a time: the end is moved after the approval.
    """
    from apps.access.models import Grant  # noqa: PLC0415
    from apps.accounts.models import User  # noqa: PLC0415
    from apps.inventory.models import TargetAccount  # noqa: PLC0415
    from benchmarks.seed import grant  # noqa: PLC0415

    made = grant(
        User.objects.get(username=engineer),
        User.objects.get(username="approver"),
        TargetAccount.objects.select_related("asset").get(asset__name=account),
        minutes=60,
        services=["shell"],
        now=dt.datetime.now(dt.UTC),
    )
    ends_at = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)
    Grant.objects.filter(pk=made.pk).update(ends_at=ends_at)
    return {"grant": str(made.pk), "ends_at": ends_at.timestamp()}


def _revoke(*, grant: str) -> dict[str, Any]:
    """Revoke a grant; say when that began and when it was committed."""
    from apps.access import operations as access  # noqa: PLC0415
    from apps.accounts.models import User  # noqa: PLC0415

    approver = User.objects.get(username="approver")
    began = time.time()
    outcome = access.revoke_grant(
        grant_id=uuid.UUID(grant),
        by=approver,
        reason="Benchmark of the cut",
        now=dt.datetime.now(dt.UTC),
    )
    return {"revoked": bool(outcome), "began": began, "committed": time.time()}


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "jumpserver.settings")
    main(sys.argv[1:])
