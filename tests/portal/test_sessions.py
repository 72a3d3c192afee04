"""Sessions: who sees which, what one shows, and ending one."""

import dataclasses
import uuid
from typing import Any

import pytest

from apps.access.models import Grant
from apps.recordings import operations as recordings
from apps.recordings.manifest import FileAction, FileNote, FileResult
from apps.sessions import operations as sessions
from apps.sessions.models import Session
from apps.sessions.terminals import note_locked
from apps.vault.models import LeaseState, RevocationReceipt
from tests import factories
from tests.portal import plant_work
from tests.portal.doors import sign_in

pytestmark = pytest.mark.django_db


@pytest.fixture
def here() -> factories.Plant:
    return factories.plant()


@pytest.fixture
def live(here: factories.Plant) -> Session:
    return plant_work.live_session(factories.grant(here), plant_work.gateway())


def test_no_session_yet_says_so(here: factories.Plant) -> None:
    shown = sign_in(here.engineer).client.get("/sessions/").content.decode()
    assert "No sessions yet" in shown


@pytest.mark.parametrize(
    ("who", "sees"),
    [
        ("engineer", True),
        ("approver", True),
        ("auditor", True),
        ("second_engineer", False),
        ("administrator", False),
    ],
)
def test_who_sees_a_session(
    here: factories.Plant, live: Session, who: str, sees: bool
) -> None:
    """R31: a session is its person's and the site's approvers' and auditors'."""
    client = sign_in(getattr(here, who)).client
    listed = live.short_id in client.get("/sessions/").content.decode()
    detail = client.get(f"/sessions/{live.pk}/")
    assert listed is sees
    assert detail.status_code == (200 if sees else 404)


def test_unknown_and_forbidden_look_alike(here: factories.Plant, live: Session) -> None:
    client = sign_in(factories.plant().approver).client
    forbidden = client.get(f"/sessions/{live.pk}/")
    unknown = client.get(f"/sessions/{uuid.uuid4()}/")
    assert forbidden.status_code == unknown.status_code == 404
    assert forbidden.content == unknown.content


def test_what_is_locked_says_so(here: factories.Plant, live: Session) -> None:
    client = sign_in(here.approver).client
    pages = ["/sessions/", f"/sessions/{live.pk}/", f"/sessions/{live.pk}/watch/"]
    for page in pages:
        assert "Locked" not in client.get(page).content.decode()
    note_locked(session_id=live.pk, now=factories.clock())
    for page in pages:
        assert "Locked" in client.get(page).content.decode()
    plant_work.end(live)
    for page in pages[:2]:
        assert "Locked" not in client.get(page).content.decode()


def test_a_live_session_shows_its_countdown_channels_and_target_key(
    here: factories.Plant, live: Session
) -> None:
    shown = sign_in(here.approver).client.get(f"/sessions/{live.pk}/").content.decode()
    assert f'data-ends-at="{live.deadline:%Y-%m-%dT%H:%M:%S}' in shown
    assert plant_work.FINGERPRINT in shown
    assert "echo &#x27;&lt;b&gt;&amp;&#x27; &gt; /tmp/x" in shown
    assert f"/sessions/{live.pk}/watch/" in shown


def test_a_weak_crypto_profile_is_a_warning(here: factories.Plant) -> None:
    switch, account = factories.asset_with_account(
        "switch-old-9", here.cell, "admin", crypto_profile="legacy-sha1"
    )
    factories.pin(switch, here.administrator, here.second_administrator)
    grant = factories.grant(here, account=account)
    session = plant_work.live_session(grant, plant_work.gateway())
    client = sign_in(here.approver).client
    shown = client.get(f"/sessions/{session.pk}/").content.decode()
    assert '<span class="badge warn">Legacy, SHA-1 and CBC</span>' in shown


