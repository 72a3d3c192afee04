"""My access: what is open, what waits, what was; giving access back."""

import uuid

import pytest
from django.test import Client

from apps.access import operations as access
from apps.access.lifecycle import RequestState
from apps.access.models import Grant
from apps.audit.kinds import Kind
from apps.audit.models import AuditEvent
from apps.inventory import operations as inventory
from tests import factories
from tests.portal import plant_work
from tests.portal.doors import sign_in

pytestmark = pytest.mark.django_db


@pytest.fixture
def here() -> factories.Plant:
    return factories.plant()


def page(client: Client) -> str:
    answer = client.get("/")
    assert answer.status_code == 200
    return answer.content.decode()


def test_nothing_open_says_what_to_do(here: factories.Plant) -> None:
    shown = page(sign_in(here.engineer).client)
    assert "Nothing is open for you" in shown
    assert "/requests/new/" in shown


def test_who_is_no_engineer_is_not_invited_to_ask(here: factories.Plant) -> None:
    shown = page(sign_in(here.auditor).client)
    assert "Nothing is open for you" in shown
    assert "/requests/new/" not in shown


def test_an_active_grant_shows_its_command_and_its_end(here: factories.Plant) -> None:
    plant_work.gateway()
    grant = factories.grant(here)
    shown = page(sign_in(here.engineer).client)
    name = here.engineer.username
    assert f"ssh -p 2222 {name}@{here.asset.name}@127.0.0.1" in shown
    assert f'data-ends-at="{grant.ends_at:%Y-%m-%dT%H:%M:%S}' in shown
    assert f"/grants/{grant.pk}/terminal/" in shown


def test_the_command_names_the_account_when_there_are_two(
    here: factories.Plant,
) -> None:
    factories.grant(here)
    other = inventory.add_account(
        asset=here.asset,
        name="viewer",
        credential_kind="key",
        by=factories.SET_UP,
        now=factories.clock(),
    )
    factories.grant(here, account=other)
    shown = page(sign_in(here.engineer).client)
    name = here.engineer.username
    assert f"{name}@operator@{here.asset.name}@" in shown
    assert f"{name}@viewer@{here.asset.name}@" in shown


def test_forwards_and_the_jump_show_their_commands(here: factories.Plant) -> None:
    plant_work.gateway()
    inventory.change_conduit(
        conduit_id=here.conduit.pk,
        services=["shell", "forward:10.20.4.17:502", "forward:[fd00::17]:8443"],
        by=factories.SET_UP,
        now=factories.clock(),
    )
    factories.grant(
        here, services=["shell", "forward:10.20.4.17:502", "forward:[fd00::17]:8443"]
    )
    shown = page(sign_in(here.engineer).client)
    me, asset = here.engineer.username, here.asset.name
    assert f"ssh -N -L 10502:10.20.4.17:502 -p 2222 {me}@{asset}@" in shown
    assert f"ssh -N -L 8443:[fd00::17]:8443 -p 2222 {me}@{asset}@" in shown
    assert f"ssh -J {me}@" in shown
    assert f":2222 {here.account.name}@{asset}" in shown


def test_live_sessions_are_counted(here: factories.Plant) -> None:
    node, grant = plant_work.gateway(), factories.grant(here)
    plant_work.live_session(grant, node)
    assert "Live · 1 session" in page(sign_in(here.engineer).client)


def test_a_waiting_request_names_who_can_approve(here: factories.Plant) -> None:
    factories.request(here)
    shown = page(sign_in(here.engineer).client)
    assert here.approver.full_name in shown
    assert here.second_approver.full_name in shown
    assert here.auditor.full_name not in shown


def test_access_of_others_is_not_shown(here: factories.Plant) -> None:
    factories.grant(here, person=here.second_engineer)
    shown = page(sign_in(here.engineer).client)
    assert here.asset.name not in shown


def test_giving_access_back_ends_it(here: factories.Plant) -> None:
    grant = factories.grant(here)
    client = sign_in(here.engineer).client
    answer = client.post(f"/grants/{grant.pk}/finish/")
    assert answer.headers["Location"] == "/"
    grant.refresh_from_db()
    assert grant.finished_at is not None
    assert AuditEvent.objects.filter(kind=Kind.GRANT_FINISHED).count() == 1
    assert "never used" in page(client)


def test_giving_back_twice_says_so_and_changes_nothing(here: factories.Plant) -> None:
    grant = factories.grant(here)
    client = sign_in(here.engineer).client
    client.post(f"/grants/{grant.pk}/finish/")
    answer = client.post(f"/grants/{grant.pk}/finish/", follow=True)
    assert "had ended already" in answer.content.decode()
    assert AuditEvent.objects.filter(kind=Kind.GRANT_FINISHED).count() == 1


@pytest.mark.parametrize("who", ["second_engineer", "approver", "administrator"])
def test_nobody_else_gives_it_back(here: factories.Plant, who: str) -> None:
    grant = factories.grant(here)
    client = sign_in(getattr(here, who)).client
    of_others = client.post(f"/grants/{grant.pk}/finish/")
    unknown = client.post(f"/grants/{uuid.uuid4()}/finish/")
    assert of_others.status_code == unknown.status_code == 404
    assert of_others.content == unknown.content
    assert Grant.objects.get(pk=grant.pk).finished_at is None


def test_finishing_is_only_by_post(here: factories.Plant) -> None:
    grant = factories.grant(here)
    client = sign_in(here.engineer).client
    assert client.get(f"/grants/{grant.pk}/finish/").status_code == 405
    assert Grant.objects.get(pk=grant.pk).finished_at is None


def test_a_denied_request_does_not_vanish(here: factories.Plant) -> None:
    asked = factories.request(here)
    access.deny_request(
        request_id=asked.pk,
        version=1,
        approver=here.approver,
        comment="not today",
        source_address="192.0.2.1",
        now=factories.clock(),
    )
    asked.refresh_from_db()
    assert asked.state == RequestState.DENIED
    assert "Not granted in the last week" in page(sign_in(here.engineer).client)


def test_lines_for_files_are_shown_with_a_right_to_files(here: factories.Plant) -> None:
    """Each right has its own line; without any there is none."""
    plant_work.gateway()
    factories.grant(here)
    assert "sftp" not in page(sign_in(here.engineer).client)
    inventory.change_conduit(
        conduit_id=here.conduit.pk,
        services=["shell", "sftp-up", "sftp-down"],
        by=factories.SET_UP,
        now=factories.clock(),
    )
    for services, up, down in (
        (["sftp-up"], True, False),
        (["sftp-down"], False, True),
        (["sftp-mkdir"], False, False),
    ):
        if "sftp-mkdir" in services:
            inventory.change_conduit(
                conduit_id=here.conduit.pk,
                services=["sftp-mkdir"],
                by=factories.SET_UP,
                now=factories.clock(),
            )
        person = factories.person("engineer", site=here.site)
        factories.grant(here, person=person, services=services)
        shown = page(sign_in(person).client)
        who = f"{person.username}@{here.asset.name}@127.0.0.1"
        assert f"sftp -P 2222 {who}" in shown
        assert (f"scp -P 2222 FILE {who}:" in shown) is up
        assert (f"scp -P 2222 {who}:FILE ." in shown) is down
        assert 'id="files-1-' in shown
        assert 'id=""' not in shown
