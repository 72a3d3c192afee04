"""Seeding: everything the demo promises is there, random, and made by operations."""

import base64
import json
import stat
from pathlib import Path

import pytest
from django.contrib.auth.hashers import check_password
from django.db import transaction

from apps.access.denials import DenialCode, Denied
from apps.access.operations import submit_request
from apps.accounts.models import User
from apps.accounts.operations import verify_second_factor
from apps.accounts.queries import usable_key
from apps.audit.models import AuditEvent
from apps.inventory.models import Asset, HostKey, Site, SiteMembership
from apps.inventory.queries import conduit_to, pinned_host_keys
from apps.vault.models import AccountCredential, CertificateAuthority
from jumpserver.demo.one_time_codes import code_at, step_now
from jumpserver.demo.people_file import people_path, read_people
from jumpserver.demo.seed import SeedError, seed
from jumpserver.demo.waterworks import ASSETS, NORTH, PEOPLE, SITES
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def seeded(plant, tmp_path):
    """The demo, seeded for a running plant into an own directory."""
    assert seed(data_directory=tmp_path, plant=plant.state, now=factories.clock())
    return tmp_path


def test_everybody_of_the_story_is_there_with_one_role_each(seeded):
    roles = {user.username: user.role_names for user in User.objects.all()}
    assert roles == {person.username: [person.role] for person in PEOPLE}
    stranger = SiteMembership.objects.get(user__username="stranger")
    assert stranger.site.slug != NORTH


def test_everybody_signs_in_with_what_is_written_down(seeded):
    for card in read_people(seeded):
        user = User.objects.get(username=card.username)
        assert check_password(card.password, user.password)
        # The next one: shortly before its end this half minute's enrolled the device.
        code = code_at(base64.b32decode(card.totp_secret), step_now() + 1)
        assert verify_second_factor(user=user, code=code, now=factories.clock())


def test_only_this_user_can_read_the_secrets(seeded):
    keys = [
        Path(card.ssh_private_key)
        for card in read_people(seeded)
        if card.ssh_private_key is not None
    ]
    assert len(keys) == sum(person.role == "engineer" for person in PEOPLE)
    for path in [people_path(seeded), *keys]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_each_engineers_key_is_theirs(seeded):
    user = User.objects.get(username="engineer")
    (key,) = user.ssh_public_keys.all()
    assert usable_key(handle="engineer", fingerprint=key.fingerprint) == key
    assert usable_key(handle="vendor", fingerprint=key.fingerprint) is None


def test_no_password_is_the_same_twice_or_in_the_code(plant, tmp_path):
    """R9: nothing is fixed; each seeding draws anew."""
    seen = []
    for name in ("one", "two"):
        directory = tmp_path / name
        directory.mkdir()
        with transaction.atomic():
            seed(data_directory=directory, plant=plant.state, now=factories.clock())
            transaction.set_rollback(True)
        cards = read_people(directory)
        seen += [card.password for card in cards]
        seen += [card.totp_secret for card in cards]
    assert len(set(seen)) == 2 * 2 * len(PEOPLE)


def test_zones_and_conduits_are_those_of_the_demo(seeded):
    for demo in SITES:
        site = Site.objects.get(slug=demo.slug)
        assert site.zones.count() == len(demo.zones)
        assert site.zones.filter(hosts_gateway=True).count() == 1
    outside = {a.name for a in Asset.objects.all() if conduit_to(a) is None}
    assert outside == {"lab-bench-01"}


def test_the_bench_cannot_even_be_asked_for(seeded):
    bench = Asset.objects.get(name="lab-bench-01")
    denied = submit_request(
        requester=User.objects.get(username="engineer"),
        asset_id=bench.pk,
        account_id=bench.accounts.get().pk,
        services=["shell"],
        minutes=10,
        reason="To see",
        work_order="WO-1",
        source_address="192.0.2.1",
        now=factories.clock(),
    )
    assert isinstance(denied, Denied)
    assert denied.code == DenialCode.NO_CONDUIT


def test_host_keys_are_the_plants_and_two_people_stand_for_them(seeded, plant):
    for name, target in plant.state["assets"].items():
        asset = Asset.objects.get(name=name)
        (line,) = pinned_host_keys(asset.pk)
        assert line.split()[:2] == target["host_key"].split()[:2]
    for key in HostKey.objects.all():
        assert key.confirmed_by not in (None, key.pinned_by)


def test_the_vault_holds_what_opens_the_assets(seeded):
    stored = set(AccountCredential.objects.values_list("account__asset__name", "kind"))
    assert stored == {
        ("hmi-pump-01", "key"),
        ("switch-old-01", "password"),
        ("lab-bench-01", "password"),
    }


def test_the_scada_server_trusts_the_sites_authority(seeded, plant):
    trusted = Path(plant.asset("scada-01")["user_ca_file"]).read_text()
    authority = CertificateAuthority.objects.get(site__slug=NORTH)
    assert trusted.strip() == authority.public_line


def test_every_step_of_the_seeding_is_in_the_ledger(seeded):
    added = AuditEvent.objects.filter(kind__contains="asset").count()
    assert added >= len(ASSETS)


def test_a_second_seeding_changes_nothing_but_follows_the_plant(seeded, plant):
    before = people_path(seeded).read_bytes()
    events = AuditEvent.objects.count()
    assert not seed(data_directory=seeded, plant=plant.state, now=factories.clock())
    assert people_path(seeded).read_bytes() == before
    assert AuditEvent.objects.count() == events
    moved = json.loads(json.dumps(plant.state))
    moved["assets"]["hmi-pump-01"]["port"] += 1
    assert not seed(data_directory=seeded, plant=moved, now=factories.clock())
    port = Asset.objects.get(name="hmi-pump-01").port
    assert port == moved["assets"]["hmi-pump-01"]["port"]


def test_without_the_peoples_file_nobody_could_sign_in(seeded, plant):
    people_path(seeded).unlink()
    with pytest.raises(SeedError, match="--reset"):
        seed(data_directory=seeded, plant=plant.state, now=factories.clock())


def test_a_database_of_something_else_is_left_alone(plant, tmp_path):
    factories.person("engineer")
    with pytest.raises(SeedError, match="not the demo's"):
        seed(data_directory=tmp_path, plant=plant.state, now=factories.clock())
    assert not people_path(tmp_path).exists()
