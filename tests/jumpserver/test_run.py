"""Starting Sluice: which roles go together, and one supervisor per data directory."""

import base64
import signal
import socket
import stat
import time
from pathlib import Path

import pytest

from jumpserver.supervisor import Role, RolesRefusedError, parse_roles
from tests.jumpserver.commands import manage, start
from tests.servers.process import free_port

pytestmark = pytest.mark.timeout(180)


def test_all_is_every_role():
    assert parse_roles("all") == frozenset(Role)
    assert parse_roles("portal, gateway ,worker,beat") == frozenset(Role)


@pytest.mark.parametrize("text", ["", " , ", "portall", "all,portal", "PORTAL", "root"])
def test_there_are_no_other_roles(text):
    with pytest.raises(RolesRefusedError, match="portal, gateway, worker, beat"):
        parse_roles(text)


@pytest.mark.parametrize("text", ["portal", "gateway,portal", "worker,beat"])
def test_sqlite_is_one_process(text):
    with pytest.raises(RolesRefusedError, match="DATABASE_URL"):
        parse_roles(text)


@pytest.mark.parametrize("roles", ["worker", "portal,beat"])
def test_worker_and_beat_apart_need_a_broker(tmp_path: Path, roles):
    """Refused before anybody looks for the database."""
    told = manage(
        *("run", "--roles", roles),
        data=tmp_path / "data",
        DATABASE_URL="postgresql://nobody@127.0.0.1:1/nowhere",
        SLUICE_SECRET_KEY="x" * 50,
        SLUICE_VAULT_KEY=base64.b64encode(bytes(32)).decode(),
    )
    assert told.returncode == 1
    assert told.stderr.strip().splitlines()[-1].endswith("set REDIS_URL.")


@pytest.mark.parametrize("roles", ["nothing", "gateway"])
def test_the_command_says_so_in_one_line(tmp_path: Path, roles):
    told = manage("run", "--roles", roles, data=tmp_path / "data")
    assert told.returncode == 1
    assert told.stderr.startswith("CommandError: ")
    assert len(told.stderr.strip().splitlines()) == 1


def test_a_database_without_tables_is_refused(tmp_path: Path):
    told = manage("run", data=tmp_path / "data")
    assert told.returncode == 1
    assert "manage.py migrate" in told.stderr
    assert "Traceback" not in told.stderr


def wait_for(path: Path, process, log: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def test_one_supervisor_per_data_directory(tmp_path: Path):
    """The second refuses and names the first, which goes on and ends with 0."""
    data, ready, log = tmp_path / "data", tmp_path / "ready", tmp_path / "log"
    options = {
        "SLUICE_PORTAL_PORT": "0",
        "SLUICE_SSH_PORT": "0",
        "SLUICE_ALLOW_HTTP": "yes",
    }
    assert manage("migrate", "--verbosity", "0", data=data).returncode == 0
    first = start("run", "--ready-file", str(ready), data=data, log=log, **options)
    try:
        wait_for(ready, first, log)
        assert stat.S_IMODE(ready.stat().st_mode) == 0o600
        second = manage("run", data=data, **options)
        assert second.returncode == 1
        assert f"process {first.pid}" in second.stderr
        assert "stop it first" in second.stderr
        assert first.poll() is None
        first.send_signal(signal.SIGTERM)
        assert first.wait(20) == 0, log.read_text()
        assert "Traceback" not in log.read_text()
    finally:
        if first.poll() is None:
            first.kill()
            first.wait()
    # Nothing that others could read was left behind, whatever the umask says.
    readable = [
        path
        for path in [data, *data.rglob("*")]
        if not path.is_symlink()
        and path.stat().st_mode & 0o077
        # SQLite and the sockets lie in a folder that is closed to others.
        and path.parent not in (data, data / "recordings")
    ]
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert readable == []


def test_a_taken_port_is_one_line_that_names_the_setting(tmp_path: Path):
    data = tmp_path / "data"
    assert manage("migrate", "--verbosity", "0", data=data).returncode == 0
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        for name in ("SLUICE_PORTAL_PORT", "SLUICE_SSH_PORT"):
            given = {"SLUICE_PORTAL_PORT": "0", "SLUICE_SSH_PORT": "0"}
            told = manage(
                "run", data=data, SLUICE_ALLOW_HTTP="yes", **{**given, name: str(port)}
            )
            assert told.returncode == 1, name
            last = told.stderr.strip().splitlines()[-1]
            assert last.startswith("CommandError: Sluice cannot start"), told.stderr
            assert name in last
