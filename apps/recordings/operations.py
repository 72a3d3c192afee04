"""Every write to recordings: start, seal, verify, recover, open for viewing."""

import base64
import datetime as dt
import logging
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from django.conf import settings
from django.db import transaction

from apps.access.denials import DenialCode, Denied
from apps.accounts.models import User
from apps.audit import operations as audit
from apps.audit.kinds import Kind
from apps.audit.models import Outcome
from apps.recordings import queries
from apps.recordings.lifecycle import TRANSITIONS, RecordingState
from apps.recordings.manifest import FileNote, FileResult, printable
from apps.recordings.models import FileTransfer, Recording, Viewing
from apps.recordings.output import (
    AlreadySealedError,
    RecordingFailedError,
    SealedRecording,
    StillWrittenError,
    read_sealed,
    seal_recovered,
)
from apps.recordings.reader import RecordingBrokenError, RecordingReader
from apps.recordings.seal import SealSigner
from apps.recordings.verifier import fingerprint
from apps.recordings.verifier import verify_recording as verify_file
from apps.sessions.models import Session
from apps.vault import operations as vault
from apps.vault.models import ServiceKeyPurpose
from apps.vault.queries import service_key_lines
from apps.vault.secret_values import Secret
from apps.vault.stored import open_secret, seal_secret

logger = logging.getLogger(__name__)

_DATA_KEY_BYTES = 32
_PROBLEM_LENGTH = 300
_LEDGER_PATH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingStart:
    """What the recorder thread needs to open the file; `data_key` is 32 bytes."""

    recording_id: uuid.UUID
    path: Path
    header: dict[str, str]
    data_key: bytes = field(repr=False)
    signer: SealSigner


def path_of(recording: Recording) -> Path:
    """Return where the recording's file is.

    Raises: ValueError when its store key would lead out of the recordings directory.
    """
    root = Path(settings.RECORDINGS_DIR)
    path = (root / recording.store_key).resolve()
    if not path.is_relative_to(root.resolve()):
        raise ValueError(f"{recording.store_key} is outside the recordings directory")
    return path


def data_key_of(recording: Recording) -> bytes:
    """Return the 32 byte key the recording's segments are encrypted with."""
    return base64.b64decode(open_secret(recording.secret).reveal())


def start_recording(*, session_id: uuid.UUID, now: dt.datetime) -> RecordingStart:
    """Make the row, the folder and the data key of a session's recording.

    The file itself is opened by the recorder thread; nothing may reach the asset before
    that has worked.
    Raises: OSError when the folder cannot be made.
    """
    seal_key = vault.service_key(ServiceKeyPurpose.RECORDING_SEAL, now=now)
    with transaction.atomic():
        session = _as_headed(session_id)
        data_key = secrets.token_bytes(_DATA_KEY_BYTES)
        stored = seal_secret(
            purpose="recording",
            secret=Secret(base64.b64encode(data_key).decode()),
            now=now,
        )
        recording = Recording.objects.create(
            session=session,
            store_key=f"{now:%Y/%m/%d}/{session.pk}.slrec",
            secret=stored,
            signed_with_id=seal_key.id,
            started_at=now,
        )
        audit.record(
            Kind.RECORDING_STARTED,
            now=now,
            actor=audit.system("gateway"),
            subject=recording.party,
            data={"session": session.short_id, "signed_with": seal_key.fingerprint},
        )
    path = path_of(recording)
    _make_private_folders(path.parent)
    return RecordingStart(
        recording_id=recording.pk,
        path=path,
        header={
            "recording": str(recording.pk),
            "session": str(session.pk),
            "session_short": session.short_id,
            "started_at": now.astimezone(dt.UTC).isoformat(),
            "person": session.person.username,
            "asset": session.asset.name,
            "account": session.account.name,
            "site": session.asset.zone.site.name,
            "zone": session.asset.zone.name,
            "grant": str(session.grant_id),
            "gateway": session.gateway.name,
            "door": session.door,
            "source_address": session.source_address,
        },
        data_key=data_key,
        signer=SealSigner(key_id=seal_key.fingerprint, sign=seal_key.sign),
    )


