"""Watching a live session: what was, and then what comes, until it is over.

By the portal's link or on a terminal (`commands`). What is shown is what the recorder
has written, so that nobody sees what is not recorded. A watch ends with the session,
when its watcher goes, and when the decision is made again and they may watch no more.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from typing import Final, Protocol

from django.db import Error as DatabaseError
from django.utils import timezone

from apps.access.authorization import EarlierSignIn
from apps.access.denials import Denied
from apps.accounts.models import User
from apps.gateway.blocking import Blocking
from apps.gateway.session_context import OpeningRefusedError
from apps.recordings import operations as recordings
from apps.recordings.frames import STREAM_KINDS, Event, EventKind
from apps.recordings.manifest import decode_note, sentence
from apps.recordings.models import Recording
from apps.recordings.reader import RecordingBrokenError, RecordingReader
from apps.recordings.writer import FlushedEvents, Recorder
from apps.sessions import watches
from apps.sessions.lifecycle import AskedBy
from apps.sessions.watches import Looking

logger = logging.getLogger(__name__)

WATCH_LIMIT: Final = 8 << 20
"""Bytes waiting for a watcher that does not read; more and the watch ends."""

TAIL_MICROSECONDS: Final = 300_000_000
"""How much of the recording a watch begins with."""

WATCHERS: Final = 20
"""Watches of one session at the same time; each may hold WATCH_LIMIT."""

FULL_LINE: Final = f"{WATCHERS} watch this session already"

NO_LONGER_LINE: Final = "you may no longer watch this session"

_WATCHED: Final = frozenset(
    {
        EventKind.OPEN,
        EventKind.OUTPUT,
        EventKind.STDERR,
        EventKind.RESIZE,
        EventKind.NOTICE,
        EventKind.CLOSE,
    }
)


class WatchKeyboard(Protocol):
    """Where a watcher could type, if the typing was handed to them."""

    def may_type(self, *, allowed: bool) -> None:
        """Tell the watcher that what they type passes from now on, or no more."""

    def pause_reading(self) -> None:
        """Deliver no more of what they type until `resume_reading`."""

    def resume_reading(self) -> None:
        """Deliver it again."""


class WatchedSession(Protocol):
    """The live session that is watched."""

    session_id: uuid.UUID
    ended: asyncio.Event
    file_channels: set[int]
    watchers: dict[uuid.UUID, LiveWatch]

    def watch_ended(self, watch: LiveWatch) -> None:
        """Forget a watch, and whatever hung on it."""

    @property
    def recorder(self) -> Recorder:
        """Return the session's recorder."""

    @property
    def recording_id(self) -> uuid.UUID:
        """Return the identifier of the session's recording."""


