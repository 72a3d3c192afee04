"""Signing in: two factors, in that order, a few times, and where it leads."""

import datetime as dt
import re

import pytest
import time_machine
from django.test import Client, override_settings
from django.utils import timezone
from django_otp.plugins.otp_totp.models import TOTPDevice

from apps.accounts import operations as accounts
from apps.accounts.models import User
from apps.audit.kinds import Kind
from apps.audit.models import AuditEvent
from tests.portal.doors import PASSWORD, add_person, code_now, enrol, sign_in

pytestmark = pytest.mark.django_db


@pytest.fixture
def engineer() -> User:
    return add_person("engineer", "engineer")


@pytest.fixture
def enrolled(engineer: User) -> User:
    enrol(engineer)
    return engineer


def first_factor(client: Client, handle: str, password: str = PASSWORD) -> int:
    """Post the first factor; return the status."""
    return client.post(
        "/sign-in/", {"username": handle, "password": password}
    ).status_code


def is_in(client: Client) -> bool:
    """Say whether this browser gets a page that needs both factors."""
    return client.get("/account/").status_code == 200


def refusals() -> list[AuditEvent]:
    return list(AuditEvent.objects.filter(kind=Kind.SIGN_IN_REFUSED))


def test_both_factors_let_a_person_in(enrolled: User, client: Client) -> None:
    assert first_factor(client, "engineer") == 302
    answer = client.post("/sign-in/code/", {"code": code_now(enrolled)})
    assert answer.status_code == 302
    assert answer.headers["Location"] == "/"
    assert is_in(client)
    event = AuditEvent.objects.get(kind=Kind.SIGNED_IN)
    assert event.actor_label == "engineer"
    assert '"password"' in event.data
    assert '"one-time code"' in event.data
    assert event.source_address == "127.0.0.1"


def test_the_password_alone_opens_nothing(enrolled: User, client: Client) -> None:
    """R4: no page before the second factor."""
    del enrolled
    first_factor(client, "engineer")
    answer = client.get("/account/")
    assert answer.status_code == 302
    assert answer.headers["Location"].startswith("/sign-in/")


def test_the_code_alone_opens_nothing(enrolled: User, client: Client) -> None:
    """R4: the second factor counts only after the first."""
    code = code_now(enrolled)
    answer = client.post("/sign-in/code/", {"code": code}, follow=True)
    assert b"Begin again" in answer.content
    assert not is_in(client)
    first_factor(client, "engineer")
    assert client.post("/sign-in/code/", {"code": code}).status_code == 302
    assert is_in(client)


def test_unknown_and_wrong_look_alike(enrolled: User) -> None:
    del enrolled
    seen = set()
    for handle in ("engineer", "nobody"):
        answer = Client().post("/sign-in/", {"username": handle, "password": "wrong"})
        assert answer.status_code == 422
        page = answer.content.decode().replace(handle, "?")
        assert "do not belong together" in page
        seen.add(re.sub(r'name="csrfmiddlewaretoken" value="[^"]*"', "", page))
    assert len(seen) == 1


def test_a_disabled_person_looks_like_an_unknown_one(
    enrolled: User, client: Client
) -> None:
    boss = add_person("boss", "administrator")
    accounts.disable_person(user_id=enrolled.pk, by=boss, now=timezone.now())
    assert first_factor(client, "engineer") == 422


def test_the_handle_may_be_written_in_any_case(enrolled: User, client: Client) -> None:
    assert first_factor(client, " ENGINEER ") == 302
    client.post("/sign-in/code/", {"code": code_now(enrolled)})
    assert is_in(client)


def test_too_many_wrong_passwords_are_refused_unseen(
    enrolled: User, client: Client
) -> None:
    """R3: the sixth try is refused, and so is the right password after it."""
    del enrolled
    handles = ["engineer", "Engineer", "ENGINEER", "engineer ", "eNgineer"]
    statuses = [first_factor(client, handle, "wrong") for handle in handles]
    assert statuses[:4] == [422] * 4
    answer = client.post("/sign-in/", {"username": "engineer", "password": PASSWORD})
    assert answer.status_code == 429
    assert answer.headers["Retry-After"] == "900"
    assert b"paused for 15 min" in answer.content
    assert '"too many attempts"' in refusals()[-1].data


