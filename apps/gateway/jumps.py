"""The transparent jump, seen from the outer connection: `ssh -J me@gateway asset`.

Who signs in by a handle alone may open direct-tcpip to the name of an asset, beside
`sluice` commands (`commands`). Nothing is dialled for it. The gateway answers on that
channel itself, with an SSH server that shows a host certificate for the asset's name,
and what comes next is an ordinary session (`inner_engineer`): the decision, the
recording and every control hold.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Protocol

import asyncssh
from asyncssh.constants import OPEN_ADMINISTRATIVELY_PROHIBITED, OPEN_RESOURCE_SHORTAGE
from django.utils import timezone

from apps.access import authorization
from apps.access.authorization import EarlierSignIn, JumpDestination
from apps.access.denials import Denied
from apps.gateway.authentication import KeyOwner
from apps.gateway.blocking import Blocking
from apps.gateway.engineer_connection import PREFIX, EngineerConnection
from apps.gateway.fastpath_forward import ForwardChannel, new_forward_channel
from apps.gateway.forwarding import AskedForward
from apps.gateway.jump_transport import JumpSession
from apps.gateway.limits import Budget
from apps.gateway.session_context import ChannelRefusedError
from apps.gateway.upstream import MAX_PACKET, WINDOW

logger = logging.getLogger(__name__)

JUMP_LIMIT: Final = 8
"""Jumps at the same time on one connection."""

JUMP_REFUSALS: Final = 20
"""Refused jumps of one connection; who asks for more is disconnected."""

COMMAND_BURST: Final = 30.0
COMMANDS_PER_SECOND: Final = 2.0
"""`sluice` commands of one connection: each asks the database several times."""

JUMP_IDLE_SECONDS: Final = 60.0
"""How long a connection may stay that carries no jump and no command."""

NO_ASSET_LINE: Final = (
    "this sign-in names no asset; use me@asset or me@account@asset, "
    "jump with ssh -J me@gateway account@asset, "
    "or see live sessions with ssh me@gateway sluice"
)

FRESH_SECONDS: Final = 60.0
"""For how long a full sign-in is as good as one made for this very jump."""

SSH_PORT: Final = 22


class OuterSide(Protocol):
    """The engineer who signed in by a handle alone: `server.Engineer`."""

    connection: EngineerConnection
    source_address: str

    def refused_forward(self, reason: str) -> None:
        """Write down that a forward was refused (R22)."""

    def leave(self, line: str) -> None:
        """Tell the client why and close its connection."""


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Who signed in outside, when on the loop's clock, and by a grace of which age.

    `proved_at` is when the code or the grace was looked at: a signal since then that
    ends graces ends what this sign-in is worth.
    """

    owner: KeyOwner
    at: float
    grace_age: dt.timedelta | None
    proved_at: dt.datetime

    @property
    def facts(self) -> EarlierSignIn:
        """Return what a decision has to know of it."""
        return EarlierSignIn(key_id=self.owner.key_id, at=self.proved_at)

    def age(self) -> dt.timedelta | None:
        """Return how old the full sign-in is now; None: as good as just now.

        A zone that asks for the code each time does so for each jump that is not
        opened together with the sign-in.
        """
        passed = asyncio.get_running_loop().time() - self.at
        if self.grace_age is None and passed < FRESH_SECONDS:
            return None
        return (self.grace_age or dt.timedelta()) + dt.timedelta(seconds=passed)


MakeInner = Callable[[SignedIn, JumpDestination], Awaitable[asyncio.Protocol]]
"""Returns the SSH server that answers on the channel, for one person and asset."""


@dataclass(frozen=True, slots=True)
class JumpHost:
    """What the jumps of all connections share."""

    blocking: Blocking
    make_inner: MakeInner


