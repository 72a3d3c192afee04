"""Runs the roles of Sluice in one process, on one asyncio loop.

All roles together are the embedded mode; each role alone is a process of the
production mode. Every long-lived part is watched: one that fails is started again with
growing pauses, and does not take the others down with it.
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import uvicorn
from django.conf import settings
from django.db import connection

from apps.gateway.escape import parse_escape
from apps.gateway.limits import LoginLimits
from apps.gateway.lost_gateways import LostGateways
from apps.gateway.service import GatewayService, GatewaySettings
from apps.gateway.upstream import UpstreamSettings
from apps.gateway.watchdog import WatchdogSettings
from apps.portal.changes import ChangesBridge
from jumpserver.asgi import application
from jumpserver.lock import DataDirectoryLock
from jumpserver.private_files import write_private_json
from jumpserver.version import VERSION
from jumpserver.wakeups import hear_other_processes
from jumpserver.workers import CeleryThreads

logger = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_SWITCH_SECONDS = 0.001
"""How long a thread that computes may keep the event loop waiting for its turn."""
_COLLECT_AFTER = 10_000
"""New objects before the youngest are looked through."""


class Role(StrEnum):
    """What a process does."""

    PORTAL = "portal"
    GATEWAY = "gateway"
    WORKER = "worker"
    BEAT = "beat"


class RolesRefusedError(ValueError):
    """These roles cannot run with these settings; the message says what to do."""


def parse_roles(text: str) -> frozenset[Role]:
    """Return the roles named in `text`, comma-separated; `all` is every one.

    Raises: RolesRefusedError for a word that is no role, and for a part of the roles
    where only the embedded mode (all in one process) can work.
    """
    names = {name.strip() for name in text.split(",") if name.strip()}
    if names == {"all"}:
        return frozenset(Role)
    unknown = names - {role.value for role in Role}
    if unknown or not names:
        raise RolesRefusedError(
            f"There is no role {', '.join(sorted(unknown)) or 'without a name'}: use "
            f"{', '.join(role.value for role in Role)} or all."
        )
    roles = frozenset(Role(name) for name in names)
    if roles != frozenset(Role) and connection.vendor == "sqlite":
        raise RolesRefusedError(
            "On SQLite all roles run in one process: use --roles all, or set "
            "DATABASE_URL to a PostgreSQL database to run them apart."
        )
    if (
        roles & {Role.WORKER, Role.BEAT}
        and not {Role.WORKER, Role.BEAT} <= roles
        and not settings.REDIS_URL
    ):
        raise RolesRefusedError(
            "worker and beat in different processes need a broker: set REDIS_URL."
        )
    return roles


def _keep_what_stays_from_the_collector() -> None:
    """Have the garbage collector look at what comes and goes only.

    What a started process holds stays until its end; looking through all of it takes a
    tenth of a second, in which no key that is typed comes back.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 20, 50)


def gateway_settings() -> GatewaySettings:
    """Return what the environment says about this process's gateway."""
    seconds = float(settings.TARGET_CONNECT_SECONDS)
    return GatewaySettings(
        name=settings.GATEWAY_NAME,
        version=VERSION,
        data_dir=settings.SLUICE_DATA_DIR,
        site=settings.GATEWAY_SITE,
        ssh_host=settings.SSH_HOST,
        ssh_port=settings.SSH_PORT,
        login=LoginLimits(
            total=settings.SSH_PREAUTH_TOTAL,
            per_source=settings.SSH_PREAUTH_PER_ADDRESS,
            login_seconds=float(settings.SSH_LOGIN_GRACE_SECONDS),
        ),
        upstream=UpstreamSettings(
            tcp_seconds=seconds,
            kex_seconds=seconds,
            auth_seconds=seconds,
            allow_local_targets=settings.ALLOW_LOCAL_TARGETS,
        ),
        watchdog=WatchdogSettings(
            check_seconds=float(settings.WATCHDOG_SECONDS),
            blind_seconds=float(settings.DATABASE_GRACE_SECONDS),
        ),
        lost_seconds=float(settings.GATEWAY_LOST_SECONDS),
        stop_seconds=float(settings.STOP_GRACE_SECONDS),
        escape=parse_escape(settings.ESCAPE),
    )


class QuietServer(uvicorn.Server):
    """uvicorn without its own signal handlers, which would take ours away."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave the signals to the supervisor."""
        yield


