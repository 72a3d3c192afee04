#!/usr/bin/env python3
"""Verify Sluice recordings and ledger exports, without Sluice.

    python3 verifier.py FILE... --key PUBLIC_KEY [--ledger LEDGER.jsonl] [--json]

This one file needs Python 3.9 or later and the `cryptography` package, nothing else,
and no decryption key: it proves that a recording is the one that was sealed, complete
and unaltered, not what it shows. PUBLIC_KEY is an Ed25519 key as one OpenSSH line (a
file may hold several) or as PEM; get it from someone other than who gave you the files.

Exit code: 0 everything holds, 1 something is broken, 2 it could not be checked.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import json
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        PublicFormat,
        load_pem_public_key,
        load_ssh_public_key,
    )
except ImportError:
    sys.stderr.write(
        "verifier: the Python package `cryptography` is missing."
        " Install it (pip install cryptography) and run this again.\n"
    )
    sys.exit(2)

# The layout is written down here a second time on purpose: a verifier that shares code
# with the writer would share its mistakes.
MAGIC = b"SLREC1\r\n"
SEGMENT_MAGIC = b"SEG1"
SEAL_MAGIC = b"SEAL"
END_MAGIC = b"END1"
SEGMENT = struct.Struct(">4sBBHQIIQQI")
LENGTH = struct.Struct(">I")
TRAILER = struct.Struct(">Q4s")
FRAME_START = 1
FRAME_END = 2
HASH_BYTES = 32
TAG_BYTES = 16
SIGNATURE_BYTES = 64
MAX_HEADER_BYTES = 1 << 16
MAX_SEGMENT_BYTES = 4 << 20
MAX_SEAL_BYTES = 64 << 20
MAX_LINE_BYTES = 16 << 20
SEAL_TAG = b"sluice recording seal 1\n"
HEAD_TAG = b"sluice ledger head 1\n"

SEAL_FACTS = (
    "how",
    "sealed_at",
    "signer",
    "root",
    "segments",
    "duration_microseconds",
    "bytes_in",
    "bytes_out",
    "dropped_bytes",
)

Keys = dict[str, Ed25519PublicKey]


class Broken(Exception):  # noqa: N818 - a finding, not a fault of this program
    """The evidence does not hold; says where and why."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.where = where
        self.reason = reason


class UsageError(Exception):
    """It cannot be checked as asked."""


