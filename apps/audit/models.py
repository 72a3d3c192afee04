"""The ledger: one row per thing that happened, chained, append-only by trigger.

There are no foreign keys: an event keeps people and things as they were at that moment.
"""

import datetime as dt
import json

from django.db import models

from apps.audit.identifiers import uuid7
from apps.audit.kinds import SENTENCES, Kind


class Outcome(models.TextChoices):
    """How it ended."""

    SUCCESS = "success"
    DENIED = "denied"
    FAILURE = "failure"


def kind_choices() -> list[tuple[str, str]]:
    """Return every kind; as a function, so that a new kind needs no migration."""
    return [(kind.value, kind.value) for kind in Kind]


class AuditEvent(models.Model):
    """One thing that happened; see `apps.audit.operations.record`."""

    # Gapless and in commit order: `record` takes the next number under a lock.
    seq = models.BigIntegerField(primary_key=True)
    id = models.UUIDField(default=uuid7, unique=True, editable=False)
    kind = models.CharField(max_length=60, choices=kind_choices)
    at = models.DateTimeField()
    actor_id = models.CharField(max_length=64, blank=True)
    actor_label = models.CharField(max_length=150, blank=True)
    object_type = models.CharField(max_length=40, blank=True)
    object_id = models.CharField(max_length=64, blank=True)
    object_label = models.CharField(max_length=200, blank=True)
    source_address = models.CharField(max_length=64, blank=True)
    outcome = models.CharField(max_length=10, choices=Outcome.choices)
    # Canonical JSON text, exactly the bytes that were hashed.
    data = models.TextField()
    previous_hash = models.BinaryField(max_length=32)
    leaf_hash = models.BinaryField(max_length=32)
    hash = models.BinaryField(max_length=32)

    class Meta:
        ordering = ["seq"]
        indexes = [
            models.Index(fields=["kind", "seq"], name="audit_by_kind"),
            models.Index(fields=["actor_id", "seq"], name="audit_by_actor"),
            models.Index(
                fields=["object_type", "object_id", "seq"], name="audit_by_object"
            ),
            models.Index(fields=["at"], name="audit_by_time"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(seq__gte=1), name="ledger_numbers_start_at_one"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.seq} {self.kind}"

    def canonical(self) -> dict[str, object]:
        """Return the fields that are hashed, as plain JSON values."""
        return {
            "seq": self.seq,
            "id": str(self.id),
            "kind": self.kind,
            "at": self.at.astimezone(dt.UTC).isoformat(timespec="microseconds"),
            "actor_id": self.actor_id,
            "actor_label": self.actor_label,
            "object_type": self.object_type,
            "object_id": self.object_id,
            "object_label": self.object_label,
            "source_address": self.source_address,
            "outcome": self.outcome,
            "data": json.loads(self.data),
        }

    @property
    def sentence(self) -> str:
        """Return what this kind means, in one sentence."""
        return SENTENCES[Kind(self.kind)]
