"""`manage.py demo --serve`: ready file, resume, one supervisor, nothing left behind."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from jumpserver.demo.one_time_codes import CodeBook, step_now
from jumpserver.demo.people_file import PersonCard
from jumpserver.demo.portal_client import PortalClient
from jumpserver.demo.processes import DemoRefusedError, RunningDemo, wipe
from jumpserver.demo.scene import HMI
from jumpserver.demo.ssh_client import SshClient, SshRefusedError
from jumpserver.demo.story_access import approve, ask

ROOT = Path(__file__).parent.parent.parent
SECONDS = 60

pytestmark = pytest.mark.timeout(180)


def command(*arguments: str) -> list[str]:
    """Return a command line of `manage.py demo`."""
    return [sys.executable, str(ROOT / "manage.py"), "demo", *arguments]


def environment() -> dict[str, str]:
    """Return this environment as a person's shell has it: nothing set for tests."""
    dropped = ("SLUICE_", "DJANGO_", "DATABASE_URL", "REDIS_URL")
    return {k: v for k, v in os.environ.items() if not k.startswith(dropped)}


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for `condition`; fail with `what` when it does not come true."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def answers(port: int) -> bool:
    """Say whether somebody listens on a port of 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


class ServedDemo:
    """`manage.py demo --serve` on a directory, from start to end."""

    def __init__(self, data: Path, prefix: Sequence[str] = ()) -> None:
        """`prefix` is a command that becomes the demo, such as `unshare`."""
        self.data = data
        self.ready_file = data.parent / "ready.json"
        # One that was killed leaves its own behind.
        self.ready_file.unlink(missing_ok=True)
        self.log = data.parent / "serve.log"
        self.started = time.monotonic()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*prefix, *command(
                    "--serve", "--data", str(data), "--portal-port", "0",
                    "--ssh-port", "0", "--ready-file", str(self.ready_file),
                )],
                env=environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        wait_until(self._is_ready, "the demo did not get ready")
        self.ready: dict[str, Any] = json.loads(self.ready_file.read_text())

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return self.ready_file.exists()

    @property
    def ports(self) -> list[int]:
        """Return the ports of the portal, the gateway and the plant."""
        state = json.loads((self.data / "plant" / "state.json").read_text())
        portal = int(self.ready["portal_url"].rpartition(":")[2])
        targets = [asset["port"] for asset in state["assets"].values()]
        return [portal, self.ready["ssh_port"], *targets]

    def running(self) -> RunningDemo:
        """Return it as its clients take it, from the ready file alone."""
        names = ("portal_url", "ssh_host", "ssh_port", "ssh_host_key")
        people = [PersonCard(**card) for card in self.ready["people"]]
        return RunningDemo(people=people, **{name: self.ready[name] for name in names})

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal to the parent and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(SECONDS)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[], ServedDemo]]:
    """A function that starts the demo on the same directory each time."""
    started: list[ServedDemo] = []

    def start() -> ServedDemo:
        started.append(ServedDemo(tmp_path / "data"))
        return started[-1]

    yield start
    for demo in started:
        demo.stop()


def test_it_says_everything_a_harness_needs_and_resumes(serve):
    first = serve()
    assert stat.S_IMODE(first.ready_file.stat().st_mode) == 0o600
    assert set(first.ready) == {
        "portal_url", "ssh_host", "ssh_port", "ssh_host_key", "people", "assets", "pid",
    }  # fmt: skip
    assert first.ready["pid"] == first.process.pid
    assert first.ready["ssh_host_key"].startswith("ssh-ed25519 ")
    assert {"name": HMI, "accounts": ["operator"], "zone": "Cell 3 Pump station"} in (
        first.ready["assets"]
    )
    for person in first.ready["people"]:
        assert set(person) == {
            "username", "password", "totp_secret", "role", "ssh_private_key",
        }  # fmt: skip
    assert all(answers(port) for port in first.ports)

    refused = subprocess.run(
        command(
            "--serve", "--data", str(first.data),
            "--portal-port", "0", "--ssh-port", "0",
        ),
        env=environment(), capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert refused.returncode != 0
    assert "runs on" in refused.stderr
    assert str(first.process.pid) in refused.stderr
    assert all(answers(port) for port in first.ports)

    assert first.stop() == 0
    assert not first.ready_file.exists()
    assert not any(answers(port) for port in first.ports)

    second = serve()
    same = ("portal_url", "ssh_port", "ssh_host_key", "people", "assets")
    assert {n: second.ready[n] for n in same} == {n: first.ready[n] for n in same}
    # Ctrl-C of a terminal reaches the parent alone; it ends its children in order.
    assert second.stop(signal.SIGINT) == 0


def test_nothing_outlives_a_parent_that_was_killed(serve):
    demo = serve()
    ports = demo.ports
    assert demo.stop(signal.SIGKILL) == -signal.SIGKILL
    wait_until(lambda: not any(map(answers, ports)), "something still listens")
    # And the directory is free for the next start at once.
    assert serve().stop() == 0


def test_without_an_ssh_binary_the_second_library_connects(serve, tmp_path):
    demo = serve().running()
    vendor, approver, stranger = (
        demo.person(name) for name in ("vendor", "approver", "stranger")
    )
    codes = {
        card.username: CodeBook.from_letters(card.totp_secret, last_step=step_now() - 1)
        for card in (vendor, approver, stranger)
    }
    engineer = PortalClient(demo.portal_url, vendor, codes["vendor"])
    engineer.sign_in()
    lead = PortalClient(demo.portal_url, approver, codes["approver"])
    lead.sign_in()
    approve(lead, ask(engineer, HMI, 5).path, 5)

    client = SshClient(demo, vendor, codes["vendor"], tmp_path)
    client.binary = None
    connection = client.connect(HMI)
    channel = connection.open("echo through the gateway")
    assert channel.exit_status() == 0
    assert channel.transcript.text == "through the gateway\n"
    connection.close()

    other = SshClient(demo, stranger, codes["stranger"], tmp_path)
    other.binary = None
    with pytest.raises(SshRefusedError):
        other.connect(HMI).open("echo never")
    engineer.close()
    lead.close()


def test_json_is_for_the_scripted_story():
    refused = subprocess.run(
        command("--json"),
        env=environment(), capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert refused.returncode != 0
    assert "--scripted" in refused.stderr


def test_reset_wipes_only_what_the_demo_made(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DemoRefusedError, match="stays as it is"):
        wipe(tmp_path)
    assert (tmp_path / "thesis.txt").exists()
    (tmp_path / "sluice.sqlite3").touch()
    (tmp_path / "plant").mkdir()
    (tmp_path / "plant" / "state.json").touch()
    wipe(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} <= {
        "demo.lock",
        "supervisor.lock",
    }


def test_reset_leaves_a_running_demo_alone(serve):
    demo = serve()
    with pytest.raises(DemoRefusedError, match="stop it first"):
        wipe(demo.data)
    assert (demo.data / "sluice.sqlite3").exists()
