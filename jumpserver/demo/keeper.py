"""Run one command and let nothing of it outlive whoever started this keeper.

sshd gives every connection a session and process group of its own, so neither a
process group nor a death signal on sshd alone reaches them: after `kill -9` of the
demo they would live on. The keeper therefore adopts orphans (prctl
PR_SET_CHILD_SUBREAPER) and kills every descendant when it is told to stop or when its
standard input, a pipe from its starter, comes to its end.

Run by path with only the standard library: `python -I -S keeper.py COMMAND...`
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
PR_SET_CHILD_SUBREAPER = 36
GIVE_UP_SECONDS = 5.0


def descendants(root: int) -> list[int]:
    """Return the process ids below `root`, from the parents named in /proc."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                # The command name may hold blanks and brackets: proc(5), stat.
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = int(fields[1])
    below: list[int] = []
    wanted = {root}
    while wanted:
        wanted = {child for child, parent in parents.items() if parent in wanted}
        below.extend(wanted)
    return below


def end_descendants() -> None:
    """Kill and reap every descendant; those they forked meanwhile, too."""
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while time.monotonic() < deadline:
        for process in descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        try:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.005)
        except ChildProcessError:
            return


def keep(command: list[str]) -> int:
    """Run `command` until it ends, a stop signal, or the end of standard input.

    Returns the exit status of the command, or 0 after a wanted stop.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)

    def die_with_keeper() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    child = subprocess.Popen(  # noqa: S603 - the demo names the command
        command,
        stdin=subprocess.DEVNULL,
        preexec_fn=die_with_keeper,
    )
    try:
        while True:
            ready, _, _ = select.select([0, reading], [], [])
            if 0 in ready and not os.read(0, 4096):
                return 0
            if reading not in ready:
                continue
            if set(os.read(reading, 4096)) - {signal.SIGCHLD}:
                return 0
            status = child.poll()
            if status is not None:
                return status if status >= 0 else 128 - status
            _reap_orphans(child.pid)
    finally:
        end_descendants()


def _reap_orphans(child: int) -> None:
    """Collect adopted processes that ended, and leave `child` to its Popen."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid == child:
            return
        os.waitpid(ended.si_pid, 0)


if __name__ == "__main__":
    sys.exit(keep(sys.argv[1:]))
