"""A live session: one connection of an engineer to one asset, from permit to end.

States as in `sessions.lifecycle`: opening, active, frozen, ending, ended. Channels open
only while it is active (R19). The deadline is a timer on the monotonic clock, armed
from the permit, so that it needs neither database nor workers. However a session ends,
both legs end together: the engineer is told in one line, sockets are closed at once,
and the paperwork (channels, lease, recording, row) follows in a task of its own.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import uuid
from collections.abc import Awaitable, Callable, Collection, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

import asyncssh
from django.db import Error as DatabaseError
from django.utils import timezone

from apps.access.permits import ConnectionPermit
from apps.audit.operations import Party
from apps.gateway.blocking import Blocking
from apps.gateway.channel_kinds import is_granted
from apps.gateway.desk import SessionDesk, spoken
from apps.gateway.device_sign_in import SIGN_IN_SECONDS, SignInRefusedError
from apps.gateway.exec_relay import ExecRelay
from apps.gateway.file_ledger import FileLedger
from apps.gateway.forward_relay import FORWARD_LIMIT, ForwardRelay, ForwardRequest
from apps.gateway.forwarding import addresses_of
from apps.gateway.handover import Handover
from apps.gateway.held_uploads import HeldUploads
from apps.gateway.idle import IdleWatch
from apps.gateway.keyboard import Keyboard
from apps.gateway.live_control import LiveControl
from apps.gateway.live_watch import LiveWatch
from apps.gateway.owned_tasks import OwnedTasks
from apps.gateway.relay import (
    ChannelRequest,
    ChannelResult,
    FrontChannel,
    Relay,
)
from apps.gateway.session_context import (
    DATABASE_AWAY,
    AssetRefusedError,
    ChannelRefusedError,
    ClientSide,
    OpenRecording,
)
from apps.gateway.settling import settle_recording, settle_session, write_down
from apps.gateway.sftp_policy import SftpPolicy, Usage
from apps.gateway.sftp_relay import SftpRelay
from apps.gateway.terminal_lines import PATIENCE_SECONDS
from apps.gateway.upstream import Upstream, UpstreamSettings
from apps.gateway.upstream_connection import UpstreamConnection
from apps.inventory.services import Service
from apps.inventory.sign_ins import SignIn
from apps.recordings.frames import EventKind
from apps.recordings.manifest import FileNote, encode_note
from apps.recordings.output import RecordingFailedError
from apps.recordings.writer import Recorder, RecorderThread
from apps.sessions import operations as sessions
from apps.sessions import terminals
from apps.sessions.lifecycle import EndReason, SessionState
from apps.sessions.queries import SessionVerdict

logger = logging.getLogger(__name__)

CHANNEL_LIMIT: Final = 10
"""Shells and commands at the same time on one session, as OpenSSH's MaxSessions."""

ASSET_REFUSALS: Final = 20
"""Channels an asset may ask for in vain before the session is cut."""

CHANNEL_SECONDS: Final = 20.0
"""Longest opening of a channel on the asset."""

ESCAPE: Final = 0x1D
"""Ctrl-]"""

OLD_PERMIT: Final = dt.timedelta(seconds=1)
"""Age from which a permit is not relied on, though nobody said that anything changed:
what another process changes may be announced late or not at all."""

WARNING_MINUTES: Final = (15, 5, 1)

PAPER_SECONDS: Final = 2.0
"""Longest wait for the rows of channels before the session's own is closed."""

CROWD: Final = 16
SETTLE_AFTER_SECONDS: Final = 0.15
"""Between the end of a session and its paperwork, when more than a crowd end at once:
every socket is closed before the first row is written, as the threads that write would
take turns with the closing."""

GATHER_SECONDS, CLEAR_SECONDS = 0.002, 0.02
"""To wait for a crowd's timers; from its last word to the closing of what it leaves."""

