"""`python -m benchmarks`: start everything, measure, print, write."""

import argparse
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import environment, measurements, report
from benchmarks.measurements import METRICS, QUICK, Sample, Sizes, Transfers
from benchmarks.processes import ROOT, BenchmarkError
from benchmarks.product import Product
from benchmarks.report import Result
from benchmarks.sshd import Sshd, make_home, make_key
from benchmarks.systems import OpenSshSystem, SluiceSystem, System, write_configuration

TRACKED = ROOT / "benchmarks" / "results" / "gateway.json"


@dataclass(frozen=True, slots=True)
class Choice:
    """What the command line asks for."""

    metrics: tuple[str, ...]
    sizes: Sizes
    json_file: Path | None
    note: str
    keep: bool


def parse(arguments: Sequence[str]) -> Choice:
    """Read the command line; argparse ends the process when it cannot."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure direct ssh, ssh -J and the Sluice gateway, which records, "
        "in turns on one real sshd; print medians, tails and ratios.",
    )
    parser.add_argument(
        "--quick", action="store_true", help="few rounds, small sizes: a smoke test"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        metavar="N",
        help="rounds of every metric (default: login 30, echo 3, transfers 5)",
    )
    parser.add_argument(
        "--metric",
        action="append",
        choices=METRICS,
        help="measure only this one; may be repeated",
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help=f"where to write the result (default: {TRACKED.relative_to(ROOT)} after a "
        "whole run; nowhere with --quick or --metric)",
    )
    parser.add_argument(
        "--note", default="", help="a sentence about this run, kept with the result"
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help="keep the directory of the run (logs, database, recordings) and say where",
    )
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
    whole = not options.quick and not options.metric
    return Choice(
        metrics=tuple(m for m in METRICS if m in (options.metric or METRICS)),
        sizes=sizes,
        json_file=options.json or (TRACKED if whole else None),
        note=options.note,
        keep=options.keep,
    )


def run(choice: Choice, directory: Path) -> Result:
    """Start sshd, hop and product in `directory`, measure, stop them.

    Raises: BenchmarkError.
    """
    described = environment.describe(choice.note)
    others = environment.Others()
    with ExitStack() as stack:
        key = make_key_pair(directory)
        home = make_home(directory / "home")
        target, hop = (
            stack.enter_context(
                Sshd(directory=directory / name, authorized_key=key, home=home)
            )
            for name in ("target", "hop")
        )
        say("seeding people and starting the product")
        product = stack.enter_context(
            Product(
                directory=directory / "product",
                target=target,
                people_count=choice.sizes.people(choice.metrics),
            )
        )
        client = write_configuration(
            directory, key=directory / "key", target=target, hop=hop, product=product
        )
        systems: list[System] = [
            OpenSshSystem("direct", client),
            OpenSshSystem("jump", client),
            SluiceSystem(client, product),
        ]
        samples = [
            sample
            for metric in choice.metrics
            for sample in _measure(metric, systems, choice, directory, product)
        ]
        described["environment.fast_path"] = product.fast_path()
        memory = product.memory()
        written = product.stop()
    return {
        **report.summarize(samples),
        "rss_mb.sluice.before": round(product.before.resident, 1),
        "rss_mb.sluice.after": round(memory.resident, 1),
        "rss_mb.sluice.peak": round(memory.peak, 1),
        **{f"recording.sluice.{name}": count for name, count in written.items()},
        **described,
        **others.shares(),
    }


def make_key_pair(directory: Path) -> str:
    """Make the key that direct `ssh` and `ssh -J` use; return its public line."""
    return make_key(directory / "key")


def _measure(
    metric: str,
    systems: Sequence[System],
    choice: Choice,
    directory: Path,
    product: Product,
) -> Iterator[Sample]:
    say(f"{metric}: {choice.sizes.rounds(metric)} rounds")
    if metric == "login":
        return measurements.login(systems, choice.sizes)
    if metric == "echo":
        return measurements.echo(systems, choice.sizes)
    transfers = Transfers(systems, choice.sizes, directory=directory, product=product)
    return {
        "download": transfers.download,
        "upload": transfers.upload,
        "flood": transfers.flood,
    }[metric]()


def say(line: str) -> None:
    """Tell the person what happens now."""
    print(f"bench: {line}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; return the exit status."""
    choice = parse(arguments)
    # SIGTERM ends the run like Ctrl-C: what was started is ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    directory = Path(tempfile.mkdtemp(prefix="sluice-bench-"))
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
    if choice.json_file is not None:
        report.write(choice.json_file, result)
        say(f"written to {choice.json_file}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
