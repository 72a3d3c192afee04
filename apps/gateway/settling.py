"""The paperwork at the end of a session: the row with its lease, then the recording."""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import Final

from django.db import Error as DatabaseError
from django.utils import timezone

from apps.gateway.session_context import OpenRecording, PaperworkSide
from apps.recordings import operations as recordings
from apps.recordings.output import RecordingFailedError, SealedRecording
from apps.sessions import operations as sessions
from apps.sessions.lifecycle import EndReason

logger = logging.getLogger(__name__)

FIRST_RETRY_SECONDS: Final = 0.5
LONGEST_RETRY_SECONDS: Final = 30.0
"""Between tries to write the end of a session down."""


async def settle_session(
    core: PaperworkSide, session_id: uuid.UUID, reason: EndReason, detail: str
) -> None:
    """Close the row, and with it the lease.

    While the database is away this goes on trying: the row of a session that has ended
    must not stay open for as long as the gateway lives.
    """
    ended_at, pause = timezone.now(), FIRST_RETRY_SECONDS
    while True:
        try:
            await core.blocking.run(
                sessions.close_session,
                session_id=session_id,
                reason=reason,
                detail=detail,
                now=ended_at,
            )
        except DatabaseError:
            if core.draining:
                # The next start of this gateway finds the row and closes it.
                raise
            logger.exception("the end of session %s is not written yet", session_id)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_RETRY_SECONDS)
        else:
            return


async def settle_recording(core: PaperworkSide, recording: OpenRecording) -> None:
    """Seal the recording, or say that it is broken (never silence, R29)."""
    try:
        sealed: SealedRecording = await asyncio.wrap_future(recording.recorder.close())
    except RecordingFailedError as failure:
        await core.blocking.run(
            recordings.mark_broken,
            recording_id=recording.recording_id,
            problem=str(failure),
            now=timezone.now(),
        )
        return
    await core.blocking.run(
        recordings.seal_recording,
        recording_id=recording.recording_id,
        sealed=sealed,
        now=timezone.now(),
    )
