"""Key and then code: every branch of the decision (R4, R11, R12, R24)."""

import datetime as dt
import json
import uuid

import asyncssh
import pytest

from apps.accounts import operations as accounts
from apps.accounts.models import User
from apps.accounts.operations import FactorVerdict
from apps.audit.kinds import Kind
from apps.audit.models import AuditEvent
from apps.gateway.authentication import (
    CODE_TRIES,
    KEY_TRIES,
    Authentication,
    KeyOwner,
    Stage,
    UserStringError,
)
from tests import factories
from tests.gateway.conftest import CodeTyper, enrol, until

ANN, BOB = User(username="ann"), User(username="bob")
KEYS = {("ann", "k-ann"): ANN, ("bob", "k-bob"): BOB}


class Book:
    """Factors in a dictionary; `meanwhile` runs while an answer is on its way."""

    def __init__(self) -> None:
        self.meanwhile = lambda: None
        self.asked: list[str] = []
        self.grace_age = None
        self.graces_asked: list[tuple[str, str]] = []

    async def find_key(self, handle, fingerprint):
        self.meanwhile()
        user = KEYS.get((handle, fingerprint))
        return KeyOwner(user, uuid.uuid4(), has_second_factor=True) if user else None

    async def check_code(self, owner, code):
        self.asked.append(code)
        self.meanwhile()
        return FactorVerdict(
            accepted=code == f"code-{owner.user.username}", wait_seconds=4
        )

    async def sign_in_by_grace(self, owner, login):
        self.graces_asked.append((owner.user.username, login.asset))
        self.meanwhile()
        return self.grace_age


@pytest.fixture
def book():
    return Book()


@pytest.fixture
def sign_in(book):
    return Authentication(book)


async def prove_key(sign_in, who="ann"):
    sign_in.begin(f"{who}@pump")
    assert await sign_in.key_offered(f"{who}@pump", f"k-{who}")
    assert sign_in.key_proved(f"{who}@pump", f"k-{who}")


async def test_key_then_code_completes(sign_in):
    assert sign_in.stage is Stage.NOBODY
    await prove_key(sign_in)
    assert sign_in.stage is Stage.CODE
    assert await sign_in.code_given("ann@pump", [" code-ann "])
    assert sign_in.stage is Stage.NOTHING
    assert sign_in.owner is not None
    assert sign_in.owner.user is ANN


async def test_r4_a_key_that_is_only_offered_does_not_advance(sign_in):
    sign_in.begin("ann@pump")
    assert await sign_in.key_offered("ann@pump", "k-ann")
    assert sign_in.stage is Stage.KEY
    assert not await sign_in.code_given("ann@pump", ["code-ann"])
    assert sign_in.stage is Stage.KEY


async def test_r4_a_key_that_was_never_looked_up_proves_nothing(sign_in):
    sign_in.begin("ann@pump")
    assert not sign_in.key_proved("ann@pump", "k-ann")


async def test_r4_somebody_elses_key_is_refused(sign_in):
    sign_in.begin("ann@pump")
    assert not await sign_in.key_offered("ann@pump", "k-bob")
    assert not sign_in.key_proved("ann@pump", "k-bob")
    assert sign_in.wrong_keys == 1


async def test_r4_the_code_first_is_refused_without_asking(sign_in, book):
    sign_in.begin("ann@pump")
    assert not await sign_in.code_given("ann@pump", ["code-ann"])
    assert book.asked == []


async def test_nobody_signs_in_before_a_user_name_came(sign_in):
    assert not await sign_in.key_offered("", "k-ann")
    assert not await sign_in.key_offered("ann@pump", "k-ann")
    assert not sign_in.key_proved("", "k-ann")
    assert not await sign_in.code_given("", ["code-ann"])


async def test_r11_another_user_name_forgets_everything(sign_in):
    await prove_key(sign_in, "ann")
    sign_in.begin("bob@pump")
    assert sign_in.stage is Stage.KEY
    assert not sign_in.key_proved("bob@pump", "k-ann")
    assert not await sign_in.code_given("bob@pump", ["code-ann"])
    assert not await sign_in.code_given("ann@pump", ["code-ann"])
    # Another asset is another sign-in, too.
    await prove_key(sign_in, "ann")
    sign_in.begin("ann@other")
    assert sign_in.stage is Stage.KEY


async def test_r11_also_while_an_answer_is_on_its_way(sign_in, book):
    sign_in.begin("ann@pump")
    book.meanwhile = lambda: sign_in.begin("bob@pump")
    assert not await sign_in.key_offered("ann@pump", "k-ann")
    assert not sign_in.key_proved("bob@pump", "k-ann")
    book.meanwhile = lambda: None
    await prove_key(sign_in, "ann")
    book.meanwhile = lambda: sign_in.begin("bob@pump")
    assert not await sign_in.code_given("ann@pump", ["code-ann"])
    assert sign_in.stage is Stage.KEY


