"""People and their factors through their one door."""

import threading

import pytest
from django.db import IntegrityError, connections, transaction
from django_otp.oath import totp
from django_otp.plugins.otp_static.models import StaticToken
from django_otp.plugins.otp_totp.models import TOTPDevice

from apps.accounts import operations, queries
from apps.accounts.models import User
from apps.accounts.operations import FactorRefusedError, PersonRefusedError
from apps.accounts.public_keys import PublicKeyRefusedError
from apps.audit.kinds import Kind
from apps.audit.models import AuditEvent
from tests import factories
from tests.factories import SET_UP, clock

pytestmark = [pytest.mark.django_db, pytest.mark.both_databases]


def _enrol(user: User) -> TOTPDevice:
    device = operations.start_totp_enrolment(user=user)
    operations.confirm_totp_enrolment(
        user=user, code=f"{totp(device.bin_key, drift=-1):06}", now=clock()
    )
    return TOTPDevice.objects.get(user=user)


def _code(device: TOTPDevice, drift: int = 0) -> str:
    return f"{totp(device.bin_key, drift=drift):06}"


@pytest.mark.parametrize(
    "handle", ["", "a", "1abc", "a b", "a@b", "a:b", "a+b", "a/../b", "ä-b", "a" * 33]
)
def test_handles_that_ssh_could_misread_are_refused(handle):
    """R37: no separator, path or pattern can hide in a handle."""
    with pytest.raises(PersonRefusedError):
        factories.person("engineer", username=handle or " ")


def test_the_database_refuses_an_unsafe_handle_too():
    with (
        pytest.raises(IntegrityError, match="handle_is_safe_for_ssh"),
        transaction.atomic(),
    ):
        User.objects.create(username="a@b", full_name="x", created_at=clock())


def test_handles_are_unique_whatever_their_case():
    factories.person(username="anna.berg")
    with pytest.raises(PersonRefusedError, match="taken"):
        factories.person(username="Anna.Berg")
    with (
        pytest.raises(IntegrityError, match=r"handle_is_unique|lower"),
        transaction.atomic(),
    ):
        # Past the operation, which writes small letters only.
        User.objects.create(username="anna.berg", full_name="x", created_at=clock())


def test_weak_passwords_are_refused():
    """R9 R12: short, common, blank and name-like passwords are refused."""
    for weak in ("", "   ", "short", "password1234", "1234567890123"):
        with pytest.raises(PersonRefusedError):
            operations.add_person(
                username="new.person",
                full_name="New Person",
                password=weak,
                roles=frozenset(),
                by=SET_UP,
                now=clock(),
            )
    assert not User.objects.filter(username="new.person").exists()


def test_a_fresh_database_has_nobody_who_could_sign_in():
    """R9: there is no default account."""
    assert not User.objects.exists()


def test_nobody_changes_their_own_roles():
    """R17: no self-grant."""
    admin = factories.person("administrator")
    with pytest.raises(PersonRefusedError, match="own roles"):
        operations.change_person(
            user_id=admin.pk,
            full_name="x",
            email="",
            organisation="",
            roles=frozenset({"administrator", "auditor"}),
            by=admin,
            now=clock(),
        )
    admin.refresh_from_db()
    assert not admin.is_auditor


def test_disabling_works_at_once_and_never_on_oneself():
    admin, engineer = factories.person("administrator"), factories.person("engineer")
    assert operations.disable_person(user_id=engineer.pk, by=admin, now=clock())
    assert not operations.disable_person(user_id=engineer.pk, by=admin, now=clock())
    assert queries.person_by_handle(engineer.username) is None
    assert operations.enable_person(user_id=engineer.pk, by=admin, now=clock())
    assert queries.person_by_handle(engineer.username.upper()) == engineer
    with pytest.raises(PersonRefusedError):
        operations.disable_person(user_id=admin.pk, by=admin, now=clock())


