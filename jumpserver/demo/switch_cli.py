"""The command line of the old switch: a small dialogue in the manner of its time.

Bytes in, bytes out, lines end in CR LF, and what is typed is echoed by the switch
itself, passwords excepted.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import asyncssh

NAME = "switch-old-01"
PAGE_LINES = 24
LONGEST_LINE = 254
SHORTEST_PASSWORD, LONGEST_PASSWORD = 8, 64
HIGHEST_VLAN = 4094
INVALID = "% Invalid input"

CheckPassword = Callable[[str], Awaitable[bool]]
StorePassword = Callable[[str], Awaitable[None]]


class Hangup(Exception):  # noqa: N818 - the field's word for a lost line
    """The person at the other end is gone or ended the line."""


class Interrupted(Exception):  # noqa: N818 - not an error: Ctrl-C was typed
    """Ctrl-C: give up the current line or dialogue."""


@dataclass
class SwitchState:
    """What the switch knows besides its password; lost at power-off, as then."""

    booted: float = field(default_factory=time.monotonic)
    vlans: dict[int, str] = field(
        default_factory=lambda: {1: "default", 10: "PROCESS", 20: "CCTV"}
    )


class Line:
    """One terminal line: keys, edited input, paged output."""

    def __init__(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        self._process = process
        self._waiting = b""
        self._after_return = False

    async def write(self, text: str) -> None:
        """Send `text`; every LF becomes CR LF."""
        self._process.stdout.write(
            text.replace("\n", "\r\n").encode("latin-1", "replace")
        )
        await self._process.stdout.drain()

    async def read_key(self) -> int:
        """Return the next byte typed; raises Hangup at the end of input."""
        while not self._waiting:
            try:
                self._waiting = await self._process.stdin.read(4096)
            except (asyncssh.TerminalSizeChanged, asyncssh.BreakReceived):
                continue
            except asyncssh.SignalReceived as signal:
                if signal.signal == "INT":
                    raise Interrupted from signal
                raise Hangup from signal
            if not self._waiting:
                raise Hangup
        key, self._waiting = self._waiting[0], self._waiting[1:]
        return key

    async def read_line(self, prompt: str, *, is_echoed: bool = True) -> str:
        """Prompt and return one edited line (latin-1, at most 254 characters).

        Raises: Interrupted at Ctrl-C, Hangup at Ctrl-D on an empty line.
        """
        await self.write(prompt)
        typed = bytearray()
        in_escape = False
        while True:
            key = await self.read_key()
            if self._after_return and key == 0x0A:
                self._after_return = False
                continue
            self._after_return = key == 0x0D
            if in_escape:
                in_escape = not (0x40 <= key <= 0x7E and key not in b"[O")
            elif key in (0x0D, 0x0A):
                await self.write("\n")
                return typed.decode("latin-1")
            elif key == 0x03:
                raise Interrupted
            elif key == 0x04 and not typed:
                raise Hangup
            elif key == 0x1A and not is_echoed:
                raise Interrupted
            elif key == 0x1A:  # Ctrl-Z: back to the top, as "end" does
                await self.write("^Z\n")
                return "end"
            elif key == 0x1B:
                in_escape = True
            elif key in (0x08, 0x7F):
                if typed:
                    del typed[-1]
                    await self._echo(b"\b \b", is_echoed)
            elif key == 0x15:  # Ctrl-U
                await self._echo(b"\b \b" * len(typed), is_echoed)
                typed.clear()
            elif key >= 0x20 and len(typed) < LONGEST_LINE:
                typed.append(key)
                await self._echo(bytes([key]), is_echoed)
            elif key >= 0x20:
                await self._echo(b"\a", is_echoed)

    async def _echo(self, content: bytes, is_echoed: bool) -> None:
        if is_echoed and content:
            self._process.stdout.write(content)
            await self._process.stdout.drain()

    async def show_paged(self, lines: list[str]) -> None:
        """Print `lines`, stopping at `--More--` before a page of 24 overflows.

        Space shows a page, Return one line, q or Ctrl-C ends the listing.
        """
        room = PAGE_LINES - 1
        for line in lines:
            if room == 0:
                room = await self._ask_more()
                if room == 0:
                    return
            await self.write(f"{line}\n")
            room -= 1

    async def _ask_more(self) -> int:
        """Return how many more lines may be shown; 0 ends the listing."""
        await self.write(" --More-- ")
        try:
            while True:
                key = await self.read_key()
                if key in b" ":
                    return PAGE_LINES - 1
                if key in b"\r\n":
                    self._after_return = key == 0x0D
                    return 1
                if key in b"qQ\x03":
                    return 0
        finally:
            await self.write("\r" + " " * 10 + "\r")


class SwitchCli:
    """The dialogue of one person with the switch."""

    def __init__(
        self,
        line: Line,
        state: SwitchState,
        *,
        check_password: CheckPassword,
        store_password: StorePassword,
    ) -> None:
        self._line = line
        self._state = state
        self._check_password = check_password
        self._store_password = store_password
        self._mode = ""
        self._vlan = 0

    async def run(self) -> None:
        """Talk until `exit`, the end of input, or Hangup."""
        await self._line.write(f"\n{NAME}  access switch, authorized use only\n\n")
        while True:
            try:
                command = await self._line.read_line(f"{NAME}{self._mode}#")
                if not await self._obey(command.strip()):
                    return
            except Interrupted:
                await self._line.write("^C\n")
            except Hangup:
                return

    async def _obey(self, command: str) -> bool:
        """Carry out one command; False ends the session."""
        words = command.split()
        if not words:
            return True
        if self._mode:
            return await self._configure(words)
        if _matches(words, "exit") or _matches(words, "logout"):
            return False
        if _matches(words, "show", "version"):
            await self._line.show_paged(self._version())
        elif _matches(words, "show", "interfaces"):
            await self._line.show_paged(self._interfaces())
        elif _matches(words, "show", "vlan"):
            await self._line.show_paged(self._vlans())
        elif _matches(words, "configure", "terminal"):
            await self._line.write("Enter configuration commands, end with END.\n")
            self._mode = "(config)"
        elif words == ["password"]:
            await self._change_password()
        elif words[0] == "ping":
            await self._line.write("% Ping is not permitted on this device\n")
        elif words[0] in ("?", "help"):
            await self._line.show_paged(_HELP)
        elif words != ["end"]:
            await self._line.write(f"{INVALID}\n")
        return True

    async def _configure(self, words: list[str]) -> bool:
        if _matches(words, "end"):
            self._mode = ""
        elif _matches(words, "exit"):
            self._mode = "(config)" if self._mode == "(config-vlan)" else ""
        elif len(words) == 2 and _matches(words[:1], "vlan"):
            await self._enter_vlan(words[1])
        elif (
            len(words) == 2
            and _matches(words[:1], "name")
            and self._mode == "(config-vlan)"
        ):
            self._state.vlans[self._vlan] = words[1][:32]
        else:
            await self._line.write(f"{INVALID}\n")
        return True

    async def _enter_vlan(self, number: str) -> None:
        if not (number.isascii() and number.isdigit() and len(number) <= 4):
            await self._line.write(f"{INVALID}\n")
            return
        vlan = int(number)
        if not 1 <= vlan <= HIGHEST_VLAN:
            await self._line.write(f"{INVALID}\n")
            return
        self._vlan = vlan
        self._state.vlans.setdefault(vlan, f"VLAN{vlan:04d}")
        self._mode = "(config-vlan)"

    async def _change_password(self) -> None:
        """Change the password in-band: current, new and confirmation, unechoed."""
        current = await self._line.read_line("Current password: ", is_echoed=False)
        new = await self._line.read_line("New password: ", is_echoed=False)
        confirmed = await self._line.read_line("Confirm: ", is_echoed=False)
        if not await self._check_password(current):
            await self._line.write("% Current password is wrong\n")
        elif new != confirmed:
            await self._line.write("% Passwords do not match\n")
        elif not SHORTEST_PASSWORD <= len(new) <= LONGEST_PASSWORD or not all(
            " " < character <= "~" for character in new
        ):
            await self._line.write(
                f"% Password: {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} "
                "printable characters without blanks\n"
            )
        else:
            await self._store_password(new)
            await self._line.write("Password changed.\n")

    def _uptime(self) -> str:
        minutes = int(time.monotonic() - self._state.booted) // 60
        return f"{minutes // 60} hours, {minutes % 60} minutes"

    def _version(self) -> list[str]:
        return [
            f"{NAME} software, version 12.1(22), release 2004-11-30",
            "SSH server version 2, algorithms of 2004",
            f"uptime is {self._uptime()}",
            "24 FastEthernet interfaces, 2 GigabitEthernet interfaces",
            "Configuration register is 0xF",
        ]

    def _interfaces(self) -> list[str]:
        seconds = int(time.monotonic() - self._state.booted)
        lines = [
            "Port      Name          Status        Vlan  Duplex  Speed     In pkts"
        ]
        for number in range(1, 27):
            port = f"Fa0/{number}" if number <= 24 else f"Gi0/{number - 24}"
            is_up = number % 3 != 0
            name = _PORT_NAMES.get(number, "")
            vlan = 20 if number in (7, 8) else 10 if is_up else 1
            status = "connected" if is_up else "notconnect"
            speed = "1000" if number > 24 else "100"
            packets = (seconds + 3600) * (number * 7 % 23 + 1) if is_up else 0
            lines.append(
                f"{port:<9} {name:<13} {status:<13} {vlan:<5} {'full':<7} "
                f"{speed:<6} {packets:>10}"
            )
        return lines

    def _vlans(self) -> list[str]:
        lines = ["VLAN  Name                              Status", "-" * 48]
        for number, name in sorted(self._state.vlans.items()):
            lines.append(f"{number:<5} {name:<33} active")
        return lines


_PORT_NAMES = {1: "PLC-A", 2: "PLC-B", 4: "HMI-PUMP-01", 5: "HISTORIAN", 7: "CAM-1"}
_HELP = [
    "  configure terminal   enter configuration mode",
    "  exit                 end the session",
    "  password             change your password",
    "  show interfaces      interface table",
    "  show version         hardware and software",
    "  show vlan            VLAN table",
]


def _matches(words: list[str], *command: str) -> bool:
    """Return True if `words` abbreviate `command`, at least two letters each."""
    return len(words) == len(command) and all(
        len(word) >= 2 and full.startswith(word.lower())
        for word, full in zip(words, command, strict=True)
    )
