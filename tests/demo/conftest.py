"""A running demo plant, as the process the product starts."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import openssh


class RunningPlant:
    """`python -m jumpserver.demo.plant` on `data`, from ready to ended."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.ready_file = data / "ready.json"
        self.ready_file.unlink(missing_ok=True)
        with (data / "plant.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-m", "jumpserver.demo.plant",
                    "--data", str(data), "--ready-file", str(self.ready_file),
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + 20
        while not self.ready_file.exists():
            assert self.process.poll() is None, (data / "plant.log").read_text()
            assert time.monotonic() < deadline, "the plant did not get ready"
            time.sleep(0.01)
        self.state: dict[str, Any] = json.loads(self.ready_file.read_text())

    def asset(self, name: str) -> dict[str, Any]:
        """Return what the plant says of the asset `name`."""
        asset: dict[str, Any] = self.state["assets"][name]
        return asset

    def initial_secret(self, name: str) -> Path:
        """Return the file of the first credential of the asset's only account."""
        return Path(self.asset(name)["accounts"][0]["secret_file"])

    def ssh(
        self, name: str, *options: str, identity: Path | None = None, **more: Any
    ) -> list[str]:
        """Return a command line for the asset's only account."""
        asset = self.asset(name)
        return openssh.ssh_command(
            self.data,
            address=asset["address"],
            port=asset["port"],
            host_key=asset["host_key"],
            login=asset["accounts"][0]["login"],
            identity=identity,
            options=list(options),
            **more,
        )

    def hmi(self, *options: str, **more: Any) -> list[str]:
        """Return a command line for the HMI with its initial key."""
        key = self.initial_secret("hmi-pump-01")
        return self.ssh("hmi-pump-01", *options, identity=key, **more)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send `number` and return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(20)


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPlant]:
    """A plant for tests that leave its credentials as they were."""
    running = RunningPlant(tmp_path_factory.mktemp("plant"))
    yield running
    assert running.stop() == 0


@pytest.fixture
def start_plant(tmp_path: Path) -> Iterator[Callable[[], RunningPlant]]:
    """A function that starts a plant in the same directory each time."""
    started: list[RunningPlant] = []

    def start() -> RunningPlant:
        started.append(RunningPlant(tmp_path))
        return started[-1]

    yield start
    for running in started:
        running.stop()
