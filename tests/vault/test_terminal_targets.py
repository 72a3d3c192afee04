"""Passwords that a device asks for on its terminal: tried, replaced, proved dead."""

import pytest

from apps.inventory.crypto_profiles import MODERN
from apps.vault import targets
from apps.vault.dialogues import SWITCH
from apps.vault.login_credentials import LoginCredential
from apps.vault.models import Finding
from apps.vault.secret_values import Secret
from apps.vault.targets import RotationError
from apps.vault.whereabouts import Target
from tests.odd_devices import Console, console_device
from tests.targets import LOGIN, in_background

SECONDS = 10.0


@pytest.fixture
def device():
    with in_background(console_device(Console())) as running:
        yield running


@pytest.fixture
def target(device, settings) -> Target:
    settings.ALLOW_LOCAL_TARGETS = True
    return Target(
        name="sw01",
        address="127.0.0.1",
        port=device.port,
        login="anybody",
        host_keys=(device.host_key,),
        profile=MODERN,
        typed_name=LOGIN,
    )


def with_password(text: str) -> LoginCredential:
    return LoginCredential(password=Secret(text))


def test_the_password_is_tried_at_the_prompts(device, target):
    right = targets.log_in(target, with_password(device.password), seconds=SECONDS)
    assert right.finding is Finding.ACCEPTED
    wrong = targets.log_in(target, with_password("wrong"), seconds=SECONDS)
    assert wrong.finding is Finding.REFUSED
    assert "wrong" not in wrong.answer


def test_a_key_is_not_tried_there(target):
    attempt = targets.log_in(target, LoginCredential(), seconds=SECONDS)
    assert attempt.finding is Finding.NOT_TRIED


def test_the_old_password_is_replaced_and_proved_dead(device, target):
    old, new = device.password, "Another1Password2"
    targets.rotate_password(
        target, old=Secret(old), new=Secret(new), dialogue=SWITCH, seconds=SECONDS
    )
    assert device.password == new
    attempt = targets.prove_dead(target, with_password(old), seconds=SECONDS)
    assert attempt.finding is Finding.REFUSED
    assert "prompts" in attempt.tried_by
    alive = targets.prove_dead(target, with_password(new), seconds=SECONDS)
    assert alive.finding is Finding.ACCEPTED


def test_a_stored_password_that_is_wrong_rotates_nothing(device, target):
    before = device.password
    with pytest.raises(RotationError) as caught:
        targets.rotate_password(
            target,
            old=Secret("wrong"),
            new=Secret("Another1Password2"),
            dialogue=SWITCH,
            seconds=SECONDS,
        )
    assert caught.value.finding is Finding.REFUSED
    assert device.password == before
