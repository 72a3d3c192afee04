"""Logging in to targets to rotate a credential and to prove one dead.

The only SSH client outside the gateway. Everything here blocks and is for a worker
thread: asyncssh runs in a loop of its own, never in the gateway's. Host keys are always
checked against the pinned ones; algorithms are the asset's profile and nothing else;
no agent, no configuration file, no default keys.

The proof is made by a second library, paramiko, because one bug should not be able to
both leave a credential alive and report it dead. paramiko has no SHA-1 key exchange and
no ssh-rsa (removed in 5.0), so old devices are tried with a fresh asyncssh connection,
and the receipt says so.
"""

import asyncio
import contextlib
import io
import secrets
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import asyncssh
import paramiko

from apps.inventory.crypto_profiles import MODERN, CryptoProfile
from apps.vault.authorized_keys import KeyNotListedError, replace_key
from apps.vault.dialogues import Conversation, Dialogue, Progress
from apps.vault.login_credentials import LoginCredential
from apps.vault.models import Finding
from apps.vault.secret_values import Secret
from apps.vault.terminal_sign_in import (
    QUIET_SECONDS,
    SignInProgress,
    TerminalSignIn,
)
from apps.vault.whereabouts import NotReachedError, Target, dial, host_key_algorithms

_AUTHORIZED_KEYS = ".ssh/authorized_keys"
_LONGEST_FILE = 1024 * 1024
_CLOSE_SECONDS = 2
_LONGEST_SIGN_IN_SECONDS = 30.0
_TERMINAL: dict[str, Any] = {
    "term_type": "vt100",
    "term_size": (80, 24),
    "encoding": None,
}
_PYTHON_KEYS: dict[str, type[paramiko.PKey]] = {
    "ssh-ed25519": paramiko.Ed25519Key,
    "ssh-rsa": paramiko.RSAKey,
    "ecdsa-sha2-nistp256": paramiko.ECDSAKey,
    "ecdsa-sha2-nistp384": paramiko.ECDSAKey,
    "ecdsa-sha2-nistp521": paramiko.ECDSAKey,
}

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of one log-in: the finding, the answer in words, who tried."""

    finding: Finding
    answer: str
    tried_by: str


class RotationError(Exception):
    """The new credential is not in force, or it is not known whether it is."""

    def __init__(self, finding: Finding, message: str) -> None:
        super().__init__(message)
        self.finding = finding


def log_in(target: Target, credential: LoginCredential, *, seconds: float) -> Attempt:
    """Try to log in with asyncssh and log out again; takes at most `seconds`."""
    return _in_own_loop(_log_in(target, credential, seconds))


def prove_dead(
    target: Target, credential: LoginCredential, *, seconds: float
) -> Attempt:
    """Try exactly `credential` and say what the target answered.

    REFUSED is the proof: the target itself said no to this credential, after its host
    key was checked. A connection that broke off, a time-out or a method that is not on
    offer proves nothing and is NOT_TRIED. Takes at most `seconds`.
    """
    ends = time.monotonic() + seconds
    spoken = target.profile.name
    if target.typed_name:
        spoken = "a device's own prompts"
    elif target.profile.name == MODERN.name:
        try:
            return _try_with_paramiko(target, credential, seconds)
        except paramiko.ssh_exception.IncompatiblePeer:
            # Such as a target that offers ChaCha20 only.
            spoken = "what this target offers"
    attempt = log_in(target, credential, seconds=max(ends - time.monotonic(), 0.1))
    return replace(
        attempt,
        tried_by=f"{attempt.tried_by}, fresh connection; "
        f"paramiko does not speak {spoken}",
    )


def rotate_key(
    target: Target,
    *,
    old: LoginCredential,
    old_line: str,
    new_line: str,
    new: LoginCredential,
    seconds: float,
) -> None:
    """Replace the old public key by the new one in the account's authorized_keys.

    Logs in with `old`, replaces that key's line (options and all other lines stay) by
    way of a temporary file and a rename, then logs in with `new`; the first connection
    stays open meanwhile, and if the target refuses the new key the file is put back.
    Takes at most four times `seconds`.

    Raises: RotationError; REFUSED when `old` does not log in.
    """
    _in_own_loop(_rotate_key(target, old, old_line, new_line, new, seconds))


def rotate_password(
    target: Target, *, old: Secret, new: Secret, dialogue: Dialogue, seconds: float
) -> None:
    """Change the account's password in its own shell, by `dialogue`, then try it.

    The passwords are typed at prompts only. Takes at most three times `seconds`.

    Raises: RotationError; REFUSED when `old` does not log in.
    """
    _in_own_loop(_rotate_password(target, old, new, dialogue, seconds))


def _in_own_loop(work: Coroutine[Any, Any, _Result]) -> _Result:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    work.close()
    raise RuntimeError("targets are for worker threads, not for an event loop")


class _OneCredential(asyncssh.SSHClient):
    """Offers one credential once, and notes that the target said no to it.

    Being asked again is the evidence: asyncssh asks for another credential only after
    the target answered the first one with a failure. A connection that breaks off, or
    a target that closes it, does not ask.
    """

    def __init__(self, credential: LoginCredential) -> None:
        self._credential = credential
        self._was_sent = False
        self.was_refused = False

    def public_key_auth_requested(self) -> list[Any] | None:
        private_key = self._credential.private_key
        if private_key is None or not self._may_send():
            return None
        key = asyncssh.import_private_key(private_key.reveal())
        if self._credential.certificate is None:
            return [key]
        return [(key, asyncssh.import_certificate(self._credential.certificate))]

    def password_auth_requested(self) -> str | None:
        password = self._credential.password
        if password is None or not self._may_send():
            return None
        return password.reveal()

    def kbdint_auth_requested(self) -> str | None:
        if self._credential.password is None:
            return None
        if self._was_sent:
            self.was_refused = True
            return None
        return ""

    def kbdint_challenge_received(
        self,
        _name: str,
        _instructions: str,
        _lang: str,
        prompts: Sequence[tuple[str, bool]],
    ) -> list[str] | None:
        """Answer the one unechoed prompt there may be (RFC 4256 section 3.2)."""
        if not prompts:
            return []
        if len(prompts) != 1 or prompts[0][1]:
            return None
        password = self.password_auth_requested()
        return None if password is None else [password]

    def _may_send(self) -> bool:
        if self._was_sent:
            self.was_refused = True
            return False
        self._was_sent = True
        return True


async def _connect(
    target: Target, client: _OneCredential, credential: LoginCredential, seconds: float
) -> asyncssh.SSHClientConnection:
    """Raises: NotReachedError, OSError (also TimeoutError), asyncssh.Error."""
    async with asyncio.timeout(seconds):
        return await _open(target, client, credential, seconds)


async def _open(
    target: Target, client: _OneCredential, credential: LoginCredential, seconds: float
) -> asyncssh.SSHClientConnection:
    algorithms = host_key_algorithms(target)
    dialled = await asyncio.to_thread(dial, target, seconds)
    # A device that asks on its terminal is told nothing before.
    has_password = credential.password is not None and not target.typed_name
    connection, _ = await asyncssh.create_connection(
        lambda: client,
        sock=dialled,
        username=target.login,
        config=None,
        known_hosts=(
            [asyncssh.import_public_key(line) for line in target.host_keys],
            [],
            [],
        ),
        server_host_key_algs=algorithms,
        kex_algs=list(target.profile.kex),
        encryption_algs=list(target.profile.ciphers),
        mac_algs=list(target.profile.macs),
        compression_algs=["none"],
        # asyncssh names the signature here, not the certificate around the key.
        signature_algs=[
            name for name in target.profile.signatures if "-cert-" not in name
        ],
        client_keys=None,
        agent_path=None,
        x509_trusted_certs=None,
        public_key_auth=not (has_password or target.typed_name),
        password_auth=has_password,
        kbdint_auth=has_password,
        host_based_auth=False,
        gss_kex=False,
        gss_auth=False,
        # A target that lets anybody in says nothing about this credential.
        disable_trivial_auth=not target.typed_name,
    )
    return connection


async def _close(connection: asyncssh.SSHClientConnection) -> None:
    connection.close()
    try:
        async with asyncio.timeout(_CLOSE_SECONDS):
            await connection.wait_closed()
    except TimeoutError:
        connection.abort()


def _attempt_of(
    error: Exception, client: _OneCredential, credential: LoginCredential
) -> tuple[Finding, str]:
    """Return the finding and the words for a log-in that failed."""
    if isinstance(error, NotReachedError):
        return error.finding, str(error)
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return Finding.WRONG_HOST_KEY, "its host key is not the pinned one"
    if client.was_refused:
        return Finding.REFUSED, credential.without_secrets(
            f"authentication refused: {_reason(error)}"
        )
    if isinstance(error, TimeoutError):
        return Finding.NOT_TRIED, "no answer in time"
    if isinstance(error, asyncssh.PermissionDenied):
        return Finding.NOT_TRIED, credential.without_secrets(
            f"the credential was not tried: {_reason(error)}"
        )
    return Finding.NOT_TRIED, credential.without_secrets(
        f"could not be reached: {_reason(error)}"
    )


def _reason(error: Exception) -> str:
    if isinstance(error, asyncssh.DisconnectError):
        return error.reason
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


async def _log_in(
    target: Target, credential: LoginCredential, seconds: float
) -> Attempt:
    tried_by = f"asyncssh {asyncssh.__version__}"
    client = _OneCredential(credential)
    try:
        connection = await _connect(target, client, credential, seconds)
    except (NotReachedError, OSError, asyncssh.Error) as error:
        finding, answer = _attempt_of(error, client, credential)
        return Attempt(finding, answer, tried_by)
    try:
        if target.typed_name:
            return await _try_on_terminal(connection, target, credential, seconds)
    finally:
        await _close(connection)
    return Attempt(Finding.ACCEPTED, "authentication succeeded", tried_by)


async def _try_on_terminal(
    connection: asyncssh.SSHClientConnection,
    target: Target,
    credential: LoginCredential,
    seconds: float,
) -> Attempt:
    """Sign in at the device's own prompts; only its own no is a refusal."""
    tried_by = f"asyncssh {asyncssh.__version__}"
    if credential.password is None:
        return Attempt(Finding.NOT_TRIED, "only a password can be typed", tried_by)
    sign_in = TerminalSignIn(login=target.typed_name, password=credential.password)
    try:
        async with connection.create_process(**_TERMINAL) as process:
            await _sign_in(process, sign_in, seconds)
    except (OSError, asyncssh.Error) as error:
        sign_in.give_up(_reason(error))
    if sign_in.progress is SignInProgress.SIGNED_IN:
        return Attempt(Finding.ACCEPTED, "signed in at the prompts", tried_by)
    finding = Finding.REFUSED if sign_in.was_refused else Finding.NOT_TRIED
    return Attempt(finding, credential.without_secrets(sign_in.refusal), tried_by)


