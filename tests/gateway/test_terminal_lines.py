"""Warnings while real full-screen programs run: what is on the screen stays theirs."""

import asyncio
from typing import Any

import pyte
import pytest

from apps.gateway import terminal_lines
from apps.gateway.live import LiveSession
from tests.gateway.conftest import Client, until
from tests.gateway.programs import found, program_target

COLUMNS, ROWS = 80, 24


class XtermScreen(pyte.Screen):
    """With what pyte does not know: vim asks for modifyOtherKeys as `CSI ? 4 m`."""

    def select_graphic_rendition(self, *attrs: int, **private: bool) -> None:
        if not private:
            super().select_graphic_rendition(*attrs)

    def set_margins(
        self, top: int | None = None, bottom: int | None = None, **private: bool
    ) -> None:
        """Leave `CSI ? 1001 r` alone, by which mc restores a mode."""
        if not private:
            super().set_margins(top, bottom)


class Screen:
    """What the engineer sees: the output of a channel on a terminal of pyte."""

    def __init__(self, process: Any) -> None:
        self._process = process
        self.received = b""
        self.screen = XtermScreen(COLUMNS, ROWS)
        self._stream = pyte.ByteStream(self.screen)

    async def read(self, seconds: float) -> bool:
        """Take what comes within a time; False when nothing did."""
        try:
            async with asyncio.timeout(seconds):
                piece = await self._process.stdout.read(65536)
        except TimeoutError:
            return False
        assert piece, "the program ended"
        self.received += piece
        self._stream.feed(piece)
        return True

    async def settled(self) -> list[str]:
        """Return the screen once nothing has been drawn for a while."""
        await self.read(10)
        return await self.quiet()

    async def quiet(self) -> list[str]:
        """Return the screen once nothing has been drawn for a while, or was at all."""
        while await self.read(0.7):
            pass
        return list(self.screen.display)


def live_session(client: Client) -> LiveSession:
    return next(iter(client.service.core.live.values()))


def text_file(tmp_path) -> str:
    path = tmp_path / "text"
    path.write_text("".join(f"line {n} of the text\n" for n in range(200)))
    return str(path)


@pytest.fixture(params=["vim", "less"])
def target_context(request, tmp_path):
    if not found(request.param):
        pytest.skip(f"{request.param} is not installed")
    command = {
        "vim": ["vim", "-u", "NONE", "-N", "-n"],
        "less": ["less"],
    }[request.param]
    return program_target([*command, text_file(tmp_path)])


async def open_program(client: Client) -> tuple[Any, Screen, list[str]]:
    await client.ask(client.here.grant)
    connection = await client.connect()
    process = await connection.create_process(
        term_type="xterm-256color", term_size=(COLUMNS, ROWS), encoding=None
    )
    screen = Screen(process)
    before = await screen.settled()
    assert any("line 0 of the text" in line for line in before), before
    return process, screen, before


async def test_a_warning_leaves_the_screen_of_a_program_alone(client):
    """The window's title says it; not one cell changes."""
    process, screen, before = await open_program(client)
    assert live_session(client).relays[1].full_screen
    cursor = (screen.screen.cursor.x, screen.screen.cursor.y)
    live_session(client).warn("Sluice: 5 minutes left of this session")
    assert await screen.settled() == before
    assert screen.screen.title == "Sluice: 5 minutes left of this session"
    assert (screen.screen.cursor.x, screen.screen.cursor.y) == cursor
    # And the program goes on as if nothing had been.
    process.stdin.write(b"\x06")
    moved = await screen.settled()
    process.stdin.write(b"\x02")
    back = await screen.settled()
    assert moved != before
    assert back[:-1] == before[:-1]


