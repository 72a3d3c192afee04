"""Showing the story: on a terminal with progress, or line by line for programs."""

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
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
from rich.table import Table

from jumpserver.demo.processes import DemoProcesses, RunningDemo
from jumpserver.demo.scene import Scene
from jumpserver.demo.story import STEPS, Step, StepResult, play
from jumpserver.demo.waterworks import ASSETS
from jumpserver.private_files import write_private_json


class Output(Protocol):
    """Where lines go: Django's `OutputWrapper`."""

    def write(self, msg: str) -> object:
        """Write one line."""

    def flush(self) -> object:
        """Write it out."""


def rehearse(processes: DemoProcesses, output: Output, *, as_json: bool) -> bool:
    """Play the story for a program, one line a step; return whether all of it held."""

    def note(text: str) -> None:
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


def perform(processes: DemoProcesses, *, again: bool) -> None:
    """Play the story for people unless it was played, say how to go on, and stay up.

    Returns never while both children live; a story that does not hold is shown, and
    the product stays up for whoever wants to look why.
    """
    console = Console(highlight=False)
    played = _played_file(processes.data_directory)
    is_fresh = not played.exists()
    demo = processes.running()
    console.print(f"Sluice answers at [bold]{demo.portal_url}[/]")
    if is_fresh or again:
        holds = _show_story(processes, console, is_fresh=is_fresh)
        write_private_json(played, {"held": holds})
    else:
        console.print("The story was played on this data directory; --again plays it.")
    _show_who_and_where(console, processes.running())
    console.print("Ctrl-C stops everything; the same command resumes it.")
    processes.wait_until_a_part_ends()


def _played_file(data_directory: Path) -> Path:
    return data_directory / "demo" / "story.json"


def _show_story(processes: DemoProcesses, console: Console, *, is_fresh: bool) -> bool:
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


def _show_who_and_where(console: Console, demo: RunningDemo) -> None:
    """Print addresses, people with their secrets, and commands to copy.

    Secrets and commands are printed as plain lines, so that no narrow terminal cuts or
    folds what people have to copy.
    """
    people = Table("Person", "Role", "Password", "TOTP secret", title="People")
    for card in demo.people:
        people.add_row(card.username, card.role, card.password, card.totp_secret)
    console.print()
    if console.width >= _TABLE_COLUMNS:
        console.print(people)
    else:
        for card in demo.people:
            print_plain(
                console,
                f"{card.username} ({card.role}) {card.password} {card.totp_secret}",
            )
    print_plain(console, f"Portal:  {demo.portal_url}")
    print_plain(
        console, f"Gateway: [{demo.ssh_host}]:{demo.ssh_port} {demo.ssh_host_key}"
    )
    console.print("Once a grant is approved in the portal:")
    engineer = demo.person("engineer")
    for asset in ASSETS:
        print_plain(
            console,
            f"  ssh -p {demo.ssh_port} -i {engineer.ssh_private_key} "
            f"{engineer.username}@{asset.name}@{demo.ssh_host}",
        )


_TABLE_COLUMNS = 96


def print_plain(console: Console, line: str) -> None:
    """Print a line as it is, however long: it is there to be copied."""
    console.print(line, markup=False, soft_wrap=True)
