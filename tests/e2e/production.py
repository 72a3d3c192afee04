"""Sluice as it runs in production: four processes, PostgreSQL, Redis, a plant.

Everything is a throw-away: the cluster, the broker, the data directory, and the demo's
plant of real SSH targets with its people, seeded into PostgreSQL.
"""

import base64
import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import redis as redis_client

from jumpserver.demo.one_time_codes import CodeBook, step_now
from jumpserver.demo.people_file import read_people
from jumpserver.demo.portal_client import PortalClient
from jumpserver.demo.processes import RunningDemo
from jumpserver.demo.ssh_client import SshClient, SshRefusedError
from tests.servers import postgresql, process, redis

ROOT = Path(__file__).parent.parent.parent
ROLES = ("gateway", "portal", "worker", "beat")
LOST_SECONDS = 3
_START_SECONDS = 40
_STOP_SECONDS = 25
_DROPPED = ("SLUICE_", "DJANGO_", "DATABASE_URL", "REDIS_URL")
_PREPARE = """
import sys, django
django.setup()
from pathlib import Path
from jumpserver.demo.product import prepare
prepare(Path(sys.argv[1]))
"""

Found = TypeVar("Found")


class NeverCameError(AssertionError):
    """What was waited for did not come in time."""


def until(look: Callable[[], Found], what: str, *, seconds: float = 30) -> Found:
    """Return the first true thing `look` returns. Raises: NeverCameError."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise NeverCameError(f"not within {seconds:.0f} s: {what} ({found!r})")
        time.sleep(0.05)


def refusal(client: SshClient, target: str) -> str:
    """Return what the person's client says; the connection must not come to be."""
    connection = client.connect(target)
    try:
        channel = connection.open("echo never")
        assert channel.exit_status() != 0, channel.transcript.text
        channel.transcript.wait_for_end(seconds=10)
        return channel.transcript.text
    except SshRefusedError as refused:
        return str(refused)
    finally:
        connection.close()


class Broker:
    """A Redis server that can be away for a while; it keeps its port."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.port = process.free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, empty."""
        program = redis.binary()
        assert program is not None, redis.MISSING
        self._server = process.start(
            process.as_user(
                [
                    *(program, "--port", str(self.port), "--bind", "127.0.0.1"),
                    *("--save", "", "--appendonly", "no", "--dir", str(self._home)),
                ]
            ),
            log=self._home / "redis.log",
            answers=self.answers,
        )

    def stop(self) -> None:
        """End it as an administrator would."""
        if self._server is not None:
            process.stop(self._server)

    def answers(self) -> bool:
        """Say whether it answers."""
        with redis_client.Redis(host="127.0.0.1", port=self.port) as client:
            try:
                return bool(client.ping())
            except redis_client.RedisError:
                return False


