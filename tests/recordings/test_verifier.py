"""The stand-alone verifier: finds every alteration, runs alone, says where."""

import base64
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from apps.audit import chain
from apps.recordings import frames, seal, verifier
from tests.recordings.making import (
    SIGNING_KEY,
    public_key_file,
    recording_bytes,
    short_batches,
)

OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))


@pytest.fixture
def keys(folder: Path) -> verifier.Keys:
    return verifier.load_keys([str(public_key_file(folder))])


@pytest.fixture
def recording(folder: Path) -> Path:
    path = folder / "S-7QK2M.slrec"
    path.write_bytes(recording_bytes(short_batches()))
    return path


def ledger_lines(
    count: int, *, first_seq: int = 1, previous: bytes = bytes(32)
) -> list[dict[str, Any]]:
    """A ledger export by the product's own chain rules."""
    first: dict[str, Any] = {"ledger": "sluice"}
    if first_seq > 1:
        first["previous_hash"] = previous.hex()
    lines, link = [first], previous
    for seq in range(first_seq, first_seq + count):
        event = {"seq": seq, "kind": "access.grant.revoked", "subject": f"Zoë {seq}"}
        leaf = chain.leaf_hash(event)
        link = chain.link_hash(link, leaf)
        lines.append({"event": event, "leaf_hash": leaf.hex(), "hash": link.hex()})
    head = {
        "seq": first_seq + count - 1,
        "hash": link.hex(),
        "exported_at": "2026-03-04T05:06:07+00:00",
    }
    signature = base64.b64encode(SIGNING_KEY.sign(chain.head_message(head))).decode()
    key = seal.key_fingerprint(SIGNING_KEY.public_key())
    return [*lines, {"head": head, "signature": signature, "key": key}]


def write_ledger(folder: Path, lines: list[dict[str, Any]]) -> Path:
    path = folder / "ledger.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_layout_is_that_of_the_writer() -> None:
    for name in ("MAGIC", "SEGMENT_MAGIC", "SEAL_MAGIC", "END_MAGIC", "HASH_BYTES"):
        assert getattr(verifier, name) == getattr(frames, name)
    assert verifier.SEAL_TAG == seal.SEAL_TAG
    assert verifier.HEAD_TAG == chain.HEAD_TAG
    assert verifier.SEGMENT.size == frames.SEGMENT_HEADER_BYTES


def test_a_sealed_recording_holds(recording: Path, keys: verifier.Keys) -> None:
    report = verifier.verify_recording(str(recording), keys)
    assert (report.ok, report.reason) == (True, None)
    assert report.facts["segments"] == 4
    assert report.facts["how"] == "closed"
    assert report.facts["header"]["session"] == "S-7QK2M"


@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_every_flipped_byte_is_found(
    recording: Path, keys: verifier.Keys, flip: int
) -> None:
    """R29: exhaustive over all offsets of a small file."""
    content = recording.read_bytes()
    for offset in range(len(content)):
        altered = bytearray(content)
        altered[offset] ^= flip
        recording.write_bytes(altered)
        report = verifier.verify_recording(str(recording), keys)
        assert not report.ok, f"flip at {offset} was not found"
        assert report.where


def test_every_truncation_and_every_added_byte_is_found(
    recording: Path, keys: verifier.Keys
) -> None:
    content = recording.read_bytes()
    for size in range(len(content)):
        recording.write_bytes(content[:size])
        assert not verifier.verify_recording(str(recording), keys).ok
    recording.write_bytes(content + b"\0")
    report = verifier.verify_recording(str(recording), keys)
    assert report.reason == "there are bytes behind the seal"
    assert report.where == f"byte {len(content)}"


def test_says_which_segment_is_wrong(recording: Path, keys: verifier.Keys) -> None:
    content = bytearray(recording.read_bytes())
    start = len(recording_bytes(short_batches(2), sealed=False))
    content[start + 50] ^= 1
    recording.write_bytes(content)
    report = verifier.verify_recording(str(recording), keys)
    assert report.where == f"segment 2 at byte {start}"
    assert "hash" in str(report.reason)


def test_a_removed_last_segment_is_found(recording: Path, keys: verifier.Keys) -> None:
    content = recording.read_bytes()
    ends = [len(recording_bytes(short_batches(n), sealed=False)) for n in (3, 4)]
    recording.write_bytes(content[: ends[0]] + content[ends[1] :])
    assert not verifier.verify_recording(str(recording), keys).ok