async def test_what_must_be_seen_is_drawn_over_and_then_drawn_anew(client, monkeypatch):
    monkeypatch.setattr(terminal_lines, "OVERDRAWN_SECONDS", 1.5)
    _process, screen, before = await open_program(client)
    live_session(client).notify("Sluice: anna says: leave pump 3 alone")

    async def seen() -> bool:
        await screen.read(0.1)
        return "anna says" in screen.screen.title

    await until(seen)
    # vim keeps a cursor in the terminal's only place: then the title is all.
    drawn = "anna says" in screen.screen.display[-1]
    assert drawn is not live_session(client).relays[1].screen.saves_cursor

    async def drawn_anew() -> bool:
        await screen.read(0.1)
        return "anna says" not in screen.screen.display[-1]

    await until(drawn_anew)
    after = await screen.settled()
    # In its last row less shows the file's name only once.
    assert after[:-1] == before[:-1]
    if drawn:
        assert client.here.target.sizes[-2:] == [
            (COLUMNS, ROWS - 1),
            (COLUMNS, ROWS),
        ]


async def test_the_window_has_its_own_title_again_at_the_end(client):
    process, screen, _before = await open_program(client)
    live_session(client).warn("Sluice: 5 minutes left of this session")
    await screen.settled()
    process.stdin.write(b":q\r")
    rest = await asyncio.wait_for(process.stdout.read(), 10)
    assert b"\x1b[?1049l" in rest
    # Here nothing comes after the program, so the window gets its own title back.
    assert rest.endswith(b"\x1b[23;2t")


class TestAShell:
    @pytest.fixture
    def target_context(self):
        return program_target(["sh", "-c", "PS1='$ ' exec sh"])

    async def test_a_warning_stands_between_two_prompts(self, client):
        await client.ask(client.here.grant)
        connection = await client.connect()
        process = await connection.create_process(
            term_type="vt220", term_size=(COLUMNS, ROWS), encoding=None
        )
        screen = Screen(process)
        await screen.settled()
        process.stdin.write(b"echo on")
        await screen.settled()
        live_session(client).warn("Sluice: 15 minutes left of this session")
        process.stdin.write(b"e\r")
        shown = await screen.settled()
        lines = [line.rstrip() for line in shown if line.strip()]
        assert lines == [
            "$ echo one",
            "*** Sluice: 15 minutes left of this session ***",
            "one",
            "$",
        ]


MORE = {
    # Without the alternate screen.
    "top": (["top", "-d", "3600"], "PID", b"q"),
    "htop": (["htop", "-d", "100"], "PID", b"q"),
    "mc": (["mc", "-u"], "Quit", b"\x1b[21~"),
}


class TestOtherPrograms:
    """What comes while they have the screen is in no cell of theirs for long."""

    @pytest.fixture(params=sorted(MORE))
    def name(self, request):
        if not found(request.param):
            pytest.skip(f"{request.param} is not installed")
        return request.param

    @pytest.fixture
    def target_context(self, name):
        command = " ".join(MORE[name][0])
        return program_target(["sh", "-c", f"{command}; printf 'back\\r\\n'; cat"])

    async def test_nothing_is_garbled(self, client, monkeypatch, name):
        monkeypatch.setattr(terminal_lines, "OVERDRAWN_SECONDS", 1.0)
        await client.ask(client.here.grant)
        connection = await client.connect()
        process = await connection.create_process(
            term_type="xterm-256color", term_size=(COLUMNS, ROWS), encoding=None
        )
        screen = Screen(process)
        await screen_has(screen, MORE[name][1])
        await screen.quiet()
        (session,) = client.service.core.live.values()
        assert session.relays[1].full_screen
        session.warn("Sluice: 5 minutes left of this session")
        session.notify("Sluice: anna says: leave pump 3 alone")
        await until(lambda: screen_shows(screen, "anna says"))
        await until(lambda: screen_shows(screen, "anna says", gone=True))
        await screen_has(screen, MORE[name][1])
        shown = await screen.quiet()
        assert not [line for line in shown if "Sluice" in line or "***" in line]
        process.stdin.write(MORE[name][2])
        await screen_has(screen, "back")
        process.stdin.write(b"typed\r")
        await screen_has(screen, "typed")
        assert not session.relays[1].full_screen
        # What was a title only becomes a line now, once.
        await screen_has(screen, "*** Sluice: 5 minutes left of this session ***")
        assert screen.received.count(b"*** Sluice") == 1


async def screen_shows(screen, text, *, gone=False):
    await screen.read(0.1)
    return any(text in line for line in screen.screen.display) is not gone


async def screen_has(screen, text):
    await until(lambda: screen_shows(screen, text))
