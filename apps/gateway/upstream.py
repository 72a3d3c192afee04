"""The connection to an asset: the only SSH client of the gateway.

`connect` takes a permit and the credential leased for it, and nothing else says where
to go (the proof value of `access.permits`). The host key must be one that was pinned
for exactly this asset (R10, R16, R39); the algorithms are those of its crypto profile,
in that order, and no others (R38). Addresses are judged after resolving (R26).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, cast

import asyncssh
from asyncssh.constants import (
    MSG_REQUEST_FAILURE,
    MSG_REQUEST_SUCCESS,
    OPEN_ADMINISTRATIVELY_PROHIBITED,
)
from asyncssh.packet import SSHPacket, SSHPacketHandler

from apps.access.permits import ConnectionPermit
from apps.gateway.algorithms import REKEY_BYTES, REKEY_SECONDS
from apps.gateway.asset_channel import AssetChannel
from apps.gateway.device_sign_in import DeviceSignIn
from apps.gateway.fastpath import ClientConnection
from apps.inventory.addresses import parse_address, refusal
from apps.inventory.crypto_profiles import PROFILES, CryptoProfile
from apps.inventory.sign_ins import SignIn
from apps.vault.leases import LeasedCredential
from apps.vault.secret_values import Secret
from apps.vault.sign_in_prompts import (
    PasswordExpiredError,
    UnknownQuestionError,
    answers_to,
)
from apps.vault.terminal_sign_in import TerminalSignIn

WINDOW: Final = 2 << 20
MAX_PACKET: Final = 32_768
STRICT_KEX_SERVER: Final = b"kex-strict-s-v00@openssh.com"
KEEPALIVE_SECONDS: Final = 30
KEEPALIVE_COUNT: Final = 4
MOST_ROUNDS: Final = 5
"""Sets of prompts of one sign-in."""

BUSY_PAUSE_SECONDS: Final = 0.2
"""First wait for a device that takes one connection at a time; it doubles."""


class UpstreamProblem(StrEnum):
    """Why an asset could not be connected to."""

    ADDRESS_FORBIDDEN = "address_forbidden"
    UNREACHABLE = "unreachable"
    SILENT = "silent"
    NO_HOST_KEY = "no_host_key"
    HOST_KEY_CHANGED = "host_key_changed"
    NO_COMMON_ALGORITHM = "no_common_algorithm"
    CLOSED_EARLY = "closed_early"
    CREDENTIAL_REFUSED = "credential_refused"
    CREDENTIAL_EXPIRED = "credential_expired"
    QUESTION_UNKNOWN = "question_unknown"
    LOST = "lost"


SENTENCES: Final[dict[UpstreamProblem, str]] = {
    UpstreamProblem.ADDRESS_FORBIDDEN: "the asset's address may not be a target",
    UpstreamProblem.UNREACHABLE: "the asset cannot be reached",
    UpstreamProblem.SILENT: "the asset does not answer",
    UpstreamProblem.NO_HOST_KEY: "no host key of the asset is pinned",
    UpstreamProblem.HOST_KEY_CHANGED: (
        "the asset's host key is not the pinned one; nothing was sent to it"
    ),
    UpstreamProblem.NO_COMMON_ALGORITHM: (
        "the asset and its crypto profile have no algorithm in common"
    ),
    UpstreamProblem.CLOSED_EARLY: (
        "the asset closed the connection during the key exchange; "
        "its crypto profile may not fit"
    ),
    UpstreamProblem.CREDENTIAL_REFUSED: "the asset refused the credential",
    UpstreamProblem.CREDENTIAL_EXPIRED: (
        "the asset wants a new password for this account: an administrator must set "
        "one there and store it"
    ),
    UpstreamProblem.QUESTION_UNKNOWN: (
        "the asset asks for more than name and password at its sign-in"
    ),
    UpstreamProblem.LOST: "the asset closed the connection",
}
"""One line for the engineer; the detail goes to the ledger only."""


class UpstreamError(Exception):
    """The asset could not be connected to. `detail` is for the ledger."""

    def __init__(self, problem: UpstreamProblem, detail: str = "") -> None:
        super().__init__(SENTENCES[problem])
        self.problem = problem
        self.detail = detail


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """Time limits in seconds, and whether this machine itself may be a target.

    A crypto profile may multiply the limits of key exchange and authentication.
    `busy_seconds` is how long a device that takes one connection at a time is tried.
    """

    tcp_seconds: float = 8.0
    kex_seconds: float = 15.0
    auth_seconds: float = 20.0
    busy_seconds: float = 10.0
    allow_local_targets: bool = False


class _Nobody(SSHPacketHandler):
    """Takes what a device sends to a channel that has gone: RFC 4254 5.3 forbids it,
    OpenSSH's client does not mind."""

    def process_packet(self, pkttype: int, pktid: int, packet: SSHPacket) -> bool:  # noqa: ARG002
        """Take it and do nothing."""
        return True

    def log_received_packet(self, *args: Any, **kwargs: Any) -> None:
        """Write nothing."""


