"""The relay between a front and a back: order, holds, freeze, notices."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.gateway import relay, terminal_lines
from apps.gateway.asset_channel import Terminal
from apps.gateway.relay import (
    HELD_SIGNALS,
    TARGET_LOST_LINE,
    ChannelRequest,
    ChannelResult,
    Relay,
    passes_environment,
)
from apps.recordings.frames import Event, EventKind
from apps.recordings.reader import RecordingReader
from apps.recordings.writer import BACKLOG_LIMIT_BYTES, Recorder, RecorderThread
from tests.gateway.conftest import until


class End:
    """Either end of a relay as it looks from inside: asyncssh's channels do this."""

    def __init__(self) -> None:
        self.log: list[tuple] = []
        self.reading = True
        self.closing = False

    def __getattr__(self, name):
        if name == "tell_beside":
            raise AttributeError(name)

        def note(*arguments, **named):
            self.log.append((name, *arguments, *named.values()))

        return note

    def pause_reading(self):
        assert self.reading
        self.reading = False

    def resume_reading(self):
        assert not self.reading
        self.reading = True

    def is_closing(self):
        return self.closing

    def written(self) -> bytes:
        return b"".join(entry[1] for entry in self.log if entry[0] == "write")


@dataclass
class Scene:
    relay: Relay
    front: End
    back: End
    recorder: Recorder
    path: Path
    key: bytes
    ends: list[ChannelResult] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)

    async def events(self) -> list[Event]:
        await asyncio.wrap_future(self.recorder.close())
        with RecordingReader(self.path, self.key) as reader:
            return list(reader.events())


@pytest.fixture
async def thread() -> AsyncIterator[RecorderThread]:
    recorder_thread = RecorderThread()
    recorder_thread.start()
    yield recorder_thread
    await asyncio.to_thread(recorder_thread.stop)


@pytest.fixture
async def stage(thread, tmp_path):
    """Make a scene; `terminal` or not."""

    async def make(terminal: Terminal | None = None, kind: str | None = None) -> Scene:
        key = secrets.token_bytes(32)
        path = tmp_path / f"{secrets.token_hex(4)}.slrec"
        recorder = await asyncio.to_thread(
            thread.open,
            path,
            header={"started_at": "2026-01-01T00:00:00+00:00"},
            data_key=key,
            signer=Ed25519PrivateKey.generate(),
            loop=asyncio.get_running_loop(),
        )
        front, back = End(), End()
        ends, failures = [], []
        relay = Relay(
            number=1,
            request=ChannelRequest(
                kind or ("shell" if terminal else "exec"), terminal=terminal
            ),
            front=front,
            recorder=recorder,
            on_end=lambda _, result: ends.append(result),
            on_failure=failures.append,
        )
        relay.back_made(cast(Any, back))
        return Scene(relay, front, back, recorder, path, key, ends, failures)

    return make


async def comes(condition) -> None:
    """Return when `condition()` has come true."""

    async def look() -> bool:
        return condition()

    await until(look, seconds=5, pause=0.01)


VT = Terminal("vt100", 80, 24)
XTERM = Terminal("xterm-256color", 80, 24)


async def test_both_directions_and_the_end(stage):
    scene = await stage()
    scene.relay.front_data(b"in")
    scene.relay.back_data(b"out", None)
    scene.relay.back_data(b"err", 1)
    scene.relay.front_eof()
    scene.relay.back_eof()
    scene.relay.back_exit_status(3)
    assert ("exit", 3) not in scene.front.log, "not before the channel has ended"
    scene.relay.back_lost(torn=False)
    assert scene.back.log == [("write", b"in"), ("write_eof",)]
    assert scene.front.log == [
        ("write", b"out", None),
        ("write", b"err", 1),
        ("write_eof",),
        ("exit", 3),
    ]
    assert scene.ends == [ChannelResult(3, "", 2, 6)]
    scene.relay.abandon()
    assert len(scene.ends) == 1


