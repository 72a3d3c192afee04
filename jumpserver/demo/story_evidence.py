"""Steps 6 and 7: the credential is dead, and the recording is what was."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import paramiko

from jumpserver.demo.asset_door import Door, try_door
from jumpserver.demo.portal_client import PortalClient
from jumpserver.demo.scene import HMI, DoesNotHoldError, Scene
from jumpserver.demo.story_sessions import SECOND_SIZE, TITLE

PROOF_SECONDS = 90.0
_POLL_SECONDS = 0.5
_SEEK_SECONDS = 5
_NOT_FOUND = 404


def prove_dead(scene: Scene) -> None:
    """6: the lease is withdrawn, and a second library was refused with it."""
    receipt = wait_for_receipt(scene, scene.portal("approver"), scene.found.session_id)
    scene.hold(
        "paramiko" in receipt,
        "the lease is revoked and proved dead: a revocation receipt",
        receipt,
    )
    target = scene.processes.plant_asset(HMI)
    (account,) = target["accounts"]
    first_key = paramiko.Ed25519Key.from_private_key_file(account["secret_file"])
    answer = try_door(Door.of(target), account["login"], first_key)
    scene.hold(
        not answer.is_open,
        "the key the asset came with, tried on the asset from here, opens nothing",
        answer.said,
    )


def wait_for_receipt(scene: Scene, client: PortalClient, session_id: str) -> str:
    """Wait until the session's page shows the receipt, and return its words.

    Raises: DoesNotHoldError when it does not come.
    """
    deadline = time.monotonic() + PROOF_SECONDS
    has_noted = False
    while time.monotonic() < deadline:
        text = client.get(f"/sessions/{session_id}/").text
        found = re.search(r"Proved dead, (.+?) Recording ", text)
        if found is not None:
            return f"proved dead after {found[1]}"
        if not has_noted:
            scene.note("waiting for the worker that withdraws and proves leases")
            has_noted = True
        time.sleep(_POLL_SECONDS)
    raise DoesNotHoldError(f"no receipt after {PROOF_SECONDS:.0f} s: {text[-600:]}")


def audit(scene: Scene) -> None:
    """7: the auditor finds, replays, downloads and verifies; nobody else can."""
    auditor = scene.portal("auditor")
    recording = recording_of(auditor, scene.found.session_id)
    scene.found.recording_id = recording
    found = auditor.get(f"/sessions/?person=engineer&asset={HMI}")
    scene.hold(
        f"/sessions/{scene.found.session_id}/" in found.page.links,
        "the auditor finds the session by person and asset",
        f"{len(found.page.links_to(start='/recordings/'))} recordings to replay",
    )
    _replay(scene, auditor, recording)
    _verify(scene, auditor, recording)
    _nobody_else(scene, recording)


def recording_of(auditor: PortalClient, session_id: str) -> str:
    """Return the id of the recording that the session's page offers for replay.

    Raises: DoesNotHoldError when it offers none.
    """
    links = auditor.get(f"/sessions/{session_id}/").page.links_to(start="/recordings/")
    if not links:
        raise DoesNotHoldError("the session's page offers no replay")
    return links[0].split("/")[2]


def read_cast(
    client: PortalClient, recording: str, *, query: str = ""
) -> tuple[dict[str, Any], list[tuple[float, str, str]]]:
    """Return header and events of a recording as asciicast v2."""
    raw = client.download(f"/recordings/{recording}/cast/{query}")
    lines = raw.decode("utf-8").splitlines()
    events = [(e[0], e[1], e[2]) for e in map(json.loads, lines[1:])]
    return json.loads(lines[0]), events


def _replay(scene: Scene, auditor: PortalClient, recording: str) -> None:
    page = auditor.get(f"/recordings/{recording}/?t={_SEEK_SECONDS}")
    source = re.search(r'data-cast="([^"]+)"', page.html)
    controls = all(
        mark in page.html
        for mark in (
            'id="replay-seek"',
            'id="replay-speed"',
            "data-replay-size",
            f'data-start="{_SEEK_SECONDS}"',
        )
    )
    query = source[1].partition("cast/")[2] if source else ""
    header, events = read_cast(auditor, recording, query=query)
    shown = "".join(text for _, code, text in events if code == "o")
    sizes = [text for _, code, text in events if code == "r"]
    wanted = f"{SECOND_SIZE[0]}x{SECOND_SIZE[1]}"
    scene.hold(
        controls and header["version"] == 2 and TITLE in shown and wanted in sizes,
        "replays it in the browser: seek, speed, and the resize",
        f"{events[-1][0]:.1f} s, {len(events)} events, "
        f"{header['width']}x{header['height']} then {', '.join(sizes)}",
    )
    as_file = auditor.download(f"/recordings/{recording}/cast/?download=1")
    scene.hold(
        as_file.startswith(b'{"version": 2'),
        "downloads the .cast",
        f"{len(as_file)} bytes, asciicast v2",
    )


def _verify(scene: Scene, auditor: PortalClient, recording: str) -> None:
    sealed = scene.directory / "session.slrec"
    ledger = scene.directory / "ledger.jsonl"
    keys = scene.directory / "keys.pub"
    verifier = scene.directory / "verifier.py"
    sealed.write_bytes(auditor.download(f"/recordings/{recording}/download/"))
    ledger.write_bytes(auditor.download_by_form("/ledger/", "/ledger/export/"))
    keys.write_bytes(auditor.download("/verify/keys.pub"))
    verifier.write_bytes(auditor.download("/verify/verifier.py"))
    whole = _run_verifier(verifier, sealed, keys, ledger)
    scene.hold(
        whole.returncode == 0,
        "verifies recording and ledger with the stand-alone verifier",
        _short(whole.stdout or whole.stderr, scene.directory),
    )
    broken = {
        "recording": (_flipped(sealed), ledger),
        "ledger": (sealed, _flipped(ledger)),
    }
    for what, (one, other) in broken.items():
        found = _run_verifier(verifier, one, keys, other)
        alarms = [line for line in found.stdout.splitlines() if "BROKEN" in line]
        scene.hold(
            found.returncode == 1 and len(alarms) == 1,
            f"one flipped byte in the {what} is found",
            _short("\n".join(alarms) or found.stderr, scene.directory),
        )


def _flipped(path: Path) -> Path:
    """Return a copy of the file with one bit in its middle turned over."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x01
    copy = path.with_name(f"flipped-{path.name}")
    copy.write_bytes(content)
    return copy


def _run_verifier(
    verifier: Path, sealed: Path, keys: Path, ledger: Path
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - the file the portal hands out
        [
            sys.executable,
            str(verifier),
            str(sealed),
            "--key",
            str(keys),
            "--ledger",
            str(ledger),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        # Nothing of Sluice within reach.
        cwd=verifier.parent,
    )


def _short(told: str, directory: Path) -> str:
    """Return the verifier's sentences without directories and whole hashes."""
    words = told.strip().replace("\n", "; ").replace(f"{directory}/", "")
    return re.sub(r"\b[0-9a-f]{16,}\b", lambda found: f"{found[0][:8]}...", words)


def _nobody_else(scene: Scene, recording: str) -> None:
    paths = [
        f"/recordings/{recording}/",
        f"/recordings/{recording}/cast/",
        f"/recordings/{recording}/download/",
    ]
    people = ["engineer", "vendor", "approver", "stranger", "administrator"]
    answers = {
        name: [scene.portal(name).get(path).status for path in paths] for name in people
    }
    is_closed = all(set(statuses) == {_NOT_FOUND} for statuses in answers.values())
    scene.hold(
        is_closed,
        "nobody else can open it",
        f"404 for {', '.join(answers)}" if is_closed else answers,
    )
