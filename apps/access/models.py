"""Requests, approvals, grants and the record of every decision."""

import datetime as dt

from django.db import models
from django.db.models import F, Q

from apps.access.lifecycle import ExtensionState, GrantState, RequestState
from apps.accounts.models import User
from apps.audit.identifiers import short_id, uuid7
from apps.audit.operations import Party
from apps.inventory.models import Asset, TargetAccount


class AccessRequest(models.Model):
    """Somebody asks for one account on one asset, for a time and a reason."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    requester = models.ForeignKey(User, models.PROTECT, related_name="access_requests")
    asset = models.ForeignKey(Asset, models.PROTECT, related_name="access_requests")
    account = models.ForeignKey(
        TargetAccount, models.PROTECT, related_name="access_requests"
    )
    # Sorted list of services (`inventory.services`).
    services = models.JSONField(default=list)
    minutes = models.PositiveIntegerField()
    reason = models.CharField(max_length=500)
    work_order = models.CharField(max_length=40)
    source_address = models.CharField(max_length=64)
    version = models.PositiveIntegerField(default=1)
    state = models.CharField(
        max_length=10,
        choices=[(s.value, s.value) for s in RequestState],
        default=RequestState.PENDING,
    )
    submitted_at = models.DateTimeField()
    lapses_at = models.DateTimeField()
    decided_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-submitted_at"]
        indexes = [
            models.Index(fields=["state", "lapses_at"], name="request_by_state"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["requester", "asset", "account"],
                condition=Q(state=RequestState.PENDING),
                name="one_pending_request_per_person_asset_account",
            ),
            models.CheckConstraint(
                condition=Q(minutes__gte=1), name="request_is_for_some_time"
            ),
            models.CheckConstraint(
                condition=Q(state=RequestState.PENDING, decided_at=None)
                | (~Q(state=RequestState.PENDING) & Q(decided_at__isnull=False)),
                name="decided_request_has_its_time",
            ),
            models.CheckConstraint(
                condition=Q(lapses_at__gt=F("submitted_at")),
                name="request_lapses_after_it_was_made",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.short_id} {self.requester} to {self.account}"

    @property
    def short_id(self) -> str:
        """Return the form shown to people."""
        return short_id("R", self.id)

    @property
    def party(self) -> Party:
        """Return this request as the ledger keeps it."""
        return Party("request", str(self.pk), str(self))


class Verdict(models.TextChoices):
    """What an approver decided."""

    APPROVE = "approve", "Approved"
    DENY = "deny", "Denied"


class Approval(models.Model):
    """One approver's verdict on one version of a request."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    request = models.ForeignKey(AccessRequest, models.PROTECT, related_name="approvals")
    request_version = models.PositiveIntegerField()
    # Copied from the request, because a check cannot look into another table.
    requester = models.ForeignKey(User, models.PROTECT, related_name="+")
    approver = models.ForeignKey(User, models.PROTECT, related_name="approvals")
    verdict = models.CharField(max_length=8, choices=Verdict.choices)
    # What was granted, never more than what was asked; null when denied.
    minutes = models.PositiveIntegerField(null=True, blank=True)
    comment = models.CharField(max_length=500, blank=True)
    source_address = models.CharField(max_length=64)
    at = models.DateTimeField()

    class Meta:
        ordering = ["at"]
        constraints = [
            models.CheckConstraint(
                condition=~Q(approver=F("requester")),
                name="approver_is_not_requester",
            ),
            models.UniqueConstraint(
                fields=["request", "request_version", "approver"],
                name="one_verdict_per_approver_and_version",
            ),
            models.CheckConstraint(
                condition=Q(verdict=Verdict.APPROVE, minutes__gte=1)
                | Q(verdict=Verdict.DENY, minutes=None),
                name="approval_says_for_how_long",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.verdict} by {self.approver}"


class GrantQuerySet(models.QuerySet["Grant"]):
    """Row sets of grants."""

    def active(self, *, at: dt.datetime) -> "GrantQuerySet":
        """Return the grants that hold at `at`: the SQL twin of `Grant.is_active`."""
        return self.filter(
            starts_at__lte=at,
            ends_at__gt=at,
            revoked_at=None,
            finished_at=None,
        )


class Grant(models.Model):
    """A person may use an account on an asset in the half-open [starts_at, ends_at)."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    request = models.OneToOneField(AccessRequest, models.PROTECT, related_name="grant")
    person = models.ForeignKey(User, models.PROTECT, related_name="grants")
    asset = models.ForeignKey(Asset, models.PROTECT, related_name="grants")
    account = models.ForeignKey(TargetAccount, models.PROTECT, related_name="grants")
    services = models.JSONField(default=list)
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    first_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    revoked_by = models.ForeignKey(
        User, models.PROTECT, null=True, blank=True, related_name="+"
    )
    revoke_reason = models.CharField(max_length=500, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    expiry_noted_at = models.DateTimeField(null=True, blank=True)

    objects = GrantQuerySet.as_manager()

    class Meta:
        ordering = ["-starts_at"]
        indexes = [
            models.Index(fields=["person", "ends_at"], name="grant_by_person"),
            models.Index(fields=["ends_at"], name="grant_by_end"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(ends_at__gt=F("starts_at")),
                name="grant_ends_after_it_starts",
            ),
            models.CheckConstraint(
                condition=Q(revoked_at=None, revoked_by=None)
                | Q(revoked_at__isnull=False, revoked_by__isnull=False),
                name="revoked_at_and_revoked_by_set_together",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.short_id} {self.person} to {self.account}"

    @property
    def short_id(self) -> str:
        """Return the form shown to people."""
        return short_id("G", self.id)

    @property
    def party(self) -> Party:
        """Return this grant as the ledger keeps it."""
        return Party("grant", str(self.pk), str(self))

    def is_active(self, at: dt.datetime) -> bool:
        """Say whether the grant holds at `at`; twin of `GrantQuerySet.active`."""
        return (
            self.starts_at <= at < self.ends_at
            and self.revoked_at is None
            and self.finished_at is None
        )

    def state(self, at: dt.datetime) -> GrantState:
        """Return the grant's state at `at`; before its start it counts as active."""
        if self.revoked_at is not None:
            return GrantState.REVOKED
        if self.finished_at is not None:
            return GrantState.FINISHED
        return GrantState.EXPIRED if at >= self.ends_at else GrantState.ACTIVE


class GrantExtension(models.Model):
    """The person of a grant asks that it end later; an approver decides."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    grant = models.ForeignKey(Grant, models.PROTECT, related_name="extensions")
    # Copied from the grant, because a check cannot look into another table.
    requester = models.ForeignKey(User, models.PROTECT, related_name="+")
    minutes = models.PositiveIntegerField()
    reason = models.CharField(max_length=500)
    source_address = models.CharField(max_length=64)
    asked_at = models.DateTimeField()
    state = models.CharField(
        max_length=10,
        choices=[(s.value, s.value) for s in ExtensionState],
        default=ExtensionState.PENDING,
    )
    decided_at = models.DateTimeField(null=True, blank=True)
    decided_by = models.ForeignKey(
        User, models.PROTECT, null=True, blank=True, related_name="+"
    )
    # Never more than what was asked.
    minutes_granted = models.PositiveIntegerField(null=True, blank=True)
    comment = models.CharField(max_length=500, blank=True)

    class Meta:
        ordering = ["-asked_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["grant"],
                condition=Q(state=ExtensionState.PENDING),
                name="one_pending_extension_per_grant",
            ),
            models.CheckConstraint(
                condition=Q(decided_by=None) | ~Q(decided_by=F("requester")),
                name="nobody_extends_their_own_grant",
            ),
            models.CheckConstraint(
                condition=Q(state=ExtensionState.PENDING, decided_at=None)
                | (~Q(state=ExtensionState.PENDING) & Q(decided_at__isnull=False)),
                name="decided_extension_has_its_time",
            ),
            models.CheckConstraint(
                condition=Q(
                    state=ExtensionState.APPROVED,
                    decided_by__isnull=False,
                    minutes_granted__gte=1,
                    minutes_granted__lte=F("minutes"),
                )
                | (~Q(state=ExtensionState.APPROVED) & Q(minutes_granted=None)),
                name="approved_extension_says_by_whom_and_how_much",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.minutes} min more for {self.grant}"


class Decision(models.Model):
    """What the policy decision point said, allowed or denied, and why."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    at = models.DateTimeField()
    # connection, request, approval, extension
    question = models.CharField(max_length=20)
    person_id = models.CharField(max_length=64)
    person_label = models.CharField(max_length=64)
    asset_id = models.CharField(max_length=64, blank=True)
    asset_label = models.CharField(max_length=64, blank=True)
    account_label = models.CharField(max_length=64, blank=True)
    source_address = models.CharField(max_length=64, blank=True)
    allowed = models.BooleanField()
    # A `DenialCode`, or empty when allowed.
    code = models.CharField(max_length=40, blank=True)
    # The conduit or rule that allowed or denied it.
    rule = models.CharField(max_length=120, blank=True)

    class Meta:
        ordering = ["-at"]
        indexes = [models.Index(fields=["person_id", "at"], name="decision_by_person")]
        constraints = [
            models.CheckConstraint(
                condition=Q(allowed=True, code="") | (Q(allowed=False) & ~Q(code="")),
                name="denied_decision_has_its_code",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.question} {self.person_label} {self.code or 'allowed'}"
