"""Signing in at a device's own prompts, before anything of it reaches the engineer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from apps.vault.terminal_sign_in import (
    QUIET_SECONDS,
    SignInProgress,
    TerminalSignIn,
)

SIGN_IN_SECONDS: Final = 20.0
"""Longest sign-in, from the shell to the prompt."""


class SignInRefusedError(Exception):
    """The device did not let the gateway in. The text is one line for the engineer."""


class DeviceSignIn:
    """One sign-in on one channel: what the device says in, what to type out."""

    def __init__(
        self, dialogue: TerminalSignIn, *, seconds: float = SIGN_IN_SECONDS
    ) -> None:
        self._dialogue = dialogue
        self._seconds = seconds
        self._said: asyncio.Queue[bytes] = asyncio.Queue()

    def said(self, data: bytes) -> None:
        """Take what the device printed."""
        if data and self._dialogue.progress is SignInProgress.TALKING:
            self._said.put_nowait(data)

    def lost(self) -> None:
        """Know that the device closed the channel."""
        self._said.put_nowait(b"")

    async def run(self, write: Callable[[bytes], None]) -> bytes:
        """Answer the device until its prompt, and return that.

        Raises: SignInRefusedError.
        """
        dialogue = self._dialogue
        try:
            async with asyncio.timeout(self._seconds):
                while dialogue.progress is SignInProgress.TALKING:
                    typed = await self._next()
                    if typed:
                        write(typed)
        except TimeoutError:
            dialogue.give_up("it took too long")
        if dialogue.progress is not SignInProgress.SIGNED_IN:
            raise SignInRefusedError(
                f"the device did not sign the gateway in: {dialogue.refusal}"
            )
        return dialogue.prompt

    async def _next(self) -> bytes:
        try:
            async with asyncio.timeout(QUIET_SECONDS):
                printed = await self._said.get()
        except TimeoutError:
            return self._dialogue.quiet()
        if not printed:
            self._dialogue.give_up("it closed")
            return b""
        return self._dialogue.feed(printed)
