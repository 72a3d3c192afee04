"""Requests, approvals and grants through their one door; the database's own rules."""

import datetime as dt
import threading
from unittest import mock

import pytest
from django.db import IntegrityError, connection, connections, transaction
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from apps.access import authorization, operations, queries
from apps.access.denials import DenialCode, Denied
from apps.access.lifecycle import RequestState
from apps.access.models import AccessRequest, Approval, Decision, Grant, Verdict
from apps.access.permits import ConnectionPermit
from apps.accounts import operations as accounts
from apps.audit.kinds import Kind
from apps.audit.models import AuditEvent
from apps.inventory import operations as inventory
from apps.inventory.models import HostKey
from tests import factories
from tests.factories import SET_UP, clock

pytestmark = [pytest.mark.django_db, pytest.mark.both_databases]


def _approve(here, asked, by, **changes):
    arguments = {
        "request_id": asked.pk,
        "version": asked.version,
        "approver": by,
        "minutes": asked.minutes,
        "comment": "",
        "source_address": "192.0.2.8",
        "now": clock(),
    }
    return operations.approve_request(**{**arguments, **changes})


def _submit(here, **changes):
    arguments = {
        "requester": here.engineer,
        "asset_id": here.asset.pk,
        "account_id": here.account.pk,
        "services": ["shell"],
        "minutes": 30,
        "reason": "why",
        "work_order": "WO-1",
        "source_address": "192.0.2.7",
        "now": clock(),
    }
    return operations.submit_request(**{**arguments, **changes})


def _connect(user, asset_name, account_name=None, now=None):
    return authorization.authorize_connection(
        user=user,
        asset_name=asset_name,
        account_name=account_name,
        source_address="192.0.2.7",
        door="ssh",
        now=now or clock(),
    )


def _count(kind):
    return AuditEvent.objects.filter(kind=kind).count()


def test_a_request_is_made_with_one_event():
    """R22: exactly one event per change."""
    here = factories.plant()
    made = _submit(here)
    assert isinstance(made, AccessRequest)
    assert _count(Kind.REQUEST_SUBMITTED) == 1
    assert list(queries.requests_awaiting(here.approver, now=clock())) == [made]


def test_nothing_is_requested_when_the_event_cannot_be_written():
    """R22: no audit event, no change of state."""
    here = factories.plant()
    with (
        mock.patch.object(AuditEvent, "save", side_effect=OSError("disk full")),
        pytest.raises(OSError, match="disk full"),
    ):
        _submit(here)
    assert not AccessRequest.objects.exists()
    assert not Decision.objects.exists()


def test_an_asset_outside_every_conduit_is_refused_and_names_the_rule():
    here = factories.plant()
    verdict = _submit(
        here, asset_id=here.unreachable.pk, account_id=here.unreachable_account.pk
    )
    assert isinstance(verdict, Denied)
    assert verdict.code == DenialCode.NO_CONDUIT
    assert "Lab bench" in verdict.message
    assert "no_conduit" in verdict.message
    assert _count(Kind.REQUEST_REFUSED) == 1
    assert Decision.objects.get().code == DenialCode.NO_CONDUIT


def test_assets_of_another_site_look_unknown():
    here, elsewhere = factories.plant(), factories.plant()
    foreign = _submit(
        here, asset_id=elsewhere.asset.pk, account_id=elsewhere.account.pk
    )
    unknown = _submit(here, asset_id=here.engineer.pk)
    assert foreign == unknown == Denied(DenialCode.UNKNOWN_ASSET)


def test_an_account_of_another_asset_is_refused():
    here = factories.plant()
    verdict = _submit(here, account_id=here.unreachable_account.pk)
    assert verdict == Denied(DenialCode.UNKNOWN_ACCOUNT)


def test_asking_twice_is_refused():
    here = factories.plant()
    assert _submit(here)
    assert _submit(here).code == DenialCode.REQUEST_PENDING_ALREADY


@pytest.mark.django_db(transaction=True)
def test_two_requests_at_once_make_one():
    here = factories.plant()
    barrier = threading.Barrier(2)
    results = []

    def ask():
        barrier.wait()
        results.append(_submit(here))
        connections.close_all()

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(bool(result) for result in results) == [False, True]
    assert AccessRequest.objects.count() == 1


