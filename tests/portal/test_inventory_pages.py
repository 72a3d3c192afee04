"""Assets, zones, conduits, host keys, credentials, and what to trust."""

import uuid

import pytest
from django.test import Client

from apps.inventory.file_rules import FileRules
from apps.inventory.models import Asset, Conduit, HostKey, Site, TargetAccount, Zone
from apps.portal.forms.inventory import AssetForm
from apps.vault import operations as vault
from apps.vault.models import AccountCredential, ServiceKeyPurpose
from apps.vault.queries import authority_of
from tests import factories
from tests.portal import plant_work
from tests.portal.doors import sign_in

pytestmark = pytest.mark.django_db

NOT_ADMINISTRATORS = ["engineer", "approver", "auditor"]


@pytest.fixture
def here() -> factories.Plant:
    return factories.plant()


@pytest.fixture
def administrator(here: factories.Plant) -> Client:
    return sign_in(here.administrator).client


def asset_fields(here: factories.Plant, **changes: object) -> dict[str, object]:
    return {
        "name": "hmi-new-01",
        "zone": str(here.cell.pk),
        "kind": "hmi",
        "address": "192.0.2.20",
        "port": 22,
        "on_expiry": "cut",
        "grace_seconds": 300,
        "crypto_profile": "modern",
        "session_limit": 0,
        **changes,
    }


def test_members_see_the_assets_of_their_sites_alone(here: factories.Plant) -> None:
    elsewhere = factories.plant()
    client = sign_in(here.engineer).client
    shown = client.get("/assets/").content.decode()
    assert here.asset.name in shown
    assert elsewhere.asset.name not in shown
    assert client.get(f"/assets/{here.asset.pk}/").status_code == 200
    of_others = client.get(f"/assets/{elsewhere.asset.pk}/")
    unknown = client.get(f"/assets/{uuid.uuid4()}/")
    assert of_others.status_code == unknown.status_code == 404
    assert of_others.content == unknown.content


def test_a_member_of_nothing_reads_why_the_list_is_empty() -> None:
    shown = sign_in(factories.person("engineer")).client.get("/assets/")
    assert "No assets yet" in shown.content.decode()


def test_assets_can_be_searched(here: factories.Plant) -> None:
    client = sign_in(here.engineer).client
    found = client.get(f"/assets/?q={here.asset.name}").content.decode()
    assert here.asset.name in found
    assert here.unreachable.name not in found
    assert "No asset matches" in client.get("/assets/?q=zzz").content.decode()


def test_an_asset_outside_every_conduit_says_so(here: factories.Plant) -> None:
    client = sign_in(here.engineer).client
    shown = client.get(f"/assets/{here.unreachable.pk}/").content.decode()
    assert "No conduit" in shown


@pytest.mark.parametrize("who", NOT_ADMINISTRATORS)
def test_only_administrators_change_anything(here: factories.Plant, who: str) -> None:
    """R17: an address or a host key decides where people are led."""
    client = sign_in(getattr(here, who)).client
    key = HostKey.objects.filter(asset=here.asset).get()
    for url in [
        "/assets/add/",
        f"/assets/{here.asset.pk}/change/",
        f"/accounts-on-assets/{here.account.pk}/credential/",
        "/zones/",
        "/zones/add/",
        f"/zones/{here.cell.pk}/change/",
        "/sites/add/",
        "/conduits/add/",
        f"/conduits/{here.conduit.pk}/change/",
    ]:
        assert client.get(url).status_code == 404, url
        if url != "/zones/":
            assert client.post(url, {}).status_code == 404, url
    for url in [
        f"/assets/{here.asset.pk}/accounts/add/",
        f"/assets/{here.asset.pk}/host-keys/pin/",
        f"/host-keys/{key.pk}/confirm/",
        f"/host-keys/{key.pk}/remove/",
        f"/conduits/{here.conduit.pk}/remove/",
        f"/sites/{here.site.pk}/authority/",
    ]:
        assert client.post(url, {}).status_code == 404, url
    key.refresh_from_db()
    assert key.removed_at is None
    assert Conduit.objects.filter(pk=here.conduit.pk).exists()


def test_what_changes_something_is_only_by_post(
    here: factories.Plant, administrator: Client
) -> None:
    key = HostKey.objects.filter(asset=here.asset).get()
    for url in [
        f"/assets/{here.asset.pk}/accounts/add/",
        f"/assets/{here.asset.pk}/host-keys/pin/",
        f"/host-keys/{key.pk}/confirm/",
        f"/host-keys/{key.pk}/remove/",
        f"/conduits/{here.conduit.pk}/remove/",
        f"/sites/{here.site.pk}/authority/",
    ]:
        assert administrator.get(url).status_code == 405, url


