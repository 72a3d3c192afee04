"""Devices that let anybody in by SSH and ask for the password on their terminal."""

import pytest

from apps.inventory import operations as inventory
from apps.sessions.models import Session
from apps.vault import operations as vault
from apps.vault.secret_values import Secret
from tests import factories
from tests.gateway.conftest import until
from tests.gateway.differential import OnTerminal
from tests.gateway.test_sessions import recorded
from tests.odd_devices import Console, console_device


@pytest.fixture
def console() -> Console:
    return Console()


@pytest.fixture
def target_context(console):
    return console_device(console)


@pytest.fixture
def sign_in() -> str:
    return "terminal"


@pytest.fixture
async def ready(client, sign_in):
    def choose():
        client.here.account.sign_in = sign_in
        client.here.account.save(update_fields=["sign_in"])
        client.here.grant()

    await client.ask(choose)
    return client


async def at_its_prompt(client, console, prompt: bytes) -> bytes:
    """Work on the device's terminal with stock ssh; return all that was seen."""
    line, environment = client.openssh(options=["-t"])
    terminal = OnTerminal(line, environment)
    await terminal.wait_for(prompt)
    terminal.type(b"show version\r")
    await terminal.wait_for(b"you said show version")
    terminal.type(b"exit\r")
    seen = await terminal.ended()
    assert seen.status == 0
    return seen.output


async def recording_of(client) -> bytes:
    """Return everything that the sealed recording holds."""

    def sealed():
        session = Session.objects.exclude(ended_at=None).first()
        if session is None or session.recording.state != "sealed":
            return None
        return recorded(session)

    events = await until(lambda: client.ask(sealed))
    return b"\n".join(event.data for event in events)


async def test_the_gateway_signs_in_and_nobody_sees_it(ready, console, ssh_binary):
    seen = await at_its_prompt(ready, console, b"sw01>")
    password = ready.here.target.password.encode()
    assert console.signed_in == [ready.here.target.login]
    assert password not in seen
    assert b"User Access" not in seen
    recorded = await recording_of(ready)
    assert password not in recorded
    assert b"Sluice signed in at the device's own prompts" in recorded
    assert b"you said show version" in recorded


class TestEnable:
    @pytest.fixture
    def sign_in(self):
        return "terminal-enable"

    async def test_it_goes_on_to_the_elevated_prompt(self, ready, console, ssh_binary):
        assert b"sw01>" not in await at_its_prompt(ready, console, b"sw01#")


class TestCareless:
    @pytest.fixture
    def console(self):
        greeting = b"### Authorised use only ###\r\n\x1b[1mwelcome>\x1b[0m\r\n"
        return Console(echoes_password=True, greeting=greeting)

    async def test_an_echoed_password_reaches_nobody(self, ready, console, ssh_binary):
        seen = await at_its_prompt(ready, console, b"sw01>")
        password = ready.here.target.password.encode()
        assert password not in seen
        assert password not in await recording_of(ready)


class TestPasswordOnly:
    @pytest.fixture
    def console(self):
        return Console(asks_name=b"", asks_password=b"Passwort f\xfcr Konsole: ")

    async def test_a_console_that_asks_for_no_name(self, ready, console, ssh_binary):
        await at_its_prompt(ready, console, b"sw01>")
        assert console.signed_in == [""]


async def refused_shell(client) -> bytes:
    result = await client.run_openssh(options=["-tt"])
    assert result.returncode == 255
    return result.stderr


async def test_a_wrong_password_is_refused_in_the_devices_words(ready, ssh_binary):
    def forget():
        vault.store_credential(
            account=ready.here.account,
            kind="password",
            secret=Secret("not the password"),
            by=ready.here.plant.administrator.party,
            now=factories.clock(),
        )

    await ready.ask(forget)
    said = await refused_shell(ready)
    assert b"did not sign the gateway in" in said
    assert b"Login invalid" in said
    assert b"not the password" not in said


class TestExpired:
    @pytest.fixture
    def console(self):
        return Console(expired=True)

    async def test_an_expired_password_is_refused_clearly(self, ready, ssh_binary):
        assert b"the password has expired" in await refused_shell(ready)


async def test_single_commands_are_refused_with_the_reason(ready, ssh_binary):
    result = await ready.run_openssh("show version")
    assert result.returncode == 255
    assert b"it has shells only" in result.stderr
    assert ready.here.target.sessions == 0


@pytest.mark.both_databases
def test_only_a_password_can_be_typed(db):
    plant = factories.plant()
    with pytest.raises(inventory.InventoryRefusedError, match="only a password"):
        inventory.add_account(
            asset=plant.asset,
            name="admin",
            credential_kind="key",
            sign_in="terminal",
            by=plant.administrator.party,
            now=factories.clock(),
        )
