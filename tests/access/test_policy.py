"""The policy decision point: tables of allow and deny, properties at the edges."""

import datetime as dt
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.access.denials import SENTENCES, Allowed, DenialCode, Denied
from apps.access.lifecycle import (
    GRANT_TRANSITIONS,
    REQUEST_TRANSITIONS,
    GrantState,
    RequestState,
)
from apps.access.policy import (
    GrantFacts,
    PathFacts,
    PersonFacts,
    RequestFacts,
    RequestRules,
    clip_minutes,
    decide_approval,
    decide_connection,
    decide_freshness,
    decide_minutes,
    decide_path,
    decide_request,
    grace_minutes,
)

NOW = dt.datetime(2026, 11, 23, 12, 0, tzinfo=dt.UTC)
PERSON = PersonFacts(disabled=False, is_engineer=True, is_approver=True, is_member=True)
PATH = PathFacts(
    asset_retired=False,
    gateway_zone="DMZ",
    asset_zone="Cell 3",
    conduit="C-11",
    conduit_services=frozenset({"shell", "exec"}),
    host_key_pinned=True,
)
GRANT = GrantFacts(
    starts_at=NOW - dt.timedelta(minutes=1),
    ends_at=NOW + dt.timedelta(minutes=1),
    revoked=False,
    finished=False,
    services=frozenset({"shell"}),
)
REQUEST = RequestFacts(
    services=frozenset({"shell"}), minutes=30, reason="why", work_order="WO-1"
)
RULES = RequestRules(
    step_minutes=5, maximum_minutes=480, work_order_pattern=r"[A-Z]{2,5}-[0-9]+"
)


def test_every_code_has_a_sentence():
    assert set(SENTENCES) == set(DenialCode)


def test_denied_is_falsy_and_allowed_is_truthy():
    assert not Denied(DenialCode.NO_GRANT)
    assert Allowed()
    assert Denied(DenialCode.NO_GRANT).message == SENTENCES[DenialCode.NO_GRANT]


@pytest.mark.parametrize(
    ("person", "path", "code"),
    [
        (PERSON, PATH, None),
        (replace(PERSON, disabled=True), PATH, DenialCode.PERSON_DISABLED),
        (replace(PERSON, is_engineer=False), PATH, DenialCode.NOT_ENGINEER),
        (replace(PERSON, is_member=False), PATH, DenialCode.NOT_A_MEMBER),
        (PERSON, replace(PATH, asset_retired=True), DenialCode.ASSET_RETIRED),
        (PERSON, replace(PATH, gateway_zone=None), DenialCode.NO_GATEWAY_ZONE),
        (PERSON, replace(PATH, conduit=None), DenialCode.NO_CONDUIT),
    ],
)
def test_path(person, path, code):
    verdict = decide_path(person, path)
    assert bool(verdict) is (code is None)
    assert getattr(verdict, "code", None) == code


def test_a_missing_conduit_names_the_rule_and_both_zones():
    verdict = decide_path(PERSON, replace(PATH, conduit=None))
    assert isinstance(verdict, Denied)
    for word in ("DMZ", "Cell 3", "no_conduit"):
        assert word in verdict.message


@pytest.mark.parametrize(
    ("grant", "path", "code"),
    [
        (GRANT, PATH, None),
        (None, PATH, DenialCode.NO_GRANT),
        (replace(GRANT, revoked=True), PATH, DenialCode.GRANT_REVOKED),
        (replace(GRANT, finished=True), PATH, DenialCode.GRANT_FINISHED),
        (
            replace(GRANT, starts_at=NOW + dt.timedelta(microseconds=1)),
            PATH,
            DenialCode.GRANT_NOT_STARTED,
        ),
        (replace(GRANT, starts_at=NOW), PATH, None),
        (replace(GRANT, ends_at=NOW), PATH, DenialCode.GRANT_EXPIRED),
        (replace(GRANT, ends_at=NOW + dt.timedelta(microseconds=1)), PATH, None),
        (GRANT, replace(PATH, host_key_pinned=False), DenialCode.NO_HOST_KEY),
        (
            GRANT,
            replace(PATH, conduit_services=frozenset({"exec"})),
            DenialCode.SERVICE_NOT_IN_CONDUIT,
        ),
    ],
)
def test_connection(grant, path, code):
    verdict = decide_connection(PERSON, path, grant, now=NOW)
    assert getattr(verdict, "code", None) == code
    assert bool(verdict) is (code is None)