async def test_a_malformed_user_name_leaves_nobody(sign_in):
    await prove_key(sign_in)
    with pytest.raises(UserStringError):
        sign_in.begin("@ann")
    assert sign_in.stage is Stage.NOBODY
    assert not await sign_in.key_offered("ann", "k-ann")


@pytest.mark.parametrize("answers", [[""], ["   "], [], ["code-ann", "code-ann"]])
async def test_r12_blank_codes_are_refused_without_asking(sign_in, book, answers):
    await prove_key(sign_in)
    assert not await sign_in.code_given("ann@pump", answers)
    assert book.asked == []
    assert sign_in.stage is Stage.CODE


async def test_wrong_codes_are_counted_and_end_it(sign_in, book):
    await prove_key(sign_in)
    for _ in range(CODE_TRIES):
        assert not sign_in.exhausted
        assert not await sign_in.code_given("ann@pump", ["wrong"])
    assert sign_in.exhausted
    assert sign_in.wait_seconds == 4
    assert not await sign_in.code_given("ann@pump", ["code-ann"])
    assert book.asked == ["wrong"] * CODE_TRIES


async def test_wrong_keys_end_it(sign_in):
    sign_in.begin("ann@pump")
    for _ in range(KEY_TRIES):
        assert not sign_in.exhausted
        await sign_in.key_offered("ann@pump", "unknown")
    assert sign_in.exhausted


async def test_the_tries_survive_a_change_of_name(sign_in):
    await prove_key(sign_in, "ann")
    for _ in range(CODE_TRIES):
        await sign_in.code_given("ann@pump", ["wrong"])
    await prove_key(sign_in, "bob")
    assert sign_in.exhausted


@pytest.mark.parametrize(
    ("answers", "complete"),
    [
        (["code-ann", "yes"], True),
        (["code-ann", " Yes "], True),
        (["code-ann", "no"], False),
        (["code-ann", ""], False),
        (["code-ann"], False),
        (["", "yes"], False),
        (["code-ann", "yes", "yes"], False),
        ([], False),
    ],
)
async def test_required_consent_stands_beside_the_code(book, answers, complete):
    sign_in = Authentication(book, consent_required=True)
    await prove_key(sign_in)
    assert await sign_in.code_given("ann@pump", answers) is complete
    assert (sign_in.stage is Stage.NOTHING) is complete
    assert book.asked == (["code-ann"] if complete else [])


async def test_a_grace_completes_after_the_proved_key(sign_in, book):
    book.grace_age = dt.timedelta(minutes=3)
    await prove_key(sign_in)
    assert await sign_in.try_grace("ann@pump")
    assert sign_in.stage is Stage.NOTHING
    assert sign_in.grace_age == dt.timedelta(minutes=3)
    assert book.graces_asked == [("ann", "pump")]


async def test_without_a_grace_the_code_is_asked_for(sign_in, book):
    await prove_key(sign_in)
    assert not await sign_in.try_grace("ann@pump")
    assert sign_in.stage is Stage.CODE
    assert await sign_in.code_given("ann@pump", ["code-ann"])
    assert sign_in.grace_age is None


async def test_r4_a_grace_counts_only_after_the_proof(sign_in, book):
    book.grace_age = dt.timedelta(0)
    assert not await sign_in.try_grace("")
    sign_in.begin("ann@pump")
    assert not await sign_in.try_grace("ann@pump")
    assert await sign_in.key_offered("ann@pump", "k-ann")
    assert not await sign_in.try_grace("ann@pump")
    assert book.graces_asked == []
    assert sign_in.stage is Stage.KEY


async def test_r11_a_grace_is_for_one_user_name(sign_in, book):
    book.grace_age = dt.timedelta(0)
    await prove_key(sign_in)
    assert not await sign_in.try_grace("bob@pump")
    assert not await sign_in.try_grace("ann@other")
    book.meanwhile = lambda: sign_in.begin("bob@pump")
    assert not await sign_in.try_grace("ann@pump")
    assert sign_in.stage is Stage.KEY
    assert sign_in.grace_age is None


async def test_r11_another_name_forgets_the_grace(sign_in, book):
    book.grace_age = dt.timedelta(0)
    await prove_key(sign_in)
    assert await sign_in.try_grace("ann@pump")
    sign_in.begin("bob@pump")
    assert sign_in.grace_age is None
    assert sign_in.stage is Stage.KEY


