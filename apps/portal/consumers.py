"""The WebSockets: a terminal, watching a session, and "something changed".

Who has no rights is refused before the WebSocket is accepted, always with the same
code: unknown and forbidden look alike. The origin is checked by `jumpserver.asgi`.

Between browser and portal, text messages are JSON for control and binary messages are
data: bytes typed and shown for a terminal, events as `link_frames.encode_event` has
them for a watch. Tickets and link addresses stay on this side.
"""

import asyncio
import json
import logging
import uuid
from collections.abc import Mapping
from typing import Any

from channels.db import DatabaseSyncToAsync
from channels.generic.websocket import AsyncWebsocketConsumer
from django.core.exceptions import PermissionDenied
from django.utils import timezone

from apps.access.denials import Denied
from apps.accounts.models import User
from apps.portal.changes import ask_groups
from apps.portal.gateway_link import (
    GatewayLink,
    LinkClosedError,
    open_link,
    terminal_facts,
)
from apps.portal.source import address_of_scope
from apps.portal.websocket_people import (
    agreed_notice,
    ask_verified_person,
    session_key_of,
)
from apps.sessions import queries, tickets
from apps.sessions.link_frames import (
    Frame,
    FrameType,
    LinkError,
    decode_json,
    encode_size,
)
from apps.sessions.models import Session

logger = logging.getLogger(__name__)

REFUSED = 4404
ENDED = 4000
SIGNED_OUT = 4401
_INPUT_BYTES = 1 << 20
_FIRST_SIZE = (80, 24)
_SIZE_SECONDS = 3.0
_LOOK_SECONDS = 15.0
_ABOUT_PEOPLE = ("accounts.", "inventory.member.")


