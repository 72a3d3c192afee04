"""The whole gateway: start, stop, and what runs in between."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import asyncssh
from django.db import Error as DatabaseError
from django.utils import timezone

from apps.audit.kinds import Kind
from apps.gateway import algorithms
from apps.gateway.allocator import Allocator
from apps.gateway.blocking import Blocking
from apps.gateway.engineer_connection import EngineerConnection
from apps.gateway.fastpath_self_test import self_test
from apps.gateway.following import Follower
from apps.gateway.held_delivery import HeldDelivery
from apps.gateway.inner_engineer import InnerServers
from apps.gateway.jumps import JumpHost
from apps.gateway.limits import LoginGate, LoginLimits
from apps.gateway.live import ESCAPE, Core
from apps.gateway.lost_gateways import RECOVERY_SECONDS, LostGateways
from apps.gateway.notices import Notices
from apps.gateway.owned_tasks import OwnedTasks
from apps.gateway.server import Door, Engineer
from apps.gateway.terminal_link import TerminalLink
from apps.gateway.upstream import MAX_PACKET, WINDOW, UpstreamSettings
from apps.gateway.watchdog import Watchdog, WatchdogSettings
from apps.gateway.withdrawals import Withdrawals
from apps.quarantine import operations as quarantine
from apps.recordings import operations as recordings
from apps.recordings.writer import RecorderThread
from apps.sessions import gateways
from apps.sessions.lifecycle import EndReason
from apps.vault import operations as vault
from apps.vault.models import ServiceKeyPurpose

logger = logging.getLogger(__name__)

VERSION: Final = "Sluice"
"""After `SSH-2.0-`: says what it is, not which release."""

HOST_KEY_KINDS: Final = frozenset(
    {Kind.GATEWAY_KEY_PREPARED, Kind.GATEWAY_KEY_SWITCHED}
)
LINK_NAME: Final = "gateway.sock"
BACKLOG: Final = 1000
KEEPALIVE_SECONDS: Final = 30
KEEPALIVE_COUNT: Final = 4


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Everything a gateway is told. Times are seconds."""

    name: str
    version: str
    data_dir: Path
    site: str = ""
    """Short name of the site whose banner is shown before the sign-in."""
    ssh_host: str = "127.0.0.1"
    ssh_port: int = 0
    login: LoginLimits = field(default_factory=LoginLimits)
    upstream: UpstreamSettings = field(default_factory=UpstreamSettings)
    watchdog: WatchdogSettings = field(default_factory=WatchdogSettings)
    stop_seconds: float = 5.0
    lost_seconds: float = 4.0
    """Silence after which another gateway is given up."""
    escape: int | None = ESCAPE
    """The byte that begins an in-band command; None for none."""
    withdraws: bool = True
    """Kill credentials at the end of each session; False leaves it to the worker."""