def test_an_ended_session_says_why_and_what_became_of_the_credential(
    here: factories.Plant,
) -> None:
    grant, now = factories.grant(here), factories.clock()
    plant_work.store_credential(grant)
    session = plant_work.live_session(grant, plant_work.gateway())
    lease = sessions.lease_for_session(session_id=session.pk, now=now)
    plant_work.end(session)
    RevocationReceipt.objects.create(
        lease_id=lease.lease_id,
        how="rotated password",
        proved_by="paramiko",
        answer="refused",
        proved_at=now,
        latency_ms=812,
    )
    client = sign_in(here.engineer).client
    shown = client.get(f"/sessions/{session.pk}/").content.decode()
    assert "The engineer finished." in shown
    assert "Proved dead, 0.8 s" in shown
    assert "plant-side-secret" not in shown
    session.refresh_from_db()
    assert session.lease is not None
    assert session.lease.state == LeaseState.WITHDRAWING


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("asset=hmi", True),
        ("asset=plc", False),
        ("state=live", True),
        ("state=ended", False),
        ("since=2020-01-01&until=2020-01-02", False),
        ("since=2020-01-01", True),
        ("since=yesterday", False),
    ],
)
def test_filters_narrow(
    here: factories.Plant, live: Session, query: str, found: bool
) -> None:
    answer = sign_in(here.approver).client.get(f"/sessions/?{query}")
    assert answer.status_code == 200
    assert (live.short_id in answer.content.decode()) is found


def test_a_malformed_date_is_explained(here: factories.Plant) -> None:
    answer = sign_in(here.approver).client.get("/sessions/?since=yesterday")
    assert "Enter a valid date" in answer.content.decode()


@pytest.mark.parametrize("who", ["engineer", "approver"])
def test_terminating_asks_the_gateway(
    here: factories.Plant, live: Session, who: str
) -> None:
    client = sign_in(getattr(here, who)).client
    client.post(f"/sessions/{live.pk}/terminate/", {"reason": "wrong pump"})
    live.refresh_from_db()
    assert live.terminate_asked_by == getattr(here, who)
    assert live.terminate_reason == "wrong pump"


@pytest.mark.parametrize("who", ["auditor", "second_engineer", "administrator"])
def test_nobody_else_terminates(here: factories.Plant, live: Session, who: str) -> None:
    client = sign_in(getattr(here, who)).client
    answer = client.post(f"/sessions/{live.pk}/terminate/", {"reason": "x"})
    assert answer.status_code == 404
    live.refresh_from_db()
    assert live.terminate_asked_at is None


def test_terminating_needs_a_reason(here: factories.Plant, live: Session) -> None:
    client = sign_in(here.approver).client
    answer = client.post(f"/sessions/{live.pk}/terminate/", {"reason": ""}, follow=True)
    assert "Nothing was ended" in answer.content.decode()
    live.refresh_from_db()
    assert live.terminate_asked_at is None
    assert client.get(f"/sessions/{live.pk}/terminate/").status_code == 405


def test_an_approver_revokes_the_grant_and_stays_on_the_page(
    here: factories.Plant, live: Session
) -> None:
    client = sign_in(here.approver).client
    back = f"/sessions/{live.pk}/"
    answer = client.post(
        f"/grants/{live.grant_id}/revoke/", {"reason": "alarm", "next": back}
    )
    assert answer.headers["Location"] == back
    grant = Grant.objects.get(pk=live.grant_id)
    assert grant.revoked_by == here.approver
    assert grant.revoke_reason == "alarm"


def test_revoking_leads_nowhere_outside(here: factories.Plant, live: Session) -> None:
    """R7: a destination on another host is not followed."""
    client = sign_in(here.approver).client
    answer = client.post(
        f"/grants/{live.grant_id}/revoke/",
        {"reason": "alarm", "next": "//elsewhere.example/"},
    )
    assert answer.headers["Location"] == "/"


@pytest.mark.parametrize("who", ["engineer", "auditor", "administrator"])
def test_nobody_else_revokes(here: factories.Plant, live: Session, who: str) -> None:
    """R17: only an approver of the site, and never an administrator."""
    client = sign_in(getattr(here, who)).client
    answer = client.post(f"/grants/{live.grant_id}/revoke/", {"reason": "x"})
    assert answer.status_code == 404
    assert Grant.objects.get(pk=live.grant_id).revoked_at is None