async def _sign_in(
    process: asyncssh.SSHClientProcess[bytes], sign_in: TerminalSignIn, seconds: float
) -> None:
    """Answer the device until it is in or not; takes at most `seconds`."""
    ends = asyncio.get_running_loop().time() + seconds
    while sign_in.progress is SignInProgress.TALKING:
        if asyncio.get_running_loop().time() > ends:
            sign_in.give_up("it took too long")
            return
        try:
            async with asyncio.timeout(QUIET_SECONDS):
                printed = await process.stdout.read(4096)
        except TimeoutError:
            typed = sign_in.quiet()
        else:
            if not printed:
                sign_in.give_up("it closed")
                return
            typed = sign_in.feed(printed)
        if typed:
            process.stdin.write(typed)


async def _rotate_key(
    target: Target,
    old: LoginCredential,
    old_line: str,
    new_line: str,
    new: LoginCredential,
    seconds: float,
) -> None:
    connection = await _connect_to_rotate(target, old, seconds)
    try:
        async with asyncio.timeout(seconds):
            sftp = await connection.start_sftp_client()
            path, before = await _read_authorized_keys(sftp)
            after = replace_key(before, old_line=old_line, new_line=new_line)
            await _write_authorized_keys(sftp, path, before=before, after=after)
        attempt = await _log_in(target, new, seconds)
        if attempt.finding is Finding.REFUSED:
            async with asyncio.timeout(seconds):
                await _write_authorized_keys(sftp, path, before=after, after=before)
            raise RotationError(
                Finding.NOT_ROTATED,
                "the target refused the new key; the old one was put back",
            )
        if attempt.finding is not Finding.ACCEPTED:
            raise RotationError(attempt.finding, f"the new key: {attempt.answer}")
    except KeyNotListedError:
        raise RotationError(
            Finding.NOT_ROTATED,
            f"the key that logged in is not in {_AUTHORIZED_KEYS} of this account",
        ) from None
    except TimeoutError:
        raise RotationError(Finding.NOT_ROTATED, "no answer in time") from None
    except (OSError, asyncssh.Error) as error:
        raise RotationError(
            Finding.NOT_ROTATED,
            old.without_secrets(f"{_AUTHORIZED_KEYS}: {_reason(error)}"),
        ) from None
    finally:
        await _close(connection)


