"""Steps 1, 2 and 4: asking, deciding, watching, and what is refused."""

import datetime as dt
import re
import time
from pathlib import Path
from typing import NamedTuple

from jumpserver.demo.bench import count_touches
from jumpserver.demo.browser_terminal import open_watch
from jumpserver.demo.portal_client import PortalAnswer, PortalClient, PortalError
from jumpserver.demo.scene import ACCOUNTS, BENCH, HMI, SCADA, Scene
from jumpserver.demo.waterworks import PEOPLE

ASKED_MINUTES, GRANTED_MINUTES, SHORT_MINUTES = 30, 10, 1
WORK_ORDER = "WO-20417"
REASON = "Alarm list cleanup after the overhaul of P-102"
_NOT_FOUND = 404
_REFUSED_FORM = 422


def ask(
    client: PortalClient, asset: str, minutes: int, *, services: list[str] | None = None
) -> PortalAnswer:
    """Ask for the asset's account in the portal's form; return the page after it."""
    return client.fill_in(
        "/requests/new/",
        {
            "target": f"{asset} / {ACCOUNTS[asset]}",
            "minutes": str(minutes),
            "services": services or ["shell", "exec"],
            "reason": REASON,
            "work_order": WORK_ORDER,
        },
    )


def approve(client: PortalClient, request_path: str, minutes: int) -> PortalAnswer:
    """Approve a request for so many minutes; return the page after it."""
    path = approval_path(request_path)
    answer = client.fill_in(
        path, {"verdict": "approve", "minutes": str(minutes), "comment": ""}
    )
    if answer.path != "/approvals/":
        raise PortalError(f"not approved: {answer.text[-300:]}")
    return answer


def approval_path(request_path: str) -> str:
    """Return where approvers decide on the request of this page."""
    return request_path.replace("/requests/", "/approvals/")


def grant_of(client: PortalClient, asset: str) -> tuple[str, float]:
    """Return the id of the person's active grant and its end as Unix time."""
    answer = client.get("/")
    found = re.search(
        rf'id="grant-([0-9a-f-]{{36}})">\s*{re.escape(asset)}\s*<.*?'
        r'data-ends-at="([^"]+)"',
        answer.html,
        re.DOTALL,
    )
    if found is None:
        raise PortalError(f"{client.card.username} has no active grant for {asset}")
    ends_at = dt.datetime.fromisoformat(found[2].replace("Z", "+00:00"))
    return found[1], ends_at.timestamp()


def request_access(scene: Scene) -> None:
    """1: the engineer signs in with two factors and asks."""
    engineer = scene.portal("engineer")
    for client in (engineer, scene.portal("vendor")):
        _give_back(client)
    scene.hold(
        engineer.get("/").path == "/",
        "the engineer signs in with password and one-time code",
        f"{engineer.card.username} at {scene.demo.portal_url}",
    )
    answer = ask(engineer, HMI, ASKED_MINUTES)
    waiting = re.search(r"Waiting for: (.+?) Request ", answer.text)
    scene.hold(
        answer.path.startswith("/requests/") and waiting and waiting[1].strip(),
        f"asks for operator on {HMI} for {ASKED_MINUTES} minutes, {WORK_ORDER}",
        f"waiting for: {waiting[1]}" if waiting else answer.text[-200:],
    )
    scene.found.request_path = answer.path


def _give_back(client: PortalClient) -> None:
    """Finish and withdraw what an earlier telling of the story has left open."""
    page = client.get("/")
    for form in page.page.forms:
        if form.action.endswith(("/finish/", "/withdraw/")):
            client.send(page, {}, action=form.action)


def decide(scene: Scene) -> None:
    """2: neither the requester nor a stranger decides; the approver shortens."""
    request_path = scene.found.request_path
    _requester_cannot_approve(scene, request_path)
    stranger = scene.portal("stranger")
    seen = [stranger.get(path).status for path in _pages_of(request_path)]
    scene.hold(
        set(seen) == {_NOT_FOUND},
        "an engineer of another site does not see the request",
        f"request and approval answer {seen} like an unknown one",
    )
    _approver_sees_and_shortens(scene, request_path)
    # Two more for later steps, asked for and approved in the same way.
    approver, engineer = scene.portal("approver"), scene.portal("engineer")
    approve(approver, ask(engineer, SCADA, GRANTED_MINUTES).path, GRANTED_MINUTES)
    scene.found.grants["engineer", SCADA], _ = grant_of(engineer, SCADA)
    vendor = scene.portal("vendor")
    approve(approver, ask(vendor, HMI, SHORT_MINUTES).path, SHORT_MINUTES)
    grant, ends_at = grant_of(vendor, HMI)
    scene.found.grants["vendor", HMI] = grant
    scene.found.vendor_deadline = ends_at
    # The minute runs: the vendor is let in now and stays to the deadline.


def _pages_of(request_path: str) -> tuple[str, str]:
    return request_path, approval_path(request_path)


