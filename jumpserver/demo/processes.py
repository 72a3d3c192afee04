"""The demo's processes: this one, the plant and the product, ending together.

This process holds the data directory; the plant and the product are its children and
die with it, even after `kill -9` (see `leash`). Only the standard library is imported:
a second start has five seconds in all.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Any, Self

from jumpserver.demo import leash
from jumpserver.demo.people_file import PersonCard, read_people
from jumpserver.demo.waterworks import ASSETS
from jumpserver.lock import DataDirectoryInUseError, DataDirectoryLock
from jumpserver.private_files import write_private_json

ROOT = Path(__file__).resolve().parent.parent.parent
LOOPBACK = "127.0.0.1"
_START_SECONDS = 60.0
_STOP_SECONDS = 15.0
_POLL_SECONDS = 0.01
_LOG_LINES = 15
_MADE_BY_US = ("sluice.sqlite3", "secrets", "plant", "demo")


class DemoRefusedError(RuntimeError):
    """The demo cannot run like this; the message says what to do."""


class Stopped(BaseException):
    """Somebody asked the demo to end: SIGTERM, SIGHUP or Ctrl-C."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningDemo:
    """Where the demo answers, and who can sign in."""

    portal_url: str
    ssh_host: str
    ssh_port: int
    ssh_host_key: str
    people: list[PersonCard]

    def person(self, username: str) -> PersonCard:
        """Return the card of `username`. Raises: KeyError."""
        for card in self.people:
            if card.username == username:
                return card
        raise KeyError(username)