async def test_an_exit_signal_is_passed_on_as_it_came(stage):
    scene = await stage()
    scene.relay.back_exit_signal("SEGV", *(True, "oops", "en"))
    scene.relay.back_lost(torn=False)
    assert scene.front.log == [("exit_with_signal", "SEGV", True, "oops", "en")]
    assert scene.ends[0].exit_signal == "SEGV"


async def test_an_end_without_status_just_closes(stage):
    scene = await stage()
    scene.relay.back_lost(torn=False)
    assert scene.front.log == [("close",)]


async def test_a_torn_connection_is_told_and_fails(stage):
    scene = await stage()
    scene.relay.back_lost(torn=True)
    assert scene.front.log == [
        ("write", f"{TARGET_LOST_LINE}\n".encode(), 1),
        ("exit", 255),
    ]


async def test_a_torn_connection_after_the_status_keeps_the_status(stage):
    scene = await stage()
    scene.relay.back_exit_status(0)
    scene.relay.back_lost(torn=True)
    assert scene.front.log == [("exit", 0)]


async def test_whoever_is_slow_holds_the_other(stage):
    scene = await stage()
    scene.relay.front_full()
    scene.relay.front_full()
    assert (scene.front.reading, scene.back.reading) == (True, False)
    scene.relay.front_drained()
    scene.relay.front_drained()
    assert scene.back.reading
    scene.relay.back_full()
    assert (scene.front.reading, scene.back.reading) == (False, True)
    scene.relay.back_drained()
    assert scene.front.reading


async def test_r20_a_slow_recorder_holds_both(stage):
    """R20: the backlog has a limit, and reading goes on when it has drained."""
    scene = await stage()
    piece = secrets.token_bytes(1 << 20)
    for _ in range((BACKLOG_LIMIT_BYTES >> 20) + 2):
        scene.relay.front_data(piece)
    scene.relay.back_data(piece, None)
    assert not scene.front.reading
    assert not scene.back.reading
    async with asyncio.timeout(10):
        while not (scene.front.reading and scene.back.reading):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert scene.recorder.backlog < BACKLOG_LIMIT_BYTES


async def test_r23_what_cannot_be_recorded_is_not_forwarded(stage):
    """R23: the first refusal stops both directions and is reported."""
    scene = await stage()
    await asyncio.wrap_future(scene.recorder.close())
    scene.relay.front_data(b"x")
    scene.relay.back_data(b"y", None)
    scene.relay.front_signal("INT")
    scene.relay.front_resized(1, 1)
    assert not scene.relay.front_break(1)
    assert scene.front.log == scene.back.log == []
    assert len(scene.failures) == 1


async def test_frozen_input_is_held_and_nothing_of_it_is_lost(stage):
    scene = await stage(VT)
    scene.relay.freeze()
    assert scene.relay.frozen
    assert not scene.front.reading
    scene.relay.back_data(b"still shown", None)
    for number in range(HELD_SIGNALS + 3):
        scene.relay.front_signal(f"S{number}")
    scene.relay.front_resized(100, 30)
    scene.relay.front_resized(120, 40)
    assert not scene.relay.front_break(500)
    assert scene.back.log == []
    assert scene.front.written() == b"still shown"
    scene.relay.unfreeze()
    assert scene.front.reading
    assert scene.back.log == [
        ("change_terminal_size", 120, 40, 0, 0),
        *(("send_signal", f"S{number}") for number in range(HELD_SIGNALS)),
    ]
    scene.relay.unfreeze()
    assert scene.relay.front_break(500)
    assert scene.back.log[-1] == ("send_break", 500)


async def test_unfreezing_waits_for_a_slow_asset(stage):
    scene = await stage()
    scene.relay.freeze()
    scene.relay.back_full()
    scene.relay.unfreeze()
    assert not scene.front.reading
    scene.relay.back_drained()
    assert scene.front.reading


async def test_a_front_that_goes_lets_the_back_finish(stage):
    scene = await stage()
    scene.relay.front_data(b"last")
    scene.relay.front_lost()
    assert scene.back.log == [("write", b"last"), ("close",)]
    scene.relay.back_data(b"too late", None)
    scene.relay.back_exit_status(0)
    scene.relay.back_lost(torn=False)
    assert scene.front.log == []
    assert scene.ends[0].exit_status == 0


