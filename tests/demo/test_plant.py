"""The plant as a process: start, state, resume, end, and nothing left behind."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jumpserver.demo.bench import count_touches
from jumpserver.demo.keeper import descendants
from jumpserver.demo.plant import DemoPlant, PlantIsRunning
from tests import openssh


def test_needs_no_django():
    loaded = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, jumpserver.demo.plant; "
            "print('django' in sys.modules, 'celery' in sys.modules)",
        ],
        capture_output=True,
        check=True,
    )
    assert loaded.stdout.split() == [b"False", b"False"]


def test_state_names_every_asset_and_holds_no_secret(plant):
    text = (plant.data / "plant" / "state.json").read_text()
    assert json.loads(text) == plant.state
    assert set(plant.state["assets"]) == {
        "hmi-pump-01",
        "switch-old-01",
        "scada-01",
        "lab-bench-01",
    }
    for name in ("switch-old-01", "lab-bench-01"):
        assert plant.initial_secret(name).read_text().strip() not in text
    assert "PRIVATE" not in text


def test_files_are_private(plant):
    for path in [plant.ready_file, *(plant.data / "plant").rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_restart_resumes_keys_ports_and_credentials(start_plant):
    first = start_plant()
    assert first.stop() == 0
    assert not first.ready_file.exists()
    second = start_plant()
    for name, asset in first.state["assets"].items():
        assert second.asset(name) == asset
    answer = openssh.run([*second.hmi(), "echo", "still", "me"])
    assert (answer.returncode, answer.stdout) == (0, b"still me\n")
    assert second.stop(signal.SIGINT) == 0


def test_taken_port_is_left_for_another(start_plant):
    first = start_plant()
    assert first.stop() == 0
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", first.asset("hmi-pump-01")["port"]))
        squatter.listen()
        second = start_plant()
    assert second.asset("hmi-pump-01")["port"] != first.asset("hmi-pump-01")["port"]
    assert (
        second.asset("hmi-pump-01")["host_key"]
        == (first.asset("hmi-pump-01")["host_key"])
    )


def test_second_plant_on_one_directory_is_refused(plant):
    again = subprocess.run(
        [sys.executable, "-m", "jumpserver.demo.plant", "--data", str(plant.data)],
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert again.returncode == 1
    assert b"already running" in again.stderr


async def test_runs_inside_another_process_too(tmp_path: Path):
    async with DemoPlant(tmp_path) as plant:
        assert json.loads(plant.state_file.read_text()) == plant.describe()
        with pytest.raises(PlantIsRunning):
            await DemoPlant(tmp_path).start()
    async with DemoPlant(tmp_path) as again:
        assert len(again.describe()["assets"]) == 4


def test_killed_plant_leaves_no_process(start_plant, tmp_path: Path):
    """A live sshd session is in a process group of its own and must go as well."""
    plant = start_plant()
    ca = openssh.make_key(tmp_path / "ca")
    identity = openssh.make_key(tmp_path / "id")
    Path(plant.asset("scada-01")["user_ca_file"]).write_text(openssh.public_key(ca))
    openssh.certify(ca, identity, principal="historian")
    command = [*plant.ssh("scada-01", identity=identity), "echo up; exec sleep 300"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          stdin=subprocess.DEVNULL) as session:  # fmt: skip
        assert session.stdout is not None
        assert session.stdout.readline() == b"up\n"
        below = descendants(plant.process.pid)
        assert len(below) >= 4  # keeper, sshd, its session, sleep
        plant.process.kill()
        plant.process.wait()
        session.wait(20)
    deadline = time.monotonic() + 10
    while alive := [pid for pid in below if is_alive(pid)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.01)


def test_bench_counts_every_connection_and_lets_nobody_in(start_plant):
    plant = start_plant()
    asset = plant.asset("lab-bench-01")
    touched = Path(asset["touched_file"])
    assert count_touches(touched) == 0
    with socket.create_connection((asset["address"], asset["port"])) as connection:
        assert connection.recv(4) == b"SSH-"
    assert count_touches(touched) == 1
    assert b"Permission denied" in openssh.run(plant.ssh("lab-bench-01")).stderr
    assert count_touches(touched) == 2


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        stat_line = Path(f"/proc/{pid}/stat").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False
    return stat_line.rpartition(")")[2].split()[0] != "Z"
