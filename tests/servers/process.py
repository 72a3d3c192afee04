"""Start a server that cannot outlive the test run, and wait until it answers."""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

STARTS_WITHIN_SECONDS = 30.0


class ServerDidNotStartError(RuntimeError):
    """The server ended, or stayed silent; the message holds the end of its log."""


_LOWEST_PORT = 10_240
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on at this moment.

    Not one that the kernel gives to outgoing connections: a server that is started
    again must find its port free, whatever other tests do meanwhile.
    """
    end = int(_EPHEMERAL.read_text().split()[0]) if _EPHEMERAL.exists() else 32_768
    while True:
        port = _LOWEST_PORT + secrets.randbelow(max(end - _LOWEST_PORT, 1000))
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def heed_interrupts() -> None:
    """Let SIGINT end this process and what it starts, also when it was started in the
    background of a script, where shells have it ignored. For the main thread."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def as_user(command: list[str], user: str | None = None) -> list[str]:
    """Return `command` so that it runs as `user` and dies with this process.

    `user` is an account name and needs root; None stays with the calling user. A test
    run that is killed leaves nothing behind: the kernel sends the server SIGINT.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return command
    prefix = [setpriv, "--pdeathsig", "INT"]
    if user is not None:
        account = pwd.getpwnam(user)
        prefix += [f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}"]
        prefix += ["--clear-groups"]
    return [*prefix, "--", *command]


def start(
    command: list[str],
    *,
    log: Path,
    answers: Callable[[], bool],
    environment: dict[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start `command`, output to `log`, and return when `answers()` is true.

    Raises ServerDidNotStartError when it ends first or is silent for 30 seconds.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            cwd="/",
        )
    deadline = time.monotonic() + STARTS_WITHIN_SECONDS
    while not answers():
        if process.poll() is not None or time.monotonic() > deadline:
            stop(process)
            tail = log.read_text(errors="replace")[-2000:]
            raise ServerDidNotStartError(f"{command[-1]} did not start:\n{tail}")
        time.sleep(0.02)
    return process


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and wait for it: SIGINT first, SIGKILL after ten seconds."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