def test_an_asset_is_added_and_changed(
    here: factories.Plant, administrator: Client
) -> None:
    answer = administrator.post("/assets/add/", asset_fields(here))
    asset = Asset.objects.get(name="hmi-new-01")
    assert answer.headers["Location"] == f"/assets/{asset.pk}/"
    change = f"/assets/{asset.pk}/change/"
    assert 'value="192.0.2.20"' in administrator.get(change).content.decode()
    administrator.post(change, asset_fields(here, address="192.0.2.21", port=2022))
    asset.refresh_from_db()
    assert (asset.address, asset.port) == ("192.0.2.21", 2022)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "HMI 1"}, "small letters"),
        ({"port": 0}, "greater than or equal to 1"),
        ({"address": ""}, "required"),
        ({"zone": str(uuid.uuid4())}, "Select a valid choice"),
        ({"crypto_profile": "none"}, "Select a valid choice"),
    ],
)
def test_a_wrong_asset_is_explained(
    here: factories.Plant, administrator: Client, changes: dict[str, object], said: str
) -> None:
    answer = administrator.post("/assets/add/", asset_fields(here, **changes))
    assert answer.status_code == 422
    assert said in answer.content.decode()


def test_metadata_and_loopback_are_no_targets(
    here: factories.Plant, administrator: Client, settings
) -> None:
    """R26: the form says why such an address cannot be a target."""
    settings.ALLOW_LOCAL_TARGETS = False
    for address in ["169.254.169.254", "127.0.0.1", "::1"]:
        answer = administrator.post("/assets/add/", asset_fields(here, address=address))
        assert answer.status_code == 422
        assert "cannot be a target" in answer.content.decode()


def test_a_host_key_needs_two_people(here: factories.Plant) -> None:
    first, second = sign_in(here.administrator), sign_in(here.second_administrator)
    line = factories.ed25519_line()
    first.client.post(f"/assets/{here.asset.pk}/host-keys/pin/", {"key-text": line})
    key = HostKey.objects.get(asset=here.asset, line=line)
    confirm = f"/host-keys/{key.pk}/confirm/"
    own = first.client.post(confirm, follow=True).content.decode()
    assert "cannot confirm it as well" in own
    key.refresh_from_db()
    assert key.confirmed_by is None
    second.client.post(confirm)
    key.refresh_from_db()
    assert key.confirmed_by == here.second_administrator
    second.client.post(f"/host-keys/{key.pk}/remove/")
    key.refresh_from_db()
    assert key.removed_at is not None


def test_what_is_no_host_key_is_explained_where_it_was_pasted(
    here: factories.Plant, administrator: Client
) -> None:
    answer = administrator.post(
        f"/assets/{here.asset.pk}/host-keys/pin/", {"key-text": "ssh-ed25519 oops"}
    )
    assert answer.status_code == 422
    assert "copy the line again" in answer.content.decode()


def test_an_account_is_added(here: factories.Plant, administrator: Client) -> None:
    where = f"/assets/{here.asset.pk}/accounts/add/"
    given = {"account-name": "viewer", "account-credential_kind": "password"}
    assert administrator.post(where, given).status_code == 302
    assert TargetAccount.objects.filter(asset=here.asset, name="viewer").exists()
    again = administrator.post(where, given)
    assert again.status_code == 422
    assert TargetAccount.objects.filter(asset=here.asset, name="viewer").count() == 1


def test_an_account_may_be_asked_for_on_the_terminal(
    here: factories.Plant, administrator: Client
) -> None:
    where = f"/assets/{here.asset.pk}/accounts/add/"
    given = {"account-name": "console", "account-sign_in": "terminal"}
    refused = administrator.post(where, given | {"account-credential_kind": "key"})
    assert refused.status_code == 422
    assert "only a password can be typed" in refused.content.decode()
    done = administrator.post(where, given | {"account-credential_kind": "password"})
    assert done.status_code == 302
    account = TargetAccount.objects.get(asset=here.asset, name="console")
    assert account.sign_in == "terminal"
    page = administrator.get(f"/assets/{here.asset.pk}/").content.decode()
    assert "asked for by: the device" in page


def test_a_credential_is_written_and_never_shown(
    here: factories.Plant, administrator: Client
) -> None:
    """R12: what goes into the vault comes back on no page, not even on an error."""
    where = f"/accounts-on-assets/{here.account.pk}/credential/"
    answer = administrator.post(where, {"secret": "no-private-key-at-all"})
    assert answer.status_code == 422
    assert "no-private-key-at-all" not in answer.content.decode()
    _asset, account = factories.asset_with_account(
        "switch-7", here.cell, "admin", credential_kind="password"
    )
    where = f"/accounts-on-assets/{account.pk}/credential/"
    assert administrator.post(where, {"secret": ""}).status_code == 422
    stored = administrator.post(where, {"secret": "plant-side-secret"}, follow=True)
    assert "The vault holds the credential" in stored.content.decode()
    assert "plant-side-secret" not in stored.content.decode()
    assert AccountCredential.objects.filter(account=account).count() == 1
    assert "Nothing in the vault" not in stored.content.decode()


