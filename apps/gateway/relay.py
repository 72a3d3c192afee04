"""Between one channel of an engineer and one session channel on an asset.

Callbacks only; nothing here waits. A piece of data is recorded first and forwarded
second, so that nothing unrecorded reaches either side (R23, R32). Each direction is
held back by whoever cannot keep up: the other side's channel or transport, the
recorder, or a freeze. Holding back means "take no more from the source"; the source's
own window then stops its sender (R20).

The front may be an SSH channel or a browser terminal: `FrontChannel` is all the relay
knows of it.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol, cast, runtime_checkable

import asyncssh
from asyncssh.constants import EXTENDED_DATA_STDERR

from apps.gateway.asset_channel import AssetChannel, Terminal
from apps.gateway.device_sign_in import DeviceSignIn
from apps.gateway.screen import CANCEL, ScreenTracker
from apps.gateway.terminal_lines import TerminalLines, plain
from apps.gateway.upstream import MAX_PACKET, WINDOW
from apps.gateway.upstream_connection import UpstreamConnection
from apps.recordings.frames import (
    EventKind,
    encode_close,
    encode_open,
    encode_resize,
)
from apps.recordings.writer import Recorder, RecordingFailedError

HELD_SIGNALS: Final = 8
"""Signals kept while frozen; more are dropped."""

ENVIRONMENT_LIMIT: Final = 256
"""Characters of one environment value."""

NO_TERMINAL_LINE: Final = "Sluice: the asset gave no terminal, so there is no echo"

SIGNED_IN_NOTICE: Final = b"Sluice signed in at the device's own prompts\r\n"
"""In the recording in place of the sign-in, of which nothing is kept."""

TARGET_LOST_LINE: Final = "*** Sluice: the asset closed the connection ***"
TARGET_LOST_STATUS: Final = 255
"""What OpenSSH's own client exits with when its connection breaks."""

REDRAW_SECONDS: Final = 0.3
"""Between the two window sizes that make a full-screen program draw anew."""


class Typist(Protocol):
    """Who sorts what is typed on a terminal; `keyboard.Keyboard` is one."""

    def typed(self, data: bytes) -> bytes:
        """Take what was typed; return what of it is for the asset."""

    def stop(self) -> None:
        """Wait for nothing more."""


class InputSource(Protocol):
    """Something that input is read from, and that can be held back."""

    def pause_reading(self) -> None:
        """Deliver no more input until `resume_reading`."""

    def resume_reading(self) -> None:
        """Deliver input again."""


@runtime_checkable
class TellsBeside(Protocol):
    """A front that can show a line beside its terminal, as a browser's page can."""

    def tell_beside(self, line: str) -> None:
        """Show a line beside the terminal."""


class FrontChannel(Protocol):
    """The engineer's end of a relay; `fastpath.ServerChannel` is one."""

    def write(self, data: bytes, datatype: int | None = None) -> None:
        """Send output; `datatype` 1 is standard error (RFC 4254 5.2)."""

    def write_eof(self) -> None:
        """Say that no more output comes."""

    def pause_reading(self) -> None:
        """Deliver no more input until `resume_reading`."""

    def resume_reading(self) -> None:
        """Deliver input again."""

    def exit(self, status: int) -> None:
        """Report how it ended and close after what was written."""

    def exit_with_signal(
        self, signal: str, core_dumped: bool = False, msg: str = "", lang: str = ""
    ) -> None:
        """Report which signal ended it and close after what was written."""

    def close(self) -> None:
        """Close after what was written."""

    def is_closing(self) -> bool:
        """Say whether nothing more can be written."""


@dataclass(frozen=True, slots=True)
class ChannelRequest:
    """What the engineer asked a channel to be."""

    kind: str
    """`shell`, `exec`, `sftp` or `forward`."""
    command: bytes | None = None
    terminal: Terminal | None = None
    environment: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def service(self) -> str:
        """Return what a permit must hold for it."""
        return self.kind

    @property
    def service_text(self) -> str:
        """Return the service as a line for the engineer names it."""
        return self.kind

    @property
    def command_text(self) -> str:
        """Return what the channel's row says of it."""
        return (self.command or b"").decode("utf-8", "replace")

    @property
    def subsystem(self) -> str | None:
        """Return the subsystem to ask the asset for."""
        return "sftp" if self.kind == "sftp" else None


@dataclass(frozen=True, slots=True)
class ChannelResult:
    """How a channel ended, and what it carried. Sizes are bytes."""

    exit_status: int | None
    exit_signal: str
    bytes_in: int
    bytes_out: int


