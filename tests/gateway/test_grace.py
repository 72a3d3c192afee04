"""The grace after a full sign-in, through the front door with stock clients."""

import json
from contextlib import suppress

import asyncssh
import pytest

from apps.access import operations as access
from apps.accounts import operations as accounts
from apps.accounts import ssh_sign_in
from apps.accounts.models import SignInGrace
from apps.accounts.queries import keys_of
from apps.audit.kinds import Kind
from apps.audit.models import AuditEvent
from apps.inventory import operations as inventory
from tests import factories
from tests.factories import SET_UP, clock
from tests.gateway.conftest import CodeTyper, enrol, reachable


@pytest.fixture
def here(here):
    """The plant's cell with a security level that leaves room for a grace."""
    set_zone(here.plant.cell, sl_t=2)
    return here


def set_zone(zone, **changes):
    inventory.change_zone(zone_id=zone.pk, changes=changes, by=SET_UP, now=clock())


async def prompts(client, user_string=None, **options):
    """Sign in, and return what was asked for."""
    connection = await client.connect(user_string, **options)
    asked = connection.get_owner().prompts
    # The sign-in is written down before a channel is answered, whatever the answer.
    with suppress(asyncssh.ChannelOpenError, asyncssh.DisconnectError):
        await connection.run("exit 0")
    connection.abort()
    await connection.wait_closed()
    return asked


def _factors():
    events = AuditEvent.objects.filter(kind=Kind.SIGNED_IN).order_by("seq")
    return [json.loads(event.data)["factors"] for event in events]


ASKED = ["One-time code: "]
FULL, GRACE = ["public_key", "one_time_code"], ["public_key", "grace"]


class Remover(CodeTyper):
    """Takes so long to type the code that the key is removed meanwhile."""

    def __init__(self, client, code):
        super().__init__(code)
        self._client = client

    async def kbdint_challenge_received(  # type: ignore[override]
        self, name, instructions, lang, prompts
    ):
        user = self._client.here.engineer.user

        def remove():
            for key in keys_of(user):
                accounts.remove_key(key_id=key.pk, user=user, now=clock())

        await self._client.ask(remove)
        return super().kbdint_challenge_received(name, instructions, lang, prompts)


async def test_a_key_that_is_removed_while_the_code_is_typed_opens_nothing(client):
    await client.ask(client.here.grant)
    code = client.here.engineer.code()
    connection = await client.connect(
        client_factory=lambda: Remover(client, code),
    )
    with pytest.raises((asyncssh.ChannelOpenError, asyncssh.DisconnectError)) as why:
        await connection.run("exit 0")
    assert "no access" in why.value.reason or "no longer counts" in why.value.reason
    assert client.here.target.connections == 0


async def test_the_stock_client_is_asked_once_and_then_not(client, ssh_binary):
    await client.ask(client.here.grant)
    said = []
    for _ in range(3):
        result = await client.run_openssh("stdout in", options=["-v"])
        assert result.stdout == b"in\n"
        said.append(result.stderr.decode())
    asked = [
        "Next authentication method: keyboard-interactive" in text for text in said
    ]
    assert asked == [True, False, False]
    assert "Authenticated to 127.0.0.1" in said[1]
    assert 'using "publickey"' in said[1]
    assert await client.ask(_factors) == [FULL, GRACE, GRACE]


async def test_in_batch_mode_only_the_grace_lets_in(client, ssh_binary):
    """What scp, rsync and Ansible need: nobody is there to type a code."""
    await client.ask(client.here.grant)
    batch = ["-oBatchMode=yes", "-oPreferredAuthentications=publickey"]
    refused = await client.run_openssh("stdout in", options=batch)
    assert refused.returncode == 255
    await client.run_openssh("exit 0")
    allowed = await client.run_openssh("stdout in", options=batch)
    assert (allowed.returncode, allowed.stdout) == (0, b"in\n")


async def test_another_key_of_the_same_person_is_asked(client):
    await client.ask(client.here.grant)
    other = asyncssh.generate_private_key("ssh-ed25519")

    def add():
        accounts.add_key(
            user=client.here.engineer.user,
            name="other",
            text=other.export_public_key().decode(),
            by=client.here.engineer.user.party,
            now=clock(),
        )

    await client.ask(add)
    assert await prompts(client) == ASKED
    assert await prompts(client) == []
    mine, client.here.engineer.key = client.here.engineer.key, other
    assert await prompts(client) == ASKED
    client.here.engineer.key = mine
    assert await prompts(client) == []


async def test_another_source_address_is_asked(client):
    await client.ask(client.here.grant)
    assert await prompts(client) == ASKED
    assert await prompts(client, local_addr=("127.0.0.9", 0)) == ASKED
    assert await prompts(client, local_addr=("127.0.0.9", 0)) == []
    assert await prompts(client, local_addr=("127.0.0.10", 0)) == ASKED