def _as_headed(session_id: uuid.UUID) -> Session:
    """Return the session with what the head of a recording says of it, and no more."""
    session = (
        Session.objects.select_related(
            "person", "asset__zone__site", "account", "gateway"
        )
        .only(
            "grant_id",
            "door",
            "source_address",
            "person__username",
            "asset__name",
            "asset__zone__name",
            "asset__zone__site__name",
            "account__name",
            "account__asset_id",
            "gateway__name",
        )
        .get(pk=session_id)
    )
    session.account.asset = session.asset
    return session


def _make_private_folders(folder: Path) -> None:
    """Make the folders of a recording's path, each for this user alone.

    `mkdir(parents=True)` would give the upper ones the mode of the umask.
    """
    root = Path(settings.RECORDINGS_DIR).resolve()
    root.parent.mkdir(parents=True, exist_ok=True)
    for part in [*reversed(folder.parents), folder]:
        if part.is_relative_to(root):
            part.mkdir(mode=0o700, exist_ok=True)


def _move(recording: Recording, state: RecordingState) -> bool:
    if state not in TRANSITIONS[RecordingState(recording.state)]:
        return False
    recording.state = state
    return True


@transaction.atomic
def seal_recording(
    *, recording_id: uuid.UUID, sealed: SealedRecording, now: dt.datetime
) -> bool:
    """Note what the seal in the file says; False when it was sealed already."""
    recording = _locked(recording_id)
    if not _move(recording, RecordingState.SEALED):
        return False
    recording.sealed_at = now
    recording.segments = sealed.segments
    recording.bytes_in = sealed.bytes_in or 0
    recording.bytes_out = sealed.bytes_out or 0
    recording.file_bytes = sealed.size
    recording.duration_ms = sealed.duration_microseconds // 1000
    recording.root_hash = sealed.root_hash.hex()
    recording.sealed_how = sealed.seal.how
    recording.save()
    audit.record(
        Kind.RECORDING_SEALED,
        now=now,
        actor=audit.system("recordings"),
        subject=recording.party,
        data={
            "how": sealed.seal.how,
            "root_hash": recording.root_hash,
            "segments": sealed.segments,
            "file_bytes": sealed.size,
            "dropped_bytes": sealed.seal.dropped_bytes,
            "signer": sealed.seal.signer,
        },
    )
    return True


@transaction.atomic
def mark_broken(*, recording_id: uuid.UUID, problem: str, now: dt.datetime) -> bool:
    """Note that a recording is not what it should be: an alarm, never silence (R29)."""
    recording = _locked(recording_id)
    if not _move(recording, RecordingState.BROKEN):
        return False
    recording.problem = problem[:_PROBLEM_LENGTH]
    recording.save(update_fields=["state", "problem"])
    audit.record(
        Kind.RECORDING_BROKEN,
        now=now,
        actor=audit.system("recordings"),
        subject=recording.party,
        outcome=Outcome.FAILURE,
        data={"problem": recording.problem},
    )
    return True


def _locked(recording_id: uuid.UUID) -> Recording:
    return (
        Recording.objects.select_for_update(of=("self",))
        .select_related("session__person", "session__account__asset")
        .get(pk=recording_id)
    )


