"""Withdrawing leases from real targets, through crashes, races and bad networks."""

import datetime as dt
import json
import socket
import threading
import uuid
from pathlib import Path

import pytest
from django.db import connection, connections

from apps.audit import queries as ledger
from apps.audit.kinds import Kind
from apps.audit.models import AuditEvent
from apps.inventory import operations as inventory
from apps.inventory.models import HostKey, TargetAccount
from apps.vault import operations, queries, ssh_keys, targets, tasks
from apps.vault.dialogues import SWITCH
from apps.vault.leases import LeasedCredential
from apps.vault.login_credentials import LoginCredential
from apps.vault.models import (
    AccountCredential,
    Finding,
    Lease,
    LeaseState,
    RevocationReceipt,
    StoredSecret,
)
from apps.vault.secret_values import Secret
from tests import factories
from tests.factories import SET_UP, clock
from tests.targets import hanging_target, in_background
from tests.vault.conftest import initial_secret, whereabouts

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.both_databases,
    pytest.mark.filterwarnings("ignore:Diffie-Hellman over finite fields"),
]

HOUR = dt.timedelta(hours=1)


class Crash(BaseException):
    """The process is gone: nothing catches this."""


class Clock:
    """A clock that is moved by hand, and can crash whoever reads it the n-th time."""

    def __init__(self) -> None:
        self.now = clock()
        self.crash_at = 0
        self.reads = 0

    def __call__(self) -> dt.datetime:
        self.reads += 1
        if self.reads == self.crash_at:
            raise Crash
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += dt.timedelta(seconds=seconds)


@pytest.fixture(autouse=True)
def _short_times(settings):
    settings.TARGET_CONNECT_SECONDS = 5


@pytest.fixture
def time() -> Clock:
    return Clock()


def _register(plant_target, *, name: str = "") -> TargetAccount:
    """Add the running target to the inventory, and its credential to the vault."""
    here = factories.plant()
    described = plant_target.describe()
    known = described["accounts"][0]
    asset = inventory.add_asset(
        fields={
            "name": described["name"],
            "zone": here.cell,
            "kind": "switch" if known["credential_kind"] == "password" else "hmi",
            "address": described["address"],
            "port": described["port"],
            "crypto_profile": described["crypto_profile"],
        },
        by=SET_UP,
        now=clock(),
    )
    account = inventory.add_account(
        asset=asset,
        name=known["principal"] or known["login"],
        login=known["login"],
        credential_kind=known["credential_kind"],
        by=SET_UP,
        now=clock(),
    )
    factories.pin(
        asset,
        here.administrator,
        here.second_administrator,
        line=described["host_key"],
    )
    if known["credential_kind"] == "certificate":
        authority = operations.make_authority(site=here.site, by=SET_UP, now=clock())
        Path(described["user_ca_file"]).write_text(f"{authority.public_line}\n")
    else:
        operations.store_credential(
            account=account,
            kind=known["credential_kind"],
            secret=initial_secret(plant_target),
            by=SET_UP,
            now=clock(),
        )
    return account


def _lease(account: TargetAccount, now: dt.datetime) -> LeasedCredential:
    return operations.lease_credential(
        account_id=account.pk, holder=uuid.uuid4(), deadline=now + HOUR, now=now
    )


def _end(leased: LeasedCredential, time: Clock) -> None:
    assert operations.end_lease(lease_id=leased.lease_id, now=time.now)


def _withdraw(leased: LeasedCredential, time: Clock) -> RevocationReceipt | None:
    return operations.withdraw_lease(lease_id=leased.lease_id, clock=time)


def _as_login(leased: LeasedCredential) -> LoginCredential:
    return LoginCredential(
        private_key=leased.private_key,
        certificate=leased.certificate,
        password=leased.password,
    )


def _finding(plant_target, leased: LeasedCredential) -> Finding:
    target = whereabouts(plant_target)
    return targets.prove_dead(target, _as_login(leased), seconds=5).finding


def _audited(kind: Kind) -> list[dict[str, object]]:
    events = AuditEvent.objects.filter(kind=kind).order_by("seq")
    return [json.loads(event.data) for event in events]


