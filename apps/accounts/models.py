"""People, their roles and their SSH public keys."""

import datetime as dt
from typing import ClassVar

from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import UserManager as DjangoUserManager
from django.core.validators import RegexValidator
from django.db import models
from django.db.models.functions import Lower

from apps.audit.identifiers import short_id, uuid7
from apps.audit.operations import Party

# It is the first part of an SSH user string, so no separator and nothing a shell,
# a path or a certificate could read otherwise.
HANDLE = RegexValidator(
    r"\A[a-z][a-z0-9._-]{1,31}\Z",
    "Use 2 to 32 small letters, digits, dots, hyphens or underscores; begin with a "
    "letter.",
)


BANNER_LENGTH = 2000
CONSENT_LENGTH = 1000


class UserQuerySet(models.QuerySet["User"]):
    """Row sets of people."""

    def enabled(self) -> "UserQuerySet":
        """Return the people who are not disabled."""
        return self.filter(disabled_at=None)


class UserManager(DjangoUserManager["User"]):
    """Finds people by handle whatever its case; makes nobody by itself."""

    # Made by `from_queryset` below, which the migration writer cannot name.
    use_in_migrations = False

    def get_by_natural_key(self, username: str | None) -> "User":
        """Return the person with this handle, whatever its case."""
        return self.get(username__iexact=username)


