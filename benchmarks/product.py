"""The product under test: seeded in a throw-away directory, run as its users run it."""

import json
import os
import re
import socket
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from benchmarks.processes import (
    LOOPBACK,
    ROOT,
    BenchmarkError,
    KeptProcess,
    Memory,
    cpu_seconds,
    greets,
)
from benchmarks.sshd import PRINCIPAL, Sshd
from jumpserver.demo.one_time_codes import CodeBook, step_now
from jumpserver.demo.sshd import calling_user

ASSET = "bench-target"
STUB = "bench-stub"
CUT_PEOPLE = 2
"""People without a grant for the stub: theirs begin, and end, in the run."""
SERVICES = ("shell", "exec", "sftp-down", "sftp-up")

_START_SECONDS = 60.0
_SEED_SECONDS = 120.0
_EVIDENCE_SECONDS = 120.0
_FAST_PATH = re.compile(r"fast path (on|OFF)")


@dataclass(frozen=True, slots=True)
class Person:
    """An engineer with a grant, whose one-time code of now has not been used."""

    username: str
    key: Path
    codes: CodeBook


@dataclass(kw_only=True)
class Product:
    """`manage.py run` with all roles, recording as always; a context manager.

    With `unrecorded` it throws away what should be recorded: see `benchmarks.launch`.
    """

    directory: Path
    target: Sshd
    stub: tuple[int, str]
    """Port and host key of the target that only echoes."""
    sink: int
    """Port on the target that forwards may lead to."""
    people_count: int
    unrecorded: bool = False
    port: int = 0
    host_key: str = ""
    pid: int = 0
    before: Memory = field(init=False)
    _people: list[Person] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.directory.mkdir(mode=0o700)
        self._stack = ExitStack()
        self._kept: KeptProcess | None = None

    def __enter__(self) -> Self:
        self._seed()
        ready = self.directory / "ready.json"
        self._kept = self._stack.enter_context(
            KeptProcess(
                [
                    sys.executable,
                    "-m",
                    "benchmarks.launch",
                    *(["--unrecorded"] if self.unrecorded else []),
                    "--control",
                    str(self.directory / "control"),
                    "run",
                    "--ready-file",
                    str(ready),
                ],
                log=self.directory / "product.log",
                environment=self._environment(),
            )
        )
        self._kept.wait_until(ready.exists, seconds=_START_SECONDS)
        facts: dict[str, Any] = json.loads(ready.read_bytes())
        self.port, self.pid = facts["ssh_port"], facts["pid"]
        self.host_key = facts["ssh_host_key"]
        if not greets(self.port):
            raise BenchmarkError("the gateway does not greet")
        self.before = Memory.of(self.pid)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def person(self) -> Person:
        """Return an engineer that nobody else gets: each code works only once."""
        if not self._people:
            raise BenchmarkError("too few people were seeded")
        return self._people.pop(0)

    def person_to_cut(self) -> Person:
        """Return an engineer who has no grant for the stub yet."""
        return self._people.pop()

    def ask(self, **order: Any) -> dict[str, Any]:
        """Have `benchmarks.launch` do something in the product's process."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.directory / "control"))
            with connection.makefile("rw", encoding="utf-8") as lines:
                lines.write(json.dumps(order) + "\n")
                lines.flush()
                answer: dict[str, Any] = json.loads(lines.readline())
        return answer

    def memory(self) -> Memory:
        """Return its memory now."""
        return Memory.of(self.pid)

    def cpu_seconds(self) -> float:
        """Return the processor time it has used so far."""
        return cpu_seconds(self.pid)

    def fast_path(self) -> str:
        """Return `on` or `OFF` as the gateway's log says, or `unknown`."""
        if self._kept is None:
            return "unknown"
        found = _FAST_PATH.search(self._kept.log.read_text(errors="replace"))
        return found.group(1) if found else "unknown"

    def stop(self) -> dict[str, int]:
        """Stop it in good order; return what it wrote down (see `evidence`)."""
        if self._kept is not None:
            self._kept.stop(self.pid)
        answer = self.directory / "evidence.json"
        self._run(["benchmarks.evidence", str(answer)], seconds=_EVIDENCE_SECONDS)
        found: dict[str, int] = json.loads(answer.read_bytes())
        return found

    def _seed(self) -> None:
        order, answer = self.directory / "order.json", self.directory / "people.json"
        order.write_text(
            json.dumps(
                {
                    "assets": [
                        {
                            "name": ASSET,
                            "host_key": self.target.host_key,
                            "port": self.target.port,
                        },
                        {
                            "name": STUB,
                            "host_key": self.stub[1],
                            "port": self.stub[0],
                        },
                    ],
                    "services": [*SERVICES, f"forward:{LOOPBACK}:{self.sink}"],
                    "login": calling_user(),
                    "principal": PRINCIPAL,
                    "people": self.people_count,
                    "cut": CUT_PEOPLE,
                }
            )
        )
        self._run(["benchmarks.seed", str(order), str(answer)], seconds=_SEED_SECONDS)
        made = json.loads(answer.read_bytes())
        # Enrolment used a code that is no newer than this.
        used_step = step_now()
        self.target.trust_also(made["authority"])
        for person in made["people"]:
            key = self.directory / f"{person['username']}.key"
            key.touch(mode=0o600)
            key.write_text(person["ssh_private_key"])
            codes = CodeBook.from_letters(person["totp_secret"], last_step=used_step)
            self._people.append(Person(person["username"], key, codes))

    def _run(self, module: list[str], *, seconds: float) -> None:
        done = subprocess.run(
            [sys.executable, "-m", *module],
            env=self._environment(),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if done.returncode:
            raise BenchmarkError(f"{module[0]} failed:\n{done.stderr[-3000:]}")

    def _environment(self) -> dict[str, str]:
        """Return a clean environment: the product's settings are those said here."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("SLUICE_")
            and name not in {"DATABASE_URL", "REDIS_URL"}
        }
        return kept | {
            "DJANGO_SETTINGS_MODULE": "jumpserver.settings",
            "SLUICE_DATA_DIR": str(self.directory / "data"),
            "SLUICE_PORTAL_PORT": "0",
            "SLUICE_SSH_PORT": "0",
            # The target is on this machine, and nobody signs in to the portal.
            "SLUICE_ALLOW_LOCAL_TARGETS": "yes",
            "SLUICE_ALLOW_HTTP": "yes",
            # A fleet signs in from one address.
            "SLUICE_SSH_PREAUTH_PER_ADDRESS": "100",
            "SLUICE_SSH_PREAUTH_TOTAL": "200",
        }
