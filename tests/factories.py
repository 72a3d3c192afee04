"""Ready-made people, sites and grants for tests, made by the product's own operations.

So no test state exists that the product could not reach. Times are real by default;
pass `now` where a test moves the clock.
"""

import base64
import datetime as dt
import itertools
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from apps.access import operations as access
from apps.access.models import AccessRequest, Grant
from apps.accounts import operations as accounts
from apps.accounts.models import User
from apps.audit.operations import Party
from apps.inventory import operations as inventory
from apps.inventory.models import Asset, Conduit, Site, TargetAccount, Zone

SET_UP = Party("system", "system:tests", "tests")
_numbers = itertools.count(1)


def clock() -> dt.datetime:
    """Return the time now, in UTC."""
    return dt.datetime.now(dt.UTC)


def password() -> str:
    """Return a new strong password.

    Of digits: letters make, once in ten thousand times, something like a name.
    """
    return f"{secrets.randbelow(10**30):030d}!"


def person(
    *roles: str,
    site: Site | None = None,
    username: str = "",
    secret: str = "",
    now: dt.datetime | None = None,
) -> User:
    """Return a new person with the roles named, member of `site` when one is given."""
    now = now or clock()
    username = username or f"{(roles or ('nobody',))[0]}{next(_numbers)}"
    user = accounts.add_person(
        username=username,
        full_name=f"Person {username}",
        password=secret or password(),
        roles=frozenset(roles),
        by=SET_UP,
        now=now,
    )
    if site is not None:
        inventory.add_member(site=site, user=user, by=SET_UP, now=now)
    return user


def ed25519_line(comment: str = "") -> str:
    """Return a well-formed public key line; nobody holds its private half."""
    kind = b"ssh-ed25519"
    blob = (
        len(kind).to_bytes(4, "big")
        + kind
        + (32).to_bytes(4, "big")
        + secrets.token_bytes(32)
    )
    return f"ssh-ed25519 {base64.b64encode(blob).decode()} {comment}".strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plant:
    """A small site: a DMZ with the gateway, a cell with a conduit, a bench without."""

    site: Site
    dmz: Zone
    cell: Zone
    bench: Zone
    conduit: Conduit
    asset: Asset
    account: TargetAccount
    unreachable: Asset
    unreachable_account: TargetAccount
    engineer: User
    second_engineer: User
    approver: User
    second_approver: User
    auditor: User
    administrator: User
    second_administrator: User


def plant(now: dt.datetime | None = None) -> Plant:
    """Return a new site with its people, an asset, and one outside every conduit."""
    now = now or clock()
    number = next(_numbers)
    site = inventory.add_site(
        slug=f"site-{number}",
        name=f"Site {number}",
        time_zone="Europe/Amsterdam",
        by=SET_UP,
        now=now,
    )
    dmz = inventory.add_zone(
        site=site,
        name="DMZ",
        purdue_level="3.5",
        sl_t=3,
        hosts_gateway=True,
        by=SET_UP,
        now=now,
    )
    cell = inventory.add_zone(
        site=site, name="Cell 3", purdue_level="2", sl_t=3, by=SET_UP, now=now
    )
    bench = inventory.add_zone(
        site=site, name="Lab bench", purdue_level="1", sl_t=1, by=SET_UP, now=now
    )
    conduit = inventory.add_conduit(
        name=f"C-{number}",
        from_zone=dmz,
        to_zone=cell,
        services=["shell", "exec"],
        by=SET_UP,
        now=now,
    )
    asset, account = asset_with_account(f"hmi-{number}", cell, "operator", now=now)
    unreachable, unreachable_account = asset_with_account(
        f"bench-{number}", bench, "lab", now=now
    )
    administrator = person("administrator", site=site, now=now)
    second_administrator = person("administrator", site=site, now=now)
    for each in (asset, unreachable):
        pin(each, administrator, second_administrator, now=now)
    return Plant(
        site=site,
        dmz=dmz,
        cell=cell,
        bench=bench,
        conduit=conduit,
        asset=asset,
        account=account,
        unreachable=unreachable,
        unreachable_account=unreachable_account,
        engineer=person("engineer", site=site, now=now),
        second_engineer=person("engineer", site=site, now=now),
        approver=person("approver", site=site, now=now),
        second_approver=person("approver", site=site, now=now),
        auditor=person("auditor", site=site, now=now),
        administrator=administrator,
        second_administrator=second_administrator,
    )


def asset_with_account(
    name: str,
    zone: Zone,
    login: str,
    *,
    now: dt.datetime | None = None,
    port: int = 22,
    credential_kind: str = "key",
    **fields: object,
) -> tuple[Asset, TargetAccount]:
    """Return a new asset on loopback with one account."""
    now = now or clock()
    asset = inventory.add_asset(
        fields={
            "name": name,
            "zone": zone,
            "kind": "hmi",
            "address": "127.0.0.1",
            "port": port,
            **fields,
        },
        by=SET_UP,
        now=now,
    )
    account = inventory.add_account(
        asset=asset, name=login, credential_kind=credential_kind, by=SET_UP, now=now
    )
    return asset, account


def pin(
    asset: Asset,
    by: User,
    confirmed_by: User,
    *,
    line: str = "",
    now: dt.datetime | None = None,
) -> None:
    """Pin a host key of `asset` and have a second person confirm it."""
    now = now or clock()
    key = inventory.pin_host_key(
        asset=asset, text=line or ed25519_line(), by=by, now=now
    )
    assert inventory.confirm_host_key(key_id=key.pk, by=confirmed_by, now=now)


def request(
    here: Plant,
    *,
    requester: User | None = None,
    minutes: int = 30,
    now: dt.datetime | None = None,
    account: TargetAccount | None = None,
    services: Sequence[str] = ("shell", "exec"),
) -> AccessRequest:
    """Return a pending request for the plant's asset."""
    account = account or here.account
    made = access.submit_request(
        requester=requester or here.engineer,
        asset_id=account.asset_id,
        account_id=account.pk,
        services=list(services),
        minutes=minutes,
        reason="Alarm list cleanup",
        work_order="WO-20417",
        source_address="192.0.2.7",
        now=now or clock(),
    )
    assert isinstance(made, AccessRequest), made
    return made


def grant(
    here: Plant,
    *,
    person: User | None = None,
    minutes: int = 30,
    now: dt.datetime | None = None,
    account: TargetAccount | None = None,
    services: Sequence[str] = ("shell", "exec"),
) -> Grant:
    """Return an active grant, asked for and approved as the product does it."""
    now = now or clock()
    asked = request(
        here,
        requester=person,
        minutes=minutes,
        now=now,
        account=account,
        services=services,
    )
    made = access.approve_request(
        request_id=asked.pk,
        version=asked.version,
        approver=here.approver,
        minutes=minutes,
        comment="",
        source_address="192.0.2.8",
        now=now,
    )
    assert isinstance(made, Grant), made
    return made
