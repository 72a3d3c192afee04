"""A target that costs little: an SSH server in a process of its own that echoes.

`python -m benchmarks.stub_target ANSWER` writes ANSWER (JSON: `port`, `host_key`) and
serves until it is ended. It lets in whoever proves a key, on loopback.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import asyncssh

from apps.gateway.fastpath import ServerConnection
from jumpserver.private_files import write_private_json

LOOPBACK = "127.0.0.1"


class _Echo(asyncssh.SSHServerSession[bytes]):
    def connection_made(self, chan: Any) -> None:
        self._chan = chan

    def pty_requested(self, *_: Any) -> bool:
        return True

    def shell_requested(self) -> bool:
        return True

    def session_started(self) -> None:
        self._chan.write(b"ready> ")

    def data_received(self, data: bytes, datatype: int | None) -> None:  # noqa: ARG002
        self._chan.write(data)


class _Server(asyncssh.SSHServer):
    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:  # noqa: ARG002
        return True

    def validate_ca_key(self, username: str, key: asyncssh.SSHKey) -> bool:  # noqa: ARG002
        return True

    def session_requested(self) -> Any:
        return _Echo()


async def serve(answer: Path) -> None:
    """Listen, say where, and serve for ever."""
    loop = asyncio.get_running_loop()
    key = asyncssh.generate_private_key("ssh-ed25519")
    options = await asyncssh.SSHServerConnectionOptions.construct(
        server_factory=_Server,
        server_host_keys=[key],
        encoding=None,
        line_editor=False,
        compression_algs=None,
        gss_host=None,
        config=None,
        login_timeout=120,
    )
    server = await loop.create_server(
        lambda: ServerConnection(loop, options), LOOPBACK, 0, backlog=1000
    )
    port = server.sockets[0].getsockname()[1]
    line = key.export_public_key().decode().strip()
    write_private_json(answer, {"port": port, "host_key": line})
    await server.serve_forever()


def where(answer: Path) -> tuple[int, str]:
    """Return port and host key as ANSWER says."""
    said = json.loads(answer.read_bytes())
    return said["port"], said["host_key"]


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
