"""Run a command that must not outlive the process that started it.

`python -I -S leash.py PARENT [--terminal] COMMAND...` asks the kernel for SIGKILL at
the death of its parent (prctl(2), PR_SET_PDEATHSIG) and becomes the command; the wish
survives the exec. With --terminal, standard input becomes its controlling terminal.
Done here and not between fork and exec, because the parent may have threads.
"""

import ctypes
import fcntl
import os
import signal
import sys
import termios

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
TERMINAL = "--terminal"


def main() -> None:
    """Become the command, unless the parent has died already."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        sys.exit("leash: the kernel does not tell when a parent dies")
    # It may have died before the wish was there.
    if os.getppid() != parent:
        sys.exit(1)
    if command[0] == TERMINAL:
        del command[0]
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    os.execv(command[0], command)  # noqa: S606 - the demo names the command


if __name__ == "__main__":
    main()
