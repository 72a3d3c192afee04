"""One supervisor per data directory: two would fight over the same rows and files."""

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self


class DataDirectoryInUseError(RuntimeError):
    """Another supervisor runs on this data directory."""


class DataDirectoryLock:
    """Holds a lock file in the data directory; any death lets go of it."""

    def __init__(self, data_dir: Path, *, name: str = "supervisor.lock") -> None:
        """`name` is another one for whoever starts a supervisor and needs it later."""
        self._path = data_dir / name
        self._handle: int | None = None

    def __enter__(self) -> Self:
        """Take the lock. Raises: DataDirectoryInUseError, naming the other process."""
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 20).decode(errors="replace").strip()
            os.close(handle)
            raise DataDirectoryInUseError(
                f"Sluice runs on {self._path.parent} already"
                + (f" (process {holder})" if holder.isdigit() else "")
                + ": stop it first, or name another data directory."
            ) from None
        os.ftruncate(handle, 0)
        os.write(handle, str(os.getpid()).encode())
        self._handle = handle
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
