"""More time for a grant: who may ask, who decides, and what happens at the end."""

import datetime as dt
import json
import threading

import pytest
from django.db import IntegrityError, connections, transaction
from hypothesis import given
from hypothesis import strategies as st

from apps.access import operations, queries
from apps.access.denials import DenialCode, Denied
from apps.access.lifecycle import ExtensionState
from apps.access.models import Grant, GrantExtension
from apps.access.policy import GrantFacts, RequestRules, decide_extension
from apps.accounts import operations as accounts
from apps.audit.kinds import Kind
from apps.audit.models import AuditEvent
from apps.inventory import operations as inventory
from tests import factories
from tests.factories import clock

pytestmark = [pytest.mark.django_db, pytest.mark.both_databases]

MINUTE = dt.timedelta(minutes=1)


def ask(grant, **changes):
    arguments = {
        "grant_id": grant.pk,
        "by": grant.person,
        "minutes": 30,
        "reason": "The pump does not start",
        "source_address": "192.0.2.7",
        "now": clock(),
    }
    return operations.ask_extension(**{**arguments, **changes})


def approve(asked, by, **changes):
    arguments = {
        "extension_id": asked.pk,
        "approver": by,
        "minutes": asked.minutes,
        "comment": "",
        "source_address": "192.0.2.8",
        "now": clock(),
    }
    return operations.approve_extension(**{**arguments, **changes})


def deny(asked, by, comment="not tonight", now=None):
    return operations.deny_extension(
        extension_id=asked.pk,
        approver=by,
        comment=comment,
        source_address="192.0.2.8",
        now=now or clock(),
    )


def data(kind):
    return json.loads(AuditEvent.objects.get(kind=kind).data)


def code(verdict):
    assert isinstance(verdict, Denied), verdict
    return verdict.code


@pytest.fixture
def here():
    return factories.plant()


def test_an_approval_moves_the_end_and_says_so(here):
    grant = factories.grant(here)
    before = grant.ends_at
    asked = ask(grant)
    assert isinstance(asked, GrantExtension)
    grant.refresh_from_db()
    assert grant.ends_at == before, "asking moves nothing"
    assert data(Kind.EXTENSION_ASKED)["minutes"] == 30
    assert list(queries.extensions_awaiting(here.approver, now=clock())) == [asked]
    made = approve(asked, here.approver, minutes=15)
    assert isinstance(made, Grant)
    grant.refresh_from_db()
    assert grant.ends_at == made.ends_at == before + 15 * MINUTE
    event = data(Kind.GRANT_EXTENDED)
    assert (event["minutes_asked"], event["minutes"]) == (30, 15)
    asked.refresh_from_db()
    assert (asked.state, asked.decided_by) == (ExtensionState.APPROVED, here.approver)
    assert not queries.extensions_awaiting(here.approver, now=clock()).exists()


def test_an_approver_gives_no_more_than_was_asked(here):
    grant = factories.grant(here)
    made = approve(ask(grant), here.approver, minutes=400)
    assert made.ends_at == grant.ends_at + 30 * MINUTE


def test_a_denial_says_why_and_leaves_the_grant(here):
    grant = factories.grant(here)
    asked = ask(grant)
    assert code(deny(asked, here.approver, comment=" ")) == DenialCode.REASON_MISSING
    assert isinstance(deny(asked, here.approver), GrantExtension)
    before = grant.ends_at
    grant.refresh_from_db()
    assert grant.ends_at == before
    assert data(Kind.EXTENSION_DENIED)["comment"] == "not tonight"
    assert code(approve(asked, here.approver)) == DenialCode.REQUEST_NOT_PENDING
    assert isinstance(ask(grant), GrantExtension), "one may ask again"


def test_nobody_decides_on_their_own_time(here):
    """R21: refused by the operation and by the database."""
    both = factories.person("engineer", "approver", site=here.site)
    grant = factories.grant(here, person=both)
    asked = ask(grant)
    assert code(approve(asked, both)) == DenialCode.OWN_REQUEST
    assert code(deny(asked, both)) == DenialCode.OWN_REQUEST
    assert AuditEvent.objects.filter(kind=Kind.APPROVAL_REFUSED).count() == 2
    with (
        pytest.raises(IntegrityError, match="nobody_extends_their_own_grant"),
        transaction.atomic(),
    ):
        GrantExtension.objects.filter(pk=asked.pk).update(decided_by=both)


