"""The portal's door to the gateway: browser terminals and live watching.

A stream socket in the data directory, readable by this user only; frames as in
`sessions.link_frames`. The first frame carries a single-use ticket, which the portal
got for a person it has authenticated; the whole decision is made here again. A browser
terminal is one live session with one shell, through the same relay, recorder and
timers as an SSH one.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, cast

from django.utils import timezone

from apps.access import authorization
from apps.access.denials import Denied
from apps.gateway.asset_channel import Terminal
from apps.gateway.live import Core, LiveSession
from apps.gateway.live_watch import LiveWatch, begin_live_watch
from apps.gateway.notices import Notices
from apps.gateway.opening import open_session
from apps.gateway.relay import ChannelRequest, Relay
from apps.gateway.session_context import ChannelRefusedError, OpeningRefusedError
from apps.recordings.frames import Event
from apps.sessions import link_frames as link
from apps.sessions import tickets
from apps.sessions.lifecycle import AskedBy
from apps.sessions.link_frames import FrameType
from apps.sessions.models import TicketPurpose
from apps.sessions.tickets import RedeemedTicket

logger = logging.getLogger(__name__)

TICKET_SECONDS: Final = 10.0
"""A peer that has shown no ticket by then is dropped."""

HIGH_WATER: Final = 1 << 20
CLOSE_SECONDS: Final = 5.0
"""Longest wait for the portal to take the last frames."""

PIECE: Final = 1 << 18
"""Longest output of one frame."""


class TerminalLink:
    """The listening socket."""

    def __init__(self, core: Core, path: Path, notices: Notices) -> None:
        self._core = core
        self._path = path
        self.notices = notices
        self._server: asyncio.AbstractServer | None = None
        self.peers: set[LinkPeer] = set()

    @property
    def address(self) -> str:
        """Return what `GatewayNode.link_address` holds."""
        return f"unix:{self._path}"

    async def start(self) -> None:
        """Listen. A socket left behind by a crashed gateway is replaced.

        Raises: OSError.
        """
        with suppress(FileNotFoundError):
            if stat.S_ISSOCK(self._path.lstat().st_mode):
                self._path.unlink()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Bound but not listening: nobody can connect before the mode is right.
            listener.bind(str(self._path))
            self._path.chmod(0o600)
            self._server = await asyncio.get_running_loop().create_unix_server(
                lambda: LinkPeer(self._core, self), sock=listener
            )
        except BaseException:
            listener.close()
            raise

    async def stop(self) -> None:
        """Listen no more and drop the peers that are left."""
        if self._server is not None:
            self._server.close()
            for peer in list(self.peers):
                peer.abort()
            await self._server.wait_closed()
            self._path.unlink(missing_ok=True)


class LinkPeer(asyncio.Protocol):
    """One stream of the portal: a terminal, a watch, or nothing yet.

    For a terminal it is the session's `ClientSide` and the relay's `FrontChannel`.
    """

    def __init__(self, core: Core, owner: TerminalLink) -> None:
        self._core = core
        self._owner = owner
        self._decoder = link.FrameDecoder()
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._session: LiveSession | None = None
        self._relay: Relay | None = None
        self._watched: tuple[LiveSession, LiveWatch] | None = None
        self._next_event = 0
        self._lost = False
        self._closing = False
        self._full = False
        self._room = asyncio.Event()
        self.gone = asyncio.Event()
        self._size: tuple[int, int] | None = None
        self._exit_message: str | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a ticket, not for ever."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=HIGH_WATER)
        self._room.set()
        self._owner.peers.add(self)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(TICKET_SECONDS, self.abort)

    def abort(self) -> None:
        """Drop the stream."""
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """End what the stream carried."""
        self._lost = True
        self._owner.peers.discard(self)
        self.gone.set()
        self._room.set()
        if self._timer is not None:
            self._timer.cancel()
        if self._relay is not None:
            self._relay.front_lost()
        if self._session is not None:
            self._session.client_lost(exc)

    def eof_received(self) -> bool:
        """Close: the portal closes a terminal by closing the stream."""
        return False

    def pause_writing(self) -> None:
        """Hold the output: the portal does not read."""
        self._full = True
        self._room.clear()
        if self._relay is not None:
            self._relay.front_full()

    def resume_writing(self) -> None:
        """Let the output flow."""
        self._full = False
        self._room.set()
        if self._relay is not None:
            self._relay.front_drained()

    def data_received(self, data: bytes) -> None:
        """Take frames; anything that is none ends the stream."""
        try:
            for frame in self._decoder.feed(data):
                self._take(frame)
        except link.LinkError as error:
            logger.warning("the portal's link sent no frame: %s", error)
            self.abort()

    def _take(self, frame: link.Frame) -> None:
        if frame.type is FrameType.TICKET:
            if self._task is not None:
                raise link.LinkError("a second ticket")
            if self._timer is not None:
                self._timer.cancel()
            self._task = self._core.tasks.spawn(
                self._begin(link.decode_json(frame.payload)), "begin a portal link"
            )
        elif frame.type is FrameType.RESIZE:
            self._size = link.decode_size(frame.payload)
            if self._relay is not None:
                self._relay.front_resized(*self._size)
        elif self._watched is not None:
            if frame.type is FrameType.INPUT:
                session, watch = self._watched
                session.handover.typed(watch, frame.payload)
        elif self._relay is None:
            # Input before READY: there is nowhere for it to go.
            return
        elif frame.type is FrameType.INPUT:
            self._relay.front_data(frame.payload)
        elif frame.type is FrameType.EOF:
            self._relay.front_eof()
        elif frame.type is FrameType.SIGNAL:
            name = frame.payload.decode("ascii", "replace")
            if not (name.isascii() and name.isalnum() and len(name) <= 16):
                raise link.LinkError("a signal without a proper name")
            self._relay.front_signal(name)
        else:
            raise link.LinkError(f"{frame.type.name} is not for the gateway")

    async def _begin(self, opening: dict[str, Any]) -> None:
        try:
            ticket = await self._core.blocking.run(
                tickets.redeem_ticket,
                token=str(opening.get("ticket", "")),
                now=timezone.now(),
            )
            if ticket is None:
                raise OpeningRefusedError("this link is no longer valid; open it again")
            if ticket.purpose == TicketPurpose.TERMINAL:
                await self._begin_terminal(ticket, _terminal(opening))
            else:
                await self._begin_watch(ticket)
        except (OpeningRefusedError, ChannelRefusedError) as error:
            self._refuse(str(error))
        except Exception:
            self._refuse("this is not possible now")
            raise

    def _refuse(self, line: str) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.client_lost(None)
        if not self._lost and not self._closing:
            self._closing = True
            self._transport.write(link.encode_frame(FrameType.ERROR, line.encode()))
            self._transport.close()

    # A browser terminal.

    async def _begin_terminal(self, ticket: RedeemedTicket, terminal: Terminal) -> None:
        if ticket.grant_id is None:
            raise OpeningRefusedError("this link is no longer valid; open it again")
        permit = await self._core.blocking.run(
            authorization.authorize_grant,
            user=ticket.user,
            grant_id=ticket.grant_id,
            source_address=ticket.source_address,
            door="browser",
            now=timezone.now(),
        )
        if isinstance(permit, Denied):
            raise OpeningRefusedError(authorization.outside_message(permit))
        session = await open_session(
            self._core, permit, client=self, client_version="browser terminal"
        )
        self._session = session
        if self.gone.is_set():
            session.client_lost(None)
            return
        relay = await session.open_channel(
            ChannelRequest(kind="shell", terminal=terminal), self
        )
        if self.gone.is_set():
            relay.front_lost()
            return
        self._relay = relay
        self._send_json(
            FrameType.READY,
            {
                "kind": "terminal",
                "session_id": str(session.session_id),
                "session": session.short_id,
                "asset": permit.asset_name,
                "account": permit.account_name,
                "deadline": permit.deadline.isoformat(),
            },
        )
        if self._size is not None and self._size != (terminal.columns, terminal.rows):
            relay.front_resized(*self._size)
        if self._full:
            relay.front_full()
        notice = self._owner.notices.current
        for line in notice.first_lines(permit, session.deadline):
            relay.tell(line)

    def write(self, data: bytes, datatype: int | None = None) -> None:
        """Send output (`FrontChannel`)."""
        kind = FrameType.OUTPUT if datatype is None else FrameType.STDERR
        for start in range(0, len(data), PIECE):
            self._send(kind, data[start : start + PIECE])

    def tell_beside(self, line: str) -> None:
        """Show a line beside the terminal (`TellsBeside`)."""
        self._send(FrameType.NOTICE, line.removeprefix("Sluice: ").encode())

    def write_eof(self) -> None:
        """Say that no more output comes (`FrontChannel`)."""
        self._send(FrameType.EOF)

    def pause_reading(self) -> None:
        """Deliver no more input (`FrontChannel`)."""
        if not self._lost:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Deliver input again (`FrontChannel`)."""
        if not self._lost and not self._closing:
            self._transport.resume_reading()

    def exit(self, status: int) -> None:
        """Report how it ended (`FrontChannel`)."""
        self._exit({"status": status, "signal": None})

    def exit_with_signal(
        self,
        signal: str,
        core_dumped: bool = False,  # noqa: ARG002
        msg: str = "",  # noqa: ARG002
        lang: str = "",  # noqa: ARG002
    ) -> None:
        """Report which signal ended it (`FrontChannel`)."""
        self._exit({"status": None, "signal": signal})

    def is_closing(self) -> bool:
        """Say whether nothing more can be written (`FrontChannel`)."""
        return self._lost or self._closing

    def close(self, line: str = "") -> None:
        """Close, with the reason when there is one (both protocols)."""
        self._exit({"status": None, "signal": None, "message": line or None})

    def hang_up(self, line: str, *, stop: Callable[[], None]) -> bool:  # noqa: ARG002
        """Say that it closes by `close` only (`ClientSide`)."""
        return False

    def _exit(self, result: dict[str, Any]) -> None:
        if self.is_closing():
            return
        self._send_json(FrameType.EXIT, {"message": None, **result})
        self._closing = True
        self._transport.close()
        # A portal that does not read must not keep the stream.
        asyncio.get_running_loop().call_later(CLOSE_SECONDS, self.abort)

    async def drained(self) -> None:
        """Return when the portal has taken everything, or is gone (`ClientSide`)."""
        if self._closing:
            await self.gone.wait()
        else:
            await self._room.wait()

    def _send(self, kind: FrameType, payload: bytes = b"") -> None:
        if not self.is_closing():
            self._transport.write(link.encode_frame(kind, payload))

    def _send_json(self, kind: FrameType, value: dict[str, Any]) -> None:
        if not self.is_closing():
            self._transport.write(link.encode_json(kind, value))

    # A watch.

    async def _begin_watch(self, ticket: RedeemedTicket) -> None:
        session = self._core.live.get(ticket.session_id) if ticket.session_id else None
        if session is None:
            raise OpeningRefusedError("the session has ended")
        watch = await begin_live_watch(
            self._core.blocking,
            session,
            user=ticket.user,
            asked=AskedBy("portal", ticket.source_address),
            keyboard=self,
        )
        self._watched = session, watch
        permit = session.permit
        self._send_json(
            FrameType.READY,
            {
                "kind": "watch",
                "session_id": str(session.session_id),
                "session": session.short_id,
                "asset": permit.asset_name,
                "account": permit.account_name,
                "deadline": permit.deadline.isoformat(),
            },
        )
        session_over = await watch.run(
            self._core.blocking, self._send_event, gone=self.gone
        )
        if session_over:
            self.close("the session has ended")
        else:
            self._refuse(watch.why)

    def may_type(self, *, allowed: bool) -> None:
        """Tell the portal that typing passes from now on, or no more."""
        self._send_json(FrameType.TYPING, {"allowed": allowed})

    async def _send_event(self, event: Event) -> None:
        await self._room.wait()
        for start in range(0, max(1, len(event.data)), PIECE):
            piece = link.WatchedEvent(
                self._next_event,
                event.kind,
                event.channel,
                event.microseconds,
                event.data[start : start + PIECE],
            )
            self._next_event += 1
            self._send(FrameType.EVENT, link.encode_event(piece))


def _terminal(opening: dict[str, Any]) -> Terminal:
    """Return the terminal a browser asked for, within sane bounds."""
    term = str(opening.get("term", "xterm-256color"))
    if not (term.isascii() and term.isprintable() and 0 < len(term) <= 64):
        term = "xterm-256color"
    return Terminal(
        term,
        _count(opening.get("columns"), 80),
        _count(opening.get("rows"), 24),
    )


def _count(value: object, default: int) -> int:
    return value if isinstance(value, int) and 0 < value <= 65535 else default