def _move(account: TargetAccount, port: int) -> None:
    inventory.change_asset(
        asset_id=account.asset_id, changes={"port": port}, by=SET_UP, now=clock()
    )


def _port_of_nobody() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _stored_account_secrets(account: TargetAccount) -> int:
    return StoredSecret.objects.filter(purpose=f"account {account.pk}").count()


@pytest.mark.parametrize("kind", ["hmi", "switch"])
def test_a_session_s_credential_is_replaced_and_proved_dead(kind, request, time):
    target = request.getfixturevalue(kind)
    account = _register(target)
    leased = _lease(account, time.now)
    assert _finding(target, leased) is Finding.ACCEPTED
    _end(leased, time)
    time.forward(1.5)
    receipt = _withdraw(leased, time)
    assert receipt is not None
    assert _finding(target, leased) is Finding.REFUSED
    assert receipt.latency_ms == 1500
    assert receipt.how == f"{leased.kind} replaced on the target"
    assert receipt.proved_by.startswith("paramiko" if kind == "hmi" else "asyncssh")
    lease = Lease.objects.get(pk=leased.lease_id)
    assert (lease.state, lease.secret, lease.try_again_at) == (
        LeaseState.PROVED_DEAD,
        None,
        None,
    )
    again = _lease(account, time.now)
    assert _finding(target, again) is Finding.ACCEPTED
    # What is dead is destroyed: only the one in use is left.
    assert _stored_account_secrets(account) == 1
    assert not StoredSecret.objects.filter(purpose=f"lease {lease.pk}").exists()
    [proved] = _audited(Kind.LEASE_PROVED_DEAD)
    assert (proved["latency_ms"], proved["how"]) == (1500, receipt.how)
    [rotated] = _audited(Kind.CREDENTIAL_ROTATED)
    assert (rotated["replaced_version"], rotated["version"]) == (1, 2)
    assert ledger.verify_chain()
    everything = " ".join(AuditEvent.objects.values_list("data", flat=True))
    for secret in (leased.private_key, leased.password, again.private_key):
        if secret is not None:
            # Line by line: each of a key's, or the whole password.
            for line in secret.reveal().split():
                assert len(line) < 12 or line not in everything


def test_a_certificate_is_proved_dead_when_it_has_run_out(scada, time, settings):
    settings.CERTIFICATE_LOGIN_SECONDS = 30
    account = _register(scada)
    # As if the session had begun 40 seconds ago: sshd goes by the real time.
    time.forward(-40)
    leased = _lease(account, time.now)
    _end(leased, time)
    assert _withdraw(leased, time) is None
    lease = Lease.objects.get(pk=leased.lease_id)
    assert (lease.state, lease.tries) == (LeaseState.WITHDRAWING, 0)
    assert lease.try_again_at == leased.valid_until
    time.now = leased.valid_until
    receipt = _withdraw(leased, time)
    assert receipt is not None
    assert receipt.how == "certificate ran out"
    assert receipt.proved_by.startswith("paramiko")
    assert receipt.latency_ms <= 30_000


def test_a_certificate_still_accepted_stays_open_until_it_is_not(scada, time, settings):
    """As on a target whose clock is behind: the proof must not believe our clock."""
    settings.CERTIFICATE_LOGIN_SECONDS = 600
    account = _register(scada)
    leased = _lease(account, time.now)
    _end(leased, time)
    time.forward(601)
    assert _withdraw(leased, time) is None
    lease = Lease.objects.get(pk=leased.lease_id)
    assert (lease.state, lease.last_finding) == (LeaseState.OPEN, Finding.ACCEPTED)
    assert list(queries.open_leases()) == [lease]
    assert not RevocationReceipt.objects.exists()
    [event] = _audited(Kind.LEASE_STILL_OPEN)
    assert event["finding"] == "accepted"
    Path(scada.describe()["user_ca_file"]).write_text("")
    time.forward(1)
    receipt = _withdraw(leased, time)
    assert receipt is not None
    assert receipt.latency_ms == 602_000


