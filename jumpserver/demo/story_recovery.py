"""Step 8: the whole product is killed in the middle of a session."""

import re
import threading
import time

from jumpserver.demo.scene import HMI, DoesNotHoldError, LiveAccess, Scene
from jumpserver.demo.ssh_client import SshChannel
from jumpserver.demo.story_access import (
    GRANTED_MINUTES,
    approve,
    ask,
    live_sessions,
)
from jumpserver.demo.story_evidence import read_cast, recording_of, wait_for_receipt

TICK_SECONDS = 0.1
TICKS_BEFORE_KILL = 25
RECOVERY_SECONDS = 60.0
# What may be missing at the end of a recording after a crash (performance.md).
LOST_SECONDS = 1.0
_POLL_SECONDS = 0.5


def survive_kill(scene: Scene) -> None:
    """8: nothing recorded is lost, and nothing stays open."""
    vendor, approver = scene.portal("vendor"), scene.portal("approver")
    approve(approver, ask(vendor, HMI, GRANTED_MINUTES).path, GRANTED_MINUTES)
    connection = scene.ssh("vendor").connect(HMI)
    command = connection.open("cat")
    scene.found.vendor = LiveAccess(connection=connection, terminal=command)
    session_id, last_seen = _kill_while_ticking(scene, command)
    started = time.monotonic()
    scene.processes.start_product()
    scene.follow_restart()
    scene.hold(
        True,  # noqa: FBT003 - start_product raises when it does not answer
        "kill -9 of the whole product in mid-session, and a new start",
        f"answers again after {time.monotonic() - started:.1f} s",
    )
    _closed_as_gateway_lost(scene, session_id)
    _recorded_to_the_end(scene, session_id, last_seen)
    receipt = wait_for_receipt(scene, approver, session_id)
    scene.hold(True, "its lease is revoked", receipt)  # noqa: FBT003 - or it raises


def _kill_while_ticking(scene: Scene, command: SshChannel) -> tuple[str, int]:
    """Have the asset send back a number each 100 ms; kill; return the last one seen."""
    stop = threading.Event()

    def tick() -> None:
        number = 0
        while not stop.wait(TICK_SECONDS):
            number += 1
            try:
                command.type(f"tick {number}\n")
            except OSError:
                return

    ticking = threading.Thread(target=tick, daemon=True)
    command.transcript.wait_for("(?s).*", seconds=1)
    ticking.start()
    try:
        command.transcript.wait_for(rf"tick {TICKS_BEFORE_KILL}\b")
        live = live_sessions(scene.portal("approver").get("/sessions/").html)
        session_id = next(s.session_id for s in live if s.person == "vendor")
        scene.processes.kill_product()
    finally:
        stop.set()
        ticking.join(5)
    command.transcript.wait_for_end(seconds=10)
    return session_id, _last_tick(command.transcript.text)


def _last_tick(text: str) -> int:
    return max(
        (int(number) for number in re.findall(r"tick (\d+)\r?\n", text)), default=0
    )


def _closed_as_gateway_lost(scene: Scene, session_id: str) -> None:
    text = scene.portal("auditor").get(f"/sessions/{session_id}/").text
    sentence = "The gateway was lost"
    scene.hold(
        sentence in text, "the session is closed as “gateway lost”", f"“{sentence}”"
    )


def _recorded_to_the_end(scene: Scene, session_id: str, last_seen: int) -> None:
    auditor = scene.portal("auditor")
    recording = recording_of(auditor, session_id)
    page = _wait_until_sealed(scene, recording)
    _, events = read_cast(auditor, recording)
    recorded = _last_tick("".join(text for _, code, text in events if code == "o"))
    lost = (last_seen - recorded) * TICK_SECONDS
    scene.hold(
        lost <= LOST_SECONDS and recorded > 0,
        "the recording is there to the last second, sealed",
        f"the client saw tick {last_seen}, the recording ends with tick {recorded}; "
        f"{page}",
    )


def _wait_until_sealed(scene: Scene, recording: str) -> str:
    auditor = scene.portal("auditor")
    deadline = time.monotonic() + RECOVERY_SECONDS
    has_noted = False
    while time.monotonic() < deadline:
        text = auditor.get(f"/recordings/{recording}/").text
        found = re.search(r"Proof (Sealed|Verified|Broken)", text)
        if found is not None:
            return found[1].lower()
        if not has_noted:
            scene.note("waiting for the worker that seals what was left behind")
            has_noted = True
        time.sleep(_POLL_SECONDS)
    raise DoesNotHoldError(f"not sealed after {RECOVERY_SECONDS:.0f} s: {text[-300:]}")
