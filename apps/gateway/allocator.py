"""How the C library keeps memory that was freed: for a process that moves bulk data.

A transfer takes and frees blocks of some hundred kilobytes all the time. By default
glibc gives each of them back to the kernel at once, which has to clear the pages anew:
a quarter of the processor time of recording data that cannot be compressed.
"""

import ctypes
from typing import Final

# <malloc.h>
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3

KEPT_BYTES: Final = 16 << 20
"""Free memory at the top of a heap that is kept for the next block."""

MAPPED_BYTES: Final = 8 << 20
"""Blocks from here on are mapped by themselves, and given back when freed."""


def keep_freed_blocks() -> bool:
    """Have glibc keep blocks of a transfer's size; False with another C library."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return all(
        mallopt(option, size) == 1
        for option, size in (
            (_M_TRIM_THRESHOLD, KEPT_BYTES),
            (_M_MMAP_THRESHOLD, MAPPED_BYTES),
        )
    )