def test_a_key_somebody_put_back_keeps_the_lease_open(hmi, time):
    account = _register(hmi)
    first, second = _lease(account, time.now), _lease(account, time.now)
    before = hmi.authorized_keys.read_bytes()
    _end(first, time)
    assert _withdraw(first, time) is not None
    with hmi.authorized_keys.open("ab") as file:
        file.write(before)
    _end(second, time)
    assert _withdraw(second, time) is None
    lease = Lease.objects.get(pk=second.lease_id)
    assert (lease.state, lease.last_finding) == (LeaseState.OPEN, Finding.ACCEPTED)
    # Once it is gone, the next try proves it.
    hmi.authorized_keys.write_bytes(
        hmi.authorized_keys.read_bytes().removesuffix(before)
    )
    time.forward(1)
    assert _withdraw(second, time) is not None


def test_the_second_lease_of_a_shared_credential_is_only_proved(hmi, time):
    account = _register(hmi)
    first, second = _lease(account, time.now), _lease(account, time.now)
    _end(first, time)
    _end(second, time)
    one, two = _withdraw(first, time), _withdraw(second, time)
    assert one is not None
    assert two is not None
    assert two.how == "key had been replaced already"
    assert len(_audited(Kind.CREDENTIAL_ROTATED)) == 1


def test_an_unreachable_target_is_tried_again_ever_more_rarely(hmi, time):
    account = _register(hmi)
    port = account.asset.port
    leased = _lease(account, time.now)
    _move(account, _port_of_nobody())
    _end(leased, time)
    waits = []
    for _ in range(11):
        assert _withdraw(leased, time) is None
        lease = Lease.objects.get(pk=leased.lease_id)
        assert lease.try_again_at is not None
        waits.append((lease.try_again_at - time.now).total_seconds())
        assert _withdraw(leased, time) is None
        assert operations.due_withdrawals(now=time.now) == []
        time.now = lease.try_again_at
        assert operations.due_withdrawals(now=time.now) == [leased.lease_id]
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert (lease.state, lease.last_finding) == (LeaseState.OPEN, Finding.NOT_TRIED)
    assert lease.tries == 11
    # The ledger hears of a state, not of every try.
    assert len(_audited(Kind.LEASE_STILL_OPEN)) == 1
    _move(account, port)
    receipt = _withdraw(leased, time)
    assert receipt is not None
    assert _finding(hmi, leased) is Finding.REFUSED
    assert AccountCredential.objects.filter(account=account).count() == 2


def test_a_wrong_host_key_is_an_alarm_of_its_own(hmi, time):
    account = _register(hmi)
    port = account.asset.port
    leased = _lease(account, time.now)
    _move(account, _port_of_nobody())
    _end(leased, time)
    assert _withdraw(leased, time) is None
    _move(account, port)
    HostKey.objects.filter(asset=account.asset).update(
        line=ssh_keys.public_line(ssh_keys.generate_key())
    )
    for _ in range(2):
        time.forward(10)
        assert _withdraw(leased, time) is None
    findings = [event["finding"] for event in _audited(Kind.LEASE_STILL_OPEN)]
    assert findings == ["not_tried", "wrong_host_key"]
    assert not RevocationReceipt.objects.exists()
    assert _finding(hmi, leased) is Finding.ACCEPTED


def test_r39_without_a_pin_nothing_is_proved(hmi, time):
    account = _register(hmi)
    leased = _lease(account, time.now)
    key = HostKey.objects.get(asset=account.asset)
    inventory.remove_host_key(key_id=key.pk, by=SET_UP, now=time.now)
    _end(leased, time)
    assert _withdraw(leased, time) is None
    lease = Lease.objects.get(pk=leased.lease_id)
    assert "no pinned host key" in lease.last_error


def test_a_hanging_target_takes_its_time_and_no_more(time, hmi, settings):
    settings.TARGET_CONNECT_SECONDS = 1
    account = _register(hmi)
    leased = _lease(account, time.now)
    _end(leased, time)
    with in_background(hanging_target()) as hanging:
        _move(account, hanging.port)
        assert _withdraw(leased, time) is None
    lease = Lease.objects.get(pk=leased.lease_id)
    assert (lease.state, lease.last_finding) == (LeaseState.OPEN, Finding.NOT_TRIED)


