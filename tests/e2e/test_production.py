"""The main job on four processes, PostgreSQL and Redis; and what survives their loss.

One deployment serves all tests of this file, in any order: whatever one of them ended
is started again for the next.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus, WebSocketException

from jumpserver.demo.browser_terminal import open_terminal, open_watch
from jumpserver.demo.scene import HMI, SCADA, SWITCH
from jumpserver.demo.story_access import approve, ask, grant_of
from jumpserver.demo.transcript import Transcript
from tests.e2e.production import LOST_SECONDS, ROLES, Production, production, until
from tests.servers import postgresql, redis

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

# "Well under a second" on an idle machine; the bound leaves room for a busy one.
ENDS_WITHIN_SECONDS = 3.0
_REASON = "P-102 must not be touched now"
_SUM, _SUM_SHOWN = "echo sluice-$((6*7))", "sluice-42"


@pytest.fixture(scope="module")
def deployment(ssh_binary: str, sshd_binary: str) -> Iterator[Production]:
    if postgresql.binaries() is None:
        pytest.skip(postgresql.MISSING)
    if redis.binary() is None:
        pytest.skip(redis.MISSING)
    with production() as here:
        yield here


@pytest.fixture
def plant(deployment: Production) -> Iterator[Production]:
    deployment.complete()
    yield deployment
    # Shown when the test has failed.
    sys.stdout.write(deployment.logs())


def give_access(plant: Production, username: str, asset: str, minutes: int = 30) -> str:
    """Have somebody ask and the approver approve; return the grant."""
    engineer = plant.portal(username)
    asked = ask(engineer, asset, minutes)
    assert asked.path.startswith("/requests/"), asked.text[-300:]
    approve(plant.portal("approver"), asked.path, minutes)
    grant, _ = grant_of(engineer, asset)
    return grant


def session_of(plant: Production, grant: str, door: str) -> str:
    """Return the newest session on a grant through a door."""
    found = plant.rows(
        "select id from jump_sessions_session where grant_id = %s and door = %s "
        "order by opened_at desc",
        grant,
        door,
    )
    return str(found[0][0])


def revoke(
    plant: Production, grant: str, session: str, ends: dict[str, Transcript]
) -> dict[str, float]:
    """Revoke in the portal; return how long each thing took to end."""
    approver = plant.portal("approver")
    page = approver.get(f"/sessions/{session}/")
    clicked = time.monotonic()
    approver.send(page, {"reason": _REASON}, action=f"/grants/{grant}/revoke/")
    return {
        name: transcript.wait_for_end(seconds=15) - clicked
        for name, transcript in ends.items()
    }


def verify(plant: Production, session: str, folder: Path) -> str:
    """Have the auditor download everything and check it without Sluice."""
    auditor = plant.portal("auditor")
    (path,) = auditor.get(f"/sessions/{session}/").page.links_to(
        start="/recordings/", end="/"
    )
    names = {
        "session.slrec": auditor.download(f"{path}download/"),
        "keys.pub": auditor.download("/verify/keys.pub"),
        "verifier.py": auditor.download("/verify/verifier.py"),
        "ledger.jsonl": auditor.download_by_form("/ledger/", "/ledger/export/"),
    }
    folder.mkdir(exist_ok=True)
    for name, content in names.items():
        (folder / name).write_bytes(content)
    told = subprocess.run(
        [
            *(sys.executable, "-I", "verifier.py", "session.slrec"),
            *("--key", "keys.pub", "--ledger", "ledger.jsonl"),
        ],
        cwd=folder,
        env={},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    return told.stdout


def test_the_main_job(plant: Production, tmp_path: Path) -> None:
    grant = give_access(plant, "engineer", SCADA)
    connection = plant.ssh("engineer").connect(f"historian@{SCADA}")
    lasting = connection.open("echo ready; cat")
    lasting.transcript.wait_for("ready")
    command = connection.open(f"{_SUM}; exit 7")
    assert command.exit_status() == 7
    assert command.transcript.text.strip() == _SUM_SHOWN

    browser = open_terminal(plant.portal("engineer"), grant, columns=90, rows=28)
    browser.told.wait_for('"ready"')
    browser.type(f"{_SUM}\n")
    browser.transcript.wait_for(_SUM_SHOWN)
    session = session_of(plant, grant, "ssh")
    watch = open_watch(plant.portal("approver"), session_of(plant, grant, "browser"))
    watch.transcript.wait_for(_SUM_SHOWN)
    with plant.portal("engineer").websocket("/ws/changes/") as changes:
        took = revoke(
            plant,
            grant,
            session,
            {
                "ssh": lasting.transcript,
                "browser": browser.told,
                "watch": watch.told,
            },
        )
        assert max(took.values()) < ENDS_WITHIN_SECONDS, took
        # Another process' page hears of it through Redis.
        while "access.grant.revoked" not in changes.recv(timeout=10):
            pass
    assert f"access revoked by approver: {_REASON}" in lasting.transcript.text
    assert f"access revoked by approver: {_REASON}" in (
        browser.told.text + browser.transcript.text
    )
    for stream in (browser, watch):
        stream.close()
    connection.close()

    page = plant.portal("approver")
    proof = until(
        lambda: "Proved dead, " in page.get(f"/sessions/{session}/").text,
        "the receipt",
        seconds=60,
    )
    assert proof
    # Only the worker reads recordings back: a task of beat, through Redis.
    until(
        lambda: plant.rows(
            "select verified_at from recordings_recording "
            "where session_id = %s and state = 'verified' and sealed_how = 'closed'",
            session,
        ),
        "the recording verified by the worker",
        seconds=60,
    )
    assert verify(plant, session, tmp_path)


def test_a_revocation_needs_no_broker(plant: Production) -> None:
    """Redis is a hint: with it away, the session still ends at once."""
    grant = give_access(plant, "vendor", HMI)
    connection = plant.ssh("vendor").connect(HMI)
    terminal = connection.open(size=(100, 30))
    terminal.transcript.wait_for("PUMP STATION")
    session = session_of(plant, grant, "ssh")
    browser = open_terminal(plant.portal("vendor"), grant, columns=90, rows=28)
    browser.transcript.wait_for("PUMP STATION")
    plant.broker.stop()
    try:
        assert not plant.broker.answers()
        # What is open goes on without it.
        browser.type("?")
        browser.transcript.wait_for("(?i)help")
        ends = {"ssh": terminal.transcript, "browser": browser.told}
        took = revoke(plant, grant, session, ends)
        assert max(took.values()) < ENDS_WITHIN_SECONDS, took
        assert f"access revoked by approver: {_REASON}" in terminal.transcript.text
        until(
            lambda: plant.rows(
                "select id from jump_sessions_session where id = %s "
                "and state = 'ended' and end_reason = 'revoked'",
                session,
            ),
            "the session's row says that it was revoked",
            seconds=10,
        )
        # And it is the gateway that kills the credential: no worker is needed.
        until(
            lambda: plant.rows(
                "select l.id from vault_lease l join jump_sessions_session s "
                "on s.lease_id = l.id where s.id = %s and l.state = 'proved_dead'",
                session,
            ),
            "the lease proved dead without a broker",
            seconds=60,
        )
        for role in ROLES:
            assert plant.is_running(role), plant.log(role)
    finally:
        plant.broker.start()
        connection.close()
        browser.close()


def test_pages_hear_of_changes_again_when_the_broker_is_back(
    plant: Production,
) -> None:
    """Nobody has to start the portal again; a page that was open may connect anew."""
    engineer, approver = plant.portal("engineer"), plant.portal("approver")
    plant.broker.stop()
    plant.broker.start()

    def hears() -> bool:
        try:
            with approver.websocket("/ws/changes/") as changes:
                asked = ask(engineer, SWITCH, 30, services=["shell"])
                engineer.send(asked, {}, action=f"{asked.path}withdraw/")
                while True:
                    if "access.request.submitted" in str(changes.recv(timeout=3)):
                        return True
        except (InvalidStatus, WebSocketException, TimeoutError):
            return False

    assert until(hears, "a page hears of changes", seconds=30)


def test_a_killed_gateway_is_noticed_by_the_worker(
    plant: Production, tmp_path: Path
) -> None:
    """Also after the broker was away: worker and beat have found it again."""
    grant = give_access(plant, "engineer", HMI)
    connection = plant.ssh("engineer").connect(HMI)
    terminal = connection.open(size=(100, 30))
    terminal.transcript.wait_for("PUMP STATION")
    seen = time.monotonic()
    session = session_of(plant, grant, "ssh")
    # "To the last second": what is older than that is there.
    until(lambda: time.monotonic() - seen > 1, "a second")
    plant.kill("gateway")
    killed = time.monotonic()
    terminal.transcript.wait_for_end(seconds=5)
    connection.close()
    until(
        lambda: plant.rows(
            "select id from jump_sessions_session "
            "where id = %s and end_reason = 'gateway_lost'",
            session,
        ),
        "the session closed as gateway_lost",
        seconds=LOST_SECONDS + 30,
    )
    assert time.monotonic() - killed >= LOST_SECONDS - 1
    until(
        lambda: plant.rows(
            "select id from recordings_recording where session_id = %s "
            "and state = 'verified' and sealed_how = 'recovered'",
            session,
        ),
        "the recording recovered and verified",
        seconds=60,
    )
    # The screen was written as it came, not at the end.
    shown = plant.portal("auditor").get(f"/sessions/{session}/").page
    (path,) = shown.links_to(start="/recordings/", end="/")
    cast = plant.portal("auditor").download(f"{path}cast/")
    assert b"PUMP STATION" in cast
    assert verify(plant, session, tmp_path)


def test_each_process_ends_in_good_order(plant: Production) -> None:
    """SIGTERM: exit status 0, and whoever is connected is told."""
    # What was said while another test kept Redis away is of no account here.
    said_before = {role: len(plant.log(role)) for role in ROLES}
    grant = give_access(plant, "vendor", SCADA)
    connection = plant.ssh("vendor").connect(SCADA)
    lasting = connection.open("echo ready; cat")
    lasting.transcript.wait_for("ready")
    session = session_of(plant, grant, "ssh")
    statuses = {role: plant.stop(role) for role in ROLES}
    assert statuses == dict.fromkeys(ROLES, 0), plant.logs()
    lasting.transcript.wait_for_end(seconds=5)
    connection.close()
    (row,) = plant.rows(
        "select s.state, r.state, r.sealed_how from jump_sessions_session s "
        "join recordings_recording r on r.session_id = s.id where s.id = %s",
        session,
    )
    assert row[0] == "ended"
    assert row[1] in ("sealed", "verified")
    assert row[2] == "closed"
    for role in ("portal", "gateway"):
        said = plant.log(role)[said_before[role] :]
        assert "Traceback" not in said, said
    # No secret of anybody stands in what the processes said.
    said = plant.logs()
    for card in plant.people:
        assert card.password not in said
        assert card.totp_secret not in said
    for name in ("SLUICE_SECRET_KEY", "SLUICE_VAULT_KEY"):
        assert plant.environment[name] not in said


def test_worker_and_beat_end_without_a_broker(plant: Production) -> None:
    """SIGTERM also counts while Redis is away."""
    plant.broker.stop()
    assert {role: plant.stop(role) for role in ("worker", "beat")} == {
        "worker": 0,
        "beat": 0,
    }
