"""Sessions, gateways and tickets through their one door."""

import datetime as dt
import threading

import pytest
from django.db import IntegrityError, connections, transaction

from apps.access import authorization
from apps.access import operations as access
from apps.access.denials import DenialCode
from apps.access.queries import standing
from apps.accounts import operations as accounts
from apps.audit.kinds import Kind
from apps.audit.models import AuditEvent
from apps.inventory import operations as inventory
from apps.inventory.models import Asset
from apps.sessions import controls, gateways, operations, queries, tickets
from apps.sessions.lifecycle import (
    LIVE,
    SENTENCES,
    TRANSITIONS,
    EndReason,
    SessionState,
)
from apps.sessions.models import Channel, ConnectionTicket, GatewayNode, Session
from apps.vault import operations as vault
from apps.vault.models import LeaseState
from apps.vault.secret_values import Secret
from tests import factories
from tests.factories import SET_UP, clock

pytestmark = [pytest.mark.django_db, pytest.mark.both_databases]


def _gateway(name="gateway-1", now=None):
    return gateways.register_gateway(
        name=name,
        version="0",
        ssh_address="127.0.0.1:2222",
        link_address="unix:/none",
        now=now or clock(),
    )


def _open(here, gateway, grant=None):
    grant = grant or factories.grant(here)
    permit = authorization.authorize_connection(
        user=grant.person,
        asset_name=here.asset.name,
        account_name=None,
        source_address="192.0.2.7",
        door="ssh",
        now=clock(),
    )
    assert permit
    return operations.open_session(
        permit=permit, gateway_id=gateway.pk, client="OpenSSH\x1b[0m_9.2", now=clock()
    )


def _password_account(here):
    """An account of the plant's asset whose password is in the vault."""
    account = inventory.add_account(
        asset=here.asset,
        name="admin",
        credential_kind="password",
        by=SET_UP,
        now=clock(),
    )
    vault.store_credential(
        account=account,
        kind="password",
        secret=Secret("correct horse battery staple"),
        by=SET_UP,
        now=clock(),
    )
    return account


def _activate(session):
    assert operations.activate_session(
        session_id=session.pk, host_key_fingerprint="SHA256:x", now=clock()
    )


def test_the_tables_of_states_are_whole():
    assert set(TRANSITIONS) == set(SessionState)
    assert set(SENTENCES) == set(EndReason)
    assert SessionState.ENDED not in LIVE


def test_a_session_goes_its_way_with_one_event_a_step():
    """R22: opened, activated, channel, ended, each in the ledger once."""
    here = factories.plant()
    session = _open(here, _gateway())
    assert session.state == SessionState.OPENING
    assert session.client == "OpenSSH[0m_9.2"
    _activate(session)
    operations.open_channel(
        session_id=session.pk,
        number=1,
        kind="exec",
        command="uptime\x00",
        has_pty=False,
        now=clock(),
    )
    assert operations.close_channel(
        session_id=session.pk,
        number=1,
        exit_status=0,
        exit_signal="",
        bytes_in=0,
        bytes_out=12,
        now=clock(),
    )
    assert operations.close_session(
        session_id=session.pk, reason=EndReason.FINISHED, now=clock()
    )
    for kind in (
        Kind.SESSION_OPENED,
        Kind.SESSION_ACTIVATED,
        Kind.CHANNEL_OPENED,
        Kind.CHANNEL_CLOSED,
        Kind.SESSION_ENDED,
    ):
        assert AuditEvent.objects.filter(kind=kind).count() == 1, kind
    assert Channel.objects.get().command == "uptime\ufffd"


def test_a_session_ends_once():
    here = factories.plant()
    session = _open(here, _gateway())
    assert operations.close_session(
        session_id=session.pk, reason=EndReason.EXPIRED, now=clock()
    )
    assert not operations.close_session(
        session_id=session.pk, reason=EndReason.REVOKED, now=clock()
    )
    session.refresh_from_db()
    assert session.end_reason == EndReason.EXPIRED
    assert not operations.activate_session(
        session_id=session.pk, host_key_fingerprint="", now=clock()
    )


