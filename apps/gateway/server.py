"""The engineer's side: SSH messages in, questions to authentication and sessions out.

Every channel kind but `session` is refused with one clear line, whatever the grant
says, and so is every subsystem. There is no shell, file or forward of the gateway's own
(R25): nothing here starts a process or opens a path.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import asyncssh
from asyncssh.constants import (
    DISC_BY_APPLICATION,
    DISC_HOST_NOT_ALLOWED_TO_CONNECT,
    DISC_ILLEGAL_USER_NAME,
    DISC_NO_MORE_AUTH_METHODS_AVAILABLE,
    DISC_TOO_MANY_CONNECTIONS,
    MSG_CHANNEL_OPEN,
    MSG_CHANNEL_REQUEST,
    MSG_SERVICE_ACCEPT,
    MSG_SERVICE_REQUEST,
    OPEN_ADMINISTRATIVELY_PROHIBITED,
    OPEN_RESOURCE_SHORTAGE,
)
from asyncssh.packet import SSHPacket, String
from django.utils import timezone

from apps.access import operations as access
from apps.access.denials import Denied
from apps.accounts import operations as accounts
from apps.accounts import queries as people
from apps.accounts.operations import FactorVerdict
from apps.audit.operations import Party
from apps.gateway.algorithms import STRICT_KEX_CLIENT, ciphers_for
from apps.gateway.authentication import (
    Authentication,
    KeyOwner,
    Stage,
    UserStringError,
)
from apps.gateway.blocking import Blocking
from apps.gateway.fastpath import ServerChannel, ServerConnection
from apps.gateway.limits import LoginGate
from apps.gateway.live import (
    CHANNEL_LIMIT,
    ChannelRefusedError,
    Core,
    LiveSession,
    OpeningRefusedError,
    open_session,
)
from apps.gateway.relay import (
    ENVIRONMENT_LIMIT,
    ChannelRequest,
    Relay,
    Terminal,
    passes_environment,
)
from apps.gateway.upstream import MAX_PACKET, WINDOW
from apps.sessions import operations as sessions

logger = logging.getLogger(__name__)

DOOR: Final = "ssh"
PREFIX: Final = "Sluice: "

REQUEST_LIMIT: Final = 64
"""Channel requests that may wait for an answer."""

LAST_WORD_SECONDS: Final = 0.01
"""For the client to put the last line on its terminal."""

ENVIRONMENT_COUNT: Final = 32

REFUSALS: Final = 100
"""Refused requests of one connection; who asks for more is disconnected."""

REFUSAL_SECONDS: Final = 0.05
"""Between a reason and the failure it explains: OpenSSH drops output that arrives
together with a failure."""


class DatabaseFactors:
    """Keys and codes from the database."""

    def __init__(self, blocking: Blocking) -> None:
        self._blocking = blocking

    async def find_key(self, handle: str, fingerprint: str) -> KeyOwner | None:
        """Return the owner when the key is a usable one of the person `handle`."""
        return await self._blocking.run(_find_key, handle, fingerprint)

    async def check_code(self, owner: KeyOwner, code: str) -> FactorVerdict:
        """Return whether the code is right; each code is accepted once."""
        return await self._blocking.run(
            accounts.verify_second_factor,
            user=owner.user,
            code=code,
            now=timezone.now(),
        )


def _find_key(handle: str, fingerprint: str) -> KeyOwner | None:
    key = people.usable_key(handle=handle, fingerprint=fingerprint)
    if key is None:
        return None
    return KeyOwner(
        user=key.user,
        key_id=key.pk,
        has_second_factor=people.totp_device(key.user) is not None,
    )


@dataclass(slots=True)
class Door:
    """What the connections of the SSH listener share."""

    core: Core
    gate: LoginGate
    connections: set[EngineerConnection]


class EngineerChannel(ServerChannel):
    """A session channel with limits on what a client may pile up before it starts."""

    def _process_env_request(self, packet: SSHPacket) -> bool:
        """Keep TERM, LANG and LC_* only (R26)."""
        name, value = packet.get_string(), packet.get_string()
        packet.check_end()
        if (
            not passes_environment(name)
            or len(name) > ENVIRONMENT_LIMIT
            or len(value) > ENVIRONMENT_LIMIT
            or len(self._env) >= ENVIRONMENT_COUNT
        ):
            return False
        self._env[name] = value
        return True

    def _process_exec_request(self, packet: SSHPacket) -> bool:
        """Take a command in any encoding, as surrogates where it is not UTF-8."""
        command = packet.get_string().decode("utf-8", "surrogateescape")
        packet.check_end()
        return self._start_session(command=command)

    def answer_start(self, *, success: bool) -> None:
        """Answer the shell, exec or subsystem request that is waiting."""
        if self._request_queue and self._session is not None:
            self._report_response(success)

    def _process_limited_request(
        self, pkttype: int, pktid: int, packet: SSHPacket
    ) -> None:
        if len(self._request_queue) >= REQUEST_LIMIT:
            raise asyncssh.ProtocolError("Too many channel requests")
        self._process_request(pkttype, pktid, packet)

    _packet_handlers = {
        **ServerChannel._packet_handlers,
        MSG_CHANNEL_REQUEST: _process_limited_request,
    }


class EngineerConnection(ServerConnection):
    """A connection from an engineer: two factors, then sessions."""

    channel_class = EngineerChannel
    engineer: Engineer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask the login gate before anything else is done."""
        super().connection_made(transport)
        self.engineer = cast(Engineer, self._owner)
        if not self.engineer.admitted:
            self.abort_transport()

    def _send_kexinit(self) -> None:
        """Offer the ciphers for this client; its version is known by now."""
        if not self._session_id:
            self._enc_algs = [
                name.encode("ascii") for name in ciphers_for(self._client_version)
            ]
        super()._send_kexinit()

    def _choose_alg(
        self, alg_type: str, local_algs: Sequence[bytes], remote_algs: Sequence[bytes]
    ) -> bytes:
        """Require strict key exchange of every client (R34)."""
        if (
            alg_type == "key exchange"
            and not self._session_id
            and STRICT_KEX_CLIENT not in remote_algs
        ):
            raise asyncssh.KeyExchangeFailed(
                "This client has no strict key exchange (CVE-2023-48795): update it"
            )
        chosen: bytes = super()._choose_alg(alg_type, local_algs, remote_algs)
        return chosen

    async def validate_public_key(
        self, username: str, key_data: bytes, msg: bytes, signature: bytes
    ) -> bool:
        """Check a key, and when it is signed with, count it (R4)."""
        if not await super().validate_public_key(username, key_data, msg, signature):
            return False
        if not msg:
            return True
        fingerprint = asyncssh.import_public_key(
            _public_line(key_data)
        ).get_fingerprint()
        return self.engineer.authentication.key_proved(username, fingerprint)

    async def send_userauth_success(self) -> None:
        """Succeed when all factors are there; else say that this one was right."""
        if self.engineer.authentication.stage is Stage.NOTHING:
            await super().send_userauth_success()
        else:
            self.send_userauth_failure(partial_success=True)

    def send_userauth_failure(self, partial_success: bool) -> None:
        """Refuse, and disconnect when the tries are used up."""
        if self.engineer.authentication.exhausted:
            self.disconnect(
                DISC_NO_MORE_AUTH_METHODS_AVAILABLE,
                f"{PREFIX}too many authentication failures",
            )
        else:
            super().send_userauth_failure(partial_success)

    async def attach_x11_listener(self, *args: Any, **kwargs: Any) -> str | None:  # noqa: ARG002
        """Refuse X11 forwarding."""
        self.engineer.refused("x11", "X11 forwarding is not allowed")
        return None

    async def create_agent_listener(self) -> bool:
        """Refuse agent forwarding."""
        self.engineer.refused("agent", "agent forwarding is not allowed")
        return False

    def _process_any_channel_open(
        self, pkttype: int, pktid: int, packet: SSHPacket
    ) -> None:
        """Refuse every kind but `session`; leave that one to asyncssh."""
        peek = SSHPacket(packet.get_full_payload())
        peek.get_byte()
        kind = peek.get_string()
        if kind == b"session":
            self._process_channel_open(pkttype, pktid, packet)
            return
        sender = peek.get_uint32()
        name = kind.decode("ascii", "backslashreplace")[:60]
        reason = f"{name} channels are not allowed here"
        self.send_channel_open_failure(
            sender, OPEN_ADMINISTRATIVELY_PROHIBITED, PREFIX + reason, ""
        )
        self.engineer.refused(name, reason)

    def _process_service_requested(
        self, pkttype: int, pktid: int, packet: SSHPacket
    ) -> None:
        """Accept the same service again before the sign-in is complete.

        paramiko asks for it before each factor; OpenSSH's server allows that, too.
        """
        peek = SSHPacket(packet.get_full_payload())
        peek.get_byte()
        service = peek.get_string()
        if self._auth_in_progress and service == b"ssh-userauth":
            self.send_packet(MSG_SERVICE_ACCEPT, String(service))
        else:
            self._process_service_request(pkttype, pktid, packet)

    _packet_handlers = {
        **ServerConnection._packet_handlers,
        MSG_CHANNEL_OPEN: _process_any_channel_open,
        MSG_SERVICE_REQUEST: _process_service_requested,
    }


