"""Steps 3 and 5: working through the gateway, and the two ways it ends."""

import time
from pathlib import Path

import paramiko
from websockets.exceptions import InvalidStatus, WebSocketException

from jumpserver.demo.asset_door import Door, try_door
from jumpserver.demo.browser_terminal import BrowserStream, open_terminal
from jumpserver.demo.scene import (
    HMI,
    REVOKE_SECONDS,
    SCADA,
    SWITCH,
    LiveAccess,
    Scene,
)
from jumpserver.demo.story_access import GRANTED_MINUTES, approve, ask, grant_of
from jumpserver.demo.transcript import Transcript

TITLE = "PUMP STATION"
FIRST_SIZE, SECOND_SIZE = (100, 30), (120, 36)
REVOKE_REASON = "P-102 must not be touched now"
# The deadline is a timer: anything slower than this is a fault, not a slow machine.
DEADLINE_SECONDS = 2.0
_SUM = "echo sluice-$((6*7))"
_SUM_SHOWN = "sluice-42"


def work(scene: Scene) -> None:
    """3: HMI and SCADA by OpenSSH, and the same in the browser."""
    _let_vendor_in(scene)
    engineer = scene.ssh("engineer")
    connection = engineer.connect(f"operator@{HMI}")
    terminal = connection.open(size=FIRST_SIZE)
    access = scene.found.engineer = LiveAccess(connection=connection, terminal=terminal)
    terminal.transcript.wait_for(TITLE)
    scene.hold(
        TITLE in terminal.transcript.screen(*FIRST_SIZE),
        "the engineer connects with key and one-time code and sees the HMI",
        engineer.name,
    )
    _use_hmi(scene, access)
    _use_more_channels(scene, access)
    access.browser = _use_browser(scene)
    _use_old_switch(scene)
    _use_scada(scene)
    _no_credential_reached_the_client(scene, access)


def _let_vendor_in(scene: Scene) -> None:
    """Connect the vendor on the one-minute grant; step 5 sees how it ends."""
    connection = scene.ssh("vendor").connect(HMI)
    terminal = connection.open(size=FIRST_SIZE)
    scene.found.vendor = LiveAccess(connection=connection, terminal=terminal)
    terminal.transcript.wait_for(TITLE)


def _use_hmi(scene: Scene, access: LiveAccess) -> None:
    terminal = access.terminal
    terminal.type("?")
    terminal.transcript.wait_for("(?i)help")
    terminal.type("?")
    before = len(terminal.transcript.received)
    terminal.resize(*SECOND_SIZE)
    bottom = f"\x1b[{SECOND_SIZE[1]};"
    deadline = time.monotonic() + 10
    while bottom not in terminal.transcript.received[before:].decode(errors="replace"):
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    screen = terminal.transcript.screen(*SECOND_SIZE)
    widest = max(map(len, screen.splitlines()))
    scene.hold(
        widest > FIRST_SIZE[0],
        "works in the HMI and resizes the window",
        f"the HMI drew {widest} columns after the change from "
        f"{FIRST_SIZE[0]}x{FIRST_SIZE[1]} to {SECOND_SIZE[0]}x{SECOND_SIZE[1]}",
    )


def _use_more_channels(scene: Scene, access: LiveAccess) -> None:
    uptime = access.connection.open("uptime")
    status = uptime.exit_status()
    told = uptime.transcript.text.strip()
    failing = access.connection.open("exit 7").exit_status()
    access.command = access.connection.open("cat")
    access.command.type("ping\n")
    access.command.transcript.wait_for("ping")
    scene.hold(
        status == 0 and told.startswith("up ") and failing == 7,
        "runs commands beside it on the same connection; exit statuses come back",
        f"uptime: {told}, status {status}; exit 7: status {failing}",
    )


def _use_browser(scene: Scene) -> BrowserStream:
    engineer = scene.portal("engineer")
    grants = scene.found.grants
    page = engineer.get(f"/grants/{grants['engineer', HMI]}/terminal/")
    hmi = open_terminal(engineer, grants["engineer", HMI], columns=90, rows=28)
    hmi.told.wait_for('"ready"')
    hmi.transcript.wait_for(TITLE)
    scada = open_terminal(engineer, grants["engineer", SCADA], columns=90, rows=28)
    try:
        scada.told.wait_for('"ready"')
        scada.type(f"{_SUM}\n")
        scada.transcript.wait_for(_SUM_SHOWN)
    finally:
        scada.close()
    scene.found.streams.append(scada.transcript.received)
    scene.hold(
        page.status == 200,
        "does both from the browser terminal, too",
        f"{TITLE} on {HMI}; {_SUM_SHOWN} on {SCADA}",
    )
    return hmi


def _use_old_switch(scene: Scene) -> None:
    """Ask for the switch, too, and work on it: nothing else speaks its algorithms."""
    engineer, approver = scene.portal("engineer"), scene.portal("approver")
    # Its conduit carries a shell and nothing more.
    asked = ask(engineer, SWITCH, GRANTED_MINUTES, services=["shell"])
    approve(approver, asked.path, GRANTED_MINUTES)
    grant, _ = grant_of(engineer, SWITCH)
    switch = open_terminal(engineer, grant, columns=80, rows=24)
    try:
        switch.transcript.wait_for(f"{SWITCH}#")
        switch.type("show version\r")
        shown = switch.transcript.wait_for("algorithms of [0-9]+")
        switch.type("exit\r")
        switch.transcript.wait_for_end(seconds=10)
    finally:
        switch.close()
    scene.found.streams.append(switch.transcript.received)
    scene.hold(
        shown,
        f"reaches {SWITCH} by that asset's own crypto profile",
        f"SSH server, {shown[0]}",
    )


