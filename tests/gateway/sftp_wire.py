"""SFTP on the wire, and the inspector between two sides that a test plays."""

import datetime as dt
import struct

from apps.gateway.sftp_frames import FrameType, encode_frame, encode_string
from apps.gateway.sftp_inspector import SftpInspector
from apps.gateway.sftp_policy import SftpPolicy, Usage
from apps.inventory.file_rules import NO_RULES, FileRules
from apps.inventory.services import SFTP_SERVICES
from apps.recordings.manifest import FileNote

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
ALL = frozenset(str(service) for service in SFTP_SERVICES)


def u32(value: int) -> bytes:
    return struct.pack(">I", value)


INIT = encode_frame(FrameType.INIT, u32(3))


def inspector(
    services: frozenset[str] = ALL,
    rules: FileRules = NO_RULES,
    usage: Usage | None = None,
) -> tuple[SftpInspector, list[FileNote]]:
    notes: list[FileNote] = []
    policy = SftpPolicy(services, rules, usage or Usage())
    return SftpInspector(policy, clock=lambda: NOW, on_file=notes.append), notes


def taken(pieces: list) -> bytes:
    data = b"".join(pieces)
    pieces.clear()
    return data


def frames_of(data: bytes) -> list[bytes]:
    found = []
    while data:
        end = 4 + int.from_bytes(data[:4], "big")
        assert len(data) >= end, "a frame is cut off"
        found.append(data[:end])
        data = data[end:]
    return found


def request(kind: int, number: int, *fields: bytes) -> bytes:
    return encode_frame(kind, u32(number) + b"".join(fields))


def opening(number: int, path: bytes, flags: int) -> bytes:
    return request(FrameType.OPEN, number, encode_string(path), u32(flags), u32(0))


def write(number: int, handle: bytes, offset: int, data: bytes) -> bytes:
    place = struct.pack(">Q", offset)
    return request(
        FrameType.WRITE, number, encode_string(handle), place, encode_string(data)
    )


def read(number: int, handle: bytes, offset: int, length: int) -> bytes:
    place = struct.pack(">QI", offset, length)
    return request(FrameType.READ, number, encode_string(handle), place)


def status(number: int, code: int) -> bytes:
    return request(FrameType.STATUS, number, u32(code), u32(0), u32(0))


def agreed(**options) -> tuple[SftpInspector, list[FileNote]]:
    made, notes = inspector(**options)
    made.client_data(INIT)
    made.asset_data(encode_frame(FrameType.VERSION, u32(3)))
    taken(made.to_asset)
    taken(made.to_client)
    return made, notes


def opened(made: SftpInspector, flags: int, handle: bytes = b"h", number: int = 9):
    made.client_data(opening(number, b"f", flags))
    made.asset_data(request(FrameType.HANDLE, number, encode_string(handle)))
    taken(made.to_asset)
    taken(made.to_client)