async def test_after_a_stop_nothing_passes(stage):
    scene = await stage()
    scene.relay.stop()
    scene.relay.front_data(b"x")
    scene.relay.back_data(b"y", None)
    scene.relay.front_eof()
    scene.relay.back_eof()
    scene.relay.front_signal("INT")
    scene.relay.front_resized(1, 1)
    assert scene.front.log == scene.back.log == []
    scene.relay.back_lost(torn=True)
    assert scene.front.log == []


async def test_a_notice_is_a_line_on_a_terminal_only(stage):
    scene = await stage(VT)
    scene.relay.tell("5 minutes left")
    scene.relay.tell("and counting")
    assert scene.front.written() == (
        b"*** 5 minutes left ***\r\n*** and counting ***\r\n"
    )
    command = await stage()
    command.relay.tell("5 minutes left")
    command.relay.warn("5 minutes left", patience=20)
    assert command.front.log == []
    command.relay.say_last("*** the end ***")
    assert command.front.log == [("write", b"*** the end ***\n", 1)]


async def test_a_warning_waits_for_the_end_of_a_line(stage):
    scene = await stage(VT)
    scene.relay.back_data(b"$ ", None)
    scene.relay.warn("15 minutes left", patience=20)
    scene.relay.warn("5 minutes left", patience=20)
    assert scene.front.written() == b"$ "
    scene.relay.back_data(b"ls\r\nfile\r\n$ ", None)
    assert scene.front.written() == (b"$ ls\r\n*** 5 minutes left ***\r\nfile\r\n$ "), (
        "the newer one only"
    )


async def test_a_warning_that_waited_long_is_shown_all_the_same(stage):
    scene = await stage(VT)
    scene.relay.back_data(b"$ ", None)
    scene.relay.warn("5 minutes left", patience=0.05)
    await comes(lambda: b"***" in scene.front.written())
    assert scene.front.written() == b"$ \r\n*** 5 minutes left ***\r\n"


@pytest.mark.parametrize("begun", [b"\x1b[3", b"\x1b]0;ti", b"\xe2\x82"])
async def test_nothing_is_put_into_the_middle_of_anything(stage, begun, monkeypatch):
    monkeypatch.setattr(terminal_lines, "HALFWAY_SECONDS", 0.05)
    scene = await stage(VT)
    scene.relay.back_data(b"x" + begun, None)
    scene.relay.tell("look")
    assert scene.front.written() == b"x" + begun
    # What never goes on is cancelled, as a new sequence would do it.
    await comes(lambda: b"look" in scene.front.written())
    assert scene.front.written() == b"x" + begun + b"\x18\r\n*** look ***\r\n"


@pytest.mark.parametrize("enter", [b"\x1b[?1049h", b"\x1b[?47h", b"\x1b[?1047h"])
async def test_a_full_screen_program_is_drawn_over_only_when_it_must_be(stage, enter):
    scene = await stage(VT)
    scene.relay.back_data(b"text" + enter + b"drawing", None)
    assert scene.relay.full_screen
    # This terminal has no title.
    scene.relay.warn("5 minutes left", patience=20)
    shown = scene.front.log[-1][1]
    assert shown.startswith(b"\x1b7\x1b[999;1H")
    assert shown.endswith(b"\x1b8")
    assert b"\n" not in shown
    scene.relay.say_last("*** the end ***")
    assert b"\x1b[?1049l" in scene.front.log[-1][1]
    scene.relay.back_data(b"\x1b[?1049hx" + enter.replace(b"h", b"l"), None)
    assert not scene.relay.full_screen


