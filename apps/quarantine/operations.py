"""Every write to held uploads: receive, hold, decide, deliver, expire."""

import base64
import datetime as dt
import logging
import secrets
import uuid
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path

from django.conf import settings
from django.db import transaction
from django.db.models import Q

from apps.access.denials import DenialCode, Denied
from apps.accounts.models import User
from apps.audit import operations as audit
from apps.audit.kinds import Kind
from apps.audit.models import Outcome
from apps.quarantine import queries
from apps.quarantine.lifecycle import TRANSITIONS, WITH_CONTENT, HeldState
from apps.quarantine.models import HeldUpload
from apps.quarantine.store import read_content
from apps.recordings.manifest import printable, text_of
from apps.sessions.lifecycle import EndReason
from apps.sessions.models import Session
from apps.vault.secret_values import Secret
from apps.vault.stored import open_secret, seal_secret

logger = logging.getLogger(__name__)

_KEY_BYTES = 32
_TEXT = 300
_LEDGER_PATH = 500
_BATCH = 100
# A gateway that runs writes down what became of an upload within moments.
_ORPHAN_AFTER = dt.timedelta(seconds=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiving:
    """Where the content of an upload is written; `data_key` is 32 bytes."""

    held_id: uuid.UUID
    file: Path
    data_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What a session is to write on its asset."""

    held_id: uuid.UUID
    path: bytes
    size: int
    sha256: str
    released_by: str
    started_at: dt.datetime
    content: Generator[bytes, None, None] = field(repr=False)


def file_of(held: HeldUpload) -> Path:
    """Return where the content is.

    Raises: ValueError when the key would lead out of the quarantine directory.
    """
    root = Path(settings.QUARANTINE_DIR)
    path = (root / held.store_key).resolve()
    if not path.is_relative_to(root.resolve()):
        raise ValueError(f"{held.store_key} is outside the quarantine directory")
    return path


def _content(held: HeldUpload) -> Generator[bytes, None, None]:
    if held.secret is None:
        raise ValueError("its content was deleted")
    key = base64.b64decode(open_secret(held.secret).reveal())
    return read_content(file_of(held), data_key=key, row_id=held.pk)


def begin_upload(*, session_id: uuid.UUID, path: bytes, now: dt.datetime) -> Receiving:
    """Make the row, the folder and the data key of an upload that begins.

    Raises: OSError when the folder cannot be made.
    """
    root = Path(settings.QUARANTINE_DIR)
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = secrets.token_bytes(_KEY_BYTES)
    with transaction.atomic():
        session = Session.objects.select_related("person", "asset").get(pk=session_id)
        held = HeldUpload(
            session=session,
            uploader_id=session.person_id,
            raw_path=path,
            path=printable(text_of(path)),
            began_at=now,
        )
        held.store_key = f"{held.pk}.held"
        held.secret = seal_secret(
            purpose="held upload",
            secret=Secret(base64.b64encode(key).decode()),
            now=now,
        )
        held.save(force_insert=True)
        audit.record(
            Kind.UPLOAD_RECEIVING,
            now=now,
            actor=session.person.party,
            subject=held.party,
            source_address=session.source_address,
            data=_facts(held),
        )
    return Receiving(held_id=held.pk, file=file_of(held), data_key=key)


def _facts(held: HeldUpload) -> dict[str, object]:
    return {
        "path": held.path[:_LEDGER_PATH],
        "session": held.session.short_id,
        "asset": held.session.asset.name,
        "size": held.size,
        "sha256": held.sha256,
    }


def _locked(held_id: uuid.UUID) -> HeldUpload:
    return (
        HeldUpload.objects.select_for_update(of=("self",))
        .select_related(
            "session__asset__zone__site", "uploader", "secret", "decided_by"
        )
        .get(pk=held_id)
    )


def _move(held: HeldUpload, state: HeldState) -> bool:
    if state not in TRANSITIONS[HeldState(held.state)]:
        return False
    held.state = state
    if state not in WITH_CONTENT:
        _destroy(held)
    return True


def _destroy(held: HeldUpload) -> None:
    """Destroy the key now and the file once that is certain."""
    secret, held.secret = held.secret, None
    path = file_of(held)
    held.save(update_fields=["secret"])
    if secret is not None:
        secret.delete()
    transaction.on_commit(lambda: _unlink(path))


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        # Its key is gone, so nobody can read it.
        logger.exception("%s could not be deleted", path.name)


@transaction.atomic
def hold_upload(
    *, held_id: uuid.UUID, size: int, sha256: str, now: dt.datetime
) -> bool:
    """Note that an upload is there whole; it waits for a decision from now on."""
    held = _locked(held_id)
    if not _move(held, HeldState.HELD):
        return False
    held.held_at, held.size, held.sha256 = now, size, sha256
    held.save()
    audit.record(
        Kind.UPLOAD_HELD,
        now=now,
        actor=held.uploader.party,
        subject=held.party,
        source_address=held.session.source_address,
        data=_facts(held),
    )
    return True


@transaction.atomic
def break_upload(*, held_id: uuid.UUID, problem: str, now: dt.datetime) -> bool:
    """Note that an upload did not come whole: it can never be released."""
    held = _locked(held_id)
    if not _move(held, HeldState.BROKEN):
        return False
    held.problem = problem[:_TEXT]
    held.save()
    audit.record(
        Kind.UPLOAD_BROKEN,
        now=now,
        actor=held.uploader.party,
        subject=held.party,
        outcome=Outcome.FAILURE,
        data={**_facts(held), "problem": held.problem},
    )
    return True


def release_upload(
    *,
    held_id: uuid.UUID,
    by: User,
    reason: str,
    source_address: str,
    now: dt.datetime,
) -> HeldUpload | Denied:
    """Let an upload go to its asset, over a session of its own person."""
    return _decide(
        HeldState.RELEASED,
        Kind.UPLOAD_RELEASED,
        held_id=held_id,
        by=by,
        reason=reason,
        source_address=source_address,
        now=now,
    )


def reject_upload(
    *,
    held_id: uuid.UUID,
    by: User,
    reason: str,
    source_address: str,
    now: dt.datetime,
) -> HeldUpload | Denied:
    """Refuse an upload; its content is destroyed."""
    return _decide(
        HeldState.REJECTED,
        Kind.UPLOAD_REJECTED,
        held_id=held_id,
        by=by,
        reason=reason,
        source_address=source_address,
        now=now,
    )


@transaction.atomic
def _decide(
    state: HeldState,
    kind: Kind,
    *,
    held_id: uuid.UUID,
    by: User,
    reason: str,
    source_address: str,
    now: dt.datetime,
) -> HeldUpload | Denied:
    held = _locked(held_id)
    by = User.objects.get(pk=by.pk)
    verdict = queries.may_decide(by, held)
    if not verdict:
        _refused(held, by, verdict, source_address=source_address, now=now)
        return verdict
    if not reason.strip():
        return Denied(DenialCode.REASON_MISSING, "Say why: it is kept with the file.")
    if not _move(held, state):
        return Denied(
            DenialCode.REQUEST_NOT_PENDING,
            "It was decided already, or there is nothing to decide.",
        )
    held.decided_by, held.decided_at = by, now
    held.decision_reason = reason.strip()[:_TEXT]
    held.save()
    audit.record(
        kind,
        now=now,
        actor=by.party,
        subject=held.party,
        source_address=source_address,
        data={**_facts(held), "reason": held.decision_reason},
    )
    return held


def _refused(
    held: HeldUpload,
    by: User,
    denied: Denied,
    *,
    source_address: str,
    now: dt.datetime,
) -> None:
    audit.record(
        Kind.UPLOAD_REFUSED,
        now=now,
        actor=by.party,
        subject=held.party,
        source_address=source_address,
        outcome=Outcome.DENIED,
        data={"reason": denied.message},
    )


@transaction.atomic
def open_for_scan(
    *, held_id: uuid.UUID, by: User, source_address: str, now: dt.datetime
) -> Generator[bytes, None, None] | Denied:
    """Return the content for whoever decides, and write down that they took it.

    Raises: OSError, ContentBrokenError while it is read.
    """
    held = _locked(held_id)
    by = User.objects.get(pk=by.pk)
    verdict = queries.may_decide(by, held)
    if not verdict:
        _refused(held, by, verdict, source_address=source_address, now=now)
        return verdict
    if held.state not in {HeldState.HELD, HeldState.RELEASED}:
        return Denied(DenialCode.NOT_PERMITTED, "There is no content to download.")
    audit.record(
        Kind.UPLOAD_SCANNED,
        now=now,
        actor=by.party,
        subject=held.party,
        source_address=source_address,
        data=_facts(held),
    )
    return _content(held)


@transaction.atomic
def begin_delivery(
    *, held_id: uuid.UUID, session_id: uuid.UUID, now: dt.datetime
) -> Delivery | None:
    """Let a live session try to deliver a released upload, once; None if it may not."""
    held = _locked(held_id)
    session = Session.objects.select_related("person").get(pk=session_id)
    before = held.tried_in
    if (
        held.state != HeldState.RELEASED
        or held.decided_by is None
        or session.ended_at is not None
        or session.person_id != held.uploader_id
        or session.account_id != held.session.account_id
        or (before is not None and before.ended_at is None)
    ):
        return None
    held.tried_in = session
    held.save(update_fields=["tried_in"])
    audit.record(
        Kind.UPLOAD_DELIVERING,
        now=now,
        actor=audit.system("gateway"),
        subject=held.party,
        data={**_facts(held), "delivered_in": session.short_id},
    )
    return Delivery(
        held_id=held.pk,
        path=bytes(held.raw_path),
        size=held.size,
        sha256=held.sha256,
        released_by=held.decided_by.username,
        started_at=now,
        content=_content(held),
    )


@transaction.atomic
def note_delivered(
    *, held_id: uuid.UUID, session_id: uuid.UUID, now: dt.datetime
) -> bool:
    """Note that an upload is on its asset; the content here is destroyed."""
    held = _locked(held_id)
    if held.tried_in_id != session_id or not _move(held, HeldState.DELIVERED):
        return False
    held.delivered_at, held.problem = now, ""
    held.save()
    audit.record(
        Kind.UPLOAD_DELIVERED,
        now=now,
        actor=audit.system("gateway"),
        subject=held.party,
        data=_facts(held),
    )
    return True


@transaction.atomic
def note_not_delivered(
    *, held_id: uuid.UUID, session_id: uuid.UUID, problem: str, now: dt.datetime
) -> bool:
    """Note why a delivery failed; the upload stays released for the next session."""
    held = _locked(held_id)
    if held.tried_in_id != session_id or held.state != HeldState.RELEASED:
        return False
    held.problem = problem[:_TEXT]
    held.save(update_fields=["problem"])
    audit.record(
        Kind.UPLOAD_NOT_DELIVERED,
        now=now,
        actor=audit.system("gateway"),
        subject=held.party,
        outcome=Outcome.FAILURE,
        data={**_facts(held), "problem": held.problem},
    )
    return True


def give_up_orphans(*, now: dt.datetime) -> int:
    """Break uploads whose session has ended while they came; return how many."""
    rows = HeldUpload.objects.filter(
        Q(session__end_reason=EndReason.GATEWAY_LOST)
        | Q(session__ended_at__lt=now - _ORPHAN_AFTER),
        state=HeldState.RECEIVING,
    ).values_list("pk", flat=True)[:_BATCH]
    return sum(
        break_upload(held_id=pk, problem="the gateway was lost", now=now) for pk in rows
    )


def expire_due(*, now: dt.datetime) -> int:
    """Delete content that nobody decided on, or took, in time; return how many."""
    before = now - dt.timedelta(days=settings.HELD_UPLOAD_DAYS)
    rows = HeldUpload.objects.filter(
        Q(state=HeldState.HELD) | Q(state=HeldState.RELEASED), held_at__lte=before
    ).values_list("pk", flat=True)[:_BATCH]
    return sum(_expire(pk, now=now) for pk in rows)


@transaction.atomic
def _expire(held_id: uuid.UUID, *, now: dt.datetime) -> bool:
    held = _locked(held_id)
    if not _move(held, HeldState.EXPIRED):
        return False
    held.save()
    audit.record(
        Kind.UPLOAD_EXPIRED,
        now=now,
        actor=audit.system("quarantine"),
        subject=held.party,
        data=_facts(held),
    )
    return True