async def _connect_to_rotate(
    target: Target, credential: LoginCredential, seconds: float
) -> asyncssh.SSHClientConnection:
    client = _OneCredential(credential)
    try:
        return await _connect(target, client, credential, seconds)
    except (NotReachedError, OSError, asyncssh.Error) as error:
        raise RotationError(*_attempt_of(error, client, credential)) from None


async def _read_authorized_keys(sftp: asyncssh.SFTPClient) -> tuple[bytes, bytes]:
    """Return (real path, content); a symbolic link stays one, its end is replaced."""
    path = await sftp.realpath(_AUTHORIZED_KEYS.encode())
    content = await _read(sftp, path)
    if len(content) > _LONGEST_FILE:
        raise RotationError(Finding.NOT_ROTATED, "authorized_keys is over 1 MiB")
    return path, content


async def _read(sftp: asyncssh.SFTPClient, path: bytes) -> bytes:
    async with sftp.open(path, "rb") as file:
        # A file opened as binary gives bytes, which its annotation does not say.
        return cast(bytes, await file.read(_LONGEST_FILE + 1))


async def _write_authorized_keys(
    sftp: asyncssh.SFTPClient, path: bytes, *, before: bytes, after: bytes
) -> None:
    """Replace `before` by `after` in one step, readable by its owner only."""
    directory, _, name = path.rpartition(b"/")
    temporary = b"%s/.%s.%s" % (directory, name, secrets.token_hex(8).encode())
    attributes = asyncssh.SFTPAttrs(permissions=0o600)
    try:
        async with sftp.open(temporary, "xb", attributes) as file:
            await file.write(after)
            # An extension of OpenSSH; without it the rename is still atomic.
            with contextlib.suppress(asyncssh.SFTPOpUnsupported):
                await file.fsync()
        # The umask of the target may have cut the mode of `open`, never widened it.
        await sftp.chmod(temporary, 0o600)
        if await _read(sftp, path) != before:
            raise RotationError(
                Finding.NOT_ROTATED, "authorized_keys changed meanwhile"
            )
        await sftp.posix_rename(temporary, path)
    except BaseException:
        # It was never made, or the connection is gone: the first error counts.
        with contextlib.suppress(OSError, asyncssh.Error):
            await sftp.remove(temporary)
        raise