@dataclass
class Report:
    """What was found about one file."""

    path: str
    kind: str
    """`recording` or `ledger`."""
    ok: bool = False
    where: str | None = None
    """Segment and offset, or line, of the first thing that is wrong."""
    reason: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the report for `--json`."""
        return {
            "path": self.path,
            "kind": self.kind,
            "ok": self.ok,
            "where": self.where,
            "reason": self.reason,
            **self.facts,
        }


def canonical_json(value: Any) -> bytes:
    """Return the one spelling of `value` that is hashed and signed."""
    text = json.dumps(
        value,
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    )
    return text.encode("utf-8")


def fingerprint(key: Ed25519PublicKey) -> str:
    """Return `SHA256:...` as `ssh-keygen -l` prints it."""
    line = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    digest = hashlib.sha256(base64.b64decode(line.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode("ascii").rstrip("=")


def load_keys(paths: Sequence[str]) -> Keys:
    """Return the public keys in the files, by fingerprint.

    Raises: UsageError.
    """
    keys: Keys = {}
    for path in paths:
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}") from error
        for key in _keys_in(content, path):
            keys[fingerprint(key)] = key
    return keys


def _keys_in(content: bytes, path: str) -> list[Ed25519PublicKey]:
    found = []
    if b"-----BEGIN" in content:
        texts = [(content, load_pem_public_key)]
    else:
        lines = [line.strip() for line in content.splitlines()]
        texts = [
            (line, load_ssh_public_key)
            for line in lines
            if line and not line.startswith(b"#")
        ]
    for text, load in texts:
        try:
            key = load(text)
        except (ValueError, TypeError) as error:
            raise UsageError(f"{path}: no public key: {error}") from error
        if not isinstance(key, Ed25519PublicKey):
            raise UsageError(f"{path}: not an Ed25519 key")
        found.append(key)
    if not found:
        raise UsageError(f"{path}: no public key in this file")
    return found


def verify_recording(path: str, keys: Keys) -> Report:
    """Return the report on the recording at `path`.

    Raises: OSError when it cannot be read.
    """
    report = Report(path, "recording")
    with open(path, "rb") as file:
        try:
            _RecordingCheck(file, keys, report.facts).run()
            report.ok = True
        except Broken as broken:
            report.where, report.reason = broken.where, broken.reason
    return report


class _RecordingCheck:
    """Walks one recording from its first byte to its last."""

    def __init__(self, file: BinaryIO, keys: Keys, facts: dict[str, Any]) -> None:
        self._file = file
        self._keys = keys
        self._facts = facts
        self._offset = 0
        self._segments = 0
        self._root = b""
        self._frame = -1
        self._microseconds = 0
        self._must_start = True
        self._index: list[list[int]] = []

    def run(self) -> None:
        """Check everything. Raises: Broken."""
        self._header()
        while True:
            start = self._offset
            magic = self._file.read(len(SEGMENT_MAGIC))
            if magic == SEAL_MAGIC:
                self._seal(start)
                return
            where = f"segment {self._segments} at byte {start}"
            if not magic:
                raise Broken(
                    f"end of file at byte {start}",
                    "there is no seal: still being written, never closed, or cut off",
                )
            if magic != SEGMENT_MAGIC:
                raise Broken(where, "neither a segment nor the seal begins here")
            self._segment(start, magic, where)

    def _read(self, length: int, where: str) -> bytes:
        data = self._file.read(length)
        if len(data) < length:
            raise Broken(where, "the file ends in the middle of it")
        return data

    def _header(self) -> None:
        where = "header at byte 0"
        head = self._file.read(len(MAGIC) + LENGTH.size)
        if len(head) < len(MAGIC) + LENGTH.size or not head.startswith(MAGIC):
            raise Broken(where, "this is not a Sluice recording of version 1")
        (length,) = LENGTH.unpack_from(head, len(MAGIC))
        if length > MAX_HEADER_BYTES:
            raise Broken(where, "it is too long")
        body = self._read(length, where)
        header = _canonical_object(body, where)
        self._facts["header"] = header
        self._root = hashlib.sha256(head + body).digest()
        self._offset = len(head) + len(body)

    def _segment(self, start: int, magic: bytes, where: str) -> None:
        head = magic + self._read(SEGMENT.size - len(magic), where)
        _, kind, flags, reserved, number, plain, cipher, first, last, frame = (
            SEGMENT.unpack(head)
        )
        if kind != 1 or reserved or flags & ~(FRAME_START | FRAME_END):
            raise Broken(where, "its header is not of this version")
        if not 0 < plain <= MAX_SEGMENT_BYTES:
            raise Broken(where, "its plain length is impossible")
        if not TAG_BYTES < cipher <= MAX_SEGMENT_BYTES:
            raise Broken(where, "its cipher length is impossible")
        ciphertext = self._read(cipher, where)
        stored = self._read(HASH_BYTES, where)
        link = hashlib.sha256(self._root)
        link.update(head)
        link.update(ciphertext)
        if link.digest() != stored:
            raise Broken(
                where, "its hash does not match its content and the one before"
            )
        if number != self._segments:
            raise Broken(where, f"it says it is segment {number}")
        if first > last or first < self._microseconds:
            raise Broken(where, "its times go backwards")
        starts = bool(flags & FRAME_START)
        if (self._must_start and not starts) or frame != self._frame + starts:
            raise Broken(where, "it does not continue the frame before it")
        if starts:
            self._index.append([number, start, first])
        self._must_start = bool(flags & FRAME_END)
        self._frame = frame
        self._microseconds = last
        self._root = stored
        self._segments += 1
        self._offset = start + len(head) + cipher + HASH_BYTES

    def _seal(self, start: int) -> None:
        where = f"seal at byte {start}"
        (length,) = LENGTH.unpack(self._read(LENGTH.size, where))
        if length > MAX_SEAL_BYTES:
            raise Broken(where, "it is too long")
        body = self._read(length, where)
        signature = self._read(SIGNATURE_BYTES, where)
        trailer = self._read(TRAILER.size, where)
        seal = _canonical_object(body, where)
        if TRAILER.unpack(trailer) != (start, END_MAGIC):
            raise Broken(where, "it does not end as it should")
        end = self._file.tell()
        if self._file.read(1):
            raise Broken(f"byte {end}", "there are bytes behind the seal")
        self._claims(where, seal)
        self._signature(where, seal, body, signature)
        self._facts.update({name: seal.get(name) for name in SEAL_FACTS})

    def _signature(
        self, where: str, seal: dict[str, Any], body: bytes, signature: bytes
    ) -> None:
        message = hashlib.sha256(SEAL_TAG + body + self._root).digest()
        _check_signature(where, self._keys, str(seal.get("signer")), message, signature)

    def _claims(self, where: str, seal: dict[str, Any]) -> None:
        if seal.get("version") != 1:
            raise Broken(where, "it is of another version")
        if seal.get("root") != self._root.hex():
            raise Broken(where, "its root hash is not that of the segments")
        if seal.get("segments") != self._segments:
            raise Broken(
                where, f"it seals {seal.get('segments')} segments, not {self._segments}"
            )
        if seal.get("index") != self._index:
            raise Broken(where, "its index is not that of the segments")
        duration = seal.get("duration_microseconds")
        if not isinstance(duration, int) or duration < self._microseconds:
            raise Broken(where, "it says less time than the segments hold")


def verify_ledger(path: str, keys: Keys) -> Report:
    """Return the report on the ledger export (JSON lines) at `path`.

    Raises: OSError when it cannot be read.
    """
    report = Report(path, "ledger")
    with open(path, "rb") as file:
        try:
            _check_ledger(file, keys, report.facts)
            report.ok = True
        except Broken as broken:
            report.where, report.reason = broken.where, broken.reason
    return report


def _check_ledger(file: BinaryIO, keys: Keys, facts: dict[str, Any]) -> None:
    lines = _ledger_lines(file)
    where, first = next(lines, ("line 1", {}))
    if first.get("ledger") != "sluice":
        raise Broken(where, "this is not a ledger export of Sluice")
    link, seq = bytes(HASH_BYTES), 0
    whole = "previous_hash" not in first
    if not whole:
        link = _hash_in(first, "previous_hash", where)
        seq = -1
    for count, (where, line) in enumerate(lines):
        if "head" in line:
            _check_head(where, line, keys, link=link, seq=seq, facts=facts)
            if next(lines, None) is not None:
                raise Broken(where, "there are lines behind the signed head")
            facts.update({"events": count, "whole": whole})
            return
        link, seq = _check_event(where, line, link=link, seq=seq)
        if count == 0:
            facts["first_seq"] = seq
    raise Broken("end of file", "the signed head is missing: cut off")


def _check_event(
    where: str, line: dict[str, Any], *, link: bytes, seq: int
) -> tuple[bytes, int]:
    if set(line) != {"event", "leaf_hash", "hash"}:
        raise Broken(where, "it is not an event with its hashes")
    event = line["event"]
    if not isinstance(event, dict) or type(event.get("seq")) is not int:
        raise Broken(where, "its event has no number")
    found = event["seq"]
    if found != seq + 1 and seq >= 0:
        raise Broken(where, f"event {found} where {seq + 1} belongs")
    leaf = hashlib.sha256(b"\x00" + canonical_json(event)).digest()
    if leaf != _hash_in(line, "leaf_hash", where):
        raise Broken(where, f"event {found} is not what its hash says")
    link = hashlib.sha256(b"\x01" + link + leaf).digest()
    if link != _hash_in(line, "hash", where):
        raise Broken(where, f"event {found} does not follow the one before it")
    return link, found


def _check_head(
    where: str,
    line: dict[str, Any],
    keys: Keys,
    *,
    link: bytes,
    seq: int,
    facts: dict[str, Any],
) -> None:
    head = line["head"]
    if not isinstance(head, dict) or set(line) != {"head", "signature", "key"}:
        raise Broken(where, "the head is malformed")
    try:
        signature = base64.b64decode(str(line["signature"]), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Broken(where, "the signature is not base64") from error
    if base64.b64encode(signature).decode("ascii") != line["signature"]:
        raise Broken(where, "the signature is not base64")
    message = hashlib.sha256(HEAD_TAG + canonical_json(head)).digest()
    signer = _check_signature(where, keys, str(line["key"]), message, signature)
    if head.get("hash") != link.hex():
        raise Broken(where, "the head is of other events")
    if seq >= 0 and head.get("seq") != seq:
        raise Broken(where, f"the head is event {head.get('seq')}, the last is {seq}")
    facts.update(
        {
            "last_seq": head.get("seq"),
            "hash": head.get("hash"),
            "exported_at": head.get("exported_at"),
            "signer": signer,
        }
    )


def _check_signature(
    where: str, keys: Keys, named: str, message: bytes, signature: bytes
) -> str:
    """Return the fingerprint of the given key that made the signature.

    What the file says about its signer only helps to explain a failure.
    """
    for name, key in keys.items():
        try:
            key.verify(signature, message)
        except InvalidSignature:
            continue
        return name
    if named in keys:
        raise Broken(where, "the signature is wrong")
    raise Broken(where, f"not signed by a key given here; it names {named}")


def _ledger_lines(file: BinaryIO) -> Iterator[tuple[str, dict[str, Any]]]:
    number = 0
    while True:
        raw = file.readline(MAX_LINE_BYTES + 1)
        if not raw:
            return
        number += 1
        where = f"line {number}"
        if len(raw) > MAX_LINE_BYTES:
            raise Broken(where, "it is too long")
        if not raw.endswith(b"\n"):
            raise Broken(where, "it is cut off")
        yield where, _json_object(raw, where)


def _json_object(raw: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_without_duplicates,
            parse_constant=_no_constant,
        )
        canonical_json(value)
    except (ValueError, RecursionError) as error:
        raise Broken(where, f"it is not proper JSON: {error}") from error
    if not isinstance(value, dict):
        raise Broken(where, "it is not a JSON object")
    return value


def _canonical_object(raw: bytes, where: str) -> dict[str, Any]:
    value = _json_object(raw, where)
    if canonical_json(value) != raw:
        raise Broken(where, "it is not canonical JSON")
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a name appears twice")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _hash_in(line: dict[str, Any], name: str, where: str) -> bytes:
    text = line.get(name)
    try:
        value = bytes.fromhex(text) if isinstance(text, str) else b""
    except ValueError:
        value = b""
    if len(value) != HASH_BYTES or value.hex() != text:
        raise Broken(where, f"{name} is not a SHA-256 hash")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify what the command line names; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="verifier",
        description="Verify Sluice recordings and ledger exports offline.",
        epilog="exit code: 0 all hold, 1 something is broken, 2 could not be checked",
    )
    parser.add_argument("files", nargs="*", metavar="FILE", help="recordings")
    parser.add_argument(
        "--key",
        action="append",
        required=True,
        metavar="PUBLIC_KEY",
        help="file with the Ed25519 public key (OpenSSH or PEM); may be repeated",
    )
    parser.add_argument(
        "--ledger",
        action="append",
        default=[],
        metavar="FILE",
        help="ledger export (JSON lines); may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="report as JSON")
    chosen = parser.parse_args(arguments)
    if not chosen.files and not chosen.ledger:
        parser.error("name at least one recording or --ledger file")
    try:
        keys = load_keys(chosen.key)
        reports = [_read(verify_recording, path, keys) for path in chosen.files]
        reports += [_read(verify_ledger, path, keys) for path in chosen.ledger]
    except UsageError as error:
        sys.stderr.write(f"verifier: {error}\n")
        return 2
    if chosen.json:
        _say(json.dumps([report.as_dict() for report in reports], indent=2))
    else:
        for report in reports:
            _say(_sentence(report))
    return 0 if all(report.ok for report in reports) else 1


def _read(verify: Any, path: str, keys: Keys) -> Report:
    try:
        report: Report = verify(path, keys)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    return report


def _sentence(report: Report) -> str:
    name = printable(report.path)
    if not report.ok:
        return printable(f"BROKEN  {name}: {report.where}: {report.reason}")
    facts = report.facts
    if report.kind == "ledger":
        extent = "the whole ledger" if facts["whole"] else "a range of the ledger"
        text = (
            f"OK      {name}: {extent}, {facts['events']} events,"
            f" up to {facts['last_seq']}, hash {facts['hash']},"
            f" signed by {facts['signer']}"
        )
    else:
        text = (
            f"OK      {name}: {facts['segments']} segments,"
            f" {facts['duration_microseconds'] / 1_000_000:.1f} s,"
            f" {facts['how']}, sealed at {facts['sealed_at']},"
            f" root {facts['root']}, signed by {facts['signer']}"
        )
        if facts["how"] != "closed":
            text += f"; {facts['dropped_bytes']} incomplete bytes were cut off"
    return printable(text)


def printable(text: str) -> str:
    """Return `text` without characters that could steer a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