def test_only_approvers_of_the_site_decide(here):
    asked = ask(factories.grant(here))
    elsewhere = factories.plant().approver
    for somebody in (elsewhere, here.auditor, here.administrator, here.second_engineer):
        assert code(approve(asked, somebody)) == DenialCode.NOT_APPROVER
        assert not queries.extensions_awaiting(somebody, now=clock()).exists()


def test_one_asks_on_ones_own_grant_and_others_look_unknown(here):
    grant = factories.grant(here)
    assert code(ask(grant, by=here.second_engineer)) == DenialCode.NO_GRANT
    assert code(ask(grant, grant_id=here.engineer.pk)) == DenialCode.NO_GRANT
    assert not GrantExtension.objects.exists()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"minutes": 0}, DenialCode.DURATION_REFUSED),
        ({"minutes": -30}, DenialCode.DURATION_REFUSED),
        ({"minutes": 7}, DenialCode.DURATION_REFUSED),
        ({"minutes": 455}, DenialCode.DURATION_REFUSED),
        ({"reason": "  "}, DenialCode.REASON_MISSING),
    ],
)
def test_what_a_rule_forbids_is_refused_with_one_event(here, changes, expected):
    grant = factories.grant(here)
    assert code(ask(grant, **changes)) == expected
    assert data(Kind.EXTENSION_REFUSED)["code"] == expected
    assert not GrantExtension.objects.exists()


def test_the_whole_access_is_never_longer_than_the_settings_allow(here):
    """480 minutes in all by default, however often one asks."""
    grant = factories.grant(here, minutes=450)
    assert isinstance(approve(ask(grant), here.approver), Grant)
    assert code(ask(grant, minutes=5)) == DenialCode.DURATION_REFUSED


def test_the_cap_is_looked_at_again_when_it_is_decided(here, settings):
    asked = ask(factories.grant(here))
    settings.GRANT_MAXIMUM_MINUTES = 45
    assert code(approve(asked, here.approver)) == DenialCode.DURATION_REFUSED
    assert isinstance(approve(asked, here.approver, minutes=15), Grant)


def test_one_question_at_a_time(here):
    grant = factories.grant(here)
    assert isinstance(ask(grant), GrantExtension)
    assert code(ask(grant)) == DenialCode.EXTENSION_PENDING_ALREADY
    with (
        pytest.raises(IntegrityError),
        transaction.atomic(),
    ):
        GrantExtension.objects.create(
            grant=grant,
            requester=grant.person,
            minutes=5,
            reason="x",
            source_address="",
            asked_at=clock(),
        )


def test_without_another_approver_nothing_can_be_asked(here):
    grant = factories.grant(here)
    for person in (here.approver, here.second_approver):
        accounts.disable_person(user_id=person.pk, by=here.administrator, now=clock())
    assert code(ask(grant)) == DenialCode.NO_APPROVER


def _revoke(here, grant):
    assert operations.revoke_grant(
        grant_id=grant.pk, by=here.approver, reason="enough", now=clock()
    )


def _finish(_here, grant):
    assert operations.finish_grant(grant_id=grant.pk, by=grant.person, now=clock())


def _expire(_here, grant):
    assert operations.expire_due_grants(now=grant.ends_at) == 1


@pytest.mark.parametrize("end", [_revoke, _finish, _expire])
def test_what_waits_lapses_when_the_grant_ends(here, end):
    grant = factories.grant(here)
    asked = ask(grant)
    end(here, grant)
    asked.refresh_from_db()
    assert asked.state == ExtensionState.LAPSED
    assert data(Kind.EXTENSION_LAPSED)["minutes"] == 30
    assert code(approve(asked, here.approver)) == DenialCode.REQUEST_NOT_PENDING


def test_a_grant_that_has_ended_is_not_brought_back(here):
    grant = factories.grant(here)
    asked = ask(grant)
    late = approve(asked, here.approver, now=grant.ends_at)
    assert code(late) == DenialCode.REQUEST_NOT_PENDING
    assert code(ask(grant, now=grant.ends_at)) == DenialCode.GRANT_EXPIRED


