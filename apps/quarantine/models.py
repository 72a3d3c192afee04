"""Uploads that are held for release: what they are, and who decided."""

from django.db import models
from django.db.models import F, Q

from apps.accounts.models import User
from apps.audit.identifiers import short_id, uuid7
from apps.audit.operations import Party
from apps.quarantine.lifecycle import WITH_CONTENT, HeldState
from apps.sessions.models import Session
from apps.vault.models import StoredSecret


class HeldUpload(models.Model):
    """One file that was uploaded over SFTP and has not reached the asset."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    session = models.ForeignKey(Session, models.PROTECT, related_name="held_uploads")
    # The session's person, here so that the database can tell them from the releaser.
    uploader = models.ForeignKey(User, models.PROTECT, related_name="+")
    # As the client wrote it, and the same for people.
    raw_path = models.BinaryField()
    path = models.TextField()
    # Below the quarantine directory.
    store_key = models.CharField(max_length=200, unique=True)
    # The data key of the content; destroyed with it.
    secret = models.ForeignKey(
        StoredSecret, models.PROTECT, null=True, blank=True, related_name="+"
    )
    state = models.CharField(
        max_length=10,
        choices=[(s.value, s.value) for s in HeldState],
        default=HeldState.RECEIVING,
    )
    began_at = models.DateTimeField()
    held_at = models.DateTimeField(null=True, blank=True)
    size = models.PositiveBigIntegerField(default=0)
    sha256 = models.CharField(max_length=64, blank=True)
    decided_by = models.ForeignKey(
        User, models.PROTECT, null=True, blank=True, related_name="+"
    )
    decided_at = models.DateTimeField(null=True, blank=True)
    decision_reason = models.CharField(max_length=300, blank=True)
    # The last session that tried to deliver it; each tries once.
    tried_in = models.ForeignKey(
        Session, models.PROTECT, null=True, blank=True, related_name="+"
    )
    delivered_at = models.DateTimeField(null=True, blank=True)
    # Why it is broken, or was not delivered.
    problem = models.CharField(max_length=300, blank=True)

    class Meta:
        ordering = ["-began_at"]
        indexes = [models.Index(fields=["state", "began_at"], name="held_by_state")]
        constraints = [
            models.CheckConstraint(
                condition=Q(decided_by=None) | ~Q(decided_by=F("uploader")),
                name="releaser_is_not_uploader",
            ),
            models.CheckConstraint(
                condition=Q(decided_by=None, decided_at=None)
                | (
                    Q(decided_by__isnull=False, decided_at__isnull=False)
                    & ~Q(decision_reason="")
                ),
                name="decision_has_its_time_and_reason",
            ),
            models.CheckConstraint(
                condition=~Q(
                    state__in=[
                        HeldState.RELEASED,
                        HeldState.DELIVERED,
                        HeldState.REJECTED,
                    ]
                )
                | Q(decided_by__isnull=False),
                name="nothing_is_released_without_a_releaser",
            ),
            models.CheckConstraint(
                condition=~Q(state__in=[HeldState.HELD, HeldState.RELEASED])
                | (Q(held_at__isnull=False) & ~Q(sha256="")),
                name="held_upload_has_its_checksum",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.short_id} {self.path[:120]}"

    @property
    def short_id(self) -> str:
        """Return the form shown to people."""
        return short_id("H", self.id)

    @property
    def party(self) -> Party:
        """Return this upload as the ledger keeps it."""
        return Party("held upload", str(self.pk), str(self))

    @property
    def has_content(self) -> bool:
        """Say whether its content is there still."""
        return self.secret_id is not None and self.state in WITH_CONTENT
