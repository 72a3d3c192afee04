"""Fills a new, empty data directory for a benchmark, by the product's own operations.

`python -m benchmarks.seed ORDER ANSWER` reads what to make from the JSON file ORDER
(`assets`: `name`, `host_key` and `port` of each; `login`, `principal`, `services`,
`people`: how many, `cut`: how many of them get a grant for the first asset only) and
writes ANSWER (mode 0600, JSON): `authority` (public line) and `people` (`username`,
base32 `totp_secret`, `ssh_private_key`: text). Everybody else may use every asset.
Needs SLUICE_DATA_DIR; run it before the product.
"""

import base64
import binascii
import datetime as dt
import json
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import django

django.setup()

# These need Django to be set up.
from django.core.management import call_command  # noqa: E402

from apps.access import operations as access  # noqa: E402
from apps.access.models import AccessRequest, Grant  # noqa: E402
from apps.accounts import operations as accounts  # noqa: E402
from apps.accounts.models import User  # noqa: E402
from apps.audit.operations import Party  # noqa: E402
from apps.inventory import operations as inventory  # noqa: E402
from apps.inventory.models import Site, TargetAccount, Zone  # noqa: E402
from apps.vault import operations as vault  # noqa: E402
from apps.vault import ssh_keys  # noqa: E402
from jumpserver.demo.one_time_codes import enrolment_code  # noqa: E402
from jumpserver.private_files import write_private_json  # noqa: E402

GRANT_MINUTES = 240

GRACE_MINUTES = 60
"""A full sign-in is enough for the whole run: no person's time is measured."""

_BY = Party("system", "system:benchmarks", "benchmarks")
_SOURCE = "127.0.0.1"


def seed(order: dict[str, Any], *, now: dt.datetime) -> dict[str, Any]:
    """Make the site, the target and the people; return what ANSWER says."""
    site = inventory.add_site(
        slug="bench", name="Benchmark", time_zone="UTC", by=_BY, now=now
    )
    authority = vault.make_authority(site=site, by=_BY, now=now)
    accounts_there = _add_targets(site, order, now=now)
    approver = _add_person("approver", "approver", site, now=now)
    people = []
    for number in range(order["people"]):
        engineer = _add_person(f"engineer{number}", "engineer", site, now=now)
        people.append(_enrol(engineer, now=now))
        # The last ones are those whose sessions are cut: they get a grant later.
        cut = number >= order["people"] - order["cut"]
        for account in accounts_there[: 1 if cut else None]:
            grant(
                engineer,
                approver,
                account,
                minutes=GRANT_MINUTES,
                services=order["services"],
                now=now,
            )
    return {"authority": authority.public_line, "people": people}


def _add_targets(
    site: Site, order: dict[str, Any], *, now: dt.datetime
) -> list[TargetAccount]:
    dmz = inventory.add_zone(
        site=site,
        name="DMZ",
        purdue_level="3.5",
        sl_t=3,
        hosts_gateway=True,
        by=_BY,
        now=now,
    )
    cell = inventory.add_zone(
        site=site,
        name="Cell",
        purdue_level="2",
        sl_t=2,
        mfa_grace_minutes=GRACE_MINUTES,
        by=_BY,
        now=now,
    )
    inventory.add_conduit(
        name="C-01",
        from_zone=dmz,
        to_zone=cell,
        services=order["services"],
        by=_BY,
        now=now,
    )
    pinning, confirming = (
        _add_person(name, "administrator", site, now=now)
        for name in ("administrator", "administrator2")
    )
    return [
        _add_target(cell, asset, order, pinning, confirming, now=now)
        for asset in order["assets"]
    ]


def _add_target(
    cell: Zone,
    described: dict[str, Any],
    order: dict[str, Any],
    pinning: User,
    confirming: User,
    *,
    now: dt.datetime,
) -> TargetAccount:
    asset = inventory.add_asset(
        fields={
            "name": described["name"],
            "zone": cell,
            "kind": "scada",
            "address": "127.0.0.1",
            "port": described["port"],
        },
        by=_BY,
        now=now,
    )
    account = inventory.add_account(
        asset=asset,
        name=order["principal"],
        login=order["login"],
        credential_kind="certificate",
        by=_BY,
        now=now,
    )
    key = inventory.pin_host_key(
        asset=asset,
        text=described["host_key"],
        by=pinning,
        now=now,
    )
    if not inventory.confirm_host_key(key_id=key.pk, by=confirming, now=now):
        raise RuntimeError("the target's host key could not be confirmed")
    return account


def _add_person(username: str, role: str, site: Site, *, now: dt.datetime) -> User:
    user = accounts.add_person(
        username=username,
        full_name=f"Benchmark {username}",
        # Letters may by chance be too much like the name.
        password=f"{secrets.randbelow(10**30):030d}!",
        roles=frozenset({role}),
        by=_BY,
        now=now,
    )
    inventory.add_member(site=site, user=user, by=_BY, now=now)
    return user


def _enrol(user: User, *, now: dt.datetime) -> dict[str, str]:
    """Give `user` a key and a one-time-code device, whose code of now stays unused."""
    key = ssh_keys.generate_key()
    accounts.add_key(
        user=user, name="laptop", text=ssh_keys.public_line(key), by=_BY, now=now
    )
    secret = binascii.unhexlify(accounts.start_totp_enrolment(user=user).key)
    code = enrolment_code(secret, dt.datetime.now(dt.UTC).timestamp())
    accounts.confirm_totp_enrolment(user=user, code=code, now=now)
    return {
        "username": user.username,
        "totp_secret": base64.b32encode(secret).decode(),
        "ssh_private_key": ssh_keys.private_text(key).reveal(),
    }


def grant(
    engineer: User,
    approver: User,
    account: TargetAccount,
    *,
    minutes: int,
    services: Sequence[str],
    now: dt.datetime,
) -> Grant:
    """Ask for access and approve it, as two people do in the portal."""
    asked = access.submit_request(
        requester=engineer,
        asset_id=account.asset_id,
        account_id=account.pk,
        services=list(services),
        minutes=minutes,
        reason="Benchmark of the gateway",
        work_order="WO-1",
        source_address=_SOURCE,
        now=now,
    )
    if not isinstance(asked, AccessRequest):
        raise RuntimeError(f"the request was refused: {asked}")
    granted = access.approve_request(
        request_id=asked.pk,
        version=asked.version,
        approver=approver,
        minutes=minutes,
        comment="",
        source_address=_SOURCE,
        now=now,
    )
    if not isinstance(granted, Grant):
        raise RuntimeError(f"the request was not approved: {granted}")
    return granted


def main(order_file: Path, answer_file: Path) -> None:
    """Migrate, seed, and write ANSWER."""
    call_command("migrate", verbosity=0, interactive=False)
    order = json.loads(order_file.read_bytes())
    write_private_json(answer_file, seed(order, now=dt.datetime.now(dt.UTC)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
