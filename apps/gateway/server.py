"""The engineer's side: SSH messages in, questions to authentication and sessions out.

Every channel kind but `session` and `direct-tcpip` is refused with one clear line,
whatever the grant says, and so is every subsystem but `sftp`. There is no shell, file
or forward of the gateway's own (R25): nothing here starts a process, opens a path or
dials. `sluice` commands (`commands`) are operations on live sessions, no programs.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import uuid
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, ParamSpec, TypeVar, cast

import asyncssh
from asyncssh.constants import (
    DISC_BY_APPLICATION,
    DISC_HOST_NOT_ALLOWED_TO_CONNECT,
    DISC_ILLEGAL_USER_NAME,
    DISC_SERVICE_NOT_AVAILABLE,
    DISC_TOO_MANY_CONNECTIONS,
    OPEN_ADMINISTRATIVELY_PROHIBITED,
    OPEN_RESOURCE_SHORTAGE,
)
from django.db import Error as DatabaseError
from django.utils import timezone

from apps.access import authorization
from apps.access import queries as access
from apps.access.denials import Denied
from apps.access.permits import ConnectionPermit
from apps.accounts import operations as accounts
from apps.accounts import queries as people
from apps.accounts import ssh_sign_in
from apps.accounts.operations import FactorVerdict
from apps.audit.operations import Party
from apps.gateway.authentication import (
    CONSENT_WORD,
    Authentication,
    KeyOwner,
    Stage,
    UserStringError,
)
from apps.gateway.blocking import Blocking
from apps.gateway.commands.command_session import CommandSession
from apps.gateway.engineer_connection import (
    PREFIX,
    EngineerChannel,
    EngineerConnection,
)
from apps.gateway.fastpath_forward import ForwardChannel, new_forward_channel
from apps.gateway.forward_relay import FORWARD_LIMIT, FORWARD_WINDOW
from apps.gateway.forwarding import AskedForward
from apps.gateway.front_forward import open_forward
from apps.gateway.front_session import REFUSAL_SECONDS, FrontSession
from apps.gateway.jumps import NO_ASSET_LINE, JumpHost, Jumps, SignedIn
from apps.gateway.limits import LoginGate
from apps.gateway.live import CHANNEL_LIMIT, Core, LiveSession
from apps.gateway.notices import Notices
from apps.gateway.opening import open_session
from apps.gateway.session_context import DATABASE_AWAY, OpeningRefusedError
from apps.gateway.upstream import MAX_PACKET, WINDOW
from apps.gateway.user_string import ParsedLogin
from apps.sessions import operations as sessions

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

DOOR: Final = "ssh"
LAST_WORD_SECONDS: Final = 0.01
"""For the client to put the last line on its terminal."""

REFUSALS: Final = 100
"""Refused requests of one connection; who asks for more is disconnected. Refused
forwards count apart: a browser behind `ssh -D` tries many, so that from then on they
are refused without being written down."""


class DatabaseFactors:
    """Keys, codes and graces from the database."""

    def __init__(
        self, blocking: Blocking, *, consent_since: dt.datetime | None
    ) -> None:
        self._blocking = blocking
        self._consent_since = consent_since
        self.source_address = ""
        self.code_checked_at: dt.datetime | None = None
        self.grace_checked_at: dt.datetime | None = None

    async def find_key(self, handle: str, fingerprint: str) -> KeyOwner | None:
        """Return the owner when the key is a usable one of the person `handle`."""
        return await self._ask(_find_key, handle, fingerprint)

    async def check_code(self, owner: KeyOwner, code: str) -> FactorVerdict:
        """Return whether the code is right; each code is accepted once."""
        self.code_checked_at = timezone.now()
        return await self._ask(
            accounts.verify_second_factor,
            user=owner.user,
            code=code,
            now=self.code_checked_at,
        )

    async def sign_in_by_grace(
        self, owner: KeyOwner, login: ParsedLogin
    ) -> dt.timedelta | None:
        """Sign in by the key alone; return the age of the full sign-in, None if not."""
        self.grace_checked_at = timezone.now()
        return await self._ask(
            _sign_in_by_grace,
            owner=owner,
            asset_name=login.asset,
            source_address=self.source_address,
            not_before=self._consent_since,
            now=self.grace_checked_at,
        )

    async def _ask(
        self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Ask the database; a client that cannot be judged is sent away with a line.

        Raises: asyncssh.DisconnectError.
        """
        try:
            return await self._blocking.run(function, *args, **kwargs)
        except DatabaseError as error:
            logger.exception("nobody can sign in")
            raise asyncssh.DisconnectError(
                DISC_SERVICE_NOT_AVAILABLE, f"{PREFIX}{DATABASE_AWAY}"
            ) from error


