"""What the sessions of a gateway share, and how they refuse."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from apps.gateway.blocking import Blocking
from apps.gateway.owned_tasks import OwnedTasks
from apps.gateway.upstream import UpstreamSettings
from apps.recordings.writer import Recorder, RecorderThread

if TYPE_CHECKING:
    from apps.gateway.live import LiveSession


class OpeningRefusedError(Exception):
    """The session does not open. The text is one line for the engineer."""


class ClientLeftError(OpeningRefusedError):
    """The client went while its session opened."""


class ChannelRefusedError(Exception):
    """A channel does not open. The text is one line for the engineer."""


class ClientSide(Protocol):
    """The engineer's end of a session: an SSH connection or a browser terminal."""

    @property
    def gone(self) -> asyncio.Event:
        """Return what is set when the client's connection has gone."""

    def close(self, line: str) -> None:
        """Tell the client why and close its socket, now."""

    async def drained(self) -> None:
        """Return when all that was written to it has been taken, or it is gone."""


@dataclass(slots=True)
class Core:
    """What all sessions of a gateway share."""

    gateway_id: uuid.UUID
    blocking: Blocking
    recorder_thread: RecorderThread
    upstream: UpstreamSettings
    tasks: OwnedTasks
    check_now: Callable[[], Awaitable[None]]
    """Make the decision again for every live session; returns when that is done."""
    live: dict[uuid.UUID, LiveSession] = field(default_factory=dict)
    draining: bool = False
    """True while the gateway stops: no new session opens."""


@dataclass(slots=True)
class OpenRecording:
    recording_id: uuid.UUID
    recorder: Recorder