def test_a_credential_changed_behind_our_back_needs_a_person(hmi, time):
    """Refused is no proof when Sluice did not rotate: it may be a lock for a while."""
    account = _register(hmi)
    leased = _lease(account, time.now)
    own = ssh_keys.generate_key()
    hmi.authorized_keys.write_text(ssh_keys.public_line(own))
    _end(leased, time)
    assert _withdraw(leased, time) is None
    lease = Lease.objects.get(pk=leased.lease_id)
    assert lease.last_finding == Finding.NOT_ROTATED
    assert "store the one in force" in lease.last_error
    operations.store_credential(
        account=account,
        kind="key",
        secret=ssh_keys.private_text(own),
        by=SET_UP,
        now=time.now,
    )
    time.forward(2)
    receipt = _withdraw(leased, time)
    assert receipt is not None
    assert receipt.how == "key had been replaced already"


@pytest.mark.parametrize("crash_at", range(1, 8))
def test_a_crash_at_any_point_loses_neither_the_way_in_nor_the_proof(
    hmi, time, crash_at
):
    account = _register(hmi)
    leased = _lease(account, time.now)
    _end(leased, time)
    time.reads, time.crash_at = 0, crash_at
    try:
        receipt = _withdraw(leased, time)
    except Crash:
        receipt = None
        # The dead worker's claim keeps others out for a while, then not any more.
        assert time.reads == crash_at
    time.crash_at = 0
    time.forward(61)
    if receipt is None:
        receipt = _withdraw(leased, time)
    assert receipt is not None
    assert RevocationReceipt.objects.count() == 1
    assert _finding(hmi, leased) is Finding.REFUSED
    assert _finding(hmi, _lease(account, time.now)) is Finding.ACCEPTED
    assert _stored_account_secrets(account) == 1
    assert len(_audited(Kind.CREDENTIAL_ROTATED)) == 1
    assert len(hmi.authorized_keys.read_text().splitlines()) == 1


def test_the_crash_points_cover_the_whole_withdrawal(hmi, time):
    account = _register(hmi)
    leased = _lease(account, time.now)
    _end(leased, time)
    assert _withdraw(leased, time) is not None
    assert time.reads == 7


@pytest.mark.parametrize("reached_the_target", [False, True])
@pytest.mark.parametrize("kind", ["hmi", "switch"])
def test_a_stored_but_unconfirmed_credential_is_finished(
    kind, reached_the_target, request, time
):
    """A crash between storing the new credential and knowing that it is in force."""
    target = request.getfixturevalue(kind)
    account = _register(target)
    leased = _lease(account, time.now)
    _end(leased, time)
    time.crash_at = 3
    with pytest.raises(Crash):
        _withdraw(leased, time)
    pending = AccountCredential.objects.select_related("secret").get(installed_at=None)
    assert pending.secret is not None
    if reached_the_target:
        _put_on_target(target, leased, pending, operations.open_secret(pending.secret))
    time.forward(61)
    assert _withdraw(leased, time) is not None
    pending.refresh_from_db()
    assert pending.installed_at is not None
    assert _finding(target, leased) is Finding.REFUSED
    assert _finding(target, _lease(account, time.now)) is Finding.ACCEPTED


def _put_on_target(
    target, leased: LeasedCredential, pending: AccountCredential, secret: Secret
) -> None:
    if leased.password is not None:
        targets.rotate_password(
            whereabouts(target),
            old=leased.password,
            new=secret,
            dialogue=SWITCH,
            seconds=5,
        )
    else:
        target.authorized_keys.write_text(f"{pending.public_line}\n")


def test_two_threads_withdrawing_one_lease_write_one_receipt(hmi, time):
    account = _register(hmi)
    leased = _lease(account, time.now)
    _end(leased, time)
    results = _at_once(lambda _: _withdraw(leased, time), 2)
    receipts = [result for result in results if result is not None]
    assert len(receipts) == 1
    assert RevocationReceipt.objects.count() == 1
    assert len(_audited(Kind.CREDENTIAL_ROTATED)) == 1
    # Whoever comes later gets the same one.
    assert _withdraw(leased, time) == receipts[0]


