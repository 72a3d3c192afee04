"""What Sluice shows on one terminal, at a moment and in a way that does no harm.

Nothing is put into the middle of a control sequence or a character. A warning goes
between two lines: it waits for one to end, a while at most. While a full-screen program
has the screen a warning is only the window's title (or stands beside a browser's
terminal), which no program draws over, and becomes a line when the program is done.
Something that must be seen now, such as who froze the session, is drawn over the last
row, unless the program keeps a cursor in the terminal's only place for one; afterwards
the program is made to draw anew. Lines carry no colours: to set them back would set
back the program's as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from apps.gateway.screen import CANCEL, ScreenTracker

PATIENCE_SECONDS: Final = 20.0
"""How long a warning waits for the end of a line."""

HALFWAY_SECONDS: Final = 3.0
"""How long anything waits for a sequence or character that was begun to be finished."""

TITLE_SECONDS: Final = 30.0
OVERDRAWN_SECONDS: Final = 8.0
"""How long a title and a drawn-over row stay."""

WAITING_LIMIT: Final = 20

_TITLED: Final = (
    "xterm", "rxvt", "screen", "tmux", "putty", "alacritty", "foot", "kitty", "wezterm",
    "konsole", "gnome", "vte", "st", "ghostty", "contour", "mintty",
)  # fmt: skip
_PUSH_TITLE: Final = b"\x1b[22;2t"
_POP_TITLE: Final = b"\x1b[23;2t"


def plain(text: str) -> str:
    """Return `text` without anything that could steer a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


def has_title(term: str) -> bool:
    """Say whether terminals of this TERM take a window title (OSC 2, XTWINOPS 22)."""
    return term.lower().startswith(_TITLED)


def line_bytes(text: str, *, at_line_start: bool) -> bytes:
    """Return a line of its own, for a screen that scrolls."""
    begin = "" if at_line_start else "\r\n"
    return f"{begin}*** {plain(text)} ***\r\n".encode()


def title_bytes(text: str) -> bytes:
    """Return what makes `text` the window's title, with a bell."""
    return b"\x1b]2;" + plain(text).encode("ascii", "replace") + b"\x07\x07"


def overdrawn_bytes(text: str) -> bytes:
    """Return what draws `text` over the last row; cursor and colours stay (DECSC)."""
    return b"\x1b7\x1b[999;1H\x1b[0;7m " + plain(text).encode() + b" \x1b[0m\x1b[K\x1b8"


@dataclass(slots=True)
class _Waiting:
    text: str
    urgent: bool
    due: float
    """When a warning is shown without waiting for the end of a line any longer."""
    announced: bool = False
    """It is the title already, and waits for the program to leave the screen."""


class TerminalLines:
    """The lines of one terminal.

    `show` puts bytes on the screen and into the recording; `beside` tells a browser's
    page, where there is one; `redraw` makes the program draw anew.
    """

    def __init__(
        self,
        screen: ScreenTracker,
        *,
        term: str,
        show: Callable[[bytes], None],
        beside: Callable[[str], None] | None,
        redraw: Callable[[], None],
    ) -> None:
        self._screen = screen
        self._has_title = has_title(term) and beside is None
        self._show = show
        self._beside = beside
        self._redraw = redraw
        self._loop = asyncio.get_running_loop()
        self._waiting: list[_Waiting] = []
        self._timer: asyncio.TimerHandle | None = None
        self._title_timer: asyncio.TimerHandle | None = None
        self._redraw_timer: asyncio.TimerHandle | None = None
        self._titled = False
        self._pop_due = False

    @property
    def waits(self) -> bool:
        """Say whether `passed` has anything to do."""
        return bool(self._waiting) or self._pop_due

    @property
    def wants_line_end(self) -> bool:
        """Say whether a warning waits for a line to end."""
        return bool(self._waiting) and not self._screen.full_screen

    def warn(self, text: str, *, patience: float = PATIENCE_SECONDS) -> None:
        """Show a warning when it disturbs least, within `patience` seconds.

        A newer one takes its place.
        """
        self._waiting = [each for each in self._waiting if each.urgent]
        self._add(text, urgent=False, patience=patience)

    def tell(self, text: str) -> None:
        """Show something now: at the next boundary."""
        self._add(text, urgent=True, patience=0)

    def _add(self, text: str, *, urgent: bool, patience: float) -> None:
        if self._beside is not None:
            self._beside(plain(text))
        due = self._loop.time() + patience
        self._waiting.append(_Waiting(text, urgent, due))
        del self._waiting[:-WAITING_LIMIT]
        self.passed()

    def passed(self) -> None:
        """Show what may be shown; called after each piece of output."""
        if not self._screen.at_boundary:
            self._arm()
            return
        if self._pop_due:
            self._pop_due = self._titled = False
            self._show(_POP_TITLE)
        if self._screen.full_screen:
            self._show_over_program()
        else:
            self._show_lines()
            self._arm()

    def _show_lines(self) -> None:
        now = self._loop.time()
        left: list[_Waiting] = []
        for each in self._waiting:
            if each.urgent or each.due <= now or self._screen.at_line_start:
                self._line(each.text)
            else:
                if self._has_title and not each.announced:
                    self._title(each.text)
                each.announced = True
                left.append(each)
        self._waiting = left

    def _line(self, text: str) -> None:
        data = line_bytes(text, at_line_start=self._screen.at_line_start)
        # Before the next one: the tracker then knows that a line has ended.
        self._screen.feed(data)
        self._show(data)

    def _show_over_program(self) -> None:
        left: list[_Waiting] = []
        for each in self._waiting:
            if not each.announced and self._has_title:
                self._title(each.text)
            may_draw = not self._screen.saves_cursor and not each.announced
            must_draw = each.urgent or not (self._has_title or self._beside)
            if may_draw and must_draw:
                self._show(overdrawn_bytes(each.text))
                self._redraw_later()
            else:
                left.append(each)
            each.announced = True
        self._waiting = left

    def _title(self, text: str) -> None:
        self._show((b"" if self._titled else _PUSH_TITLE) + title_bytes(text))
        self._titled, self._pop_due = True, False
        if self._title_timer is not None:
            self._title_timer.cancel()
        self._title_timer = self._loop.call_later(TITLE_SECONDS, self._untitle)

    def _untitle(self) -> None:
        self._pop_due = True
        self.passed()

    def _redraw_later(self) -> None:
        if self._redraw_timer is not None:
            self._redraw_timer.cancel()
        self._redraw_timer = self._loop.call_later(
            OVERDRAWN_SECONDS, self._redraw_program
        )

    def _redraw_program(self) -> None:
        self._redraw_timer = None
        if self._screen.full_screen:
            self._redraw()

    def _arm(self) -> None:
        """Look again when a wait is over, even if no output comes."""
        if not self._waiting or self._timer is not None:
            return
        if not self._screen.at_boundary:
            wait = HALFWAY_SECONDS
        else:
            wait = max(0.05, self._waiting[0].due - self._loop.time())
        self._timer = self._loop.call_later(wait, self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        if not self._screen.at_boundary:
            # It is not going to be finished: leave it, as the terminal then does.
            self._screen.feed(CANCEL)
            self._show(CANCEL)
        self.passed()

    def stop(self) -> None:
        """Forget what waits; give the window its title back."""
        for timer in (self._timer, self._title_timer, self._redraw_timer):
            if timer is not None:
                timer.cancel()
        self._waiting = []
        if self._titled:
            self._titled = self._pop_due = False
            self._show(_POP_TITLE)
