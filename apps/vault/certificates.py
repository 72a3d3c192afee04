"""Certificates of SSH authorities: of users for one log-in, of hosts for jumps. Pure.

SSH looks at a certificate at log-in only (PROTOCOL.certkeys of OpenSSH), so one that
lives just long enough to log in is dead by itself before nearly every session ends.
"""

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.serialization import (
    SSHCertificateBuilder,
    SSHCertificateType,
    load_ssh_public_key,
)

from apps.vault import ssh_keys
from apps.vault.secret_values import Secret

# The signature name a target must accept for these certificates to be of use.
CERTIFICATE_ALGORITHM = "ssh-ed25519-cert-v01@openssh.com"
# How far a target's clock may be behind ours without refusing a fresh certificate.
CLOCK_ALLOWANCE = dt.timedelta(minutes=5)
HOST_CERTIFICATE_VALIDITY = dt.timedelta(days=1)
_LARGEST_SERIAL = 2**64 - 1
# No pattern: OpenSSH matches `*` and `?` in the principals of hosts.
_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,251}[a-z0-9_-])?")


class TooLateForCertificateError(ValueError):
    """Less than a second is left: certificates count whole seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserCertificate:
    """A certificate with its key: `line` is public, `private_key` is not."""

    private_key: Secret
    line: str
    public_line: str
    serial: int
    valid_before: dt.datetime


def generate_authority() -> tuple[Secret, str]:
    """Return (private key in OpenSSH's PEM form, public line) of a new authority."""
    key = ssh_keys.generate_key()
    return ssh_keys.private_text(key), ssh_keys.public_line(key)


def issue_host_certificate(
    *,
    authority: Secret,
    public_line: str,
    names: Sequence[str],
    serial: int,
    now: dt.datetime,
) -> str:
    """Return the line of a certificate that says: this key may answer as `names`.

    Good from five minutes ago for a day (`HOST_CERTIFICATE_VALIDITY`).

    Raises: ValueError for unusable names, serial or key.
    """
    if not names or not all(_HOST_NAME.fullmatch(name) for name in names):
        raise ValueError("the names of a host are small letters, digits, - _ and .")
    if not 0 < serial <= _LARGEST_SERIAL:
        raise ValueError("a serial number is positive and fits in 64 bits")
    key = load_ssh_public_key(public_line.encode("ascii"))
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("only Ed25519 host keys are certified")
    certificate = (
        SSHCertificateBuilder()
        .public_key(key)
        .type(SSHCertificateType.HOST)
        .key_id(names[0].encode())
        .serial(serial)
        .valid_principals([name.encode() for name in names])
        .valid_after(int((now - CLOCK_ALLOWANCE).timestamp()))
        .valid_before(int((now + HOST_CERTIFICATE_VALIDITY).timestamp()))
        .sign(ssh_keys.load_private_key(authority))
    )
    return certificate.public_bytes().decode("ascii")


def issue_certificate(
    *,
    authority: Secret,
    principal: str,
    key_id: str,
    serial: int,
    now: dt.datetime,
    deadline: dt.datetime,
    login_seconds: int,
    forwards: bool = False,
) -> UserCertificate:
    """Return a new key with a certificate for one log-in as `principal`.

    Good from five minutes ago until min(`deadline`, `now` + `login_seconds`), rounded
    down to a second, that second excluded. It permits a terminal, with `forwards` also
    forwarding of ports, and nothing else: no agent or X11, and no user rc. `key_id`
    appears in the target's log and must not name a person.

    Raises: TooLateForCertificateError; ValueError for an unusable principal or serial.
    """
    if not principal or not principal.isprintable() or "," in principal:
        raise ValueError("a principal is one printable name")
    if not 0 < serial <= _LARGEST_SERIAL:
        raise ValueError("a serial number is positive and fits in 64 bits")
    valid_before = min(deadline, now + dt.timedelta(seconds=login_seconds)).replace(
        microsecond=0
    )
    if valid_before <= now:
        raise TooLateForCertificateError("the deadline is less than a second away")
    signer = ssh_keys.load_private_key(authority)
    key = Ed25519PrivateKey.generate()
    builder = (
        SSHCertificateBuilder()
        .public_key(key.public_key())
        .type(SSHCertificateType.USER)
        .key_id(key_id.encode())
        .serial(serial)
        .valid_principals([principal.encode()])
        .valid_after(int((now - CLOCK_ALLOWANCE).timestamp()))
        .valid_before(int(valid_before.timestamp()))
        .add_extension(b"permit-pty", b"")
    )
    if forwards:
        builder = builder.add_extension(b"permit-port-forwarding", b"")
    certificate = builder.sign(signer)
    return UserCertificate(
        private_key=ssh_keys.private_text(key),
        line=certificate.public_bytes().decode("ascii"),
        public_line=ssh_keys.public_line(key),
        serial=serial,
        valid_before=valid_before,
    )
