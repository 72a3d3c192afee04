"""The grace after a full sign-in over SSH: for whom it holds, and what ends it."""

import datetime as dt
import json
import threading

import pytest
from django.db import IntegrityError, connections, transaction
from django_otp.oath import totp

from apps.access import operations as access
from apps.accounts import operations, queries, ssh_sign_in
from apps.accounts.models import SignInGrace
from apps.audit.kinds import Kind
from apps.audit.models import AuditEvent
from apps.inventory import operations as inventory
from apps.portal import portal_sessions
from tests import factories
from tests.factories import SET_UP, clock

pytestmark = [pytest.mark.django_db, pytest.mark.both_databases]

HOME = "192.0.2.7"
MINUTE = dt.timedelta(minutes=1)


def add_key(user, name="laptop"):
    return operations.add_key(
        user=user,
        name=name,
        text=factories.ed25519_line(),
        by=user.party,
        now=clock(),
    )


def full(user, key, *, minutes=10, address=HOME, now=None, verified_at=None):
    now = now or clock()
    ssh_sign_in.sign_in(
        user=user,
        key_id=key.pk,
        grace_minutes=minutes,
        source_address=address,
        verified_at=verified_at or now,
        now=now,
    )


def by_grace(user, key, *, minutes=10, address=HOME, now=None):
    return ssh_sign_in.sign_in_by_grace(
        user=user,
        key_id=key.pk,
        minutes=minutes,
        source_address=address,
        now=now or clock(),
    )


def sign_ins():
    return [
        json.loads(event.data)
        for event in AuditEvent.objects.filter(kind=Kind.SIGNED_IN).order_by("seq")
    ]


@pytest.fixture
def engineer():
    return factories.person("engineer")


@pytest.fixture
def key(engineer):
    return add_key(engineer)


def test_the_key_alone_does_for_so_many_minutes_after_the_full_sign_in(engineer, key):
    began = clock()
    full(engineer, key, now=began)
    later = began + 10 * MINUTE - dt.timedelta(microseconds=1)
    assert by_grace(engineer, key, now=later) == later - began
    assert by_grace(engineer, key, now=began + 10 * MINUTE) is None
    assert [entry["factors"] for entry in sign_ins()] == [
        ["public_key", "one_time_code"],
        ["public_key", "grace"],
    ]


def test_using_it_never_extends_it(engineer, key):
    began = clock()
    full(engineer, key, now=began)
    assert by_grace(engineer, key, now=began + 9 * MINUTE)
    assert SignInGrace.objects.get().ends_at == began + 10 * MINUTE
    assert by_grace(engineer, key, now=began + 11 * MINUTE) is None


def test_it_is_for_one_person_one_key_and_exactly_one_address(engineer, key):
    full(engineer, key)
    colleague, other = factories.person("engineer"), add_key(engineer, "other")
    full(engineer, key)
    assert by_grace(engineer, key)
    assert by_grace(engineer, other) is None
    assert by_grace(colleague, key) is None
    assert by_grace(colleague, add_key(colleague)) is None
    for elsewhere in ("192.0.2.8", "192.0.2.70", f"::ffff:{HOME}", HOME + " ", ""):
        assert by_grace(engineer, key, address=elsewhere) is None


def test_addresses_are_the_same_only_as_they_stand(engineer, key):
    full(engineer, key, address="2001:db8::a")
    assert by_grace(engineer, key, address="2001:DB8::A") is None
    assert by_grace(engineer, key, address="2001:db8:0::a") is None


def test_the_zone_may_be_stricter_than_the_longest_grace(engineer, key):
    began = clock()
    full(engineer, key, minutes=30, now=began)
    assert by_grace(engineer, key, minutes=5, now=began + 6 * MINUTE) is None
    assert by_grace(engineer, key, minutes=0, now=began) is None
    assert by_grace(engineer, key, minutes=30, now=began + 6 * MINUTE)
    assert by_grace(engineer, key, minutes=60, now=began + 31 * MINUTE) is None


def test_without_a_zone_that_allows_it_there_is_none(engineer, key):
    full(engineer, key, minutes=0)
    full(engineer, key, minutes=10, address="")
    assert not SignInGrace.objects.exists()
    assert [entry["grace_until"] for entry in sign_ins()] == [None, None]