@transaction.atomic
def note_files(
    *,
    recording_id: uuid.UUID,
    notes: Sequence[tuple[int, FileNote]],
    left_out: int,
    now: dt.datetime,
) -> None:
    """Add entries to the manifest of a session, each with its channel's number.

    `left_out` more were not given: there are too many for rows, and the recording alone
    has them. One event says what was done and one what was refused.
    """
    recording = _locked(recording_id)
    rows = [_file_row(recording, channel, note) for channel, note in notes]
    FileTransfer.objects.bulk_create(rows)
    if left_out:
        recording.files_left_out = (recording.files_left_out or 0) + left_out
        recording.save(update_fields=["files_left_out"])
    refused = [row for row in rows if row.result == FileResult.DENIED]
    done = [row for row in rows if row.result != FileResult.DENIED]
    session = recording.session
    for kind, outcome, found, more in (
        (Kind.FILES_NOTED, Outcome.SUCCESS, done, left_out),
        (Kind.FILES_REFUSED, Outcome.DENIED, refused, 0),
    ):
        if found or more:
            audit.record(
                kind,
                now=now,
                actor=session.person.party,
                subject=session.party,
                source_address=session.source_address,
                outcome=outcome,
                data={"files": [_file_data(row) for row in found], "left_out": more},
            )


def _file_row(recording: Recording, channel: int, note: FileNote) -> FileTransfer:
    return FileTransfer(
        recording=recording,
        channel=channel,
        action=note.action,
        path=printable(note.path),
        second_path=printable(note.second_path),
        size=note.size,
        sha256=note.sha256,
        result=note.result,
        reason=note.reason[:_PROBLEM_LENGTH],
        started_at=note.started_at,
        ended_at=note.ended_at,
    )


def _file_data(row: FileTransfer) -> dict[str, object]:
    data: dict[str, object] = {
        "action": row.action,
        "path": row.path[:_LEDGER_PATH],
        "result": row.result,
    }
    if row.second_path:
        data["second_path"] = row.second_path[:_LEDGER_PATH]
    if row.is_content:
        data.update(size=row.size, sha256=row.sha256)
    if row.reason:
        data["reason"] = row.reason
    return data


def seal_public_keys() -> dict[str, Ed25519PublicKey]:
    """Return every key that ever sealed a recording, by fingerprint."""
    keys: dict[str, Ed25519PublicKey] = {}
    for line in service_key_lines(ServiceKeyPurpose.RECORDING_SEAL):
        key = load_ssh_public_key(line.encode())
        if isinstance(key, Ed25519PublicKey):
            keys[fingerprint(key)] = key
    return keys


def verify_recording(*, recording_id: uuid.UUID, now: dt.datetime) -> bool:
    """Read a sealed recording back: chain, seal, signature, and the row's own hash.

    The result is noted; a recording that fails is marked broken.
    """
    recording = Recording.objects.get(pk=recording_id)
    problem = _problem_with(recording)
    if problem:
        mark_broken(recording_id=recording_id, problem=problem, now=now)
        return False
    with transaction.atomic():
        recording = _locked(recording_id)
        if recording.state == RecordingState.VERIFIED:
            Recording.objects.filter(pk=recording_id).update(verified_at=now)
            return True
        if not _move(recording, RecordingState.VERIFIED):
            return False
        recording.verified_at = now
        recording.save(update_fields=["state", "verified_at"])
        audit.record(
            Kind.RECORDING_VERIFIED,
            now=now,
            actor=audit.system("recordings"),
            subject=recording.party,
            data={"root_hash": recording.root_hash},
        )
    return True


def _problem_with(recording: Recording) -> str:
    try:
        report = verify_file(str(path_of(recording)), seal_public_keys())
    except (OSError, ValueError) as error:
        return f"the file cannot be read: {error}"
    if not report.ok:
        return f"{report.where}: {report.reason}"
    sealed = read_sealed(path_of(recording))
    if sealed is None:
        return "the file has no seal"
    if sealed.root_hash.hex() != recording.root_hash:
        return "the file is whole, but it is not the one that was sealed"
    return ""


def verify_due(*, now: dt.datetime, limit: int = 20) -> int:
    """Verify recordings that were sealed and not read back yet; returns how many."""
    due = Recording.objects.filter(state=RecordingState.SEALED).order_by("sealed_at")
    count = 0
    for recording_id in list(due.values_list("pk", flat=True)[:limit]):
        verify_recording(recording_id=recording_id, now=now)
        count += 1
    return count