def test_a_recording_without_seal_is_broken(folder: Path, keys: verifier.Keys) -> None:
    """R29: a missing signature is never silence."""
    path = folder / "open.slrec"
    path.write_bytes(recording_bytes(short_batches(), sealed=False))
    report = verifier.verify_recording(str(path), keys)
    assert not report.ok
    assert "no seal" in str(report.reason)


def test_a_seal_by_another_key_is_broken(folder: Path, recording: Path) -> None:
    other = folder / "other.pub"
    other.write_bytes(
        OTHER_KEY.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    )
    report = verifier.verify_recording(str(recording), verifier.load_keys([str(other)]))
    assert not report.ok
    named = seal.key_fingerprint(SIGNING_KEY.public_key())
    assert named in str(report.reason)


def test_keys_are_read_in_both_forms(folder: Path) -> None:
    pem = folder / "key.pem"
    pem.write_bytes(
        SIGNING_KEY.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )
    )
    both = folder / "both.pub"
    line = public_key_file(folder).read_text().strip()
    other = OTHER_KEY.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    both.write_text(f"# keys of the plant\n{line} recorder@plant\n\n{other.decode()}\n")
    assert list(verifier.load_keys([str(pem)])) == [
        seal.key_fingerprint(SIGNING_KEY.public_key())
    ]
    assert len(verifier.load_keys([str(both), str(pem)])) == 2


@pytest.mark.parametrize("content", [b"", b"# none\n", b"ssh-ed25519 AAAA", b"\xff\n"])
def test_files_without_keys_are_refused(folder: Path, content: bytes) -> None:
    path = folder / "bad"
    path.write_bytes(content)
    with pytest.raises(verifier.UsageError):
        verifier.load_keys([str(path)])


def test_keys_of_another_kind_are_refused(folder: Path) -> None:
    path = folder / "x25519.pem"
    path.write_bytes(
        X25519PrivateKey.generate()
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    with pytest.raises(verifier.UsageError, match="not an Ed25519 key"):
        verifier.load_keys([str(path)])


@pytest.mark.parametrize("count", [0, 1, 20])
def test_a_ledger_holds(folder: Path, keys: verifier.Keys, count: int) -> None:
    path = write_ledger(folder, ledger_lines(count))
    report = verifier.verify_ledger(str(path), keys)
    assert report.ok, report
    assert (report.facts["events"], report.facts["whole"]) == (count, True)


def test_a_range_of_the_ledger_holds(folder: Path, keys: verifier.Keys) -> None:
    path = write_ledger(
        folder, ledger_lines(5, first_seq=9, previous=hashlib.sha256(b"").digest())
    )
    report = verifier.verify_ledger(str(path), keys)
    assert report.ok, report
    assert (report.facts["first_seq"], report.facts["last_seq"]) == (9, 13)
    assert report.facts["whole"] is False


def remove_event(lines: list[dict[str, Any]]) -> None:
    del lines[2]


def swap_events(lines: list[dict[str, Any]]) -> None:
    lines[1], lines[2] = lines[2], lines[1]


def change_event(lines: list[dict[str, Any]]) -> None:
    lines[2]["event"]["kind"] = "access.grant.given"


def change_event_and_its_leaf(lines: list[dict[str, Any]]) -> None:
    change_event(lines)
    lines[2]["leaf_hash"] = chain.leaf_hash(lines[2]["event"]).hex()


def rewrite_the_end(lines: list[dict[str, Any]]) -> None:
    lines[1:-1] = ledger_lines(2)[1:-1]


def drop_head(lines: list[dict[str, Any]]) -> None:
    del lines[-1]


def add_behind_head(lines: list[dict[str, Any]]) -> None:
    lines.append(lines[1])


def claim_more(lines: list[dict[str, Any]]) -> None:
    lines[-1]["head"]["seq"] = 99


def break_signature(lines: list[dict[str, Any]]) -> None:
    lines[-1]["signature"] = base64.b64encode(bytes(64)).decode()


def claim_a_range(lines: list[dict[str, Any]]) -> None:
    lines[0]["previous_hash"] = "11" * 32


def sign_with_another_key(lines: list[dict[str, Any]]) -> None:
    head = lines[-1]["head"]
    lines[-1]["signature"] = base64.b64encode(
        OTHER_KEY.sign(chain.head_message(head))
    ).decode()


@pytest.mark.parametrize(
    "alter",
    [
        remove_event,
        swap_events,
        change_event,
        change_event_and_its_leaf,
        rewrite_the_end,
        drop_head,
        add_behind_head,
        claim_more,
        break_signature,
        claim_a_range,
        sign_with_another_key,
    ],
)
def test_an_altered_ledger_is_found(
    folder: Path,
    keys: verifier.Keys,
    alter: Callable[[list[dict[str, Any]]], None],
) -> None:
    lines = ledger_lines(4)
    alter(lines)
    report = verifier.verify_ledger(str(write_ledger(folder, lines)), keys)
    assert not report.ok
    assert report.where
    assert report.reason


def test_every_flipped_byte_of_a_ledger_is_found_or_changes_nothing(
    folder: Path, keys: verifier.Keys
) -> None:
    """What is left after a flip that holds is the same events and the same head."""
    lines = ledger_lines(2)
    path = write_ledger(folder, lines)
    content = path.read_bytes()
    for offset in range(len(content)):
        altered = bytearray(content)
        altered[offset] ^= 0x02
        path.write_bytes(altered)
        if verifier.verify_ledger(str(path), keys).ok:
            left = [json.loads(line) for line in bytes(altered).splitlines()]
            without_hint = [{**line, "key": ""} for line in left[1:]]
            assert without_hint == [{**line, "key": ""} for line in lines[1:]], offset


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b'{"ledger":"other"}',
        b'{"ledger":"sluice","ledger":"sluice"}',
        b'{"ledger":"sluice","x":NaN}',
        b'{"ledger":"sluice","previous_hash":"zz"}',
        b"[" * 20_000,
    ],
)
def test_other_files_are_no_ledger(
    folder: Path, keys: verifier.Keys, line: bytes
) -> None:
    path = folder / "other.jsonl"
    path.write_bytes(line + b"\n")
    assert not verifier.verify_ledger(str(path), keys).ok


