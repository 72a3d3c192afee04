"""What opening, running and settling a session have in common."""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Protocol

from apps.access.permits import ConnectionPermit
from apps.gateway.blocking import Blocking
from apps.recordings.writer import Recorder

DATABASE_AWAY: Final = "the database does not answer: nothing can be opened now"
"""What an engineer is told; what is open goes on."""


class OpeningRefusedError(Exception):
    """The session does not open. The text is one line for the engineer."""


class ClientLeftError(OpeningRefusedError):
    """The client went while its session opened."""


class ChannelRefusedError(Exception):
    """A channel does not open. The text is one line for the engineer."""


class AssetRefusedError(ChannelRefusedError):
    """The asset did not open it; the gateway would have."""


class ClientSide(Protocol):
    """The engineer's end of a session: an SSH connection or a browser terminal."""

    @property
    def gone(self) -> asyncio.Event:
        """Return what is set when the client's connection has gone."""

    def close(self, line: str) -> None:
        """Tell the client why and close its socket, now."""

    def hang_up(self, line: str, *, stop: Callable[[], None]) -> bool:
        """Tell the client why and end its socket for writing in this very call.

        Before that `stop` is called, which may still write. Nothing else is done:
        `close` has to be called later. False, and nothing done, when it cannot be.
        """

    async def drained(self) -> None:
        """Return when all that was written to it has been taken, or it is gone."""


class PaperworkSide(Protocol):
    """The gateway as the paperwork at a session's end knows it."""

    @property
    def blocking(self) -> Blocking:
        """Return the bridge to the domain code."""

    @property
    def draining(self) -> bool:
        """Say whether the gateway stops."""


class EngineerSide(Protocol):
    """The engineer's connection as its channels know it."""

    def spawn(self, coroutine: Coroutine[Any, Any, Any], name: str) -> None:
        """Run a task owned by the gateway."""

    def refused(self, kind: str, reason: str) -> None:
        """Write down that something was refused (R22)."""

    def first_lines(self, permit: ConnectionPermit, deadline: dt.datetime) -> list[str]:
        """Return what a shell on a terminal begins with."""

    def refused_forward(self, reason: str) -> None:
        """Write down that a forward was refused (R22)."""


@dataclass(slots=True)
class OpenRecording:
    """The recording of a session that is open."""

    recording_id: uuid.UUID
    recorder: Recorder
