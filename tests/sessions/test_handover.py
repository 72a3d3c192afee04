"""Who may hand the typing over, to whom, when; and that two at once cannot both win."""

import datetime as dt
import json
import threading
from dataclasses import dataclass
from typing import Any

import pytest
from django.db import IntegrityError, connections, transaction

from apps.access import operations as access
from apps.access.denials import DenialCode
from apps.access.models import Grant
from apps.accounts import operations as accounts
from apps.accounts.models import User
from apps.audit.kinds import Kind
from apps.audit.models import AuditEvent
from apps.inventory import operations as inventory
from apps.sessions import controls, handover, operations, queries, terminals, watches
from apps.sessions.lifecycle import AskedBy, EndReason
from apps.sessions.models import Session, Watch
from tests import factories
from tests.factories import SET_UP, clock
from tests.portal import plant_work

pytestmark = [pytest.mark.django_db, pytest.mark.both_databases]


@dataclass
class Scene:
    here: factories.Plant
    session: Session
    engineer: User
    receiver: User

    def give(self, by: User, to: str) -> Any:
        return handover.hand_over(session_id=self.session.pk, by=by, to=to, now=clock())

    def back(self, by: User) -> Any:
        return handover.take_back(session_id=self.session.pk, by=by, now=clock())

    def watching(self) -> Watch:
        return Watch.objects.get(session=self.session, ended_at=None)


@pytest.fixture
def scene() -> Scene:
    here = factories.plant()
    session = plant_work.live_session(factories.grant(here), plant_work.gateway())
    receiver = plant_work.receiver(here)
    plant_work.watch(session, receiver)
    return Scene(here, session, here.engineer, receiver)


def written(*kinds: Kind) -> list[tuple[str, str, dict[str, object]]]:
    rows = AuditEvent.objects.filter(kind__in=kinds).order_by("seq")
    return [(row.kind, row.actor_label, json.loads(row.data)) for row in rows]


def test_the_engineer_hands_over_and_takes_back(scene):
    assert scene.give(scene.engineer, scene.receiver.username.upper())
    scene.session.refresh_from_db()
    assert scene.session.typist == scene.receiver
    assert scene.session.typist_number == 1
    assert scene.give(scene.engineer, scene.receiver.username).code == (
        DenialCode.HANDED_OVER_ALREADY
    )
    assert handover.note_typist(
        session_id=scene.session.pk, number=1, typist="x", now=clock()
    )
    assert not handover.note_typist(
        session_id=scene.session.pk, number=1, typist="x", now=clock()
    )
    assert scene.back(scene.engineer)
    assert scene.back(scene.engineer).code == DenialCode.NOT_HANDED_OVER
    kinds = (
        Kind.SESSION_HANDED_OVER,
        Kind.SESSION_TYPIST_CHANGED,
        Kind.SESSION_TAKEN_BACK,
    )
    events = written(*kinds)
    assert [kind for kind, _, _ in events] == list(kinds)
    assert events[0][1] == scene.engineer.username
    assert events[0][2] == {
        "door": "portal",
        "to": scene.receiver.username,
        "number": 1,
    }
    assert events[2][2]["from"] == scene.receiver.username
    # The gateway's own return of an earlier one changes nothing later.
    assert scene.give(scene.engineer, scene.receiver.username)
    late = {"session_id": scene.session.pk, "why": "x", "now": clock()}
    assert not handover.end_hand_over(number=1, **late)
    assert handover.end_hand_over(number=3, **late)


def test_it_takes_two_and_the_second_has_access_of_their_own(scene):
    here, name = scene.here, scene.receiver.username
    # Who controls the session may give it to somebody else, never to themselves.
    assert scene.give(scene.receiver, name).code == DenialCode.RECEIVER_REFUSED
    for by in (here.auditor, here.second_engineer, here.administrator):
        assert scene.give(by, name).code == DenialCode.NOT_PERMITTED
    # An approver or auditor without a grant, a grant without a watch, nobody at all.
    engineer = here.second_engineer
    factories.grant(here, person=engineer)
    for watcher in (here.approver, here.auditor):
        plant_work.watch(scene.session, watcher)
    for to in (
        here.approver.username,
        here.auditor.username,
        engineer.username,
        scene.engineer.username,
        "no-such-person",
        "",
        "\x00",
        "'; --",
    ):
        answer = scene.give(scene.engineer, to)
        assert (answer.code, answer.message) == (
            DenialCode.RECEIVER_REFUSED,
            scene.give(scene.engineer, "nobody").message,
        )
    assert queries.receivers(scene.session, now=clock()) == [scene.receiver]
    assert scene.give(here.approver, name)
    for by in (here.auditor, engineer, here.administrator):
        assert scene.back(by).code == DenialCode.NOT_PERMITTED
    assert scene.back(scene.receiver)
    assert scene.give(here.second_approver, name)
    assert scene.back(here.approver)


