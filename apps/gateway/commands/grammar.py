"""The words of `sluice`: one line in, a command or what to say about it out. Pure."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any, Final, NoReturn

from apps.gateway.terminal_lines import plain

PROGRAM: Final = "sluice"
LINE_LIMIT: Final = 4096
"""Characters of one command line."""

EPILOG: Final = (
    "SESSION is its short form, such as S-7QK2MD, or its whole identifier. "
    "Exit status: 0 done, 1 not found or not yours, 2 wrong use."
)
_WIDTH: Final = 80


class UsageError(Exception):
    """The line cannot be a command. The text is one line."""


class HelpAsked(Exception):  # noqa: N818  # no error
    """The text answers a question for help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What was asked for. `reason`, `text`, `to` are empty where there is none."""

    name: str
    session: str = ""
    reason: str = ""
    text: str = ""
    to: str = ""
    back: bool = False
    channel: int | None = None
    json: bool = False
    yes: bool = False


def parse_line(line: str) -> Command | None:
    """Return the command in `line`; None when it is none of ours at all.

    Raises: UsageError; HelpAsked.
    """
    first = line.split(maxsplit=1)[:1]
    if first != [PROGRAM]:
        return None
    if len(line) > LINE_LIMIT:
        raise UsageError("the line is too long")
    if not line.isprintable():
        raise UsageError("the line has characters that are not printable")
    try:
        words = shlex.split(line)[1:]
    except ValueError as error:
        raise UsageError(str(error).lower()) from error
    return parse_words(words)


def parse_words(words: Sequence[str]) -> Command:
    """Return the command in `words`. Raises: UsageError; HelpAsked."""
    parser = _parser()
    if not words:
        raise HelpAsked(parser.format_help())
    found = vars(parser.parse_args(list(words)))
    found["text"] = " ".join(found.get("text") or ())
    if found.pop("needs_target", False) and bool(found["to"]) == found["back"]:
        raise UsageError("say to whom, or --back; not both")
    return Command(**{name: value for name, value in found.items() if value})


class _Parser(argparse.ArgumentParser):
    """Raises where argparse would print and exit."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            allow_abbrev=False,
            formatter_class=lambda prog: argparse.HelpFormatter(prog, width=_WIDTH),
            **kwargs,
        )
        # Since Python 3.14 help may have colours.
        self.color = False

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{plain(message)[:300]}; see {self.prog} --help")

    def _print_message(self, message: str, file: IO[str] | None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        raise HelpAsked(message)


def _parser() -> _Parser:
    parser = _Parser(
        prog=PROGRAM,
        description="See and control live sessions.",
        epilog=EPILOG,
    )
    commands = parser.add_subparsers(dest="name", required=True, metavar="COMMAND")

    def add(name: str, what: str, *, session: bool = True) -> _Parser:
        command: _Parser = commands.add_parser(
            name, help=what, description=f"{what[:1].upper()}{what[1:]}."
        )
        if session:
            command.add_argument("session", metavar="SESSION")
        command.add_argument(
            "--json", action="store_true", help="answer as JSON, for programs"
        )
        return command

    def asks_first(command: _Parser) -> None:
        command.add_argument(
            "--yes", action="store_true", help="do it without asking first"
        )

    def takes_reason(command: _Parser) -> None:
        command.add_argument(
            "--reason", default="", metavar="TEXT", help="why; the engineer is told it"
        )

    add("sessions", "list the live sessions you may see", session=False)
    watch = add("watch", "look at a session; Ctrl-C or Ctrl-] ends it")
    watch.add_argument(
        "--channel", type=_number, metavar="N", help="show this channel only"
    )
    message = add("message", "write one line to the engineer's terminals")
    message.add_argument("text", metavar="TEXT", nargs="+")
    asks_first(message)
    for name, what in (
        ("freeze", "hold what the engineer types"),
        ("terminate", "end the session"),
    ):
        command = add(name, what)
        takes_reason(command)
        asks_first(command)
    asks_first(add("resume", "let a frozen session go on"))
    hand = add("handover", "hand the typing to somebody who watches")
    hand.add_argument("to", metavar="HANDLE", nargs="?", default="")
    hand.add_argument(
        "--back", action="store_true", help="return it to the session's engineer"
    )
    hand.set_defaults(needs_target=True)
    asks_first(hand)
    return parser


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < len(text) <= 6):
        raise argparse.ArgumentTypeError("a channel is a number")
    return int(text)
