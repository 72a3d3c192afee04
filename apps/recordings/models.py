"""Recordings of sessions and who looked at them."""

from django.db import models

from apps.accounts.models import User
from apps.audit.identifiers import uuid7
from apps.audit.operations import Party
from apps.recordings.lifecycle import RecordingState
from apps.recordings.manifest import FileAction, FileResult
from apps.sessions.models import Session
from apps.vault.models import ServiceKey, StoredSecret


class Recording(models.Model):
    """The recording of one session: where it is, its key, its seal."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    session = models.OneToOneField(Session, models.PROTECT, related_name="recording")
    # Path below the recordings directory.
    store_key = models.CharField(max_length=200, unique=True)
    # The data key its segments are encrypted with.
    secret = models.ForeignKey(StoredSecret, models.PROTECT, related_name="+")
    signed_with = models.ForeignKey(ServiceKey, models.PROTECT, related_name="+")
    state = models.CharField(
        max_length=10,
        choices=[(s.value, s.value) for s in RecordingState],
        default=RecordingState.WRITING,
    )
    started_at = models.DateTimeField()
    sealed_at = models.DateTimeField(null=True, blank=True)
    segments = models.PositiveBigIntegerField(default=0)
    bytes_in = models.PositiveBigIntegerField(default=0)
    bytes_out = models.PositiveBigIntegerField(default=0)
    file_bytes = models.PositiveBigIntegerField(default=0)
    duration_ms = models.PositiveBigIntegerField(default=0)
    root_hash = models.CharField(max_length=64, blank=True)
    # closed, or recovered after the gateway was lost.
    sealed_how = models.CharField(max_length=20, blank=True)
    verified_at = models.DateTimeField(null=True, blank=True)
    problem = models.CharField(max_length=300, blank=True)
    # Entries of the manifest that are in the recording only: there were too many. Null
    # for none, so that adding it left the table, and with it its triggers, as they are.
    files_left_out = models.PositiveBigIntegerField(null=True, blank=True)

    class Meta:
        ordering = ["-started_at"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(sealed_at=None, root_hash="")
                | (models.Q(sealed_at__isnull=False) & ~models.Q(root_hash="")),
                name="sealed_recording_has_its_hash",
            ),
        ]

    def __str__(self) -> str:
        return f"recording of {self.session}"

    @property
    def party(self) -> Party:
        """Return this recording as the ledger keeps it."""
        return Party("recording", str(self.pk), str(self))


class Viewing(models.Model):
    """Somebody opened a recording: who, when, how."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    recording = models.ForeignKey(Recording, models.PROTECT, related_name="viewings")
    viewer = models.ForeignKey(User, models.PROTECT, related_name="viewings")
    # replay or download
    how = models.CharField(max_length=10)
    at = models.DateTimeField()
    source_address = models.CharField(max_length=64)

    class Meta:
        ordering = ["-at"]

    def __str__(self) -> str:
        return f"{self.viewer} {self.how}"


class FileTransfer(models.Model):
    """What became of one file in a session: an entry of its manifest.

    The same stands in the recording as an event, sealed with it.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    recording = models.ForeignKey(Recording, models.PROTECT, related_name="files")
    # The channel's number in the recording.
    channel = models.PositiveIntegerField()
    action = models.CharField(
        max_length=12, choices=[(a.value, a.value) for a in FileAction]
    )
    # As the client wrote it; what is not UTF-8 or not printable, escaped.
    path = models.TextField()
    second_path = models.TextField(blank=True)
    size = models.BigIntegerField(default=0)
    sha256 = models.CharField(max_length=64, blank=True)
    result = models.CharField(
        max_length=8, choices=[(r.value, r.value) for r in FileResult]
    )
    reason = models.CharField(max_length=300, blank=True)
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField()

    class Meta:
        ordering = ["started_at", "id"]
        indexes = [
            models.Index(fields=["sha256"], name="file_by_checksum"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=~models.Q(
                    action__in=[FileAction.UPLOAD, FileAction.DOWNLOAD],
                    result=FileResult.COMPLETE,
                    sha256="",
                ),
                name="complete_file_has_its_checksum",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.path}"

    @property
    def is_content(self) -> bool:
        """Say whether content of the file passed, or was to."""
        return self.action in {FileAction.UPLOAD, FileAction.DOWNLOAD}
