"""One's own account: keys, password, recovery codes, other browsers."""

import datetime as dt

import pytest
import time_machine
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from django.test import Client

from apps.accounts.models import SshPublicKey
from apps.accounts.queries import recovery_codes_left
from apps.audit.kinds import Kind
from apps.audit.models import AuditEvent
from tests.portal.doors import PASSWORD, SignedIn, add_person, code_now, sign_in

pytestmark = pytest.mark.django_db

NEW_PASSWORD = "another horse altogether"


@pytest.fixture
def engineer() -> SignedIn:
    return sign_in(add_person("engineer", "engineer"))


def public_line(comment: str = "laptop") -> str:
    """Return a fresh public key as a line of a .pub file."""
    key = Ed25519PrivateKey.generate().public_key()
    line = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return f"{line} {comment}"


def test_a_key_is_added_and_shown_by_its_fingerprint(engineer: SignedIn) -> None:
    answer = engineer.client.post(
        "/account/keys/add/", {"text": public_line()}, follow=True
    )
    key = SshPublicKey.objects.get(user=engineer.person)
    assert key.name == "laptop"
    assert key.fingerprint in answer.content.decode()
    assert AuditEvent.objects.filter(kind=Kind.KEY_ADDED).count() == 1


def short_rsa() -> str:
    key = generate_private_key(65537, 2048).public_key()
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "required"),
        ("hello", "begins with its kind"),
        ("ssh-ed25519 AAAA", "damaged"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nx\n", "private key"),
        ("ssh-ed25519 AAAA\nssh-ed25519 AAAA", "exactly one line"),
        ("ssh-dss AAAA", "begins with its kind"),
        ("<script>alert(1)</script>", "begins with its kind"),
        ("\x00\x01", ""),
    ],
)
def test_what_is_no_key_is_explained(text: str, says: str, engineer: SignedIn) -> None:
    answer = engineer.client.post("/account/keys/add/", {"text": text})
    assert answer.status_code == 422
    html = answer.content.decode()
    assert says in html
    assert 'aria-invalid="true"' in html
    assert "<script>alert" not in html
    assert not SshPublicKey.objects.exists()


def test_a_short_rsa_key_is_refused(engineer: SignedIn) -> None:
    answer = engineer.client.post("/account/keys/add/", {"text": short_rsa()})
    assert answer.status_code == 422
    assert b"3072 bits" in answer.content


def test_one_key_has_one_person(engineer: SignedIn) -> None:
    line = public_line()
    other = sign_in(add_person("other", "engineer"))
    engineer.client.post("/account/keys/add/", {"text": line})
    answer = other.client.post("/account/keys/add/", {"text": line})
    assert answer.status_code == 422
    assert b"in use already" in answer.content


def test_a_key_is_removed_and_kept_as_evidence(engineer: SignedIn) -> None:
    engineer.client.post("/account/keys/add/", {"text": public_line()})
    key = SshPublicKey.objects.get()
    address = f"/account/keys/{key.pk}/remove/"
    assert engineer.client.get(address).status_code == 405
    assert engineer.client.post(address).status_code == 302
    key.refresh_from_db()
    assert key.removed_at is not None
    engineer.client.get("/account/")  # shows the messages of both steps
    assert key.fingerprint not in engineer.client.get("/account/").content.decode()
    assert engineer.client.post(address).status_code == 404


def test_nobody_removes_the_key_of_another(engineer: SignedIn) -> None:
    """R6: an identifier in the address opens nothing that is not one's own."""
    engineer.client.post("/account/keys/add/", {"text": public_line()})
    key = SshPublicKey.objects.get()
    boss = sign_in(add_person("boss", "administrator"))
    answer = boss.client.post(f"/account/keys/{key.pk}/remove/")
    assert answer.status_code == 404
    key.refresh_from_db()
    assert key.removed_at is None


def change_password(client: Client, current: str, new: str, again: str = "") -> str:
    answer = client.post(
        "/account/password/",
        {"current": current, "new": new, "again": again or new},
        follow=True,
    )
    return answer.content.decode()


