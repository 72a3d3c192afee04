"""What a forward leads to: sends as many zeros as it is asked for, over TCP.

`python -m benchmarks.source ANSWER` writes its port to ANSWER and serves on loopback
until it is ended. A client sends a number of bytes as a line of text.
"""

import socketserver
import sys
from pathlib import Path

_PIECE = bytes(1 << 20)


class _Source(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        left = int(self.rfile.readline() or b"0")
        while left > 0:
            piece = _PIECE[:left]
            self.wfile.write(piece)
            left -= len(piece)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True


if __name__ == "__main__":
    with _Server(("127.0.0.1", 0), _Source) as server:
        draft = Path(f"{sys.argv[1]}.new")
        draft.write_text(str(server.server_address[1]))
        draft.replace(sys.argv[1])
        server.serve_forever()
