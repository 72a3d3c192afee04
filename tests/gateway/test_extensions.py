"""A live session's deadline follows an approved extension, and nothing else."""

import asyncio
import datetime as dt
import json

from apps.access import operations as access
from apps.access.models import Grant, GrantExtension
from apps.audit.kinds import Kind
from apps.audit.models import AuditEvent
from apps.sessions import operations as sessions
from apps.sessions.models import Session
from apps.vault.models import Lease
from tests import factories
from tests.factories import clock
from tests.gateway.conftest import until
from tests.gateway.test_sessions import connect_for, ended_session


def more_time(client, minutes=30):
    """Ask for more time and approve it, as two people do."""
    grant = Grant.objects.get()
    asked = access.ask_extension(
        grant_id=grant.pk,
        by=client.here.engineer.user,
        minutes=minutes,
        reason="The pump does not start",
        source_address="192.0.2.7",
        now=clock(),
    )
    assert isinstance(asked, GrantExtension), asked
    made = access.approve_extension(
        extension_id=asked.pk,
        approver=client.here.plant.approver,
        minutes=minutes,
        comment="",
        source_address="192.0.2.8",
        now=clock(),
    )
    assert isinstance(made, Grant), made
    return made


def only_session():
    return Session.objects.select_related("lease").get()


async def shown_until(process, words):
    shown = ""
    async with asyncio.timeout(10):
        while words not in shown:
            shown += await process.stdout.read(4096)
    return shown


async def test_the_session_goes_on_past_its_first_deadline(client):
    connection = await connect_for(client, 4)
    process = await connection.create_process(term_type="vt100")
    first = (await client.ask(only_session)).deadline
    grant = await client.ask(more_time, client)
    shown = await shown_until(process, "more time was approved")
    assert f"{grant.ends_at:%H:%M} UTC" in shown
    session = await client.ask(only_session)
    assert session.deadline == grant.ends_at
    lease = await client.ask(Lease.objects.get)
    assert lease.valid_until == grant.ends_at

    async def later():
        return clock() > first + dt.timedelta(seconds=0.5)

    await until(later)
    process.stdin.write("still here\n")
    await shown_until(process, "still here")
    assert (await client.ask(only_session)).ended_at is None

    def event():
        return json.loads(AuditEvent.objects.get(kind=Kind.SESSION_EXTENDED).data)

    assert (await client.ask(event))["deadline"] == grant.ends_at.isoformat()


async def test_asking_alone_moves_nothing(client):
    connection = await connect_for(client, 2)
    process = await connection.create_process(term_type="vt100")

    def ask():
        asked = access.ask_extension(
            grant_id=Grant.objects.get().pk,
            by=client.here.engineer.user,
            minutes=30,
            reason="why",
            source_address="192.0.2.7",
            now=clock(),
        )
        assert isinstance(asked, GrantExtension), asked

    await client.ask(ask)
    shown = await asyncio.wait_for(process.stdout.read(), 10)
    assert "the time is up" in shown
    assert (await ended_session(client)).end_reason == "expired"


async def test_an_extended_session_still_ends_when_its_grant_is_revoked(client):
    connection = await connect_for(client, 30)
    process = await connection.create_process(term_type="vt100")
    grant = await client.ask(more_time, client)
    await shown_until(process, "more time was approved")
    assert await client.ask(
        access.revoke_grant,
        grant_id=grant.pk,
        by=client.here.plant.approver,
        reason="enough",
        now=clock(),
    )
    assert "enough" in await asyncio.wait_for(process.stdout.read(), 10)
    assert (await ended_session(client)).end_reason == "revoked"


async def test_a_deadline_follows_no_other_change_and_never_comes_back(client):
    connection = await connect_for(client, 30)
    await connection.create_process()
    session = await client.ask(only_session)
    # Nothing to follow, a grant that was given back, a session that has ended.
    follow = {"session_id": session.pk, "now": factories.clock()}
    assert await client.ask(sessions.follow_extension, **follow) is None
    await client.ask(more_time, client)
    await until(lambda: client.ask(_followed))
    live = client.service.core.live[session.pk]
    deadline = live.deadline
    live.move_deadline(deadline - dt.timedelta(minutes=1), now=clock())
    assert live.deadline == deadline
    assert await client.ask(
        access.finish_grant,
        grant_id=session.grant_id,
        by=client.here.engineer.user,
        now=clock(),
    )
    await ended_session(client)
    live.move_deadline(deadline + dt.timedelta(minutes=1), now=clock())
    assert live.deadline == deadline
    assert await client.ask(sessions.follow_extension, **follow) is None


def _followed():
    return AuditEvent.objects.filter(kind=Kind.SESSION_EXTENDED).exists()