def test_another_address_is_not_paused(enrolled: User) -> None:
    del enrolled
    attacker, owner = Client(REMOTE_ADDR="192.0.2.66"), Client(REMOTE_ADDR="192.0.2.7")
    for _ in range(6):
        first_factor(attacker, "engineer", "wrong")
    assert first_factor(attacker, "engineer") == 429
    assert first_factor(owner, "engineer") == 302


def test_a_forged_address_does_not_open_the_pause(enrolled: User) -> None:
    """R13: X-Forwarded-For of an untrusted caller is ignored."""
    del enrolled
    for number in range(6):
        forged = Client(HTTP_X_FORWARDED_FOR=f"203.0.113.{number}")
        first_factor(forged, "engineer", "wrong")
    last = Client(HTTP_X_FORWARDED_FOR="203.0.113.99")
    assert first_factor(last, "engineer") == 429


def test_behind_a_proxy_the_first_entry_does_not_open_the_pause(
    enrolled: User,
) -> None:
    """R13: what the client put in front of the proxy's entry counts for nothing."""
    del enrolled
    with override_settings(TRUSTED_PROXIES=1):
        for number in range(6):
            header = f"203.0.113.{number}, 192.0.2.66"
            forged = Client(HTTP_X_FORWARDED_FOR=header, REMOTE_ADDR="10.0.0.1")
            first_factor(forged, "engineer", "wrong")
        assert first_factor(forged, "engineer") == 429
        owner = Client(HTTP_X_FORWARDED_FOR="192.0.2.7", REMOTE_ADDR="10.0.0.1")
        assert first_factor(owner, "engineer") == 302


def test_a_code_works_once(enrolled: User) -> None:
    one, other, code = Client(), Client(), code_now(enrolled)
    for browser in (one, other):
        first_factor(browser, "engineer")
    assert one.post("/sign-in/code/", {"code": code}).status_code == 302
    answer = other.post("/sign-in/code/", {"code": code})
    assert answer.status_code == 422
    assert b"used already" in answer.content
    assert not is_in(other)


def test_a_code_may_be_typed_with_a_space(enrolled: User, client: Client) -> None:
    first_factor(client, "engineer")
    code = code_now(enrolled)
    client.post("/sign-in/code/", {"code": f" {code[:3]} {code[3:]} "})
    assert is_in(client)


def test_wrong_codes_use_the_sign_in_up(enrolled: User, client: Client) -> None:
    """R3: five tries, then the password again; the right code does not help."""
    with time_machine.travel(dt.datetime.now(dt.UTC), tick=False) as clock:
        first_factor(client, "engineer")
        for number in range(5):
            clock.shift(40)
            answer = client.post("/sign-in/code/", {"code": "000000"})
            assert answer.status_code == (302 if number == 4 else 422)
        clock.shift(40)
        answer = client.post(
            "/sign-in/code/", {"code": code_now(enrolled)}, follow=True
        )
        assert b"Begin again" in answer.content
        assert not is_in(client)
    assert len([e for e in refusals() if "second factor" in e.data]) == 5


def test_quick_guesses_must_wait(enrolled: User, client: Client) -> None:
    """R3: guesses are slowed down per person, whatever browser they come from."""
    with time_machine.travel(dt.datetime.now(dt.UTC), tick=False):
        first_factor(client, "engineer")
        client.post("/sign-in/code/", {"code": "000000"})
        other = Client()
        first_factor(other, "engineer")
        answer = other.post("/sign-in/code/", {"code": code_now(enrolled)})
        assert answer.status_code == 422
        assert b"wait 1 s" in answer.content
        assert not is_in(other)


