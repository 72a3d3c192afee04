"""Where a result comes from: the machine, the versions, and who else was busy."""

import datetime as dt
import os
import platform
import resource
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh
import cryptography

from benchmarks.processes import MachineTime
from jumpserver.version import VERSION


def describe(note: str) -> dict[str, float | int | str]:
    """Return what does not change during a run."""
    described: dict[str, float | int | str] = {
        "environment.date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "environment.cpus": os.cpu_count() or 0,
        "environment.cpu_model": _cpu_model(),
        "environment.kernel": platform.release(),
        "environment.python": platform.python_version(),
        "environment.openssh": _openssh(),
        "environment.sluice": VERSION,
        "environment.asyncssh": asyncssh.__version__,
        "environment.cryptography": cryptography.__version__,
        "environment.database": "SQLite",
        "environment.load_before": round(os.getloadavg()[0], 2),
    }
    if note:
        described["environment.note"] = note
    return described


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _openssh() -> str:
    done = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=True)
    return done.stderr.strip()


@dataclass(slots=True)
class Others:
    """How much of the machine others used while the benchmark ran.

    All that was busy, less what this process and its ended descendants used. On an
    idle machine it is near zero; what it says is an upper bound.
    """

    _machine: MachineTime = field(default_factory=MachineTime.now)
    _started: float = field(default_factory=time.monotonic)
    _own: float = field(default_factory=lambda: _own_seconds())

    def shares(self) -> Mapping[str, float]:
        """Return percentages of all processors; call when everything has ended."""
        machine = MachineTime.now()
        elapsed = time.monotonic() - self._started
        available = elapsed * (os.cpu_count() or 1)
        own = _own_seconds() - self._own
        busy = machine.busy - self._machine.busy
        stolen = machine.stolen - self._machine.stolen
        return {
            "environment.seconds": round(elapsed, 1),
            "environment.others_cpu_percent": round(
                max(0.0, busy - own) * 100 / available, 1
            ),
            "environment.stolen_cpu_percent": round(stolen * 100 / available, 1),
        }


def _own_seconds() -> float:
    """Return the processor time of this process and its waited-for descendants."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in (
            resource.getrusage(resource.RUSAGE_SELF),
            resource.getrusage(resource.RUSAGE_CHILDREN),
        )
    )
