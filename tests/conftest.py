"""What every test shares: real servers, programs of the machine, a closed network.

A fixture for something the machine lacks skips the test with the reason; set-up as
root installs all of it (`scripts/test-tools.sh`).
"""

import os
import random
import secrets
import shutil
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests import flushing, network
from tests.servers import postgresql, redis
from tests.servers.process import free_port as find_free_port
from tests.servers.process import heed_interrupts
from tests.settings import TEST_DATA_DIR

_SEED = "SLUICE_TEST_ORDER"

# They start the whole product, or a browser: two at a time, and first, as they take
# longest.
_WHOLE_PRODUCT = (
    "tests/e2e/",
    "tests/demo/test_demo_command.py",
    "tests/jumpserver/test_run.py",
    "tests/test_benchmarks.py",
)
_SECOND_LINE = (
    "tests/e2e/test_accessibility.py",
    "tests/e2e/test_browser.py",
    "tests/e2e/test_disk_full.py",
    "tests/e2e/test_gateways.py",
    "tests/demo/test_demo_command.py",
    "tests/test_benchmarks.py",
)
# Files whose tests may run in several processes, and in how many parts.
_PARTS = {"tests/portal/test_odd_values.py": 4}


def pytest_configure() -> None:
    """Choose the order once, so that parallel workers agree on it."""
    heed_interrupts()
    os.environ.setdefault(_SEED, str(secrets.randbelow(100_000)))


def pytest_report_header() -> str:
    """Say how to run the tests in this order again, and on which database."""
    database = "PostgreSQL" if os.environ.get("DATABASE_URL") else "SQLite"
    return f"database: {database}; same order again: {_SEED}={os.environ[_SEED]}"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Shuffle modules and the tests in them; a module's tests stay together."""
    order = random.Random(os.environ[_SEED])  # noqa: S311 - an order, not a secret
    modules: dict[str, list[pytest.Item]] = {}
    for item in items:
        modules.setdefault(item.nodeid.partition("::")[0], []).append(item)
    names = list(modules)
    order.shuffle(names)
    names.sort(key=lambda name: not name.startswith(_WHOLE_PRODUCT))
    for name in names:
        order.shuffle(modules[name])
    items[:] = [item for name in names for item in modules[name]]


class _Scheduling(LoadScopeScheduling):  # type: ignore[misc]
    """What runs in one process: a file's tests, or a line of those of the product."""

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith(_WHOLE_PRODUCT):
            return f"whole product {nodeid.startswith(_SECOND_LINE)}"
        file = nodeid.partition("::")[0]
        return f"{file} {zlib.crc32(nodeid.encode()) % _PARTS.get(file, 1)}"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Say how `--numprocesses` spreads the tests."""
    return _Scheduling(config, log)


def pytest_unconfigure() -> None:
    """Remove the data directory that `tests.settings` has made."""
    shutil.rmtree(TEST_DATA_DIR, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def _closed_network() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        network.block(monkeypatch)
        yield


@pytest.fixture(scope="session", autouse=True)
def _flush_past_the_triggers() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        flushing.allow(monkeypatch)
        yield


@pytest.fixture
def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on at this moment."""
    return find_free_port()


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[str]:
    """`DATABASE_URL` of an empty PostgreSQL cluster of this test run."""
    if postgresql.binaries() is None:
        pytest.skip(postgresql.MISSING)
    with postgresql.cluster() as url:
        yield url


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """`REDIS_URL` of an empty Redis server of this test run."""
    if redis.binary() is None:
        pytest.skip(redis.MISSING)
    with redis.server() as url:
        yield url


@pytest.fixture(scope="session")
def sshd_binary() -> str:
    """Path of OpenSSH's server; an absolute one, as it re-executes itself."""
    found = shutil.which("sshd", path=os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip("no sshd on this machine (Debian: apt-get install openssh-server)")
    return found


@pytest.fixture(scope="session")
def ssh_binary() -> str:
    """Path of OpenSSH's client."""
    found = shutil.which("ssh")
    if found is None:
        pytest.skip("no ssh on this machine (Debian: apt-get install openssh-client)")
    return found


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """Path of a Chromium for Playwright's `executable_path`."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found is not None:
            return found
    pytest.skip("no chromium on this machine (Debian: apt-get install chromium)")