class _PersonConsumer(AsyncWebsocketConsumer):
    """Knows its person, and closes when they are no longer signed in as they were."""

    async def connect(self) -> None:
        self.groups: list[str] = []
        self.heard: dict[str, int] = {}
        self.watchdog: asyncio.Task[None] | None = None
        person = await ask_verified_person(session_key_of(self.scope))
        if person is None:
            await self.close(code=REFUSED)
            return
        self.person: User = person
        if await self.begin():
            await self._listen()
            self.watchdog = asyncio.create_task(self._look_again())

    async def begin(self) -> bool:
        """Accept, or close; return whether the WebSocket is open."""
        await self.accept()
        return True

    async def _listen(self) -> None:
        for group in await ask_groups(self.person):
            await self.channel_layer.group_add(group, self.channel_name)
            self.groups.append(group)

    async def _look_again(self) -> None:
        """Ask every few seconds as well: a hint may be lost, and a session runs out."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if not await self.still_signed_in():
                return

    async def still_signed_in(self) -> bool:
        """Close unless the person is still signed in, and may still have this."""
        person = await ask_verified_person(session_key_of(self.scope))
        if person is None or person.pk != self.person.pk:
            await self.close(code=SIGNED_OUT)
            return False
        if not await self.still_allowed(person):
            await self.close(code=REFUSED)
            return False
        return True

    async def still_allowed(self, person: User) -> bool:  # noqa: ARG002  # overridden
        """Say whether `person`, read anew, still has the right to this WebSocket."""
        return True

    async def changed(self, event: Mapping[str, Any]) -> None:
        """Take a hint from the channel layer."""
        if any(kind.startswith(_ABOUT_PEOPLE) for kind in event["kinds"]):
            await self.still_signed_in()

    async def disconnect(self, code: int) -> None:  # noqa: ARG002  # Channels' own
        if self.watchdog is not None and self.watchdog is not asyncio.current_task():
            self.watchdog.cancel()


class ChangesConsumer(_PersonConsumer):
    """Says which kinds of events there are to look for again, and nothing more."""

    async def changed(self, event: Mapping[str, Any]) -> None:
        # Every portal process tells the others' browsers too: heard already.
        if event["seq"] <= self.heard.get(event["group"], 0):
            return
        self.heard[event["group"]] = event["seq"]
        about_people = any(kind.startswith(_ABOUT_PEOPLE) for kind in event["kinds"])
        if about_people and not await self.still_signed_in():
            return
        await self.send(text_data=json.dumps({"changed": event["kinds"]}))

    async def still_allowed(self, person: User) -> bool:
        """Say whether this still listens to the right groups; the page reconnects."""
        return set(await ask_groups(person)) == set(self.groups)


class _LinkConsumer(_PersonConsumer):
    """Carries one stream of a gateway; either side's end is the other's."""

    async def connect(self) -> None:
        self.link: GatewayLink | None = None
        self.pump: asyncio.Task[None] | None = None
        await super().connect()

    async def begin(self) -> bool:
        opened = await self.open_stream()
        if opened is None:
            await self.close(code=REFUSED)
            return False
        address, ticket = opened
        await self.accept()
        self.pump = asyncio.create_task(self._carry(address, ticket))
        return True

    async def open_stream(self) -> tuple[str, str] | None:
        """Return link address and ticket, or None when there is no right to it."""
        raise NotImplementedError

    async def _carry(self, address: str, ticket: str) -> None:
        """Open the stream and pass on what the gateway sends until it ends.

        One frame at a time: the next is read when the browser took the last one.
        """
        link: GatewayLink | None = None
        try:
            link = await open_link(address)
            columns, rows = await self.first_size()
            ready = await link.ready(ticket, columns=columns, rows=rows)
            # First: whoever is told "ready" types at once.
            self.link = link
            await self.control("ready", **terminal_facts(ready))
            async for frame in link.frames():
                await self.pass_on(frame)
            await self.control("closed")
        except LinkClosedError as error:
            await self.control("error", text=str(error))
        except OSError:
            # The browser went away while something was being sent to it.
            return
        except Exception:
            logger.exception("The stream to the gateway failed")
            raise
        finally:
            self.link = None
            if link is not None:
                await link.close()
        await self.close(code=ENDED)

    async def first_size(self) -> tuple[int, int]:
        """Return columns and rows to begin with."""
        return _FIRST_SIZE

    async def pass_on(self, frame: Frame) -> None:
        """Send one frame of the gateway to the browser."""
        text = frame.payload.decode("utf-8", "replace")
        if frame.type is FrameType.NOTICE:
            await self.control("notice", text=text)
        elif frame.type is FrameType.ERROR:
            await self.control("error", text=text)
        elif frame.type is FrameType.EXIT:
            try:
                told = decode_json(frame.payload)
            except LinkError:
                told = {}
            names = ("status", "signal", "message")
            await self.control("exit", **{name: told.get(name) for name in names})

    async def control(self, kind: str, **facts: object) -> None:
        """Send one control message."""
        await self.send(text_data=json.dumps({"type": kind, **facts}))

    async def disconnect(self, code: int) -> None:
        await super().disconnect(code)
        if self.pump is not None and self.pump is not asyncio.current_task():
            self.pump.cancel()
            # Whatever it ended with was said and logged where it happened.
            await asyncio.gather(self.pump, return_exceptions=True)


def _terminal_ticket(
    person: User, grant_id: uuid.UUID, source_address: str, session_key: str | None
) -> tuple[str, str] | None:
    gateway = queries.running_gateways().exclude(link_address="").first()
    if gateway is None:
        return None
    ticket = tickets.issue_terminal_ticket(
        user=person,
        grant_id=grant_id,
        agreed_to=agreed_notice(session_key),
        source_address=source_address,
        now=timezone.now(),
    )
    return None if isinstance(ticket, Denied) else (gateway.link_address, ticket)


def _watch_ticket(
    person: User, session_id: uuid.UUID, source_address: str
) -> tuple[str, str] | None:
    ticket = tickets.issue_watch_ticket(
        user=person,
        session_id=session_id,
        source_address=source_address,
        now=timezone.now(),
    )
    if isinstance(ticket, Denied):
        return None
    session = Session.objects.select_related("gateway").get(pk=session_id)
    return session.gateway.link_address, ticket


def _may_watch(person: User, session_id: uuid.UUID) -> bool:
    session = queries.sessions_visible_to(person).filter(pk=session_id).first()
    if session is None:
        return False
    # One that has ended in this moment still has its last words to say.
    return not session.is_live or bool(queries.may_watch(person, session))


_ask_terminal_ticket = DatabaseSyncToAsync(_terminal_ticket, thread_sensitive=False)
_ask_may_watch = DatabaseSyncToAsync(_may_watch, thread_sensitive=False)
_ask_watch_ticket = DatabaseSyncToAsync(_watch_ticket, thread_sensitive=False)


class TerminalConsumer(_LinkConsumer):
    """A terminal in the browser on one's own grant."""

    async def open_stream(self) -> tuple[str, str] | None:
        try:
            source = address_of_scope(self.scope)
        except PermissionDenied:
            return None
        grant_id = self.scope["url_route"]["kwargs"]["grant_id"]
        return await _ask_terminal_ticket(
            self.person, grant_id, source, session_key_of(self.scope)
        )

    async def first_size(self) -> tuple[int, int]:
        # The browser says its size first of all; one that does not gets 80 by 24.
        try:
            async with asyncio.timeout(_SIZE_SECONDS):
                await self._sized.wait()
        except TimeoutError:
            return _FIRST_SIZE
        return self._size or _FIRST_SIZE

    async def connect(self) -> None:
        self._size: tuple[int, int] | None = None
        self._sized = asyncio.Event()
        await super().connect()

    async def pass_on(self, frame: Frame) -> None:
        if frame.type in {FrameType.OUTPUT, FrameType.STDERR}:
            await self.send(bytes_data=frame.payload)
        else:
            await super().pass_on(frame)

    async def receive(
        self, text_data: str | None = None, bytes_data: bytes | None = None
    ) -> None:
        """Pass on what was typed; the next message waits until the gateway took it."""
        if bytes_data is not None and len(bytes_data) > _INPUT_BYTES:
            await self.close(code=1009)
            return
        try:
            if bytes_data is not None and self.link is not None:
                await self.link.send(FrameType.INPUT, bytes_data)
            elif text_data is not None:
                await self._control(text_data)
        except LinkClosedError as error:
            await self.control("error", text=str(error))
            await self.close(code=ENDED)

    async def _control(self, text: str) -> None:
        size = _size_in(text)
        if size is None:
            return
        self._size = size
        self._sized.set()
        if self.link is not None:
            await self.link.send(FrameType.RESIZE, encode_size(*size))


