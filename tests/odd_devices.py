"""Devices as they are: consoles that ask for a password themselves, odd channels.

Each is an async context manager that yields a `tests.targets.Target`, for
`in_background`.
"""

import asyncio
import contextlib
import dataclasses
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncssh
from asyncssh.channel import SSHServerChannel
from asyncssh.constants import (
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_FAILURE,
    MSG_CHANNEL_REQUEST,
    MSG_CHANNEL_WINDOW_ADJUST,
    MSG_GLOBAL_REQUEST,
    MSG_REQUEST_FAILURE,
    MSG_REQUEST_SUCCESS,
)
from asyncssh.packet import SSHPacket, String, UInt32

from jumpserver.demo.ssh_target import (
    LOOPBACK,
    TargetProcess,
    TrackedServer,
    end_all,
    listen,
)
from tests.targets import LOGIN, Target, ssh_target

Process = asyncssh.SSHServerProcess[bytes]


@dataclass(kw_only=True)
class Console:
    """How a device's own sign-in on its terminal goes."""

    greeting: bytes = b"\r\nUser Access Verification\r\n\r\n"
    asks_name: bytes = b"Username: "
    asks_password: bytes = b"Password: "
    prompt: bytes = b"sw01>"
    elevated: bytes = b"sw01#"
    echoes_password: bool = False
    expired: bool = False
    wrong: bytes = b"% Login invalid\r\n\r\n"
    signed_in: list[str] = dataclasses.field(default_factory=list)


class _OpenServer(asyncssh.SSHServer):
    """Lets anybody in (RFC 4252 5.2, method `none`)."""

    def __init__(
        self,
        target: Target,
        connections: set[asyncssh.SSHServerConnection],
        program: Callable[[Process], Awaitable[None]],
    ) -> None:
        self._target, self._connections = target, connections
        self._program = program

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._connections.add(conn)
        self._target.connections += 1

    def connection_lost(self, _: Exception | None) -> None:
        self._connections.discard(self._connection)

    def begin_auth(self, _: str) -> bool:
        return False

    def session_requested(self) -> TargetProcess:
        self._target.sessions += 1

        async def run(process: Process) -> None:
            with contextlib.suppress(OSError, asyncssh.ConnectionLost, EOFError):
                await self._program(process)

        return TargetProcess(run, allows_exec=False)


