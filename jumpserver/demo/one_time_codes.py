"""One-time codes as an authenticator app makes them (RFC 6238), and when to use which.

Sluice accepts the code of this half minute, the one before and the one after, and each
only once, in rising order. So a person has up to three in hand at any moment, and
then one more every half minute.
"""

import base64
import hashlib
import hmac
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

STEP_SECONDS = 30
DIGITS = 6
# The server looks at a code a moment after it was chosen: none is chosen that would be
# too old by then.
MARGIN_SECONDS = 2.0


def code_at(secret: bytes, step: int) -> str:
    """Return the six digits for the `step`-th half minute since 1970 (RFC 6238)."""
    # HMAC-SHA-1 is what authenticator apps speak (RFC 4226 section 5.3).
    digest = hmac.new(secret, struct.pack(">Q", step), hashlib.sha1).digest()
    offset = digest[-1] & 0x0F
    number = struct.unpack(">I", digest[offset : offset + 4])[0] & 0x7FFFFFFF
    return str(number % 10**DIGITS).zfill(DIGITS)


def enrolment_code(secret: bytes, now: float) -> str:
    """Return a code that leaves those of this half minute and later unused.

    `now` is Unix time; shortly before a half minute ends it is this one's own.
    """
    return code_at(secret, int((now + MARGIN_SECONDS) // STEP_SECONDS) - 1)


@dataclass(kw_only=True)
class CodeBook:
    """The authenticator app of one person; hands each code out once.

    `waiting` is told how many seconds it takes when all codes at hand are used up.
    """

    secret: bytes
    last_step: int
    waiting: Callable[[float], None] = lambda _: None

    @classmethod
    def from_letters(cls, letters: str, *, last_step: int) -> "CodeBook":
        """Return the book for a secret in base32; `last_step` and earlier are used."""
        return cls(secret=base64.b32decode(letters), last_step=last_step)

    def next_code(self) -> str:
        """Return a code the server will accept, waiting for one if need be."""
        now = time.time()
        oldest = int((now + MARGIN_SECONDS) // STEP_SECONDS) - 1
        step = max(self.last_step + 1, oldest)
        # The server's clock is this machine's: from here on the code counts.
        seconds = (step - 1) * STEP_SECONDS - now
        if seconds > 0:
            self.waiting(seconds)
            time.sleep(seconds)
        self.last_step = step
        return code_at(self.secret, step)


def step_now() -> int:
    """Return the number of this half minute since 1970."""
    return int(time.time() // STEP_SECONDS)
