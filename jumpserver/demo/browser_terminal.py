"""The page of a browser terminal or a watch, as its script speaks to the portal."""

import json
import struct
import threading
from contextlib import suppress
from typing import NamedTuple

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from jumpserver.demo.portal_client import PortalClient, control_message
from jumpserver.demo.transcript import Transcript

_EVENT = struct.Struct(">QBIQ")
_OUTPUT, _STDERR, _NOTICE = 2, 3, 8


class WatchedEvent(NamedTuple):
    """The head of one event of a watch."""

    number: int
    kind: int
    channel: int
    microseconds: int


class BrowserStream:
    """What comes over one WebSocket: bytes into `transcript`, the rest into `told`."""

    def __init__(self, client: PortalClient, path: str, *, is_watch: bool) -> None:
        self.transcript = Transcript()
        self.told = Transcript()
        self.events: list[WatchedEvent] = []
        self._is_watch = is_watch
        self._connection: ClientConnection = client.open_websocket(path)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def type(self, keys: str) -> None:
        """Send keys as typed."""
        self._connection.send(keys.encode())

    def resize(self, columns: int, rows: int) -> None:
        """Tell the size of the window; the first one begins the terminal."""
        self._connection.send(
            json.dumps({"type": "resize", "columns": columns, "rows": rows})
        )

    def close(self) -> None:
        """Close the page."""
        self._connection.close()
        self._reader.join(5)

    def _read(self) -> None:
        with suppress(ConnectionClosed):
            for message in self._connection:
                if isinstance(message, bytes):
                    self._take(message)
                else:
                    line = json.dumps(control_message(message), ensure_ascii=False)
                    self.told.add(f"{line}\n".encode())
        self.transcript.end()
        self.told.end()

    def _take(self, message: bytes) -> None:
        if not self._is_watch:
            self.transcript.add(message)
            return
        event = WatchedEvent(*_EVENT.unpack_from(message))
        self.events.append(event)
        if event.kind in (_OUTPUT, _STDERR, _NOTICE):
            self.transcript.add(message[_EVENT.size :])


def open_terminal(
    client: PortalClient, grant_id: str, *, columns: int, rows: int
) -> BrowserStream:
    """Open a browser terminal on a grant."""
    stream = BrowserStream(client, f"/ws/terminal/{grant_id}/", is_watch=False)
    stream.resize(columns, rows)
    return stream


def open_watch(client: PortalClient, session_id: str) -> BrowserStream:
    """Watch a live session."""
    return BrowserStream(client, f"/ws/watch/{session_id}/", is_watch=True)
