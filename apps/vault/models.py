"""What the vault holds: sealed secrets, authorities, leases and revocation receipts.

The vault does not know grants: a lease names its holder by an opaque identifier.
"""

from django.db import models
from django.db.models import Q

from apps.audit.identifiers import short_id, uuid7
from apps.audit.operations import Party
from apps.inventory.models import CredentialKind, Site, TargetAccount


class StoredSecret(models.Model):
    """A sealed secret: AES-256-GCM under its own data key, wrapped by the vault key."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    purpose = models.CharField(max_length=60)
    # nonce (12 bytes) || ciphertext || tag; the row's id and purpose are the AAD.
    ciphertext = models.BinaryField()
    wrapped_key = models.BinaryField()
    # Which vault key wrapped the data key: hex of the first bytes of its SHA-256.
    kek_id = models.CharField(max_length=32)
    created_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.purpose} {self.pk}"


class ServiceKeyPurpose(models.TextChoices):
    """What one of Sluice's own keys is for."""

    GATEWAY_HOST = "gateway-host", "SSH host key of the gateway"
    JUMP_AUTHORITY = "jump-authority", "Vouches for assets at jumps"
    RECORDING_SEAL = "recording-seal", "Signs recordings"
    LEDGER_SEAL = "ledger-seal", "Signs exported heads of the ledger"


class ServiceKey(models.Model):
    """One of Sluice's own Ed25519 keys; the private half is a stored secret."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    purpose = models.CharField(max_length=20, choices=ServiceKeyPurpose.choices)
    # OpenSSH one-line form.
    public_line = models.TextField()
    fingerprint = models.CharField(max_length=80)
    secret = models.ForeignKey(StoredSecret, models.PROTECT, related_name="+")
    created_at = models.DateTimeField()
    # Null: announced to be the next one, and not used yet (the gateway's host key).
    in_use_since = models.DateTimeField(null=True, blank=True)
    retired_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["purpose"],
                condition=Q(retired_at=None, in_use_since__isnull=False),
                name="one_service_key_in_use_per_purpose",
            ),
            models.UniqueConstraint(
                fields=["purpose"],
                condition=Q(retired_at=None, in_use_since=None),
                name="one_next_service_key_per_purpose",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.purpose} {self.fingerprint}"


class CertificateAuthority(models.Model):
    """A site's SSH user authority; hosts that trust it need no stored credential."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    site = models.ForeignKey(Site, models.PROTECT, related_name="authorities")
    public_line = models.TextField()
    fingerprint = models.CharField(max_length=80)
    secret = models.ForeignKey(StoredSecret, models.PROTECT, related_name="+")
    # Serial number of the last certificate, per authority.
    last_serial = models.BigIntegerField(default=0)
    created_at = models.DateTimeField()
    retired_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["site"],
                condition=Q(retired_at=None),
                name="one_authority_in_use_per_site",
            ),
        ]

    def __str__(self) -> str:
        return f"authority of {self.site} {self.fingerprint}"