async def test_zones_decide(client):
    await client.ask(client.here.grant)
    cell = client.here.plant.cell
    assert await prompts(client) == ASKED
    assert await prompts(client) == []
    await client.ask(set_zone, cell, mfa_grace_minutes=0)
    assert await prompts(client) == ASKED
    await client.ask(set_zone, cell, mfa_grace_minutes=5)
    # That full sign-in led nowhere that has a grace, so it began none.
    assert await prompts(client) == ASKED
    assert await prompts(client) == []
    await client.ask(set_zone, cell, sl_t=3)
    assert await prompts(client) == ASKED


async def test_unknown_and_forbidden_assets_ask_alike_whatever_the_grace(client):
    """R15: whether a code is asked for says nothing about what there is."""
    await client.ask(client.here.grant)
    who = client.here.engineer.user.username
    forbidden = client.here.plant.asset.name
    assert await prompts(client) == ASKED
    for name in (forbidden, "no-such-asset", client.here.plant.unreachable.name):
        assert await prompts(client, f"{who}@{name}") == ASKED, name
        assert await prompts(client, f"{who}@operator@{name}") == ASKED, name
    assert await prompts(client) == []


async def test_an_ended_grant_asks_again(client):
    grant = await client.ask(client.here.grant)
    assert await prompts(client) == ASKED
    assert await prompts(client) == []
    assert await client.ask(
        access.finish_grant,
        grant_id=grant.pk,
        by=client.here.engineer.user,
        now=clock(),
    )
    assert await prompts(client) == ASKED


async def test_each_person_has_their_own(client):
    colleague = await client.ask(enrol, client.here.plant.second_engineer)
    await client.ask(client.here.grant)
    await client.ask(client.here.grant, person=colleague.user)
    assert await prompts(client) == ASKED
    address = f"{colleague.user.username}@{client.here.asset.name}"
    assert await prompts(client, address, person=colleague) == ASKED


async def test_ended_by_its_owner_it_asks_again(client):
    await client.ask(client.here.grant)
    user = client.here.engineer.user
    assert await prompts(client) == ASKED
    await client.ask(
        ssh_sign_in.end_graces,
        user_id=user.pk,
        because=Kind.GRACE_ENDED,
        by=user.party,
        now=clock(),
    )
    assert await prompts(client) == ASKED


async def test_a_disabled_person_gets_nowhere_by_a_grace(client):
    await client.ask(client.here.grant)
    assert await prompts(client) == ASKED
    await client.ask(
        accounts.disable_person,
        user_id=client.here.engineer.user.pk,
        by=client.here.plant.administrator,
        now=clock(),
    )
    with pytest.raises(asyncssh.PermissionDenied):
        await client.connect()


async def test_r4_a_grace_does_not_make_an_offered_key_a_proof(client):
    """R4: whoever knows the public key but not the private one gets nothing."""
    await client.ask(client.here.grant)
    assert await prompts(client) == ASKED
    used = await client.ask(AuditEvent.objects.filter(kind=Kind.SIGNED_IN).count)

    forged = asyncssh.load_keypairs([asyncssh.generate_private_key("ssh-ed25519")])[0]
    forged.public_data = client.here.engineer.key.public_data
    with pytest.raises(asyncssh.PermissionDenied):
        await asyncssh.connect(
            "127.0.0.1",
            client.port,
            username=client.here.address,
            client_keys=[forged],
            preferred_auth="publickey",
            known_hosts=client.known_hosts,
            agent_path=None,
            config=None,
        )
    now_used = await client.ask(AuditEvent.objects.filter(kind=Kind.SIGNED_IN).count)
    assert now_used == used


async def test_the_grace_stands_in_one_row_for_a_sign_in(client):
    await client.ask(client.here.grant)
    assert await prompts(client) == ASKED

    def look():
        grace = SignInGrace.objects.get()
        return grace.source_address, grace.key.name, grace.ends_at - grace.signed_in_at

    first = await client.ask(look)
    assert first[:2] == ("127.0.0.1", "laptop")
    assert first[2].total_seconds() == 600
    assert await prompts(client) == []
    assert await client.ask(look) == first


async def test_two_zones_have_their_own_numbers(client, target):
    plant = client.here.plant

    def second():
        zone = inventory.add_zone(
            site=plant.site,
            name="Cell 4",
            purdue_level="2",
            sl_t=4,
            by=SET_UP,
            now=clock(),
        )
        inventory.add_conduit(
            name=f"{plant.conduit.name}-4",
            from_zone=plant.dmz,
            to_zone=zone,
            services=["shell", "exec"],
            by=SET_UP,
            now=clock(),
        )
        moved = factories.Plant(
            **{**{f: getattr(plant, f) for f in plant.__slots__}, "cell": zone}
        )
        asset, account = reachable(moved, f"strict-{plant.site.slug}", target)
        factories.grant(moved, account=account)
        return asset.name

    await client.ask(client.here.grant)
    strict = f"{client.here.engineer.user.username}@{await client.ask(second)}"
    assert await prompts(client) == ASKED
    assert await prompts(client) == []
    assert await prompts(client, strict) == ASKED
    assert await prompts(client, strict) == ASKED
    assert await prompts(client) == []
