"""When the C library gives freed memory back, for a process that moves bulk data.

A transfer takes and frees blocks of some hundred kilobytes all the time. By default
glibc gives each of them back to the kernel at once, which has to clear the pages anew:
a quarter of the processor time of recording data that cannot be compressed. What lies
free between other blocks, as after two hundred log-ins, it never gives back by itself:
that doubles what an idle session takes.
"""

from __future__ import annotations

import asyncio
import ctypes
from typing import Final

# <malloc.h>
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3

KEPT_BYTES: Final = 16 << 20
"""Free memory at the top of a heap that is kept for the next block."""

MAPPED_BYTES: Final = 8 << 20
"""Blocks from here on are mapped by themselves, and given back when freed."""

GIVE_BACK_SECONDS: Final = 15.0
"""Between two times that everything free is given back; each takes about 1 ms."""


class Allocator:
    """What can be asked of the C library; of one other than glibc, nothing."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        self._mallopt = getattr(library, "mallopt", None)
        self._malloc_trim = getattr(library, "malloc_trim", None)

    def keep_freed_blocks(self) -> bool:
        """Keep freed blocks of a transfer's size; False when that cannot be asked."""
        if self._mallopt is None:
            return False
        return all(
            self._mallopt(option, size) == 1
            for option, size in (
                (_M_TRIM_THRESHOLD, KEPT_BYTES),
                (_M_MMAP_THRESHOLD, MAPPED_BYTES),
            )
        )

    def give_back(self) -> bool:
        """Give free memory back to the kernel; False when there was none."""
        return self._malloc_trim is not None and self._malloc_trim(0) == 1

    async def run(self) -> None:
        """Give back from time to time. Never returns."""
        while True:
            await asyncio.sleep(GIVE_BACK_SECONDS)
            await asyncio.to_thread(self.give_back)
