"""Sessions and recordings for tests of pages, made by the product's own operations."""

import datetime as dt
from pathlib import Path

from apps.access import authorization
from apps.access import operations as access
from apps.access.models import Grant, GrantExtension
from apps.access.permits import ConnectionPermit
from apps.accounts.models import User
from apps.inventory.models import CredentialKind
from apps.quarantine import operations as quarantine
from apps.quarantine.models import HeldUpload
from apps.quarantine.store import HeldWriter
from apps.recordings import operations as recordings
from apps.recordings.frames import (
    Event,
    EventKind,
    encode_close,
    encode_header,
    encode_open,
    encode_resize,
)
from apps.recordings.models import Recording
from apps.recordings.output import read_sealed
from apps.recordings.seal import CLOSED, Seal, encode_seal
from apps.recordings.segments import SegmentEncoder
from apps.sessions import controls, gateways, handover, watches
from apps.sessions import operations as sessions
from apps.sessions.lifecycle import AskedBy, EndReason
from apps.sessions.models import GatewayNode, Session
from apps.vault import operations as vault
from apps.vault.secret_values import Secret
from tests import factories
from tests.factories import SET_UP, clock

FINGERPRINT = "SHA256:" + "k" * 43


def gateway(link: Path | str = "", *, now: dt.datetime | None = None) -> GatewayNode:
    """Return a running gateway; `link` is the socket browsers' terminals go to."""
    return gateways.register_gateway(
        name="gateway-1",
        version="0",
        ssh_address="127.0.0.1:2222",
        link_address=f"unix:{link}" if link else "",
        now=now or clock(),
    )


def live_session(
    grant: Grant, node: GatewayNode, *, now: dt.datetime | None = None
) -> Session:
    """Return an active session with a shell and a finished command."""
    now = now or clock()
    permit = authorization.authorize_grant(
        user=grant.person,
        grant_id=grant.pk,
        source_address="192.0.2.7",
        door="ssh",
        now=now,
    )
    assert isinstance(permit, ConnectionPermit), permit
    opened = sessions.open_session(
        permit=permit, gateway_id=node.pk, client="SSH-2.0-OpenSSH_9.2", now=now
    )
    assert isinstance(opened, Session)
    sessions.activate_session(
        session_id=opened.pk, host_key_fingerprint=FINGERPRINT, now=now
    )
    sessions.open_channel(
        session_id=opened.pk, number=1, kind="shell", has_pty=True, now=now
    )
    sessions.open_channel(
        session_id=opened.pk,
        number=2,
        kind="exec",
        has_pty=False,
        command="echo '<b>&' > /tmp/x",
        now=now,
    )
    sessions.close_channel(
        session_id=opened.pk,
        number=2,
        exit_status=3,
        exit_signal="",
        bytes_in=0,
        bytes_out=2048,
        now=now,
    )
    opened.refresh_from_db()
    return opened


def store_credential(grant: Grant, *, now: dt.datetime | None = None) -> None:
    """Give the grant's account a password, so that it can be leased."""
    account = grant.account
    account.credential_kind = CredentialKind.PASSWORD
    account.save(update_fields=["credential_kind"])
    vault.store_credential(
        account=account,
        kind="password",
        secret=Secret("plant-side-secret"),
        by=SET_UP,
        now=now or clock(),
    )


def receiver(here: factories.Plant) -> User:
    """Return somebody who may watch, and may use the plant's asset themselves."""
    person = factories.person("engineer", "approver", site=here.site)
    factories.grant(here, person=person)
    return person


def watch(session: Session, by: User) -> None:
    """Have somebody look at a session, with a keyboard before them."""
    assert watches.begin_watch(
        user=by,
        session_id=session.pk,
        asked=AskedBy("portal", "192.0.2.7"),
        can_type=True,
        now=clock(),
    )


def hand_over(session: Session, to: User) -> None:
    """Hand the typing to somebody who watches, as the engineer does."""
    assert handover.hand_over(
        session_id=session.pk, by=session.person, to=to.username, now=clock()
    )


def freeze(session: Session, by: User, *, now: dt.datetime | None = None) -> None:
    """Freeze a session as an approver does and its gateway answers."""
    now = now or clock()
    assert controls.ask_freeze(
        session_id=session.pk, by=by, reason="alarm in cell 3", now=now
    )
    assert sessions.note_frozen(session_id=session.pk, frozen=True, now=now)


def end(session: Session, *, now: dt.datetime | None = None) -> None:
    """End a session as its engineer would."""
    sessions.close_session(
        session_id=session.pk, reason=EndReason.FINISHED, now=now or clock()
    )


def sealed_recording(
    session: Session, *, now: dt.datetime | None = None, text: bytes = b"TANK A 74.2 %"
) -> Recording:
    """Return a sealed recording: a terminal that is resized, and a command."""
    now = now or clock()
    start = recordings.start_recording(session_id=session.pk, now=now)
    events = [
        Event(
            EventKind.OPEN,
            1,
            0,
            encode_open("shell", columns=80, rows=24, term="xterm"),
        ),
        Event(EventKind.OUTPUT, 1, 1_000_000, text + b"\r\n"),
        Event(EventKind.INPUT, 1, 1_500_000, b"typed-secret"),
        Event(EventKind.RESIZE, 1, 2_000_000, encode_resize(120, 36)),
        Event(EventKind.OPEN, 2, 3_000_000, encode_open("exec", command="uname")),
        Event(EventKind.OUTPUT, 2, 3_100_000, b"Linux\n"),
        Event(EventKind.CLOSE, 2, 3_200_000, encode_close(exit_status=0)),
    ]
    header = encode_header(start.header)
    encoder = SegmentEncoder(header=header, data_key=start.data_key)
    parts = [header, *encoder.encode(events)]
    seal = Seal(
        how=CLOSED,
        segments=encoder.segments,
        bytes_in=encoder.bytes_in,
        bytes_out=encoder.bytes_out,
        duration_microseconds=encoder.last_microseconds,
        root_hash=encoder.root_hash,
        index=tuple(encoder.index),
        dropped_bytes=0,
        sealed_at=now,
        signer=start.signer.key_id,
    )
    parts.append(encode_seal(seal, signer=start.signer, offset=encoder.size))
    start.path.write_bytes(b"".join(parts))
    sealed = read_sealed(start.path)
    assert sealed is not None
    recordings.seal_recording(recording_id=start.recording_id, sealed=sealed, now=now)
    assert recordings.verify_recording(recording_id=start.recording_id, now=now)
    return Recording.objects.get(pk=start.recording_id)


def extension(grant: Grant) -> GrantExtension:
    """Return a question for more time on `grant` that waits for an approver."""
    asked = access.ask_extension(
        grant_id=grant.pk,
        by=grant.person,
        minutes=30,
        reason="The pump does not start",
        source_address="192.0.2.7",
        now=factories.clock(),
    )
    assert isinstance(asked, GrantExtension), asked
    return asked


def held_upload(
    session: Session, content: bytes = b"a program for a PLC"
) -> HeldUpload:
    """Return an upload of `session` that waits for a decision."""
    now = factories.clock()
    receiving = quarantine.begin_upload(
        session_id=session.pk, path=b"/srv/program", now=now
    )
    writer = HeldWriter(
        receiving.file,
        data_key=receiving.data_key,
        row_id=receiving.held_id,
        minimum_free_bytes=0,
    )
    writer.append(content)
    digest = writer.finish()
    quarantine.hold_upload(
        held_id=receiving.held_id, size=len(content), sha256=digest, now=now
    )
    return HeldUpload.objects.get(pk=receiving.held_id)
