"""The inventory through its one door, and the database's own rules."""

import contextlib
import ipaddress
import json

import pytest
from django.db import IntegrityError, transaction
from hypothesis import given
from hypothesis import strategies as st

from apps.accounts.public_keys import PublicKeyRefusedError
from apps.audit.kinds import Kind
from apps.audit.models import AuditEvent
from apps.inventory import operations, queries
from apps.inventory.addresses import parse_address, refusal
from apps.inventory.crypto_profiles import LEGACY_SHA1, MODERN, PROFILES
from apps.inventory.host_keys import parse_host_key
from apps.inventory.models import Conduit, HostKey, Zone
from apps.inventory.operations import InventoryRefusedError
from tests import factories
from tests.factories import SET_UP, clock

both = [pytest.mark.django_db, pytest.mark.both_databases]


class TestAddresses:
    """R26: which addresses a target may never have."""

    @pytest.mark.parametrize(
        "text",
        [
            "127.0.0.1",
            "127.255.255.254",
            "::1",
            "169.254.1.1",
            "169.254.169.254",
            "fe80::1",
            "0.0.0.0",  # noqa: S104 - an address to refuse
            "::",
            "224.0.0.1",
            "255.255.255.255",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "2002:7f00:1::",
            "fd00:ec2::254",
            "100.100.100.200",
        ],
    )
    def test_refused(self, text):
        assert refusal(ipaddress.ip_address(text))

    @pytest.mark.parametrize(
        "text", ["10.0.0.1", "192.168.1.5", "172.16.0.1", "fd00::5"]
    )
    def test_plant_addresses_are_allowed(self, text):
        assert refusal(ipaddress.ip_address(text)) is None

    @given(st.ip_addresses(v=4, network="127.0.0.0/8"))
    def test_mapped_loopback_is_loopback(self, address):
        assert refusal(ipaddress.ip_address(f"::ffff:{address}"))

    def test_names_are_not_addresses(self):
        assert parse_address("hmi.plant.example") is None


class TestHostKeyLines:
    """Reading pasted and scanned host keys."""

    def test_a_scan_line_loses_its_host(self):
        line = factories.ed25519_line()
        assert parse_host_key(f"hmi-1 {line}\n")[1] == line

    @pytest.mark.parametrize(
        "text",
        ["", "ssh-ed25519", "ssh-ed25519 !!", "ssh-rsa AAAAC3NzaC1lZDI1NTE5", "x y z"],
    )
    def test_refused(self, text):
        with pytest.raises(PublicKeyRefusedError):
            parse_host_key(text)

    @given(st.text(max_size=200))
    def test_no_text_crashes_the_reader(self, text):
        with contextlib.suppress(PublicKeyRefusedError):
            assert parse_host_key(text)


def test_profiles_are_exact_and_modern_is_the_only_strong_one():
    assert [p.name for p in PROFILES.values() if not p.weak] == [MODERN.name]
    for profile in PROFILES.values():
        for names in (profile.kex, profile.ciphers, profile.macs, profile.host_keys):
            assert names
            assert len(set(names)) == len(names)
    # R34: without strict key exchange, neither ChaCha20 nor CBC with EtM.
    assert not any("etm" in mac for mac in LEGACY_SHA1.macs)
    assert not any("chacha" in cipher for cipher in LEGACY_SHA1.ciphers)
    assert not any(
        "sha1" in name or "cbc" in name for name in (*MODERN.kex, *MODERN.ciphers)
    )