async def _rotate_password(
    target: Target, old: Secret, new: Secret, dialogue: Dialogue, seconds: float
) -> None:
    credential = LoginCredential(password=old)
    connection = await _connect_to_rotate(target, credential, seconds)
    conversation = Conversation(dialogue, current=old, new=new)
    try:
        async with asyncio.timeout(seconds):
            await _converse(connection, conversation, target, old)
    except TimeoutError:
        raise RotationError(
            Finding.NOT_ROTATED,
            f"no answer in time: waited for {conversation.waits_for}",
        ) from None
    except (OSError, asyncssh.Error) as error:
        raise RotationError(
            Finding.NOT_ROTATED,
            credential.without_secrets(
                f"waited for {conversation.waits_for}: {_reason(error)}"
            ),
        ) from None
    finally:
        # Before the new password is tried: some devices take one connection only.
        await _close(connection)
    attempt = await _log_in(target, LoginCredential(password=new), seconds)
    if attempt.finding is not Finding.ACCEPTED:
        finding = (
            Finding.NOT_ROTATED
            if attempt.finding is Finding.REFUSED
            else attempt.finding
        )
        raise RotationError(finding, f"the new password: {attempt.answer}")


async def _converse(
    connection: asyncssh.SSHClientConnection,
    conversation: Conversation,
    target: Target,
    old: Secret,
) -> None:
    process = await connection.create_process(**_TERMINAL)
    async with process:
        if target.typed_name:
            sign_in = TerminalSignIn(login=target.typed_name, password=old)
            await _sign_in(process, sign_in, _LONGEST_SIGN_IN_SECONDS)
            if sign_in.progress is not SignInProgress.SIGNED_IN:
                finding = (
                    Finding.REFUSED if sign_in.was_refused else Finding.NOT_ROTATED
                )
                raise RotationError(finding, f"the sign-in: {sign_in.refusal}")
            process.stdin.write(conversation.feed(sign_in.prompt))
        while conversation.progress is Progress.TALKING:
            printed = await process.stdout.read(4096)
            if not printed:
                raise RotationError(
                    Finding.NOT_ROTATED,
                    f"the target hung up; waited for {conversation.waits_for}",
                )
            typed = conversation.feed(printed)
            if typed:
                process.stdin.write(typed)
        if conversation.progress is Progress.REFUSED:
            raise RotationError(
                Finding.NOT_ROTATED, f"the target answered: {conversation.refusal}"
            )
        process.stdin.write(b"exit\r")