async def test_a_program_that_saves_its_cursor_is_never_drawn_over(stage):
    scene = await stage(XTERM)
    scene.relay.back_data(b"\x1b[?1049h\x1b7drawing", None)
    scene.relay.tell("anna froze your input")
    title = b"\x1b[22;2t\x1b]2;anna froze your input\x07\x07"
    assert scene.front.log[-1][1] == title
    scene.relay.back_data(b"more", None)
    assert scene.front.written().count(b"anna") == 1
    scene.relay.back_data(b"\x1b8\x1b[?1049l\r\n", None)
    assert scene.front.log[-1][1] == b"*** anna froze your input ***\r\n"


async def test_a_title_is_given_back(stage, monkeypatch):
    monkeypatch.setattr(terminal_lines, "TITLE_SECONDS", 0.05)
    scene = await stage(XTERM)
    scene.relay.back_data(b"\x1b[?1049h", None)
    scene.relay.warn("15 minutes left", patience=20)
    scene.relay.warn("5 minutes left", patience=20)
    written = scene.front.written()
    assert written.count(b"\x1b[22;2t") == 1
    assert b"minutes left ***" not in written
    await comes(lambda: b"\x1b[23;2t" in scene.front.written())
    scene.relay.warn("1 minute left", patience=20)
    scene.relay.back_exit_status(0)
    scene.relay.back_lost(torn=False)
    assert scene.front.written().endswith(b"\x1b[23;2t")
    assert scene.front.log[-1] == ("exit", 0)


async def test_drawing_anew_is_asked_for_by_size(stage, monkeypatch):
    monkeypatch.setattr(relay, "REDRAW_SECONDS", 0.01)
    scene = await stage(XTERM)
    scene.relay.front_resized(100, 30)
    scene.relay.redraw()
    await comes(lambda: len(scene.back.log) == 3)
    assert [entry[1:3] for entry in scene.back.log] == [(100, 30), (100, 29), (100, 30)]
    scene.relay.freeze()
    scene.relay.redraw()
    assert len(scene.back.log) == 3
    scene.relay.back_lost(torn=False)
    kinds = [event.kind for event in await scene.events()]
    assert kinds == [EventKind.RESIZE, EventKind.MARK, EventKind.CLOSE]


async def test_what_we_say_is_recorded_as_ours(stage):
    scene = await stage(VT)
    scene.relay.tell("5 minutes left")
    scene.relay.back_lost(torn=False)
    kinds = [event.kind for event in await scene.events()]
    assert kinds == [EventKind.NOTICE, EventKind.CLOSE]


async def test_the_last_word_is_shown_even_when_it_cannot_be_recorded(stage):
    scene = await stage(VT)
    await asyncio.wrap_future(scene.recorder.close())
    scene.relay.say_last("*** the recording cannot be written ***")
    assert b"cannot be written" in scene.front.written()


async def test_nothing_is_written_to_a_front_that_closes(stage):
    scene = await stage(VT)
    scene.front.closing = scene.back.closing = True
    scene.relay.back_data(b"x", None)
    scene.relay.front_data(b"y")
    scene.relay.tell("z")
    assert scene.front.log == scene.back.log == []


@pytest.mark.parametrize(
    ("name", "passes"),
    [
        (b"TERM", True),
        (b"LANG", True),
        (b"LC_ALL", True),
        (b"LC_", True),
        (b"LANGUAGE", False),
        (b"LD_PRELOAD", False),
        (b"PATH", False),
        (b"lc_all", False),
        (b"", False),
    ],
)
def test_r26_environment(name, passes):
    assert passes_environment(name) is passes


@pytest.mark.parametrize(
    ("kind", "both"), [("shell", False), ("exec", False), ("sftp", True), ("x", True)]
)
async def test_a_freeze_holds_files_and_forwards_both_ways(stage, kind, both):
    """Whatever is neither shell nor command is held in both directions."""
    scene = await stage(kind=kind)
    scene.relay.freeze()
    scene.relay.freeze()
    assert scene.front.reading is False
    assert scene.back.reading is not both
    # A slow reader may come and go meanwhile: the freeze stays.
    scene.relay.front_full()
    scene.relay.front_drained()
    assert scene.back.reading is not both
    scene.relay.unfreeze()
    assert scene.front.reading
    assert scene.back.reading