@asynccontextmanager
async def console_device(console: Console) -> AsyncIterator[Target]:
    """A switch whose SSH lets anybody in and whose terminal asks."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    target = Target(
        port=0,
        host_key=key.export_public_key("openssh").decode().strip(),
        password=secrets.token_urlsafe(12),
    )
    connections: set[asyncssh.SSHServerConnection] = set()
    acceptor = await listen(
        0,
        lambda: _OpenServer(
            target, connections, lambda process: _console(target, console, process)
        ),
        key,
    )
    target.port = acceptor.get_port()
    try:
        yield target
    finally:
        await end_all(acceptor, connections)


async def _console(target: Target, console: Console, process: Process) -> None:
    process.stdout.write(console.greeting)
    for _ in range(3):
        name = b""
        if console.asks_name:
            name = await _line(process, console.asks_name, echo=True)
        password = await _line(
            process, console.asks_password, echo=console.echoes_password
        )
        if password.decode() == target.password and name.decode() in {"", LOGIN}:
            break
        process.stdout.write(console.wrong)
    else:
        process.stdout.write(b"% Too many failures\r\n")
        process.exit(1)
        return
    if console.expired:
        process.stdout.write(b"Your password has expired.\r\n")
        await _line(process, b"New password: ", echo=False)
        process.exit(1)
        return
    console.signed_in.append(name.decode())
    process.stdout.write(b"\r\nLast failed login: never\r\n")
    await _commands(target, console, process)


async def _commands(target: Target, console: Console, process: Process) -> None:
    prompt = console.prompt
    while True:
        command = await _line(process, prompt, echo=True)
        if command == b"enable":
            answer = await _line(process, b"Password: ", echo=False)
            if answer.decode() == target.password:
                prompt = console.elevated
            else:
                process.stdout.write(b"% Access denied\r\n")
        elif command == b"password":
            await _change_password(target, process)
        elif command == b"exit":
            process.exit(0)
            return
        elif command:
            process.stdout.write(b"you said " + command + b"\r\n")


async def _change_password(target: Target, process: Process) -> None:
    current = await _line(process, b"Current password: ", echo=False)
    new = await _line(process, b"New password: ", echo=False)
    again = await _line(process, b"Confirm new password: ", echo=False)
    if current.decode() == target.password and new == again:
        target.password = new.decode()
        process.stdout.write(b"Password changed\r\n")
    else:
        process.stdout.write(b"% Password not changed\r\n")


async def _line(process: Process, prompt: bytes, *, echo: bool) -> bytes:
    """Ask and return the line, as a terminal without line editing does it."""
    process.stdout.write(prompt)
    line = b""
    while True:
        try:
            piece = await process.stdin.read(1)
        except asyncssh.TerminalSizeChanged:
            continue
        if not piece:
            raise EOFError
        if piece in b"\r\n":
            process.stdout.write(b"\r\n")
            return line
        line += piece
        if echo:
            process.stdout.write(piece)


Quirk = Callable[["OddChannel"], None]


class OddChannel(SSHServerChannel[bytes]):
    """A session channel with one habit of `HABITS`. It echoes what comes."""

    habit = ""

    def _reply(self, pkttype: int) -> None:
        self.send_packet(pkttype)

    def _process_env_request(self, packet: SSHPacket) -> bool:
        if self.habit == "answers env":
            self._reply(MSG_CHANNEL_FAILURE)
        return super()._process_env_request(packet)

    def _process_window_change_request(self, packet: SSHPacket) -> bool:
        if self.habit == "answers window-change":
            self._reply(MSG_CHANNEL_FAILURE)
        if self.habit == "answers window-change":
            packet.get_remaining_payload()
            return False
        return super()._process_window_change_request(packet)

    def _process_pty_req_request(self, packet: SSHPacket) -> bool:
        if self.habit == "refuses pty":
            return False
        return super()._process_pty_req_request(packet)

    def _report_response(self, result: bool) -> None:
        request = self._request_queue[0][0]
        starts = request in {"shell", "exec"}
        if starts and self.habit == "speaks first":
            self.send_packet(MSG_CHANNEL_DATA, String(b"first\r\n"))
            self._send_window -= 7
        if starts and self.habit == "never answers":
            name, packet, _ = self._request_queue[0]
            self._request_queue[0] = (name, packet, False)
            self.send_packet(MSG_CHANNEL_DATA, String(b"no answer\r\n"))
            self._send_window -= 11
        super()._report_response(result)

    def exit(self, status: int) -> None:
        if self.habit == "no status":
            self.close()
            return
        if self.habit == "two statuses":
            self.send_packet(
                MSG_CHANNEL_REQUEST, String("exit-status"), b"\0", UInt32(9)
            )
        super().exit(status)


HABITS = (
    "answers env",
    "answers window-change",
    "refuses pty",
    "refuses exec",
    "speaks first",
    "never answers",
    "no status",
    "two statuses",
    "ignores keepalives",
    "answers keepalives twice",
    "answers keepalives on a channel",
)


def odd_channels(habit: str) -> contextlib.AbstractAsyncContextManager[Target]:
    """A device with one odd habit: echoes lines, `exit N` ends."""
    return _odd(habit)


@asynccontextmanager
async def _odd(habit: str) -> AsyncIterator[Target]:
    key = asyncssh.generate_private_key("ssh-ed25519")
    target = Target(
        port=0,
        host_key=key.export_public_key("openssh").decode().strip(),
        password=secrets.token_urlsafe(12),
    )
    connections: set[asyncssh.SSHServerConnection] = set()

    class Server(_OpenServer):
        def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
            super().connection_made(conn)
            _teach(conn, habit)

        def begin_auth(self, _: str) -> bool:
            return True

        def password_auth_supported(self) -> bool:
            return True

        def validate_password(self, username: str, password: str) -> bool:
            return (username, password) == (LOGIN, target.password)

        def session_requested(self) -> Any:
            session = TargetProcess(_echo_lines, allows_exec=habit != "refuses exec")
            connection = self._connection
            channel = OddChannel(
                connection,
                asyncio.get_running_loop(),
                allow_pty=True,
                line_editor=False,
                line_echo=False,
                line_history=0,
                max_line_length=0,
                encoding=None,
                errors="strict",
                window=1 << 16,
                max_pktsize=1 << 15,
            )
            channel.habit = habit
            return channel, session

    acceptor = await listen(0, lambda: Server(target, connections, _echo_lines), key)
    target.port = acceptor.get_port()
    try:
        yield target
    finally:
        await end_all(acceptor, connections)


def _teach(connection: asyncssh.SSHServerConnection, habit: str) -> None:
    """Change how one connection answers global requests."""

    def answer(own: Any, _type: int, _id: int, packet: SSHPacket) -> None:
        packet.get_remaining_payload()
        if habit == "answers keepalives twice":
            own.send_packet(MSG_REQUEST_SUCCESS)
            own.send_packet(MSG_REQUEST_FAILURE)
        elif habit == "answers keepalives on a channel":
            own.send_packet(MSG_CHANNEL_FAILURE, UInt32(0))
            own.send_packet(MSG_CHANNEL_WINDOW_ADJUST, UInt32(77), UInt32(5))

    if "keepalives" in habit:
        connection._packet_handlers = {
            **type(connection)._packet_handlers,
            MSG_GLOBAL_REQUEST: answer,
        }


async def _echo_lines(process: Process) -> None:
    command = (process.command or "").encode()
    if command:
        process.stdout.write(command + b"\n")
        process.exit(0)
        return
    line = b""
    while True:
        try:
            piece = await process.stdin.read(1)
        except asyncssh.TerminalSizeChanged as change:
            process.stdout.write(b"size %d %d\r\n" % (change.width, change.height))
            continue
        if not piece:
            process.exit(0)
            return
        line += piece
        if piece not in b"\r\n":
            continue
        if line.startswith(b"exit"):
            process.exit(int(line.split()[1]))
            return
        process.stdout.write(b"echo " + line.strip() + b"\r\n")
        line = b""


class _AsksByPrompts(TrackedServer):
    """Asks sets of prompts, one after the other; the password must be in one."""

    def __init__(
        self,
        target: Target,
        connections: set[asyncssh.SSHServerConnection],
        rounds: Sequence[Any],
    ) -> None:
        super().__init__(connections)
        self._target, self._rounds = target, list(rounds)
        self._was_right = False

    def password_auth_supported(self) -> bool:
        return False

    def kbdint_auth_supported(self) -> bool:
        return True

    def get_kbdint_challenge(self, *_: Any) -> Any:
        return self._rounds.pop(0) if self._rounds else False

    def validate_kbdint_response(self, username: str, responses: Sequence[str]) -> Any:
        self._was_right |= self._target.password in responses
        if self._rounds:
            return self._rounds.pop(0)
        return self._was_right and username == LOGIN

    def session_requested(self) -> TargetProcess:
        self._target.sessions += 1

        async def program(process: Process) -> None:
            process.stdout.write((process.command or "").encode() + b"\n")
            process.exit(0)

        return TargetProcess(program)


@asynccontextmanager
async def prompting_target(rounds: Sequence[Any]) -> AsyncIterator[Target]:
    """A target that asks by keyboard-interactive: (name, text, lang, prompts) each."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    target = Target(
        port=0,
        host_key=key.export_public_key("openssh").decode().strip(),
        password=secrets.token_urlsafe(12),
    )
    connections: set[asyncssh.SSHServerConnection] = set()
    acceptor = await listen(0, lambda: _AsksByPrompts(target, connections, rounds), key)
    target.port = acceptor.get_port()
    try:
        yield target
    finally:
        await end_all(acceptor, connections)