@pytest.mark.django_db
@pytest.mark.both_databases
class TestOperations:
    """Writes, and what the database itself refuses."""

    def test_local_addresses_are_refused(self, settings):
        """R26: registered neither by number nor after a change."""
        here = factories.plant()
        settings.ALLOW_LOCAL_TARGETS = False
        with pytest.raises(InventoryRefusedError, match="loopback"):
            operations.change_asset(
                asset_id=here.asset.pk,
                changes={"address": "127.0.0.1"},
                by=SET_UP,
                now=clock(),
            )

    def test_bad_fields_get_a_sentence(self):
        here = factories.plant()
        for changes in (
            {"name": "has blank"},
            {"port": 0},
            {"port": 70000},
            {"crypto_profile": "none"},
            {"on_expiry": "later"},
            {"no_such_field": 1},
        ):
            with pytest.raises(InventoryRefusedError):
                operations.change_asset(
                    asset_id=here.asset.pk, changes=changes, by=SET_UP, now=clock()
                )

    def test_a_conduit_joins_two_zones(self):
        here = factories.plant()
        with pytest.raises(InventoryRefusedError):
            operations.add_conduit(
                name="C-x",
                from_zone=here.cell,
                to_zone=here.cell,
                services=["shell"],
                by=SET_UP,
                now=clock(),
            )
        with (
            pytest.raises(IntegrityError, match="conduit_joins_two_zones"),
            transaction.atomic(),
        ):
            Conduit.objects.create(
                name="C-y", from_zone=here.cell, to_zone=here.cell, services=[]
            )

    def test_unknown_services_are_refused(self):
        here = factories.plant()
        with pytest.raises(InventoryRefusedError, match="telepathy"):
            operations.change_conduit(
                conduit_id=here.conduit.pk,
                services=["telepathy"],
                by=SET_UP,
                now=clock(),
            )

    def test_a_zone_never_lies_inside_itself(self):
        here = factories.plant()
        operations.change_zone(
            zone_id=here.bench.pk, changes={"parent": here.cell}, by=SET_UP, now=clock()
        )
        here.bench.refresh_from_db()
        with pytest.raises(InventoryRefusedError, match="inside itself"):
            operations.change_zone(
                zone_id=here.cell.pk,
                changes={"parent": here.bench},
                by=SET_UP,
                now=clock(),
            )

    def test_one_gateway_zone_per_site(self):
        here = factories.plant()
        with (
            pytest.raises(IntegrityError, match=r"one_gateway_zone_per_site|site_id"),
            transaction.atomic(),
        ):
            Zone.objects.filter(pk=here.cell.pk).update(hosts_gateway=True)

    def test_a_pin_counts_when_a_second_person_confirmed_it(self):
        here = factories.plant()
        HostKey.objects.all().update(removed_at=clock())
        key = operations.pin_host_key(
            asset=here.asset,
            text=factories.ed25519_line(),
            by=here.administrator,
            now=clock(),
        )
        assert queries.pinned_host_keys(here.asset.pk) == ()
        assert not operations.confirm_host_key(
            key_id=key.pk, by=here.administrator, now=clock()
        )
        with (
            pytest.raises(IntegrityError, match="host_key_needs_two_people"),
            transaction.atomic(),
        ):
            HostKey.objects.filter(pk=key.pk).update(
                confirmed_by=here.administrator, confirmed_at=clock()
            )
        assert operations.confirm_host_key(
            key_id=key.pk, by=here.second_administrator, now=clock()
        )
        assert queries.pinned_host_keys(here.asset.pk) == (key.line,)
        assert operations.remove_host_key(key_id=key.pk, by=SET_UP, now=clock())
        assert queries.pinned_host_keys(here.asset.pk) == ()

    def test_nobody_lets_themselves_into_a_site(self):
        """R17: membership is given by somebody else."""
        here, elsewhere = factories.plant(), factories.plant()
        with pytest.raises(InventoryRefusedError, match="yourself"):
            operations.add_member(
                site=elsewhere.site,
                user=here.administrator,
                by=here.administrator.party,
                now=clock(),
            )

    def test_who_may_see_which_assets(self):
        here, elsewhere = factories.plant(), factories.plant()
        seen = set(queries.assets_visible_to(here.engineer))
        assert seen == {here.asset, here.unreachable}
        assert elsewhere.asset in queries.assets_visible_to(here.administrator)
        assert elsewhere.asset not in queries.requestable_assets(here.administrator)


@pytest.mark.django_db
@pytest.mark.both_databases
class TestMfaGrace:
    """For how long after a full sign-in a zone takes the key alone."""

    @pytest.mark.parametrize(
        ("sl_t", "own", "minutes"),
        [
            (1, None, 10),
            (2, None, 10),
            (3, None, 0),
            (4, None, 0),
            (1, 0, 0),
            (2, 45, 45),
            (3, 0, 0),
        ],
    )
    def test_the_security_level_decides_where_the_zone_does_not(
        self, sl_t, own, minutes
    ):
        assert Zone(sl_t=sl_t, mfa_grace_minutes=own).grace_minutes == minutes

    @pytest.mark.parametrize("sl_t", [3, 4])
    def test_the_database_keeps_high_levels_free_of_it(self, sl_t):
        zone = factories.plant().cell
        with (
            pytest.raises(
                IntegrityError, match="no_mfa_grace_from_security_level_three_on"
            ),
            transaction.atomic(),
        ):
            Zone.objects.filter(pk=zone.pk).update(sl_t=sl_t, mfa_grace_minutes=1)

    def test_the_database_keeps_it_short(self):
        zone = factories.plant().bench
        with (
            pytest.raises(IntegrityError, match="mfa_grace_is_at_most_an_hour"),
            transaction.atomic(),
        ):
            Zone.objects.filter(pk=zone.pk).update(mfa_grace_minutes=61)

    def test_a_raised_level_takes_it_away_and_the_ledger_says_so(self):
        zone = factories.plant().bench

        def change(**changes):
            return operations.change_zone(
                zone_id=zone.pk, changes=changes, by=SET_UP, now=clock()
            )

        assert change(mfa_grace_minutes=20).grace_minutes == 20
        assert change(sl_t=2).grace_minutes == 20
        raised = change(sl_t=3)
        assert (raised.mfa_grace_minutes, raised.grace_minutes) == (None, 0)
        event = AuditEvent.objects.filter(kind=Kind.ZONE_CHANGED).latest("seq")
        assert json.loads(event.data)["mfa_grace_minutes"] == {
            "before": 20,
            "after": None,
        }
        with pytest.raises(InventoryRefusedError, match="SL-T 3"):
            change(mfa_grace_minutes=5)
        assert change(sl_t=1).grace_minutes == 10
