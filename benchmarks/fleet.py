"""Many sessions at once on the gateway: what they cost, how they feel, how they end.

The clients are one process (`benchmarks.fleet_process`), the target another that only
echoes (`benchmarks.stub_target`), so that what is measured is the gateway's.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Self

from benchmarks.processes import ROOT, BenchmarkError, wait_until
from benchmarks.product import STUB, Person, Product
from benchmarks.samples import MEGABYTE, Sample
from benchmarks.systems import OpenConnection, SluiceSystem, System, sign_in_fully

_SETTLE_SECONDS = 120.0
_LOGIN_CLIENTS = 8
_CUT_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSizes:
    """How many sessions, for how long."""

    idle: int = 200
    rest_seconds: float = 33.0
    """After half a minute of rest a recorder gives its compressor's memory back."""
    typing: int = 1000
    typing_seconds: float = 15.0
    keys_per_second: float = 2.0
    cut: int = 500
    growth: tuple[int, ...] = (1, 10, 100, 1000)
    growth_logins: int = 24
    growth_mb: int = 100


QUICK: FleetSizes = FleetSizes(
    idle=20,
    rest_seconds=1.0,
    typing=40,
    typing_seconds=3.0,
    cut=20,
    growth=(1, 10),
    growth_logins=8,
    growth_mb=20,
)


def limited(sizes: FleetSizes, most: int) -> FleetSizes:
    """Return `sizes` with at most `most` sessions at once."""
    return replace(
        sizes,
        idle=min(sizes.idle, most),
        typing=min(sizes.typing, most),
        cut=min(sizes.cut, most),
        growth=tuple(number for number in sizes.growth if number <= most),
    )


class Fleet:
    """Clients of one person; a context manager."""

    def __init__(self, product: Product, person: Person) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.fleet_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self._product = product
        self.ask(
            port=product.port,
            user=f"{person.username}@{STUB}",
            key=str(person.key),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def ask(self, **order: Any) -> dict[str, Any]:
        """Have it do something; return what it says."""
        if self._process.stdin is None:
            raise BenchmarkError("the fleet takes no orders")
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self.hear()

    def hear(self) -> dict[str, Any]:
        """Return what it says next. Raises: BenchmarkError when it ended."""
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise BenchmarkError("the fleet ended")
        said: dict[str, Any] = json.loads(line)
        return said


def sessions(
    system: SluiceSystem, person: Person, sizes: FleetSizes
) -> Iterator[Sample]:
    """Memory of idle sessions, keys typed in many at once, growth with their number."""
    product = system.product
    sign_in_fully(system, person)
    with Fleet(product, person) as fleet:
        fleet.ask(do="open", count=10)
        before = product.memory().resident
        fleet.ask(do="open", count=sizes.idle)
        time.sleep(sizes.rest_seconds)
        grown = product.memory().resident - before
        yield Sample("rss_kb_per_session", system.name, grown * 1000 / sizes.idle)
        fleet.ask(do="close")
        settle(product)
        opened = 0
        for number in sizes.growth:
            fleet.ask(do="open", count=number - opened)
            opened = number
            yield from _growth(system, sizes, number)
        if opened < sizes.typing:
            fleet.ask(do="open", count=sizes.typing - opened)
        settle(product)
        said = fleet.ask(
            do="type",
            seconds=sizes.typing_seconds,
            per_second=sizes.keys_per_second,
        )
        for taken in said["milliseconds"]:
            yield Sample(f"echo_at_{sizes.typing}_ms", system.name, taken)
        yield Sample(f"late_at_{sizes.typing}", system.name, said["late"])
        fleet.ask(do="close")
    settle(product)


def _growth(system: SluiceSystem, sizes: FleetSizes, number: int) -> Iterator[Sample]:
    rate = logins_per_second(system, sizes.growth_logins)
    yield Sample(f"logins_per_s_at_{number}", system.name, rate)
    size = sizes.growth_mb
    with ExitStack() as stack:
        folder = system.product.directory / f"growth-{number}"
        folder.mkdir(mode=0o700)
        connection = stack.enter_context(OpenConnection(system, folder))
        for _ in range(3):
            started = time.perf_counter()
            subprocess.run(
                connection.command(f"head -c {size * MEGABYTE} /dev/zero"),
                stdout=subprocess.DEVNULL,
                stdin=subprocess.DEVNULL,
                check=True,
                timeout=120,
            )
            taken = time.perf_counter() - started
            yield Sample(f"download_at_{number}_mb_s", system.name, size / taken)


def logins_per_second(system: System, count: int) -> float:
    """Return how many log-ins with a command a second eight clients get through."""

    def one(_: int) -> None:
        subprocess.run(
            system.client.command(*system.options(), "-T", *system.destination, "true"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=True,
            timeout=120,
        )

    with ThreadPoolExecutor(_LOGIN_CLIENTS) as pool:
        started = time.perf_counter()
        try:
            for _ in pool.map(one, range(count)):
                pass
        except subprocess.SubprocessError as error:
            said = getattr(error, "stderr", b"") or b""
            raise BenchmarkError(f"{error}: {said.decode()[-300:]}") from error
        return count / (time.perf_counter() - started)


def cuts(system: SluiceSystem, sizes: FleetSizes) -> Iterator[Sample]:
    """Milliseconds from the moment to the first word and to every closed socket.

    The moment is the deadline of a grant, or the commit of its revocation in the
    product's own process, as the portal does it.
    """
    started = time.monotonic()
    yield from _cut(system, sizes, "revocation", seconds=3600)
    # They opened in less than this, so the next ones will.
    seconds = (time.monotonic() - started) * 1.5 + 10
    yield from _cut(system, sizes, "deadline", seconds=seconds)


def _cut(
    system: SluiceSystem, sizes: FleetSizes, how: str, *, seconds: float
) -> Iterator[Sample]:
    product = system.product
    person = product.person_to_cut()
    sign_in_fully(system, person)
    grant = product.ask(
        do="grant", engineer=person.username, account=STUB, seconds=seconds
    )
    with Fleet(product, person) as fleet:
        fleet.ask(do="open", count=sizes.cut)
        moment: float = grant["ends_at"]
        if how == "revocation":
            time.sleep(1)
            moment = time.time()
        elif moment - time.time() < 1:
            raise BenchmarkError("the sessions did not open before their deadline")
        fleet.ask(do="watch_the_cut", until=moment + _CUT_SECONDS)
        if how == "revocation":
            revoked = product.ask(do="revoke", grant=grant["grant"])
            if not revoked["revoked"]:
                raise BenchmarkError("the grant could not be revoked")
            moment = revoked["committed"]
        said = fleet.hear()
        fleet.ask(do="close")
    if said["left"]:
        raise BenchmarkError(f"{said['left']} sessions outlived their {how}")
    # What was said before the moment was a warning. What begins a cut is the last line
    # on a terminal, which is shown while nothing passes any more.
    begun = [spoken for spoken in said["spoken"] if spoken >= moment - 0.001]
    begins = (begun[0] - moment) * 1000
    yield Sample(f"cut_{how}_begins_ms", system.name, begins)
    for closed in said["closed"]:
        yield Sample(f"cut_{how}_ms", system.name, (closed - moment) * 1000)
    settle(product)


def settle(product: Product) -> None:
    """Return when the product has written down what has ended and rests."""

    def rests() -> bool:
        before = product.cpu_seconds()
        time.sleep(0.5)
        return product.cpu_seconds() - before < 0.1

    wait_until(rests, "the product did not come to rest", seconds=_SETTLE_SECONDS)
