"""What the HMI shows: pages drawn on a character grid, and keys read from bytes.

Everything here is pure: a station, a size and a time give the same rows. Rows are
drawn in Unicode and translated to ASCII at the end, so that a page has one layout.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from jumpserver.demo.pump_station import Alarm, PumpStation, Severity

FALLBACK_COLUMNS, FALLBACK_ROWS = 80, 24
MOST_COLUMNS, MOST_ROWS = 240, 100
FULL_COLUMNS, FULL_ROWS = 60, 16
TITLE = "PUMP STATION 3"

_TO_ASCII = str.maketrans("┌┐└┘─│█░▁▂▃▄▅▆▇", "++++-|#.__--==#")
_BLOCKS = "▁▂▃▄▅▆▇█"


class Page(Enum):
    """The pages an operator can look at."""

    OVERVIEW = "overview"
    TRENDS = "trends"
    HELP = "help"


class Style(Enum):
    """Character attributes (ECMA-48 SGR), in colour and for monochrome terminals.

    Grey by default and colour only where somebody has to act, as ISA-101 asks.
    """

    PLAIN = ("0", "0")
    FRAME = ("0;90", "0")
    TITLE = ("0;1", "0;1")
    WATER = ("0;36", "0")
    EMPTY = ("0;90", "0")
    RUN = ("0;1;32", "0;1")
    STOP = ("0;90", "0")
    ALARM = ("0;1;37;41", "0;7")
    WARN = ("0;30;43", "0;7")
    SEEN = ("0;33", "0")
    GONE = ("0;90", "0")
    KEYS = ("0;7", "0;7")


class Canvas:
    """A grid of columns times rows of styled characters; writing outside is cut."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns = columns
        self.rows = rows
        self._characters = [[" "] * columns for _ in range(rows)]
        self._styles = [[Style.PLAIN] * columns for _ in range(rows)]

    def put(self, row: int, column: int, text: str, style: Style = Style.PLAIN) -> None:
        """Write `text` (single-width characters) from (`row`, `column`), 0-based."""
        if not 0 <= row < self.rows:
            return
        for offset, character in enumerate(text):
            at = column + offset
            if 0 <= at < self.columns:
                self._characters[row][at] = character
                self._styles[row][at] = style

    def encode(self, *, is_ascii: bool, has_colour: bool) -> list[bytes]:
        """Return each row as terminal bytes of exactly `columns` cells."""
        return [
            self._encode_row(row, is_ascii=is_ascii, has_colour=has_colour)
            for row in range(self.rows)
        ]

    def _encode_row(self, row: int, *, is_ascii: bool, has_colour: bool) -> bytes:
        pieces: list[str] = []
        current = ""
        for character, style in zip(
            self._characters[row], self._styles[row], strict=True
        ):
            attributes = style.value[0 if has_colour else 1]
            if attributes != current:
                pieces.append(f"\x1b[{attributes}m")
                current = attributes
            pieces.append(character)
        text = "".join(pieces)
        if is_ascii:
            return text.translate(_TO_ASCII).encode("ascii", "replace")
        return text.encode()


@dataclass(frozen=True, slots=True)
class TerminalKind:
    """What the operator's terminal can show."""

    is_ascii: bool
    has_colour: bool


def recognise_terminal(term: str | None, environment: dict[str, str]) -> TerminalKind:
    """Decide on character set and colour from TERM and the locale variables.

    The first of LC_ALL, LC_CTYPE and LANG that is set decides (POSIX 8.2); when none
    came along, terminal families that have always spoken UTF-8 get it.
    """
    family = (term or "dumb").lower()
    locale = next(
        (
            value
            for name in ("LC_ALL", "LC_CTYPE", "LANG")
            if (value := environment.get(name, ""))
        ),
        None,
    )
    is_modern = family.startswith(
        ("xterm", "screen", "tmux", "rxvt", "alacritty", "kitty", "foot", "linux")
    )
    if locale is None:
        is_ascii = not is_modern
    else:
        is_ascii = "utf-8" not in locale.lower() and "utf8" not in locale.lower()
    has_colour = is_modern or family in ("ansi", "cygwin", "putty")
    return TerminalKind(is_ascii=is_ascii, has_colour=has_colour)


