"""From samples to medians, tails and ratios; as a table, and as JSON with flat keys.

p95 and p99 are always the bad end: the slowest log-in, the slowest transfer. For
speeds they are therefore the 5th and the 1st percentile of the MB/s.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.goals import GOALS
from benchmarks.samples import Sample

Result = dict[str, float | int | str]

_BASES = ("direct", "jump", "direct_gcm", "jump_gcm")
_RATIOS = ("ratio_direct", "ratio_jump")
_TAILS = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
_SHOWN = {
    "direct": "ssh",
    "jump": "ssh -J",
    "direct_gcm": "ssh, AES-GCM",
    "jump_gcm": "ssh -J, AES-GCM",
    "bastion": "OpenSSH bastion",
    "sshmitm": "ssh-mitm",
    "sluice": "Sluice",
    "sluice_norec": "Sluice, unrecorded",
}


def is_speed(metric: str) -> bool:
    """Return whether more is better."""
    return metric.endswith("mb_s") or metric.startswith("logins_per_s")


def quantile(values: Iterable[float], share: float) -> float:
    """Return the value below which `share` (0 to 1) of `values` lie, interpolated.

    Raises: ValueError without values.
    """
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values")
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def summarize(samples: Iterable[Sample]) -> Result:
    """Return `metric.system.stat`: p50, p95, p99, n, and `ratio_...` to OpenSSH.

    A ratio is this system's median by that of the other. Cuts have `most`, too: when
    the last socket was closed.
    """
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for metric, system, value in samples:
        values[metric, system].append(value)
    result: Result = {}
    metrics = list(dict.fromkeys(metric for metric, _ in values))
    for (metric, system), found in sorted(
        values.items(), key=lambda item: metrics.index(item[0][0])
    ):
        for stat, share in _TAILS.items():
            place = 1 - share if is_speed(metric) else share
            result[f"{metric}.{system}.{stat}"] = round(quantile(found, place), 3)
        result[f"{metric}.{system}.n"] = len(found)
        if metric.startswith("cut_"):
            result[f"{metric}.{system}.most"] = round(max(found), 3)
        for base in _BASES:
            others = values.get((metric, base))
            if base != system and others:
                ratio = quantile(found, 0.5) / quantile(others, 0.5)
                result[f"{metric}.{system}.ratio_{base}"] = round(ratio, 3)
    return result


def table(result: Mapping[str, float | int | str]) -> Table:
    """Return the measured part of `result` for people."""
    shown = Table(
        title="The gateway beside OpenSSH",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    shown.add_column("metric", no_wrap=True)
    shown.add_column("system", no_wrap=True)
    for title in ("p50", "p95", "p99", "n", "vs ssh", "vs -J"):
        shown.add_column(title, justify="right", no_wrap=True)
    last = ""
    for key in result:
        if not key.endswith(".p50"):
            continue
        metric, system, _ = key.split(".")
        if last and metric != last:
            shown.add_section()
        stats = ["p50", "p95", "p99", "n", *_RATIOS]
        shown.add_row(
            metric if metric != last else "",
            _SHOWN.get(system, system),
            *(_text(result.get(f"{metric}.{system}.{stat}"), stat) for stat in stats),
        )
        last = metric
    return shown


def _text(value: float | str | None, stat: str) -> str:
    if not isinstance(value, float | int):
        return ""
    if stat == "n":
        return str(value)
    if stat.startswith("ratio"):
        return f"{value:.2f} x"
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def goals(result: Mapping[str, float | int | str]) -> Table:
    """Return what was to be reached, and whether it was."""
    shown = Table(
        title="Goals",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    shown.add_column("goal", no_wrap=True)
    for title in ("wanted", "is", ""):
        shown.add_column(title, justify="right", no_wrap=True)
    for goal in GOALS:
        value, met = goal.judge(result)
        sign = ">=" if goal.at_least else "<="
        verdict = "not measured" if met is None else "met" if met else "NOT MET"
        shown.add_row(goal.text, f"{sign} {goal.limit:g}", value, verdict)
    return shown


def compare(
    result: Mapping[str, float | int | str], before: Mapping[str, float | int | str]
) -> Table:
    """Return medians of two results side by side; ratios where there are any.

    Ratios to OpenSSH in the same run say more than times of two different days.
    """
    shown = Table(
        title=f"Compared with {before.get('environment.date', 'an older result')}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    shown.add_column("what", no_wrap=True)
    for title in ("before", "now", ""):
        shown.add_column(title, justify="right", no_wrap=True)
    for key, now in result.items():
        stat = key.rpartition(".")[2]
        then = before.get(key)
        if (
            stat not in {"p50", *_RATIOS}
            or not isinstance(now, float | int)
            or not isinstance(then, float | int)
            or not then
        ):
            continue
        change = now / then
        worse = change < 0.85 if is_speed(key.split(".")[0]) else change > 1.15
        mark = "WORSE" if worse and ".sluice." in key else ""
        shown.add_row(key, f"{then:.3f}", f"{now:.3f}", f"{change:.2f} x {mark}")
    return shown


def show(result: Mapping[str, float | int | str]) -> None:
    """Print the table, then everything else."""
    console = Console(width=max(100, Console().width))
    console.print(table(result))
    console.print(goals(result))
    for key, value in result.items():
        if key.startswith(("environment.", "rss_mb.", "recording.")):
            console.print(f"{key}: {value}", highlight=False, soft_wrap=True)


def keep(history: Path, result: Mapping[str, float | int | str]) -> None:
    """Add `result` to the history, a line of JSON for each whole run."""
    with history.open("a", encoding="utf-8") as file:
        file.write(json.dumps(result) + "\n")


def write(path: Path, result: Mapping[str, float | int | str]) -> None:
    """Write `result` as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    draft.replace(path)