def _use_scada(scene: Scene) -> None:
    connection = scene.ssh("engineer").connect(SCADA)
    command = connection.open(f"{_SUM}; echo agent:$SSH_AUTH_SOCK:")
    status = command.exit_status(seconds=30)
    connection.close()
    told = command.transcript.text
    scene.found.streams.append(command.transcript.received)
    scene.hold(
        status == 0 and _SUM_SHOWN in told and "agent::" in told,
        f"runs a command on {SCADA}, by a certificate it never sees",
        f"{_SUM_SHOWN}, status {status}, no agent forwarded",
    )


def _no_credential_reached_the_client(scene: Scene, access: LiveAccess) -> None:
    """Look for the HMI's key in all that came, and try the engineer's own on it."""
    target = scene.processes.plant_asset(HMI)
    (account,) = target["accounts"]
    secret = Path(account["secret_file"]).read_text(encoding="utf-8")
    lines = [line for line in secret.splitlines() if line and "-----" not in line]
    received = [
        access.terminal.transcript.received,
        access.browser.transcript.received if access.browser else b"",
        bytes(scene.portal("engineer").received),
        *scene.found.streams,
    ]
    leaked = sum(line.encode() in piece for line in lines for piece in received)
    own_key = paramiko.Ed25519Key.from_private_key_file(
        str(scene.demo.person("engineer").ssh_private_key)
    )
    answer = try_door(Door.of(target), account["login"], own_key)
    scene.hold(
        leaked == 0 and not answer.is_open,
        "no target credential ever reaches the client",
        f"{sum(map(len, received))} bytes looked through; the engineer's own key at "
        f"{HMI} itself: {answer.said}",
    )


def end(scene: Scene) -> None:
    """5: a revocation ends everything at once; a deadline warns and ends."""
    _revoke(scene)
    _run_to_deadline(scene)


def _revoke(scene: Scene) -> None:
    access = scene.found.engineer
    if access is None or access.command is None or access.browser is None:
        raise AssertionError("the engineer is not connected")
    approver = scene.portal("approver")
    grant = scene.found.grants["engineer", HMI]
    page = approver.get(f"/sessions/{scene.found.session_id}/")
    ends: dict[str, Transcript] = {
        "ssh terminal": access.terminal.transcript,
        "ssh command": access.command.transcript,
        "browser terminal": access.browser.told,
    }
    started = time.monotonic()
    approver.send(page, {"reason": REVOKE_REASON}, action=f"/grants/{grant}/revoke/")
    took = {
        name: transcript.wait_for_end(seconds=10) - started
        for name, transcript in ends.items()
    }
    scene.hold(
        max(took.values()) < REVOKE_SECONDS,
        "revoked mid-session: every channel ends in well under a second",
        ", ".join(f"{name} {seconds * 1000:.0f} ms" for name, seconds in took.items())
        + " after the click",
    )
    # The command's channel is of the same connection, whose one terminal tells.
    told = {
        "ssh terminal": access.terminal.transcript.text,
        "browser terminal": access.browser.told.text + access.browser.transcript.text,
    }
    why = f"access revoked by approver: {REVOKE_REASON}"
    silent = [name for name, text in told.items() if why not in text]
    scene.hold(
        not silent,
        "and the engineer is told why, in both windows",
        f"not on: {silent}, but {told[silent[0]][-300:]!r}" if silent else why,
    )
    scene.hold(
        _is_terminal_refused(scene, grant),
        "the grant opens nothing any more",
        "the browser terminal's WebSocket is refused",
    )


def _is_terminal_refused(scene: Scene, grant: str) -> bool:
    engineer = scene.portal("engineer")
    try:
        with engineer.websocket(f"/ws/terminal/{grant}/") as connection:
            connection.recv(timeout=10)
    except (InvalidStatus, WebSocketException):
        return True
    return False


def _run_to_deadline(scene: Scene) -> None:
    vendor = scene.found.vendor
    if vendor is None:
        raise AssertionError("the vendor is not connected")
    transcript = vendor.terminal.transcript
    left = scene.found.vendor_deadline - time.time()
    if left > 1:
        scene.note(f"waiting {left:.0f} s for the deadline of the vendor's grant")
    ended_at = transcript.wait_for_end(seconds=max(left, 0) + 15)
    # From the monotonic clock to the wall clock of the deadline.
    late = time.time() - (time.monotonic() - ended_at) - scene.found.vendor_deadline
    text = transcript.text
    scene.hold(
        "left of this session" in text and "the time is up" in text,
        "another grant runs to its deadline: warned, then told",
        "“... left of this session”, then “the time is up”",
    )
    scene.hold(
        -0.1 < late < DEADLINE_SECONDS,
        "and ended at the deadline",
        f"closed {late * 1000:.0f} ms after it",
    )