@dataclass(kw_only=True)
class Supervisor:
    """Starts the roles, says when they answer, and stops them in good order."""

    roles: frozenset[Role]
    ready_file: Path | None = None
    on_ready: Callable[["Supervisor"], None] | None = None
    portal_url: str = ""
    ssh_port: int = 0
    ssh_host_key: str = ""
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _undo: list[Callable[[], Awaitable[None]]] = field(default_factory=list)

    def stop(self) -> None:
        """Ask the supervisor to stop; `run` returns when everything has ended."""
        self._stop.set()

    async def run(self) -> None:
        """Run until asked to stop (SIGTERM, SIGINT or `stop`).

        Raises: DataDirectoryInUseError, OSError when a port is taken.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        with contextlib.ExitStack() as stack:
            if self.roles == frozenset(Role):
                stack.enter_context(DataDirectoryLock(settings.SLUICE_DATA_DIR))
            try:
                await self._start()
                _keep_what_stays_from_the_collector()
                sys.setswitchinterval(_SWITCH_SECONDS)
                self._write_ready_file()
                if self.on_ready is not None:
                    self.on_ready(self)
                await self._stop.wait()
            finally:
                await self._stop_all()

    async def _start(self) -> None:
        if Role.GATEWAY in self.roles:
            await self._start_gateway()
        if Role.PORTAL in self.roles:
            await self._start_portal()
        if self.roles & {Role.GATEWAY, Role.PORTAL}:
            self._keep_running("wake-ups", hear_other_processes)
        if Role.GATEWAY not in self.roles:
            self._look_for_lost_gateways()
        celery_roles = self.roles & {Role.WORKER, Role.BEAT}
        if celery_roles:
            threads = CeleryThreads(
                worker=Role.WORKER in self.roles, beat=Role.BEAT in self.roles
            )
            await asyncio.to_thread(threads.start)
            self._undo.append(lambda: asyncio.to_thread(threads.stop))

    async def _start_gateway(self) -> None:
        gateway = GatewayService(gateway_settings())
        await gateway.start()
        self.ssh_port = gateway.ssh_port
        self.ssh_host_key = gateway.host_key_line
        self._undo.append(lambda: gateway.stop())
        self._tasks.append(
            asyncio.create_task(self._stop_with(gateway), name="gateway")
        )

    def _look_for_lost_gateways(self) -> None:
        """Do what a gateway does by itself: somebody must notice the last one's end."""
        lost = LostGateways(float(settings.GATEWAY_LOST_SECONDS))
        self._undo.append(lost.close)
        self._keep_running("lost gateways", lost.run)

    async def _stop_with(self, gateway: GatewayService) -> None:
        """Stop the whole process when the gateway has ended by itself: fail closed."""
        await gateway.finished.wait()
        self._stop.set()

    async def _start_portal(self) -> None:
        listener = socket.create_server(
            (settings.PORTAL_HOST, settings.PORTAL_PORT), backlog=512
        )
        host, port = listener.getsockname()[:2]
        tls = bool(settings.PORTAL_TLS_CERTIFICATE)
        self.portal_url = settings.PORTAL_URL or (
            f"{'https' if tls else 'http'}://{host}:{port}"
        )
        server = QuietServer(
            uvicorn.Config(
                application,
                lifespan="off",
                log_level="warning",
                ws="websockets-sansio",
                proxy_headers=False,
                server_header=False,
                ssl_certfile=settings.PORTAL_TLS_CERTIFICATE or None,
                ssl_keyfile=settings.PORTAL_TLS_KEY or None,
                timeout_graceful_shutdown=2,
                ws_max_size=256 * 1024,
            )
        )
        task = asyncio.create_task(server.serve(sockets=[listener]), name="portal")
        while not server.started:
            if task.done():
                await task
                raise RuntimeError("the portal ended while it was starting")
            await asyncio.sleep(0.01)
        self._keep_running("changes", lambda: ChangesBridge().run())

        async def end() -> None:
            server.should_exit = True
            with contextlib.suppress(asyncio.CancelledError):
                await task

        self._undo.append(end)
        task.add_done_callback(lambda _: self._stop.set())

    def _keep_running(self, name: str, part: Callable[[], Awaitable[None]]) -> None:
        self._tasks.append(
            asyncio.create_task(self._restart_with_pauses(name, part), name=name)
        )

    async def _restart_with_pauses(
        self, name: str, part: Callable[[], Awaitable[None]]
    ) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            started = asyncio.get_running_loop().time()
            try:
                await part()
            except asyncio.CancelledError:
                raise
            except Exception:
                logger.exception("%s failed; starting it again", name)
            if asyncio.get_running_loop().time() - started > _LONGEST_PAUSE_SECONDS:
                pause = _FIRST_PAUSE_SECONDS
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def _write_ready_file(self) -> None:
        if self.ready_file is None:
            return
        write_private_json(self.ready_file, self.facts())

    def facts(self) -> dict[str, object]:
        """Return where this process answers, for people and programs."""
        return {
            "portal_url": self.portal_url,
            "ssh_host": settings.SSH_PUBLIC_HOST or settings.SSH_HOST,
            "ssh_port": self.ssh_port,
            "ssh_host_key": self.ssh_host_key,
            "pid": os.getpid(),
        }

    async def _stop_all(self) -> None:
        """End the parts in the reverse order of their start, each whatever befalls."""
        for end in reversed(self._undo):
            try:
                await end()
            except Exception:
                logger.exception("A part did not stop in good order")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
