"""Live and ended sessions, their channels, and the gateways that carry them."""

import datetime as dt

from django.db import models
from django.db.models import F, Q
from django.utils.functional import cached_property

from apps.access.models import Grant
from apps.accounts.models import User
from apps.audit.identifiers import short_id, uuid7
from apps.audit.operations import Party
from apps.inventory.models import Asset, EndMode, TargetAccount
from apps.sessions.lifecycle import SENTENCES, EndReason, SessionState
from apps.vault.models import Lease


class GatewayNode(models.Model):
    """A running gateway. Not seen for a while means lost."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=60)
    version = models.CharField(max_length=40, blank=True)
    # Where people reach it, and where the portal's browser terminals reach it.
    ssh_address = models.CharField(max_length=120, blank=True)
    link_address = models.CharField(max_length=200, blank=True)
    started_at = models.DateTimeField()
    seen_at = models.DateTimeField()
    stopped_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-started_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["name"],
                condition=Q(stopped_at=None),
                name="one_running_gateway_per_name",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def party(self) -> Party:
        """Return this gateway as the ledger keeps it."""
        return Party("gateway", str(self.pk), self.name)


class SessionQuerySet(models.QuerySet["Session"]):
    """Row sets of sessions."""

    def live(self) -> "SessionQuerySet":
        """Return the sessions that have not ended."""
        return self.filter(ended_at=None)


class Session(models.Model):
    """One person on one account of one asset, under one grant, until its deadline."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    grant = models.ForeignKey(Grant, models.PROTECT, related_name="sessions")
    person = models.ForeignKey(User, models.PROTECT, related_name="sessions")
    asset = models.ForeignKey(Asset, models.PROTECT, related_name="sessions")
    account = models.ForeignKey(TargetAccount, models.PROTECT, related_name="sessions")
    gateway = models.ForeignKey(GatewayNode, models.PROTECT, related_name="sessions")
    lease = models.OneToOneField(
        Lease, models.PROTECT, null=True, blank=True, related_name="session"
    )
    # ssh or browser
    door = models.CharField(max_length=8)
    source_address = models.CharField(max_length=64)
    client = models.CharField(max_length=120, blank=True)
    crypto_profile = models.CharField(max_length=20)
    host_key_fingerprint = models.CharField(max_length=80, blank=True)
    end_mode = models.CharField(max_length=8, choices=EndMode.choices)
    opened_at = models.DateTimeField()
    active_at = models.DateTimeField(null=True, blank=True)
    deadline = models.DateTimeField()
    state = models.CharField(
        max_length=8,
        choices=[(s.value, s.value) for s in SessionState],
        default=SessionState.OPENING,
    )
    ended_at = models.DateTimeField(null=True, blank=True)
    end_reason = models.CharField(
        max_length=20, blank=True, choices=[(r.value, r.value) for r in EndReason]
    )
    # What went wrong or who ended it, in words.
    end_detail = models.CharField(max_length=300, blank=True)
    terminate_asked_at = models.DateTimeField(null=True, blank=True)
    terminate_asked_by = models.ForeignKey(
        User, models.PROTECT, null=True, blank=True, related_name="+"
    )
    terminate_reason = models.CharField(max_length=300, blank=True)
    # Set while somebody wants the session's input held; the gateway sees to it.
    freeze_asked_at = models.DateTimeField(null=True, blank=True)
    freeze_asked_by = models.ForeignKey(
        User, models.PROTECT, null=True, blank=True, related_name="+"
    )
    freeze_reason = models.CharField(max_length=300, blank=True)
    # Grows with each freeze and each resume, so that each is done once.
    freeze_number = models.PositiveIntegerField(default=0)
    # Who is to type instead of the session's person; the gateway sees to it.
    typist = models.ForeignKey(
        User, models.PROTECT, null=True, blank=True, related_name="+"
    )
    # Grows with each hand-over and each return; the last one that was carried out.
    typist_number = models.PositiveIntegerField(default=0)
    typist_noted = models.PositiveIntegerField(default=0)
    # Set while its terminals are locked because nobody typed.
    locked_at = models.DateTimeField(null=True, blank=True)
    resumed_by = models.ForeignKey(
        User, models.PROTECT, null=True, blank=True, related_name="+"
    )

    objects = SessionQuerySet.as_manager()

    class Meta:
        ordering = ["-opened_at"]
        indexes = [
            models.Index(fields=["gateway", "ended_at"], name="session_by_gateway"),
            models.Index(fields=["asset", "ended_at"], name="session_by_asset"),
            models.Index(fields=["person", "opened_at"], name="session_by_person"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(ended_at=None, end_reason="")
                | (Q(ended_at__isnull=False) & ~Q(end_reason="")),
                name="ended_at_and_end_reason_set_together",
            ),
            models.CheckConstraint(
                condition=(Q(state=SessionState.ENDED) & Q(ended_at__isnull=False))
                | (~Q(state=SessionState.ENDED) & Q(ended_at=None)),
                name="ended_session_has_its_time",
            ),
            models.CheckConstraint(
                condition=Q(terminate_asked_at=None, terminate_asked_by=None)
                | Q(
                    terminate_asked_at__isnull=False,
                    terminate_asked_by__isnull=False,
                ),
                name="terminate_asked_at_and_by_set_together",
            ),
            models.CheckConstraint(
                condition=Q(
                    freeze_asked_at=None, freeze_asked_by=None, freeze_reason=""
                )
                | (
                    Q(freeze_asked_at__isnull=False, freeze_asked_by__isnull=False)
                    & ~Q(freeze_reason="")
                ),
                name="freeze_has_its_time_person_and_reason",
            ),
            models.CheckConstraint(
                condition=Q(freeze_asked_by=None) | ~Q(freeze_asked_by=F("person")),
                name="nobody_freezes_their_own_session",
            ),
            models.CheckConstraint(
                condition=Q(typist=None) | ~Q(typist=F("person")),
                name="typing_is_handed_to_somebody_else",
            ),
            models.CheckConstraint(
                condition=Q(typist=None) | Q(ended_at=None),
                name="nobody_types_in_an_ended_session",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.short_id} {self._who_on_what}"

    @cached_property
    def _who_on_what(self) -> str:
        if {"person", "account"} <= self._state.fields_cache.keys():
            return f"{self.person} on {self.account}"
        # Three names instead of three rows: every event about a session has its label.
        person, account, asset = Session.objects.values_list(
            "person__username", "account__name", "account__asset__name"
        ).get(pk=self.pk)
        return f"{person} on {account} on {asset}"

    @property
    def short_id(self) -> str:
        """Return the form shown to people."""
        return short_id("S", self.id)

    @property
    def party(self) -> Party:
        """Return this session as the ledger keeps it."""
        return Party("session", str(self.pk), str(self))

    @property
    def is_live(self) -> bool:
        """Say whether the session has not ended."""
        return self.ended_at is None

    @property
    def is_locked(self) -> bool:
        """Say whether its terminals are locked."""
        return self.is_live and self.locked_at is not None

    @property
    def end_sentence(self) -> str:
        """Return why it ended, in one sentence; empty while it is live."""
        return SENTENCES[EndReason(self.end_reason)] if self.end_reason else ""

    def duration(self, at: dt.datetime) -> dt.timedelta:
        """Return how long it lasted, or has lasted at `at`."""
        return (self.ended_at or at) - self.opened_at


class Channel(models.Model):
    """One SSH channel of a session: a shell or a command."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    session = models.ForeignKey(Session, models.CASCADE, related_name="channels")
    # The channel's number in the recording.
    number = models.PositiveIntegerField()
    kind = models.CharField(max_length=20)
    command = models.TextField(blank=True)
    has_pty = models.BooleanField(default=False)
    opened_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True, blank=True)
    exit_status = models.BigIntegerField(null=True, blank=True)
    exit_signal = models.CharField(max_length=20, blank=True)
    bytes_in = models.BigIntegerField(default=0)
    bytes_out = models.BigIntegerField(default=0)

    class Meta:
        ordering = ["number"]
        constraints = [
            models.UniqueConstraint(
                fields=["session", "number"], name="channel_number_is_unique"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.number}"


class SessionMessage(models.Model):
    """One line to the engineer of a live session, shown on its terminals once."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    session = models.ForeignKey(Session, models.CASCADE, related_name="messages")
    # From 1 within a session, without gaps: the order in which they are shown.
    number = models.PositiveIntegerField()
    sender = models.ForeignKey(User, models.PROTECT, related_name="+")
    text = models.CharField(max_length=300)
    sent_at = models.DateTimeField()
    # None until a terminal of the session has shown it.
    shown_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["number"]
        constraints = [
            models.UniqueConstraint(
                fields=["session", "number"], name="message_number_is_unique"
            ),
        ]

    def __str__(self) -> str:
        return f"message {self.number} from {self.sender}"


class Watch(models.Model):
    """One person looking at one live session, from first to last."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    session = models.ForeignKey(Session, models.CASCADE, related_name="watches")
    person = models.ForeignKey(User, models.PROTECT, related_name="+")
    # portal or ssh
    door = models.CharField(max_length=8)
    source_address = models.CharField(max_length=64, blank=True)
    # Whether it has a keyboard that could be typed on.
    can_type = models.BooleanField(default=False)
    began_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["began_at"]
        indexes = [
            models.Index(fields=["session", "ended_at"], name="watch_by_session"),
        ]

    def __str__(self) -> str:
        return f"watch of {self.person}"


class TicketPurpose(models.TextChoices):
    """What a ticket lets the portal do at the gateway."""

    TERMINAL = "terminal", "Open a browser terminal"
    WATCH = "watch", "Watch a live session"


class ConnectionTicket(models.Model):
    """Lets the portal open one thing at the gateway for one person, once (R2).

    Only the hash is kept; the ticket itself never reaches a browser.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    token_hash = models.BinaryField(max_length=32, unique=True)
    purpose = models.CharField(max_length=10, choices=TicketPurpose.choices)
    person = models.ForeignKey(User, models.CASCADE, related_name="+")
    grant = models.ForeignKey(Grant, models.CASCADE, null=True, related_name="+")
    session = models.ForeignKey(Session, models.CASCADE, null=True, related_name="+")
    source_address = models.CharField(max_length=64)
    made_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(
                    purpose=TicketPurpose.TERMINAL,
                    grant__isnull=False,
                    session=None,
                )
                | Q(purpose=TicketPurpose.WATCH, grant=None, session__isnull=False),
                name="ticket_is_for_a_grant_or_a_session",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.purpose} ticket of {self.person}"