def test_a_full_sign_in_replaces_the_one_before(engineer, key):
    began = clock()
    full(engineer, key, minutes=30, now=began)
    full(engineer, key, minutes=5, now=began + MINUTE)
    assert SignInGrace.objects.get().ends_at == began + 6 * MINUTE
    full(engineer, key, minutes=0, now=began + 2 * MINUTE)
    assert not SignInGrace.objects.exists()


def test_expired_ones_are_not_kept(engineer, key):
    full(engineer, key, now=clock() - 20 * MINUTE)
    full(engineer, key, address="192.0.2.9")
    assert [grace.source_address for grace in SignInGrace.objects.all()] == [
        "192.0.2.9"
    ]
    assert list(queries.graces_of(engineer, now=clock() + 11 * MINUTE)) == []


def test_a_sign_in_from_the_future_does_not_count(engineer, key):
    """A clock that is set back must not make a grace longer."""
    full(engineer, key, now=clock() + 5 * MINUTE)
    assert by_grace(engineer, key) is None


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"source_address": ""}, "grace_is_for_one_address"),
        ({"ends_at": clock() - 60 * MINUTE}, "grace_ends_after_the_sign_in"),
    ],
)
def test_the_database_keeps_the_rules(engineer, key, changes, rule):
    row = {"source_address": HOME, "ends_at": clock() + MINUTE, **changes}
    with pytest.raises(IntegrityError, match=rule), transaction.atomic():
        SignInGrace.objects.create(
            user=engineer, key=key, signed_in_at=clock() - MINUTE, **row
        )


def test_the_database_holds_one_for_each_key_and_address(engineer, key):
    full(engineer, key)
    with pytest.raises(IntegrityError), transaction.atomic():
        SignInGrace.objects.create(
            user=engineer,
            key=key,
            source_address=HOME,
            signed_in_at=clock(),
            ends_at=clock() + MINUTE,
        )


def _change_roles(here, person, _key):
    operations.change_person(
        user_id=person.pk,
        full_name="x",
        email="",
        organisation="",
        roles=frozenset({"engineer", "auditor"}),
        by=here.administrator,
        now=clock(),
    )


def _confirm_enrolment(_here, person, _key):
    device = operations.start_totp_enrolment(user=person)
    code = f"{totp(device.bin_key, drift=-1):06}"
    operations.confirm_totp_enrolment(user=person, code=code, now=clock())


def _revoke(here, person, _key):
    grant = factories.grant(here, person=person)
    assert access.revoke_grant(
        grant_id=grant.pk, by=here.approver, reason="misuse", now=clock()
    )


SIGNALS = {
    Kind.PERSON_CHANGED: _change_roles,
    Kind.PERSON_DISABLED: lambda here, person, key: operations.disable_person(
        user_id=person.pk, by=here.administrator, now=clock()
    ),
    Kind.PASSWORD_CHANGED: lambda here, person, key: operations.change_password(
        user=person, new_password=factories.password(), now=clock()
    ),
    Kind.FACTOR_ENROLLED: _confirm_enrolment,
    Kind.FACTOR_RESET: lambda here, person, key: operations.reset_factors(
        user_id=person.pk, by=here.administrator, now=clock()
    ),
    Kind.RECOVERY_CODES_MADE: lambda here, person, key: operations.make_recovery_codes(
        user=person, now=clock()
    ),
    Kind.KEY_ADDED: lambda here, person, key: add_key(person, "another"),
    Kind.KEY_REMOVED: lambda here, person, key: operations.remove_key(
        key_id=key.pk, user=person, now=clock()
    ),
    Kind.SIGNED_OUT_EVERYWHERE: lambda here, person, key: (
        portal_sessions.end_all_others(
            person, this_key=None, source_address=HOME, now=clock()
        )
    ),
    Kind.MEMBER_REMOVED: lambda here, person, key: inventory.remove_member(
        site=here.site, user=person, by=SET_UP, now=clock()
    ),
    Kind.GRANT_REVOKED: _revoke,
    Kind.GRACE_ENDED: lambda here, person, key: ssh_sign_in.end_graces(
        user_id=person.pk, because=Kind.GRACE_ENDED, by=person.party, now=clock()
    ),
}


def test_the_list_of_signals_is_the_one_that_is_tested():
    assert set(SIGNALS) == ssh_sign_in.SIGNALS