def _size_in(text: str) -> tuple[int, int] | None:
    """Return (columns, rows) of a resize message; None for anything else."""
    try:
        told = json.loads(text)
        if told["type"] != "resize":
            return None
        columns, rows = int(told["columns"]), int(told["rows"])
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return None
    return columns, rows


class WatchConsumer(_LinkConsumer):
    """Watching a live session: events go to the browser.

    What is typed goes back only while the gateway says that the typing was handed to
    this watcher; it judges each byte itself.
    """

    types = False

    async def open_stream(self) -> tuple[str, str] | None:
        try:
            source = address_of_scope(self.scope)
        except PermissionDenied:
            return None
        session_id = self.scope["url_route"]["kwargs"]["session_id"]
        return await _ask_watch_ticket(self.person, session_id, source)

    async def still_allowed(self, person: User) -> bool:
        session_id = self.scope["url_route"]["kwargs"]["session_id"]
        return await _ask_may_watch(person, session_id)

    async def pass_on(self, frame: Frame) -> None:
        if frame.type is FrameType.EVENT:
            await self.send(bytes_data=frame.payload)
        elif frame.type is FrameType.TYPING:
            self.types = decode_json(frame.payload).get("allowed") is True
            await self.control("typing", allowed=self.types)
        else:
            await super().pass_on(frame)

    async def receive(
        self,
        text_data: str | None = None,  # noqa: ARG002  # Channels' own
        bytes_data: bytes | None = None,
    ) -> None:
        """Pass on what was typed, while that is this watcher's to do."""
        if bytes_data is None or not self.types or self.link is None:
            return
        if len(bytes_data) > _INPUT_BYTES:
            await self.close(code=1009)
            return
        try:
            await self.link.send(FrameType.INPUT, bytes_data)
        except LinkClosedError as error:
            await self.control("error", text=str(error))
            await self.close(code=ENDED)
