"""Sites, zones, conduits (IEC 62443-3-2), assets, their accounts and host keys."""

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Lower

from apps.accounts.models import BANNER_LENGTH, User
from apps.audit.identifiers import short_id, uuid7
from apps.audit.operations import Party
from apps.inventory.crypto_profiles import MODERN, PROFILES
from apps.inventory.file_rules import MEGABYTE, FileRules
from apps.inventory.sign_ins import TITLES, SignIn

# It is the second part of an SSH user string and a host name in certificates.
ASSET_NAME = RegexValidator(
    r"\A[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z",
    "Use 1 to 63 small letters, digits and hyphens, as in a host name.",
)
LOGIN = RegexValidator(
    r"\A[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\Z",
    "Use 1 to 64 letters, digits, dots, hyphens or underscores.",
)


GRACE_DEFAULT_MINUTES = 10
"""The grace of a zone that names none of its own and may have one."""

GRACE_MOST_MINUTES = 60

NO_GRACE_FROM_SL_T = 3
"""From this target security level on, each sign-in needs every factor (IEC 62443-3-3
SR 1.1 RE 2)."""


class PurdueLevel(models.TextChoices):
    """Levels of the Purdue model, with the DMZ between plant and office."""

    LEVEL_0 = "0", "0 Process"
    LEVEL_1 = "1", "1 Basic control"
    LEVEL_2 = "2", "2 Supervision"
    LEVEL_3 = "3", "3 Operations"
    LEVEL_35 = "3.5", "3.5 DMZ"
    LEVEL_4 = "4", "4 Site business"
    LEVEL_5 = "5", "5 Enterprise"


class EndMode(models.TextChoices):
    """What happens to a session at its deadline."""

    CUT = "cut", "Cut: every channel is closed at once"
    FREEZE = "freeze", "Freeze: input stops, output shows for the grace time, then cut"
    DRAIN = (
        "drain",
        "Drain: no new channel, running ones may finish in the grace time, then cut",
    )


class CredentialKind(models.TextChoices):
    """How the gateway signs in as a target account."""

    CERTIFICATE = "certificate", "Certificate of the site's SSH authority"
    KEY = "key", "Key in the vault, rotated after each session"
    PASSWORD = "password", "Password in the vault, rotated after each session"


class AssetKind(models.TextChoices):
    """What an asset is."""

    HMI = "hmi", "HMI"
    SCADA = "scada", "SCADA server"
    HISTORIAN = "historian", "Historian"
    WORKSTATION = "workstation", "Engineering workstation"
    PLC = "plc", "PLC"
    SWITCH = "switch", "Switch"
    OTHER = "other", "Other"


class Site(models.Model):
    """A plant, or a part of one, with its own people and its own SSH authority."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    slug = models.SlugField(max_length=40, unique=True)
    name = models.CharField(max_length=120)
    # IANA name; times are stored in UTC and shown in plant time beside it.
    time_zone = models.CharField(max_length=60, default="UTC")
    # What people are told at this site; empty means what all are told.
    banner = models.TextField(blank=True, max_length=BANNER_LENGTH)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def party(self) -> Party:
        """Return this site as the ledger keeps it."""
        return Party("site", str(self.pk), self.name)


class SiteMembership(models.Model):
    """A person belongs to a site: their roles count there and nowhere else."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    site = models.ForeignKey(Site, models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, models.CASCADE, related_name="site_memberships")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["site", "user"], name="one_membership_per_person_and_site"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user} at {self.site}"


