"""R33: the drill of `docs/running/disk-full.md`, step by step, on a disk that is full.

The demo runs with a small disk of its own under the recordings, in a mount namespace
that ends with it: nothing of this machine is filled.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from jumpserver.demo.one_time_codes import CodeBook, step_now
from jumpserver.demo.portal_client import PortalClient
from jumpserver.demo.scene import HMI
from jumpserver.demo.ssh_client import SshClient
from jumpserver.demo.story_access import approve, ask
from jumpserver.demo.transcript import NeverHappenedError
from tests.demo.test_demo_command import ServedDemo
from tests.e2e.production import refusal, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

MOUNT = 'mount -t tmpfs -o size=64m,mode=0700 tmpfs "$1" && shift && exec "$@"'


def own_mounts(folder: Path) -> list[str]:
    """Return a command that becomes another one, with a small disk at `folder`."""
    unshare = shutil.which("unshare")
    if os.geteuid() != 0 or unshare is None:
        pytest.skip("only root may mount a small disk (unshare --mount)")
    prefix = [unshare, "--mount", "--propagation", "private", "--", "sh", "-c", MOUNT]
    prefix += ["drill", str(folder)]
    tried = subprocess.run([*prefix, "true"], capture_output=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"no mount namespace here: {tried.stderr.decode().strip()}")
    return prefix


@pytest.fixture
def demo(tmp_path: Path, ssh_binary: str, sshd_binary: str) -> Iterator[ServedDemo]:
    recordings = tmp_path / "data" / "recordings"
    recordings.mkdir(mode=0o700, parents=True)
    recordings.parent.chmod(0o700)
    demo = ServedDemo(tmp_path / "data", own_mounts(recordings))
    yield demo
    demo.stop()


def fill(path: Path, megabytes: int) -> None:
    """Write zeros as `dd` does; a full disk ends it."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        for _ in range(megabytes):
            file.write(bytes(1 << 20))


def test_r33_the_drill(demo: ServedDemo, tmp_path: Path) -> None:
    """R23, R33: fail-closed, told why, and the way back needs no restart."""
    running = demo.running()
    # The disk as that process sees it.
    disk = Path(f"/proc/{demo.process.pid}/root{demo.data}/recordings")
    assert shutil.disk_usage(disk).total == 64 << 20
    vendor, approver = running.person("vendor"), running.person("approver")
    codes = {
        card.username: CodeBook.from_letters(card.totp_secret, last_step=step_now() - 1)
        for card in (vendor, approver)
    }
    engineer = PortalClient(running.portal_url, vendor, codes["vendor"])
    engineer.sign_in()
    lead = PortalClient(running.portal_url, approver, codes["approver"])
    lead.sign_in()
    approve(lead, ask(engineer, HMI, 30).path, 30)

    def ssh(name: str) -> SshClient:
        directory = tmp_path / name
        directory.mkdir(mode=0o700)
        return SshClient(running, vendor, codes["vendor"], directory)

    # Step 2: connect, stay connected.
    first = ssh("a").connect(HMI)
    lasting = first.open("cat")
    lasting.type("here I am\n")
    lasting.transcript.wait_for("here I am")
    # Step 3: the next one is refused, and told why; the first one goes on.
    fill(disk / "reserve", 40)
    assert "the session cannot be recorded" in refusal(ssh("b"), HMI)
    lasting.type("still here\n")
    lasting.transcript.wait_for("still here")
    # Step 4: what cannot be recorded does not run.
    fill(disk / "rest", 64)
    # The last block of the file has room for a little more.
    for number in range(40):
        if lasting.transcript.ended_at is None:
            with suppress(OSError):
                lasting.type(f"{os.urandom(400).hex()} line {number}\n")
            # Returns as well when the connection ends meanwhile.
            with suppress(NeverHappenedError):
                lasting.transcript.wait_for(f"line {number}\\s")
    lasting.transcript.wait_for_end(seconds=20)
    assert "the recording cannot be written, so nothing may run" in (
        lasting.transcript.text
    )
    first.close()
    assert "the session cannot be recorded" in refusal(ssh("c"), HMI)
    # Step 5: the rescue. Nothing is started again.
    (disk / "reserve").unlink()
    (disk / "rest").unlink()
    again = ssh("d").connect(HMI)
    assert again.open("echo works again").exit_status() == 0
    again.close()
    # And the books say what happened.
    until(
        lambda: "The recording could not be written" in engineer.get("/sessions/").text,
        "the end in the books",
    )
    assert demo.process.poll() is None
    engineer.close()
    lead.close()
