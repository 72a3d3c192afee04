"""Opening a session for a permit: row, recording, credential, asset, in that order."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Coroutine
from typing import Any

from django.db import Error as DatabaseError
from django.utils import timezone

from apps.access.denials import Denied
from apps.access.permits import ConnectionPermit
from apps.gateway.live import Core, LiveSession
from apps.gateway.session_context import (
    DATABASE_AWAY,
    ClientLeftError,
    ClientSide,
    OpeningRefusedError,
    OpenRecording,
)
from apps.gateway.settling import settle_recording, settle_session
from apps.gateway.upstream import (
    Dialled,
    Upstream,
    UpstreamError,
    UpstreamProblem,
    dial,
    sign_in,
)
from apps.recordings import operations as recordings
from apps.recordings.operations import RecordingStart
from apps.recordings.output import RecordingFailedError
from apps.sessions import operations as sessions
from apps.sessions.lifecycle import EndReason
from apps.vault.leases import LeasedCredential
from apps.vault.operations import NoCredentialError

logger = logging.getLogger(__name__)


async def open_session(
    core: Core, permit: ConnectionPermit, *, client: ClientSide, client_version: str
) -> LiveSession:
    """Open a session for a permit: row, credential, recording, asset; then activate.

    Not to be cancelled while it writes rows, which would be written all the same: a
    client that goes sets `client.gone` instead, which stops the dialling.
    Raises: OpeningRefusedError. Whatever was begun is undone.
    """
    if core.draining:
        raise OpeningRefusedError("the gateway is being stopped")
    try:
        row = await core.blocking.run(
            sessions.open_session,
            permit=permit,
            gateway_id=core.gateway_id,
            client=client_version,
            now=timezone.now(),
        )
    except DatabaseError as error:
        raise _refusal_for(error) from error
    if isinstance(row, Denied):
        raise OpeningRefusedError(row.message)
    opening = _Opening(core, permit, row.pk, client.gone)
    try:
        upstream, recording = await opening.reach_asset()
        activated = await core.blocking.run(
            sessions.activate_session,
            session_id=row.pk,
            host_key_fingerprint=upstream.host_key_fingerprint,
            now=timezone.now(),
        )
        if not activated:
            raise OpeningRefusedError("the session was ended while it opened")
    except BaseException as error:
        opening.undo(error)
        raise _refusal_for(error) from error
    session = LiveSession(
        core,
        permit=permit,
        session_id=row.pk,
        short_id=row.short_id,
        client=client,
        upstream=upstream,
        recording=recording,
    )
    session.activate(now=timezone.now())
    return session


class _Opening:
    """What has been begun for a session that is not active yet."""

    def __init__(
        self,
        core: Core,
        permit: ConnectionPermit,
        session_id: uuid.UUID,
        client_gone: asyncio.Event,
    ) -> None:
        self._core = core
        self._settings = core.upstream
        self._client_gone = client_gone
        self._permit = permit
        self._session_id = session_id
        self._recording: OpenRecording | None = None
        self._upstream: Upstream | None = None

    async def reach_asset(self) -> tuple[Upstream, OpenRecording]:
        """Dial while the papers are made ready, then sign in.

        Nothing is dialled for what has no place to be recorded, and before the
        recording is open and the credential leased the asset sees a key exchange and no
        more: nothing may happen there that could not be recorded (R23).
        """
        start = await self._core.blocking.run(
            recordings.start_recording,
            session_id=self._session_id,
            now=timezone.now(),
        )
        dialling = asyncio.ensure_future(dial(self._permit, settings=self._settings))
        try:
            self._recording, lease = await self._papers(start)
        except BaseException:
            await _give_up(dialling)
            raise
        try:
            self._upstream = await self._sign_in(dialling, lease)
        except UpstreamError as error:
            if error.problem is not UpstreamProblem.CREDENTIAL_REFUSED:
                raise
            # The one before may just have been rotated away: lease it anew, once.
            lease = await self._lease()
            dialling = asyncio.ensure_future(
                dial(self._permit, settings=self._settings)
            )
            self._upstream = await self._sign_in(dialling, lease)
        return self._upstream, self._recording

    async def _papers(
        self, start: RecordingStart
    ) -> tuple[OpenRecording, LeasedCredential]:
        """Open the recording and lease the credential, both to their end."""
        opening = asyncio.ensure_future(self._open_recorder(start))
        leasing = asyncio.ensure_future(self._lease())
        await asyncio.wait({opening, leasing})
        if opening.exception() is None:
            self._recording = opening.result()
        # What became of both is known, whichever is told.
        leasing.exception()
        return opening.result(), leasing.result()

    async def _sign_in(
        self, dialling: asyncio.Future[Dialled], lease: LeasedCredential
    ) -> Upstream:
        """Sign in where was dialled. Raises: UpstreamError, ClientLeftError."""

        async def finish() -> Upstream:
            return await sign_in(await dialling, lease, settings=self._settings)

        try:
            return await self._until_gone(finish())
        except BaseException:
            await _give_up(dialling)
            raise

    async def _open_recorder(self, start: RecordingStart) -> OpenRecording:
        try:
            recorder = await self._core.blocking.run(
                self._core.recorder_thread.open,
                start.path,
                header=start.header,
                data_key=start.data_key,
                signer=start.signer,
                loop=asyncio.get_running_loop(),
            )
        except RecordingFailedError as failure:
            await self._core.blocking.run(
                recordings.mark_broken,
                recording_id=start.recording_id,
                problem=str(failure),
                now=timezone.now(),
            )
            raise
        return OpenRecording(start.recording_id, recorder)

    async def _lease(self) -> LeasedCredential:
        return await self._core.blocking.run(
            sessions.lease_for_session,
            session_id=self._session_id,
            now=timezone.now(),
            forwards=bool(self._permit.forwards),
        )

    async def _until_gone(self, connecting: Coroutine[Any, Any, Upstream]) -> Upstream:
        """Connect, but not for a client that has left.

        Raises: UpstreamError, ClientLeftError.
        """
        task = asyncio.ensure_future(connecting)
        leaving = asyncio.ensure_future(self._client_gone.wait())
        try:
            await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise ClientLeftError("the client left while the session opened")
            return task.result()
        finally:
            leaving.cancel()
            if not task.done():
                task.cancel()
                await asyncio.wait({task})

    def undo(self, error: BaseException) -> None:
        """Close what was opened; the paperwork is a task that nothing cancels."""
        if self._upstream is not None:
            self._upstream.close_now()
        self._core.tasks.spawn(self._undo(error), "undo an opening")

    async def _undo(self, error: BaseException) -> None:
        reason, detail = _end_reason_for(error)
        await settle_session(self._core, self._session_id, reason, detail)
        if self._recording is not None:
            await settle_recording(self._core, self._recording)


async def _give_up(dialling: asyncio.Future[Dialled]) -> None:
    """End a dialling that nobody needs any more, however far it is."""
    dialling.cancel()
    await asyncio.wait({dialling})
    if not dialling.cancelled() and dialling.exception() is None:
        dialling.result().close_now()


def _end_reason_for(error: BaseException) -> tuple[EndReason, str]:
    if isinstance(error, UpstreamError):
        detail = f"{error.problem}: {error.detail}" if error.detail else error.problem
        return EndReason.TARGET_LOST, detail
    if isinstance(error, RecordingFailedError):
        return EndReason.RECORDING_FAILED, str(error)
    if isinstance(error, ClientLeftError):
        return EndReason.CLIENT_LOST, str(error)
    if isinstance(error, asyncio.CancelledError):
        return EndReason.GATEWAY_STOPPED, "the gateway stopped while it opened"
    return EndReason.REFUSED, f"{type(error).__name__}: {error}"


def _refusal_for(error: BaseException) -> BaseException:
    if isinstance(error, UpstreamError | OpeningRefusedError):
        return OpeningRefusedError(str(error))
    if isinstance(error, RecordingFailedError):
        return OpeningRefusedError("the session cannot be recorded")
    if isinstance(error, NoCredentialError):
        return OpeningRefusedError("the vault holds no credential for this account")
    if isinstance(error, DatabaseError):
        logger.error("a session could not be opened", exc_info=error)
        return OpeningRefusedError(DATABASE_AWAY)
    if isinstance(error, Exception):
        logger.error("a session could not be opened", exc_info=error)
        return OpeningRefusedError("the session cannot be opened now")
    return error