DRAIN_SECONDS: Final = 30.0
"""Longest wait for a client to take the last output after the asset closed."""


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
    changed_at: dt.datetime | None = None
    """When something changed that decisions depend on, as far as it was heard of."""
    settling: int = 0
    """Sessions that have ended and are not written down."""
    escape: int | None = ESCAPE
    """The byte that begins an in-band command; None for none."""
    draining: bool = False
    """True while the gateway stops: no new session opens."""
    due: list[LiveSession] = field(default_factory=list)
    """Sessions whose deadline has just come."""

    def end_due(self) -> None:
        """End the sessions whose deadline has come, hundreds of them in one go."""
        due, self.due = self.due, []
        crowd = self.settling + len(due) > CROWD
        for session in due:
            session.time_is_up(crowd=crowd)


class LiveSession:
    """One session. Made by `opening.open_session`; ends through `end`, once."""

    def __init__(
        self,
        core: Core,
        *,
        permit: ConnectionPermit,
        session_id: uuid.UUID,
        short_id: str,
        client: ClientSide,
        upstream: Upstream,
        recording: OpenRecording,
    ) -> None:
        self.permit = permit
        self.deadline = permit.deadline
        """The permit's, unless the grant was extended since."""
        self.session_id = session_id
        self.short_id = short_id
        self.state = SessionState.OPENING
        self.relays: dict[int, Relay] = {}
        self.ended = asyncio.Event()
        self._core = core
        self._client = client
        self._upstream = upstream
        self._recording = recording
        self._next_number = 1
        self._opening: list[ChannelRequest] = []
        self._asset_refusals = 0
        self._checked: asyncio.Task[None] | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._ends_at = 0.0
        # Why the session's end has begun; None while it has not.
        self._held_for: EndReason | None = None
        self._end_holds_input = False
        # What the engineer is told when the last channel has ended by itself.
        self._drained_line = ""
        self._person_holds_input = False
        self._noting = asyncio.Lock()
        self._ended_activity = 0
        self.watchers: dict[uuid.UUID, LiveWatch] = {}
        """Who watches just now."""
        self.control = LiveControl(self)
        self.handover = Handover(self, blocking=core.blocking, spawn=core.tasks.spawn)
        self.desk = SessionDesk(
            self,
            blocking=core.blocking,
            spawn=core.tasks.spawn,
            escape=core.escape,
        )
        self._idle = IdleWatch(
            self.desk,
            lock_seconds=permit.idle_lock_minutes * 60.0,
            end_seconds=permit.idle_end_minutes * 60.0,
        )
        self._papers: set[asyncio.Task[bool]] = set()
        self.file_channels: set[int] = set()
        """Numbers of the channels that carry files, not something to look at."""
        self._usage = Usage()
        self._files = FileLedger(core, core.tasks, recording.recording_id)
        self._uploads = HeldUploads(core, core.tasks, session_id)

    @property
    def recorder(self) -> Recorder:
        """Return the session's recorder."""
        return self._recording.recorder

    @property
    def recording_id(self) -> uuid.UUID:
        """Return the identifier of the session's recording."""
        return self._recording.recording_id

    @property
    def is_frozen(self) -> bool:
        """Say whether input is held."""
        return self.state is SessionState.FROZEN

    @property
    def has_open_terminal(self) -> bool:
        """Say whether a line shown now would be seen."""
        return any(
            relay.has_terminal and relay.is_open for relay in self.relays.values()
        )

    @property
    def allows_local(self) -> bool:
        """Say whether this machine itself may be a destination (demo and tests)."""
        return self._core.upstream.allow_local_targets

    @property
    def carries_uploads(self) -> bool:
        """Say whether a released upload may be delivered over it now."""
        return (
            self.takes_typing()
            and self.permit.sign_in == SignIn.SSH
            and Service.SFTP_UP in self.permit.services
        )

    @property
    def connection(self) -> UpstreamConnection:
        """Return the connection to the asset."""
        return self._upstream.connection

    def note_file(self, note: FileNote) -> None:
        """Put what the gateway itself did with a file into the manifest.

        Raises: RecordingFailedError.
        """
        self.recorder.add(EventKind.FILE, 0, encode_note(note))
        self._files.add(0, note)

    @property
    def engineer_name(self) -> str:
        """Return the handle of the session's person."""
        return self.permit.handle

    @property
    def opens_terminal(self) -> bool:
        """Say whether a terminal is just being opened."""
        return any(request.terminal is not None for request in self._opening)

    def takes_typing(self) -> bool:
        """Say whether input flows: active, and not locked."""
        return self.is_active() and not self.desk.is_locked

    def keyboard_of(self, relay: Relay) -> Keyboard | None:
        """Return who sorts what the engineer types there."""
        return self.desk.keyboard_of(relay)

    def watch_ended(self, watch: LiveWatch) -> None:
        """Forget a watch, and what was handed to it."""
        self.watchers.pop(watch.watch_id, None)
        self.handover.watch_ended(watch)

    def is_active(self) -> bool:
        """Say whether channels may open and input may flow."""
        return self.state is SessionState.ACTIVE

    def activate(self, *, now: dt.datetime) -> None:
        """Arm the timers and let channels open."""
        self.state = SessionState.ACTIVE
        self._core.live[self.session_id] = self
        self._arm(now)
        self._idle.start()
        self._upstream.on_lost(self._asset_lost)
        self._upstream.connection.on_refused_channel = self._asset_refused
        self.recorder.on_failure(self._recording_failed)
        changed_at, issued_at = self._core.changed_at, self.permit.issued_at
        is_old = now - issued_at >= OLD_PERMIT
        if is_old or changed_at is None or changed_at >= issued_at:
            # The decision may have changed while the asset was being reached.
            self._checked = self._core.tasks.spawn(
                self._check(), f"check {self.short_id}"
            )

    async def _check(self) -> None:
        await self._core.check_now()

    def _arm(self, now: dt.datetime) -> None:
        loop = asyncio.get_running_loop()
        remaining = (self.deadline - now).total_seconds()
        end = self._ends_at = loop.time() + remaining
        self._timers.append(loop.call_at(end, self.deadline_reached))
        warnings = [60.0 * minutes for minutes in WARNING_MINUTES]
        before = [seconds for seconds in warnings if seconds < remaining]
        if not before:
            before = [remaining / 2]
        for seconds in before:
            self._timers.append(loop.call_at(end - seconds, self._warn, seconds))

    @property
    def takes_extension(self) -> bool:
        """Say whether the deadline can still move: its end has not begun."""
        return self._held_for is None and self._goes_on

    def move_deadline(self, deadline: dt.datetime, *, now: dt.datetime) -> None:
        """End later, because the grant was extended; never earlier."""
        if not self.takes_extension or deadline <= self.deadline:
            return
        self.deadline = deadline
        self._cancel_timers()
        self._arm(now)
        self.notify(
            f"Sluice: more time was approved; this session ends at {deadline:%H:%M} UTC"
        )

    def _warn(self, seconds: float) -> None:
        self.warn(
            f"Sluice: {spoken(seconds)} left of this session",
            patience=min(PATIENCE_SECONDS, seconds / 4),
        )

    def notify(self, line: str) -> None:
        """Show one line on every terminal of the session."""
        for relay in list(self.relays.values()):
            relay.tell(line)

    def warn(self, line: str, *, patience: float = PATIENCE_SECONDS) -> None:
        """Show one line on every terminal when it disturbs least, within `patience`."""
        for relay in list(self.relays.values()):
            relay.warn(line, patience=patience)

    async def open_channel(self, request: ChannelRequest, front: FrontChannel) -> Relay:
        """Open a channel on the asset and relay between it and `front`.

        Raises: ChannelRefusedError. Nothing was sent to the asset when the refusal is
        the gateway's own.
        """
        self._check_may_open(request)
        self._check_room(request)
        self._opening.append(request)
        try:
            if self._next_number > 1 or isinstance(request, ForwardRequest):
                # The permit was decided on just before the first channel; a forward
                # may come hours after it.
                await self._core.check_now()
                self._check_may_open(request)
            return await self._open_counted(request, front)
        finally:
            self._opening.remove(request)

    def _check_may_open(self, request: ChannelRequest) -> None:
        if self.state is not SessionState.ACTIVE:
            raise ChannelRefusedError(f"the session is {self.state.value}")
        if self.desk.is_locked:
            raise ChannelRefusedError("the session is locked")
        guest = self.handover.guest
        if guest is not None and request.terminal is not None:
            raise ChannelRefusedError(f"{guest.name} types in this session")
        if not is_granted(request.kind, request.service, self.permit):
            raise ChannelRefusedError(
                f"the grant does not include {request.service_text}"
            )
        if request.kind != "shell" and self.permit.sign_in != SignIn.SSH:
            raise ChannelRefusedError(
                "this device asks for its password on the terminal: it has shells only"
            )

    def _check_room(self, request: ChannelRequest) -> None:
        forward = isinstance(request, ForwardRequest)
        open_now = sum(
            isinstance(other, ForwardRequest) is forward
            for other in (
                *(relay.request for relay in self.relays.values()),
                *self._opening,
            )
        )
        limit = FORWARD_LIMIT if forward else CHANNEL_LIMIT
        if open_now >= limit:
            what = "forwards" if forward else "channels"
            raise ChannelRefusedError(f"a session has at most {limit} {what} at a time")

    async def _open_counted(
        self, request: ChannelRequest, front: FrontChannel
    ) -> Relay:
        if isinstance(request, ForwardRequest):
            request = replace(
                request,
                addresses=await addresses_of(
                    request.destination, allow_local=self.allows_local
                ),
            )
        number = self._next_number
        self._next_number += 1
        try:
            await self._core.blocking.run(
                sessions.open_channel,
                session_id=self.session_id,
                number=number,
                kind=request.kind,
                has_pty=request.terminal is not None,
                command=request.command_text,
                now=timezone.now(),
            )
        except DatabaseError as error:
            logger.exception("channel %d of %s cannot open", number, self.short_id)
            raise ChannelRefusedError(DATABASE_AWAY) from error
        if self._checked is not None:
            await asyncio.wait({self._checked})
        relay = self._make_relay(number, request, front)
        if not self.is_active():
            relay.abandon()
            raise ChannelRefusedError(f"the session is {self.state.value}")
        self.relays[number] = relay
        if relay.has_terminal:
            self.desk.take(relay)
        try:
            async with asyncio.timeout(CHANNEL_SECONDS + SIGN_IN_SECONDS):
                await relay.open_back(self._upstream.connection)
        except (asyncssh.Error, OSError, TimeoutError) as error:
            relay.abandon()
            what = str(error) or "it did not answer"
            raise AssetRefusedError(
                f"the asset refused the {request.kind}: {what}"
            ) from error
        except SignInRefusedError as error:
            relay.abandon()
            raise ChannelRefusedError(str(error)) from error
        except RecordingFailedError as error:
            relay.abandon()
            self._recording_failed(error)
            raise ChannelRefusedError("the session cannot be recorded") from error
        if not self.is_active():
            relay.freeze()
        return relay

    def _make_relay(
        self, number: int, request: ChannelRequest, front: FrontChannel
    ) -> Relay:
        options: dict[str, Any] = {
            "number": number,
            "request": request,
            "front": front,
            "recorder": self.recorder,
            "on_end": self._channel_ended,
            "on_failure": self._recording_failed,
        }
        if isinstance(request, ForwardRequest):
            return ForwardRelay(**options)
        moves_files = request.kind == "exec" and request.terminal is None
        if request.kind == "sftp" or moves_files:
            options["policy"] = SftpPolicy(
                self.permit.services, self.permit.file_rules, self._usage
            )
            options["on_file"] = self._files.add
        if request.kind == "sftp":
            self.file_channels.add(number)
            return SftpRelay(uploads=self._uploads, **options)
        return ExecRelay(**options) if moves_files else Relay(**options)

    def _channel_ended(self, relay: Relay, result: ChannelResult) -> None:
        self.relays.pop(relay.number, None)
        self.handover.relay_ended(relay)
        self.desk.drop(relay)
        self._ended_activity += relay.activity + 1
        writing = write_down(
            self._core,
            f"the end of channel {relay.number} of {self.short_id}",
            sessions.close_channel,
            session_id=self.session_id,
            number=relay.number,
            exit_status=result.exit_status,
            exit_signal=result.exit_signal,
            bytes_in=result.bytes_in,
            bytes_out=result.bytes_out,
            now=timezone.now(),
        )
        paper = self._core.tasks.spawn(
            self._when_closed(writing),
            f"close channel {relay.number} of {self.short_id}",
        )
        self._papers.add(paper)
        paper.add_done_callback(self._papers.discard)
        if self._held_for is not None and self._drained_line and not self.relays:
            self.end(self._held_for, self._drained_line)

    async def _when_closed(self, writing: Coroutine[Any, Any, None]) -> None:
        """Write down, but in a crowd not before all sockets are closed."""
        try:
            await self._let_a_crowd_close()
        except asyncio.CancelledError:
            writing.close()
            raise
        await writing

    def deadline_reached(self) -> None:
        """End at once, together with a crowd whose timers come within a moment."""
        core, loop = self._core, asyncio.get_running_loop()
        if not core.due:
            until = loop.time() + GATHER_SECONDS
            crowd = sum(other._ends_at <= until for other in core.live.values())
            wait = GATHER_SECONDS if crowd > CROWD else 0.0
            loop.call_later(wait, core.end_due)
        core.due.append(self)

    def time_is_up(self, *, crowd: bool = False) -> None:
        """End as the asset's owner decided: cut, freeze, or drain."""
        self._end_by_mode(
            EndReason.EXPIRED, "the time is up", self.permit.grace_seconds, crowd=crowd
        )

    def gateway_stops(self, within: float) -> None:
        """End as the asset's owner decided, in `within` seconds at most."""
        self._end_by_mode(
            EndReason.GATEWAY_STOPPED,
            "the gateway is being stopped",
            min(within, self.permit.grace_seconds),
        )

    def _end_by_mode(
        self, reason: EndReason, line: str, grace: float, *, crowd: bool = False
    ) -> None:
        if self._held_for is not None or not self._goes_on:
            # Ending already, and that has its own limit.
            return
        if self.permit.end_mode == "freeze" and grace > 0:
            self._freeze(reason, line, grace)
        elif self.permit.end_mode == "drain" and grace > 0 and self.relays:
            self._drain(reason, line, grace)
        else:
            self.end(reason, line, crowd=crowd)

    @property
    def _goes_on(self) -> bool:
        return self.state in {SessionState.ACTIVE, SessionState.FROZEN}

    def hold(self, line: str) -> None:
        """Hold input because a person wants it, and say so. The deadline holds on."""
        self._person_holds_input = True
        if self._goes_on:
            self.state = SessionState.FROZEN
        self._hold_or_release()
        self.notify(line)
        self.note_state()

    def release(self, line: str) -> None:
        """Let input through again, unless the end of the session holds it."""
        self._person_holds_input = False
        if self._end_holds_input:
            return
        if self.is_frozen:
            self.state = SessionState.ACTIVE
        self._hold_or_release()
        self.notify(line)
        self.note_state()

    def _hold_or_release(self) -> None:
        held = self._person_holds_input or self._end_holds_input
        for relay in list(self.relays.values()):
            if held:
                relay.freeze()
            else:
                relay.unfreeze()

    def _freeze(self, reason: EndReason, line: str, grace: float) -> None:
        self.state = SessionState.FROZEN
        self._held_for = reason
        self._end_holds_input = True
        self._cancel_timers()
        self._hold_or_release()
        self.notify(f"Sluice: {line}; input is held, closing in {grace:.0f} s")
        self._end_later(reason, line, grace)
        self.note_state()

    def _drain(self, reason: EndReason, line: str, grace: float) -> None:
        self.state = SessionState.ENDING
        self._held_for = reason
        self._drained_line = line
        self.handover.give_back("the session ends")
        self._cancel_timers()
        self.notify(f"Sluice: {line}; what runs may finish within {grace:.0f} s")
        self._end_later(reason, line, grace)
        self.note_state()

    def _end_later(self, reason: EndReason, line: str, grace: float) -> None:
        loop = asyncio.get_running_loop()
        self._timers.append(loop.call_later(grace, self.end, reason, line))

    def note_state(self) -> None:
        """Write the session's state down as it is now, after what waits for that."""
        self._core.tasks.spawn(
            self._write_state(self.state), f"note the state of {self.short_id}"
        )

    async def _write_state(self, state: SessionState) -> None:
        async with self._noting:
            if state is SessionState.ENDING:
                await self._core.blocking.run(
                    sessions.note_ending,
                    session_id=self.session_id,
                    now=timezone.now(),
                )
            elif state is not SessionState.ENDED:
                await self._core.blocking.run(
                    sessions.note_frozen,
                    session_id=self.session_id,
                    frozen=state is SessionState.FROZEN,
                    now=timezone.now(),
                )

    def note_shown(self, numbers: Collection[int]) -> None:
        """Write down that these messages were shown."""
        self._core.tasks.spawn(
            self._core.blocking.run(
                terminals.note_messages_shown,
                session_id=self.session_id,
                numbers=numbers,
                now=timezone.now(),
            ),
            f"note messages of {self.short_id}",
        )

    def apply(self, verdict: SessionVerdict, *, crowd: bool = False) -> None:
        """Do what the decision says now; `crowd`: with many. Repeating changes nothing.

        A revocation cuts, unless the asset is in operation: then it freezes first.
        """
        if verdict.reason is EndReason.EXPIRED:
            self.time_is_up(crowd=crowd)
            return
        if self._held_for is verdict.reason:
            return
        grace = self.permit.grace_seconds
        if (
            verdict.reason is EndReason.REVOKED
            and self.permit.in_operation
            and grace > 0
            and self._held_for is None
            and self._goes_on
        ):
            self._freeze(verdict.reason, verdict.message, grace)
        else:
            self.end(verdict.reason, verdict.message, crowd=crowd)

    def client_lost(self, error: Exception | None) -> None:
        """Note that the engineer's connection has gone."""
        if error is None or not self.relays:
            self.end(
                EndReason.FINISHED, "you disconnected", "the engineer disconnected"
            )
        else:
            self.end(EndReason.CLIENT_LOST, "your connection broke", str(error))

    def _asset_refused(self, kind: str) -> None:
        """Write down that the asset wanted a channel; cut one that does not stop.

        A compromised asset must not reach another cell through the engineer (story A7).
        """
        self._asset_refusals += 1
        if self._asset_refusals > ASSET_REFUSALS:
            self.end(
                EndReason.TARGET_LOST,
                "the asset kept opening channels",
                f"the asset asked for more than {ASSET_REFUSALS} channels",
            )
            return
        self._core.tasks.spawn(
            self._core.blocking.run(
                sessions.record_channel_refused,
                session_id=self.session_id,
                actor=Party("asset", str(self.permit.asset_id), self.permit.asset_name),
                kind=kind,
                reason="assets open no channels",
                source_address=self.permit.address,
                now=timezone.now(),
            ),
            f"note a refused channel of {self.short_id}",
        )

    def _asset_lost(self, error: Exception | None) -> None:
        """Let the engineer have the last output, then end."""
        if self.state in {SessionState.ENDING, SessionState.ENDED}:
            return
        self.state = SessionState.ENDING
        self._core.tasks.spawn(
            self._end_drained(str(error or "closed by the asset")),
            f"drain {self.short_id}",
        )

    async def _end_drained(self, detail: str) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._client.drained()
        self.end(EndReason.TARGET_LOST, "the asset closed the connection", detail)

    def _recording_failed(self, failure: RecordingFailedError) -> None:
        self.end(
            EndReason.RECORDING_FAILED,
            "the recording cannot be written, so nothing may run",
            str(failure),
        )

    @property
    def activity(self) -> int:
        """Return a number that grows with whatever counts as activity."""
        return self._ended_activity + sum(
            relay.activity for relay in self.relays.values()
        )

    @property
    def seconds_left(self) -> float:
        """Return the seconds until the deadline, by the monotonic clock."""
        return max(0.0, self._ends_at - asyncio.get_running_loop().time())

    def _cancel_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def end(
        self, reason: EndReason, line: str, detail: str = "", *, crowd: bool = False
    ) -> None:
        """End the session now; `line` is for the engineer, `detail` for the ledger.

        The engineer's socket goes first, then the asset's; the rest is a task. One of a
        `crowd` is told by the closing message alone; what else is to be done follows.
        """
        if self.ended.is_set() or self.session_id not in self._core.live:
            return
        del self._core.live[self.session_id]
        self.state = SessionState.ENDED
        self._upstream.owner.on_lost = None
        self._core.settling += 1
        relays = list(self.relays.values())
        text = f"*** Sluice: {line} ***"
        brief = crowd and not any(relay.full_screen for relay in relays)
        if brief and self._client.hang_up(
            line, stop=partial(self._stop_silently, text)
        ):
            asyncio.get_running_loop().call_later(
                CLEAR_SECONDS, self._clear_away, reason, line, detail
            )
            return
        for relay in relays:
            relay.say_last(text)
        self._stop_relays()
        self._clear_away(reason, line, detail)

    def _stop_relays(self) -> None:
        for relay in list(self.relays.values()):
            relay.stop()

    def _stop_silently(self, text: str) -> None:
        """Stop; what no terminal shows is recorded all the same."""
        for relay in list(self.relays.values()):
            relay.note_last(text)
            relay.stop()

    def _clear_away(self, reason: EndReason, line: str, detail: str) -> None:
        """Close both sockets and begin the paperwork; the client's goes first."""
        self._cancel_timers()
        self._idle.stop()
        self.handover.close()
        self._client.close(line)
        # All clients of a turn of the loop are told before the first asset's socket.
        asyncio.get_running_loop().call_soon(self._upstream.close_now)
        self._core.tasks.spawn(
            self._settle(reason, detail or line), f"settle {self.short_id}"
        )

    async def _settle(self, reason: EndReason, detail: str) -> None:
        """Do the paperwork: the row and the lease first, then the recording."""
        try:
            await self._upstream.connection.wait_closed()
            await self._let_a_crowd_close()
            for relay in list(self.relays.values()):
                relay.abandon()
            if self._papers:
                # The row says how the channels ended before it says that it did.
                await asyncio.wait(self._papers, timeout=PAPER_SECONDS)
            await settle_session(self._core, self.session_id, reason, detail)
            await self._files.finish()
            await settle_recording(self._core, self._recording)
        finally:
            self._core.settling -= 1
            self.ended.set()

    async def _let_a_crowd_close(self) -> None:
        if self._core.settling > CROWD:
            await asyncio.sleep(SETTLE_AFTER_SECONDS)