def clamp_size(columns: int, rows: int) -> tuple[int, int]:
    """Return a drawable size for what a client claimed, in cells.

    0 means "unknown" (RFC 4254 section 6.2) and becomes 80 or 24; giants are capped
    so that a hostile size cannot eat memory.
    """
    return (
        min(columns, MOST_COLUMNS) if columns > 0 else FALLBACK_COLUMNS,
        min(rows, MOST_ROWS) if rows > 0 else FALLBACK_ROWS,
    )


def draw(
    station: PumpStation, page: Page, *, columns: int, rows: int, now: datetime
) -> Canvas:
    """Draw `page` of the HMI for a window of `columns` times `rows` cells."""
    canvas = Canvas(columns, rows)
    if columns < FULL_COLUMNS or rows < FULL_ROWS:
        _draw_small(canvas, station, page, now)
        return canvas
    _draw_frame(canvas, station, page, now)
    if page is Page.OVERVIEW:
        _draw_overview(canvas, station)
    elif page is Page.TRENDS:
        _draw_trends(canvas, station)
    else:
        _draw_help(canvas)
    return canvas


def _draw_frame(
    canvas: Canvas, station: PumpStation, page: Page, now: datetime
) -> None:
    last, right = canvas.rows - 1, canvas.columns - 1
    canvas.put(0, 0, "┌" + "─" * (canvas.columns - 2) + "┐", Style.FRAME)
    for row in range(1, last):
        canvas.put(row, 0, "│", Style.FRAME)
        canvas.put(row, right, "│", Style.FRAME)
    canvas.put(last, 0, "└" + "─" * (canvas.columns - 2) + "┘", Style.FRAME)
    name = TITLE if page is Page.OVERVIEW else f"{TITLE}  {page.value}"
    canvas.put(0, 1, f" {name} ", Style.TITLE)
    clock = f" {now:%H:%M:%S} UTC "
    canvas.put(0, right - len(clock) - 1, clock, Style.TITLE)
    canvas.put(last - 2, 4, station.message[: canvas.columns - 8])
    keys = " F1 help  F2 trends  F8 ack  1 2 3 pumps  F10 logout "
    canvas.put(last - 1, 1, keys.ljust(canvas.columns - 2), Style.KEYS)


def _draw_overview(canvas: Canvas, station: PumpStation) -> None:
    width = max(10, canvas.columns - 32)
    for row, name, level in ((2, "A", station.tank_a), (3, "B", station.tank_b)):
        canvas.put(row, 4, f"TANK {name}")
        filled = round(level / 100 * width)
        canvas.put(row, 13, "█" * filled, Style.WATER)
        canvas.put(row, 13 + filled, "░" * (width - filled), Style.EMPTY)
        canvas.put(row, 15 + width, f"{level:5.1f} %")
    for row, pump in enumerate(station.pumps, start=5):
        state, style = ("RUN", Style.RUN) if pump.is_running else ("STOP", Style.STOP)
        canvas.put(row, 4, pump.tag)
        canvas.put(row, 11, state.ljust(4), style)
        canvas.put(row, 17, f"{pump.rpm:5.0f} rpm {pump.kilowatts:7.1f} kW")
    canvas.put(6, 40, f"{station.vibration:4.1f} mm/s")
    waiting = station.waiting_alarms()
    canvas.put(9, 4, "ALARMS", Style.TITLE)
    if waiting:
        canvas.put(9, 12, f" {waiting} waiting ", Style.WARN)
    room = canvas.rows - 4 - 10
    newest_first = list(reversed(station.alarms))[:room]
    for row, alarm in enumerate(newest_first, start=10):
        _draw_alarm(canvas, row, alarm)
    if not newest_first:
        canvas.put(10, 4, "none", Style.GONE)


def _draw_alarm(canvas: Canvas, row: int, alarm: Alarm) -> None:
    if alarm.state == "NEW":
        style = Style.WARN if alarm.severity is Severity.MEDIUM else Style.ALARM
    else:
        style = Style.SEEN if alarm.state == "ACK" else Style.GONE
    by = f" {alarm.acknowledged_by}" if alarm.state == "ACK" else ""
    line = (
        f"{alarm.raised_at:%H:%M:%S}  {alarm.severity.value:<4}  "
        f"{alarm.text:<22} {alarm.state}{by}"
    )
    canvas.put(row, 4, line[: canvas.columns - 6], style)