class LiveWatch:
    """One person's look at one session. Made by `begin_live_watch`."""

    def __init__(
        self,
        session: WatchedSession,
        *,
        watch_id: uuid.UUID,
        user: User,
        keyboard: WatchKeyboard | None,
        sign_in: EarlierSignIn | None,
    ) -> None:
        self.watch_id = watch_id
        self.user = user
        self.keyboard = keyboard
        self.why = ""
        """Why it ended, when the session goes on."""
        self._session = session
        self._sign_in = sign_in
        self._waiting: list[Event] = []
        self._bytes = 0
        self._news = asyncio.Event()
        self._over = asyncio.Event()
        self._unsubscribe: Callable[[], None] = lambda: None

    @property
    def looking(self) -> Looking:
        """Return what the decision has to know to be made again."""
        if self._sign_in is None:
            return Looking(watch_id=self.watch_id)
        return Looking(
            watch_id=self.watch_id,
            key_id=self._sign_in.key_id,
            signed_in_at=self._sign_in.at,
        )

    def cut(self, why: str) -> None:
        """End the watch at once: nothing more is shown. `why` is for the watcher."""
        if not self._over.is_set():
            self.why = why
            self._over.set()
            self._session.watch_ended(self)
            self._waiting.clear()
            self._unsubscribe()

    async def run(
        self,
        blocking: Blocking,
        send: Callable[[Event], Awaitable[None]],
        *,
        gone: asyncio.Event,
    ) -> bool:
        """Send what was and what comes; return whether the session ended.

        If not, `why` says what did; `gone` is set when the watcher has left.
        """
        session = self._session
        self._unsubscribe = session.recorder.subscribe(self._flushed)
        if len(session.watchers) >= WATCHERS:
            # Others began while this one was decided on.
            self.cut(FULL_LINE)
        else:
            session.watchers[self.watch_id] = self
        try:
            tail = await blocking.run(
                _read_tail,
                session.recording_id,
                session.recorder,
                session.file_channels,
            )
            await self._send_all(self._join(tail), send, gone)
            while not (gone.is_set() or self._over.is_set()):
                events = await self._next(session.ended, gone)
                await self._send_all(events, send, gone)
                if not events and session.ended.is_set():
                    break
        finally:
            self._unsubscribe()
            session.watch_ended(self)
            await self._note_end(blocking, gone)
        if self._over.is_set() or gone.is_set():
            self.why = self.why or "you left"
            return False
        return True

    async def _send_all(
        self,
        events: Iterable[Event],
        send: Callable[[Event], Awaitable[None]],
        gone: asyncio.Event,
    ) -> None:
        for event in events:
            if self._over.is_set() or gone.is_set():
                return
            await send(event)

    async def _note_end(self, blocking: Blocking, gone: asyncio.Event) -> None:
        if self._session.ended.is_set():
            # The end of the session ends its watches in the books.
            return
        why = self.why or ("the watcher left" if gone.is_set() else "it broke off")
        try:
            await blocking.run(
                watches.end_watch, watch_id=self.watch_id, why=why, now=timezone.now()
            )
        except DatabaseError:
            logger.exception("the end of a watch could not be noted")

    def _flushed(self, flushed: FlushedEvents) -> None:
        events = list(_watched(flushed, self._session.file_channels))
        self._bytes += sum(len(event.data) for event in events)
        if self._bytes > WATCH_LIMIT:
            # Too slow for what is shown: the watcher starts again from the recording.
            self.cut("the connection is too slow to watch; try again")
        else:
            self._waiting.extend(events)
        self._news.set()

    def _join(self, tail: list[Event]) -> list[Event]:
        """Return `tail` without what is also waiting, so that nothing comes twice."""
        if self._waiting and self._waiting[0] in tail:
            first = len(tail) - 1 - tail[::-1].index(self._waiting[0])
            return tail[:first]
        return tail

    async def _next(self, *over: asyncio.Event) -> list[Event]:
        """Return what has come; nothing when it is over."""
        waits = {
            asyncio.ensure_future(event.wait())
            for event in (self._news, self._over, *over)
        }
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        self._news.clear()
        events, self._waiting, self._bytes = self._waiting, [], 0
        return events


async def begin_live_watch(
    blocking: Blocking,
    session: WatchedSession,
    *,
    user: User,
    asked: AskedBy,
    keyboard: WatchKeyboard | None,
    sign_in: EarlierSignIn | None = None,
) -> LiveWatch:
    """Decide, write down who watches, and return the watch, to be run at once.

    `sign_in` is given where the watch hangs on an SSH sign-in, and ends with it.
    Raises: OpeningRefusedError.
    """
    if len(session.watchers) >= WATCHERS:
        raise OpeningRefusedError(FULL_LINE)
    watch = await blocking.run(
        watches.begin_watch,
        user=user,
        session_id=session.session_id,
        asked=asked,
        can_type=keyboard is not None,
        now=timezone.now(),
    )
    if isinstance(watch, Denied):
        raise OpeningRefusedError(NO_LONGER_LINE)
    return LiveWatch(
        session, watch_id=watch.pk, user=user, keyboard=keyboard, sign_in=sign_in
    )


def _watched(
    events: Iterable[Event], file_channels: Collection[int]
) -> Iterator[Event]:
    """Yield what a watcher is shown: of file transfers a line for each file, not the
    packets."""
    for event in events:
        if event.kind is EventKind.FILE:
            line = f"{sentence(decode_note(event.data))}\r\n".encode()
            yield event._replace(kind=EventKind.NOTICE, data=line)
        elif event.kind in STREAM_KINDS and event.channel in file_channels:
            continue
        elif event.kind in _WATCHED:
            yield event


def _read_tail(
    recording_id: uuid.UUID, recorder: Recorder, file_channels: Collection[int]
) -> list[Event]:
    """Return the last minutes of a growing recording; nothing when it is unreadable."""
    recording = Recording.objects.get(pk=recording_id)
    try:
        with RecordingReader(
            recorder.path, recordings.data_key_of(recording)
        ) as reader:
            last = int(reader.duration.total_seconds() * 1_000_000)
            start = max(0, last - TAIL_MICROSECONDS)
            tail, size = [], 0
            for event in _watched(reader.events(start), file_channels):
                tail.append(event)
                size += len(event.data)
                while size > WATCH_LIMIT // 4:
                    size -= len(tail.pop(0).data)
            return tail
    except (OSError, RecordingBrokenError) as error:
        logger.warning("a watch begins without the recording: %s", error)
        return []
