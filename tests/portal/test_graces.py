"""Where the key alone signs in: shown to its owner and to administrators, and ended."""

import datetime as dt

import pytest
import time_machine
from django.utils import timezone

from apps.accounts import operations as accounts
from apps.accounts import ssh_sign_in
from apps.accounts.models import SignInGrace, User
from apps.audit.kinds import Kind
from apps.audit.models import AuditEvent
from tests import factories
from tests.portal.doors import add_person, enrol, sign_in

pytestmark = pytest.mark.django_db


def with_grace(name: str) -> User:
    """Return an engineer who signed in over SSH a moment ago."""
    person = add_person(name, "engineer")
    enrol(person)
    key = accounts.add_key(
        user=person,
        name="field laptop",
        text=factories.ed25519_line(),
        by=person.party,
        now=timezone.now(),
    )
    now = timezone.now()
    ssh_sign_in.sign_in(
        user=person,
        key_id=key.pk,
        grace_minutes=10,
        source_address="198.51.100.23",
        verified_at=now,
        now=now,
    )
    return person


def test_the_owner_sees_and_ends_them() -> None:
    owner, bystander = with_grace("owner"), with_grace("bystander")
    client = sign_in(owner).client
    page = client.get("/").content.decode()
    assert "198.51.100.23" in page
    assert "field laptop" in page
    assert client.post("/graces/end/").status_code == 302
    assert "198.51.100.23" not in client.get("/").content.decode()
    assert [grace.user for grace in SignInGrace.objects.all()] == [bystander]
    event = AuditEvent.objects.get(kind=Kind.GRACE_ENDED)
    assert event.actor_label == event.object_label == "owner"


def test_an_administrator_sees_and_ends_those_of_a_person() -> None:
    owner = with_grace("owner")
    boss = sign_in(add_person("boss", "administrator")).client
    address = f"/people/{owner.pk}/"
    assert "198.51.100.23" in boss.get(address).content.decode()
    assert boss.post(f"{address}graces/end/").status_code == 302
    assert "198.51.100.23" not in boss.get(address).content.decode()
    event = AuditEvent.objects.get(kind=Kind.GRACE_ENDED)
    assert (event.actor_label, event.object_label) == ("boss", "owner")


def test_signing_out_everywhere_ends_other_browsers_and_graces() -> None:
    owner = with_grace("owner")
    here = sign_in(owner).client
    with time_machine.travel(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=30)):
        there = sign_in(owner).client
    assert here.post("/account/signed-in/end-all/").status_code == 302
    assert here.get("/account/").status_code == 200
    assert there.get("/account/").status_code == 302
    assert not SignInGrace.objects.exists()
    assert AuditEvent.objects.filter(kind=Kind.SIGNED_OUT_EVERYWHERE).count() == 1


def test_the_zone_form_sets_the_grace_and_refuses_it_where_it_cannot_be() -> None:
    here = factories.plant()
    client = sign_in(add_person("boss", "administrator")).client
    address = f"/zones/{here.bench.pk}/change/"
    body = {"name": "Lab bench", "purdue_level": "1", "sl_t": 2}
    assert client.post(address, {**body, "mfa_grace_minutes": 25}).status_code == 302
    here.bench.refresh_from_db()
    assert here.bench.grace_minutes == 25
    answer = client.post(address, {**body, "sl_t": 3, "mfa_grace_minutes": 20})
    assert answer.status_code == 422
    assert "leave the MFA grace empty or 0" in answer.content.decode()
    # What it had is taken away by the level, and stays away when that is lowered.
    assert client.post(address, {**body, "sl_t": 3, "mfa_grace_minutes": 25})
    here.bench.refresh_from_db()
    assert (here.bench.mfa_grace_minutes, here.bench.grace_minutes) == (None, 0)
    assert client.post(address, {**body, "mfa_grace_minutes": ""}).status_code == 302
    here.bench.refresh_from_db()
    assert here.bench.grace_minutes == 10