def test_approval_makes_a_grant_for_as_long_as_was_granted():
    here = factories.plant()
    now = clock()
    asked = _submit(here, now=now)
    made = _approve(here, asked, here.approver, minutes=10, now=now)
    assert isinstance(made, Grant)
    assert (made.starts_at, made.ends_at) == (now, now + dt.timedelta(minutes=10))
    asked.refresh_from_db()
    assert asked.state == RequestState.APPROVED
    assert _count(Kind.REQUEST_APPROVED) == _count(Kind.GRANT_MADE) == 1


def test_an_approver_cannot_grant_more_than_was_asked():
    here = factories.plant()
    now = clock()
    made = _approve(here, _submit(here, now=now), here.approver, minutes=480, now=now)
    assert made.ends_at - made.starts_at == dt.timedelta(minutes=30)


def test_nobody_approves_their_own_request():
    """R21: refused by the operation, and nothing changes."""
    here = factories.plant()
    both = factories.person("engineer", "approver", site=here.site)
    asked = _submit(here, requester=both)
    verdict = _approve(here, asked, both)
    assert verdict.code == DenialCode.OWN_REQUEST
    asked.refresh_from_db()
    assert asked.state == RequestState.PENDING
    assert _count(Kind.APPROVAL_REFUSED) == 1


def test_the_database_refuses_a_requester_as_approver():
    """R21: past the operation, the constraint still holds."""
    here = factories.plant()
    asked = _submit(here)
    with (
        pytest.raises(IntegrityError, match="approver_is_not_requester"),
        transaction.atomic(),
    ):
        Approval.objects.create(
            request=asked,
            request_version=1,
            requester=here.engineer,
            approver=here.engineer,
            verdict=Verdict.APPROVE,
            minutes=5,
            source_address="192.0.2.7",
            at=clock(),
        )


@pytest.mark.parametrize("who", ["engineer", "auditor", "administrator", "stranger"])
def test_only_approvers_of_the_site_decide(who):
    """R17: nobody decides by another role, or at another site."""
    here, elsewhere = factories.plant(), factories.plant()
    asked = _submit(here, requester=here.second_engineer)
    person = elsewhere.approver if who == "stranger" else getattr(here, who)
    assert _approve(here, asked, person).code == DenialCode.NOT_APPROVER
    assert not queries.requests_awaiting(person, now=clock()).exists()
    assert not Grant.objects.exists()


def test_a_request_is_decided_once():
    here = factories.plant()
    asked = _submit(here)
    assert _approve(here, asked, here.approver)
    again = _approve(here, asked, here.second_approver)
    assert again.code == DenialCode.REQUEST_NOT_PENDING