def recover_orphans(*, now: dt.datetime) -> int:
    """Seal the recordings of ended sessions that nobody writes any more.

    After a gateway vanished this keeps everything up to the last intact segment. A file
    that is missing or damaged inside is marked broken; one that a process still holds
    is left for the next look.
    """
    orphans = Recording.objects.filter(
        state=RecordingState.WRITING,
        session__ended_at__lte=now - dt.timedelta(seconds=1),
    ).order_by("started_at")
    done = 0
    for recording in list(orphans):
        try:
            sealed = _recover(recording, now=now)
        except FileNotFoundError:
            mark_broken(
                recording_id=recording.pk, problem="the file is missing", now=now
            )
            continue
        except RecordingBrokenError as error:
            mark_broken(recording_id=recording.pk, problem=str(error), now=now)
            continue
        except StillWrittenError:
            continue
        except RecordingFailedError as error:
            mark_broken(recording_id=recording.pk, problem=str(error), now=now)
            continue
        except OSError:
            logger.exception("Recording %s could not be recovered yet", recording.pk)
            continue
        if seal_recording(recording_id=recording.pk, sealed=sealed, now=now):
            done += 1
    return done


def _recover(recording: Recording, *, now: dt.datetime) -> SealedRecording:
    path = path_of(recording)
    try:
        return seal_recovered(
            path,
            signer=_signer_of(recording),
            now=now,
            data_key=data_key_of(recording),
        )
    except AlreadySealedError:
        # The file was sealed, and only the row did not get to know.
        sealed = read_sealed(path)
        if sealed is None:
            raise RecordingFailedError(f"{path.name} has no seal") from None
        return sealed


def _signer_of(recording: Recording) -> SealSigner:
    key = vault.load_service_key(recording.signed_with_id)
    return SealSigner(key_id=key.fingerprint, sign=key.sign)


def open_for_viewing(
    *,
    recording_id: uuid.UUID,
    viewer: User,
    how: str,
    source_address: str,
    now: dt.datetime,
) -> RecordingReader | Denied:
    """Open a recording for an auditor and write down that they did; `how` is `replay`
    or `download`.

    Unknown and forbidden answer alike. The caller closes the reader.
    Raises: RecordingBrokenError, OSError when the file cannot be read.
    """
    recording = note_viewing(
        recording_id=recording_id,
        viewer=viewer,
        how=how,
        source_address=source_address,
        now=now,
    )
    if isinstance(recording, Denied):
        return recording
    return RecordingReader(path_of(recording), data_key_of(recording))


@transaction.atomic
def note_viewing(
    *,
    recording_id: uuid.UUID,
    viewer: User,
    how: str,
    source_address: str,
    now: dt.datetime,
) -> Recording | Denied:
    """Decide whether `viewer` may open the recording and write the answer down."""
    person = User.objects.get(pk=viewer.pk)
    recording = (
        Recording.objects.select_related(
            "session__person", "session__account__asset", "session__asset__zone__site"
        )
        .filter(pk=recording_id)
        .first()
    )
    if recording is None:
        return Denied(DenialCode.NOT_PERMITTED)
    verdict = queries.may_view(person, recording)
    if isinstance(verdict, Denied):
        audit.record(
            Kind.RECORDING_REFUSED,
            now=now,
            actor=person.party,
            subject=recording.party,
            source_address=source_address,
            outcome=Outcome.DENIED,
            data={"how": how},
        )
        return verdict
    Viewing.objects.create(
        recording=recording,
        viewer=person,
        how=how,
        at=now,
        source_address=source_address,
    )
    audit.record(
        Kind.RECORDING_VIEWED if how == "replay" else Kind.RECORDING_EXPORTED,
        now=now,
        actor=person.party,
        subject=recording.party,
        source_address=source_address,
        data={"how": how},
    )
    return recording