class Hold(enum.Flag):
    """Why a source is not read at the moment."""

    SLOW_SINK = enum.auto()
    RECORDER = enum.auto()
    FROZEN = enum.auto()
    OPENING = enum.auto()
    INSPECTION = enum.auto()
    SLOW_CLIENT = enum.auto()


_NO_HOLD: Final = Hold(0)


def passes_environment(name: bytes) -> bool:
    """Say whether an environment variable may reach an asset (R26)."""
    return name in {b"TERM", b"LANG"} or name.startswith(b"LC_")


class Relay:
    """One session channel, from its opening on the asset to its end.

    `on_end` is called once with the result when both sides are done; `on_failure` at
    once when the recording cannot take what must be recorded.
    """

    input_kind = EventKind.INPUT
    output_kind = EventKind.OUTPUT

    def __init__(
        self,
        *,
        number: int,
        request: ChannelRequest,
        front: FrontChannel,
        recorder: Recorder,
        on_end: Callable[[Relay, ChannelResult], None],
        on_failure: Callable[[RecordingFailedError], None],
    ) -> None:
        self.number = number
        self.request = request
        self.typist: Typist | None = None
        self.screen: ScreenTracker | None = None
        self._lines: TerminalLines | None = None
        terminal = request.terminal
        if terminal is not None and self.has_terminal:
            self.screen = ScreenTracker()
            self._lines = TerminalLines(
                self.screen,
                term=terminal.term,
                show=self.show,
                beside=front.tell_beside if isinstance(front, TellsBeside) else None,
                redraw=self.redraw,
            )
        self._size = (
            (
                terminal.columns,
                terminal.rows,
                terminal.width_pixels,
                terminal.height_pixels,
            )
            if terminal
            else (0, 0, 0, 0)
        )
        self._front: FrontChannel | None = front
        self._guest: InputSource | None = None
        self._back: asyncssh.SSHClientChannel[bytes] | None = None
        self._recorder = recorder
        self._on_end = on_end
        self._on_failure = on_failure
        self._front_holds = _NO_HOLD
        self._back_holds = _NO_HOLD
        self._exit_status: int | None = None
        self._exit_signal: tuple[str, bool, str, str] | None = None
        self._held_signals: list[str] = []
        self._held_size: tuple[int, int, int, int] | None = None
        self._typed = 0
        self._bytes_in = 0
        self._bytes_out = 0
        self._over = False
        self._ended = False
        self._starting = False
        self._lost_early: Callable[[], None] | None = None
        self._sign_in: DeviceSignIn | None = None

    @property
    def has_terminal(self) -> bool:
        """Say whether a person looks at it: a pty, and no protocol of files on it."""
        return self.request.terminal is not None and not self.freezes_both_ways

    @property
    def full_screen(self) -> bool:
        """Say whether a program has the terminal's whole screen."""
        return self.screen is not None and self.screen.full_screen

    @property
    def activity(self) -> int:
        """Return a number that grows with what shows that somebody is there.

        On a terminal that is typing; elsewhere a byte in either direction.
        """
        if self.has_terminal:
            return self._typed
        return self._bytes_in + self._bytes_out

    @property
    def freezes_both_ways(self) -> bool:
        """Say whether a freeze holds output as well as input."""
        return self.request.kind not in {"shell", "exec"}

    @property
    def is_open(self) -> bool:
        """Say whether both ends are there."""
        return self._front is not None and self._back is not None and not self._over

    @property
    def frozen(self) -> bool:
        """Say whether input is held."""
        return Hold.FROZEN in self._front_holds

    @property
    def holds_input(self) -> bool:
        """Say whether the front may not be read, for whatever reason."""
        return bool(self._front_holds)

    async def open_back(self, connection: UpstreamConnection) -> None:
        """Open a channel on the asset as what was asked for, and relay from then on.

        Where the device has questions of its own, the gateway answers them first, and
        nobody is shown that. Raises: asyncssh.ChannelOpenError when the asset refuses;
        SignInRefusedError; RecordingFailedError.
        """
        request, terminal = self.request, self.request.terminal
        self._recorder.add(
            EventKind.OPEN,
            self.number,
            encode_open(
                request.kind,
                command=request.command,
                columns=terminal.columns if terminal else 0,
                rows=terminal.rows if terminal else 0,
                term=terminal.term if terminal else None,
            ),
        )
        channel = connection.new_session_channel(window=WINDOW, max_pktsize=MAX_PACKET)
        self._starting = True
        self._sign_in = sign_in = connection.new_sign_in()
        has_terminal = await channel.start(
            lambda: _BackSession(self),
            kind="subsystem" if request.subsystem else request.kind,
            argument=(request.subsystem or "").encode() or request.command or b"",
            environment=request.environment,
            terminal=terminal,
        )
        if not has_terminal:
            self.show(f"{NO_TERMINAL_LINE}\r\n".encode(), EXTENDED_DATA_STDERR)
        if sign_in is not None:
            prompt = await sign_in.run(channel.write)
            self._sign_in = None
            self._recorder.add(EventKind.NOTICE, self.number, SIGNED_IN_NOTICE)
            # After what the gateway itself says on a new terminal.
            asyncio.get_running_loop().call_soon(self.back_data, prompt, None)
        self._starting = False
        if self._lost_early is not None:
            # When the request to start was answered: this step answers it.
            asyncio.get_running_loop().call_soon(self._lost_early)

    def stop(self) -> None:
        """Forward nothing more in either direction; the session is being cut."""
        self._over = True
        self._forget_waiting()

    def abandon(self) -> None:
        """End without a back channel: it could not be opened."""
        self._over = True
        self._end()

    def front_data(self, data: bytes) -> None:
        """Take input."""
        if self.typist is not None:
            self._typed += 1
            data = self.typist.typed(data)
            if not data:
                return
        self.pass_typed(data)

    def seat_guest(self, source: InputSource) -> None:
        """Read from somebody else as well: the front's input is sorted out before."""
        self._guest = source
        if self._front_holds:
            source.pause_reading()

    def unseat_guest(self) -> None:
        """Read from nobody but the front."""
        source, self._guest = self._guest, None
        if source is not None and self._front_holds:
            source.resume_reading()

    def guest_data(self, data: bytes) -> None:
        """Take input of the one who types instead of the front."""
        if self._guest is not None:
            self._typed += 1
            self.pass_typed(data)

    def pass_typed(self, data: bytes) -> None:
        """Give input to the asset."""
        if self._over or not self._record(self.input_kind, data):
            return
        self._bytes_in += len(data)
        back = self._back
        if back is not None and not back.is_closing():
            back.write(data)
        if self._recorder.over_limit:
            self._hold_for_recorder(front=True)

    def front_eof(self) -> None:
        """Pass the end of input on; output may still come."""
        if self._back is not None and not self._over and self._guest is None:
            self._back.write_eof()

    def front_resized(
        self, columns: int, rows: int, width_pixels: int = 0, height_pixels: int = 0
    ) -> None:
        """Pass a new window size on, or keep the last one while frozen."""
        if self._over:
            return
        self._size = (columns, rows, width_pixels, height_pixels)
        if self.frozen:
            self._held_size = (columns, rows, width_pixels, height_pixels)
            return
        size = encode_resize(columns, rows)
        if self._record(EventKind.RESIZE, size) and self._back is not None:
            self._back.change_terminal_size(columns, rows, width_pixels, height_pixels)

    def front_signal(self, name: str) -> None:
        """Pass a signal on, or keep it while frozen; only of whoever types."""
        if self._over or self._guest is not None:
            return
        if self.frozen:
            if len(self._held_signals) < HELD_SIGNALS:
                self._held_signals.append(name)
            return
        payload = name.encode("utf-8", "replace")
        if self._record(EventKind.SIGNAL, payload) and self._back is not None:
            self._back.send_signal(name)

    def front_break(self, milliseconds: int) -> bool:
        """Pass a break on (RFC 4335); False when it cannot be."""
        if self._over or self.frozen or self._back is None or self._guest is not None:
            return False
        if not self._record(EventKind.SIGNAL, b"BREAK"):
            return False
        self._back.send_break(milliseconds)
        return True

    def front_full(self) -> None:
        """Hold the asset's output: the engineer does not take it fast enough."""
        self._hold_back(Hold.SLOW_SINK)

    def front_drained(self) -> None:
        """Let the asset's output flow again."""
        self._release_back(Hold.SLOW_SINK)

    def front_lost(self) -> None:
        """Close the back channel after what it was already given."""
        self._front = None
        if self._back is not None:
            self._back.close()
            # Nobody takes the output any more, so nothing may stay held.
            self._over = True
        else:
            self._end()

    def back_made(self, channel: asyncssh.SSHClientChannel[bytes]) -> None:
        """Know the channel on the asset."""
        self._back = channel
        if self._front is None:
            channel.close()

    def back_data(self, data: bytes, datatype: int | None) -> None:
        """Take output."""
        if self._sign_in is not None:
            self._sign_in.said(data)
            return
        if self._lines is not None and self._lines.wants_line_end:
            # A line that ends in the middle of a piece is the place for what waits.
            end = data.find(b"\r\n") + 2
            if 2 <= end < len(data):
                self._take_output(data[:end], datatype)
                data = data[end:]
        self._take_output(data, datatype)

    def _take_output(self, data: bytes, datatype: int | None) -> None:
        if self._over:
            return
        kind = self.output_kind if datatype is None else EventKind.STDERR
        if not self._record(kind, data):
            return
        self._bytes_out += len(data)
        front = self._front
        if front is not None and not front.is_closing():
            front.write(data, datatype)
        if self.screen is not None:
            self.screen.feed(data)
            if self._lines is not None and self._lines.waits:
                self._lines.passed()
        if self._recorder.over_limit:
            self._hold_for_recorder(front=False)

    def back_eof(self) -> None:
        """Pass the end of output on; input may still flow."""
        if self._front is not None and not self._over:
            self._front.write_eof()

    def back_exit_status(self, status: int) -> None:
        """Keep the status until the channel has delivered everything."""
        self._exit_status = status

    def back_exit_signal(
        self, signal: str, core_dumped: bool, message: str, language: str
    ) -> None:
        """Keep the signal until the channel has delivered everything."""
        self._exit_signal = (signal, core_dumped, message, language)

    def back_full(self) -> None:
        """Hold the engineer's input: the asset does not take it fast enough."""
        self._hold_front(Hold.SLOW_SINK)

    def back_drained(self) -> None:
        """Let the engineer's input flow again."""
        self._release_front(Hold.SLOW_SINK)

    def back_lost(self, *, torn: bool) -> None:
        """Report how it ended: all output has been delivered by now.

        asyncssh calls this after held data; forwarding the exit status when it arrives
        would cut off the output that is still held back. `torn`: the whole connection
        went, so that without a status this is no normal end.
        """
        self._back = None
        if self._sign_in is not None:
            self._sign_in.lost()
        if self._starting:
            # It may have ended well before it answered that it began.
            self._lost_early = partial(self.back_lost, torn=torn)
            return
        if not self._over:
            # The window gets its title back before its channel closes.
            self._forget_waiting()
        if torn and self._exit_status is None and self._exit_signal is None:
            if not self._over:
                self.say_last(TARGET_LOST_LINE)
            self._exit_status = TARGET_LOST_STATUS
        front, self._front = self._front, None
        if front is not None and not self._over:
            if self._exit_signal is not None:
                front.exit_with_signal(*self._exit_signal)
            elif self._exit_status is not None:
                front.exit(self._exit_status)
            else:
                front.close()
        self._end()

    def freeze(self) -> None:
        """Hold input by flow control; nothing is lost.

        Output of terminals and commands flows on, as a command that cannot write stops
        half-way. Files and forwards are held both ways: there is nobody to read them.
        """
        self._hold_front(Hold.FROZEN)
        if self.freezes_both_ways:
            self._hold_back(Hold.FROZEN)

    def unfreeze(self) -> None:
        """Let input flow again, the last size and the kept signals first."""
        if not self.frozen:
            return
        self._front_holds &= ~Hold.FROZEN
        self._release_back(Hold.FROZEN)
        size, self._held_size = self._held_size, None
        if size is not None:
            self.front_resized(*size)
        signals, self._held_signals = self._held_signals, []
        for name in signals:
            self.front_signal(name)
        if not self._front_holds:
            self._resume_input()

    def tell(self, line: str) -> None:
        """Show one line now, where there is a terminal.

        Only terminals get it: the output of a command belongs to whoever parses it.
        """
        if self._lines is not None:
            self._lines.tell(line)

    def warn(self, line: str, *, patience: float) -> None:
        """Show one line on a terminal when it disturbs least, but not too late."""
        if self._lines is not None:
            self._lines.warn(line, patience=patience)

    def note_last(self, text: str) -> None:
        """Put the reason for the end into the recording; the client knows it."""
        with suppress(RecordingFailedError):
            self._recorder.add(
                EventKind.NOTICE, self.number, f"\r\n{plain(text)}\r\n".encode()
            )

    def say_last(self, text: str) -> None:
        """Show the reason for the end: on the terminal, or on standard error."""
        text = plain(text)
        if self.screen is not None:
            cut = b"" if self.screen.at_boundary else CANCEL
            leave = b"\x1b[?1049l\x1b[?25h\x1b[0m" if self.full_screen else b""
            self.show(cut + leave + f"\r\n{text}\r\n".encode())
        else:
            self.show(f"{text}\n".encode(), EXTENDED_DATA_STDERR)

    def show(self, data: bytes, datatype: int | None = None) -> None:
        """Put bytes of our own on the screen, and into the recording as ours."""
        front = self._front
        if front is None or front.is_closing():
            return
        # Our own words are shown even when they can no longer be recorded: that may be
        # what they say.
        with suppress(RecordingFailedError):
            self._recorder.add(EventKind.NOTICE, self.number, data)
        front.write(data, datatype)

    def mark(self, label: str) -> None:
        """Put a mark into the recording."""
        self._record(EventKind.MARK, label.encode("utf-8", "replace"))

    def redraw(self) -> None:
        """Make a full-screen program draw anew: one row less, and back.

        Nothing is typed for it; a program that heeds no window size is left alone.
        """
        columns, rows, width, height = self._size
        if rows < 2 or self.frozen or self._over or self._back is None:
            return
        self.mark("the program was made to draw anew")
        self._back.change_terminal_size(columns, rows - 1, width, height)
        asyncio.get_running_loop().call_later(REDRAW_SECONDS, self._size_back)

    def _size_back(self) -> None:
        if not self._over and self._back is not None:
            self._back.change_terminal_size(*self._size)

    def _record(self, kind: EventKind, data: bytes) -> bool:
        """Record, or stop everything; the caller forwards only after True."""
        try:
            self._recorder.add(kind, self.number, data)
        except RecordingFailedError as failure:
            self._over = True
            self._on_failure(failure)
            return False
        return True

    def _forget_waiting(self) -> None:
        if self.typist is not None:
            self.typist.stop()
        if self._lines is not None:
            self._lines.stop()

    def _hold_for_recorder(self, *, front: bool) -> None:
        holds = self._front_holds if front else self._back_holds
        if Hold.RECORDER in holds:
            return
        if front:
            self._hold_front(Hold.RECORDER)
            self._recorder.on_drained(lambda: self._release_front(Hold.RECORDER))
        else:
            self._hold_back(Hold.RECORDER)
            self._recorder.on_drained(lambda: self._release_back(Hold.RECORDER))

    def _pause_input(self) -> None:
        for source in (self._front, self._guest):
            if source is not None:
                source.pause_reading()

    def _resume_input(self) -> None:
        for source in (self._front, self._guest):
            if source is not None:
                source.resume_reading()

    def _hold_front(self, why: Hold) -> None:
        if not self._front_holds:
            self._pause_input()
        self._front_holds |= why

    def _release_front(self, why: Hold) -> None:
        if why not in self._front_holds:
            return
        self._front_holds &= ~why
        if not self._front_holds:
            self._resume_input()

    def _hold_back(self, why: Hold) -> None:
        if not self._back_holds and self._back is not None:
            self._back.pause_reading()
        self._back_holds |= why

    def _release_back(self, why: Hold) -> None:
        if why not in self._back_holds:
            return
        self._back_holds &= ~why
        if not self._back_holds and self._back is not None:
            self._back.resume_reading()

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = self._over = True
        self._forget_waiting()
        signal = self._exit_signal[0] if self._exit_signal else ""
        closed = encode_close(
            exit_status=self._exit_status,
            exit_signal=signal or None,
            bytes_in=self._bytes_in,
            bytes_out=self._bytes_out,
        )
        self._record(EventKind.CLOSE, closed)
        self._on_end(
            self,
            ChannelResult(
                exit_status=self._exit_status,
                exit_signal=signal,
                bytes_in=self._bytes_in,
                bytes_out=self._bytes_out,
            ),
        )


class _BackSession(asyncssh.SSHClientSession[bytes]):
    """Hands the callbacks of the asset's channel to the relay."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._channel: AssetChannel | None = None

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        self._channel = cast(AssetChannel, chan)
        self._relay.back_made(chan)

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self._relay.back_data(data, datatype)

    def eof_received(self) -> bool:
        self._relay.back_eof()
        return True

    def exit_status_received(self, status: int) -> None:
        self._relay.back_exit_status(status)

    def exit_signal_received(
        self, signal: str, core_dumped: bool, msg: str, lang: str
    ) -> None:
        self._relay.back_exit_signal(signal, core_dumped, msg, lang)

    def pause_writing(self) -> None:
        self._relay.back_full()

    def resume_writing(self) -> None:
        self._relay.back_drained()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._relay.back_lost(torn=self._channel is not None and self._channel.torn)
