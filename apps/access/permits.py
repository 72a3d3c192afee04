"""The proof value: whoever holds a `ConnectionPermit` was let through by the decision.

The gateway dials with a permit and nothing else, so it cannot reach another asset,
account or address than the one that was decided on. Only
`access.authorization.authorize_connection` and `authorize_grant` make one; a test reads
the whole code base for it.
"""

import datetime as dt
import uuid
from dataclasses import dataclass

from apps.inventory.file_rules import FileRules
from apps.inventory.services import SFTP_SERVICES, ForwardDestination, forwards_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionPermit:
    """What one person may do on one asset until `deadline`, and how to get there."""

    user_id: uuid.UUID
    handle: str
    site_id: uuid.UUID
    asset_id: uuid.UUID
    asset_name: str
    address: str
    port: int
    # OpenSSH lines of the confirmed host keys; never empty.
    host_keys: tuple[str, ...]
    crypto_profile: str
    account_id: uuid.UUID
    account_name: str
    # What is sent to the asset as user name.
    login: str
    credential_kind: str
    # Where the asset asks for it (`inventory.sign_ins.SignIn`).
    sign_in: str
    grant_id: uuid.UUID
    services: frozenset[str]
    # The bytes of forwards are counted only, not recorded.
    omits_forward_bytes: bool
    deadline: dt.datetime
    end_mode: str
    grace_seconds: int
    in_operation: bool
    session_limit: int
    file_rules: FileRules
    # Minutes; 0 is never.
    idle_lock_minutes: int
    idle_end_minutes: int
    source_address: str
    # ssh or browser
    door: str
    issued_at: dt.datetime

    @property
    def may_transfer(self) -> bool:
        """Say whether any right to files is among the services."""
        return bool(self.services & SFTP_SERVICES)

    @property
    def forwards(self) -> frozenset[ForwardDestination]:
        """Return the destinations that may be forwarded to."""
        return forwards_of(self.services)
