"""Asking for access: rules decide first, and the one that refuses is named."""

import uuid

import pytest

from apps.access.lifecycle import RequestState
from apps.access.models import AccessRequest
from apps.audit.kinds import Kind
from apps.audit.models import AuditEvent
from tests import factories
from tests.portal.doors import sign_in

pytestmark = pytest.mark.django_db


@pytest.fixture
def here() -> factories.Plant:
    return factories.plant()


def asked_for(here: factories.Plant, **changes: object) -> dict[str, object]:
    return {
        "target": str(here.account.pk),
        "minutes": 30,
        "services": ["shell"],
        "reason": "Alarm list cleanup",
        "work_order": "WO-20417",
        **changes,
    }


def test_asking_leads_to_a_page_that_says_who_is_waited_for(
    here: factories.Plant,
) -> None:
    client = sign_in(here.engineer).client
    answer = client.post("/requests/new/", asked_for(here), follow=True)
    shown = answer.content.decode()
    asked = AccessRequest.objects.get()
    assert answer.redirect_chain == [(f"/requests/{asked.pk}/", 302)]
    assert "Waiting for:" in shown
    assert here.approver.full_name in shown
    assert asked.source_address == "127.0.0.1"


def test_the_choice_is_grouped_by_site_and_zone_and_holds_only_own_sites(
    here: factories.Plant,
) -> None:
    elsewhere = factories.plant()
    shown = sign_in(here.engineer).client.get("/requests/new/").content.decode()
    assert f'<optgroup label="{here.site.name} / {here.cell.name}">' in shown
    assert str(here.account.pk) in shown
    assert str(elsewhere.account.pk) not in shown


def test_a_link_from_the_asset_has_chosen_already(here: factories.Plant) -> None:
    client = sign_in(here.engineer).client
    shown = client.get(f"/requests/new/?account={here.account.pk}").content.decode()
    assert f'value="{here.account.pk}" selected' in shown


def test_an_asset_outside_every_conduit_is_denied_by_a_named_rule(
    here: factories.Plant,
) -> None:
    answer = sign_in(here.engineer).client.post(
        "/requests/new/", asked_for(here, target=str(here.unreachable_account.pk))
    )
    assert answer.status_code == 422
    shown = answer.content.decode()
    assert "No conduit leads from zone" in shown
    assert "no_conduit" in shown
    assert not AccessRequest.objects.exists()
    assert AuditEvent.objects.filter(kind=Kind.REQUEST_REFUSED).count() == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"minutes": 481}, "minutes"),
        ({"minutes": 7}, "multiple of 5"),
        ({"minutes": "soon"}, "whole number"),
        ({"services": []}, "Choose at least one"),
        ({"services": ["sftp"]}, "not one of the available choices"),
        ({"reason": "  "}, "required"),
        ({"work_order": "please"}, "WO-20417"),
        ({"target": ""}, "required"),
        ({"target": "x' OR 1=1"}, "not one of the available choices"),
    ],
)
def test_what_is_wrong_is_said_and_what_was_typed_stays(
    here: factories.Plant, changes: dict[str, object], said: str
) -> None:
    answer = sign_in(here.engineer).client.post(
        "/requests/new/", asked_for(here, **changes)
    )
    assert answer.status_code == 422
    assert said in answer.content.decode()
    assert not AccessRequest.objects.exists()


def test_an_account_of_another_site_is_no_choice(here: factories.Plant) -> None:
    """R6: an id of others in the body is refused like one that does not exist."""
    elsewhere = factories.plant()
    client = sign_in(here.engineer).client
    of_others = client.post(
        "/requests/new/", asked_for(here, target=str(elsewhere.account.pk))
    )
    unknown = client.post("/requests/new/", asked_for(here, target=str(uuid.uuid4())))
    assert of_others.status_code == unknown.status_code == 422
    assert not AccessRequest.objects.exists()


def test_asking_twice_for_the_same_is_said(here: factories.Plant) -> None:
    client = sign_in(here.engineer).client
    client.post("/requests/new/", asked_for(here))
    answer = client.post("/requests/new/", asked_for(here))
    assert "waiting for this access already" in answer.content.decode()
    assert AccessRequest.objects.count() == 1


@pytest.mark.parametrize("who", ["approver", "auditor", "administrator"])
def test_only_engineers_ask(here: factories.Plant, who: str) -> None:
    client = sign_in(getattr(here, who)).client
    assert client.get("/requests/new/").status_code == 404
    assert client.post("/requests/new/", asked_for(here)).status_code == 404
    assert not AccessRequest.objects.exists()


def test_a_request_is_for_its_requester_and_the_sites_approvers_and_auditors(
    here: factories.Plant,
) -> None:
    asked = factories.request(here)
    stranger = factories.plant().engineer
    for who, status in [
        (here.engineer, 200),
        (here.approver, 200),
        (here.auditor, 200),
        (here.second_engineer, 404),
        (here.administrator, 404),
        (stranger, 404),
    ]:
        answer = sign_in(who).client.get(f"/requests/{asked.pk}/")
        assert answer.status_code == status, who


def test_withdrawing_is_for_the_requester_alone(here: factories.Plant) -> None:
    asked = factories.request(here)
    where = f"/requests/{asked.pk}/withdraw/"
    assert sign_in(here.approver).client.post(where).status_code == 404
    assert sign_in(here.second_engineer).client.post(where).status_code == 404
    own = sign_in(here.engineer).client
    assert own.get(where).status_code == 405
    assert own.post(where).status_code == 302
    asked.refresh_from_db()
    assert asked.state == RequestState.WITHDRAWN


def test_markup_in_a_reason_stays_text(here: factories.Plant) -> None:
    """R14: what people type never becomes markup."""
    client = sign_in(here.engineer).client
    reason = "<script>alert(1)</script>"
    answer = client.post("/requests/new/", asked_for(here, reason=reason), follow=True)
    assert reason not in answer.content.decode()
    assert "&lt;script&gt;" in answer.content.decode()