def test_an_end_without_its_reason_is_refused_by_the_database():
    here = factories.plant()
    session = _open(here, _gateway())
    with (
        pytest.raises(IntegrityError, match=r"ended_at_and_end_reason|ended_session"),
        transaction.atomic(),
    ):
        Session.objects.filter(pk=session.pk).update(ended_at=clock())


@pytest.mark.django_db(transaction=True)
def test_the_last_free_place_goes_to_one_of_two():
    here = factories.plant()
    Asset.objects.filter(pk=here.asset.pk).update(session_limit=1)
    gateway, grant = _gateway(), factories.grant(here)
    barrier, results = threading.Barrier(2), []

    def open_one():
        barrier.wait()
        results.append(_open(here, gateway, grant))
        connections.close_all()

    threads = [threading.Thread(target=open_one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(bool(result) for result in results) == [False, True]
    (refused,) = (result for result in results if not result)
    assert refused.code == DenialCode.SESSION_LIMIT


def test_nothing_must_end_while_the_decision_stands():
    here, gateway = factories.plant(), _gateway()
    _open(here, gateway)
    assert queries.verdicts(gateway_id=gateway.pk, now=clock()) == []


def _revoke(here, session):
    assert access.revoke_grant(
        grant_id=session.grant_id, by=here.approver, reason="alarm 7", now=clock()
    )


def _finish(here, session):
    assert access.finish_grant(grant_id=session.grant_id, by=here.engineer, now=clock())


def _terminate(here, session):
    assert controls.ask_terminate(
        session_id=session.pk, by=here.approver, reason="stop", now=clock()
    )


def _disable(here, _session):
    assert accounts.disable_person(
        user_id=here.engineer.pk, by=here.administrator, now=clock()
    )


def _cut_conduit(here, _session):
    assert inventory.remove_conduit(conduit_id=here.conduit.pk, by=SET_UP, now=clock())


@pytest.mark.parametrize(
    ("change", "reason", "told"),
    [
        (_revoke, EndReason.REVOKED, "alarm 7"),
        (_finish, EndReason.FINISHED, "gave the access back"),
        (_terminate, EndReason.TERMINATED, "stop"),
        (_disable, EndReason.REVOKED, "disabled"),
        (_cut_conduit, EndReason.REVOKED, "conduit"),
    ],
)
def test_every_change_ends_the_session_and_says_why(change, reason, told):
    here, gateway = factories.plant(), _gateway()
    session = _open(here, gateway)
    _activate(session)
    change(here, session)
    (verdict,) = queries.verdicts(gateway_id=gateway.pk, now=clock())
    assert (verdict.session_id, verdict.reason) == (session.pk, reason)
    assert told in verdict.message.lower()


def test_a_revocation_in_the_middle_of_a_look_says_who_and_why(monkeypatch):
    here, gateway = factories.plant(), _gateway()
    session = _open(here, gateway)

    def revoked_first(grants, *, now):
        assert access.revoke_grant(
            grant_id=session.grant_id, by=here.approver, reason="wrong pump", now=now
        )
        return standing(grants, now=now)

    monkeypatch.setattr(queries, "standing", revoked_first)
    (verdict,) = queries.verdicts(gateway_id=gateway.pk, now=clock())
    assert verdict.message == (
        f"access revoked by {here.approver.username}: wrong pump"
    )


def test_the_deadline_ends_the_session():
    here, gateway = factories.plant(), _gateway()
    session = _open(here, gateway)
    (verdict,) = queries.verdicts(gateway_id=gateway.pk, now=session.deadline)
    assert verdict.reason == EndReason.EXPIRED
    early = session.deadline - dt.timedelta(microseconds=1)
    assert queries.verdicts(gateway_id=gateway.pk, now=early) == []


def test_who_sees_watches_and_ends_a_session():
    here, elsewhere = factories.plant(), factories.plant()
    session = _open(here, _gateway())
    people = {
        "engineer": here.engineer,
        "colleague": here.second_engineer,
        "approver": here.approver,
        "auditor": here.auditor,
        "administrator": here.administrator,
        "foreign approver": elsewhere.approver,
        "foreign auditor": elsewhere.auditor,
    }

    def able(check):
        return {name for name, person in people.items() if check(person)}

    assert able(lambda p: session in queries.sessions_visible_to(p)) == {
        "engineer",
        "approver",
        "auditor",
    }
    assert able(lambda p: queries.may_watch(p, session)) == {"approver", "auditor"}
    assert able(lambda p: queries.may_terminate(p, session)) == {
        "engineer",
        "approver",
    }


def test_a_new_gateway_of_the_same_name_closes_what_the_lost_one_left():
    here = factories.plant()
    session = _open(here, _gateway())
    second = _gateway()
    session.refresh_from_db()
    assert session.end_reason == EndReason.GATEWAY_LOST
    assert queries.running_gateways().get() == second
    assert AuditEvent.objects.filter(kind=Kind.GATEWAY_LOST).count() == 1


def test_a_silent_gateway_is_given_up_once():
    here, now = factories.plant(), clock()
    gateway = _gateway(now=now)
    session = _open(here, gateway)
    beat = now + dt.timedelta(seconds=1)
    assert gateways.heartbeat(gateway_id=gateway.pk, now=beat)
    given = {"gateway_id": gateway.pk, "now": beat}
    assert not gateways.give_up_gateway(seen_at=now, **given), "heard since"
    assert gateways.give_up_gateway(seen_at=beat, **given)
    assert not gateways.give_up_gateway(seen_at=beat, **given)
    assert not gateways.heartbeat(gateway_id=gateway.pk, now=beat)
    assert queries.heartbeats() == {}
    session.refresh_from_db()
    assert session.end_reason == EndReason.GATEWAY_LOST
    assert AuditEvent.objects.filter(kind=Kind.GATEWAY_LOST).count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_heartbeat_and_giving_up_cannot_both_win():
    """Whichever comes first: a gateway that was given up is told so."""
    for _ in range(10):
        now = clock()
        gateway = _gateway(now=now)
        barrier, told = threading.Barrier(2), {}

        def beat(gateway=gateway, now=now, barrier=barrier, told=told):
            barrier.wait()
            later = now + dt.timedelta(seconds=1)
            told["lives"] = gateways.heartbeat(gateway_id=gateway.pk, now=later)
            connections.close_all()

        def give_up(gateway=gateway, now=now, barrier=barrier, told=told):
            barrier.wait()
            told["lost"] = gateways.give_up_gateway(
                gateway_id=gateway.pk, seen_at=now, now=now
            )
            connections.close_all()

        threads = [threading.Thread(target=each) for each in (beat, give_up)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert told["lives"] is not told["lost"]


def test_who_is_gone_leaves_the_leases_to_the_others():
    here = factories.plant()
    account = _password_account(here)
    mine, gone = _gateway("gateway-1"), _gateway("gateway-2")
    session = _open(here, gone, factories.grant(here, account=account))
    operations.lease_for_session(session_id=session.pk, now=clock())
    seen_at = queries.heartbeats()[gone.pk]

    def due(name, seconds=60):
        later = clock() + dt.timedelta(seconds=seconds)
        return queries.leases_to_withdraw(gateway_name=name, now=later)[0]

    assert due(mine.name) == [], "the session is live"
    assert gateways.give_up_gateway(gateway_id=gone.pk, seen_at=seen_at, now=clock())
    session.refresh_from_db()
    assert session.lease.state == LeaseState.WITHDRAWING
    assert due(mine.name, seconds=0) == [], "it may only be starting again"
    assert due(mine.name) == due(gone.name) == [session.lease_id]
    _gateway("gateway-2")
    assert due(mine.name) == [], "it is back and does it itself"


def test_a_stopped_gateway_stops_once():
    gateway = _gateway()
    assert gateways.heartbeat(gateway_id=gateway.pk, now=clock())
    assert gateways.stop_gateway(gateway_id=gateway.pk, now=clock())
    assert not gateways.stop_gateway(gateway_id=gateway.pk, now=clock())
    assert not GatewayNode.objects.filter(stopped_at=None).exists()


def test_the_end_of_a_session_ends_its_lease():
    here = factories.plant()
    account = _password_account(here)
    session = _open(here, _gateway(), factories.grant(here, account=account))
    credential = operations.lease_for_session(session_id=session.pk, now=clock())
    assert "horse" not in repr(credential)
    operations.close_session(
        session_id=session.pk, reason=EndReason.REVOKED, now=clock()
    )
    session.refresh_from_db()
    assert session.lease.state == LeaseState.WITHDRAWING


def test_a_lease_left_behind_is_ended_by_the_sweep():
    here = factories.plant()
    account = _password_account(here)
    now = clock()
    vault.lease_credential(
        account_id=account.pk,
        holder=here.asset.pk,
        deadline=now + dt.timedelta(hours=1),
        now=now,
    )
    assert operations.end_leases_of_ended_sessions(now=now) == 0
    later = now + dt.timedelta(seconds=31)
    assert operations.end_leases_of_ended_sessions(now=later) == 1


class TestTickets:
    """R2: bound to person and grant, single use, hashed at rest."""

    def _ticket(self, here, grant, user=None, now=None):
        return tickets.issue_terminal_ticket(
            user=user or here.engineer,
            grant_id=grant.pk,
            source_address="192.0.2.7",
            now=now or clock(),
        )

    def test_a_ticket_works_once(self):
        here = factories.plant()
        grant = factories.grant(here)
        token = self._ticket(here, grant)
        redeemed = tickets.redeem_ticket(token=token, now=clock())
        assert (redeemed.user, redeemed.grant_id) == (here.engineer, grant.pk)
        assert tickets.redeem_ticket(token=token, now=clock()) is None

    def test_only_the_hash_is_kept(self):
        here = factories.plant()
        token = self._ticket(here, factories.grant(here))
        row = ConnectionTicket.objects.values().get()
        assert token not in str(row)

    def test_a_ticket_expires_after_half_a_minute(self):
        here, now = factories.plant(), clock()
        token = self._ticket(here, factories.grant(here, now=now), now=now)
        later = now + dt.timedelta(seconds=30)
        assert tickets.redeem_ticket(token=token, now=later) is None

    def test_nobody_gets_a_ticket_for_another_persons_grant(self):
        here = factories.plant()
        grant = factories.grant(here)
        for user in (here.second_engineer, here.approver, here.administrator):
            verdict = self._ticket(here, grant, user=user)
            assert verdict.message == authorization.NO_ACCESS_MESSAGE

    def test_a_disabled_persons_ticket_is_void(self):
        here = factories.plant()
        token = self._ticket(here, factories.grant(here))
        _disable(here, None)
        assert tickets.redeem_ticket(token=token, now=clock()) is None

    def test_an_unknown_ticket_is_nothing(self):
        assert tickets.redeem_ticket(token="guess", now=clock()) is None

    def test_watching_is_for_approvers_and_auditors(self):
        here = factories.plant()
        session = _open(here, _gateway())
        for user, allowed in (
            (here.approver, True),
            (here.auditor, True),
            (here.engineer, False),
            (here.administrator, False),
        ):
            ticket = tickets.issue_watch_ticket(
                user=user,
                session_id=session.pk,
                source_address="192.0.2.7",
                now=clock(),
            )
            assert bool(ticket) is allowed