def test_two_leases_of_one_account_at_once_rotate_once(hmi, time):
    account = _register(hmi)
    leases = [_lease(account, time.now) for _ in range(2)]
    for leased in leases:
        _end(leased, time)
    _at_once(lambda number: _withdraw(leases[number], time), 2)
    for _ in range(3):
        time.forward(61)
        for leased in leases:
            _withdraw(leased, time)
    assert RevocationReceipt.objects.count() == 2
    assert len(_audited(Kind.CREDENTIAL_ROTATED)) == 1
    assert _finding(hmi, leases[0]) is Finding.REFUSED
    assert _finding(hmi, _lease(account, time.now)) is Finding.ACCEPTED


def _at_once(work, count: int) -> list[RevocationReceipt | None]:
    barrier = threading.Barrier(count)
    results: list[RevocationReceipt | None] = []

    def run(number: int) -> None:
        try:
            barrier.wait(10)
            results.append(work(number))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    assert len(results) == count
    return results


class _Interrupted(Clock):
    """Lets another worker, a minute later, do everything at the n-th reading."""

    def __init__(self, leased: LeasedCredential, other: Clock, at: int) -> None:
        super().__init__()
        self.now = other.now
        self._leased, self._other, self._at = leased, other, at
        self.receipt: RevocationReceipt | None = None

    def __call__(self) -> dt.datetime:
        self.reads += 1
        if self.reads == self._at:
            assert not connection.in_atomic_block
            self._other.forward(61)
            self.receipt = _withdraw(self._leased, self._other)
        return self.now


@pytest.mark.parametrize("at", [1, 2, 5])
def test_a_worker_that_was_too_slow_changes_nothing_any_more(hmi, time, at):
    account = _register(hmi)
    leased = _lease(account, time.now)
    _end(leased, time)
    slow = _Interrupted(leased, time, at)
    assert _withdraw(leased, slow) is None
    assert slow.receipt is not None
    assert list(RevocationReceipt.objects.all()) == [slow.receipt]
    assert len(_audited(Kind.CREDENTIAL_ROTATED)) == 1
    assert len(_audited(Kind.LEASE_PROVED_DEAD)) == 1
    lease = Lease.objects.get(pk=leased.lease_id)
    assert (lease.state, lease.try_again_at) == (LeaseState.PROVED_DEAD, None)
    assert _finding(hmi, _lease(account, time.now)) is Finding.ACCEPTED


def test_a_worker_without_the_claim_does_not_call_the_lease_open(hmi, time):
    """Its network trouble is no news about a lease that another worker has."""
    account = _register(hmi)
    leased = _lease(account, time.now)
    port = account.asset.port
    _end(leased, time)
    with in_background(hanging_target()) as hanging:
        _move(account, hanging.port)
        results: list[RevocationReceipt | None] = []

        def work() -> None:
            try:
                results.append(_withdraw(leased, time))
            finally:
                connections.close_all()

        slow = threading.Thread(target=work)
        slow.start()
        deadline = clock() + dt.timedelta(seconds=10)
        while not hanging.connections:
            assert clock() < deadline
        _move(account, port)
        later = Clock()
        later.now = time.now + dt.timedelta(seconds=61)
        assert _withdraw(leased, later) is not None
        slow.join(30)
    assert results == [None]
    assert Lease.objects.get(pk=leased.lease_id).state == LeaseState.PROVED_DEAD
    assert _audited(Kind.LEASE_STILL_OPEN) == []


def test_a_lease_in_use_is_not_withdrawn(hmi, time):
    leased = _lease(_register(hmi), time.now)
    with pytest.raises(operations.LeaseInUseError):
        _withdraw(leased, time)
    assert _finding(hmi, leased) is Finding.ACCEPTED


def test_the_sweep_withdraws_what_is_due_and_survives_what_fails(hmi, time):
    account = _register(hmi)
    broken, leased = _lease(account, time.now), _lease(account, time.now)
    for each in (broken, leased):
        _end(each, time)
    StoredSecret.objects.filter(purpose=f"lease {broken.lease_id}").update(
        ciphertext=b"\0" * 40
    )
    tasks.sweep(seconds=0)
    assert not RevocationReceipt.objects.exists()
    tasks.sweep()
    tasks.sweep()
    assert Lease.objects.get(pk=leased.lease_id).state == LeaseState.PROVED_DEAD
    assert Lease.objects.get(pk=broken.lease_id).state == LeaseState.WITHDRAWING
    assert RevocationReceipt.objects.count() == 1