def test_a_sign_in_lapses(enrolled: User, client: Client) -> None:
    with time_machine.travel(dt.datetime.now(dt.UTC), tick=False) as clock:
        first_factor(client, "engineer")
        clock.shift(10 * 60)
        answer = client.post(
            "/sign-in/code/", {"code": code_now(enrolled)}, follow=True
        )
        assert b"Begin again" in answer.content
        assert not is_in(client)


def test_a_new_password_voids_what_was_begun(enrolled: User, client: Client) -> None:
    first_factor(client, "engineer")
    accounts.change_password(
        user=enrolled, new_password="another horse altogether", now=timezone.now()
    )
    client.post("/sign-in/code/", {"code": code_now(enrolled)})
    assert not is_in(client)


def test_a_recovery_code_stands_in_once(engineer: User) -> None:
    codes = enrol(engineer)
    for expected in (True, False):
        browser = Client()
        first_factor(browser, "engineer")
        browser.post("/sign-in/code/", {"code": codes[0]})
        assert is_in(browser) is expected
    event = AuditEvent.objects.get(kind=Kind.SIGNED_IN)
    assert '"recovery code"' in event.data


def test_few_recovery_codes_are_said(engineer: User) -> None:
    codes = enrol(engineer)
    for code in codes[:7]:
        accounts.verify_second_factor(user=engineer, code=code, now=timezone.now())
    browser = Client()
    first_factor(browser, "engineer")
    browser.post("/sign-in/code/", {"code": codes[7]})
    assert b"You have 2 recovery codes left" in browser.get("/account/").content


def test_the_session_key_changes_at_sign_in(enrolled: User, client: Client) -> None:
    client.get("/sign-in/")
    first_factor(client, "engineer")
    before = client.cookies["sluice_session"].value
    client.post("/sign-in/code/", {"code": code_now(enrolled)})
    assert client.cookies["sluice_session"].value != before


def test_whoever_has_no_second_factor_enrols_first(
    engineer: User, client: Client
) -> None:
    first_factor(client, "engineer")
    answer = client.get("/sign-in/code/", follow=True)
    assert answer.redirect_chain == [("/sign-in/enrol/", 302)]
    html = answer.content.decode()
    assert "<svg" in html
    assert "style=" not in html
    assert not is_in(client)
    wrong = client.post("/sign-in/enrol/", {"code": "000000"})
    assert wrong.status_code == 422
    with time_machine.travel(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=30)):
        done = client.post("/sign-in/enrol/", {"code": code_now(engineer)})
    assert done.status_code == 200
    assert done.headers["Cache-Control"] == "no-store"
    assert done.content.decode().count("<li>") == 10
    assert is_in(client)
    kinds = set(AuditEvent.objects.values_list("kind", flat=True))
    assert {Kind.FACTOR_ENROLLED, Kind.RECOVERY_CODES_MADE, Kind.SIGNED_IN} <= kinds


def test_the_secret_of_an_enrolment_is_shown_to_one_browser(engineer: User) -> None:
    """Who knows the first password must not learn what the person enrols later."""
    stranger, owner = Client(), Client()
    secrets = []
    for browser in (stranger, owner, stranger):
        if browser is not stranger or not secrets:
            first_factor(browser, "engineer")
        browser.get("/sign-in/enrol/")
        secrets.append(TOTPDevice.objects.get(user=engineer).key)
    assert len(set(secrets)) == 3
    again = TOTPDevice.objects.get(user=engineer).key
    stranger.get("/sign-in/enrol/")
    assert TOTPDevice.objects.get(user=engineer).key == again


def test_an_enrolled_person_is_shown_no_secret(enrolled: User, client: Client) -> None:
    key = TOTPDevice.objects.get(user=enrolled).key
    first_factor(client, "engineer")
    answer = client.get("/sign-in/enrol/")
    assert answer.status_code == 302
    assert answer.headers["Location"] == "/sign-in/code/"
    assert TOTPDevice.objects.get(user=enrolled).key == key