def _draw_trends(canvas: Canvas, station: PumpStation) -> None:
    width = canvas.columns - 14
    height = max(2, (canvas.rows - 9) // 3)
    samples = list(station.history)[-width:]
    plots = (
        ("TANK A %", [sample.tank_a for sample in samples], 100.0, Style.WATER),
        ("TANK B %", [sample.tank_b for sample in samples], 100.0, Style.WATER),
        ("P-102 mm/s", [sample.vibration for sample in samples], 10.0, Style.SEEN),
    )
    for number, (name, values, top, style) in enumerate(plots):
        first = 2 + number * (height + 1)
        canvas.put(first, 2, name, Style.TITLE)
        if values:
            canvas.put(first + 1, 2, f"{values[-1]:6.1f}")
        for offset, value in enumerate(values):
            eighths = round(min(1.0, value / top) * height * 8)
            for level in range(height):
                part = min(8, eighths - level * 8)
                if part > 0:
                    block = _BLOCKS[part - 1]
                    canvas.put(first + height - 1 - level, 13 + offset, block, style)


def _draw_help(canvas: Canvas) -> None:
    lines = (
        "1 2 3        start or stop P-101, P-102, P-103",
        "a  or F8     acknowledge the oldest waiting alarm",
        "t  or F2     trends of the last minutes, and back",
        "?  or F1     this page, and back",
        "Ctrl-L       draw the screen again",
        "q  or F10    log out",
        "",
        "NEW nobody has seen it     ACK somebody has",
        "RTN gone before seen       CLR gone",
    )
    for row, line in enumerate(lines, start=2):
        canvas.put(row, 4, line)


def _draw_small(
    canvas: Canvas, station: PumpStation, page: Page, now: datetime
) -> None:
    """Keep the figures readable in a window too small for the frame."""
    if page is Page.HELP:
        lines = ["1 2 3 pumps", "a ack  t trends", "? help", "q logout"]
    else:
        first, second, third = (
            "RUN" if pump.is_running else "STOP" for pump in station.pumps
        )
        lines = [
            f"A {station.tank_a:.1f}%  B {station.tank_b:.1f}%",
            f"{first} {second} {third}",
            f"{station.waiting_alarms()} alarms waiting",
            "q logout",
        ]
    canvas.put(0, 0, f"PS 3 {now:%H:%M:%S}", Style.TITLE)
    for row, line in enumerate(lines, start=1):
        canvas.put(row, 0, line)


_SEQUENCES = {
    b"OP": "F1",
    b"[11~": "F1",
    b"[[A": "F1",
    b"OQ": "F2",
    b"[12~": "F2",
    b"[[B": "F2",
    b"[19~": "F8",
    b"[21~": "F10",
}
_LONGEST_SEQUENCE = 16


class KeyReader:
    """Turn terminal input, cut anywhere, into key names; unknown keys vanish.

    A key is a printable ASCII character, `^C`, `^L`, or `F1`, `F2`, `F8`, `F10`.
    """

    def __init__(self) -> None:
        self._escape: bytes | None = None

    def feed(self, received: bytes) -> list[str]:
        """Return the keys completed by `received`."""
        keys: list[str] = []
        for byte in received:
            key = self._take(byte)
            if key is not None:
                keys.append(key)
        return keys

    def _take(self, byte: int) -> str | None:
        if byte == 0x1B:
            self._escape = b""
            return None
        if self._escape is None:
            if byte in (0x03, 0x0C):
                return "^C" if byte == 0x03 else "^L"
            return chr(byte) if 0x20 < byte < 0x7F else None
        self._escape += bytes([byte])
        if not self._is_complete(self._escape):
            return None
        sequence, self._escape = self._escape, None
        return _SEQUENCES.get(sequence)

    @staticmethod
    def _is_complete(sequence: bytes) -> bool:
        """Return True at the final byte of an ECMA-48 sequence (after ESC)."""
        if len(sequence) >= _LONGEST_SEQUENCE or sequence[:1] not in (b"[", b"O"):
            return True
        if len(sequence) == 1:
            return False
        if sequence[:2] == b"[[":  # the Linux console's F1 to F5
            return len(sequence) == 3
        return 0x40 <= sequence[-1] <= 0x7E
