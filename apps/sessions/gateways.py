"""Every write to the rows of gateways: started, alive, stopped, lost."""

import datetime as dt
import uuid

from django.db import transaction

from apps.audit import operations as audit
from apps.audit.kinds import Kind
from apps.audit.models import Outcome
from apps.sessions.lifecycle import (
    EndReason,
)
from apps.sessions.models import (
    GatewayNode,
    Session,
)
from apps.sessions.operations import close_session


@transaction.atomic
def register_gateway(
    *, name: str, version: str, ssh_address: str, link_address: str, now: dt.datetime
) -> GatewayNode:
    """Note that a gateway started. A running one of the same name was lost.

    Two gateways with one name cannot both run: the newer one takes over, and the older
    one stops when its heartbeat finds its row stopped.
    """
    for previous in GatewayNode.objects.select_for_update().filter(
        name=name, stopped_at=None
    ):
        _lose_gateway(previous, now=now)
    gateway = GatewayNode.objects.create(
        name=name,
        version=version,
        ssh_address=ssh_address,
        link_address=link_address,
        started_at=now,
        seen_at=now,
    )
    audit.record(
        Kind.GATEWAY_STARTED, now=now, actor=gateway.party, subject=gateway.party
    )
    return gateway


def heartbeat(*, gateway_id: uuid.UUID, now: dt.datetime) -> bool:
    """Note that the gateway lives; False tells it that it was given up for lost."""
    changed = GatewayNode.objects.filter(pk=gateway_id, stopped_at=None).update(
        seen_at=now
    )
    return changed == 1


@transaction.atomic
def stop_gateway(*, gateway_id: uuid.UUID, now: dt.datetime) -> bool:
    """Note that the gateway stopped in good order; it has closed its sessions."""
    changed = GatewayNode.objects.filter(pk=gateway_id, stopped_at=None).update(
        stopped_at=now, seen_at=now
    )
    if changed != 1:
        return False
    gateway = GatewayNode.objects.get(pk=gateway_id)
    audit.record(
        Kind.GATEWAY_STOPPED, now=now, actor=gateway.party, subject=gateway.party
    )
    return True


@transaction.atomic
def give_up_gateway(
    *, gateway_id: uuid.UUID, seen_at: dt.datetime, now: dt.datetime
) -> bool:
    """Give a silent gateway up and close its sessions; `seen_at` is its last heartbeat.

    False when it has been heard since, has stopped, or was given up by another.
    """
    gateway = (
        GatewayNode.objects.select_for_update()
        .filter(pk=gateway_id, stopped_at=None, seen_at=seen_at)
        .first()
    )
    if gateway is None:
        return False
    _lose_gateway(gateway, now=now)
    return True


def _lose_gateway(gateway: GatewayNode, *, now: dt.datetime) -> None:
    """Close a vanished gateway's sessions; the caller holds the row's lock."""
    gateway.stopped_at = now
    gateway.save(update_fields=["stopped_at"])
    sessions = list(
        Session.objects.live().filter(gateway=gateway).values_list("pk", flat=True)
    )
    audit.record(
        Kind.GATEWAY_LOST,
        now=now,
        actor=audit.system("sessions"),
        subject=gateway.party,
        outcome=Outcome.FAILURE,
        data={"last_seen_at": gateway.seen_at, "sessions": len(sessions)},
    )
    for session_id in sessions:
        close_session(
            session_id=session_id,
            reason=EndReason.GATEWAY_LOST,
            detail=f"{gateway.name} was last seen at {gateway.seen_at.isoformat()}",
            now=now,
        )