@pytest.mark.parametrize("page", ["/sign-in/code/", "/sign-in/enrol/"])
def test_the_second_page_needs_the_first(page: str, client: Client) -> None:
    answer = client.get(page)
    assert answer.status_code == 302
    assert answer.headers["Location"] == "/sign-in/"


@pytest.mark.parametrize(
    ("wanted", "lands"),
    [
        ("/account/", "/account/"),
        ("/people/?q=a", "/people/?q=a"),
        ("http://evil.example/", "/"),
        ("//evil.example/", "/"),
        ("/\\evil.example/", "/"),
        ("\\\\evil.example/", "/"),
        ("///evil.example/", "/"),
        ("javascript:alert(1)", "/"),
        ("ftp://testserver/", "/"),
        ("http:///evil.example/", "/"),
        ("/" + "a" * 3000, "/"),
        ("", "/"),
    ],
)
def test_only_this_host_is_a_destination(
    wanted: str, lands: str, enrolled: User, client: Client
) -> None:
    """R7: an open redirect is no part of signing in."""
    client.post(
        "/sign-in/",
        {"username": "engineer", "password": PASSWORD, "next": wanted},
    )
    answer = client.post("/sign-in/code/", {"code": code_now(enrolled)})
    assert answer.headers["Location"] == lands
    again = client.get("/sign-in/", {"next": wanted})
    assert again.headers["Location"] == lands


def test_signing_out_ends_it(enrolled: User) -> None:
    client = sign_in(enrolled).client
    old = client.cookies["sluice_session"].value
    assert client.get("/sign-out/").status_code == 405
    assert client.post("/sign-out/").headers["Location"] == "/sign-in/"
    assert not is_in(client)
    client.cookies["sluice_session"] = old
    assert not is_in(client)
    assert AuditEvent.objects.filter(kind=Kind.SIGNED_OUT).count() == 1


def test_signing_out_twice_is_no_fault(client: Client) -> None:
    assert client.post("/sign-out/").headers["Location"] == "/sign-in/"


def test_a_form_without_its_token_is_refused(enrolled: User) -> None:
    del enrolled
    strict = Client(enforce_csrf_checks=True)
    answer = strict.post("/sign-in/", {"username": "engineer", "password": PASSWORD})
    assert answer.status_code == 403
    assert b"load the page again" in answer.content


def test_a_password_typed_as_the_handle_is_not_kept(client: Client) -> None:
    first_factor(client, "My Secret Pass!", "engineer")
    (event,) = refusals()
    assert event.actor_label == ""
    assert "Secret" not in event.data


def test_a_reset_factor_ends_the_portal_session(enrolled: User) -> None:
    client = sign_in(enrolled).client
    boss = add_person("boss", "administrator")
    accounts.reset_factors(user_id=enrolled.pk, by=boss, now=timezone.now())
    answer = client.get("/account/")
    assert answer.status_code == 302
    assert answer.headers["Location"].startswith("/sign-in/")


def test_disabling_ends_the_portal_session(enrolled: User) -> None:
    client = sign_in(enrolled).client
    boss = add_person("boss", "administrator")
    accounts.disable_person(user_id=enrolled.pk, by=boss, now=timezone.now())
    assert not is_in(client)


def test_a_fragment_sends_the_whole_browser_to_sign_in(client: Client) -> None:
    answer = client.get("/account/", headers={"HX-Request": "true"})
    assert answer.status_code == 204
    assert answer.headers["HX-Refresh"] == "true"


def test_no_page_is_stored(enrolled: User, client: Client) -> None:
    assert client.get("/sign-in/").headers["Cache-Control"] == "no-store"
    signed_in = sign_in(enrolled).client
    assert signed_in.get("/account/").headers["Cache-Control"] == "no-store"


def test_the_policy_allows_nothing_inline(client: Client) -> None:
    policy = client.get("/sign-in/").headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