def stop_on_signals() -> None:
    """Have SIGTERM, SIGHUP and Ctrl-C raise Stopped in the main thread, once."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        # A second one must not interrupt the stopping.
        for number in _STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        raise Stopped

    for number in _STOP_SIGNALS:
        signal.signal(number, stop)


_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def wipe(data_directory: Path) -> None:
    """Empty a data directory that the demo has made, while nothing runs on it.

    Raises: DemoRefusedError for a directory of anything else.
    """
    entries = list(data_directory.iterdir()) if data_directory.is_dir() else []
    if not entries:
        return
    if not any((data_directory / name).exists() for name in _MADE_BY_US[:2]):
        raise DemoRefusedError(
            f"{data_directory} is no data directory of Sluice, so it stays as it is."
        )
    try:
        # The locks stay: to remove one is to let two others have it.
        with _demo_lock(data_directory), DataDirectoryLock(data_directory):
            for entry in entries:
                if entry.suffix == ".lock":
                    continue
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()
    except DataDirectoryInUseError as error:
        raise DemoRefusedError(str(error)) from None


def _demo_lock(data_directory: Path) -> DataDirectoryLock:
    return DataDirectoryLock(data_directory, name="demo.lock")


class DemoProcesses:
    """The plant and the product on one data directory."""

    def __init__(
        self, data_directory: Path, *, portal_port: int, ssh_port: int
    ) -> None:
        """Port 0 takes the one of the last start when it is free, else any."""
        self.data_directory = data_directory.expanduser().resolve()
        self._asked = {"portal_port": portal_port, "ssh_port": ssh_port}
        self._stack = contextlib.ExitStack()
        self._plant: subprocess.Popen[bytes] | None = None
        self._product: subprocess.Popen[bytes] | None = None
        self._facts: dict[str, Any] = {}

    def __enter__(self) -> Self:
        """Take the data directory and start everything; it answers afterwards.

        Raises: DemoRefusedError.
        """
        self.data_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._stack.enter_context(_demo_lock(self.data_directory))
        except DataDirectoryInUseError as error:
            raise DemoRefusedError(str(error)) from None
        try:
            self._files.mkdir(mode=0o700, exist_ok=True)
            self._start_plant()
            self.start_product()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def _files(self) -> Path:
        return self.data_directory / "demo"

    def start_product(self) -> None:
        """Start the product, also after `kill_product`; returns when it answers.

        Raises: DemoRefusedError.
        """
        ready = self._files / "product.json"
        ready.unlink(missing_ok=True)
        ports = self._ports()
        self._product = self._spawn(
            "product",
            "--plant-state",
            str(self._files / "plant.json"),
            "--ready-file",
            str(ready),
            environment={
                "SLUICE_DATA_DIR": str(self.data_directory),
                "SLUICE_PORTAL_PORT": str(ports["portal_port"]),
                "SLUICE_SSH_PORT": str(ports["ssh_port"]),
                "SLUICE_ALLOW_HTTP": "yes",
                "SLUICE_ALLOW_LOCAL_TARGETS": "yes",
                "SLUICE_GRANT_STEP_MINUTES": "1",
            },
        )
        self._wait_until(ready.exists)
        self._facts = json.loads(ready.read_bytes())
        portal_port = int(self._facts["portal_url"].rpartition(":")[2])
        write_private_json(
            self._files / "ports.json",
            {"portal_port": portal_port, "ssh_port": self._facts["ssh_port"]},
        )
        self._wait_until(lambda: _accepts(portal_port))
        self._wait_until(lambda: _accepts(self._facts["ssh_port"]))

    def kill_product(self) -> None:
        """End the product as a power cut would."""
        if self._product is not None:
            self._product.kill()
            self._product.wait()

    def running(self) -> RunningDemo:
        """Return where everything answers."""
        return RunningDemo(
            portal_url=self._facts["portal_url"],
            ssh_host=self._facts["ssh_host"],
            ssh_port=self._facts["ssh_port"],
            ssh_host_key=self._facts["ssh_host_key"],
            people=read_people(self.data_directory),
        )

    def plant_asset(self, name: str) -> dict[str, Any]:
        """Return what the plant says of one asset."""
        state = json.loads((self._files / "plant.json").read_bytes())
        asset: dict[str, Any] = state["assets"][name]
        return asset

    def wait_until_a_part_ends(self) -> None:
        """Return never while both children live. Raises: DemoRefusedError."""
        self._wait_until(lambda: False, seconds=float("inf"), pause=0.2)

    def stop(self) -> None:
        """End the product in good order, then the plant, and let the directory go."""
        try:
            for process in (self._product, self._plant):
                if process is not None:
                    _end(process)
        finally:
            self._product = self._plant = None
            self._stack.close()

    def _start_plant(self) -> None:
        """Start the plant; the product waits for it by itself."""
        ready = self._files / "plant.json"
        ready.unlink(missing_ok=True)
        self._plant = self._spawn(
            "plant", "--data", str(self.data_directory), "--ready-file", str(ready)
        )

    def _ports(self) -> dict[str, int]:
        """Return the ports to ask for, those of the last start where any will do."""
        try:
            last = json.loads((self._files / "ports.json").read_bytes())
        except (OSError, ValueError):
            last = {}
        ports = {}
        for name, asked in self._asked.items():
            before = last.get(name, 0)
            ports[name] = asked or (before if before and _is_free(before) else 0)
        return ports

    def _spawn(
        self, module: str, *arguments: str, environment: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"jumpserver.demo.{module}", *arguments]
        with self._log(module).open("wb") as log:
            return subprocess.Popen(  # noqa: S603 - our own modules
                [
                    sys.executable,
                    "-I",
                    "-S",
                    leash.__file__,
                    str(os.getpid()),
                    *command,
                ],
                cwd=ROOT,
                env=_environment() | (environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is for the parent, which ends its children in good order.
                start_new_session=True,
            )

    def _log(self, module: str) -> Path:
        return self._files / f"{module}.log"

    def _wait_until(
        self,
        condition: Callable[[], bool],
        *,
        seconds: float = _START_SECONDS,
        pause: float = _POLL_SECONDS,
    ) -> None:
        """Wait for `condition` while both children live.

        Raises: DemoRefusedError with the end of a dead child's log.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            for module, process in (("plant", self._plant), ("product", self._product)):
                if process is not None and process.poll() is not None:
                    raise DemoRefusedError(self._last_words(module))
            if time.monotonic() > deadline:
                raise DemoRefusedError(
                    f"The product did not answer in {seconds:.0f} s; its log is "
                    f"{self._log('product')}."
                )
            time.sleep(pause)

    def _last_words(self, module: str) -> str:
        lines = _tail(self._log(module).open("rb"))
        return f"The {module} ended; it said:\n{lines}"


def _tail(log: IO[bytes]) -> str:
    with log:
        lines = log.read().decode(errors="replace").splitlines()
    return "\n".join(lines[-_LOG_LINES:])


def _environment() -> dict[str, str]:
    """Return the environment without any of the product's own settings.

    The demo must not seed a production database that the shell happens to name.
    """
    dropped = ("SLUICE_", "DATABASE_URL", "REDIS_URL", "DJANGO_")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(dropped)
    }
    return kept | {"DJANGO_SETTINGS_MODULE": "jumpserver.settings"}


def _accepts(port: int) -> bool:
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True


def _is_free(port: int) -> bool:
    try:
        socket.create_server((LOOPBACK, port)).close()
    except OSError:
        return False
    return True


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def describe(demo: RunningDemo) -> dict[str, object]:
    """Return the content of `--ready-file`."""
    return {
        "portal_url": demo.portal_url,
        "ssh_host": demo.ssh_host,
        "ssh_port": demo.ssh_port,
        "ssh_host_key": demo.ssh_host_key,
        "people": [
            {
                "username": card.username,
                "password": card.password,
                "totp_secret": card.totp_secret,
                "role": card.role,
                "ssh_private_key": card.ssh_private_key,
            }
            for card in demo.people
        ],
        "assets": [
            {"name": asset.name, "accounts": [asset.account], "zone": asset.zone}
            for asset in ASSETS
        ],
        "pid": os.getpid(),
    }