def test_the_way_is_decided_again(here):
    asked = ask(factories.grant(here))
    inventory.remove_conduit(
        conduit_id=here.conduit.pk, by=factories.SET_UP, now=clock()
    )
    assert code(approve(asked, here.approver)) == DenialCode.NO_CONDUIT


def test_nothing_moves_when_the_event_cannot_be_written(here, monkeypatch):
    """R22: no audit event, no change of state."""
    grant = factories.grant(here)
    asked = ask(grant)

    def broken(*_args, **_options):
        raise OSError("disk full")

    monkeypatch.setattr(AuditEvent, "save", broken)
    with pytest.raises(OSError, match="disk full"), transaction.atomic():
        approve(asked, here.approver)
    before = grant.ends_at
    grant.refresh_from_db()
    asked.refresh_from_db()
    assert (grant.ends_at, asked.state) == (before, ExtensionState.PENDING)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"state": "approved"}, "approved_extension_says"),
        ({"state": "denied"}, "decided_extension_has_its_time"),
        ({"decided_at": clock()}, "decided_extension_has_its_time"),
        ({"minutes_granted": 31}, "approved_extension_says"),
    ],
)
def test_the_database_keeps_the_rules(here, changes, rule):
    asked = ask(factories.grant(here))
    if "state" in changes and changes["state"] == "approved":
        changes = {**changes, "decided_at": clock()}
    with pytest.raises(IntegrityError, match=rule), transaction.atomic():
        GrantExtension.objects.filter(pk=asked.pk).update(**changes)


def _at_once(*actions):
    barrier, results, faults = threading.Barrier(len(actions)), {}, []

    def run(number, action):
        try:
            barrier.wait(10)
            results[number] = action()
        except Exception as error:  # noqa: BLE001 - shown below
            faults.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(actions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not faults
    return [results[number] for number in range(len(actions))]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("round_", range(4))
def test_an_approval_and_the_end_of_the_grant_at_once(round_):
    """Either the grant goes on, or it has expired: never both, never neither."""
    here = factories.plant()
    grant = factories.grant(here)
    asked = ask(grant)
    just_before, just_after = grant.ends_at - MINUTE / 600, grant.ends_at + MINUTE / 600
    made, noted = _at_once(
        lambda: approve(asked, here.approver, now=just_before),
        lambda: operations.expire_due_grants(now=just_after),
    )
    grant.refresh_from_db()
    asked.refresh_from_db()
    if isinstance(made, Grant):
        assert noted == 0
        assert grant.expiry_noted_at is None
        assert grant.is_active(just_after)
        assert asked.state == ExtensionState.APPROVED
    else:
        assert noted == 1
        assert grant.expiry_noted_at == just_after
        assert not grant.is_active(just_after)
        assert asked.state == ExtensionState.LAPSED
    events = AuditEvent.objects.filter(
        kind__in=[Kind.GRANT_EXTENDED, Kind.GRANT_EXPIRED]
    )
    assert events.count() == 1


@pytest.mark.django_db(transaction=True)
def test_two_approvers_at_once_move_the_end_once():
    here = factories.plant()
    grant = factories.grant(here)
    asked = ask(grant)
    results = _at_once(
        lambda: approve(asked, here.approver),
        lambda: approve(asked, here.second_approver),
    )
    assert sorted(bool(result) for result in results) == [False, True]
    before = grant.ends_at
    grant.refresh_from_db()
    assert grant.ends_at == before + 30 * MINUTE


@pytest.mark.django_db(transaction=True)
def test_two_questions_at_once_make_one():
    here = factories.plant()
    grant = factories.grant(here)
    results = _at_once(lambda: ask(grant), lambda: ask(grant))
    assert sorted(bool(result) for result in results) == [False, True]
    assert GrantExtension.objects.count() == 1


@given(st.integers(1, 600), st.integers(-60, 600))
def test_no_rule_lets_the_whole_be_too_long(minutes, more):
    start = dt.datetime(2026, 11, 25, tzinfo=dt.UTC)
    facts = GrantFacts(
        starts_at=start,
        ends_at=start + minutes * MINUTE,
        revoked=False,
        finished=False,
        services=frozenset({"shell"}),
    )
    rules = RequestRules(step_minutes=5, maximum_minutes=480, work_order_pattern="")
    allowed = bool(decide_extension(facts, more, rules))
    assert allowed == (more >= 5 and more % 5 == 0 and minutes + more <= 480)