@pytest.mark.django_db(transaction=True)
def test_two_approvers_at_once_make_one_grant():
    here = factories.plant()
    asked = _submit(here)
    barrier = threading.Barrier(2)
    results = []

    def approve(by):
        barrier.wait()
        results.append(_approve(here, asked, by))
        connections.close_all()

    threads = [
        threading.Thread(target=approve, args=(by,))
        for by in (here.approver, here.second_approver)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(bool(result) for result in results) == [False, True]
    assert Grant.objects.count() == Approval.objects.count() == 1


def test_an_approval_of_an_older_version_is_void():
    here = factories.plant()
    asked = _submit(here)
    verdict = _approve(here, asked, here.approver, version=asked.version + 1)
    assert verdict.code == DenialCode.REQUEST_CHANGED


def test_the_path_is_decided_again_at_approval():
    here = factories.plant()
    asked = _submit(here)
    inventory.remove_conduit(conduit_id=here.conduit.pk, by=SET_UP, now=clock())
    assert _approve(here, asked, here.approver).code == DenialCode.NO_CONDUIT
    assert not Grant.objects.exists()


def test_denying_needs_a_reason():
    here = factories.plant()
    asked = _submit(here)
    arguments = {
        "request_id": asked.pk,
        "version": 1,
        "approver": here.approver,
        "source_address": "192.0.2.8",
        "now": clock(),
    }
    assert operations.deny_request(comment=" ", **arguments).code == (
        DenialCode.REASON_MISSING
    )
    denied = operations.deny_request(comment="not today", **arguments)
    assert denied.state == RequestState.DENIED
    assert _count(Kind.REQUEST_DENIED) == 1


def test_only_the_requester_withdraws():
    here = factories.plant()
    asked = _submit(here)
    now = clock()
    assert not operations.withdraw_request(
        request_id=asked.pk, by=here.second_engineer, now=now
    )
    assert operations.withdraw_request(request_id=asked.pk, by=here.engineer, now=now)
    assert not operations.withdraw_request(
        request_id=asked.pk, by=here.engineer, now=now
    )
    assert _approve(here, asked, here.approver).code == DenialCode.REQUEST_NOT_PENDING


def test_who_sees_a_request():
    here, elsewhere = factories.plant(), factories.plant()
    asked = _submit(here)
    seen = {
        name: asked in queries.requests_visible_to(person)
        for name, person in {
            "requester": here.engineer,
            "colleague": here.second_engineer,
            "approver": here.approver,
            "auditor": here.auditor,
            "administrator": here.administrator,
            "stranger": elsewhere.engineer,
            "foreign approver": elsewhere.approver,
            "foreign auditor": elsewhere.auditor,
        }.items()
    }
    assert {name for name, visible in seen.items() if visible} == {
        "requester",
        "approver",
        "auditor",
    }


def test_unanswered_requests_lapse():
    here = factories.plant()
    asked = _submit(here)
    later = asked.lapses_at
    assert _approve(here, asked, here.approver, now=later).code == (
        DenialCode.REQUEST_NOT_PENDING
    )
    assert operations.lapse_requests(now=later) == 1
    assert operations.lapse_requests(now=later) == 0
    asked.refresh_from_db()
    assert asked.state == RequestState.LAPSED


def test_a_permit_says_exactly_what_was_decided():
    here = factories.plant()
    grant = factories.grant(here)
    permit = _connect(here.engineer, here.asset.name.upper())
    assert isinstance(permit, ConnectionPermit)
    assert permit.asset_id == here.asset.pk
    assert permit.login == "operator"
    assert permit.deadline == grant.ends_at
    assert permit.services == {"shell", "exec"}
    assert permit.host_keys
    grant.refresh_from_db()
    assert grant.first_used_at is not None
    assert _count(Kind.CONNECTION_ALLOWED) == 1


def test_unknown_and_forbidden_assets_answer_alike():
    """No oracle: what does not exist and what is not theirs read the same outside."""
    here, elsewhere = factories.plant(), factories.plant()
    answers = {
        authorization.outside_message(_connect(here.engineer, name))
        for name in ("no-such-asset", elsewhere.asset.name, here.asset.name)
    }
    assert answers == {authorization.NO_ACCESS_MESSAGE}
    codes = set(Decision.objects.values_list("code", flat=True))
    assert codes == {DenialCode.UNKNOWN_ASSET, DenialCode.NO_GRANT}
    assert _count(Kind.CONNECTION_DENIED) == 3


def test_a_wrong_account_is_refused():
    here = factories.plant()
    factories.grant(here)
    assert _connect(here.engineer, here.asset.name, "root").code == DenialCode.NO_GRANT


def test_two_accounts_need_a_name():
    here = factories.plant()
    second = inventory.add_account(
        asset=here.asset,
        name="engineering",
        credential_kind="key",
        by=SET_UP,
        now=clock(),
    )
    factories.grant(here)
    factories.grant(here, account=second)
    assert _connect(here.engineer, here.asset.name).code == (
        DenialCode.ACCOUNT_AMBIGUOUS
    )
    assert _connect(here.engineer, here.asset.name, "engineering")


def _disable(here):
    accounts.disable_person(
        user_id=here.engineer.pk, by=here.administrator, now=clock()
    )


def _leave_site(here):
    inventory.remove_member(site=here.site, user=here.engineer, by=SET_UP, now=clock())


def _cut_conduit(here):
    inventory.remove_conduit(conduit_id=here.conduit.pk, by=SET_UP, now=clock())


def _unpin(here):
    for key in HostKey.objects.filter(asset=here.asset):
        inventory.remove_host_key(key_id=key.pk, by=SET_UP, now=clock())


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (_disable, DenialCode.PERSON_DISABLED),
        (_leave_site, DenialCode.NOT_A_MEMBER),
        (_cut_conduit, DenialCode.NO_CONDUIT),
        (_unpin, DenialCode.NO_HOST_KEY),
    ],
)
def test_a_standing_decision_follows_every_change(change, code):
    """R39 for the pin: what was allowed is denied at the next look."""
    here = factories.plant()
    grant = factories.grant(here)
    assert queries.standing([grant.pk], now=clock())[grant.pk]
    change(here)
    assert queries.standing([grant.pk], now=clock())[grant.pk].code == code
    assert _connect(here.engineer, here.asset.name).code == code


