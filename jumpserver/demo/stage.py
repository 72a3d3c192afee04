"""Showing the story: on a terminal with progress, or line by line for programs."""

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from jumpserver.demo.processes import DemoProcesses
from jumpserver.demo.scene import Scene
from jumpserver.demo.story import STEPS, Step, StepResult, play


class Output(Protocol):
    """Where lines go: Django's `OutputWrapper`."""

    def write(self, msg: str) -> object:
        """Write one line."""

    def flush(self) -> object:
        """Write it out."""


def rehearse(processes: DemoProcesses, output: Output, *, as_json: bool) -> bool:
    """Play the story for a program, one line a step; return whether all of it held."""

    def note(text: str) -> None:
        if text:
            sys.stderr.write(f"  {text}\n")

    holds = True
    with Scene(processes, is_fresh=True, note=note) as scene:
        for result in play(scene, begin=lambda _: None):
            output.write(_json_line(result) if as_json else _plain_line(result))
            output.flush()
            holds = result.holds
    return holds


def _json_line(result: StepResult) -> str:
    checked = [finding.checked for finding in result.findings]
    evidence = [finding.evidence for finding in result.findings]
    if result.failure:
        checked.append(f"{result.step.title}: does not hold")
        evidence.append(result.failure)
    return json.dumps(
        {
            "step": result.step.number,
            "title": result.step.title,
            "holds": result.holds,
            "checked": checked,
            "evidence": evidence,
            "ms": result.milliseconds,
        },
        ensure_ascii=False,
    )


def _plain_line(result: StepResult) -> str:
    state = "holds" if result.holds else "DOES NOT HOLD"
    said = [f"{f.checked} ({f.evidence})" for f in result.findings]
    if result.failure:
        said.append(result.failure)
    return (
        f"{result.step.number} {result.step.title}: {state}, "
        f"{result.milliseconds} ms: {'; '.join(said)}"
    )


def perform(processes: DemoProcesses, *, is_fresh: bool) -> bool:
    """Play the story for people, with progress; return whether all of it held.

    `is_fresh`: nobody has used a one-time code of this data directory yet.
    """
    console = Console(highlight=False)
    console.print(f"Sluice answers at [bold]{processes.running().portal_url}[/]")
    holds = True
    with _progress(console) as (progress, task):

        def note(text: str) -> None:
            progress.update(task, note=text)

        def begin(step: Step) -> None:
            progress.update(task, step=f"{step.number} {step.title}", note="")

        with Scene(processes, is_fresh=is_fresh, note=note) as scene:
            for result in play(scene, begin=begin):
                _show_step(console, result)
                progress.advance(task)
                holds = result.holds
    if not holds:
        console.print("[bold red]The story does not hold; the product stays up.[/]")
    return holds


@contextlib.contextmanager
def _progress(console: Console) -> Iterator[tuple[Progress, TaskID]]:
    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.fields[step]}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[note]}[/]"),
        console=console,
        transient=True,
    )
    with progress:
        yield progress, progress.add_task("story", total=len(STEPS), step="", note="")


def _show_step(console: Console, result: StepResult) -> None:
    mark = "[green]holds[/]" if result.holds else "[bold red]does not hold[/]"
    seconds = result.milliseconds / 1000
    console.print(
        f"[bold]{result.step.number} {escape(result.step.title)}[/]  {mark}  "
        f"[dim]{seconds:.1f} s[/]"
    )
    for finding in result.findings:
        line = f"{escape(finding.checked)}\n[dim]{escape(finding.evidence)}[/]"
        console.print(Padding(line, (0, 0, 0, 2)))
    if result.failure:
        console.print(Padding(f"[red]{escape(result.failure)}[/]", (0, 0, 0, 2)))
