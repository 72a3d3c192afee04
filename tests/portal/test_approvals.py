"""Approvals: the queue, what an approver sees, and deciding."""

import datetime as dt

import pytest

from apps.access import operations as access
from apps.access.lifecycle import RequestState
from apps.access.models import Approval, Grant
from apps.accounts import operations as accounts
from apps.audit.kinds import Kind
from apps.audit.models import AuditEvent
from tests import factories
from tests.portal.doors import sign_in

pytestmark = pytest.mark.django_db


@pytest.fixture
def here() -> factories.Plant:
    return factories.plant()


def decision(**changes: object) -> dict[str, object]:
    return {
        "verdict": "approve",
        "version": 1,
        "minutes": 10,
        "comment": "",
        **changes,
    }


def test_the_queue_is_oldest_first_and_counted_in_the_rail(
    here: factories.Plant,
) -> None:
    now = factories.clock()
    factories.request(here, requester=here.second_engineer, now=now)
    factories.request(here, now=now - dt.timedelta(minutes=5))
    shown = sign_in(here.approver).client.get("/approvals/").content.decode()
    first = shown.index(here.engineer.full_name)
    assert first < shown.index(here.second_engineer.full_name)
    assert '<span class="count">2' in shown


def test_an_empty_queue_says_so(here: factories.Plant) -> None:
    shown = sign_in(here.approver).client.get("/approvals/").content.decode()
    assert "Nothing waits for you" in shown


@pytest.mark.parametrize("who", ["engineer", "auditor", "administrator"])
def test_the_queue_is_for_approvers(here: factories.Plant, who: str) -> None:
    asked = factories.request(here)
    client = sign_in(getattr(here, who)).client
    assert client.get("/approvals/").status_code == 404
    assert client.get(f"/approvals/{asked.pk}/").status_code == 404
    assert client.post(f"/approvals/{asked.pk}/", decision()).status_code == 404
    assert not Grant.objects.exists()


def test_an_approver_of_another_site_sees_and_decides_nothing(
    here: factories.Plant,
) -> None:
    asked = factories.request(here)
    client = sign_in(factories.plant().approver).client
    assert here.asset.name not in client.get("/approvals/").content.decode()
    assert client.get(f"/approvals/{asked.pk}/").status_code == 404
    assert client.post(f"/approvals/{asked.pk}/", decision()).status_code == 404
    assert not Grant.objects.exists()


def test_before_deciding_everything_that_counts_is_shown(
    here: factories.Plant,
) -> None:
    asked = factories.request(here)
    client = sign_in(here.approver).client
    shown = client.get(f"/approvals/{asked.pk}/").content.decode()
    for fact in [
        here.engineer.full_name,
        here.asset.name,
        here.cell.name,
        "level 2",
        "SL-T 3",
        here.conduit.name,
        "Alarm list cleanup",
        "WO-20417",
        "192.0.2.7",
        "First time on this asset",
        "nobody",
    ]:
        assert fact in shown, fact
    assert 'value="approve"' in shown


def test_a_second_time_is_not_called_the_first(here: factories.Plant) -> None:
    grant = factories.grant(here)
    access.finish_grant(grant_id=grant.pk, by=here.engineer, now=factories.clock())
    asked = factories.request(here)
    client = sign_in(here.approver).client
    shown = client.get(f"/approvals/{asked.pk}/").content.decode()
    assert "First time on this asset" not in shown
    assert "1 earlier grant" in shown


def test_approving_shorter_makes_a_grant_of_that_length(here: factories.Plant) -> None:
    asked = factories.request(here, minutes=30)
    answer = sign_in(here.approver).client.post(f"/approvals/{asked.pk}/", decision())
    assert answer.headers["Location"] == "/approvals/"
    grant = Grant.objects.get()
    assert grant.ends_at - grant.starts_at == dt.timedelta(minutes=10)
    assert Approval.objects.get().source_address == "127.0.0.1"


def test_nobody_is_given_more_than_they_asked_for(here: factories.Plant) -> None:
    asked = factories.request(here, minutes=30)
    client = sign_in(here.approver).client
    answer = client.post(f"/approvals/{asked.pk}/", decision(minutes=60))
    assert answer.status_code == 422
    assert "Only 30 minutes were asked for" in answer.content.decode()
    assert not Grant.objects.exists()


def test_denying_needs_a_reason_which_the_requester_sees(here: factories.Plant) -> None:
    asked = factories.request(here)
    client = sign_in(here.approver).client
    answer = client.post(f"/approvals/{asked.pk}/", decision(verdict="deny"))
    assert answer.status_code == 422
    assert "Say why" in answer.content.decode()
    client.post(
        f"/approvals/{asked.pk}/", decision(verdict="deny", comment="Not on a Monday")
    )
    asked.refresh_from_db()
    assert asked.state == RequestState.DENIED
    shown = sign_in(here.engineer).client.get(f"/requests/{asked.pk}/")
    assert "Not on a Monday" in shown.content.decode()


def test_nobody_approves_their_own_request(here: factories.Plant) -> None:
    """R21: no buttons, and a request by hand is refused and written down."""
    accounts.change_person(
        user_id=here.engineer.pk,
        full_name=here.engineer.full_name,
        email="",
        organisation="",
        roles=frozenset({"engineer", "approver"}),
        by=here.administrator,
        now=factories.clock(),
    )
    asked = factories.request(here)
    client = sign_in(here.engineer).client
    shown = client.get(f"/approvals/{asked.pk}/").content.decode()
    assert 'value="approve"' not in shown
    assert "Nobody approves their own request" in shown
    answer = client.post(f"/approvals/{asked.pk}/", decision())
    assert answer.status_code == 422
    assert not Grant.objects.exists()
    assert AuditEvent.objects.filter(kind=Kind.APPROVAL_REFUSED).count() == 1


def test_a_decision_on_an_older_version_does_not_count(here: factories.Plant) -> None:
    asked = factories.request(here)
    client = sign_in(here.approver).client
    answer = client.post(f"/approvals/{asked.pk}/", decision(version=2))
    assert answer.status_code == 422
    assert "changed after you read it" in answer.content.decode()
    assert not Grant.objects.exists()


def test_what_was_decided_is_not_decided_again(here: factories.Plant) -> None:
    asked = factories.request(here)
    client = sign_in(here.approver).client
    client.post(f"/approvals/{asked.pk}/", decision())
    second = sign_in(here.second_approver).client
    answer = second.post(
        f"/approvals/{asked.pk}/", decision(verdict="deny", comment="no")
    )
    assert answer.status_code == 422
    assert "decided already" in answer.content.decode()
    asked.refresh_from_db()
    assert asked.state == RequestState.APPROVED


@pytest.mark.parametrize(
    "bad", [{"verdict": "grant"}, {"version": "x"}, {"minutes": ""}]
)
def test_a_malformed_decision_decides_nothing(
    here: factories.Plant, bad: dict[str, object]
) -> None:
    asked = factories.request(here)
    client = sign_in(here.approver).client
    answer = client.post(f"/approvals/{asked.pk}/", decision(**bad))
    assert answer.status_code == 422
    asked.refresh_from_db()
    assert asked.state == RequestState.PENDING
