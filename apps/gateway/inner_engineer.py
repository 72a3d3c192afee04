"""The transparent jump, seen from inside: the SSH server that answers for an asset.

The connection belongs to a person who has signed in outside, so no factor is asked
again. That says who it is, and nothing more: the decision is made for exactly this
person, asset and account, and what it allows is an ordinary session.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, cast

import asyncssh
from django.utils import timezone

from apps.access import authorization
from apps.access.authorization import JumpDestination
from apps.gateway.authentication import Authentication, Factors, KeyOwner
from apps.gateway.blocking import Blocking
from apps.gateway.engineer_connection import EngineerConnection
from apps.gateway.jumps import SignedIn
from apps.gateway.server import DOOR, Door, Engineer
from apps.gateway.user_string import ParsedLogin, is_name
from apps.vault import operations as vault

RENEW_AFTER: Final = dt.timedelta(hours=12)
"""A certificate is good for a day; half of it is left when it is shown."""

KEPT_OPTIONS: Final = 1000
"""Assets whose certificate is kept ready; more are made anew."""


class JumpAuthentication(Authentication):
    """The sign-in of an inner connection: done outside; only the account is new."""

    def __init__(self, factors: Factors, owner: KeyOwner, asset_name: str) -> None:
        super().__init__(factors)
        self._outside = owner
        self._asset_name = asset_name

    def begin(self, user_string: str) -> None:
        """Take the account. The person's own handle stands for the only one there is;
        what is no name stands for an account that does not exist."""
        handle = self._outside.user.username
        account: str | None = user_string if is_name(user_string) else ""
        if user_string.lower() == handle.lower():
            account = None
        self.login = ParsedLogin(handle=handle, account=account, asset=self._asset_name)
        self._owner, self._complete = self._outside, True


class InnerEngineer(Engineer):
    """One inner connection: its account, then its live session."""

    def __init__(self, door: Door, person: SignedIn, asset_name: str) -> None:
        super().__init__(door)
        self._person = person
        self.authentication = JumpAuthentication(
            self._factors, person.owner, asset_name
        )

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Know the connection; it counts against the limits of the outer one."""
        self.connection = cast(EngineerConnection, conn)
        self.source_address = conn.get_extra_info("peername", ("",))[0]
        self.admitted = True
        self._door.connections.add(self.connection)

    def begin_auth(self, username: str) -> bool:
        """Take the account; no factor is missing."""
        self.authentication.begin(username)
        return False

    async def _authorize(self, owner: KeyOwner, login: ParsedLogin) -> Any:
        return await self._core.blocking.run(
            authorization.authorize_connection,
            user=owner.user,
            asset_name=login.asset or "",
            account_name=login.account,
            source_address=self.source_address,
            door=DOOR,
            now=timezone.now(),
            grace_age=self._person.age(),
            earlier=self._person.facts,
        )


class InnerConnection(EngineerConnection):
    """A connection over a channel of another one, for one engineer."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        options: asyncssh.SSHServerConnectionOptions,
        engineer: InnerEngineer,
    ) -> None:
        super().__init__(loop, options)
        self._protocol_factory = lambda: engineer


MakeOptions = Callable[[list[Any]], Awaitable[asyncssh.SSHServerConnectionOptions]]


@dataclass(slots=True)
class InnerServers:
    """Makes the servers that answer for assets. One per gateway.

    `host_key` is the gateway's own; a certificate lends it the asset's name, so that
    a client without certificates sees a key that it knows already.
    """

    door: Door
    blocking: Blocking
    host_key: asyncssh.SSHKey
    make_options: MakeOptions
    _ready: dict[str, tuple[dt.datetime, asyncssh.SSHServerConnectionOptions]] = field(
        default_factory=dict
    )

    def use_host_key(self, key: asyncssh.SSHKey) -> None:
        """Lend another key to the connections that come: the gateway's own changed."""
        self.host_key = key
        self._ready.clear()

    async def make(
        self, person: SignedIn, destination: JumpDestination
    ) -> asyncio.Protocol:
        """Return a server for one connection to `destination`."""
        options = await self._options_for(destination)
        engineer = InnerEngineer(self.door, person, destination.asset_name)
        connection = InnerConnection(asyncio.get_running_loop(), options, engineer)
        # asyncssh's connections are protocols in all but their base class.
        return cast(asyncio.Protocol, connection)

    async def _options_for(
        self, destination: JumpDestination
    ) -> asyncssh.SSHServerConnectionOptions:
        now = timezone.now()
        kept = self._ready.get(destination.names[0])
        if kept is not None and now - kept[0] < RENEW_AFTER:
            return kept[1]
        key = self.host_key
        line = await self.blocking.run(
            vault.issue_host_certificate,
            public_line=key.export_public_key("openssh").decode("ascii"),
            names=destination.names,
            now=now,
        )
        certificate = asyncssh.import_certificate(line)
        options = await self.make_options([(key, certificate)])
        if key is not self.host_key:
            # Replaced meanwhile: good for this connection, not for those that come.
            return options
        if len(self._ready) >= KEPT_OPTIONS:
            self._ready.clear()
        self._ready[destination.names[0]] = (now, options)
        return options