@pytest.mark.parametrize(
    "what",
    ["revoked", "expired", "no shell", "no keyboard", "left", "disabled", "role"],
)
def test_what_takes_the_right_to_receive(scene, what):
    grant, receiver = Grant.objects.get(person=scene.receiver), scene.receiver
    now = clock()
    if what == "revoked":
        access.revoke_grant(
            grant_id=grant.pk, by=scene.here.approver, reason="x", now=now
        )
    elif what == "expired":
        now += dt.timedelta(minutes=29)
        Grant.objects.filter(pk=grant.pk).update(ends_at=now)
    elif what == "no shell":
        Grant.objects.filter(pk=grant.pk).update(services=["exec"])
    elif what == "no keyboard":
        Watch.objects.update(can_type=False)
    elif what == "left":
        watches.end_watch(watch_id=scene.watching().pk, why="x", now=now)
    elif what == "disabled":
        accounts.disable_person(
            user_id=receiver.pk, by=scene.here.administrator, now=now
        )
    else:
        inventory.remove_member(site=scene.here.site, user=receiver, by=SET_UP, now=now)
    denied = handover.hand_over(
        session_id=scene.session.pk, by=scene.engineer, to=receiver.username, now=now
    )
    assert denied.code == DenialCode.RECEIVER_REFUSED


@pytest.mark.parametrize("what", ["frozen", "locked", "ended", "two", "none", "exec"])
def test_only_in_a_calm_session_with_one_shell(scene, what):
    session_id, now = scene.session.pk, clock()
    code = DenialCode.HANDOVER_NOT_NOW
    if what == "frozen":
        plant_work.freeze(scene.session, scene.here.approver)
    elif what == "locked":
        terminals.note_locked(session_id=session_id, now=now)
    elif what == "ended":
        operations.close_session(
            session_id=session_id, reason=EndReason.FINISHED, now=now
        )
        code = DenialCode.NOT_PERMITTED
    elif what == "two":
        operations.open_channel(
            session_id=session_id, number=3, kind="exec", has_pty=True, now=now
        )
    else:
        operations.close_channel(
            session_id=session_id,
            number=1,
            exit_status=0,
            exit_signal="",
            bytes_in=0,
            bytes_out=0,
            now=now,
        )
    if what == "exec":
        operations.open_channel(
            session_id=session_id, number=3, kind="exec", has_pty=True, now=now
        )
    assert scene.give(scene.engineer, scene.receiver.username).code == code
    assert not written(Kind.SESSION_HANDED_OVER)


def test_taking_back_is_possible_while_frozen_and_the_end_leaves_nobody_typing(scene):
    assert scene.give(scene.engineer, scene.receiver.username)
    plant_work.freeze(scene.session, scene.here.approver)
    assert scene.back(scene.engineer)
    controls.ask_resume(
        session_id=scene.session.pk, by=scene.here.approver, now=clock()
    )
    operations.note_frozen(session_id=scene.session.pk, frozen=False, now=clock())
    assert scene.give(scene.engineer, scene.receiver.username)
    operations.close_session(
        session_id=scene.session.pk, reason=EndReason.FINISHED, now=clock()
    )
    scene.session.refresh_from_db()
    assert scene.session.typist is None
    assert not Watch.objects.filter(ended_at=None).exists()
    with (
        pytest.raises(IntegrityError, match="nobody_types_in_an_ended"),
        transaction.atomic(),
    ):
        Session.objects.update(typist=scene.receiver)
    assert scene.back(scene.engineer).code == DenialCode.NOT_PERMITTED


@pytest.mark.django_db(transaction=True)
def test_of_two_receivers_at_once_one_types(scene):
    """One from the engineer, one from an approver, at the same moment."""
    other = plant_work.receiver(scene.here)
    plant_work.watch(scene.session, other)
    barrier, answers = threading.Barrier(2), []

    def give(by, to):
        try:
            barrier.wait(timeout=20)
            answers.append(scene.give(by, to.username))
        finally:
            connections.close_all()

    threads = [
        threading.Thread(target=give, args=pair)
        for pair in ((scene.engineer, scene.receiver), (scene.here.approver, other))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(bool(answer) for answer in answers) == [False, True]
    [lost] = [answer for answer in answers if not answer]
    assert lost.code == DenialCode.HANDED_OVER_ALREADY
    [(_, _, data)] = written(Kind.SESSION_HANDED_OVER)
    scene.session.refresh_from_db()
    assert scene.session.typist.username == data["to"]


def test_a_watch_is_decided_on_again(scene):
    watch = scene.watching()
    looking = [watches.Looking(watch_id=watch.pk)]
    assert watches.denied_now(looking) == frozenset()
    inventory.remove_member(
        site=scene.here.site, user=scene.receiver, by=SET_UP, now=clock()
    )
    assert watches.denied_now(looking) == {watch.pk}
    assert watches.end_watch(watch_id=watch.pk, why="x", now=clock())
    assert not watches.end_watch(watch_id=watch.pk, why="x", now=clock())
    denied = watches.begin_watch(
        user=scene.receiver,
        session_id=scene.session.pk,
        asked=AskedBy("ssh"),
        can_type=True,
        now=clock(),
    )
    assert denied.code == DenialCode.NOT_PERMITTED