def _requester_cannot_approve(scene: Scene, request_path: str) -> None:
    engineer = scene.portal("engineer")
    path = approval_path(request_path)
    own_page = engineer.get(request_path)
    # Not only is there no button: the same POST, forged with their own token, fails.
    forged = engineer.send(
        own_page,
        {"verdict": "approve", "version": "1", "minutes": "30"},
        action=f"{request_path}withdraw/",
        instead_to=path,
    )
    still_waits = "Waiting for:" in engineer.get(request_path).text
    scene.hold(
        forged.status == _NOT_FOUND and still_waits,
        "the requester cannot approve",
        f"no page (404), forged POST answered {forged.status}, still waiting",
    )


def _approver_sees_and_shortens(scene: Scene, request_path: str) -> None:
    approver = scene.portal("approver")
    path = approval_path(request_path)
    queue = approver.get("/approvals/")
    page = approver.get(path)
    facts = {
        "person": full_name_of("engineer"),
        "asset": HMI,
        "zone": "Cell 3 Pump station",
        "why": REASON,
        "work order": WORK_ORDER,
        "how long": f"{ASKED_MINUTES} min",
        "source": "127.0.0.1",
    }
    missing = [name for name, text in facts.items() if text not in page.text]
    scene.hold(
        path in queue.page.links and not missing,
        "the approver sees person, asset, zone, why, how long and source",
        f"missing: {missing}" if missing else ", ".join(facts.values()),
    )
    approve(approver, request_path, GRANTED_MINUTES)
    grant, ends_at = grant_of(scene.portal("engineer"), HMI)
    minutes = round((ends_at - time.time()) / 60)
    scene.hold(
        minutes == GRANTED_MINUTES,
        f"shortens to {GRANTED_MINUTES} minutes and approves",
        f"the grant ends in {minutes} min",
    )
    scene.found.grants["engineer", HMI] = grant


def full_name_of(username: str) -> str:
    """Return the full name of a person of the demo."""
    return next(p.full_name for p in PEOPLE if p.username == username)


def watch(scene: Scene) -> None:
    """4: the approver watches; nobody gets to an asset outside every conduit."""
    approver = scene.portal("approver")
    live = live_sessions(approver.get("/sessions/").html)
    mine = [s for s in live if (s.person, s.asset, s.door) == ("engineer", HMI, "ssh")]
    scene.hold(
        mine and mine[0].seconds_left > 0,
        "the approver sees the session live, with the countdown",
        f"{len(live)} live, ends in {mine[0].seconds_left:.0f} s" if mine else live,
    )
    scene.found.session_id = mine[0].session_id
    page = approver.get(f"/sessions/{scene.found.session_id}/watch/")
    stream = open_watch(approver, scene.found.session_id)
    try:
        stream.transcript.wait_for("PUMP STATION")
        before = len(stream.events)
        access = scene.found.engineer
        if access is not None:
            access.terminal.type("t")
        stream.transcript.wait_for("P-102 mm/s", seconds=10)
        numbers = [event.number for event in stream.events]
    finally:
        stream.close()
    scene.hold(
        page.status == 200 and numbers == list(range(len(numbers))),
        "and watches the screen while the engineer works",
        f"{len(numbers)} events, {len(numbers) - before} of them live, none missing",
    )
    _outside_every_conduit(scene)


def _outside_every_conduit(scene: Scene) -> None:
    engineer = scene.portal("engineer")
    refused = ask(engineer, BENCH, GRANTED_MINUTES, services=["shell"])
    reason = re.search(r"No conduit leads from .*? \(rule no_conduit\)", refused.text)
    touched = count_touches(_touched_file(scene))
    scene.hold(
        refused.status == _REFUSED_FORM and reason and touched == 0,
        f"a request for {BENCH} is denied with the rule's name",
        f"{reason[0]}; connections it ever saw: {touched}"
        if reason
        else refused.text[-300:],
    )


def _touched_file(scene: Scene) -> Path:
    return Path(scene.processes.plant_asset(BENCH)["touched_file"])


class LiveSession(NamedTuple):
    """One card of the page of sessions."""

    session_id: str
    person: str
    asset: str
    door: str
    seconds_left: float


_LIVE = re.compile(
    r'id="live-(?P<id>[0-9a-f-]{36})">.*?>(?P<person>[\w.-]+) on (?P<asset>[\w-]+)</a>'
    r'.*?· (?P<door>ssh|browser) from.*?data-ends-at="(?P<ends>[^"]+)"',
    re.DOTALL,
)


def live_sessions(html: str) -> list[LiveSession]:
    """Return the live sessions that the page of sessions shows."""
    now = time.time()
    return [
        LiveSession(
            found["id"],
            found["person"],
            found["asset"],
            found["door"],
            dt.datetime.fromisoformat(found["ends"].replace("Z", "+00:00")).timestamp()
            - now,
        )
        for found in _LIVE.finditer(html)
    ]
