"""The connection to an asset: the only SSH client of the gateway.

`dial` takes a permit, and nothing else says where to go (the proof value of
`access.permits`); `sign_in` takes the credential leased for it. The host key must be
one that was pinned for exactly this asset (R10, R16, R39); the algorithms are those of
its crypto profile, in that order, and no others (R38). Addresses are judged after
resolving (R26).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, cast

import asyncssh

from apps.access.permits import ConnectionPermit
from apps.gateway.algorithms import REKEY_BYTES, REKEY_SECONDS
from apps.gateway.device_sign_in import DeviceSignIn
from apps.gateway.name_lookups import ASSET_NAMES, LookupFailedError
from apps.gateway.upstream_connection import (
    KEEPALIVE_COUNT,
    KEEPALIVE_SECONDS,
    SignInWays,
    UpstreamConnection,
    WeakProfileConnection,
)
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


class _Owner(asyncssh.SSHClient):
    """Notices where the connection is, and when it goes; answers prompts, once."""

    def __init__(self) -> None:
        self.authenticating = asyncio.Event()
        self.began_authentication = False
        self.on_lost: Callable[[Exception | None], None] | None = None
        self.sign_in_problem: UpstreamProblem | None = None
        self._login = ""
        self._password: Secret | None = None
        self._gave_password = False
        self._rounds = 0

    def take(self, lease: LeasedCredential) -> None:
        """Answer prompts with what was leased."""
        self._login, self._password = lease.login, lease.password

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


@dataclass(frozen=True, slots=True)
class Dialled:
    """An asset whose host key was verified, and that was told nothing yet."""

    permit: ConnectionPermit
    connection: UpstreamConnection
    owner: _Owner
    waiter: asyncio.Future[None]

    def close_now(self) -> None:
        """Close the socket in this very call; nobody waits any more."""
        if not self.waiter.cancel() and not self.waiter.cancelled():
            # Known by now, or of no interest: asyncio need not tell.
            self.waiter.exception()
        self.connection.abort_transport()


async def dial(permit: ConnectionPermit, *, settings: UpstreamSettings) -> Dialled:
    """Connect to the permit's asset, exchange keys and verify whom one speaks to.

    Nobody is named and nothing of a session is sent. A device for one session at a time
    may still be busy with the end of the last one, so it is tried again.
    Raises: UpstreamError.
    """
    loop = asyncio.get_running_loop()
    pause, give_up_at = BUSY_PAUSE_SECONDS, loop.time() + settings.busy_seconds
    while True:
        try:
            return await _dial_once(permit, settings)
        except UpstreamError as error:
            may_be_busy = permit.session_limit == 1 and error.problem in {
                UpstreamProblem.UNREACHABLE,
                UpstreamProblem.CLOSED_EARLY,
            }
            if not may_be_busy or loop.time() + pause > give_up_at:
                raise
        await asyncio.sleep(pause)
        pause *= 2


async def _dial_once(permit: ConnectionPermit, settings: UpstreamSettings) -> Dialled:
    profile = PROFILES[permit.crypto_profile]
    keys = _pinned_keys(permit)
    addresses = await _resolve(permit, settings)
    options = await _options(permit, profile, keys)
    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    options.waiter = waiter
    factory = WeakProfileConnection if profile.weak else UpstreamConnection
    connection = factory(asyncio.get_running_loop(), options, wait="auth")
    try:
        await _connect(connection, addresses, permit.port, settings.tcp_seconds)
    except BaseException:
        waiter.cancel()
        raise
    dialled = Dialled(permit, connection, cast(_Owner, connection.get_owner()), waiter)
    async with _explained(
        dialled, "key exchange", settings.kex_seconds * profile.patience
    ):
        await dialled.owner.authenticating.wait()
        if waiter.done():
            # It went before it could be asked.
            await waiter
    return dialled


async def sign_in(
    dialled: Dialled, lease: LeasedCredential, *, settings: UpstreamSettings
) -> Upstream:
    """Sign in with the leased credential.

    Raises: UpstreamError; the connection is closed then.
    """
    permit, connection = dialled.permit, dialled.connection
    patience = PROFILES[permit.crypto_profile].patience
    async with _explained(dialled, "authentication", settings.auth_seconds * patience):
        if not dialled.waiter.done():
            dialled.owner.take(lease)
            connection.sign_in(_ways(permit, lease))
        await dialled.waiter
    connection.new_sign_in = lambda: _new_sign_in(permit, lease)
    key = connection.get_server_host_key()
    return Upstream(
        connection=connection,
        owner=dialled.owner,
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


@asynccontextmanager
async def _explained(
    dialled: Dialled, stage: str, seconds: float
) -> AsyncIterator[None]:
    """Limit a stage, and say what its failure means; closes the connection then."""
    connection, owner = dialled.connection, dialled.owner
    try:
        async with asyncio.timeout(seconds):
            yield
    except BaseException as error:
        dialled.close_now()
        if isinstance(error, TimeoutError | asyncssh.Error | OSError):
            raise _explanation(connection, owner, stage, error) from error
        raise


def _explanation(
    connection: UpstreamConnection, owner: _Owner, stage: str, error: Exception
) -> UpstreamError:
    match error:
        case TimeoutError():
            return UpstreamError(UpstreamProblem.SILENT, f"no answer during {stage}")
        case asyncssh.HostKeyNotVerifiable():
            return UpstreamError(UpstreamProblem.HOST_KEY_CHANGED, str(error))
        case asyncssh.KeyExchangeFailed():
            return UpstreamError(UpstreamProblem.NO_COMMON_ALGORITHM, str(error))
        case asyncssh.PermissionDenied():
            problem = owner.sign_in_problem or UpstreamProblem.CREDENTIAL_REFUSED
            return UpstreamError(problem, str(error))
    return _lost(connection, owner, error)


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
        try:
            found = await ASSET_NAMES.addresses(
                permit.address, permit.port, seconds=settings.tcp_seconds
            )
        except LookupFailedError as error:
            raise UpstreamError(
                UpstreamProblem.UNREACHABLE, f"name not resolved: {error}"
            ) from error
    if not settings.allow_local_targets:
        for address in found:
            reason = refusal(address)
            if reason is not None:
                raise UpstreamError(
                    UpstreamProblem.ADDRESS_FORBIDDEN, f"{address}: {reason}"
                )
    return [str(address) for address in found]


async def _connect(
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
    profile: CryptoProfile,
    keys: list[asyncssh.SSHKey],
) -> asyncssh.SSHClientConnectionOptions:
    options: asyncssh.SSHClientConnectionOptions
    options = await asyncssh.SSHClientConnectionOptions.construct(
        client_factory=_Owner,
        host=permit.address,
        port=permit.port,
        # Nobody signs in before there is a credential (`sign_in`).
        username="",
        client_keys=None,
        password=None,
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
    )
    return options


def _ways(permit: ConnectionPermit, lease: LeasedCredential) -> SignInWays:
    """Return exactly the lease's way of signing in. Raises: UpstreamError."""
    if permit.sign_in != SignIn.SSH and lease.password is not None:
        # The device asks for it on its terminal.
        return SignInWays(lease.login, ())
    if permit.sign_in == SignIn.SSH and lease.password is not None:
        return SignInWays(
            lease.login,
            ("password", "keyboard-interactive"),
            password=lease.password.reveal(),
        )
    if permit.sign_in != SignIn.SSH or lease.private_key is None:
        raise UpstreamError(UpstreamProblem.CREDENTIAL_REFUSED, "the lease is empty")
    key: Any = asyncssh.import_private_key(lease.private_key.reveal())
    if lease.certificate is not None:
        key = (key, asyncssh.import_certificate(lease.certificate))
    return SignInWays(lease.login, ("publickey",), key=key)