def test_an_account_that_signs_in_by_certificate_has_nothing_to_store(
    here: factories.Plant, administrator: Client
) -> None:
    _asset, account = factories.asset_with_account(
        "scada-7", here.cell, "historian", credential_kind="certificate"
    )
    where = f"/accounts-on-assets/{account.pk}/credential/"
    assert administrator.get(where).status_code == 404


def test_sites_zones_and_conduits_are_drawn(administrator: Client) -> None:
    administrator.post(
        "/sites/add/", {"name": "South", "slug": "south", "time_zone": "UTC"}
    )
    site = Site.objects.get(slug="south")
    for name, level, gateway in [("DMZ", "3.5", "on"), ("Cell", "1", "")]:
        administrator.post(
            "/zones/add/",
            {
                "site": str(site.pk),
                "name": name,
                "purdue_level": level,
                "sl_t": 2,
                "hosts_gateway": gateway,
            },
        )
    dmz, cell = (
        Zone.objects.get(site=site, name="DMZ"),
        Zone.objects.get(site=site, name="Cell"),
    )
    administrator.post(
        "/conduits/add/",
        {
            "name": "S-1",
            "from_zone": str(dmz.pk),
            "to_zone": str(cell.pk),
            "services": ["shell"],
        },
    )
    conduit = Conduit.objects.get(name="S-1")
    administrator.post(f"/conduits/{conduit.pk}/change/", {"services": ["exec"]})
    conduit.refresh_from_db()
    assert conduit.services == ["exec"]
    shown = administrator.get("/zones/").content.decode()
    assert "S-1" in shown
    administrator.post(f"/conduits/{conduit.pk}/remove/")
    assert not Conduit.objects.filter(name="S-1").exists()


def test_a_conduit_names_the_destinations_of_forwards(
    here: factories.Plant, administrator: Client, settings
) -> None:
    settings.ALLOW_LOCAL_TARGETS = False
    conduit = Conduit.objects.get(to_zone=here.cell)
    where = f"/conduits/{conduit.pk}/change/"
    given = {"services": ["shell"], "forwards": "PLC-7:502\n\n 10.20.4.17:44818 "}
    assert administrator.post(where, given).status_code == 302
    conduit.refresh_from_db()
    assert conduit.services == [
        "forward:10.20.4.17:44818",
        "forward:plc-7:502",
        "shell",
    ]
    shown = administrator.get(where).content.decode()
    assert "10.20.4.17:44818\nplc-7:502</textarea>" in shown

    assert not conduit.omits_forward_bytes
    given["omits_forward_bytes"] = "on"
    assert administrator.post(where, given).status_code == 302
    conduit.refresh_from_db()
    assert conduit.omits_forward_bytes
    shown = administrator.get("/zones/").content.decode()
    assert "what forwards carry is not recorded" in shown

    for wrong, why in [
        ("plc-7", "write host:port"),
        ("[::]:502", "unspecified"),
        ("plc-7:99999", "1 to 65535"),
    ]:
        answer = administrator.post(where, {"services": ["shell"], "forwards": wrong})
        assert answer.status_code == 422
        assert why in answer.content.decode()
    answer = administrator.post(where, {"forwards": ""})
    assert "Choose at least one" in answer.content.decode()
    conduit.refresh_from_db()
    assert conduit.services == [
        "forward:10.20.4.17:44818",
        "forward:plc-7:502",
        "shell",
    ]


def test_a_zone_is_changed_and_cannot_lie_inside_itself(
    here: factories.Plant, administrator: Client
) -> None:
    where = f"/zones/{here.cell.pk}/change/"
    given = {"name": "Cell 3b", "purdue_level": "1", "sl_t": 4, "parent": ""}
    assert administrator.post(where, given).status_code == 302
    here.cell.refresh_from_db()
    assert (here.cell.name, here.cell.sl_t) == ("Cell 3b", 4)
    answer = administrator.post(where, {**given, "parent": str(here.cell.pk)})
    assert answer.status_code == 422
    assert administrator.post(where, {**given, "sl_t": 9}).status_code == 422