def _find_key(handle: str, fingerprint: str) -> KeyOwner | None:
    key = people.usable_key(handle=handle, fingerprint=fingerprint)
    if key is None:
        return None
    return KeyOwner(
        user=key.user,
        key_id=key.pk,
        has_second_factor=people.totp_device(key.user) is not None,
    )


def _sign_in_by_grace(
    *,
    owner: KeyOwner,
    asset_name: str | None,
    source_address: str,
    not_before: dt.datetime | None,
    now: dt.datetime,
) -> dt.timedelta | None:
    return ssh_sign_in.sign_in_by_grace(
        user=owner.user,
        key_id=owner.key_id,
        minutes=access.grace_minutes_for(owner.user, asset_name=asset_name, now=now),
        source_address=source_address,
        now=now,
        not_before=not_before,
    )


@dataclass(slots=True)
class Door:
    """What the connections of the SSH listener share."""

    core: Core
    gate: LoginGate
    connections: set[EngineerConnection]
    notices: Notices
    jump_host: JumpHost | None = None


class Engineer(asyncssh.SSHServer):
    """What one connection is and has: its sign-in, then its live session.

    Also the session's `ClientSide`.
    """

    def __init__(self, door: Door) -> None:
        self._door = door
        self._core = door.core
        self._notice = door.notices.current
        self._factors = DatabaseFactors(
            door.core.blocking, consent_since=self._notice.consent_since
        )
        self.authentication = Authentication(
            self._factors, consent_required=self._notice.consent_required
        )
        self._banner_sent = False
        self.connection: EngineerConnection
        self.source_address = ""
        self.admitted = False
        self._opening: asyncio.Task[LiveSession] | None = None
        self._session: LiveSession | None = None
        self._refusals = 0
        self._refused_forwards = 0
        # Who signed in without an asset; the task is done when that is written.
        self._outside: tuple[SignedIn, asyncio.Task[None]] | None = None
        self._jumps: Jumps | None = None
        self._closed = False
        self.gone = asyncio.Event()

    # asyncssh's callbacks

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Count the connection against the caps on strangers (R18)."""
        self.connection = cast(EngineerConnection, conn)
        self.source_address = conn.get_extra_info("peername", ("",))[0]
        self._factors.source_address = self.source_address
        self.admitted = self._door.gate.admit(
            id(self),
            self.source_address,
            self._drop,
            at=asyncio.get_running_loop().time(),
        )
        if self.admitted:
            self._door.connections.add(self.connection)

    def _drop(self) -> None:
        self.connection.disconnect(
            DISC_TOO_MANY_CONNECTIONS, f"{PREFIX}too many connections, try again"
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """End what the connection carried; note a sign-in that came to nothing."""
        self._closed = True
        self.gone.set()
        self._door.gate.release(id(self), self.source_address)
        self._door.connections.discard(self.connection)
        if self._jumps is not None:
            self._jumps.close()
        if self._session is not None:
            self._session.client_lost(exc)
        login = self.authentication.login
        if self.authentication.stage in {Stage.KEY, Stage.CODE} and login is not None:
            self._note_refused(login.handle, self._what_failed())

    def _what_failed(self) -> str:
        if self.authentication.stage is Stage.CODE:
            return "code_wrong" if self.authentication.wrong_codes else "code_missing"
        return "key_unknown" if self.authentication.wrong_keys else "key_missing"

    def _note_refused(self, handle: str, reason: str) -> None:
        self._core.tasks.spawn(
            self._core.blocking.run(
                accounts.record_sign_in_refused,
                handle=handle,
                door=DOOR,
                reason=reason,
                source_address=self.source_address,
                now=timezone.now(),
            ),
            "note a refused sign-in",
        )

    def begin_auth(self, username: str) -> bool:
        """Start from nothing for this user name (R11); first, what people are told."""
        if self._notice.banner and not self._banner_sent:
            self._banner_sent = True
            self.connection.send_auth_banner(f"{self._notice.banner}\n")
        try:
            self.authentication.begin(username)
        except UserStringError as error:
            self._note_refused("", f"user_string: {error}")
            self.connection.disconnect(DISC_ILLEGAL_USER_NAME, f"{PREFIX}{error}")
        return True

    def public_key_auth_supported(self) -> bool:
        """Offer keys while no key was proved."""
        return self.authentication.stage in {Stage.NOBODY, Stage.KEY}

    async def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Say whether a key may be signed with."""
        return await self.authentication.key_offered(username, key.get_fingerprint())

    def password_auth_supported(self) -> bool:
        """Offer no password, ever."""
        return False

    def kbdint_auth_supported(self) -> bool:
        """Offer the code after the key."""
        return self.authentication.stage is Stage.CODE

    def get_kbdint_challenge(
        self,
        username: str,  # noqa: ARG002
        lang: str,  # noqa: ARG002
        submethods: str,  # noqa: ARG002
    ) -> Any:
        """Ask for the one-time code, once."""
        owner = self.authentication.owner
        if owner is None:
            return False
        instruction = ""
        if not owner.has_second_factor:
            instruction = "Enrol a one-time code in the portal first."
        elif self.authentication.wait_seconds:
            instruction = (
                f"Too many tries: wait {self.authentication.wait_seconds} seconds."
            )
        prompts = [("One-time code: ", False)]
        if self._notice.consent_required:
            instruction = "\n".join(filter(None, [self._notice.consent, instruction]))
            prompts.append((f"Type {CONSENT_WORD} to agree: ", True))
        return "", instruction, "", prompts

    async def validate_kbdint_response(
        self, username: str, responses: Sequence[str]
    ) -> bool:
        """Check the one-time code."""
        return await self.authentication.code_given(username, responses)

    async def auth_completed(self) -> None:
        """Open the session while the client still asks for its channel."""
        self._door.gate.release(id(self), self.source_address)
        owner, login = self.authentication.owner, self.authentication.login
        if owner is not None and login is not None and login.asset is None:
            self._begin_jumps(owner)
            return
        self._opening = self._core.tasks.spawn(
            self._open(), "open a session", expected=(OpeningRefusedError,)
        )
        self._opening.add_done_callback(self._opened)

    def _begin_jumps(self, owner: KeyOwner) -> None:
        """Wait for what this connection is for; it opens no session by itself."""
        host = self._door.jump_host
        if host is None:
            self.leave(NO_ASSET_LINE)
            return
        signed_in = self._core.tasks.spawn(
            self._core.blocking.run(
                _sign_in,
                owner=owner,
                source_address=self.source_address,
                grace_age=self.authentication.grace_age,
                code_checked_at=self._factors.code_checked_at,
                consent_to=self._notice.consent_to,
            ),
            "note a sign-in",
        )
        grace_age, factors = self.authentication.grace_age, self._factors
        proved_at = (
            factors.code_checked_at if grace_age is None else factors.grace_checked_at
        )
        outside = SignedIn(
            owner,
            asyncio.get_running_loop().time(),
            grace_age,
            proved_at or timezone.now(),
        )
        self._outside = outside, signed_in
        self._jumps = Jumps(host, self, outside, signed_in)

    async def _open(self) -> LiveSession:
        owner, login = self.authentication.owner, self.authentication.login
        if owner is None or login is None:
            raise OpeningRefusedError("nobody has signed in")
        try:
            permit = await self._authorize(owner, login)
        except DatabaseError as error:
            logger.exception("a sign-in could not be noted")
            raise OpeningRefusedError(DATABASE_AWAY) from error
        if isinstance(permit, Denied):
            raise OpeningRefusedError(authorization.outside_message(permit))
        return await open_session(
            self._core,
            permit,
            client=self,
            client_version=self.connection.get_extra_info("client_version", ""),
        )

    async def _authorize(self, owner: KeyOwner, login: ParsedLogin) -> Any:
        """Write the sign-in down and return the permit, or why not."""
        return await self._core.blocking.run(
            _sign_in_and_authorize,
            owner=owner,
            asset_name=login.asset or "",
            account_name=login.account,
            source_address=self.source_address,
            grace_age=self.authentication.grace_age,
            code_checked_at=self._factors.code_checked_at,
            consent_to=self._notice.consent_to,
        )

    def _opened(self, opening: asyncio.Task[LiveSession]) -> None:
        """Take the session, or close the connection with the reason it was refused."""
        if opening.cancelled():
            return
        error = opening.exception()
        if error is None:
            self._session = opening.result()
            if self._closed:
                self._session.client_lost(None)
            return
        line = str(error) if isinstance(error, OpeningRefusedError) else "not possible"
        # A channel that waits is answered first, so that the client knows it, too.
        asyncio.get_running_loop().call_later(
            REFUSAL_SECONDS, self._disconnect, DISC_HOST_NOT_ALLOWED_TO_CONNECT, line
        )

    def session_requested(self) -> Any:
        """Take a session channel; it is answered when the session is active (R19)."""
        if self._count_channels(EngineerChannel) >= CHANNEL_LIMIT:
            self.refused("session", "too many channels")
            raise asyncssh.ChannelOpenError(
                OPEN_RESOURCE_SHORTAGE, f"{PREFIX}too many channels"
            )
        channel = self.connection.create_server_channel(
            window=WINDOW, max_pktsize=MAX_PACKET
        )
        return channel, self._admit()

    def _count_channels(self, kind: type) -> int:
        return sum(
            isinstance(channel, kind) for channel in self.connection._channels.values()
        )

    def forward_requested(
        self, asked: AskedForward
    ) -> tuple[ForwardChannel, Coroutine[Any, Any, asyncssh.SSHTCPSession[bytes]]]:
        """Take a forward; it is answered when the asset has answered (R19, R27)."""
        if self._jumps is not None:
            return self._jumps.requested(asked)
        if self._count_channels(ForwardChannel) >= FORWARD_LIMIT:
            line = f"a session has at most {FORWARD_LIMIT} forwards at a time"
            self.refused_forward(line)
            raise asyncssh.ChannelOpenError(OPEN_RESOURCE_SHORTAGE, f"{PREFIX}{line}")
        channel = new_forward_channel(
            self.connection, window=FORWARD_WINDOW, max_pktsize=MAX_PACKET
        )
        return channel, open_forward(self, self._opening, asked, channel)

    async def _admit(self) -> FrontSession | CommandSession:
        opening = self._opening
        line = "nobody has signed in"
        if self._outside is not None:
            person, signed_in = self._outside
            return CommandSession(self, self._core, person, signed_in)
        if opening is not None:
            try:
                return FrontSession(self, await asyncio.shield(opening))
            except OpeningRefusedError as error:
                line = str(error)
            except asyncio.CancelledError:
                line = "the session was cancelled"
        raise asyncssh.ChannelOpenError(
            OPEN_ADMINISTRATIVELY_PROHIBITED, f"{PREFIX}{line}"
        )

    def server_requested(self, listen_host: str, listen_port: int) -> bool:  # noqa: ARG002
        """Refuse to listen for anybody."""
        self.refused("tcpip-forward", "remote forwarding is not allowed")
        return False

    def unix_server_requested(self, listen_path: str) -> bool:  # noqa: ARG002
        """Refuse to listen for anybody."""
        self.refused("streamlocal-forward", "remote forwarding is not allowed")
        return False

    # for sessions

    def first_lines(self, permit: ConnectionPermit, deadline: dt.datetime) -> list[str]:
        """Return what a shell on a terminal begins with (`EngineerSide`)."""
        return self._notice.first_lines(permit, deadline)

    def spawn(self, coroutine: Any, name: str) -> None:
        """Run a task owned by the gateway."""
        self._core.tasks.spawn(coroutine, name)

    def refused(self, kind: str, reason: str) -> None:
        """Write down that something was refused (R22), but not without end."""
        self._refusals += 1
        if self._refusals > REFUSALS:
            self._disconnect(DISC_BY_APPLICATION, "too many refused requests")
            return
        self._note_refused_channel(kind, reason)

    def refused_forward(self, reason: str) -> None:
        """Write down that a forward was refused (R22), but not without end."""
        self._refused_forwards += 1
        if self._refused_forwards < REFUSALS:
            self._note_refused_channel("direct-tcpip", reason)
        elif self._refused_forwards == REFUSALS:
            self._note_refused_channel(
                "direct-tcpip", f"{reason}; what follows is not written down"
            )

    def _note_refused_channel(self, kind: str, reason: str) -> None:
        owner, session = self.authentication.owner, self._session
        self._core.tasks.spawn(
            self._core.blocking.run(
                sessions.record_channel_refused,
                session_id=session.session_id if session is not None else None,
                actor=owner.user.party if owner else Party("unknown", "", ""),
                kind=kind,
                reason=reason,
                source_address=self.source_address,
                now=timezone.now(),
            ),
            "note a refused channel",
        )

    def _disconnect(self, code: int, line: str) -> None:
        if not self._closed:
            self.connection.disconnect_now(code, f"{PREFIX}{line}")

    def command_began(self) -> bool:
        """Keep the connection: a command runs (`commands.CommandSide`)."""
        return self._jumps is not None and self._jumps.command_began()

    def command_ended(self) -> None:
        """A command runs no more (`commands.CommandSide`)."""
        if self._jumps is not None:
            self._jumps.command_ended()

    def leave(self, line: str) -> None:
        """Tell the client why and close its connection (`jumps.OuterSide`)."""
        self._disconnect(DISC_BY_APPLICATION, line)

    def close(self, line: str) -> None:
        """Tell the client why and close its socket (`ClientSide`).

        At once, but a moment later when something was put on a terminal: OpenSSH drops
        output that arrives together with the disconnect. Nothing passes meanwhile.
        """
        session = self._session
        if session is not None and any(
            relay.has_terminal for relay in session.relays.values()
        ):
            asyncio.get_running_loop().call_later(
                LAST_WORD_SECONDS, self._disconnect, DISC_BY_APPLICATION, line
            )
        else:
            self._disconnect(DISC_BY_APPLICATION, line)

    def hang_up(self, line: str, *, stop: Callable[[], None]) -> bool:
        """Tell the client why and end its socket for writing (`ClientSide`)."""
        return not self._closed and self.connection.hang_up(
            DISC_BY_APPLICATION, f"{PREFIX}{line}", stop=stop
        )

    async def drained(self) -> None:
        """Return when every channel was taken to its end (`ClientSide`)."""
        channels = list(self.connection._channels.values())
        for channel in channels:
            await channel.wait_closed()