class _Channels(dict[int, Any]):
    """Channels by number; a number that is not there is nobody's, not an error."""

    def __missing__(self, number: int) -> Any:
        return _Nobody()


class UpstreamConnection(ClientConnection):
    """A connection to an asset; it opens channels, the asset opens none.

    Devices may ignore keepalives or answer them wrongly, so only one that has answered
    before is given up for its silence; a device that has vanished is noticed by TCP.
    """

    strict_kex_required = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._channels = _Channels()
        self.answers_keepalives = False
        self.new_sign_in: Callable[[], DeviceSignIn | None] = lambda: None
        """Makes what answers a new shell's questions, for a device that has some."""
        self.on_refused_channel: Callable[[str], None] | None = None
        self.kex_problem: asyncssh.KeyExchangeFailed | None = None

    def _choose_alg(
        self, alg_type: str, local_algs: Sequence[bytes], remote_algs: Sequence[bytes]
    ) -> bytes:
        """Require strict key exchange unless the profile is a weak one (R34)."""
        if (
            alg_type == "key exchange"
            and not self._session_id
            and self.strict_kex_required
            and STRICT_KEX_SERVER not in remote_algs
        ):
            raise asyncssh.KeyExchangeFailed("the asset has no strict key exchange")
        try:
            chosen: bytes = super()._choose_alg(alg_type, local_algs, remote_algs)
        except asyncssh.KeyExchangeFailed as error:
            # The asset comes to the same end and may close before this is reported.
            self.kex_problem = error
            raise
        return chosen

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Have TCP notice a device that has vanished, whatever it answers."""
        end = transport.get_extra_info("socket")
        if end is not None:
            _watch_by_tcp(end)
        super().connection_made(transport)

    def new_session_channel(self, *, window: int, max_pktsize: int) -> AssetChannel:
        """Return an unopened session channel; the caller runs its `start`."""
        self._update_recv_pktlen(max_pktsize)
        return AssetChannel(
            self, self._loop, "strict", None, "strict", window, max_pktsize
        )

    async def _make_keepalive_request(self) -> None:
        await super()._make_keepalive_request()
        self.answers_keepalives = True

    def _keepalive_timer_callback(self) -> None:
        if not self.answers_keepalives:
            self._keepalive_count = 0
            if len(self._global_request_waiters) >= KEEPALIVE_COUNT:
                # It never answers; TCP goes on to see whether it is there.
                return
        super()._keepalive_timer_callback()

    def _process_global_answer(
        self, pkttype: int, pktid: int, packet: SSHPacket
    ) -> None:
        """Take an answer; one that nobody waits for means nothing."""
        if self._global_request_waiters:
            self._process_global_response(pkttype, pktid, packet)

    def _process_channel_open(
        self, _pkttype: int, _pktid: int, packet: SSHPacket
    ) -> None:
        """Refuse whatever the asset opens: agent, X11, forwarded ports, sessions."""
        kind = packet.get_string().decode("ascii", "replace")
        sender = packet.get_uint32()
        self.send_channel_open_failure(
            sender,
            OPEN_ADMINISTRATIVELY_PROHIBITED,
            "assets open no channels here",
            "",
        )
        if self.on_refused_channel is not None:
            self.on_refused_channel(kind)

    _packet_handlers = {
        **ClientConnection._packet_handlers,
        asyncssh.constants.MSG_CHANNEL_OPEN: _process_channel_open,
        MSG_REQUEST_SUCCESS: _process_global_answer,
        MSG_REQUEST_FAILURE: _process_global_answer,
    }


def _watch_by_tcp(end: socket.socket) -> None:
    """Give up after two and a half minutes without any sign of the other side."""
    seconds = KEEPALIVE_SECONDS * (KEEPALIVE_COUNT + 1)
    for option, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_SECONDS),
        ("TCP_KEEPINTVL", KEEPALIVE_SECONDS),
        ("TCP_KEEPCNT", KEEPALIVE_COUNT),
        ("TCP_USER_TIMEOUT", seconds * 1000),
    ):
        # Not every system has each of them.
        with suppress(AttributeError, OSError):
            end.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


class _WeakProfileConnection(UpstreamConnection):
    """For profiles whose ciphers Terrapin does not touch."""

    strict_kex_required = False


class _Owner(asyncssh.SSHClient):
    """Notices where the connection is, and when it goes; answers prompts, once."""

    def __init__(self, login: str, password: Secret | None) -> None:
        self.authenticating = asyncio.Event()
        self.began_authentication = False
        self.on_lost: Callable[[Exception | None], None] | None = None
        self.sign_in_problem: UpstreamProblem | None = None
        self._login = login
        self._password = password
        self._gave_password = False
        self._rounds = 0

    def kbdint_auth_requested(self) -> str | None:
        """Take part in a sign-in by prompts, once."""
        if self._password is None or self._rounds:
            return None
        return ""

    def kbdint_challenge_received(
        self,
        name: str,  # noqa: ARG002
        instructions: str,
        lang: str,  # noqa: ARG002
        prompts: Sequence[tuple[str, bool]],
    ) -> list[str] | None:
        """Answer with name and password as far as that is what is asked for."""
        self._rounds += 1
        if self._password is None or self._rounds > MOST_ROUNDS:
            return None
        try:
            answers = answers_to(
                instructions, prompts, login=self._login, password=self._password
            )
        except PasswordExpiredError:
            self.sign_in_problem = UpstreamProblem.CREDENTIAL_EXPIRED
            return None
        except UnknownQuestionError:
            self.sign_in_problem = UpstreamProblem.QUESTION_UNKNOWN
            return None
        if self._password.reveal() in answers:
            if self._gave_password:
                return None
            self._gave_password = True
        return answers

    def password_change_requested(self, prompt: str, lang: str) -> Any:  # noqa: ARG002
        """Change nothing (RFC 4252 8): the vault would not know of it."""
        self.sign_in_problem = UpstreamProblem.CREDENTIAL_EXPIRED
        return NotImplemented

    def begin_auth(self, username: str) -> None:  # noqa: ARG002
        self.began_authentication = True
        self.authenticating.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.authenticating.set()
        if self.on_lost is not None:
            self.on_lost(exc)


@dataclass(frozen=True, slots=True)
class Upstream:
    """A live, authenticated connection to an asset."""

    connection: UpstreamConnection
    owner: _Owner
    host_key_fingerprint: str

    def on_lost(self, callback: Callable[[Exception | None], None]) -> None:
        """Call `callback` when the connection goes, at once if it has gone."""
        if self.connection.is_closed():
            asyncio.get_running_loop().call_soon(callback, None)
        else:
            self.owner.on_lost = callback

    def close_now(self) -> None:
        """Close the socket in this very call."""
        self.owner.on_lost = None
        self.connection.abort_transport()


async def connect(
    permit: ConnectionPermit, lease: LeasedCredential, *, settings: UpstreamSettings
) -> Upstream:
    """Connect to the permit's asset with the leased credential.

    A device for one session at a time may still be busy with the end of the last one,
    so it is tried again as long as nothing of the credential was sent.
    Raises: UpstreamError.
    """
    loop = asyncio.get_running_loop()
    pause, give_up_at = BUSY_PAUSE_SECONDS, loop.time() + settings.busy_seconds
    while True:
        try:
            return await _connect_once(permit, lease, settings)
        except UpstreamError as error:
            may_be_busy = permit.session_limit == 1 and error.problem in {
                UpstreamProblem.UNREACHABLE,
                UpstreamProblem.CLOSED_EARLY,
            }
            if not may_be_busy or loop.time() + pause > give_up_at:
                raise
        await asyncio.sleep(pause)
        pause *= 2


async def _connect_once(
    permit: ConnectionPermit, lease: LeasedCredential, settings: UpstreamSettings
) -> Upstream:
    profile = PROFILES[permit.crypto_profile]
    keys = _pinned_keys(permit)
    addresses = await _resolve(permit, settings)
    options = await _options(permit, lease, profile, keys)
    loop = asyncio.get_running_loop()
    options.waiter = loop.create_future()
    factory = _WeakProfileConnection if profile.weak else UpstreamConnection
    connection = factory(loop, options, wait="auth")
    try:
        await _dial(connection, addresses, permit.port, settings.tcp_seconds)
    except BaseException:
        options.waiter.cancel()
        raise
    owner = cast(_Owner, connection.get_owner())
    try:
        await _authenticate(
            connection, owner, options.waiter, settings, patience=profile.patience
        )
    except BaseException:
        connection.abort_transport()
        raise
    connection.new_sign_in = lambda: _new_sign_in(permit, lease)
    key = connection.get_server_host_key()
    return Upstream(
        connection=connection,
        owner=owner,
        host_key_fingerprint=key.get_fingerprint() if key else "",
    )


def _new_sign_in(
    permit: ConnectionPermit, lease: LeasedCredential
) -> DeviceSignIn | None:
    if permit.sign_in == SignIn.SSH or lease.password is None:
        return None
    return DeviceSignIn(
        TerminalSignIn(
            login=permit.account_name,
            password=lease.password,
            elevates=permit.sign_in == SignIn.TERMINAL_ENABLE,
        )
    )


async def _authenticate(
    connection: UpstreamConnection,
    owner: _Owner,
    waiter: asyncio.Future[None],
    settings: UpstreamSettings,
    *,
    patience: float,
) -> None:
    loop = asyncio.get_running_loop()
    stage = "key exchange"
    try:
        async with asyncio.timeout(settings.kex_seconds * patience) as limit:
            await owner.authenticating.wait()
            stage = "authentication"
            limit.reschedule(loop.time() + settings.auth_seconds * patience)
            await waiter
    except TimeoutError as error:
        raise UpstreamError(
            UpstreamProblem.SILENT, f"no answer during {stage}"
        ) from error
    except asyncssh.HostKeyNotVerifiable as error:
        raise UpstreamError(UpstreamProblem.HOST_KEY_CHANGED, str(error)) from error
    except asyncssh.KeyExchangeFailed as error:
        raise UpstreamError(UpstreamProblem.NO_COMMON_ALGORITHM, str(error)) from error
    except asyncssh.PermissionDenied as error:
        problem = owner.sign_in_problem or UpstreamProblem.CREDENTIAL_REFUSED
        raise UpstreamError(problem, str(error)) from error
    except (asyncssh.Error, OSError) as error:
        raise _lost(connection, owner, error) from error


def _lost(
    connection: UpstreamConnection, owner: _Owner, error: Exception
) -> UpstreamError:
    """Return what a connection that broke while it was made most likely means."""
    if connection.kex_problem is not None:
        return UpstreamError(
            UpstreamProblem.NO_COMMON_ALGORITHM, str(connection.kex_problem)
        )
    if owner.sign_in_problem is not None:
        return UpstreamError(owner.sign_in_problem, str(error))
    if owner.began_authentication:
        return UpstreamError(UpstreamProblem.LOST, f"during authentication: {error}")
    return UpstreamError(UpstreamProblem.CLOSED_EARLY, str(error))


def _pinned_keys(permit: ConnectionPermit) -> list[asyncssh.SSHKey]:
    """Return the pinned keys. Raises: UpstreamError when there is none (R39)."""
    keys = []
    for line in permit.host_keys:
        try:
            keys.append(asyncssh.import_public_key(line))
        except asyncssh.KeyImportError as error:
            raise UpstreamError(UpstreamProblem.NO_HOST_KEY, str(error)) from error
    if not keys:
        raise UpstreamError(UpstreamProblem.NO_HOST_KEY)
    return keys


async def _resolve(permit: ConnectionPermit, settings: UpstreamSettings) -> list[str]:
    """Return the literal addresses to dial; all of them must be allowed (R26)."""
    literal = parse_address(permit.address)
    if literal is not None:
        found = [literal]
    else:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(settings.tcp_seconds):
                answers = await loop.getaddrinfo(
                    permit.address, permit.port, type=socket.SOCK_STREAM
                )
        except (OSError, UnicodeError, TimeoutError) as error:
            raise UpstreamError(
                UpstreamProblem.UNREACHABLE, f"name not resolved: {error}"
            ) from error
        found = list(
            dict.fromkeys(ipaddress.ip_address(answer[4][0]) for answer in answers)
        )
    if not settings.allow_local_targets:
        for address in found:
            reason = refusal(address)
            if reason is not None:
                raise UpstreamError(
                    UpstreamProblem.ADDRESS_FORBIDDEN, f"{address}: {reason}"
                )
    return [str(address) for address in found]


async def _dial(
    connection: UpstreamConnection, addresses: Sequence[str], port: int, seconds: float
) -> None:
    loop = asyncio.get_running_loop()
    problem = UpstreamError(UpstreamProblem.UNREACHABLE, "no address")
    for address in addresses:
        try:
            async with asyncio.timeout(seconds):
                await loop.create_connection(lambda: connection, address, port)
        except TimeoutError:
            problem = UpstreamError(
                UpstreamProblem.UNREACHABLE, f"{address}: no TCP answer"
            )
        except OSError as error:
            problem = UpstreamError(UpstreamProblem.UNREACHABLE, f"{address}: {error}")
        else:
            return
    raise problem


def _host_key_algorithms(
    profile: CryptoProfile, keys: Sequence[asyncssh.SSHKey]
) -> list[str]:
    """Return the profile's host key algorithms that the pinned keys can do (R38)."""
    able = {name.decode("ascii") for key in keys for name in (*key.sig_algorithms,)}
    chosen = [name for name in profile.host_keys if name in able]
    if not chosen:
        raise UpstreamError(
            UpstreamProblem.NO_COMMON_ALGORITHM,
            f"the pinned key is not usable with profile {profile.name}",
        )
    return chosen