class Production:
    """The processes, and everybody's clients."""

    def __init__(self, home: Path, database: postgresql.Server, broker: Broker) -> None:
        self.home, self.broker, self.database = home, broker, database
        database_url = database.url
        self.data = home / "data"
        self.data.mkdir(mode=0o700)
        self._clients = home / "clients"
        self._clients.mkdir(mode=0o700)
        self.database_url = database_url
        kept = {k: v for k, v in os.environ.items() if not k.startswith(_DROPPED)}
        self.environment = kept | {
            "DJANGO_SETTINGS_MODULE": "jumpserver.settings",
            "DATABASE_URL": database_url,
            "REDIS_URL": broker.url,
            "SLUICE_DATA_DIR": str(self.data),
            "SLUICE_SECRET_KEY": secrets.token_urlsafe(48),
            "SLUICE_VAULT_KEY": base64.b64encode(secrets.token_bytes(32)).decode(),
            # The same after a restart, so that people need not sign in again.
            "SLUICE_PORTAL_PORT": str(process.free_port()),
            "SLUICE_SSH_PORT": str(process.free_port()),
            "SLUICE_ALLOW_HTTP": "yes",
            "SLUICE_ALLOW_LOCAL_TARGETS": "yes",
            "SLUICE_GATEWAY_LOST_SECONDS": str(LOST_SECONDS),
            # A certificate is proved dead when it has run out.
            "SLUICE_CERTIFICATE_LOGIN_SECONDS": "5",
        }
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._codes: dict[str, CodeBook] = {}
        self._portals: dict[str, PortalClient] = {}
        self.facts: dict[str, Any] = {}

    # Processes

    def start_plant(self) -> None:
        """Start the plant, bring the database up to date and the demo into it."""
        state = self.home / "plant.json"
        self._spawn("plant", ["-m", "jumpserver.demo.plant", "--data", str(self.data),
                              "--ready-file", str(state)])  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", _PREPARE, str(state)],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        self.people = read_people(self.data)
        # Seeding has used everybody's code of the half minute before.
        last = step_now() - 1
        self._codes = {
            card.username: CodeBook.from_letters(card.totp_secret, last_step=last)
            for card in self.people
        }

    def complete(self) -> None:
        """Start what does not run, the broker and every role."""
        if not self.broker.answers():
            self.broker.start()
        missing = [role for role in ROLES if not self.is_running(role)]
        for role in missing:
            self._start(role)
        for role in missing:
            self._wait_ready(role)

    def start(self, role: str) -> None:
        """Start one role and wait until it answers."""
        self._start(role)
        self._wait_ready(role)

    def start_gateway(self, name: str, **settings: str) -> None:
        """Start one more gateway; it shares the recordings with the others.

        What `facts` holds afterwards are its addresses, so clients made from then on
        come to this one.
        """
        data = self.home / name
        data.mkdir(mode=0o700, exist_ok=True)
        self._start(
            name,
            "gateway",
            SLUICE_GATEWAY_NAME=name,
            SLUICE_DATA_DIR=str(data),
            SLUICE_RECORDINGS_DIR=str(self.data / "recordings"),
            SLUICE_SSH_PORT="0",
            **settings,
        )
        self._wait_ready(name)

    def _start(self, name: str, role: str = "", **settings: str) -> None:
        ready = self.home / f"{name}.json"
        ready.unlink(missing_ok=True)
        self._spawn(name, [str(ROOT / "manage.py"), "run", "--roles", role or name,
                           "--ready-file", str(ready)], **settings)  # fmt: skip

    def _wait_ready(self, role: str) -> None:
        ready, process_ = self.home / f"{role}.json", self._running[role]
        until(
            lambda: ready.exists() or process_.poll() is not None,
            f"{role} ready",
            seconds=_START_SECONDS,
        )
        assert process_.poll() is None, self.log(role)
        told = json.loads(ready.read_bytes())
        self.facts |= {name: value for name, value in told.items() if value}

    def stop(self, role: str) -> int:
        """Ask a process to end as systemd would, and return its exit status."""
        running = self._running.pop(role)
        running.send_signal(signal.SIGTERM)
        try:
            return running.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()
            raise AssertionError(f"{role} did not end:\n{self.log(role)}") from None

    def kill(self, role: str) -> None:
        """End a process as a power cut would."""
        running = self._running.pop(role)
        running.kill()
        running.wait()

    def memory(self, role: str) -> tuple[int, int]:
        """Return what a process holds in memory now, and held at most, in bytes."""
        status = Path(f"/proc/{self._running[role].pid}/status").read_text()
        now, peak = (
            int(status.partition(name)[2].split()[0]) * 1024
            for name in ("VmRSS:", "VmHWM:")
        )
        return now, peak

    def pause(self, role: str) -> None:
        """Suspend a process as a hypervisor would; `resume` lets it go on."""
        self._running[role].send_signal(signal.SIGSTOP)

    def resume(self, role: str) -> None:
        """Let a suspended process go on."""
        self._running[role].send_signal(signal.SIGCONT)

    def wait_for_exit(self, role: str) -> int:
        """Return the exit status of a process that ends by itself."""
        return self._running.pop(role).wait(_STOP_SECONDS)

    def is_running(self, role: str) -> bool:
        """Say whether this role's process is alive."""
        running = self._running.get(role)
        return running is not None and running.poll() is None

    def log(self, role: str) -> str:
        """Return what the process has said."""
        return (self.home / f"{role}.log").read_text(errors="replace")

    def logs(self) -> str:
        """Return what all of them have said."""
        return "".join(
            f"--- {path.name}\n{path.read_text(errors='replace')}"
            for path in sorted(self.home.glob("*.log"))
        )

    def close(self) -> None:
        """End whatever still runs."""
        for portal in self._portals.values():
            portal.close()
        for role in list(self._running):
            with contextlib.suppress(AssertionError):
                self.stop(role)

    def _spawn(self, name: str, arguments: list[str], **settings: str) -> None:
        with (self.home / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                process.as_user([sys.executable, *arguments]),
                env=self.environment | settings,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    # People

    def portal(self, username: str) -> PortalClient:
        """Return the person's browser, signed in with both factors."""
        if username not in self._portals:
            card = self._demo().person(username)
            client = PortalClient(self.facts["portal_url"], card, self._codes[username])
            self._portals[username] = client
            client.sign_in()
        return self._portals[username]

    def ssh(self, username: str) -> SshClient:
        """Return the person's stock SSH client."""
        directory = Path(tempfile.mkdtemp(dir=self._clients))
        demo = self._demo()
        client = SshClient(
            demo, demo.person(username), self._codes[username], directory
        )
        assert client.binary is not None
        return client

    def _demo(self) -> RunningDemo:
        return RunningDemo(
            portal_url=self.facts["portal_url"],
            ssh_host=self.facts["ssh_host"],
            ssh_port=self.facts["ssh_port"],
            ssh_host_key=self.facts["ssh_host_key"],
            people=self.people,
        )

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Ask PostgreSQL, past the product."""
        with psycopg.connect(self.database_url) as connection:
            return connection.execute(query.encode(), values).fetchall()


@contextlib.contextmanager
def production() -> Iterator[Production]:
    """Run a plant with its people and an empty broker; roles are started by hand."""
    home = Path(tempfile.mkdtemp(prefix="sl-"))
    broker = Broker(home)
    try:
        with postgresql.server() as database:
            here = Production(home, database, broker)
            try:
                broker.start()
                here.start_plant()
                yield here
            finally:
                here.close()
                broker.stop()
    finally:
        shutil.rmtree(home, ignore_errors=True)
