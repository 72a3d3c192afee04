"""What people are told before and at sign-in, with the stock client."""

import asyncio
import dataclasses
import json

import asyncssh
import pytest

from apps.accounts import notices
from apps.audit.kinds import Kind
from apps.audit.models import AuditEvent
from apps.inventory import operations as inventory
from apps.inventory.models import Site
from tests.factories import SET_UP, clock
from tests.gateway.conftest import CodeTyper, until

BANNER = "Waterworks North.\nFor those who are allowed to, nobody else."
CONSENT = "All you do is recorded."


async def tell(client, **changes):
    """Set the notice, and return when the gateway has seen it."""
    texts = {"banner": "", "consent": "", "consent_required": False, "greets": False}
    made = await client.ask(
        notices.set_notice,
        **{**texts, **changes},
        by=client.here.plant.administrator,
        now=clock(),
    )

    async def seen():
        return client.service._door.notices.current.id == made.pk

    await until(seen)
    return made


class Agreeing(CodeTyper):
    """Types the code, and then what it was told to."""

    said = "yes"

    def kbdint_challenge_received(self, name, instructions, lang, prompts):
        self.told = instructions
        self.prompts += [prompt for prompt, _ in prompts]
        return [self.code, self.said][: len(prompts)]

    def auth_banner_received(self, msg, lang):
        self.banner = msg


async def sign_in(client, said="yes"):
    typers = []

    def typer():
        typers.append(Agreeing(client.here.engineer.code()))
        typers[-1].said = said
        return typers[-1]

    connection = await asyncssh.connect(
        "127.0.0.1",
        client.port,
        username=client.here.address,
        client_keys=[client.here.engineer.key],
        client_factory=typer,
        known_hosts=client.known_hosts,
        agent_path=None,
        config=None,
    )
    client._stack.callback(connection.abort)
    return connection, typers[-1]


def sign_ins():
    events = AuditEvent.objects.filter(kind=Kind.SIGNED_IN).order_by("seq")
    return [json.loads(event.data) for event in events]


async def test_strangers_are_told_before_they_sign_in(client, ssh_binary):
    await tell(client, banner=BANNER)
    result = await client.run_openssh(
        "exit 0", user_string="nobody@nothing", options=["-oBatchMode=yes"]
    )
    assert result.returncode == 255
    assert result.stderr.startswith(BANNER.encode())
    assert result.stderr.count(b"Waterworks North.") == 1


async def test_the_banner_is_never_in_a_commands_output(client, ssh_binary):
    await client.ask(client.here.grant)
    await tell(client, banner=BANNER, consent=CONSENT, greets=True)
    result = await client.run_openssh("stdout in")
    assert result.stdout == b"in\n"
    quiet = await client.run_openssh("stdout in", options=["-q", "-tt"])
    assert quiet.stdout.replace(b"\r", b"") == b"in\n"


async def test_without_a_notice_nothing_is_told(client, ssh_binary):
    await client.ask(client.here.grant)
    connection, typer = await sign_in(client)
    assert not hasattr(typer, "banner")
    assert typer.told == ""
    process = await connection.create_process(term_type="vt100")
    process.stdin.write("first\n")
    shown = ""
    async with asyncio.timeout(5):
        while "first" not in shown:
            shown += await process.stdout.read(1000)
    assert "Sluice" not in shown


async def test_a_shell_on_a_terminal_begins_with_who_where_and_until(client):
    grant = await client.ask(client.here.grant)
    await tell(client, consent=CONSENT, greets=True)
    connection, typer = await sign_in(client)
    assert typer.prompts == ["One-time code: "]
    process = await connection.create_process(term_type="vt100")
    here = client.here
    words = (
        f"Sluice: {here.engineer.user.username} on {here.asset.name} as "
        f"{here.account.name}, until {grant.ends_at:%H:%M} UTC, recorded"
    )
    shown = ""
    async with asyncio.timeout(5):
        while CONSENT not in shown:
            shown += await process.stdout.read(1000)
    assert words in shown
    bare = await connection.create_process()
    bare.stdin.write("only this")
    assert await asyncio.wait_for(bare.stdout.readexactly(9), 5) == "only this"


async def test_consent_is_asked_for_with_the_code_and_written_down(client):
    await client.ask(client.here.grant)
    made = await tell(client, consent=CONSENT, consent_required=True)
    _, typer = await sign_in(client, said=" YES ")
    assert typer.told == CONSENT
    assert typer.prompts == ["One-time code: ", "Type yes to agree: "]
    await until(lambda: client.ask(sign_ins))
    assert (await client.ask(sign_ins))[0]["consent_to"] == str(made.pk)


@pytest.mark.parametrize("said", ["", "no", "ja", "yes please"])
async def test_without_consent_nobody_signs_in_and_no_code_is_used_up(client, said):
    await client.ask(client.here.grant)
    await tell(client, consent=CONSENT, consent_required=True)
    code = client.here.engineer.code()
    client.here.engineer.codes = [code] * 5
    with pytest.raises((asyncssh.PermissionDenied, asyncssh.DisconnectError)):
        await sign_in(client, said=said)
    await sign_in(client)


async def test_within_the_grace_it_is_not_asked_again_but_a_new_text_is(client):
    await client.ask(client.here.grant)
    await client.ask(
        inventory.change_zone,
        zone_id=client.here.plant.cell.pk,
        changes={"sl_t": 2},
        by=SET_UP,
        now=clock(),
    )
    await tell(client, consent=CONSENT, consent_required=True)

    async def asked():
        connection, typer = await sign_in(client)
        await connection.run("exit 0")
        return typer.prompts

    assert len(await asked()) == 2
    assert await asked() == []
    await tell(client, consent="Another text.", consent_required=True)
    assert len(await asked()) == 2
    assert await asked() == []


class TestASiteOfItsOwn:
    """The gateway belongs to one site, and leads to assets of another as well."""

    @pytest.fixture
    def settings_of_gateway(self, settings_of_gateway):
        return dataclasses.replace(settings_of_gateway, site="north")

    async def test_its_banner_goes_before_that_of_all(self, client, ssh_binary):
        await tell(client, banner=BANNER)

        async def shown():
            result = await client.run_openssh(
                "exit 0", user_string="nobody@nothing", options=["-oBatchMode=yes"]
            )
            return result.stderr.decode()

        assert "Waterworks North." in await shown()
        await set_banner(client, "Pump house.", slug="north")
        told = await shown()
        assert "Pump house." in told
        assert "Waterworks North." not in told
        await set_banner(client, "")
        assert "Waterworks North." in await shown()


async def set_banner(client, text, *, slug=None):
    site = client.here.plant.site

    def change():
        if slug:
            Site.objects.filter(pk=site.pk).update(slug=slug)
        inventory.set_site_banner(site_id=site.pk, banner=text, by=SET_UP, now=clock())

    await client.ask(change)

    async def seen():
        found = client.service._door.notices.current.site_banners
        return found.get(site.pk, "") == text

    await until(seen)


async def test_elsewhere_a_sites_banner_is_told_after_the_sign_in(client, ssh_binary):
    """Before it, it would tell strangers that there is such an asset."""
    await client.ask(client.here.grant)
    await tell(client, banner=BANNER)
    await set_banner(client, "Mind the chlorine.")
    connection, typer = await sign_in(client)
    assert "chlorine" not in typer.banner
    process = await connection.create_process(term_type="vt100")
    shown = ""
    async with asyncio.timeout(20):
        while "*** Mind the chlorine. ***" not in shown:
            shown += await process.stdout.read(1000)
    assert "Waterworks" not in shown
