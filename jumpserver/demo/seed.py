"""Fill an empty database with the demo, through the product's own operations only.

Passwords, one-time-code secrets and keys are random at each seeding. What has been
seeded is only fitted to the plant afterwards: its ports and the authority its SCADA
server trusts. The caller runs this while nothing else uses the database.
"""

import base64
import binascii
import datetime as dt
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.db import transaction

from apps.accounts import operations as accounts
from apps.accounts.models import User
from apps.audit.operations import Party
from apps.inventory import operations as inventory
from apps.inventory.models import Asset, Site, Zone
from apps.vault import operations as vault
from apps.vault.models import CertificateAuthority
from apps.vault.secret_values import Secret
from jumpserver.demo.one_time_codes import enrolment_code
from jumpserver.demo.people_file import (
    PersonCard,
    make_password,
    people_path,
    write_people,
)
from jumpserver.demo.plant_files import (
    load_or_create_key,
    make_private_directory,
    public_line,
    write_private,
)
from jumpserver.demo.waterworks import (
    ASSETS,
    NORTH,
    PEOPLE,
    SITES,
    TIME_ZONE,
    DemoAsset,
    DemoPerson,
    DemoSite,
)

_BY = Party("system", "system:demo", "demo")
PIN_BY, CONFIRM_BY = "administrator", "administrator2"


class SeedError(RuntimeError):
    """The demo's data directory does not fit together; the message says what to do."""


def seed(*, data_directory: Path, plant: dict[str, Any], now: dt.datetime) -> bool:
    """Seed the demo, or fit what is there to `plant` (the content of its state.json).

    Returns True when it seeded, False when the demo was there already.
    Raises: SeedError when the people's file is gone or the database is not the demo's.
    """
    if Site.objects.filter(slug=NORTH).exists():
        if not people_path(data_directory).exists():
            raise SeedError(
                f"{people_path(data_directory)} is gone, and with it the demo's "
                "passwords: start with --reset to seed anew."
            )
        _fit(plant, now=now)
        return False
    if User.objects.exists():
        raise SeedError(
            f"The database in {data_directory} is not the demo's: name another data "
            "directory."
        )
    with transaction.atomic():
        people = _seed_people(data_directory, now=now)
        _Seeding(plant=plant, people=people, now=now).run()
    _trust_authority(plant)
    return True


def _seed_people(data_directory: Path, *, now: dt.datetime) -> dict[str, User]:
    cards, users = [], {}
    for person in PEOPLE:
        card, users[person.username] = _add_person(person, data_directory, now=now)
        cards.append(card)
    # Before the commit: people who cannot sign in would be worse than a stale file.
    write_people(data_directory, cards)
    return users


def _add_person(
    person: DemoPerson, data_directory: Path, *, now: dt.datetime
) -> tuple[PersonCard, User]:
    password = make_password()
    user = accounts.add_person(
        username=person.username,
        full_name=person.full_name,
        organisation=person.organisation,
        password=password,
        roles=frozenset({person.role}),
        by=_BY,
        now=now,
    )
    secret = binascii.unhexlify(accounts.start_totp_enrolment(user=user).key)
    # The device looks at the clock itself, so this code is of that clock, too.
    code = enrolment_code(secret, dt.datetime.now(dt.UTC).timestamp())
    accounts.confirm_totp_enrolment(user=user, code=code, now=now)
    card = PersonCard(
        username=person.username,
        password=password,
        totp_secret=base64.b32encode(secret).decode(),
        role=person.role,
        ssh_private_key=_add_key(user, data_directory, now=now)
        if user.is_engineer
        else None,
    )
    return card, user


def _add_key(user: User, data_directory: Path, *, now: dt.datetime) -> str:
    """Make the person's key pair as they would, and register the public half."""
    make_private_directory(data_directory / "people")
    path = make_private_directory(data_directory / "people" / user.username)
    path = path / "id_ed25519"
    key = load_or_create_key(path, "ssh-ed25519", comment=user.username)
    line = public_line(key)
    write_private(path.with_name(f"{path.name}.pub"), f"{line}\n".encode())
    accounts.add_key(user=user, name="laptop", text=line, by=_BY, now=now)
    return str(path)