class Jumps:
    """The jumps of one outer connection. `signed_in` is done when that is written."""

    def __init__(
        self,
        host: JumpHost,
        outer: OuterSide,
        person: SignedIn,
        signed_in: asyncio.Task[None],
    ) -> None:
        self._host = host
        self._outer = outer
        self._person = person
        self._signed_in = signed_in
        self._count = 0
        self._refused = 0
        self._commands = 0
        self._budget = Budget(COMMAND_BURST, COMMANDS_PER_SECOND)
        self._idle: asyncio.TimerHandle | None = None
        self._wait_for_use()

    def _wait_for_use(self) -> None:
        loop = asyncio.get_running_loop()
        self._idle = loop.call_later(
            JUMP_IDLE_SECONDS, self._outer.leave, "nothing was opened for a minute"
        )

    def close(self) -> None:
        """Wait for nothing: the connection is used, or has gone."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def requested(
        self, asked: AskedForward
    ) -> tuple[ForwardChannel, Coroutine[Any, Any, JumpSession]]:
        """Take a channel to an asset's name. Raises: asyncssh.ChannelOpenError."""
        if self._count >= JUMP_LIMIT:
            line = f"a connection has at most {JUMP_LIMIT} jumps at a time"
            self._outer.refused_forward(line)
            raise asyncssh.ChannelOpenError(OPEN_RESOURCE_SHORTAGE, f"{PREFIX}{line}")
        channel = new_forward_channel(
            self._outer.connection, window=WINDOW, max_pktsize=MAX_PACKET
        )
        self._count += 1
        self.close()
        channel.on_gone = self._gone
        return channel, self._open(asked, channel)

    def _gone(self) -> None:
        self._count -= 1
        self._wait_if_unused()

    def command_began(self) -> bool:
        """Keep the connection while a command runs on it; False: too many of late."""
        self._commands += 1
        self.close()
        return self._budget.spend(asyncio.get_running_loop().time())

    def command_ended(self) -> None:
        """Wait for the next one, or a jump, for a while."""
        self._commands -= 1
        self._wait_if_unused()

    def _wait_if_unused(self) -> None:
        unused = not (self._count or self._commands)
        if unused and self._idle is None and not self._outer.connection.is_closed():
            self._wait_for_use()

    async def _open(self, asked: AskedForward, channel: ForwardChannel) -> JumpSession:
        try:
            await asyncio.shield(self._signed_in)
            destination = await self._find(asked)
            inner = await self._host.make_inner(self._person, destination)
        except ChannelRefusedError as error:
            line = str(error)
        except Exception:
            # asyncssh would end the whole connection for it.
            logger.exception("a jump could not be opened")
            line = "the jump cannot be opened now"
        else:
            extra = {
                name: self._outer.connection.get_extra_info(name)
                for name in ("peername", "sockname")
            }
            return JumpSession(channel, inner, extra)
        self._refused += 1
        self._outer.refused_forward(line)
        if self._refused >= JUMP_REFUSALS:
            self._outer.leave("too many refused requests")
        raise asyncssh.ChannelOpenError(
            OPEN_ADMINISTRATIVELY_PROHIBITED, f"{PREFIX}{line}"
        )

    async def _find(self, asked: AskedForward) -> JumpDestination:
        """Return the asset asked for. Raises: ChannelRefusedError.

        An unknown name and somebody else's asset are answered alike (R19).
        """
        found = await self._host.blocking.run(
            authorization.find_jump_destination,
            user=self._person.owner.user,
            earlier=self._person.facts,
            name=_name_of(asked),
            source_address=self._outer.source_address,
            now=timezone.now(),
        )
        if isinstance(found, Denied):
            raise ChannelRefusedError(authorization.outside_message(found))
        if asked.port not in {SSH_PORT, found.port}:
            raise ChannelRefusedError(
                f"{found.asset_name} is reached on port {SSH_PORT} here; other ports "
                "are forwards of a session"
            )
        return found


def _name_of(asked: AskedForward) -> str:
    """Return the name asked for, as it may be looked up and written down."""
    name = asked.host[:256].decode("ascii", "replace")
    return "".join(one if one.isprintable() else "\ufffd" for one in name)