def test_a_conduit_does_not_leave_its_site(
    here: factories.Plant, administrator: Client
) -> None:
    elsewhere = factories.plant()
    answer = administrator.post(
        "/conduits/add/",
        {
            "name": "X",
            "from_zone": str(here.dmz.pk),
            "to_zone": str(elsewhere.cell.pk),
        },
    )
    assert answer.status_code == 422
    assert "same site" in answer.content.decode()


def test_the_gateway_page_tells_what_to_trust(here: factories.Plant) -> None:
    plant_work.gateway()
    now = factories.clock()
    key = vault.service_key(ServiceKeyPurpose.GATEWAY_HOST, now=now)
    authority = vault.make_authority(site=here.site, by=factories.SET_UP, now=now)
    vault.service_key(ServiceKeyPurpose.JUMP_AUTHORITY, now=now)
    shown = sign_in(here.engineer).client.get("/gateway/").content.decode()
    slug, name = here.site.slug, here.asset.name
    assert "@cert-authority " in shown
    assert f"*.{slug}" in shown
    assert name in shown
    assert f"ProxyJump {here.engineer.username}@127.0.0.1:2222" in shown
    assert f"[127.0.0.1]:2222 {key.public_line}".replace("+", "&#43;") in shown.replace(
        "+", "&#43;"
    )
    assert key.fingerprint in shown
    assert authority.public_line in shown
    assert "PRIVATE" not in shown


def test_an_authority_of_another_site_is_not_shown(here: factories.Plant) -> None:
    elsewhere = factories.plant()
    vault.make_authority(
        site=elsewhere.site, by=factories.SET_UP, now=factories.clock()
    )
    shown = sign_in(here.engineer).client.get("/gateway/").content.decode()
    authority = authority_of(elsewhere.site)
    assert authority is not None
    assert authority.public_line not in shown
    assert "Not running" in shown


def test_an_administrator_makes_the_authority_once(
    here: factories.Plant, administrator: Client
) -> None:
    where = f"/sites/{here.site.pk}/authority/"
    administrator.post(where)
    made = authority_of(here.site)
    assert made is not None
    again = administrator.post(where, follow=True).content.decode()
    assert "has an authority already" in again
    assert authority_of(here.site) == made


def test_rules_for_files_are_set_and_shown(
    here: factories.Plant, administrator: Client
) -> None:
    rules = {
        "file_roots": "/srv/projects/\n\n/var/export",
        "file_endings_allowed": "ZIP, .tar.gz",
        "file_endings_denied": "*.exe",
        "file_limit_mb": 50,
        "files_limit_mb": 200,
    }
    administrator.post("/assets/add/", asset_fields(here, **rules))
    asset = Asset.objects.get(name="hmi-new-01")
    assert asset.file_rules == FileRules(
        roots=("/srv/projects", "/var/export"),
        allowed_extensions=frozenset({"zip", "tar.gz"}),
        denied_extensions=frozenset({"exe"}),
        file_bytes=50_000_000,
        session_bytes=200_000_000,
    )
    shown = administrator.get(f"/assets/{asset.pk}/").content.decode()
    for text in ("/srv/projects", "only tar.gz zip", "no exe", "50 MB", "200 MB"):
        assert text in shown
    change = f"/assets/{asset.pk}/change/"
    for name, text, why in (
        ("file_roots", "srv/projects", "is no folder"),
        ("file_roots", "/srv/../etc", "is no folder"),
        ("file_endings_denied", "e/xe", "is no ending"),
    ):
        answer = administrator.post(change, asset_fields(here, **{name: text}))
        assert why in answer.content.decode()
    asset.refresh_from_db()
    assert asset.file_roots == "/srv/projects\n/var/export"


def test_idle_limits_of_an_asset_are_set_and_shown(
    here: factories.Plant, administrator: Client
) -> None:
    limits = {"idle_lock_minutes": 7, "idle_end_minutes": 90}
    administrator.post("/assets/add/", asset_fields(here, **limits))
    asset = Asset.objects.get(name="hmi-new-01")
    page = f"/assets/{asset.pk}/"
    shown = administrator.get(page).content.decode()
    assert "locks after 7 min" in shown
    assert "ends after 90 min" in shown
    administrator.post(f"{page}change/", asset_fields(here, idle_lock_minutes=0))
    asset.refresh_from_db()
    assert (asset.idle_lock_minutes, asset.idle_end_minutes) == (0, None)
    assert "does not lock" in administrator.get(page).content.decode()
    answer = administrator.post(
        f"{page}change/", asset_fields(here, idle_end_minutes=1441)
    )
    assert answer.status_code == 422


def test_every_field_of_an_asset_stands_under_a_heading() -> None:
    form = AssetForm()
    shown = [field.name for _title, fields in form.groups for field in fields]
    assert sorted(shown) == sorted(form.fields)
