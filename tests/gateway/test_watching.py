"""How a watched session is drawn on a terminal that is not its own."""

import asyncio
import json

from apps.gateway.commands.watching import WatchScreen
from apps.gateway.watched_output import LEAVE_SCREEN
from apps.recordings.frames import (
    Event,
    EventKind,
    encode_close,
    encode_open,
    encode_resize,
)


class Paper:
    def __init__(self) -> None:
        self.shown = b""

    def write(self, data: bytes, datatype: int | None = None) -> None:
        self.shown += data

    def is_closing(self) -> bool:
        return False


SHELL = Event(
    EventKind.OPEN, 1, 0, encode_open("shell", columns=80, rows=24, term="xterm")
)
COMMAND = Event(EventKind.OPEN, 2, 1, encode_open("exec", command=b"ls \x1b]0;x\x07"))


async def drawn(
    *events: Event,
    channel: int | None = None,
    as_json: bool = False,
    has_terminal: bool = True,
) -> bytes:
    paper, room = Paper(), asyncio.Event()
    room.set()
    screen = WatchScreen(
        paper, room=room, channel=channel, as_json=as_json, has_terminal=has_terminal
    )
    for event in events:
        await screen.show(event)
    screen.leave()
    return paper.shown


def out(channel: int, data: bytes, kind: EventKind = EventKind.OUTPUT) -> Event:
    return Event(kind, channel, 5, data)


async def test_each_channel_says_when_it_is_its_turn():
    shown = await drawn(
        SHELL, out(1, b"one\r\n"), COMMAND, out(2, b"a\nb\n"), out(1, b"more")
    )
    assert b"--- channel 1: shell, 80x24 ---" in shown
    assert b"--- channel 2: exec ls ?]0;x? ---" in shown
    # Only what was not made for a terminal gets its line ends mended.
    assert b"a\r\nb\r\n" in shown
    assert shown.count(b"--- channel 1") == 2
    closed = Event(EventKind.CLOSE, 2, 9, encode_close(exit_status=0))
    assert b"the channel closed" in await drawn(SHELL, COMMAND, closed)


async def test_one_channel_alone():
    events = (SHELL, out(1, b"one"), COMMAND, out(2, b"two"), out(0, b"for all"))
    shown = await drawn(*events, channel=2)
    assert b"one" not in shown
    assert b"two" in shown
    assert b"for all" in shown


async def test_the_watchers_terminal_is_left_as_it_was():
    inside = await drawn(SHELL, out(1, b"\x1b[?1049hvim"))
    assert inside.count(LEAVE_SCREEN) == 1
    assert LEAVE_SCREEN not in await drawn(SHELL, out(1, b"$ ls"))
    assert b"\x1b" not in await drawn(SHELL, out(1, b"$ ls"), has_terminal=False)


async def test_a_program_gets_a_line_for_each_event():
    events = (
        SHELL,
        out(1, b"\xff\x1b[6n\n"),
        Event(EventKind.RESIZE, 1, 7, encode_resize(132, 50)),
        COMMAND,
    )
    told = [
        json.loads(line)
        for line in (await drawn(*events, as_json=True)).split(b"\n")[:-1]
    ]
    assert [one["kind"] for one in told] == ["open", "output", "resize", "open"]
    assert told[1]["text"] == "\ufffd\x1b[6n\n"
    assert (told[2]["columns"], told[2]["rows"]) == (132, 50)
    assert told[3]["command"] == "ls \x1b]0;x\x07"
