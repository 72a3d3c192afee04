"""Whether this asyncssh is the one the fast path was written for.

`verify` compares the version and the source of each method that `fastpath` replaces or
relies on; `fastpath_self_test` then runs both kinds of data path against each other.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import asyncssh
from asyncssh.channel import SSHChannel, SSHForwardChannel, SSHTCPChannel
from asyncssh.connection import SSHConnection
from asyncssh.crypto import GCMCipher
from asyncssh.encryption import GCMEncryption

VERIFIED_VERSION: Final = "2.24.1"


@dataclass(frozen=True, slots=True)
class FastPathStatus:
    """Whether the fast path is on, and if not, why: a sentence for the operator."""

    active: bool
    reason: str
    asyncssh_version: str


FINGERPRINT: Final = "85e61ae625ff9c85d884f2efe17454811987a1d48c73574a205efa16f6d370d4"
"""SHA-256 over the source of everything in `_subjects`, in that order."""


def _subjects() -> list[Callable[..., object] | type]:
    """Return each asyncssh function or class whose source this module relies on."""
    connection = (
        "__init__ _cleanup connection_made data_received pause_writing resume_writing "
        "_send _recv_data _recv_pkthdr _recv_packet _finish_recv_packet send_packet "
        "_send_deferred_packets _send_kexinit send_newkeys _process_newkeys "
        "_force_close _reset_keepalive_timer _set_keepalive_timer "
        "_keepalive_timer_callback"
    )
    channel = (
        "__init__ _cleanup _close_send _discard_recv _pause_resume_writing "
        "_flush_send_buf _flush_recv_buf _deliver_data _accept_data _report_response "
        "process_connection_close _process_data _process_window_adjust _process_close "
        "send_packet close write write_eof pause_reading resume_reading"
    )
    return [
        *(getattr(SSHConnection, name) for name in connection.split()),
        *(getattr(SSHChannel, name) for name in channel.split()),
        SSHForwardChannel,
        SSHTCPChannel,
        GCMEncryption,
        GCMCipher,
    ]


def fingerprint() -> str:
    """Return SHA-256 (hex) over the source this module relies on.

    Raises: AttributeError when a name is gone; OSError without source files.
    """
    digest = hashlib.sha256()
    for subject in _subjects():
        digest.update(inspect.getsource(subject).encode())
    return digest.hexdigest()


def verify() -> FastPathStatus:
    """Compare the installed asyncssh with the one this module was written for."""
    version = asyncssh.__version__
    problem = ""
    if version != VERIFIED_VERSION:
        problem = f"asyncssh {version} is not {VERIFIED_VERSION}"
    else:
        try:
            if fingerprint() != FINGERPRINT:
                problem = "asyncssh differs from the verified source"
        except (AttributeError, OSError, TypeError) as error:
            problem = f"asyncssh cannot be inspected: {error}"
    return FastPathStatus(not problem, problem or "verified", version)


class _State:
    """The one process-wide answer; tests may switch it."""

    status: FastPathStatus = verify()


def status() -> FastPathStatus:
    """Return whether new connections use the fast path."""
    return _State.status


def disable(reason: str) -> None:
    """Make new connections use asyncssh's own data path and say why."""
    _State.status = FastPathStatus(
        active=False, reason=reason, asyncssh_version=asyncssh.__version__
    )


def enable() -> FastPathStatus:
    """Undo `disable` as far as `verify` allows."""
    _State.status = verify()
    return _State.status
