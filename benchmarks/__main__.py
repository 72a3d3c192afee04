"""`python -m benchmarks`: start everything, measure, print, write."""

import argparse
import json
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from benchmarks import environment, fleet, measurements, report
from benchmarks.bastions import SshMitm, openssh_bastion
from benchmarks.fleet import FleetSizes
from benchmarks.measurements import Transfers
from benchmarks.processes import ROOT, BenchmarkError, KeptProcess
from benchmarks.product import CUT_PEOPLE, Product
from benchmarks.report import Result
from benchmarks.samples import QUICK, Sample, Sizes
from benchmarks.sshd import Sshd, make_home, make_key
from benchmarks.stub_target import where
from benchmarks.systems import (
    Client,
    Door,
    OpenSshSystem,
    OtherSystem,
    SluiceSystem,
    System,
    write_configuration,
)

RESULTS = ROOT / "benchmarks" / "results"
TRACKED = RESULTS / "gateway.json"
HISTORY = RESULTS / "history.jsonl"

METRICS = (
    *("login", "logins", "echo", "download", "upload", "flood", "sftp", "forward"),
    *("sessions", "cuts"),
)
SYSTEMS = (
    *("direct", "jump", "direct_gcm", "jump_gcm", "bastion", "sshmitm"),
    *("sluice", "sluice_norec"),
)
SSH_MITM_SHARE = 0.05
"""ssh-mitm takes half a minute for what others do in one second."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What the command line asks for."""

    metrics: tuple[str, ...]
    systems: tuple[str, ...]
    others: tuple[OtherSystem, ...]
    sizes: Sizes
    fleet: FleetSizes
    json_file: Path | None
    whole: bool
    note: str
    keep: bool
    before: Path | None


def parse(arguments: Sequence[str]) -> Choice:
    """Read the command line; argparse ends the process when it cannot."""
    parser = _parser()
    options = parser.parse_args(arguments)
    sizes = QUICK if options.quick else Sizes()
    if options.rounds is not None:
        if options.rounds < 1:
            parser.error("--rounds: at least 1")
        sizes = replace(
            sizes,
            login_rounds=options.rounds,
            echo_rounds=options.rounds,
            transfer_rounds=options.rounds,
        )
    named = [name for name in options.system or () if "=" not in name]
    for name in named:
        if name not in SYSTEMS:
            parser.error(f"--system: {', '.join(SYSTEMS)}, or NAME='ssh ... HOST'")
    others = [text.partition("=") for text in options.system or () if "=" in text]
    whole = not options.quick and not options.metric and not named
    return Choice(
        metrics=tuple(m for m in METRICS if m in (options.metric or METRICS)),
        systems=tuple(s for s in SYSTEMS if s in (named or SYSTEMS)),
        others=tuple(
            OtherSystem(name, tuple(shlex.split(command)))
            for name, _, command in others
        ),
        sizes=sizes,
        fleet=fleet.limited(
            fleet.QUICK if options.quick else FleetSizes(), options.sessions
        ),
        json_file=options.json or (TRACKED if whole else None),
        whole=whole,
        note=options.note,
        keep=options.keep,
        before=options.compare,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure ssh, ssh -J, two other bastions and the Sluice gateway, "
        "which records, in turns on one sshd; print medians, tails, ratios, goals.",
    )
    parser.add_argument(
        "--quick", action="store_true", help="few rounds, small sizes: a smoke test"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        metavar="N",
        help="rounds of every metric (default: log-in 20, echo 2, transfers 5)",
    )
    parser.add_argument(
        "--metric",
        action="append",
        choices=METRICS,
        help="measure only this one; may be repeated",
    )
    parser.add_argument(
        "--system",
        action="append",
        metavar="NAME",
        help=f"measure only this one ({', '.join(SYSTEMS)}); NAME='ssh ... HOST' adds "
        "any other endpoint that leads to a shell of this user; may be repeated",
    )
    parser.add_argument(
        "--sessions",
        type=int,
        default=1000,
        metavar="N",
        help="most sessions at once on a slow or busy machine (default: 1000)",
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help=f"where to write the result (default: {TRACKED.relative_to(ROOT)} after a "
        "whole run, which is also added to history.jsonl; nowhere otherwise)",
    )
    parser.add_argument(
        "--compare",
        type=Path,
        metavar="FILE",
        nargs="?",
        const=TRACKED,
        help="also show the medians beside those of an earlier result",
    )
    parser.add_argument(
        "--note", default="", help="a sentence about this run, kept with the result"
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help="keep the directory of the run (logs, database, recordings) and say where",
    )
    return parser