@pytest.mark.parametrize("signal", sorted(SIGNALS))
def test_each_signal_on_the_person_ends_every_grace(signal):
    here = factories.plant()
    person, bystander = here.engineer, here.second_engineer
    key, other = add_key(person), add_key(bystander)
    before = clock()
    full(person, key)
    full(person, key, address="198.51.100.4")
    full(bystander, other)
    SIGNALS[signal](here, person, key)
    assert by_grace(person, key) is None
    assert by_grace(person, key, address="198.51.100.4") is None
    assert by_grace(bystander, other), "somebody else's"
    event = AuditEvent.objects.get(kind=Kind.GRACE_ENDED)
    assert event.object_label == person.username
    expected = Kind.FACTOR_ENROLLED if signal == Kind.FACTOR_ENROLLED else signal
    assert json.loads(event.data) == {"because": expected, "graces": 2}
    # A code that was checked before the signal begins none any more.
    full(person, key, verified_at=before)
    assert by_grace(person, key) is None


def test_a_second_reset_of_the_password_ends_them_too(engineer, key):
    full(engineer, key)
    operations.reset_password(
        user_id=engineer.pk,
        new_password=factories.password(),
        by=factories.person("administrator"),
        now=clock(),
    )
    assert by_grace(engineer, key) is None


def test_a_new_name_is_no_signal(engineer, key):
    full(engineer, key)
    operations.change_person(
        user_id=engineer.pk,
        full_name="Another Name",
        email="",
        organisation="",
        roles=frozenset({"engineer"}),
        by=factories.person("administrator"),
        now=clock(),
    )
    assert by_grace(engineer, key)


def test_after_a_signal_a_full_sign_in_begins_a_new_one(engineer, key):
    full(engineer, key)
    operations.change_password(
        user=engineer, new_password=factories.password(), now=clock()
    )
    full(engineer, key)
    assert by_grace(engineer, key)


def test_what_is_no_signal_cannot_end_them(engineer):
    with pytest.raises(ValueError, match="does not end graces"):
        ssh_sign_in.end_graces(
            user_id=engineer.pk, because=Kind.SITE_ADDED, by=SET_UP, now=clock()
        )


def test_a_removed_key_begins_none(engineer, key):
    operations.remove_key(key_id=key.pk, user=engineer, now=clock())
    full(engineer, key)
    assert not SignInGrace.objects.exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("round_", range(6))
def test_ending_it_and_signing_in_by_it_at_once(round_):
    """One is first: no sign-in by grace stands behind the end in the ledger."""
    engineer = factories.person("engineer")
    key = add_key(engineer)
    full(engineer, key)
    barrier = threading.Barrier(3)
    ages, faults = [], []

    def at_once(action):
        try:
            barrier.wait(10)
            action()
        except Exception as error:  # noqa: BLE001 - shown below
            faults.append(error)
        finally:
            connections.close_all()

    def end():
        ssh_sign_in.end_graces(
            user_id=engineer.pk,
            because=Kind.GRACE_ENDED,
            by=engineer.party,
            now=clock(),
        )

    actions = [end, *[lambda: ages.append(by_grace(engineer, key))] * 2]
    threads = [threading.Thread(target=at_once, args=[action]) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not faults
    ended = AuditEvent.objects.get(kind=Kind.GRACE_ENDED).seq
    used = AuditEvent.objects.filter(
        kind=Kind.SIGNED_IN, data__contains='"grace"'
    ).values_list("seq", flat=True)
    assert len(used) == len([age for age in ages if age is not None])
    assert all(seq < ended for seq in used)
    assert by_grace(engineer, key) is None


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("round_", range(4))
def test_a_signal_and_a_full_sign_in_at_once_leave_no_grace(round_):
    """The code was checked before the factors were reset: it must not outlive that."""
    engineer, admin = factories.person("engineer"), factories.person("administrator")
    key = add_key(engineer)
    verified_at = clock()
    barrier = threading.Barrier(2)
    faults = []

    def at_once(action):
        try:
            barrier.wait(10)
            action()
        except Exception as error:  # noqa: BLE001 - shown below
            faults.append(error)
        finally:
            connections.close_all()

    threads = [
        threading.Thread(target=at_once, args=[action])
        for action in (
            lambda: full(engineer, key, verified_at=verified_at),
            lambda: operations.reset_factors(
                user_id=engineer.pk, by=admin, now=clock()
            ),
        )
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not faults
    assert not SignInGrace.objects.exists()