def run_alone(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a copy of the one file, isolated from the product's code."""
    copy = folder / "alone" / "verifier.py"
    copy.parent.mkdir(exist_ok=True)
    shutil.copy(verifier.__file__, copy)
    return subprocess.run(
        [sys.executable, "-I", str(copy), *arguments],
        cwd=copy.parent,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_runs_alone(folder: Path, recording: Path) -> None:
    key = str(public_key_file(folder))
    ledger = write_ledger(folder, ledger_lines(3))
    good = run_alone(folder, str(recording), "--key", key, "--ledger", str(ledger))
    assert (good.returncode, good.stderr) == (0, "")
    assert [line.split()[0] for line in good.stdout.splitlines()] == ["OK", "OK"]

    content = bytearray(recording.read_bytes())
    content[300] ^= 1
    recording.write_bytes(content)
    bad = run_alone(
        folder, str(recording), "--key", key, "--ledger", str(ledger), "--json"
    )
    assert bad.returncode == 1
    reports = json.loads(bad.stdout)
    assert [report["ok"] for report in reports] == [False, True]
    assert reports[0]["where"]


def test_wrong_use_is_told_apart_from_broken_evidence(
    folder: Path, recording: Path
) -> None:
    key = str(public_key_file(folder))
    for arguments in (
        [],
        [str(recording)],
        ["--key", key],
        [str(recording), "--key", str(folder / "absent")],
        [str(folder / "absent"), "--key", key],
        [str(recording), "--key", str(recording)],
    ):
        result = run_alone(folder, *arguments)
        assert result.returncode == 2, arguments
        assert result.stderr
        assert "Traceback" not in result.stderr


def test_says_that_cryptography_is_missing(folder: Path, recording: Path) -> None:
    """Without site-packages the import fails, as on an auditor's bare machine."""
    result = subprocess.run(
        [sys.executable, "-I", "-S", verifier.__file__, str(recording), "--key", "x"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == 2
    assert "`cryptography` is missing" in result.stderr
    assert "Traceback" not in result.stderr


def test_names_from_a_file_cannot_steer_the_terminal(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """R30: control characters in paths or findings are not printed."""
    path = folder / "a\x1b[2Jb"
    path.write_bytes(b"no recording")
    assert verifier.main([str(path), "--key", str(public_key_file(folder))]) == 1
    assert "\x1b" not in capsys.readouterr().out