class Zone(models.Model):
    """Assets with the same security requirements (IEC 62443-1-1: zone)."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    site = models.ForeignKey(Site, models.PROTECT, related_name="zones")
    parent = models.ForeignKey(
        "self", models.PROTECT, null=True, blank=True, related_name="children"
    )
    name = models.CharField(max_length=120)
    purdue_level = models.CharField(max_length=3, choices=PurdueLevel.choices)
    # Target security level, 1 to 4.
    sl_t = models.PositiveSmallIntegerField(
        "SL-T",
        default=1,
        validators=[MinValueValidator(1), MaxValueValidator(4)],
    )
    hosts_gateway = models.BooleanField("the gateway is in this zone", default=False)
    # For so long after a full sign-in over SSH the key alone will do; null follows the
    # security level.
    mfa_grace_minutes = models.PositiveSmallIntegerField(
        "MFA grace in minutes",
        null=True,
        blank=True,
        validators=[MaxValueValidator(GRACE_MOST_MINUTES)],
    )
    # Minutes; 0 is never, None is what the product's settings say.
    idle_lock_minutes = models.PositiveSmallIntegerField(
        null=True, blank=True, validators=[MaxValueValidator(1440)]
    )
    idle_end_minutes = models.PositiveSmallIntegerField(
        null=True, blank=True, validators=[MaxValueValidator(1440)]
    )

    class Meta:
        ordering = ["site__name", "-purdue_level", "name"]
        constraints = [
            models.UniqueConstraint(
                fields=["site", "name"], name="zone_name_is_unique_in_its_site"
            ),
            models.UniqueConstraint(
                fields=["site"],
                condition=Q(hosts_gateway=True),
                name="one_gateway_zone_per_site",
            ),
            models.CheckConstraint(
                condition=Q(sl_t__gte=1) & Q(sl_t__lte=4),
                name="security_level_is_one_to_four",
            ),
            models.CheckConstraint(
                condition=Q(parent=None) | ~Q(parent=F("id")),
                name="zone_is_not_its_own_parent",
            ),
            models.CheckConstraint(
                condition=Q(mfa_grace_minutes=None)
                | Q(mfa_grace_minutes__lte=GRACE_MOST_MINUTES),
                name="mfa_grace_is_at_most_an_hour",
            ),
            models.CheckConstraint(
                condition=Q(sl_t__lt=NO_GRACE_FROM_SL_T)
                | Q(mfa_grace_minutes=None)
                | Q(mfa_grace_minutes=0),
                name="no_mfa_grace_from_security_level_three_on",
                violation_error_message="From SL-T 3 on every sign-in needs the "
                "one-time code: leave the MFA grace empty or 0.",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def party(self) -> Party:
        """Return this zone as the ledger keeps it."""
        return Party("zone", str(self.pk), self.name)

    @property
    def grace_minutes(self) -> int:
        """Return how long after a full sign-in the key alone will do; 0 is never."""
        if self.sl_t >= NO_GRACE_FROM_SL_T:
            return 0
        own: int | None = self.mfa_grace_minutes
        return GRACE_DEFAULT_MINUTES if own is None else own


class Conduit(models.Model):
    """The only way between two zones, and what may cross it (IEC 62443-1-1)."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=40)
    from_zone = models.ForeignKey(Zone, models.PROTECT, related_name="conduits_out")
    to_zone = models.ForeignKey(Zone, models.PROTECT, related_name="conduits_in")
    # Sorted list of what `services.check_services` takes.
    services = models.JSONField(default=list)
    # For what is too large to keep: where, when and how much is recorded always.
    omits_forward_bytes = models.BooleanField(
        "what forwards carry is not recorded", default=False
    )

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                condition=~Q(from_zone=F("to_zone")), name="conduit_joins_two_zones"
            ),
            models.UniqueConstraint(
                fields=["from_zone", "to_zone"],
                name="one_conduit_per_pair_and_direction",
            ),
            models.UniqueConstraint(fields=["name"], name="conduit_name_is_unique"),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def party(self) -> Party:
        """Return this conduit as the ledger keeps it."""
        return Party("conduit", str(self.pk), self.name)


def _first_set(*minutes: int | None) -> int:
    return next(number for number in minutes if number is not None)


