"""A target that runs real programs on a pty, as a host with a shell does."""

import asyncio
import fcntl
import os
import pty
import shutil
import struct
import subprocess
import termios
from contextlib import AbstractAsyncContextManager

import asyncssh

from tests.targets import Target, ssh_target


def program_target(command: list[str]) -> AbstractAsyncContextManager[Target]:
    """Every session runs `command` on a pty of the size the client has."""

    async def run(target: Target, process: asyncssh.SSHServerProcess[bytes]) -> None:
        near, far = pty.openpty()
        _resize(near, *process.term_size[:2])
        child = subprocess.Popen(  # noqa: ASYNC220 - it begins at once
            command,
            stdin=far,
            stdout=far,
            stderr=far,
            env={"TERM": process.term_type or "vt100", "PATH": os.environ["PATH"],
                 "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(far)
        os.set_blocking(near, False)
        loop = asyncio.get_running_loop()
        ended = loop.create_future()

        def to_client() -> None:
            try:
                data = os.read(near, 65536)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if data:
                process.stdout.write(data)
            else:
                loop.remove_reader(near)
                ended.set_result(None)

        loop.add_reader(near, to_client)
        typing = asyncio.create_task(_type(target, process, near))
        try:
            await asyncio.wait({ended, typing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_reader(near)
            typing.cancel()
            os.close(near)
            # No waiting here that a loop which stops would leave undone.
            child.kill()
            status = child.wait()
        process.exit(max(0, status))

    return ssh_target(run)


async def _type(
    target: Target, process: asyncssh.SSHServerProcess[bytes], near: int
) -> None:
    while not process.stdin.at_eof():
        try:
            data = await process.stdin.read(4096)
        except asyncssh.TerminalSizeChanged as change:
            target.sizes.append((change.width, change.height))
            _resize(near, change.width, change.height)
            continue
        target.received += data
        os.write(near, data)


def _resize(pty_end: int, columns: int, rows: int) -> None:
    fcntl.ioctl(pty_end, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def found(name: str) -> bool:
    """Say whether this machine has a program."""
    return shutil.which(name) is not None