@pytest.mark.parametrize(
    ("who", "status"),
    [
        ("approver", 200),
        ("auditor", 200),
        ("engineer", 404),
        ("second_engineer", 404),
        ("administrator", 404),
    ],
)
def test_who_may_watch(
    here: factories.Plant, live: Session, who: str, status: int
) -> None:
    client = sign_in(getattr(here, who)).client
    assert client.get(f"/sessions/{live.pk}/watch/").status_code == status


def test_a_terminal_is_for_ones_own_active_grant(
    here: factories.Plant, live: Session
) -> None:
    where = f"/grants/{live.grant_id}/terminal/"
    assert sign_in(here.second_engineer).client.get(where).status_code == 404
    assert sign_in(here.approver).client.get(where).status_code == 404
    own = sign_in(here.engineer).client
    answer = own.get(where)
    assert answer.status_code == 200
    policy = answer.headers["Content-Security-Policy"].split("; ")
    assert "style-src 'self' 'unsafe-inline'" in policy
    assert "script-src 'self'" in policy
    own.post(f"/grants/{live.grant_id}/finish/")
    assert own.get(where).status_code == 302


def test_only_the_pages_of_terminals_relax_the_policy(
    here: factories.Plant, live: Session
) -> None:
    client = sign_in(here.approver).client
    policy = client.get(f"/sessions/{live.pk}/").headers["Content-Security-Policy"]
    assert "unsafe" not in policy


def test_an_approver_freezes_writes_and_resumes(
    here: factories.Plant, live: Session
) -> None:
    client = sign_in(here.approver).client
    where = f"/sessions/{live.pk}/"
    answer = client.post(f"{where}freeze/", {"reason": "<b>alarm</b>"}, follow=True)
    shown = answer.content.decode()
    assert answer.redirect_chain == [(where, 302)]
    assert f"{here.approver.username} froze it: &lt;b&gt;alarm&lt;/b&gt;" in shown
    assert "The gateway has not confirmed it yet." in shown
    assert f"{where}resume/" in shown
    assert f"{where}freeze/" not in shown
    answer = client.post(
        f"{where}message/", {"text": "Call me & wait", "from": "watch"}, follow=True
    )
    shown = answer.content.decode()
    assert answer.redirect_chain == [(f"{where}watch/", 302)]
    assert "Call me &amp; wait" in shown
    assert "waits for a terminal" in shown
    client.post(f"{where}resume/")
    live.refresh_from_db()
    assert live.freeze_asked_at is None
    assert live.resumed_by == here.approver


@pytest.mark.parametrize("who", ["engineer", "auditor", "second_engineer"])
def test_nobody_else_is_offered_control_or_gets_it(
    here: factories.Plant, live: Session, who: str
) -> None:
    client = sign_in(getattr(here, who)).client
    where = f"/sessions/{live.pk}/"
    for page in (where, f"{where}watch/"):
        shown = client.get(page).content.decode()
        assert "freeze/" not in shown
        assert "message/" not in shown
    plant_work.freeze(live, here.approver)
    for what in ("freeze", "resume", "message"):
        data = {"reason": "x", "text": "x"}
        assert client.post(f"{where}{what}/", data).status_code == 404
        assert client.get(f"{where}{what}/").status_code == 405
    live.refresh_from_db()
    assert live.freeze_asked_by == here.approver
    assert not live.messages.exists()


def test_an_approver_who_is_the_engineer_cannot_resume_themselves(
    here: factories.Plant,
) -> None:
    """R17: both roles, but one's own session."""
    both = factories.person("engineer", "approver", site=here.site)
    live = plant_work.live_session(
        factories.grant(here, person=both), plant_work.gateway()
    )
    plant_work.freeze(live, here.approver)
    client = sign_in(both).client
    assert client.post(f"/sessions/{live.pk}/resume/").status_code == 404
    live.refresh_from_db()
    assert live.freeze_asked_by == here.approver