class _AsksByPromptError(Exception):
    """The target takes a password only where it asks for it (RFC 4256)."""


def _try_with_paramiko(
    target: Target, credential: LoginCredential, seconds: float
) -> Attempt:
    """Raises: paramiko.ssh_exception.IncompatiblePeer without a common algorithm."""
    ends = time.monotonic() + seconds
    tried_by = f"paramiko {paramiko.__version__}"

    def remaining() -> float:
        return max(ends - time.monotonic(), 0.1)

    finding, answer = Finding.NOT_TRIED, ""
    for authenticate in (_authenticate, _authenticate_by_prompt):
        try:
            with contextlib.closing(_transport(target, remaining)) as transport:
                if not _has_pinned_key(transport, target):
                    finding = Finding.WRONG_HOST_KEY
                    answer = "its host key is not the pinned one"
                else:
                    finding, answer = authenticate(
                        transport, target, credential, remaining
                    )
        except _AsksByPromptError:
            # On a new connection, as not every server takes a second service request.
            continue
        except NotReachedError as error:
            finding, answer = error.finding, str(error)
        except TimeoutError:
            answer = "no answer in time"
        except paramiko.ssh_exception.IncompatiblePeer:
            raise
        except (OSError, EOFError, paramiko.SSHException) as error:
            answer = f"could not be reached: {_reason(error)}"
        break
    return Attempt(finding, credential.without_secrets(answer), tried_by)


def _transport(target: Target, remaining: Callable[[], float]) -> paramiko.Transport:
    """Return a transport after its key exchange; the host key is yet to be compared."""
    algorithms = host_key_algorithms(target)
    connection = dial(target, remaining())
    try:
        transport = paramiko.Transport(connection)
    except BaseException:
        connection.close()
        raise
    try:
        _restrict(transport, target.profile, algorithms)
        transport.banner_timeout = remaining()
        transport.auth_timeout = remaining()
        transport.start_client(timeout=remaining())
    except BaseException:
        transport.close()
        raise
    return transport