@asynccontextmanager
async def behind(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], Awaitable[None]],
    **options: Any,
) -> AsyncIterator[Target]:
    """An echo target behind `serve`, which gets the real port."""

    async def program(_: Target, process: Process) -> None:
        await _echo_lines(process)

    async with ssh_target(program, **options) as inner:
        writers: set[asyncio.StreamWriter] = set()

        async def accept(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            writers.add(writer)
            try:
                with contextlib.suppress(OSError):
                    await serve(reader, writer, inner.port)
            finally:
                writers.discard(writer)
                writer.close()

        front = await asyncio.start_server(accept, LOOPBACK, 0)
        outer = dataclasses.replace(inner, port=front.sockets[0].getsockname()[1])
        try:
            yield outer
        finally:
            front.close()
            for writer in list(writers):
                writer.transport.abort()
            await front.wait_closed()


async def passing(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    port: int,
    *,
    before: Sequence[bytes] = (),
    piece: int = 65536,
    thinks: float = 0,
) -> None:
    """Pass bytes on; `before` is sent first, and output goes out `piece` by piece.

    `thinks` is how long it takes with the first thing it is sent, in seconds.
    """
    there_reader, there_writer = await asyncio.open_connection(LOOPBACK, port)
    for line in before:
        writer.write(line)

    first = await reader.read(65536)
    await asyncio.sleep(thinks)
    there_writer.write(first)

    async def pump(
        source: asyncio.StreamReader, sink: asyncio.StreamWriter, size: int
    ) -> None:
        while data := await source.read(65536):
            for start in range(0, len(data), size):
                sink.write(data[start : start + size])
                await sink.drain()
                await asyncio.sleep(0)
        sink.close()

    try:
        await asyncio.gather(
            pump(reader, there_writer, 65536), pump(there_reader, writer, piece)
        )
    finally:
        there_writer.close()
