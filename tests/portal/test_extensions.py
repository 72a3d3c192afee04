"""Asking for more time and deciding on it, page by page."""

import pytest

from apps.access.models import GrantExtension
from tests import factories
from tests.portal import plant_work
from tests.portal.doors import sign_in

pytestmark = pytest.mark.django_db


@pytest.fixture
def here():
    return factories.plant()


def test_one_asks_and_another_approves(here):
    grant = factories.grant(here, minutes=60)
    engineer, approver = sign_in(here.engineer).client, sign_in(here.approver).client
    assert "Ask for more time" in engineer.get("/").content.decode()
    answer = engineer.post(
        f"/grants/{grant.pk}/extension/",
        {"minutes": 30, "reason": "The pump <b>does not</b> start", "next": "/"},
        follow=True,
    )
    page = answer.content.decode()
    assert "You asked for 30 minutes more" in page
    assert "30 min more" in page
    assert "Ask for more time" not in page
    asked = GrantExtension.objects.get()
    queue = approver.get("/approvals/").content.decode()
    assert f"/extensions/{asked.pk}/" in queue
    detail = approver.get(f"/extensions/{asked.pk}/").content.decode()
    assert "The pump &lt;b&gt;does not&lt;/b&gt; start" in detail
    answer = approver.post(
        f"/extensions/{asked.pk}/", {"verdict": "approve", "minutes": 20}, follow=True
    )
    assert "Approved" in answer.content.decode()
    before = grant.ends_at
    grant.refresh_from_db()
    assert (grant.ends_at - before).total_seconds() == 20 * 60
    decided = approver.get(f"/extensions/{asked.pk}/").content.decode()
    assert "No decision here" in decided


def test_a_denial_is_shown_with_its_reason(here):
    grant = factories.grant(here, minutes=60)
    asked = plant_work.extension(grant)
    approver = sign_in(here.approver).client
    address = f"/extensions/{asked.pk}/"
    answer = approver.post(address, {"verdict": "deny", "minutes": 30})
    assert answer.status_code == 422
    answer = approver.post(
        address, {"verdict": "deny", "minutes": 30, "comment": "the shift ends"}
    )
    assert answer.status_code == 302
    page = sign_in(here.engineer).client.get("/").content.decode()
    assert "the shift ends" in page
    assert "Ask for more time" in page


def test_an_approver_who_is_the_engineer_cannot_decide(here):
    both = factories.person("engineer", "approver", site=here.site)
    asked = plant_work.extension(factories.grant(here, person=both))
    client = sign_in(both).client
    page = client.get(f"/extensions/{asked.pk}/").content.decode()
    assert "Nobody approves their own request." in page
    answer = client.post(
        f"/extensions/{asked.pk}/", {"verdict": "approve", "minutes": 30}
    )
    assert answer.status_code == 422
    assert f"/extensions/{asked.pk}/" not in client.get("/approvals/").content.decode()


def test_ones_own_live_session_offers_it_and_others_do_not(here):
    grant = factories.grant(here)
    live = plant_work.live_session(grant, plant_work.gateway())
    address = f"/sessions/{live.pk}/"
    own = sign_in(here.engineer).client.get(address).content.decode()
    assert "Ask for more time" in own
    theirs = sign_in(here.approver).client.get(address).content.decode()
    assert "Ask for more time" not in theirs


@pytest.mark.parametrize("body", [{}, {"minutes": "x", "reason": "y"}])
def test_an_incomplete_question_asks_nothing(here, body):
    grant = factories.grant(here)
    client = sign_in(here.engineer).client
    assert client.post(f"/grants/{grant.pk}/extension/", body).status_code == 302
    assert not GrantExtension.objects.exists()