async def _options(
    permit: ConnectionPermit,
    lease: LeasedCredential,
    profile: CryptoProfile,
    keys: list[asyncssh.SSHKey],
) -> asyncssh.SSHClientConnectionOptions:
    credential = (
        _credential_options(lease)
        if permit.sign_in == SignIn.SSH
        else _nothing_by_ssh(lease)
    )
    options: asyncssh.SSHClientConnectionOptions
    options = await asyncssh.SSHClientConnectionOptions.construct(
        client_factory=lambda: _Owner(lease.login, lease.password),
        host=permit.address,
        port=permit.port,
        username=lease.login,
        known_hosts=(keys, [], []),
        server_host_key_algs=_host_key_algorithms(profile, keys),
        kex_algs=list(profile.kex),
        encryption_algs=list(profile.ciphers),
        mac_algs=list(profile.macs),
        signature_algs=[
            name for name in profile.signatures if "-cert-v01@" not in name
        ],
        compression_algs=None,
        x509_trusted_certs=None,
        agent_path=None,
        agent_forwarding=False,
        gss_host=None,
        config=None,
        login_timeout=0,
        keepalive_interval=KEEPALIVE_SECONDS,
        keepalive_count_max=KEEPALIVE_COUNT,
        rekey_bytes=REKEY_BYTES,
        rekey_seconds=REKEY_SECONDS,
        **credential,
    )
    return options


def _credential_options(lease: LeasedCredential) -> dict[str, Any]:
    """Return exactly the lease's way of signing in, and no other."""
    if lease.password is not None:
        return {
            "client_keys": None,
            "password": lease.password.reveal(),
            "preferred_auth": ["password", "keyboard-interactive"],
            "disable_trivial_auth": True,
        }
    if lease.private_key is None:
        raise UpstreamError(UpstreamProblem.CREDENTIAL_REFUSED, "the lease is empty")
    key = asyncssh.import_private_key(lease.private_key.reveal())
    pair: Any = key
    if lease.certificate is not None:
        pair = (key, asyncssh.import_certificate(lease.certificate))
    return {
        "client_keys": [pair],
        "password": None,
        "preferred_auth": ["publickey"],
        "disable_trivial_auth": True,
    }


def _nothing_by_ssh(lease: LeasedCredential) -> dict[str, Any]:
    """Return a sign-in without credential: the device asks on its terminal."""
    if lease.password is None:
        raise UpstreamError(UpstreamProblem.CREDENTIAL_REFUSED, "the lease is empty")
    return {
        "client_keys": None,
        "password": None,
        "preferred_auth": [],
        "disable_trivial_auth": False,
    }
