"""Start and stop the whole demo plant, as a process of its own or inside another.

`python -m jumpserver.demo.plant --data DIR --ready-file F` runs it until SIGTERM or
SIGINT and then ends with status 0. Neither this module nor anything it imports needs
Django, so it answers in well under a second.
"""

import argparse
import asyncio
import fcntl
import logging
import os
import signal
import sys
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from jumpserver.demo.bench import LabBench
from jumpserver.demo.hmi import PumpHmi
from jumpserver.demo.plant_files import (
    make_private_directory,
    read_state,
    remove_file,
    write_state,
)
from jumpserver.demo.ssh_target import PlantTarget
from jumpserver.demo.sshd import OpenSshd, choose_sshd, greets
from jumpserver.demo.sshd_stand_in import ScadaStandIn
from jumpserver.demo.switch import OldSwitch

logger = logging.getLogger(__name__)


class PlantIsRunning(RuntimeError):  # noqa: N818 - reads as the fact it states
    """Another process already runs the plant of this data directory."""


class DemoPlant:
    """The targets of "Waterworks North" below `data_directory`/plant.

    Keys, credentials and ports are kept there and resumed at the next start.
    """

    def __init__(self, data_directory: Path, *, sshd: Path | None = None) -> None:
        """`sshd` is the binary for scada-01; None looks for one."""
        self.directory = make_private_directory(
            data_directory.expanduser().resolve() / "plant"
        )
        self.state_file = self.directory / "state.json"
        self._sshd = sshd or choose_sshd()
        self._lock: IO[bytes] | None = None
        self._targets: list[PlantTarget] = []
        self._hmi: PumpHmi | None = None

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start every target; all of them answer when this returns.

        Raises: PlantIsRunning, SshdDidNotStart, OSError.
        """
        self._take_lock()
        ports = {
            name: asset.get("port", 0)
            for name, asset in read_state(self.state_file).get("assets", {}).items()
        }
        self._targets = self._make_targets()
        try:
            async with asyncio.TaskGroup() as tasks:
                for target in self._targets:
                    tasks.create_task(target.start(ports.get(target.name, 0)))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures
        await self._wait_until_all_answer()
        write_state(self.state_file, self.describe())

    async def stop(self) -> None:
        """End every target and everything they started."""
        targets, self._targets = self._targets, []
        results = await asyncio.gather(
            *(target.stop() for target in targets), return_exceptions=True
        )
        for target, result in zip(targets, results, strict=True):
            if isinstance(result, BaseException):
                logger.error("stopping %s failed", target.name, exc_info=result)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def describe(self) -> dict[str, Any]:
        """Return the plant as written to `state.json`: no secrets, only their files.

        `assets` maps each name to name, kind, address, port, host_key (public line),
        crypto_profile, and accounts (login, principal, credential_kind, secret_file).
        """
        return {
            "directory": str(self.directory),
            "pid": os.getpid(),
            "assets": {target.name: target.describe() for target in self._targets},
        }

    def _make_targets(self) -> list[PlantTarget]:
        scada_directory = self.directory / "scada-01"
        scada: PlantTarget = (
            OpenSshd(scada_directory, self._sshd)
            if self._sshd is not None
            else ScadaStandIn(scada_directory)
        )
        return [
            PumpHmi(self.directory / "hmi-pump-01"),
            OldSwitch(self.directory / "switch-old-01"),
            scada,
            LabBench(self.directory / "lab-bench-01"),
        ]

    async def _wait_until_all_answer(self) -> None:
        for target in self._targets:
            # Asking the bench would count as touching it; that it listens is enough.
            if isinstance(target, LabBench):
                continue
            asset = target.describe()
            if not await greets(asset["address"], asset["port"]):
                raise OSError(f"{target.name} does not answer")

    def _take_lock(self) -> None:
        path = self.directory / "lock"
        path.touch(mode=0o600)
        lock = path.open("wb")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as taken:
            lock.close()
            raise PlantIsRunning(
                f"the plant in {self.directory} is already running"
            ) from taken
        self._lock = lock


async def run_until_told(data_directory: Path, ready_file: Path | None) -> None:
    """Run the plant until SIGTERM or SIGINT; write `ready_file` when it answers."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    if ready_file is not None:
        remove_file(ready_file)
    async with DemoPlant(data_directory) as plant:
        if ready_file is not None:
            write_state(ready_file, plant.describe())
        await told.wait()
    if ready_file is not None:
        remove_file(ready_file)


def main() -> int:
    """Parse the command line and run; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m jumpserver.demo.plant",
        description="Run the demo plant: real SSH targets on loopback.",
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--ready-file", type=Path, metavar="FILE")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    try:
        asyncio.run(run_until_told(options.data, options.ready_file))
    except PlantIsRunning as running:
        sys.stderr.write(f"{running}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