def test_a_new_password_signs_out_elsewhere(engineer: SignedIn) -> None:
    with time_machine.travel(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=30)):
        elsewhere = sign_in(engineer.person).client
    html = change_password(engineer.client, PASSWORD, NEW_PASSWORD)
    assert "You are signed out elsewhere" in html
    assert engineer.client.get("/account/").status_code == 200
    assert elsewhere.get("/account/").status_code == 302
    engineer.person.refresh_from_db()
    assert engineer.person.check_password(NEW_PASSWORD)


@pytest.mark.parametrize(
    ("current", "new", "again", "says"),
    [
        ("wrong", NEW_PASSWORD, NEW_PASSWORD, "not your current password"),
        (PASSWORD, NEW_PASSWORD, "something else", "not the same"),
        (PASSWORD, "short", "short", "too short"),
        (PASSWORD, "123456789012", "123456789012", "numeric"),
        (PASSWORD, "engineer-jansen", "engineer-jansen", "too similar"),
    ],
)
def test_a_password_that_will_not_do(
    current: str, new: str, again: str, says: str, engineer: SignedIn
) -> None:
    assert says in change_password(engineer.client, current, new, again)
    engineer.person.refresh_from_db()
    assert engineer.person.check_password(PASSWORD)


def test_the_current_password_is_not_guessed_here(engineer: SignedIn) -> None:
    """R3: a stolen portal session has as few tries as a sign-in."""
    for _ in range(5):
        change_password(engineer.client, "wrong", NEW_PASSWORD)
    answer = engineer.client.post(
        "/account/password/",
        {"current": PASSWORD, "new": NEW_PASSWORD, "again": NEW_PASSWORD},
    )
    assert answer.status_code == 429
    engineer.person.refresh_from_db()
    assert engineer.person.check_password(PASSWORD)


def test_new_recovery_codes_need_a_fresh_code(engineer: SignedIn) -> None:
    wrong = engineer.client.post("/account/recovery-codes/", {"code": "000000"})
    assert wrong.status_code == 422
    with time_machine.travel(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=30)):
        code = code_now(engineer.person)
        done = engineer.client.post("/account/recovery-codes/", {"code": code})
    assert done.status_code == 200
    assert done.content.decode().count("<li>") == 10
    assert recovery_codes_left(engineer.person) == 10
    assert AuditEvent.objects.filter(kind=Kind.RECOVERY_CODES_MADE).count() == 2


def test_where_one_is_signed_in(engineer: SignedIn) -> None:
    later = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=30)
    with time_machine.travel(later):
        elsewhere = sign_in(
            engineer.person,
            Client(REMOTE_ADDR="192.0.2.9", HTTP_USER_AGENT="Phone <b>1</b>"),
        ).client
    html = engineer.client.get("/account/").content.decode()
    assert "192.0.2.9" in html
    assert "Phone &lt;b&gt;1&lt;/b&gt;" in html
    assert html.count("This browser") == 1
    for client in (engineer.client, elsewhere):
        assert client.cookies["sluice_session"].value not in html
    name = html.split('name="session" value="')[1].split('"')[0]
    answer = engineer.client.post("/account/signed-in/end/", {"session": name})
    assert answer.status_code == 302
    assert elsewhere.get("/account/").status_code == 302
    assert engineer.client.get("/account/").status_code == 200
    assert AuditEvent.objects.filter(kind=Kind.SIGNED_OUT).count() == 1


def test_nobody_ends_the_portal_session_of_another(engineer: SignedIn) -> None:
    """R6: the name of a session works for its owner only."""
    other = sign_in(add_person("other", "administrator"))
    later = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=30)
    with time_machine.travel(later):
        elsewhere = sign_in(engineer.person).client
    html = engineer.client.get("/account/").content.decode()
    name = html.split('name="session" value="')[1].split('"')[0]
    answer = other.client.post("/account/signed-in/end/", {"session": name})
    assert answer.status_code == 404
    assert elsewhere.get("/account/").status_code == 200


def test_an_account_without_a_site_says_so(engineer: SignedIn) -> None:
    html = engineer.client.get("/account/").content.decode()
    assert "none yet: ask an administrator" in html
    assert "No key yet" in html
