"""A browser's end of a WebSocket, on the ASGI application itself.

Channels has one too, but importing it asks for the daphne server.
"""

import json
from typing import Any

from asgiref.testing import ApplicationCommunicator

_SECONDS = 10.0


class BrowserSocket:
    """One WebSocket; `connect` first, `disconnect` last."""

    def __init__(
        self,
        application: Any,
        path: str,
        *,
        headers: list[tuple[bytes, bytes]],
        client: tuple[str, int] = ("192.0.2.7", 50000),
    ) -> None:
        scope = {
            "type": "websocket",
            "path": path,
            "query_string": b"",
            "headers": headers,
            "subprotocols": [],
            "client": client,
        }
        self._asgi = ApplicationCommunicator(application, scope)

    async def connect(self) -> int | None:
        """Open it; returns None when accepted, else the code it was closed with."""
        await self._asgi.send_input({"type": "websocket.connect"})
        answer = await self.output()
        if answer["type"] == "websocket.accept":
            return None
        assert answer["type"] == "websocket.close"
        await self.disconnect()
        return int(answer.get("code", 1000))

    async def output(self) -> dict[str, Any]:
        """Return the next ASGI message of the portal."""
        return dict(await self._asgi.receive_output(timeout=_SECONDS))

    async def said(self) -> dict[str, Any]:
        """Return the next message, which must be control."""
        return dict(json.loads((await self.output())["text"]))

    async def data(self) -> bytes:
        """Return the next message, which must be data."""
        return bytes((await self.output())["bytes"])

    async def silent(self, seconds: float) -> bool:
        """Say whether nothing comes for so long."""
        return bool(await self._asgi.receive_nothing(timeout=seconds))

    async def say(self, **control: object) -> None:
        """Send a control message."""
        await self.send_text(json.dumps(control))

    async def send_text(self, text: str) -> None:
        """Send a text message as it is."""
        await self._asgi.send_input({"type": "websocket.receive", "text": text})

    async def send(self, data: bytes) -> None:
        """Send data."""
        await self._asgi.send_input({"type": "websocket.receive", "bytes": data})

    async def disconnect(self) -> None:
        """Go away and wait until the portal has cleaned up."""
        await self._asgi.send_input({"type": "websocket.disconnect", "code": 1001})
        await self._asgi.wait(_SECONDS)