class Run:
    """Everything of one run: servers, systems, and what could not be measured."""

    def __init__(self, choice: Choice, directory: Path, stack: ExitStack) -> None:
        self.choice = choice
        self.directory = directory
        self.skipped: dict[str, str] = {}
        self.versions: dict[str, str] = {}
        self._stack = stack
        self._key_line = make_key(directory / "key")
        self._home = make_home(directory / "home")
        self.target, self.hop = (
            stack.enter_context(self._sshd(name)) for name in ("target", "hop")
        )
        self.source_port = int(self._kept("source").read_text())
        self._stub = where(self._kept("stub_target"))
        self.products: dict[str, Product] = {}
        self.systems = self._systems()

    def _sshd(self, name: str) -> Sshd:
        return Sshd(
            directory=self.directory / name,
            authorized_key=self._key_line,
            home=self._home,
        )

    def _kept(self, module: str) -> Path:
        """Start a helper of this package; return its answer once it is there."""
        answer = self.directory / f"{module}.answer"
        kept = self._stack.enter_context(
            KeptProcess(
                [sys.executable, "-m", f"benchmarks.{module}", str(answer)],
                log=self.directory / f"{module}.log",
            )
        )
        kept.wait_until(answer.exists, seconds=30)
        return answer

    def _product(self, name: str) -> Product:
        product = self._stack.enter_context(
            Product(
                directory=self.directory / name,
                target=self.target,
                stub=self._stub,
                sink=self.source_port,
                people_count=2 + CUT_PEOPLE,
                unrecorded=name == "sluice_norec",
            )
        )
        self.products[name] = product
        return product

    def _systems(self) -> list[System]:
        key = self.directory / "key"
        doors: dict[str, Door] = {}
        for name in self.choice.systems:
            try:
                if name == "bastion":
                    doors[name] = self._stack.enter_context(
                        openssh_bastion(
                            self.directory / name,
                            key=key,
                            public_line=self._key_line,
                            target=self.target,
                            home=self._home,
                        )
                    )
                elif name == "sshmitm":
                    mitm = self._stack.enter_context(
                        SshMitm(
                            directory=self.directory / name, key=key, target=self.target
                        )
                    )
                    self.versions["environment.sshmitm"] = mitm.version
                    doors[name] = mitm
                elif name.startswith("sluice"):
                    say(f"seeding people and starting {name}")
                    doors[name] = self._product(name)
            except BenchmarkError as error:
                if name.startswith("sluice"):
                    raise
                self.skip(name, str(error))
        client = write_configuration(
            self.directory, key=key, target=self.target, hop=self.hop, doors=doors
        )
        found = [
            self._system(name, client)
            for name in self.choice.systems
            if name not in self.skipped
        ]
        return [*found, *self.choice.others]

    def _system(self, name: str, client: Client) -> System:
        if name in self.products:
            return SluiceSystem(name, client, self.products[name])
        share = SSH_MITM_SHARE if name == "sshmitm" else 1.0
        return OpenSshSystem(name, client, share)

    def skip(self, what: str, why: str) -> None:
        """Remember what could not be measured, and say so."""
        line = " ".join(why.split())[:300]
        self.skipped[what] = line
        say(f"left out: {what}: {line}")

    def measure(self, metric: str) -> Iterator[Sample]:
        """Yield the samples of one metric."""

        def drop(system: System, error: BenchmarkError) -> None:
            self.skip(f"{metric}.{system.name}", str(error))
            if metric == "login":
                # What cannot be signed in to cannot do the rest either.
                self.systems = [s for s in self.systems if s is not system]

        sizes = self.choice.sizes
        say(f"{metric}: {sizes.rounds(metric)} rounds")
        # Another cipher is another speed, not another log-in.
        plain = [s for s in self.systems if not s.name.endswith("_gcm")]
        if metric in {"login", "logins", "echo"}:
            yield from getattr(measurements, metric)(plain, sizes, drop)
        elif metric in {"sessions", "cuts"}:
            yield from self._measure_fleet(metric)
        else:
            bulk = self.systems if metric in {"download", "upload"} else plain
            if metric in {"sftp", "forward"}:
                # Its ForceCommand stands in the way of both.
                bulk = [s for s in plain if s.name != "bastion"]
            folder = self.directory / metric
            folder.mkdir(mode=0o700)
            transfers = Transfers(
                bulk,
                sizes,
                directory=folder,
                source_port=self.source_port,
                drop=drop,
            )
            yield from getattr(transfers, metric)()

    def _measure_fleet(self, metric: str) -> Iterator[Sample]:
        for system in self.systems:
            if not isinstance(system, SluiceSystem) or system.name != "sluice":
                continue
            if metric == "cuts":
                yield from fleet.cuts(system, self.choice.fleet)
            else:
                yield from fleet.sessions(
                    system, system.product.person(), self.choice.fleet
                )


def run(choice: Choice, directory: Path) -> Result:
    """Start everything in `directory`, measure, stop it. Raises: BenchmarkError."""
    described = environment.describe(choice.note)
    others = environment.Others()
    with ExitStack() as stack:
        here = Run(choice, directory, stack)
        samples: list[Sample] = []
        for metric in choice.metrics:
            try:
                samples += here.measure(metric)
            except BenchmarkError as error:
                here.skip(metric, str(error))
        described.update(here.versions)
        found: Result = {}
        recorded = here.products.get("sluice")
        if recorded is not None:
            described["environment.fast_path"] = recorded.fast_path()
            memory = recorded.memory()
            found = {
                "rss_mb.sluice.before": round(recorded.before.resident, 1),
                "rss_mb.sluice.after": round(memory.resident, 1),
                "rss_mb.sluice.peak": round(memory.peak, 1),
            }
            found |= {
                f"recording.sluice.{name}": count
                for name, count in recorded.stop().items()
            }
    return {
        **report.summarize(samples),
        **found,
        **described,
        **{f"environment.left_out.{k}": v for k, v in here.skipped.items()},
        **others.shares(),
    }


def say(line: str) -> None:
    """Tell the person what happens now."""
    print(f"bench: {line}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; return the exit status."""
    choice = parse(arguments)
    # SIGTERM ends the run like Ctrl-C: what was started is ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    directory = Path(tempfile.mkdtemp(prefix="sluice-bench-"))
    before = None if choice.before is None else json.loads(choice.before.read_bytes())
    try:
        result = run(choice, directory)
    except BenchmarkError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    finally:
        if choice.keep:
            say(f"kept: {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    report.show(result)
    if before is not None:
        Console(width=max(100, Console().width)).print(report.compare(result, before))
    if choice.json_file is not None:
        report.write(choice.json_file, result)
        say(f"written to {choice.json_file}")
    if choice.whole:
        report.keep(HISTORY, result)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