class AccountCredential(models.Model):
    """The key or password of a target account; rotation makes the next version.

    A version is pending (stored, perhaps on the target already), then in use, then
    replaced. It is stored before it is put on the target, so that no crash between the
    two can lose the way in.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    account = models.ForeignKey(
        TargetAccount, models.PROTECT, related_name="credentials"
    )
    kind = models.CharField(max_length=12, choices=CredentialKind.choices)
    # Destroyed when the credential is replaced.
    secret = models.ForeignKey(
        StoredSecret, models.SET_NULL, null=True, blank=True, related_name="+"
    )
    # Public key line for keys; empty for passwords.
    public_line = models.TextField(blank=True)
    version = models.PositiveIntegerField(default=1)
    created_at = models.DateTimeField()
    # Empty while pending: not yet known to open the target.
    installed_at = models.DateTimeField(null=True, blank=True)
    replaced_at = models.DateTimeField(null=True, blank=True)
    # Until then one worker has the rotation to this version for itself.
    claimed_until = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["account"],
                condition=Q(replaced_at=None, installed_at__isnull=False),
                name="one_credential_in_use_per_account",
            ),
            models.UniqueConstraint(
                fields=["account"],
                condition=Q(replaced_at=None, installed_at=None),
                name="one_pending_credential_per_account",
            ),
            models.CheckConstraint(
                condition=Q(replaced_at__isnull=False) | Q(secret__isnull=False),
                name="credential_not_replaced_has_its_secret",
            ),
            models.UniqueConstraint(
                fields=["account", "version"],
                name="one_credential_per_account_and_version",
            ),
            models.CheckConstraint(
                condition=~Q(kind=CredentialKind.CERTIFICATE),
                name="certificates_are_not_stored",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} of {self.account}, version {self.version}"


class LeaseState(models.TextChoices):
    """States of a lease; see `apps.vault.lifecycle`."""

    ISSUED = "issued", "In use"
    WITHDRAWING = "withdrawing", "Being withdrawn"
    PROVED_DEAD = "proved_dead", "Proved dead"
    OPEN = "open", "Not proved dead yet"


class Finding(models.TextChoices):
    """What came of trying to withdraw a credential and to prove it dead."""

    REFUSED = "refused", "The target refused it"
    ACCEPTED = "accepted", "The target still accepts it"
    NOT_TRIED = "not_tried", "It could not be tried on the target"
    WRONG_HOST_KEY = "wrong_host_key", "Something else answers at the target's address"
    NOT_ROTATED = "not_rotated", "The target did not take the new credential"


class Lease(models.Model):
    """A credential handed out for one session."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    account = models.ForeignKey(TargetAccount, models.PROTECT, related_name="leases")
    kind = models.CharField(max_length=12, choices=CredentialKind.choices)
    # Whoever it was handed to, as the caller names it (a session).
    holder = models.UUIDField()
    credential = models.ForeignKey(
        AccountCredential, models.PROTECT, null=True, blank=True, related_name="leases"
    )
    # Sealed copy of what was handed out (certificate and its key), for the proof.
    secret = models.ForeignKey(
        StoredSecret, models.SET_NULL, null=True, blank=True, related_name="+"
    )
    serial = models.BigIntegerField(null=True, blank=True)
    fingerprint = models.CharField(max_length=80, blank=True)
    issued_at = models.DateTimeField()
    valid_until = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)
    state = models.CharField(
        max_length=12, choices=LeaseState.choices, default=LeaseState.ISSUED
    )
    tries = models.PositiveIntegerField(default=0)
    # Also the claim of the worker that is trying: nobody else tries before.
    try_again_at = models.DateTimeField(null=True, blank=True)
    last_finding = models.CharField(max_length=16, choices=Finding.choices, blank=True)
    last_error = models.CharField(max_length=300, blank=True)

    class Meta:
        ordering = ["-issued_at"]
        indexes = [
            models.Index(fields=["state", "try_again_at"], name="lease_by_state"),
            models.Index(fields=["holder"], name="lease_by_holder"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(valid_until__gt=models.F("issued_at")),
                name="lease_ends_after_it_starts",
            ),
            models.CheckConstraint(
                condition=Q(state=LeaseState.ISSUED) | Q(ended_at__isnull=False),
                name="ended_lease_has_its_time",
            ),
        ]

    def __str__(self) -> str:
        return f"lease {self.short_id} of {self.account}"

    @property
    def short_id(self) -> str:
        """Return the form shown to people."""
        return short_id("L", self.id)

    @property
    def party(self) -> Party:
        """Return this lease as the ledger keeps it."""
        return Party("lease", str(self.pk), f"{self.short_id} {self.account}")


class RevocationReceipt(models.Model):
    """Proof that a lease's credential is dead: a second library tried it in vain."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    lease = models.OneToOneField(Lease, models.PROTECT, related_name="receipt")
    # What was done: expired certificate, rotated key, rotated password.
    how = models.CharField(max_length=60)
    # Which client tried it, with its version.
    proved_by = models.CharField(max_length=120)
    # What the target answered.
    answer = models.CharField(max_length=200)
    proved_at = models.DateTimeField()
    # From the end of the lease to the proof.
    latency_ms = models.PositiveIntegerField()

    def __str__(self) -> str:
        return f"{self.lease} dead after {self.latency_ms} ms"