def _sign_in(
    *,
    owner: KeyOwner,
    source_address: str,
    grace_age: dt.timedelta | None,
    code_checked_at: dt.datetime | None,
    consent_to: uuid.UUID | None,
) -> None:
    if grace_age is not None:
        # It was written down when the grace was looked at.
        return
    now = timezone.now()
    ssh_sign_in.sign_in(
        user=owner.user,
        key_id=owner.key_id,
        grace_minutes=access.longest_grace_for(owner.user, now=now),
        source_address=source_address,
        verified_at=code_checked_at or now,
        now=now,
        consent_to=consent_to,
    )


def _sign_in_and_authorize(
    *,
    owner: KeyOwner,
    asset_name: str,
    account_name: str | None,
    source_address: str,
    grace_age: dt.timedelta | None,
    code_checked_at: dt.datetime | None,
    consent_to: uuid.UUID | None,
) -> Any:
    _sign_in(
        owner=owner,
        source_address=source_address,
        grace_age=grace_age,
        code_checked_at=code_checked_at,
        consent_to=consent_to,
    )
    return authorization.authorize_connection(
        user=owner.user,
        asset_name=asset_name,
        account_name=account_name,
        source_address=source_address,
        door=DOOR,
        now=timezone.now(),
        grace_age=grace_age,
        # A code may be typed long after the key was proved.
        earlier=None
        if grace_age is not None or code_checked_at is None
        else authorization.EarlierSignIn(key_id=owner.key_id, at=code_checked_at),
    )