class User(AbstractBaseUser):
    """A named person. Roles say what they may come to do, sites say where."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    username = models.CharField("handle", max_length=32, validators=[HANDLE])
    full_name = models.CharField(max_length=120)
    email = models.EmailField(blank=True)
    organisation = models.CharField(max_length=120, blank=True)
    is_engineer = models.BooleanField("engineer", default=False)
    is_approver = models.BooleanField("approver", default=False)
    is_auditor = models.BooleanField("auditor", default=False)
    is_administrator = models.BooleanField("administrator", default=False)
    disabled_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField()
    # Sessions and grants made before this moment do not count any more.
    factors_reset_at = models.DateTimeField(null=True, blank=True)
    # A full sign-in whose code was checked up to this moment begins no grace.
    graces_void_before = models.DateTimeField(null=True, blank=True)

    USERNAME_FIELD = "username"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    objects = UserManager.from_queryset(UserQuerySet)()

    class Meta:
        ordering = ["username"]
        constraints = [
            models.UniqueConstraint(
                Lower("username"), name="handle_is_unique_whatever_its_case"
            ),
            models.CheckConstraint(
                condition=models.Q(username__regex=r"^[a-z][a-z0-9._-]+$"),
                name="handle_is_safe_for_ssh",
            ),
        ]

    def __str__(self) -> str:
        return self.username

    @property
    def is_active(self) -> bool:  # type: ignore[override]  # a column in Django
        """Say whether this person may sign in (Django's word for not disabled)."""
        return self.disabled_at is None

    @property
    def party(self) -> Party:
        """Return this person as the ledger keeps them."""
        return Party("person", str(self.pk), self.username)

    @property
    def role_names(self) -> list[str]:
        """Return the roles this person holds, in the order people read them."""
        pairs = [
            ("engineer", self.is_engineer),
            ("approver", self.is_approver),
            ("auditor", self.is_auditor),
            ("administrator", self.is_administrator),
        ]
        return [name for name, held in pairs if held]

    def get_full_name(self) -> str:
        """Return the name for people to read."""
        return self.full_name

    def get_short_name(self) -> str:
        """Return the handle."""
        return self.username


class SshPublicKeyQuerySet(models.QuerySet["SshPublicKey"]):
    """Row sets of public keys."""

    def usable(self) -> "SshPublicKeyQuerySet":
        """Return the keys that were not removed, of people who are not disabled."""
        return self.filter(removed_at=None, user__disabled_at=None)


class SshPublicKey(models.Model):
    """A key a person signs in with over SSH. Removed keys stay as evidence."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    user = models.ForeignKey(User, models.PROTECT, related_name="ssh_public_keys")
    name = models.CharField(max_length=80)
    algorithm = models.CharField(max_length=80)
    # OpenSSH one-line form without the comment: `ssh-ed25519 AAAA...`
    line = models.TextField()
    # `SHA256:` and unpadded base64, as ssh-keygen -l prints it.
    fingerprint = models.CharField(max_length=80)
    added_at = models.DateTimeField()
    last_used_at = models.DateTimeField(null=True, blank=True)
    removed_at = models.DateTimeField(null=True, blank=True)

    objects = SshPublicKeyQuerySet.as_manager()

    class Meta:
        ordering = ["-added_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["fingerprint"],
                condition=models.Q(removed_at=None),
                name="one_person_per_public_key",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.fingerprint}"

    @property
    def short_id(self) -> str:
        """Return the form shown to people."""
        return short_id("K", self.id)


class SignInGrace(models.Model):
    """After a full sign-in over SSH: this key from this address needs no code.

    Each zone says for how long; `ends_at` is the longest of them. Ended early, the row
    is deleted.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    user = models.ForeignKey(User, models.CASCADE, related_name="sign_in_graces")
    key = models.ForeignKey(SshPublicKey, models.CASCADE, related_name="+")
    # As the socket gives it; compared as it stands.
    source_address = models.CharField(max_length=64)
    signed_in_at = models.DateTimeField()
    ends_at = models.DateTimeField()

    class Meta:
        ordering = ["-signed_in_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["user", "key", "source_address"],
                name="one_grace_per_person_key_and_address",
            ),
            models.CheckConstraint(
                condition=models.Q(ends_at__gt=models.F("signed_in_at")),
                name="grace_ends_after_the_sign_in",
            ),
            models.CheckConstraint(
                condition=~models.Q(source_address=""),
                name="grace_is_for_one_address",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.key.name} from {self.source_address}"


class SignInNotice(models.Model):
    """What people are told before and at sign-in; the newest row counts."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    # Shown before anybody has signed in, over SSH and in the portal.
    banner = models.TextField(blank=True, max_length=BANNER_LENGTH)
    # Shown to those who have signed in over SSH.
    consent = models.TextField(blank=True, max_length=CONSENT_LENGTH)
    consent_required = models.BooleanField(default=False)
    # A shell on a terminal begins with who, where and until when.
    greets = models.BooleanField(default=False)
    made_at = models.DateTimeField()
    made_by = models.ForeignKey(User, models.PROTECT, related_name="+")

    class Meta:
        ordering = ["-made_at"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(consent_required=False) | ~models.Q(consent=""),
                name="consent_that_is_required_has_a_text",
            ),
        ]

    def __str__(self) -> str:
        return f"notice of {self.made_at:%Y-%m-%d %H:%M}"

    @property
    def party(self) -> Party:
        """Return this notice as the ledger keeps it."""
        return Party("notice", str(self.pk), str(self))


class ApiTokenQuerySet(models.QuerySet["ApiToken"]):
    """Row sets of API tokens."""

    def usable(self, *, at: dt.datetime) -> "ApiTokenQuerySet":
        """Return the tokens that hold at `at`, of people who are not disabled."""
        return self.filter(expires_at__gt=at, revoked_at=None, user__disabled_at=None)


class ApiToken(models.Model):
    """Lets a program act as its person, within scopes; only the hash is kept."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    user = models.ForeignKey(User, models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=80)
    token_hash = models.BinaryField(max_length=32, unique=True)
    # Sorted list of `api_tokens.SCOPES`.
    scopes = models.JSONField(default=list)
    made_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    objects = ApiTokenQuerySet.as_manager()

    class Meta:
        ordering = ["-made_at"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(expires_at__gt=models.F("made_at")),
                name="api_token_expires",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} of {self.user}"

    @property
    def short_id(self) -> str:
        """Return the form shown to people."""
        return short_id("T", self.id)

    @property
    def party(self) -> Party:
        """Return this token as the ledger keeps it."""
        return Party("api-token", str(self.pk), f"{self.short_id} {self}")
