"""R15: every way in asks the same question, and gets the same answer.

Each condition is broken alone; connecting with ssh, opening a browser terminal (its
ticket is exchanged for this decision) and the running session's next check refuse.
"""

from collections.abc import Callable

import pytest

from apps.access import authorization, queries
from apps.access import operations as access
from apps.access.models import Grant
from apps.accounts import operations as accounts
from apps.inventory import operations as inventory
from apps.inventory.models import HostKey
from apps.sessions import queries as session_queries
from tests import factories
from tests.portal import plant_work

pytestmark = [pytest.mark.django_db, pytest.mark.both_databases]

Break = Callable[[factories.Plant, Grant], object]


def _roles(here: factories.Plant, grant: Grant) -> object:
    return accounts.change_person(
        user_id=grant.person_id,
        full_name="Same Person",
        organisation="",
        email="",
        roles=frozenset({"auditor"}),
        by=here.administrator,
        now=factories.clock(),
    )


def _host_keys(here: factories.Plant, grant: Grant) -> object:
    for key in HostKey.objects.filter(asset=grant.asset):
        inventory.remove_host_key(
            key_id=key.pk, by=here.administrator.party, now=factories.clock()
        )
    return None


BREAKS: dict[str, Break] = {
    "revoked": lambda here, grant: access.revoke_grant(
        grant_id=grant.pk, by=here.approver, reason="no", now=factories.clock()
    ),
    "given back": lambda here, grant: access.finish_grant(
        grant_id=grant.pk, by=grant.person, now=factories.clock()
    ),
    "person disabled": lambda here, grant: accounts.disable_person(
        user_id=grant.person_id, by=here.administrator, now=factories.clock()
    ),
    "no engineer any more": _roles,
    "left the site": lambda here, grant: inventory.remove_member(
        site=here.site, user=grant.person, by=factories.SET_UP, now=factories.clock()
    ),
    "conduit removed": lambda here, grant: inventory.remove_conduit(
        conduit_id=here.conduit.pk, by=factories.SET_UP, now=factories.clock()
    ),
    "asset moved to a zone without conduit": lambda here, grant: inventory.change_asset(
        asset_id=grant.asset_id,
        changes={"zone": here.bench},
        by=factories.SET_UP,
        now=factories.clock(),
    ),
    "host key gone": _host_keys,
}


def ways_in(here: factories.Plant, grant: Grant) -> dict[str, object]:
    """Return what each way answers; falsy is a refusal."""
    user, now = grant.person, factories.clock()
    user.refresh_from_db()
    source = {"source_address": "192.0.2.7", "now": now}
    return {
        "ssh": authorization.authorize_connection(
            user=user, asset_name=grant.asset.name, account_name=None, door="ssh",
            **source,  # type: ignore[arg-type]
        ),
        "ssh, account named": authorization.authorize_connection(
            user=user, asset_name=grant.asset.name, account_name=grant.account.name,
            door="ssh", **source,  # type: ignore[arg-type]
        ),
        "browser": authorization.authorize_grant(
            user=user, grant_id=grant.pk, door="browser", **source  # type: ignore[arg-type]
        ),
        "next check": queries.standing([grant.pk], now=now)[grant.pk],
    }  # fmt: skip


def test_all_ways_are_open_to_begin_with() -> None:
    here = factories.plant()
    grant = factories.grant(here)
    assert all(ways_in(here, grant).values())


@pytest.mark.parametrize("name", BREAKS)
def test_each_condition_closes_every_way(name: str) -> None:
    here = factories.plant()
    grant = factories.grant(here)
    node = plant_work.gateway()
    live = plant_work.live_session(grant, node)
    BREAKS[name](here, grant)
    grant.refresh_from_db()
    found = ways_in(here, grant)
    assert {way for way, answer in found.items() if answer} == set()
    (verdict,) = session_queries.verdicts(gateway_id=node.pk, now=factories.clock())
    assert verdict.session_id == live.pk
    assert verdict.message