def test_a_key_belongs_to_one_person():
    first, second = factories.person("engineer"), factories.person("engineer")
    line = factories.ed25519_line()
    key = operations.add_key(
        user=first, name="laptop", text=line, by=first.party, now=clock()
    )
    with pytest.raises(PublicKeyRefusedError, match="in use"):
        operations.add_key(
            user=second, name="", text=line, by=second.party, now=clock()
        )
    found = queries.usable_key(handle=first.username, fingerprint=key.fingerprint)
    assert found == key
    assert not queries.usable_key(handle=second.username, fingerprint=key.fingerprint)
    assert not operations.remove_key(key_id=key.pk, user=second, now=clock())
    assert operations.remove_key(key_id=key.pk, user=first, now=clock())
    assert not queries.usable_key(handle=first.username, fingerprint=key.fingerprint)


def test_enrolment_needs_a_right_code_and_gives_recovery_codes_once():
    user = factories.person("engineer")
    device = operations.start_totp_enrolment(user=user)
    for wrong in ("", "abcdef", "000000 1"):
        with pytest.raises(FactorRefusedError):
            operations.confirm_totp_enrolment(user=user, code=wrong, now=clock())
    codes = operations.confirm_totp_enrolment(
        user=user, code=_code(device), now=clock()
    )
    assert len(set(codes)) == 10
    assert queries.recovery_codes_left(user) == 10
    with pytest.raises(FactorRefusedError, match="already"):
        operations.start_totp_enrolment(user=user)


def test_a_code_works_once():
    user = factories.person("engineer")
    device = _enrol(user)
    code = _code(device)
    assert operations.verify_second_factor(user=user, code=code, now=clock())
    assert not operations.verify_second_factor(user=user, code=code, now=clock())


def test_a_recovery_code_works_once():
    user = factories.person("engineer")
    _enrol(user)
    code = StaticToken.objects.filter(device__user=user).first().token
    assert operations.verify_second_factor(user=user, code=code, now=clock())
    assert not operations.verify_second_factor(user=user, code=code, now=clock())
    assert queries.recovery_codes_left(user) == 9


def test_wrong_codes_are_throttled():
    """R3: after a wrong code even the right one has to wait."""
    user = factories.person("engineer")
    device = _enrol(user)
    right = _code(device)
    wrong = f"{(int(right) + 1) % 1_000_000:06}"
    assert not operations.verify_second_factor(user=user, code=wrong, now=clock())
    verdict = operations.verify_second_factor(user=user, code=right, now=clock())
    assert not verdict
    assert verdict.wait_seconds >= 1


@pytest.mark.parametrize("code", ["", " ", "\x00", "9" * 100, "12345", "١٢٣٤٥٦"])
def test_odd_codes_are_refused(code):
    """R12: empty, blank, over-long and non-ASCII codes."""
    user = factories.person("engineer")
    _enrol(user)
    assert not operations.verify_second_factor(user=user, code=code, now=clock())


@pytest.mark.django_db(transaction=True)
def test_two_logins_with_one_code_at_once_let_one_in():
    user = factories.person("engineer")
    code = _code(_enrol(user))
    barrier, results = threading.Barrier(2), []

    def log_in() -> None:
        barrier.wait()
        results.append(
            bool(operations.verify_second_factor(user=user, code=code, now=clock()))
        )
        connections.close_all()

    threads = [threading.Thread(target=log_in) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False, True]


def test_a_reset_needs_somebody_else_and_voids_everything():
    admin, engineer = factories.person("administrator"), factories.person("engineer")
    _enrol(engineer)
    assert not operations.reset_factors(user_id=admin.pk, by=admin, now=clock())
    assert operations.reset_factors(user_id=engineer.pk, by=admin, now=clock())
    assert queries.totp_device(engineer) is None
    assert queries.recovery_codes_left(engineer) == 0
    assert AuditEvent.objects.filter(kind=Kind.FACTOR_RESET).count() == 1