@dataclass(kw_only=True)
class _Seeding:
    """One seeding: sites first, then the plant's assets in them."""

    plant: dict[str, Any]
    people: dict[str, User]
    now: dt.datetime
    zones: dict[tuple[str, str], Zone] = field(default_factory=dict)

    def run(self) -> None:
        for demo_site in SITES:
            site = self._add_site(demo_site)
            for person in PEOPLE:
                if person.site == demo_site.slug:
                    inventory.add_member(
                        site=site,
                        user=self.people[person.username],
                        by=_BY,
                        now=self.now,
                    )
            vault.make_authority(site=site, by=_BY, now=self.now)
        for demo_asset in ASSETS:
            self._add_asset(demo_asset, self.plant["assets"][demo_asset.name])

    def _add_site(self, demo: DemoSite) -> Site:
        site = inventory.add_site(
            slug=demo.slug, name=demo.name, time_zone=TIME_ZONE, by=_BY, now=self.now
        )
        for zone in demo.zones:
            self.zones[demo.slug, zone.name] = inventory.add_zone(
                site=site,
                name=zone.name,
                purdue_level=zone.level,
                sl_t=zone.sl_t,
                hosts_gateway=zone.hosts_gateway,
                by=_BY,
                now=self.now,
            )
        for conduit in demo.conduits:
            inventory.add_conduit(
                name=conduit.name,
                from_zone=self.zones[demo.slug, conduit.from_zone],
                to_zone=self.zones[demo.slug, conduit.to_zone],
                services=conduit.services,
                by=_BY,
                now=self.now,
            )
        return site

    def _add_asset(self, demo: DemoAsset, target: dict[str, Any]) -> None:
        asset = inventory.add_asset(
            fields={
                "name": demo.name,
                "zone": self.zones[NORTH, demo.zone],
                "kind": demo.kind,
                "description": demo.description,
                "vendor": demo.vendor,
                "model": demo.model,
                "address": target["address"],
                "port": target["port"],
                "crypto_profile": target["crypto_profile"],
            },
            by=_BY,
            now=self.now,
        )
        (login,) = target["accounts"]
        account = inventory.add_account(
            asset=asset,
            name=demo.account,
            login=login["login"],
            credential_kind=login["credential_kind"],
            by=_BY,
            now=self.now,
        )
        if login["secret_file"] is not None:
            vault.store_credential(
                account=account,
                kind=login["credential_kind"],
                secret=_read_secret(login),
                by=self.people[PIN_BY].party,
                now=self.now,
            )
        self._pin(asset, target["host_key"])

    def _pin(self, asset: Asset, line: str) -> None:
        """Pin the host key; it counts when a second person has confirmed it."""
        key = inventory.pin_host_key(
            asset=asset, text=line, by=self.people[PIN_BY], now=self.now
        )
        inventory.confirm_host_key(
            key_id=key.pk, by=self.people[CONFIRM_BY], now=self.now
        )


def _read_secret(login: dict[str, Any]) -> Secret:
    text = Path(login["secret_file"]).read_text(encoding="utf-8")
    # A password has no line end; a private key needs its own.
    is_password = login["credential_kind"] == "password"
    return Secret(text.rstrip("\n") if is_password else text)


def _fit(plant: dict[str, Any], *, now: dt.datetime) -> None:
    """Follow the plant to the ports it has now."""
    for asset in Asset.objects.filter(name__in=plant["assets"]):
        target = plant["assets"][asset.name]
        if (asset.address, asset.port) != (target["address"], target["port"]):
            inventory.change_asset(
                asset_id=asset.pk,
                changes={"address": target["address"], "port": target["port"]},
                by=_BY,
                now=now,
            )
    _trust_authority(plant)


def _trust_authority(plant: dict[str, Any]) -> None:
    """Have the targets that take certificates trust the site's authority in force."""
    line = CertificateAuthority.objects.values_list("public_line", flat=True).get(
        site__slug=NORTH, retired_at=None
    )
    for target in plant["assets"].values():
        trusted = target.get("user_ca_file")
        if trusted is not None:
            write_private(Path(trusted), f"{line}\n".encode())
