"""Every write to sessions and their channels."""

import datetime as dt
import uuid

from django.db import transaction

from apps.access.denials import DenialCode, Denied
from apps.access.permits import ConnectionPermit
from apps.audit import operations as audit
from apps.audit.kinds import Kind
from apps.audit.models import Outcome
from apps.audit.operations import NOBODY, Party
from apps.inventory.models import Asset
from apps.sessions.lifecycle import (
    TRANSITIONS,
    EndReason,
    SessionState,
)
from apps.sessions.models import (
    Channel,
    Session,
    Watch,
)
from apps.vault import operations as vault
from apps.vault.leases import LeasedCredential
from apps.vault.models import Lease, LeaseState

_DETAIL_LENGTH = 300


@transaction.atomic
def open_session(
    *, permit: ConnectionPermit, gateway_id: uuid.UUID, client: str, now: dt.datetime
) -> Session | Denied:
    """Make the row of a session that a permit allows, before anything is dialled.

    The asset's limit is counted under a lock on the asset, so that two at once cannot
    both be the last.
    """
    asset = Asset.objects.select_for_update().get(pk=permit.asset_id)
    if asset.session_limit:
        live = Session.objects.live().filter(asset=asset).count()
        if live >= asset.session_limit:
            denial = Denied(DenialCode.SESSION_LIMIT)
            audit.record(
                Kind.CONNECTION_DENIED,
                now=now,
                actor=Party("person", str(permit.user_id), permit.handle),
                subject=asset.party,
                source_address=permit.source_address,
                outcome=Outcome.DENIED,
                data={"code": denial.code, "live": live},
            )
            return denial
    session = Session.objects.create(
        grant_id=permit.grant_id,
        person_id=permit.user_id,
        asset=asset,
        account_id=permit.account_id,
        gateway_id=gateway_id,
        door=permit.door,
        source_address=permit.source_address,
        client="".join(c for c in client if c.isprintable())[:120],
        crypto_profile=permit.crypto_profile,
        end_mode=permit.end_mode,
        opened_at=now,
        deadline=permit.deadline,
    )
    audit.record(
        Kind.SESSION_OPENED,
        now=now,
        actor=Party("person", str(permit.user_id), permit.handle),
        subject=session.party,
        source_address=permit.source_address,
        data={
            "asset": permit.asset_name,
            "account": permit.account_name,
            "grant": str(permit.grant_id),
            "door": permit.door,
            "deadline": permit.deadline,
            "end_mode": permit.end_mode,
            "crypto_profile": permit.crypto_profile,
        },
    )
    return session


@transaction.atomic
def lease_for_session(
    *, session_id: uuid.UUID, now: dt.datetime, forwards: bool = False
) -> LeasedCredential:
    """Lease the credential of the session's account until its deadline.

    With `forwards` a certificate lets the gateway ask the asset for forwarded ports.

    A second call (after the asset refused a credential that was being rotated) ends the
    first lease. Raises: vault.operations.NoCredentialError.
    """
    session = Session.objects.select_for_update().get(pk=session_id)
    if session.lease_id is not None:
        vault.end_lease(lease_id=session.lease_id, now=now)
    credential = vault.lease_credential(
        account_id=session.account_id,
        holder=session.pk,
        deadline=session.deadline,
        now=now,
        forwards=forwards,
    )
    session.lease_id = credential.lease_id
    session.save(update_fields=["lease"])
    return credential


def _move(session: Session, state: SessionState) -> bool:
    if state not in TRANSITIONS[SessionState(session.state)]:
        return False
    session.state = state
    return True


@transaction.atomic
def activate_session(
    *, session_id: uuid.UUID, host_key_fingerprint: str, now: dt.datetime
) -> bool:
    """Note that the asset was reached: from now on channels may open."""
    session = Session.objects.select_for_update().get(pk=session_id)
    if not _move(session, SessionState.ACTIVE):
        return False
    session.active_at = now
    session.host_key_fingerprint = host_key_fingerprint
    session.save(update_fields=["state", "active_at", "host_key_fingerprint"])
    audit.record(
        Kind.SESSION_ACTIVATED,
        now=now,
        actor=audit.system("gateway"),
        subject=session.party,
        data={"host_key": host_key_fingerprint},
    )
    return True


@transaction.atomic
def note_frozen(*, session_id: uuid.UUID, frozen: bool, now: dt.datetime) -> bool:
    """Note that the session's input is held, or runs again."""
    session = Session.objects.select_for_update().get(pk=session_id)
    if not _move(session, SessionState.FROZEN if frozen else SessionState.ACTIVE):
        return False
    session.save(update_fields=["state"])
    audit.record(
        Kind.SESSION_FROZEN if frozen else Kind.SESSION_RESUMED,
        now=now,
        actor=audit.system("gateway"),
        subject=session.party,
        data={"frozen": frozen},
    )
    return True


@transaction.atomic
def note_ending(*, session_id: uuid.UUID, now: dt.datetime) -> bool:
    """Note that the session takes no new channel any more."""
    session = Session.objects.select_for_update().get(pk=session_id)
    if not _move(session, SessionState.ENDING):
        return False
    session.save(update_fields=["state"])
    audit.record(
        Kind.SESSION_FROZEN,
        now=now,
        actor=audit.system("gateway"),
        subject=session.party,
        data={"ending": True},
    )
    return True