@pytest.mark.parametrize(
    ("request_facts", "path", "approvers", "code"),
    [
        (REQUEST, PATH, 1, None),
        (replace(REQUEST, services=frozenset()), PATH, 1, DenialCode.SERVICES_MISSING),
        (
            replace(REQUEST, services=frozenset({"exec", "shell"})),
            replace(PATH, conduit_services=frozenset({"exec"})),
            1,
            DenialCode.SERVICE_NOT_IN_CONDUIT,
        ),
        (replace(REQUEST, minutes=0), PATH, 1, DenialCode.DURATION_REFUSED),
        (replace(REQUEST, minutes=7), PATH, 1, DenialCode.DURATION_REFUSED),
        (replace(REQUEST, minutes=485), PATH, 1, DenialCode.DURATION_REFUSED),
        (replace(REQUEST, minutes=480), PATH, 1, None),
        (replace(REQUEST, reason="  "), PATH, 1, DenialCode.REASON_MISSING),
        (replace(REQUEST, work_order="20417"), PATH, 1, DenialCode.WORK_ORDER_REFUSED),
        (
            replace(REQUEST, work_order="WO-1\n"),
            PATH,
            1,
            DenialCode.WORK_ORDER_REFUSED,
        ),
        (REQUEST, PATH, 0, DenialCode.NO_APPROVER),
        (REQUEST, replace(PATH, conduit=None), 1, DenialCode.NO_CONDUIT),
    ],
)
def test_request(request_facts, path, approvers, code):
    verdict = decide_request(PERSON, path, request_facts, RULES, approvers=approvers)
    assert getattr(verdict, "code", None) == code


@pytest.mark.parametrize(
    ("approver", "facts", "code"),
    [
        (PERSON, {}, None),
        (PERSON, {"is_requester": True}, DenialCode.OWN_REQUEST),
        (replace(PERSON, is_approver=False), {}, DenialCode.NOT_APPROVER),
        (replace(PERSON, is_member=False), {}, DenialCode.NOT_APPROVER),
        (replace(PERSON, disabled=True), {}, DenialCode.PERSON_DISABLED),
        (PERSON, {"is_pending": False}, DenialCode.REQUEST_NOT_PENDING),
        (PERSON, {"is_current": False}, DenialCode.REQUEST_CHANGED),
    ],
)
def test_approval(approver, facts, code):
    given_facts = {"is_requester": False, "is_pending": True, "is_current": True}
    verdict = decide_approval(approver, **{**given_facts, **facts})
    assert getattr(verdict, "code", None) == code


@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_an_approver_never_grants_more_than_was_asked(asked, granted):
    assert clip_minutes(asked, granted) <= asked
    assert clip_minutes(asked, granted) <= granted


@given(st.integers(-1000, 1000))
def test_only_whole_steps_inside_the_limits_are_granted(minutes):
    good = 5 <= minutes <= 480 and minutes % 5 == 0
    assert bool(decide_minutes(minutes, RULES)) is good


def test_no_state_is_missing_from_the_tables():
    assert set(REQUEST_TRANSITIONS) == set(RequestState)
    assert set(GRANT_TRANSITIONS) == set(GrantState)


@pytest.mark.parametrize(
    ("zones", "minutes"),
    [([], 0), ([10], 10), ([10, 5], 5), ([30, 0, 10], 0)],
)
def test_the_strictest_zone_a_sign_in_may_lead_to_decides(zones, minutes):
    assert grace_minutes(zones) == minutes


@given(st.integers(0, 60), st.timedeltas(dt.timedelta(0), dt.timedelta(hours=2)))
def test_a_full_sign_in_is_fresh_for_less_than_the_zones_minutes(minutes, age):
    verdict = decide_freshness(age, minutes)
    assert bool(verdict) == (age < dt.timedelta(minutes=minutes))
    if isinstance(verdict, Denied):
        assert verdict.code == DenialCode.FULL_SIGN_IN_NEEDED