def _public_line(key_data: bytes) -> str:
    key = asyncssh.public_key.decode_ssh_public_key(key_data)
    return key.export_public_key().decode("ascii")


class Engineer(asyncssh.SSHServer):
    """What one connection is and has: its sign-in, then its live session.

    Also the session's `ClientSide`.
    """

    def __init__(self, door: Door) -> None:
        self._door = door
        self._core = door.core
        self.authentication = Authentication(DatabaseFactors(door.core.blocking))
        self.connection: EngineerConnection
        self.source_address = ""
        self.admitted = False
        self._opening: asyncio.Task[LiveSession] | None = None
        self._session: LiveSession | None = None
        self._refusals = 0
        self._closed = False
        self.gone = asyncio.Event()

    # asyncssh's callbacks

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Count the connection against the caps on strangers (R18)."""
        self.connection = cast(EngineerConnection, conn)
        self.source_address = conn.get_extra_info("peername", ("",))[0]
        self.admitted = self._door.gate.admit(id(self), self.source_address, self._drop)
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
        """Start from nothing for this user name (R11)."""
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
        return "", instruction, "", [("One-time code: ", False)]

    async def validate_kbdint_response(
        self, username: str, responses: Sequence[str]
    ) -> bool:
        """Check the one-time code."""
        return await self.authentication.code_given(username, responses)

    async def auth_completed(self) -> None:
        """Open the session while the client still asks for its channel."""
        self._door.gate.release(id(self), self.source_address)
        self._opening = self._core.tasks.spawn(
            self._open(), "open a session", expected=(OpeningRefusedError,)
        )
        self._opening.add_done_callback(self._opened)

    async def _open(self) -> LiveSession:
        owner, login = self.authentication.owner, self.authentication.login
        if owner is None or login is None:
            raise OpeningRefusedError("nobody has signed in")
        permit = await self._core.blocking.run(
            _sign_in_and_authorize,
            owner=owner,
            asset_name=login.asset,
            account_name=login.account,
            source_address=self.source_address,
        )
        if isinstance(permit, Denied):
            raise OpeningRefusedError(access.outside_message(permit))
        return await open_session(
            self._core,
            permit,
            client=self,
            client_version=self.connection.get_extra_info("client_version", ""),
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
        if len(self.connection._channels) >= CHANNEL_LIMIT:
            self.refused("session", "too many channels")
            raise asyncssh.ChannelOpenError(
                OPEN_RESOURCE_SHORTAGE, f"{PREFIX}too many channels"
            )
        channel = self.connection.create_server_channel(
            window=WINDOW, max_pktsize=MAX_PACKET
        )
        return channel, self._admit()

    async def _admit(self) -> FrontSession:
        opening = self._opening
        line = "nobody has signed in"
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

    def spawn(self, coroutine: Any, name: str) -> None:
        """Run a task owned by the gateway."""
        self._core.tasks.spawn(coroutine, name)

    def refused(self, kind: str, reason: str) -> None:
        """Write down that something was refused (R22), but not without end."""
        self._refusals += 1
        if self._refusals > REFUSALS:
            self._disconnect(DISC_BY_APPLICATION, "too many refused requests")
            return
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

    async def drained(self) -> None:
        """Return when every channel was taken to its end (`ClientSide`)."""
        channels = list(self.connection._channels.values())
        for channel in channels:
            await channel.wait_closed()


def _sign_in_and_authorize(
    *, owner: KeyOwner, asset_name: str, account_name: str | None, source_address: str
) -> Any:
    now = timezone.now()
    accounts.record_sign_in(
        user=owner.user,
        door=DOOR,
        source_address=source_address,
        now=now,
        factors=("public_key", "one_time_code"),
        key_id=owner.key_id,
    )
    return access.authorize_connection(
        user=owner.user,
        asset_name=asset_name,
        account_name=account_name,
        source_address=source_address,
        door=DOOR,
        now=now,
    )


class FrontSession(asyncssh.SSHServerSession[bytes]):
    """One session channel of an engineer; its callbacks go to the relay.

    Requests to start are answered only when the asset has answered, so that no input
    arrives before there is somewhere to put it.
    """

    def __init__(self, engineer: Engineer, session: LiveSession) -> None:
        self._engineer = engineer
        self._session = session
        self._channel: EngineerChannel
        self._terminal: Terminal | None = None
        self._relay: Relay | None = None
        self._lost = False

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._channel = cast(EngineerChannel, chan)

    def pty_requested(
        self,
        term_type: str,
        term_size: tuple[int, int, int, int],
        term_modes: Any,
    ) -> bool:
        """Remember the terminal for the start."""
        if len(term_type) > 64 or not term_type.isprintable():
            return False
        columns, rows, width, height = term_size
        self._terminal = Terminal(
            term_type, columns, rows, width, height, dict(term_modes)
        )
        return True

    def shell_requested(self) -> bool:
        """Start a shell."""
        return self._start("shell", None)

    def exec_requested(self, command: str) -> bool:
        """Start a command; never judged by its text (R10, R32). Empty is a shell."""
        if not command:
            return self._start("shell", None)
        return self._start("exec", command.encode("utf-8", "surrogateescape"))

    def subsystem_requested(self, subsystem: str) -> bool:
        """Refuse: no subsystem can be controlled yet."""
        name = subsystem[:60] if subsystem.isprintable() else "unknown"
        self._engineer.spawn(
            self._refuse(f"subsystem {name}", f"{name} is not available here"),
            "refuse a subsystem",
        )
        return _ANSWERED_LATER

    def _start(self, kind: str, command: bytes | None) -> bool:
        request = ChannelRequest(
            kind=kind,
            command=command,
            terminal=self._terminal,
            environment=dict(self._channel.get_environment_bytes()),
        )
        self._engineer.spawn(self._open(request), f"open a {kind}")
        return _ANSWERED_LATER

    async def _open(self, request: ChannelRequest) -> None:
        try:
            relay = await self._session.open_channel(request, self._channel)
        except ChannelRefusedError as error:
            await self._refuse(request.kind, str(error))
            return
        except Exception:
            self._channel.abort()
            raise
        if self._lost:
            relay.front_lost()
            return
        self._relay = relay
        self._channel.answer_start(success=True)

    async def _refuse(self, kind: str, reason: str) -> None:
        """Show the reason, then fail the request and close the channel."""
        self._engineer.refused(kind, reason)
        if self._lost or self._channel.is_closing():
            return
        self._channel.write(f"{PREFIX}{reason}\r\n".encode(), 1)
        await asyncio.sleep(REFUSAL_SECONDS)
        if not self._lost:
            self._channel.answer_start(success=False)
            self._channel.close()

    def data_received(self, data: bytes, datatype: int | None) -> None:  # noqa: ARG002
        if self._relay is not None:
            self._relay.front_data(data)

    def eof_received(self) -> bool:
        if self._relay is not None:
            self._relay.front_eof()
        return True

    def terminal_size_changed(
        self, width: int, height: int, pixwidth: int, pixheight: int
    ) -> None:
        if self._relay is not None:
            self._relay.front_resized(width, height, pixwidth, pixheight)
        elif self._terminal is not None:
            self._terminal = Terminal(
                self._terminal.term,
                width,
                height,
                pixwidth,
                pixheight,
                self._terminal.modes,
            )

    def signal_received(self, signal: str) -> None:
        if self._relay is not None:
            self._relay.front_signal(signal)

    def break_received(self, msec: int) -> bool:
        return self._relay is not None and self._relay.front_break(msec)

    def pause_writing(self) -> None:
        if self._relay is not None:
            self._relay.front_full()

    def resume_writing(self) -> None:
        if self._relay is not None:
            self._relay.front_drained()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._lost = True
        if self._relay is not None:
            self._relay.front_lost()


# asyncssh reads None as "will be answered later"; its types only say bool.
_ANSWERED_LATER: Final = cast(bool, None)