def test_many_standing_decisions_cost_as_many_queries_as_one():
    """The look at live sessions is taken every second."""
    here = factories.plant()
    grants = [factories.grant(here)]
    with CaptureQueriesContext(connection) as one:
        assert queries.standing([grants[0].pk], now=clock())[grants[0].pk]
    for number in range(8):
        asset, account = factories.asset_with_account(
            f"more-{number}", here.cell, "operator"
        )
        factories.pin(asset, here.administrator, here.second_administrator)
        grants.append(factories.grant(here, account=account))
    for key in HostKey.objects.filter(asset=grants[3].asset):
        inventory.remove_host_key(key_id=key.pk, by=SET_UP, now=clock())
    with CaptureQueriesContext(connection) as many:
        decisions = queries.standing([grant.pk for grant in grants], now=clock())
    assert [bool(decisions[grant.pk]) for grant in grants] == [
        number != 3 for number in range(9)
    ]
    assert decisions[grants[3].pk].code == DenialCode.NO_HOST_KEY
    assert len(many) == len(one)


def test_local_addresses_are_refused_unless_allowed(settings):
    """R26: a loopback target is refused at connect, whatever the inventory holds."""
    here = factories.plant()
    factories.grant(here)
    settings.ALLOW_LOCAL_TARGETS = False
    assert _connect(here.engineer, here.asset.name).code == (
        DenialCode.ADDRESS_FORBIDDEN
    )


def test_revoking_needs_an_approver_of_the_site_and_a_reason():
    here, elsewhere = factories.plant(), factories.plant()
    grant = factories.grant(here)
    now = clock()
    for person in (
        here.engineer,
        here.auditor,
        here.administrator,
        elsewhere.approver,
    ):
        verdict = operations.revoke_grant(
            grant_id=grant.pk, by=person, reason="because", now=now
        )
        assert verdict.code == DenialCode.NOT_PERMITTED
    assert not operations.revoke_grant(
        grant_id=grant.pk, by=here.approver, reason=" ", now=now
    )
    assert operations.revoke_grant(
        grant_id=grant.pk, by=here.approver, reason="alarm", now=now
    )
    assert _connect(here.engineer, here.asset.name).code == DenialCode.GRANT_REVOKED
    assert _count(Kind.GRANT_REVOKED) == 1


def test_revoked_at_and_revoked_by_are_set_together():
    here = factories.plant()
    grant = factories.grant(here)
    with (
        pytest.raises(IntegrityError, match="revoked_at_and_revoked_by_set_together"),
        transaction.atomic(),
    ):
        Grant.objects.filter(pk=grant.pk).update(revoked_at=clock())


def test_finishing_is_for_the_person_alone():
    here = factories.plant()
    grant = factories.grant(here)
    now = clock()
    assert not operations.finish_grant(grant_id=grant.pk, by=here.approver, now=now)
    assert operations.finish_grant(grant_id=grant.pk, by=here.engineer, now=now)
    assert not operations.finish_grant(grant_id=grant.pk, by=here.engineer, now=now)
    assert _connect(here.engineer, here.asset.name).code == DenialCode.GRANT_FINISHED


def test_the_sweep_notes_each_end_once():
    here = factories.plant()
    grant = factories.grant(here, minutes=5)
    assert (
        operations.expire_due_grants(now=grant.ends_at - dt.timedelta(seconds=1)) == 0
    )
    assert operations.expire_due_grants(now=grant.ends_at) == 1
    assert operations.expire_due_grants(now=grant.ends_at) == 0
    assert _count(Kind.GRANT_EXPIRED) == 1


@hypothesis_settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    offset=st.sampled_from([-1, 0, 1]) | st.integers(-10_000_000, 10_000_000),
    edge=st.sampled_from(["start", "end"]),
    revoked=st.booleans(),
    finished=st.booleans(),
)
def test_python_and_sql_agree_on_what_is_active(
    active_grant, offset, edge, revoked, finished
):
    """The rule exists twice; at every boundary, to the microsecond, both agree."""
    grant, by = active_grant
    at = (grant.starts_at if edge == "start" else grant.ends_at) + dt.timedelta(
        microseconds=offset
    )
    grant.revoked_at = grant.starts_at if revoked else None
    grant.revoked_by = by if revoked else None
    grant.finished_at = grant.starts_at if finished else None
    grant.save()
    assert Grant.objects.active(at=at).filter(pk=grant.pk).exists() is grant.is_active(
        at
    )


@pytest.fixture
def active_grant(db):
    here = factories.plant()
    return factories.grant(here), here.approver


