"""What the gateway gets for one session. Pure."""

import datetime as dt
import uuid
from dataclasses import dataclass

from apps.vault.secret_values import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasedCredential:
    """A credential for one log-in as `login`; it never leaves the gateway.

    `kind` is "certificate" (private_key and certificate), "key" (private_key) or
    "password" (password). `private_key` is OpenSSH's PEM form, `certificate` one line.
    A certificate is refused by the target from `valid_until` on.
    """

    lease_id: uuid.UUID
    kind: str
    login: str
    valid_until: dt.datetime
    private_key: Secret | None = None
    certificate: str | None = None
    password: Secret | None = None
