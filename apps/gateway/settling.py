"""The paperwork at the end of a session: the row with its lease, then the recording."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable
from typing import Final, ParamSpec

from django.db import Error as DatabaseError
from django.utils import timezone

from apps.gateway.session_context import OpenRecording, PaperworkSide
from apps.recordings import operations as recordings
from apps.recordings.output import RecordingFailedError, SealedRecording
from apps.sessions import operations as sessions
from apps.sessions.lifecycle import EndReason

logger = logging.getLogger(__name__)

P = ParamSpec("P")

FIRST_RETRY_SECONDS: Final = 0.5
LONGEST_RETRY_SECONDS: Final = 10.0
"""Between tries to write the end of a session down."""


async def settle_session(
    core: PaperworkSide, session_id: uuid.UUID, reason: EndReason, detail: str
) -> None:
    """Close the row, and with it the lease."""
    await write_down(
        core,
        f"the end of session {session_id}",
        sessions.close_session,
        session_id=session_id,
        reason=reason,
        detail=detail,
        now=timezone.now(),
    )


async def write_down(
    core: PaperworkSide,
    what: str,
    operation: Callable[P, object],
    *args: P.args,
    **kwargs: P.kwargs,
) -> None:
    """Run an operation on what has happened already, until it is written.

    While the database is away this goes on trying: the row of a session that has ended
    must not stay open for as long as the gateway lives.
    Raises: DatabaseError only when the gateway stops; whoever notices that this gateway
    has gone finds what is open and closes it.
    """
    pause = FIRST_RETRY_SECONDS
    while True:
        try:
            await core.blocking.run(operation, *args, **kwargs)
        except DatabaseError:
            if core.draining:
                raise
            logger.exception("%s is not written down yet", what)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_RETRY_SECONDS)
        else:
            return


async def settle_recording(core: PaperworkSide, recording: OpenRecording) -> None:
    """Seal the recording, or say that it is broken (never silence, R29)."""
    try:
        sealed: SealedRecording = await asyncio.wrap_future(recording.recorder.close())
    except RecordingFailedError as failure:
        await write_down(
            core,
            f"that recording {recording.recording_id} is broken",
            recordings.mark_broken,
            recording_id=recording.recording_id,
            problem=str(failure),
            now=timezone.now(),
        )
        return
    await write_down(
        core,
        f"the seal of recording {recording.recording_id}",
        recordings.seal_recording,
        recording_id=recording.recording_id,
        sealed=sealed,
        now=timezone.now(),
    )
