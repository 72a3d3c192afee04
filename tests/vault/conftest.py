"""The demo plant's targets, each started alone in a thread of its own."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from apps.inventory.crypto_profiles import PROFILES
from apps.vault.login_credentials import LoginCredential
from apps.vault.secret_values import Secret
from apps.vault.whereabouts import Target
from jumpserver.demo.hmi import PumpHmi
from jumpserver.demo.ssh_target import PlantTarget
from jumpserver.demo.sshd import OpenSshd
from jumpserver.demo.switch import OldSwitch


@contextmanager
def running(target: PlantTarget) -> Iterator[PlantTarget]:
    """Run `target` on an event loop in a thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="plant", daemon=True)
    thread.start()

    def wait_for(work: Coroutine[Any, Any, Any]) -> None:
        asyncio.run_coroutine_threadsafe(work, loop).result(20)

    try:
        wait_for(target.start(0))
        try:
            yield target
        finally:
            wait_for(target.stop())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()


def whereabouts(plant_target: PlantTarget, **changes: object) -> Target:
    """Return how `apps.vault.targets` names this target."""
    asset = plant_target.describe()
    values: dict[str, Any] = {
        "name": asset["name"],
        "address": asset["address"],
        "port": asset["port"],
        "login": asset["accounts"][0]["login"],
        "host_keys": (" ".join(asset["host_key"].split()[:2]),),
        "profile": PROFILES[asset["crypto_profile"]],
    }
    return Target(**{**values, **changes})


def initial_secret(plant_target: PlantTarget) -> Secret:
    """Return the account's first key or password."""
    file = plant_target.describe()["accounts"][0]["secret_file"]
    return Secret(Path(file).read_text().rstrip("\n"))


def initial_login(plant_target: PlantTarget) -> LoginCredential:
    """Return the account's first credential as one to log in with."""
    secret = initial_secret(plant_target)
    if plant_target.describe()["accounts"][0]["credential_kind"] == "password":
        return LoginCredential(password=secret)
    return LoginCredential(private_key=Secret(secret.reveal() + "\n"))


@pytest.fixture
def hmi(tmp_path: Path) -> Iterator[PumpHmi]:
    """A modern asyncssh target: key in authorized_keys, SFTP."""
    target = PumpHmi(tmp_path / "hmi")
    with running(target):
        yield target


@pytest.fixture
def switch(tmp_path: Path) -> Iterator[OldSwitch]:
    """A target of 2004: SHA-1, CBC, a password changed in its own shell."""
    target = OldSwitch(tmp_path / "switch")
    with running(target):
        yield target


@pytest.fixture
def scada(tmp_path: Path, sshd_binary: str) -> Iterator[OpenSshd]:
    """OpenSSH's sshd; it trusts the authority in its `user_ca_file`."""
    target = OpenSshd(tmp_path / "scada", Path(sshd_binary))
    with running(target):
        yield target