class GatewayService:
    """One gateway in the running event loop.

    `start`, then `stop`; `finished` is set when it has stopped for whatever reason.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._tasks = OwnedTasks("gateway")
        self._services = OwnedTasks("gateway service")
        self._blocking = Blocking()
        self._recorder_thread = RecorderThread()
        self._server: asyncio.AbstractServer | None = None
        self._link: TerminalLink | None = None
        self._watchdog: Watchdog | None = None
        self._allocator = Allocator()
        self._withdrawals: Withdrawals | None = None
        self._lost_gateways: LostGateways | None = None
        self._core: Core | None = None
        self._door: Door | None = None
        self.finished = asyncio.Event()
        self.host_key_line = ""
        self._host_key_pairs: list[asyncssh.SSHKey] = []
        self._inner: InnerServers | None = None
        self._front_options: asyncssh.SSHServerConnectionOptions
        self.ssh_port = 0

    @property
    def core(self) -> Core:
        """Return what the sessions share. Raises: RuntimeError before `start`."""
        if self._core is None:
            raise RuntimeError("the gateway is not running")
        return self._core

    async def start(self) -> None:
        """Listen; returns when everything answers.

        Raises: OSError when an address is taken. What was begun is undone then.
        """
        try:
            await self._start()
        except BaseException:
            await self._stop(0)
            raise

    async def _start(self) -> None:
        settings = self._settings
        self._allocator.keep_freed_blocks()
        speed = await self_test()
        log = logger.info if speed.active else logger.warning
        log("fast path %s: %s", "on" if speed.active else "OFF", speed.reason)
        self._recorder_thread.start()
        await self._load_host_keys()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: EngineerConnection(loop, self._front_options),
            settings.ssh_host,
            settings.ssh_port,
            backlog=BACKLOG,
            start_serving=False,
        )
        self.ssh_port = self._server.sockets[0].getsockname()[1]
        link_path = settings.data_dir / LINK_NAME
        node = await self._blocking.run(
            gateways.register_gateway,
            name=settings.name,
            version=settings.version,
            ssh_address=f"{settings.ssh_host}:{self.ssh_port}",
            link_address=f"unix:{link_path}",
            now=timezone.now(),
        )
        self._core = Core(
            gateway_id=node.pk,
            blocking=self._blocking,
            recorder_thread=self._recorder_thread,
            upstream=settings.upstream,
            tasks=self._tasks,
            check_now=self._check_now,
            escape=settings.escape,
        )
        notices = Notices(self._blocking, site=settings.site)
        await notices.load()
        self._door = Door(self._core, LoginGate(settings.login), set(), notices)
        self._supervise(notices.run, "notices")
        self._inner = InnerServers(
            self._door, self._blocking, self._host_key_pairs[0], self._options
        )
        self._door.jump_host = JumpHost(self._blocking, self._inner.make)
        await self._blocking.run(
            vault.service_key, ServiceKeyPurpose.JUMP_AUTHORITY, now=timezone.now()
        )
        host_keys = Follower(self._load_host_keys, HOST_KEY_KINDS, "the host keys")
        self._supervise(host_keys.run, "host keys")
        self._watchdog = Watchdog(self._core, settings.watchdog, self._given_up)
        self._supervise(self._watchdog.run, "watchdog")
        self._supervise(self._watchdog.run_heartbeat, "heartbeat")
        self._supervise(self._allocator.run, "allocator")
        self._supervise(HeldDelivery(self._core).run, "delivery of held uploads")
        if settings.withdraws:
            self._withdrawals = Withdrawals(settings.name)
            self._supervise(self._withdrawals.run, "withdrawals")
        self._lost_gateways = LostGateways(settings.lost_seconds, own=node.pk)
        self._supervise(self._lost_gateways.run, "lost gateways")
        self._services.spawn(self._recover_recordings(), "recover recordings")
        self._link = TerminalLink(self._core, link_path, notices)
        await self._link.start()
        await self._server.start_serving()

    async def _load_host_keys(self) -> None:
        """Read the host keys; connections that come use the first, and learn the next.

        Connections that are there keep the key they began with.
        """
        keys = await self._blocking.run(vault.host_keys, now=timezone.now())
        pairs = [asyncssh.import_private_key(k.private_pem.reveal()) for k in keys]
        if pairs == self._host_key_pairs:
            return
        # So that clients learn the next key before it is used (hostkeys-00).
        self._front_options = await self._options(pairs, send_server_host_keys=True)
        self._host_key_pairs = pairs
        self.host_key_line = keys[0].public_line
        if self._inner is not None:
            self._inner.use_host_key(pairs[0])

    async def _options(
        self, host_keys: list[Any], *, send_server_host_keys: bool = False
    ) -> asyncssh.SSHServerConnectionOptions:
        options: asyncssh.SSHServerConnectionOptions
        options = await asyncssh.SSHServerConnectionOptions.construct(
            server_factory=self._engineer,
            server_host_keys=host_keys,
            send_server_host_keys=send_server_host_keys,
            server_version=VERSION,
            kex_algs=list(algorithms.KEX),
            encryption_algs=[*algorithms.GCM, *algorithms.CHACHA],
            mac_algs=list(algorithms.MACS),
            signature_algs=list(algorithms.SIGNATURES),
            compression_algs=None,
            login_timeout=self._settings.login.login_seconds,
            keepalive_interval=KEEPALIVE_SECONDS,
            keepalive_count_max=KEEPALIVE_COUNT,
            rekey_bytes=algorithms.REKEY_BYTES,
            rekey_seconds=algorithms.REKEY_SECONDS,
            agent_forwarding=False,
            x11_forwarding=False,
            allow_scp=False,
            line_editor=False,
            encoding=None,
            window=WINDOW,
            max_pktsize=MAX_PACKET,
            gss_host=None,
            host_based_auth=False,
            password_auth=False,
            x509_trusted_certs=None,
            config=None,
        )
        return options

    def _engineer(self) -> Engineer:
        if self._door is None:
            raise RuntimeError("the gateway is not running")
        return Engineer(self._door)

    async def _check_now(self) -> None:
        if self._watchdog is not None:
            await self._watchdog.check()

    def _supervise(
        self, service: Callable[[], Coroutine[Any, Any, None]], name: str
    ) -> None:
        self._services.spawn(_keep_running(service, name), name)

    async def _recover_recordings(self) -> None:
        """Seal what the process before this one left behind when it was killed.

        The worker's sweep would find it as well, but somebody may be waiting for it.
        """
        await asyncio.sleep(RECOVERY_SECONDS)
        await self._blocking.run(recordings.recover_orphans, now=timezone.now())
        await self._blocking.run(quarantine.give_up_orphans, now=timezone.now())

    def _given_up(self) -> None:
        self._services.spawn(self.stop(grace_seconds=0), "stop")

    async def stop(self, grace_seconds: float | None = None) -> None:
        """Take no new connection, let sessions end as their assets' owners decided
        within the grace, then end those that are left.

        Safe to call more than once; returns when everything is written and closed.
        """
        if grace_seconds is None:
            grace_seconds = self._settings.stop_seconds
        if self._core is not None and not self._core.draining:
            self._core.draining = True
            await self._stop(grace_seconds)
        await self.finished.wait()

    async def _stop(self, grace_seconds: float) -> None:
        if self._server is not None:
            self._server.close()
        await self._end_sessions(grace_seconds)
        if self._door is not None:
            for connection in list(self._door.connections):
                connection.abort_transport()
        if self._link is not None:
            await self._link.stop()
        await self._tasks.wait(30)
        await self._tasks.cancel()
        await asyncio.to_thread(self._stop_recorder_thread)
        # `stop` may itself be one of them: a gateway that was given up stops itself.
        await self._services.cancel()
        for part in (self._withdrawals, self._lost_gateways, self._watchdog):
            if part is not None:
                await part.close()
        await self._say_stopped()
        await self._blocking.close()
        if self._server is not None:
            await self._server.wait_closed()
        self.finished.set()

    async def _say_stopped(self) -> None:
        if self._core is None:
            return
        try:
            await self._blocking.run(
                gateways.stop_gateway,
                gateway_id=self._core.gateway_id,
                now=timezone.now(),
            )
        except DatabaseError:
            # The next start, or another process, finds the silent row.
            logger.exception("the gateway's end could not be written down")

    def _stop_recorder_thread(self) -> None:
        self._recorder_thread.stop()

    async def _end_sessions(self, grace_seconds: float) -> None:
        if self._core is None:
            return
        live = self._core.live
        for session in list(live.values()):
            session.gateway_stops(grace_seconds)
        deadline = asyncio.get_running_loop().time() + grace_seconds
        while live and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        for session in list(live.values()):
            session.end(EndReason.GATEWAY_STOPPED, "the gateway is being stopped")


async def _keep_running(service: Callable[[], Awaitable[None]], name: str) -> None:
    """Run a service until it returns; start it again when it fails, ever slower."""
    pause = 0.1
    while True:
        try:
            await service()
        except asyncio.CancelledError:
            raise
        except Exception:
            logger.exception("the gateway's %s failed; again in %.1f s", name, pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 10.0)
        else:
            return