class Asset(models.Model):
    """A host people may be let through to. Only administrators set its address."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=63, validators=[ASSET_NAME])
    zone = models.ForeignKey(Zone, models.PROTECT, related_name="assets")
    kind = models.CharField(
        max_length=12, choices=AssetKind.choices, default=AssetKind.OTHER
    )
    description = models.CharField(max_length=200, blank=True)
    vendor = models.CharField(max_length=80, blank=True)
    model = models.CharField(max_length=80, blank=True)
    address = models.CharField(max_length=253)
    port = models.PositiveIntegerField(
        default=22, validators=[MinValueValidator(1), MaxValueValidator(65535)]
    )
    on_expiry = models.CharField(
        max_length=8, choices=EndMode.choices, default=EndMode.CUT
    )
    grace_seconds = models.PositiveIntegerField(
        default=300, validators=[MaxValueValidator(3600)]
    )
    in_operation = models.BooleanField(
        "in operation: a revocation freezes instead of cutting", default=False
    )
    crypto_profile = models.CharField(
        max_length=20,
        choices=[(p.name, p.title) for p in PROFILES.values()],
        default=MODERN.name,
    )
    # Live sessions at the same time; 0 is no limit.
    session_limit = models.PositiveIntegerField(default=0)
    # What files may be moved, as `file_rules` has it; empty, or 0, is no limit.
    file_roots = models.TextField(blank=True)
    file_endings_allowed = models.CharField(max_length=500, blank=True)
    file_endings_denied = models.CharField(max_length=500, blank=True)
    file_limit_mb = models.PositiveIntegerField(default=0)
    files_limit_mb = models.PositiveIntegerField(default=0)
    uploads_held = models.BooleanField(default=False)
    # Minutes; 0 is never, None is what the zone says.
    idle_lock_minutes = models.PositiveSmallIntegerField(
        null=True, blank=True, validators=[MaxValueValidator(1440)]
    )
    idle_end_minutes = models.PositiveSmallIntegerField(
        null=True, blank=True, validators=[MaxValueValidator(1440)]
    )
    retired_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(
                Lower("name"), name="asset_name_is_unique_whatever_its_case"
            ),
            models.CheckConstraint(
                condition=Q(port__gte=1) & Q(port__lte=65535),
                name="port_is_1_to_65535",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def party(self) -> Party:
        """Return this asset as the ledger keeps it."""
        return Party("asset", str(self.pk), self.name)

    @property
    def short_id(self) -> str:
        """Return the form shown to people."""
        return short_id("A", self.id)

    @property
    def locks_after_minutes(self) -> int:
        """Return after how long without typing its terminals lock; 0 is never."""
        return _first_set(
            self.idle_lock_minutes,
            self.zone.idle_lock_minutes,
            settings.IDLE_LOCK_MINUTES,
        )

    @property
    def ends_after_minutes(self) -> int:
        """Return after how long without anything its sessions end; 0 is never."""
        return _first_set(
            self.idle_end_minutes,
            self.zone.idle_end_minutes,
            settings.IDLE_END_MINUTES,
        )

    @property
    def file_rules(self) -> FileRules:
        """Return what files may be moved to and from it."""
        return FileRules(
            roots=tuple(self.file_roots.splitlines()),
            allowed_extensions=frozenset(self.file_endings_allowed.split()),
            denied_extensions=frozenset(self.file_endings_denied.split()),
            file_bytes=self.file_limit_mb * MEGABYTE,
            session_bytes=self.files_limit_mb * MEGABYTE,
            uploads_held=self.uploads_held,
        )


class TargetAccount(models.Model):
    """A login on an asset, and how the gateway signs in as it."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    asset = models.ForeignKey(Asset, models.PROTECT, related_name="accounts")
    # What people ask for and type; also the certificate's principal.
    name = models.CharField(max_length=64, validators=[LOGIN])
    # What is sent to the asset, where that differs.
    login = models.CharField(max_length=64, validators=[LOGIN])
    credential_kind = models.CharField(max_length=12, choices=CredentialKind.choices)
    # Where the asset asks for it. At a device's own prompts `name` is typed.
    sign_in = models.CharField(
        max_length=20,
        choices=[(kind.value, title) for kind, title in TITLES.items()],
        default=SignIn.SSH.value,
    )

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                condition=Q(sign_in=SignIn.SSH.value)
                | Q(credential_kind=CredentialKind.PASSWORD),
                name="only_a_password_is_typed_at_prompts",
            ),
            models.UniqueConstraint(
                fields=["asset", "name"], name="one_account_per_asset_and_name"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} on {self.asset}"

    @property
    def party(self) -> Party:
        """Return this account as the ledger keeps it."""
        return Party("account", str(self.pk), str(self))


class HostKeyQuerySet(models.QuerySet["HostKey"]):
    """Row sets of host keys."""

    def pinned(self) -> "HostKeyQuerySet":
        """Return the keys that count: confirmed by a second person, not removed."""
        return self.filter(removed_at=None).exclude(confirmed_by=None)


class HostKey(models.Model):
    """A host key of an asset. It counts once a second person has confirmed it."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    asset = models.ForeignKey(Asset, models.PROTECT, related_name="host_keys")
    algorithm = models.CharField(max_length=80)
    # OpenSSH one-line form without comment.
    line = models.TextField()
    fingerprint = models.CharField(max_length=80)
    pinned_by = models.ForeignKey(User, models.PROTECT, related_name="+")
    pinned_at = models.DateTimeField()
    confirmed_by = models.ForeignKey(
        User, models.PROTECT, related_name="+", null=True, blank=True
    )
    confirmed_at = models.DateTimeField(null=True, blank=True)
    removed_at = models.DateTimeField(null=True, blank=True)

    objects = HostKeyQuerySet.as_manager()

    class Meta:
        ordering = ["-pinned_at"]
        constraints = [
            models.CheckConstraint(
                condition=Q(confirmed_by=None) | ~Q(confirmed_by=F("pinned_by")),
                name="host_key_needs_two_people",
            ),
            models.CheckConstraint(
                condition=Q(confirmed_by=None, confirmed_at=None)
                | Q(confirmed_by__isnull=False, confirmed_at__isnull=False),
                name="confirmed_at_and_confirmed_by_set_together",
            ),
            models.UniqueConstraint(
                fields=["asset", "fingerprint"],
                condition=Q(removed_at=None),
                name="one_pin_per_asset_and_key",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.algorithm} {self.fingerprint}"