def _restrict(
    transport: paramiko.Transport, profile: CryptoProfile, host_keys: list[str]
) -> None:
    """Leave only what the profile allows and paramiko knows."""
    options = transport.get_security_options()
    options.kex = [name for name in profile.kex if name in options.kex]
    options.ciphers = [name for name in profile.ciphers if name in options.ciphers]
    options.digests = [name for name in profile.macs if name in options.digests]
    options.key_types = [name for name in host_keys if name in options.key_types]


def _has_pinned_key(transport: paramiko.Transport, target: Target) -> bool:
    shown = transport.get_remote_server_key()
    line = f"{shown.get_name()} {shown.get_base64()}"
    return any(line.split() == pinned.split()[:2] for pinned in target.host_keys)


def _authenticate(
    transport: paramiko.Transport,
    target: Target,
    credential: LoginCredential,
    remaining: Callable[[], float],
) -> tuple[Finding, str]:
    """Offer the key or password once. Raises: _AsksByPromptError."""
    answered = threading.Event()
    if credential.password is not None:
        transport.auth_password(
            target.login, credential.password.reveal(), answered, fallback=False
        )
    else:
        transport.auth_publickey(target.login, _python_key(credential), answered)
    if not answered.wait(remaining()):
        return Finding.NOT_TRIED, "no answer in time"
    if transport.is_authenticated():
        return Finding.ACCEPTED, "authentication succeeded"
    error = transport.get_exception()
    if not _was_answered(transport):
        return Finding.NOT_TRIED, f"the connection broke off: {error or 'no reason'}"
    if error is None:
        return Finding.REFUSED, "authentication refused"
    if isinstance(error, paramiko.BadAuthenticationType):
        if credential.password and "keyboard-interactive" in error.allowed_types:
            raise _AsksByPromptError
        return (
            Finding.NOT_TRIED,
            f"the credential was not tried: only {', '.join(error.allowed_types)} "
            "is on offer",
        )
    if isinstance(error, paramiko.ssh_exception.PartialAuthentication):
        return Finding.ACCEPTED, "accepted as the first of several factors"
    return Finding.NOT_TRIED, f"the credential was not tried: {error}"


def _was_answered(transport: paramiko.Transport) -> bool:
    """Say whether the target itself answered with a failure message.

    paramiko calls a broken connection "authentication failed", too; but its handler
    forgets the user name when, and only when, a failure message has arrived.
    """
    handler = transport.auth_handler
    return handler is not None and handler.get_username() is None


def _authenticate_by_prompt(
    transport: paramiko.Transport,
    target: Target,
    credential: LoginCredential,
    _remaining: Callable[[], float],
) -> tuple[Finding, str]:
    """Give the password to the one unechoed prompt there may be (RFC 4256)."""
    was_given = False

    def answer(
        _title: str, _instructions: str, prompts: list[tuple[str, bool]]
    ) -> list[str]:
        nonlocal was_given
        if credential.password is None or len(prompts) != 1 or prompts[0][1]:
            return [""] * len(prompts)
        was_given = True
        return [credential.password.reveal()]

    try:
        further = transport.auth_interactive(target.login, answer)
    except paramiko.AuthenticationException as error:
        if was_given and _was_answered(transport):
            return Finding.REFUSED, "authentication refused (keyboard-interactive)"
        return Finding.NOT_TRIED, f"the credential was not tried: {error}"
    if further:
        return Finding.ACCEPTED, "accepted as the first of several factors"
    return Finding.ACCEPTED, "authentication succeeded"


def _python_key(credential: LoginCredential) -> paramiko.PKey:
    """Return the key, with its certificate, as paramiko wants it."""
    if credential.private_key is None:
        raise ValueError("a credential is a key or a password")
    text = credential.private_key.reveal()
    kind = asyncssh.import_private_key(text).get_algorithm()
    key = _PYTHON_KEYS[kind].from_private_key(io.StringIO(text))
    if credential.certificate is not None:
        key.load_certificate(credential.certificate)
    return key