@transaction.atomic
def follow_extension(*, session_id: uuid.UUID, now: dt.datetime) -> dt.datetime | None:
    """Move a live session's deadline to the end of its grant, when that is later.

    Returns the new deadline. None when there is nothing to follow: the grant holds no
    more, or ends no later. Nothing else ever moves a deadline.
    """
    session = (
        Session.objects.select_for_update(of=("self",))
        .select_related("grant")
        .filter(pk=session_id, ended_at=None)
        .first()
    )
    if session is None:
        return None
    before, deadline = session.deadline, session.grant.ends_at
    if deadline <= before or not session.grant.is_active(now):
        return None
    session.deadline = deadline
    session.save(update_fields=["deadline"])
    if session.lease_id is not None:
        vault.extend_lease(lease_id=session.lease_id, until=deadline)
    audit.record(
        Kind.SESSION_EXTENDED,
        now=now,
        actor=audit.system("gateway"),
        subject=session.party,
        data={"deadline_before": before, "deadline": deadline},
    )
    return deadline


@transaction.atomic
def close_session(
    *, session_id: uuid.UUID, reason: EndReason, detail: str = "", now: dt.datetime
) -> bool:
    """End a session's row, its channels and its lease; False when it had ended."""
    session = (
        Session.objects.select_for_update(of=("self",))
        .select_related("person", "account__asset")
        .filter(pk=session_id, ended_at=None)
        .first()
    )
    if session is None:
        return False
    session.state = SessionState.ENDED
    session.ended_at = now
    session.end_reason = reason
    session.end_detail = detail[:_DETAIL_LENGTH]
    session.typist = None
    session.save(
        update_fields=["state", "ended_at", "end_reason", "end_detail", "typist"]
    )
    Channel.objects.filter(session=session, closed_at=None).update(closed_at=now)
    Watch.objects.filter(session=session, ended_at=None).update(ended_at=now)
    if session.lease_id is not None:
        vault.end_lease(lease_id=session.lease_id, now=now)
    audit.record(
        Kind.SESSION_ENDED,
        now=now,
        actor=audit.system("gateway"),
        subject=session.party,
        outcome=Outcome.SUCCESS
        if reason
        not in {
            EndReason.GATEWAY_LOST,
            EndReason.RECORDING_FAILED,
            EndReason.TARGET_LOST,
        }
        else Outcome.FAILURE,
        data={
            "reason": reason,
            "detail": session.end_detail,
            "seconds": (now - session.opened_at).total_seconds(),
        },
    )
    return True


def end_leases_of_ended_sessions(*, now: dt.datetime) -> int:
    """End leases whose session has ended or never came to be; returns how many.

    A gateway that dies between lease and session leaves such a lease behind.
    """
    orphans = (
        Lease.objects.filter(state=LeaseState.ISSUED)
        .filter(issued_at__lte=now - dt.timedelta(seconds=30))
        .values_list("pk", "holder")
    )
    live = set(Session.objects.live().values_list("pk", flat=True))
    ended = 0
    for lease_id, holder in list(orphans):
        if holder not in live and vault.end_lease(lease_id=lease_id, now=now):
            ended += 1
    return ended


@transaction.atomic
def open_channel(
    *,
    session_id: uuid.UUID,
    number: int,
    kind: str,
    has_pty: bool,
    now: dt.datetime,
    command: str = "",
) -> None:
    """Note that a channel was opened; `number` is its number in the recording."""
    session = Session.objects.select_related("person", "account__asset").get(
        pk=session_id
    )
    # PostgreSQL text cannot hold NUL.
    command = command.replace("\x00", "\ufffd")
    Channel.objects.create(
        session=session,
        number=number,
        kind=kind,
        command=command,
        has_pty=has_pty,
        opened_at=now,
    )
    audit.record(
        Kind.CHANNEL_OPENED,
        now=now,
        actor=session.person.party,
        subject=session.party,
        data={
            "number": number,
            "kind": kind,
            "pty": has_pty,
            "command": command[:1000],
        },
    )


@transaction.atomic
def close_channel(
    *,
    session_id: uuid.UUID,
    number: int,
    exit_status: int | None,
    exit_signal: str,
    bytes_in: int,
    bytes_out: int,
    now: dt.datetime,
) -> bool:
    """Note that a channel was closed, how, and after how many bytes each way."""
    changed = Channel.objects.filter(session_id=session_id, number=number).update(
        closed_at=now,
        exit_status=exit_status,
        exit_signal=exit_signal[:20],
        bytes_in=bytes_in,
        bytes_out=bytes_out,
    )
    if changed != 1:
        return False
    session = Session.objects.select_related("person", "account__asset").get(
        pk=session_id
    )
    audit.record(
        Kind.CHANNEL_CLOSED,
        now=now,
        actor=audit.system("gateway"),
        subject=session.party,
        data={
            "number": number,
            "exit_status": exit_status,
            "exit_signal": exit_signal,
            "bytes_in": bytes_in,
            "bytes_out": bytes_out,
        },
    )
    return True


@transaction.atomic
def record_channel_refused(
    *,
    session_id: uuid.UUID | None,
    actor: Party,
    kind: str,
    reason: str,
    source_address: str,
    now: dt.datetime,
) -> None:
    """Write that a channel or request was refused."""
    session = (
        Session.objects.select_related("person", "account__asset")
        .filter(pk=session_id)
        .first()
        if session_id
        else None
    )
    audit.record(
        Kind.CHANNEL_REFUSED,
        now=now,
        actor=actor,
        subject=session.party if session else NOBODY,
        source_address=source_address,
        outcome=Outcome.DENIED,
        data={"kind": kind[:100], "reason": reason[:300]},
    )
