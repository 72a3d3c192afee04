"""Coming in through the portal's front door, as a person does."""

import time
from dataclasses import dataclass

from django.test import Client
from django.utils import timezone
from django_otp.oath import TOTP
from django_otp.plugins.otp_totp.models import TOTPDevice

from apps.accounts import operations as accounts
from apps.accounts.models import User
from apps.audit.operations import system

PASSWORD = "correct horse battery staple"


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A person and the browser they are signed in with."""

    person: User
    client: Client


def add_person(handle: str, *roles: str) -> User:
    """Add a person as an administrator's command would; no second factor yet."""
    return accounts.add_person(
        username=handle,
        full_name=f"{handle.capitalize()} Jansen",
        password=PASSWORD,
        roles=frozenset(roles),
        by=system("test"),
        now=timezone.now(),
    )


def code_now(person: User, *, later: int = 0) -> str:
    """Return the code the person's app shows, or the one `later` steps on."""
    device = TOTPDevice.objects.get(user=person)
    app = TOTP(device.bin_key, device.step, device.t0, device.digits)
    app.time = time.time() + later * device.step
    return f"{app.token():06d}"


def enrol(person: User) -> list[str]:
    """Enrol the person's app and return the recovery codes.

    The confirming code is the previous one, so that the code of this moment is still
    good for signing in. It grows too old when a step ends in between: then once more.
    """
    accounts.start_totp_enrolment(user=person)
    try:
        return accounts.confirm_totp_enrolment(
            user=person, code=code_now(person, later=-1), now=timezone.now()
        )
    except accounts.FactorRefusedError:
        return accounts.confirm_totp_enrolment(
            user=person, code=code_now(person, later=-1), now=timezone.now()
        )


def sign_in(person: User, client: Client | None = None) -> SignedIn:
    """Sign the person in with both factors; set up what they lack for that."""
    client = client or Client()
    if not person.check_password(PASSWORD):
        accounts.change_password(user=person, new_password=PASSWORD, now=timezone.now())
    if not TOTPDevice.objects.filter(user=person, confirmed=True).exists():
        enrol(person)
    credentials = {"username": person.username, "password": PASSWORD}
    client.post("/sign-in/", credentials)
    answer = client.post("/sign-in/code/", {"code": code_now(person)})
    assert answer.status_code == 302, answer.content.decode()
    return SignedIn(person, client)
