"""Freed memory goes back to the kernel."""

import subprocess
import sys

SCRIPT = """
import resource
from apps.gateway.allocator import Allocator

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

allocator = Allocator()
assert allocator.keep_freed_blocks()
# Every second block stays: nothing at the top of the heap becomes free.
blocks = [bytes(60_000) for _ in range(2000)]
kept = blocks[::2]
del blocks
before = resident()
assert allocator.give_back()
print((before - resident()) // 1_000_000, len(kept))
"""


def test_what_lies_free_between_other_blocks_is_given_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    given_back, kept = map(int, done.stdout.split())
    assert given_back >= 40
    assert kept == 1000