async def test_who_typed_a_wrong_code_needs_a_right_one(sign_in, book):
    book.grace_age = dt.timedelta(0)
    await prove_key(sign_in)
    await sign_in.code_given("ann@pump", ["wrong"])
    assert not await sign_in.try_grace("ann@pump")
    assert book.graces_asked == []


# Through the running gateway.


async def refusals(client):
    def look():
        return [
            json.loads(event.data)["reason"]
            for event in AuditEvent.objects.filter(kind=Kind.SIGN_IN_REFUSED)
        ]

    return await until(lambda: client.ask(look))


async def test_the_stock_client_is_asked_exactly_once(client, ssh_binary):
    await client.ask(client.here.grant)
    result = await client.run_openssh("stdout in", options=["-v"])
    assert result.stdout == b"in\n"
    said = result.stderr.decode()
    assert said.count('Authenticated using "publickey" with partial success') == 1
    assert said.count("Next authentication method: keyboard-interactive") == 1


async def test_the_prompt_is_the_one_that_is_documented(client):
    await client.ask(client.here.grant)
    connection = await client.connect()
    assert connection.get_owner().prompts == ["One-time code: "]


async def test_r4_the_key_alone_is_not_enough(client):
    with pytest.raises(asyncssh.PermissionDenied):
        await client.connect(preferred_auth="publickey")
    assert await refusals(client) == ["code_missing"]


async def test_r4_no_password_is_ever_taken(client):
    with pytest.raises(asyncssh.PermissionDenied):
        await client.connect(
            preferred_auth="password",
            password=client.here.engineer.key.export_public_key().decode(),
        )
    assert await refusals(client) == ["key_missing"]


async def test_r4_the_code_without_a_key_is_refused(client):
    with pytest.raises(asyncssh.PermissionDenied):
        await client.connect(preferred_auth="keyboard-interactive")


async def test_a_code_works_once(client):
    await client.ask(client.here.grant)
    code = client.here.engineer.code()
    await client.connect(code=code)
    with pytest.raises((asyncssh.PermissionDenied, asyncssh.DisconnectError)):
        await client.connect(code=code)
    assert await refusals(client) == ["code_wrong"]


async def test_r12_an_empty_code_is_refused(client):
    with pytest.raises((asyncssh.PermissionDenied, asyncssh.DisconnectError)):
        await client.connect(code=" ")


async def test_r11_one_persons_key_and_anothers_code(client):
    """R11: Bob's factors do not complete Ann's sign-in."""
    other = await client.ask(enrol, client.here.plant.second_engineer)
    with pytest.raises((asyncssh.PermissionDenied, asyncssh.DisconnectError)):
        await client.connect(code=other.code())
    with pytest.raises(asyncssh.PermissionDenied):
        await client.connect(person=other)


async def test_r11_changing_the_name_on_one_connection(client):
    """R11: after Ann's key, a request as Bob starts from the key again."""
    bob = client.here.plant.second_engineer
    await client.ask(enrol, bob)
    asset = client.here.asset.name
    seen = []

    class Switching(CodeTyper):
        def kbdint_auth_requested(self) -> str:
            connection = self.connection
            seen.append(connection._auth_methods[:])
            connection._username = f"{bob.username}@{asset}"
            return ""

        def connection_made(self, conn) -> None:
            self.connection = conn

    with pytest.raises(asyncssh.PermissionDenied):
        await asyncssh.connect(
            "127.0.0.1",
            client.port,
            username=client.here.address,
            client_keys=[client.here.engineer.key],
            client_factory=lambda: Switching(client.here.engineer.code()),
            known_hosts=client.known_hosts,
            agent_path=None,
            config=None,
        )
    assert seen == [[b"keyboard-interactive"]]


async def test_a_removed_key_and_a_disabled_person_cannot_sign_in(client):
    engineer, plant = client.here.engineer, client.here.plant
    await client.ask(
        accounts.disable_person,
        user_id=engineer.user.pk,
        by=plant.administrator,
        now=factories.clock(),
    )
    with pytest.raises(asyncssh.PermissionDenied):
        await client.connect()
    assert await refusals(client) == ["key_unknown"]


async def test_unknown_people_and_unknown_keys_answer_alike(client, ssh_binary):
    asset = client.here.asset.name
    other = await client.ask(enrol, client.here.plant.second_engineer)
    answers = set()
    for who in (client.here.engineer.user.username, "nobody-at-all"):
        result = await client.run_openssh(
            "exit 0", user_string=f"{who}@{asset}", person=other
        )
        assert result.returncode == 255
        answers.add(result.stderr.replace(who.encode(), b"WHO"))
    assert len(answers) == 1