def test_a_sign_in_by_grace_opens_only_what_its_zone_allows():
    """R28: the age of the full sign-in is judged for the asset that is opened."""
    here = factories.plant()
    factories.grant(here)
    inventory.change_zone(
        zone_id=here.cell.pk, changes={"sl_t": 2}, by=SET_UP, now=clock()
    )

    def connect(minutes):
        return authorization.authorize_connection(
            user=here.engineer,
            asset_name=here.asset.name,
            account_name=None,
            source_address="192.0.2.7",
            door="ssh",
            now=clock(),
            grace_age=dt.timedelta(minutes=minutes),
        )

    assert isinstance(connect(9), ConnectionPermit)
    assert connect(10).code == DenialCode.FULL_SIGN_IN_NEEDED
    inventory.change_zone(
        zone_id=here.cell.pk, changes={"sl_t": 3}, by=SET_UP, now=clock()
    )
    denied = connect(0)
    assert denied.code == DenialCode.FULL_SIGN_IN_NEEDED
    assert "one-time code" in authorization.outside_message(denied)
    assert isinstance(_connect(here.engineer, here.asset.name), ConnectionPermit)


def test_the_grace_for_no_asset_is_that_of_the_strictest_zone():
    """The outer connection of a jump names no asset: it may lead to each of them."""
    here = factories.plant()
    inventory.change_zone(
        zone_id=here.cell.pk,
        changes={"sl_t": 2, "mfa_grace_minutes": 30},
        by=SET_UP,
        now=clock(),
    )

    def minutes(asset_name=None):
        return queries.grace_minutes_for(
            here.engineer, asset_name=asset_name, now=clock()
        )

    assert (minutes(), minutes(here.asset.name), minutes("unknown")) == (0, 0, 0)
    grant = factories.grant(here)
    assert (minutes(), minutes(here.asset.name.upper()), minutes("unknown")) == (
        30,
        30,
        0,
    )
    assert minutes(here.unreachable.name) == 0
    inventory.add_conduit(
        name="C-lab",
        from_zone=here.dmz,
        to_zone=here.bench,
        services=["shell", "exec"],
        by=SET_UP,
        now=clock(),
    )
    factories.grant(here, account=here.unreachable_account)
    assert (minutes(), minutes(here.asset.name)) == (10, 30)
    assert queries.longest_grace_for(here.engineer, now=clock()) == 30
    assert operations.finish_grant(grant_id=grant.pk, by=here.engineer, now=clock())
    assert minutes(here.asset.name) == 0
    assert queries.longest_grace_for(here.engineer, now=clock()) == 10


def test_who_watches_over_sessions_needs_what_the_strictest_zone_of_the_site_asks():
    """Commands name no asset either; a zone without assets has no sessions."""
    here = factories.plant()

    def minutes(user):
        return queries.grace_minutes_for(user, asset_name=None, now=clock())

    assert minutes(here.approver) == 0
    inventory.change_zone(
        zone_id=here.cell.pk,
        changes={"sl_t": 2, "mfa_grace_minutes": 30},
        by=SET_UP,
        now=clock(),
    )
    for user in (here.approver, here.auditor):
        assert minutes(user) == 10
        assert queries.longest_grace_for(user, now=clock()) == 30
    assert minutes(here.administrator) == 0
    assert minutes(here.engineer) == 0


@pytest.mark.parametrize(
    ("zone_says", "asset_says", "holds"),
    [
        ((None, None), (None, None), (15, 0)),
        ((0, 30), (None, None), (0, 30)),
        ((5, 30), (0, 60), (0, 60)),
        ((5, None), (None, 60), (5, 60)),
        ((None, None), (2, None), (2, 0)),
    ],
)
def test_a_permit_carries_the_idle_limits_of_its_asset(
    zone_says, asset_says, holds, settings
):
    """What the asset does not say, the zone does, and then the settings; 0 is never."""
    settings.IDLE_LOCK_MINUTES, settings.IDLE_END_MINUTES = 15, 0
    here = factories.plant()
    names = ("idle_lock_minutes", "idle_end_minutes")
    inventory.change_zone(
        zone_id=here.cell.pk,
        changes=dict(zip(names, zone_says, strict=True)),
        by=factories.SET_UP,
        now=clock(),
    )
    inventory.change_asset(
        asset_id=here.asset.pk,
        changes=dict(zip(names, asset_says, strict=True)),
        by=factories.SET_UP,
        now=clock(),
    )
    grant = factories.grant(here)
    permit = authorization.authorize_grant(
        user=grant.person,
        grant_id=grant.pk,
        source_address="192.0.2.7",
        door="ssh",
        now=clock(),
    )
    assert permit
    assert (permit.idle_lock_minutes, permit.idle_end_minutes) == holds
