"""Asking for a freeze, a resume, and a message: who may, and what is written."""

import pytest
from django.db import IntegrityError, transaction

from apps.access.denials import DenialCode, Denied
from apps.accounts import operations as accounts
from apps.accounts.models import User
from apps.audit.kinds import Kind
from apps.audit.models import AuditEvent
from apps.sessions import controls, operations, queries, terminals
from apps.sessions.lifecycle import SessionState
from apps.sessions.models import Session, SessionMessage
from tests import factories
from tests.factories import clock
from tests.portal import plant_work

pytestmark = [pytest.mark.django_db, pytest.mark.both_databases]


@pytest.fixture
def here() -> factories.Plant:
    return factories.plant()


@pytest.fixture
def live(here: factories.Plant) -> Session:
    return plant_work.live_session(factories.grant(here), plant_work.gateway())


def freeze(live: Session, by: User, reason: str = "alarm"):
    return controls.ask_freeze(session_id=live.pk, by=by, reason=reason, now=clock())


def resume(live: Session, by: User):
    return controls.ask_resume(session_id=live.pk, by=by, now=clock())


def say(live: Session, by: User, text: str = "Leave pump 3 alone"):
    return controls.send_message(session_id=live.pk, by=by, text=text, now=clock())


def events(kind: Kind) -> int:
    return AuditEvent.objects.filter(kind=kind).count()


def strangers(here: factories.Plant) -> dict[str, User]:
    """Everybody who may not control the engineer's session."""
    both = factories.person("approver", "administrator")
    return {
        "its own engineer": here.engineer,
        "another engineer": here.second_engineer,
        "an auditor": here.auditor,
        "an administrator": here.administrator,
        "an approver of another site": factories.plant().approver,
        "an approver of no site, administrator too": both,
    }


def test_r17_only_an_approver_of_the_site_controls(here, live):
    """R17: not the engineer, not an auditor, nobody by being an administrator."""
    others = strangers(here)
    for who, person in others.items():
        for asked in (freeze(live, person), say(live, person)):
            assert isinstance(asked, Denied), who
    assert freeze(live, here.approver)
    for who, person in others.items():
        assert isinstance(resume(live, person), Denied), who
    live.refresh_from_db()
    assert live.freeze_asked_by == here.approver
    assert not SessionMessage.objects.exists()
    assert events(Kind.SESSION_FREEZE_ASKED) == 1
    assert events(Kind.SESSION_RESUME_ASKED) == events(Kind.SESSION_MESSAGE_SENT) == 0


def test_r17_an_approver_does_not_control_their_own_session(here):
    """R17: whoever holds both roles is an engineer in their own session."""
    both = factories.person("engineer", "approver", site=here.site)
    live = plant_work.live_session(
        factories.grant(here, person=both), plant_work.gateway()
    )
    for asked in (freeze(live, both), say(live, both)):
        assert isinstance(asked, Denied)
        assert asked.code == DenialCode.OWN_SESSION
    assert freeze(live, here.approver)
    assert resume(live, both).code == DenialCode.OWN_SESSION
    with (
        pytest.raises(IntegrityError, match="nobody_freezes_their_own_session"),
        transaction.atomic(),
    ):
        Session.objects.filter(pk=live.pk).update(freeze_asked_by=both)


def test_a_freeze_without_its_reason_is_refused_by_the_database(here, live):
    with (
        pytest.raises(IntegrityError, match="freeze_has_its_time_person_and_reason"),
        transaction.atomic(),
    ):
        Session.objects.filter(pk=live.pk).update(
            freeze_asked_by=here.approver, freeze_asked_at=clock()
        )


def test_a_disabled_approver_controls_nothing(here, live):
    accounts.disable_person(
        user_id=here.approver.pk, by=here.administrator, now=clock()
    )
    assert freeze(live, here.approver).code == DenialCode.PERSON_DISABLED


def test_the_first_freeze_stands_and_each_step_has_a_number(here, live):
    second = factories.person("approver", site=here.site)
    assert freeze(live, here.approver, " alarm \n in cell 3 ")
    assert freeze(live, second, "another reason")
    live.refresh_from_db()
    assert live.freeze_asked_by == here.approver
    assert live.freeze_reason == "alarm in cell 3"
    assert (live.freeze_number, events(Kind.SESSION_FREEZE_ASKED)) == (1, 1)
    assert resume(live, second)
    assert resume(live, second).code == DenialCode.NOT_FROZEN
    live.refresh_from_db()
    assert (live.freeze_number, live.freeze_reason) == (2, "")
    assert events(Kind.SESSION_RESUME_ASKED) == 1


def test_a_freeze_needs_a_reason_and_a_live_session(here, live):
    assert freeze(live, here.approver, " \n ").code == DenialCode.REASON_MISSING
    plant_work.end(live)
    for asked in (
        freeze(live, here.approver),
        resume(live, here.approver),
        say(live, here.approver),
    ):
        assert asked.code == DenialCode.NOT_PERMITTED


def test_what_the_deadline_froze_nobody_resumes(here, live):
    operations.note_frozen(session_id=live.pk, frozen=True, now=clock())
    assert resume(live, here.approver).code == DenialCode.NOT_FROZEN
    live.refresh_from_db()
    assert live.state == SessionState.FROZEN


@pytest.mark.parametrize(
    "text", ["", "   ", "x" * 301, "two\nlines", "\x1b[2J", "\u202eright to left"]
)
def test_a_message_that_could_steer_a_terminal_is_refused(here, live, text):
    assert say(live, here.approver, text).code == DenialCode.MESSAGE_REFUSED


def test_messages_are_numbered_and_noted_once(here, live):
    for number in range(1, 4):
        assert say(live, here.approver, f"line {number}").number == number
    shown = {"session_id": live.pk, "numbers": [1, 2], "now": clock()}
    assert terminals.note_messages_shown(**shown) == 2
    assert terminals.note_messages_shown(**shown) == 0
    assert events(Kind.SESSION_MESSAGE_SHOWN) == 1
    control = queries.controls(gateway_id=live.gateway_id, now=clock())[0]
    assert [message.text for message in control.messages] == ["line 3"]


def test_messages_do_not_pile_up_without_end(here, live):
    for _ in range(controls.WAITING_MESSAGES):
        assert say(live, here.approver)
    assert say(live, here.approver).code == DenialCode.MESSAGE_REFUSED


def test_only_sessions_that_somebody_touched_are_told_to_the_gateway(here, live):
    other = plant_work.live_session(factories.grant(here), live.gateway)
    assert queries.controls(gateway_id=live.gateway_id, now=clock()) == []
    assert freeze(live, here.approver, "alarm")
    say(other, here.approver)
    found = {
        c.session_id: c
        for c in queries.controls(gateway_id=live.gateway_id, now=clock())
    }
    assert set(found) == {live.pk, other.pk}
    told = found[live.pk]
    assert (told.frozen, told.noted_frozen, told.by, told.reason) == (
        True,
        False,
        here.approver.username,
        "alarm",
    )
    assert resume(live, here.approver)
    told = next(
        c
        for c in queries.controls(gateway_id=live.gateway_id, now=clock())
        if c.session_id == live.pk
    )
    assert (told.frozen, told.freeze_number, told.by) == (
        False,
        2,
        here.approver.username,
    )