@pytest.mark.parametrize(
    ("what", "data", "told"),
    [
        ("freeze", {"reason": " "}, "Nothing is frozen"),
        ("message", {"text": ""}, "Nothing was sent"),
        ("message", {"text": "x" * 301}, "Nothing was sent"),
        ("message", {"text": "a\tb"}, "one line of 1 to 300"),
        ("resume", {}, "nobody can resume it"),
    ],
)
def test_what_cannot_be_done_is_explained(
    here: factories.Plant, live: Session, what: str, data: dict[str, str], told: str
) -> None:
    client = sign_in(here.approver).client
    answer = client.post(f"/sessions/{live.pk}/{what}/", data, follow=True)
    assert told in answer.content.decode()


def test_controlling_what_has_ended_leads_to_its_page(
    here: factories.Plant, live: Session
) -> None:
    plant_work.end(live)
    client = sign_in(here.approver).client
    answer = client.post(
        f"/sessions/{live.pk}/freeze/", {"reason": "x", "from": "watch"}, follow=True
    )
    assert answer.redirect_chain[-1] == (f"/sessions/{live.pk}/", 302)
    assert "The session has ended already." in answer.content.decode()


def test_a_session_shows_what_became_of_its_files(
    here: factories.Plant, live: Session
) -> None:
    """Names stay text; who may not see the session sees no file of it (R14, R31)."""
    started = recordings.start_recording(session_id=live.pk, now=factories.clock())
    now = factories.clock()
    done = FileNote(
        action=FileAction.UPLOAD,
        path="/srv/<b>firmware</b>.bin",
        result=FileResult.COMPLETE,
        started_at=now,
        ended_at=now,
        size=1234,
        sha256="c0" * 32,
    )
    denied = dataclasses.replace(
        done,
        action=FileAction.RENAME,
        second_path="/srv/other",
        result=FileResult.DENIED,
        sha256="",
        reason="your access does not include: rename files and folders",
    )
    recordings.note_files(
        recording_id=started.recording_id,
        notes=[(1, done), (1, denied)],
        left_out=3,
        now=now,
    )
    for person in (here.engineer, here.approver, here.auditor):
        shown = sign_in(person).client.get(f"/sessions/{live.pk}/").content.decode()
        assert "/srv/&lt;b&gt;firmware&lt;/b&gt;.bin" in shown
        assert "c0" * 32 in shown
        assert "your access does not include: rename files and folders" in shown
        assert "3 more entries stand in the recording only" in shown
    other = sign_in(here.second_engineer).client.get(f"/sessions/{live.pk}/")
    assert other.status_code == 404
    assert "firmware" not in other.content.decode()


def test_the_typing_is_handed_over_on_the_pages(
    here: factories.Plant, live: Session
) -> None:
    """Offered are those who watch and may type; who has it gives it back."""
    receiver = plant_work.receiver(here)
    engineer = sign_in(here.engineer).client
    page = f"/sessions/{live.pk}/"
    assert "Nobody who watches just now may type here" in _text(engineer.get(page))
    plant_work.watch(live, receiver)
    plant_work.watch(live, here.auditor)
    shown = _text(engineer.get(page))
    assert f'<option value="{receiver.username}">' in shown
    assert f'<option value="{here.auditor.username}">' not in shown
    assert "Watching now" in shown
    answer = engineer.post(f"{page}handover/", {"to": here.auditor.username})
    assert answer.status_code == 302
    live.refresh_from_db()
    assert live.typist is None
    assert "Typing goes only to somebody else" in _text(engineer.get(page))
    engineer.post(f"{page}handover/", {"to": receiver.username})
    live.refresh_from_db()
    assert live.typist == receiver
    shown = _text(engineer.get(page))
    assert f"{receiver.username} types, not {here.engineer.username}" in shown
    assert "handover-to" not in shown
    theirs = sign_in(receiver).client
    shown = _text(theirs.get(f"{page}watch/"))
    assert "take-back-button" in shown
    # Nobody hands it to themselves: the one who controls is not offered.
    answer = theirs.post(f"{page}take-back/", {"from": "watch"})
    assert answer["Location"].endswith("/watch/")
    live.refresh_from_db()
    assert live.typist is None
    assert "<option" not in _text(theirs.get(page))


def _text(response: Any) -> str:
    assert response.status_code == 200
    return response.content.decode()
