"""Forms about assets, their accounts and keys, zones and conduits: administrators'."""

from typing import Any

from django import forms
from django.conf import settings

from apps.accounts.models import BANNER_LENGTH
from apps.inventory.crypto_profiles import PROFILES
from apps.inventory.models import (
    GRACE_DEFAULT_MINUTES,
    GRACE_MOST_MINUTES,
    NO_GRACE_FROM_SL_T,
    Asset,
    AssetKind,
    Conduit,
    CredentialKind,
    EndMode,
    PurdueLevel,
    Site,
    Zone,
)
from apps.inventory.services import (
    FORWARD_PREFIX,
    LABELS,
    Service,
    UnknownServiceError,
    check_services,
)
from apps.inventory.sign_ins import TITLES, SignIn

_PLAIN = {"autocapitalize": "none", "autocomplete": "off", "spellcheck": "false"}


class ZoneChoiceField(forms.ModelChoiceField):  # type: ignore[type-arg]
    """Zones named with their site."""

    def label_from_instance(self, obj: Any) -> str:
        """Return the zone's name behind its site's."""
        return f"{obj.site.name} / {obj.name} (level {obj.purdue_level})"


def _zones() -> Any:
    return Zone.objects.select_related("site").order_by("site__name", "name")


def _idle_lock_field(otherwise: str) -> forms.IntegerField:
    return forms.IntegerField(
        label="Lock terminals after minutes without typing",
        required=False,
        min_value=0,
        max_value=1440,
        help_text=f"A one-time code opens them. 0 is never; empty is {otherwise}.",
    )


def _idle_end_field(otherwise: str) -> forms.IntegerField:
    return forms.IntegerField(
        label="End sessions after minutes without typing or data",
        required=False,
        min_value=0,
        max_value=1440,
        help_text=f"0 is never; empty is {otherwise}. Mind work that runs unwatched.",
    )


class AssetForm(forms.Form):
    """Everything about an asset but its accounts and host keys."""

    name = forms.CharField(
        max_length=63,
        help_text="As people type it behind the @: small letters, digits, hyphens.",
        widget=forms.TextInput(attrs=_PLAIN),
    )
    zone = ZoneChoiceField(queryset=Zone.objects.none(), empty_label="Choose")
    kind = forms.ChoiceField(choices=AssetKind.choices)
    description = forms.CharField(max_length=200, required=False)
    vendor = forms.CharField(max_length=80, required=False)
    model = forms.CharField(max_length=80, required=False)
    address = forms.CharField(
        max_length=253,
        help_text="IP address or host name, as the gateway reaches it.",
        widget=forms.TextInput(attrs=_PLAIN),
    )
    port = forms.IntegerField(min_value=1, max_value=65535, initial=22)
    on_expiry = forms.ChoiceField(label="At the deadline", choices=EndMode.choices)
    grace_seconds = forms.IntegerField(
        label="Grace in seconds", min_value=0, max_value=3600, initial=300
    )
    in_operation = forms.BooleanField(
        required=False, label="In operation: a revocation freezes instead of cutting"
    )
    crypto_profile = forms.ChoiceField(
        label="Crypto profile",
        choices=[
            (p.name, f"{p.title} (weak)" if p.weak else p.title)
            for p in PROFILES.values()
        ],
        help_text="For devices that can do no better a weak one; it shows everywhere.",
    )
    session_limit = forms.IntegerField(
        label="Sessions at the same time",
        min_value=0,
        max_value=1000,
        initial=0,
        help_text="0 means no limit.",
    )
    file_roots = forms.CharField(
        label="Folders for files",
        required=False,
        max_length=3500,
        help_text="One whole path a line, such as /srv/projects. sftp and scp are kept "
        "inside them. Empty means everywhere the account can go.",
        widget=forms.Textarea(attrs={**_PLAIN, "rows": 3}),
    )
    file_endings_allowed = forms.CharField(
        label="Only files ending in",
        required=False,
        max_length=500,
        help_text="Such as zip, tar.gz. Empty means any.",
        widget=forms.TextInput(attrs=_PLAIN),
    )
    file_endings_denied = forms.CharField(
        label="No files ending in",
        required=False,
        max_length=500,
        help_text="Such as exe, dll.",
        widget=forms.TextInput(attrs=_PLAIN),
    )
    file_limit_mb = forms.IntegerField(
        label="Largest file in MB",
        required=False,
        min_value=0,
        max_value=10_000_000,
        initial=0,
        help_text="0 means no limit.",
    )
    files_limit_mb = forms.IntegerField(
        label="All files of a session in MB",
        required=False,
        min_value=0,
        max_value=10_000_000,
        initial=0,
        help_text="0 means no limit.",
    )
    uploads_held = forms.BooleanField(
        label="Hold uploads for release",
        required=False,
        help_text="A file sent by sftp reaches the asset only after an approver of the "
        "site has released it.",
    )

    idle_lock_minutes = _idle_lock_field("the zone's")
    idle_end_minutes = _idle_end_field("the zone's")

    _GROUPS = (
        ("What it is", ("name", "zone", "kind", "description", "vendor", "model")),
        ("How it is reached", ("address", "port", "crypto_profile")),
        (
            "Its sessions",
            (
                "session_limit",
                "on_expiry",
                "grace_seconds",
                "in_operation",
                "idle_lock_minutes",
                "idle_end_minutes",
            ),
        ),
        (
            "Files",
            (
                "file_roots",
                "file_endings_allowed",
                "file_endings_denied",
                "file_limit_mb",
                "files_limit_mb",
                "uploads_held",
            ),
        ),
    )

    def clean_file_limit_mb(self) -> int:
        return self.cleaned_data["file_limit_mb"] or 0

    def clean_files_limit_mb(self) -> int:
        return self.cleaned_data["files_limit_mb"] or 0

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        _choose_from_zones(self, "zone")

    @property
    def groups(self) -> list[tuple[str, list[forms.BoundField]]]:
        """Return the fields under headings, as the page shows them."""
        return [
            (title, [self[name] for name in names]) for title, names in self._GROUPS
        ]

    @classmethod
    def of(cls, asset: Asset) -> "AssetForm":
        """Return the form filled with what is known of `asset`."""
        names = cls.base_fields
        return cls(initial={name: getattr(asset, name) for name in names})


def _choose_from_zones(form: forms.Form, *names: str) -> None:
    for name in names:
        field = form.fields[name]
        assert isinstance(field, forms.ModelChoiceField)  # noqa: S101  # for mypy
        field.queryset = _zones()


class AccountForm(forms.Form):
    """A login of an asset."""

    name = forms.CharField(
        max_length=64,
        help_text="As people ask for it.",
        widget=forms.TextInput(attrs=_PLAIN),
    )
    login = forms.CharField(
        label="Login",
        max_length=64,
        required=False,
        help_text="What is sent to the asset, where that differs.",
        widget=forms.TextInput(attrs=_PLAIN),
    )
    credential_kind = forms.ChoiceField(
        label="The gateway signs in with", choices=CredentialKind.choices
    )
    sign_in = forms.ChoiceField(
        label="Asked for by",
        choices=list(TITLES.items()),
        initial=SignIn.SSH,
        required=False,
        help_text="Some devices let anybody in by SSH and ask on the terminal. The "
        "gateway answers there with the name and the password, and nobody sees it.",
    )


class WriteOnlyTextarea(forms.Textarea):
    """Never writes what was typed into a page, not even to correct it."""

    def format_value(self, value: Any) -> str | None:  # noqa: ARG002  # Django's own
        """Return nothing to show."""
        return None


class CredentialForm(forms.Form):
    """A password or private key; it is written and never shown again."""

    secret = forms.CharField(
        label="Password or private key",
        max_length=20_000,
        strip=False,
        help_text="It goes into the vault, sealed. Nobody is shown it again, and it is "
        "replaced on the asset after each session.",
        widget=WriteOnlyTextarea(attrs={"rows": 3, "class": "mono", **_PLAIN}),
    )


class HostKeyForm(forms.Form):
    """One host key, pasted."""

    text = forms.CharField(
        label="Host key",
        max_length=10_000,
        help_text="One line, read at the asset itself or from ssh-keyscan over a "
        "network you trust. It counts when a second person has confirmed it.",
        widget=forms.Textarea(
            attrs={
                "rows": 3,
                "class": "mono",
                "placeholder": "ssh-ed25519 AAAA...",
                **_PLAIN,
            }
        ),
    )


class SiteForm(forms.Form):
    """A new site."""

    name = forms.CharField(max_length=120)
    slug = forms.SlugField(
        label="Short name", max_length=40, widget=forms.TextInput(attrs=_PLAIN)
    )
    time_zone = forms.CharField(
        label="Time zone",
        max_length=60,
        initial="UTC",
        help_text="Such as Europe/Amsterdam: plant time is shown beside UTC.",
    )


class SiteBannerForm(forms.Form):
    """What people are told at a site, beside or instead of what all are told."""

    banner = forms.CharField(
        label="Banner",
        required=False,
        max_length=BANNER_LENGTH,
        help_text="A gateway of this site shows it before the sign-in. Where another "
        "gateway leads to its assets, a shell on a terminal begins with it. Empty "
        "means the sign-in notice of all.",
        widget=forms.Textarea(attrs={"rows": 5}),
    )


class ZoneForm(forms.Form):
    """A zone (IEC 62443)."""

    site = forms.ModelChoiceField(queryset=Site.objects.none(), empty_label="Choose")
    name = forms.CharField(max_length=120)
    purdue_level = forms.ChoiceField(label="Purdue level", choices=PurdueLevel.choices)
    sl_t = forms.IntegerField(
        label="SL-T",
        min_value=1,
        max_value=4,
        initial=1,
        help_text="Target security level, 1 to 4.",
    )
    mfa_grace_minutes = forms.IntegerField(
        label="MFA grace in minutes",
        required=False,
        min_value=0,
        max_value=GRACE_MOST_MINUTES,
        help_text="So long after a full sign-in over SSH the same key from the same "
        "address needs no code. 0 asks each time. Empty means "
        f"{GRACE_DEFAULT_MINUTES}, and never from SL-T {NO_GRACE_FROM_SL_T} on.",
    )
    hosts_gateway = forms.BooleanField(
        required=False, label="The gateway is in this zone"
    )
    parent = ZoneChoiceField(
        queryset=Zone.objects.none(), required=False, label="Lies inside"
    )
    idle_lock_minutes = _idle_lock_field("the default")
    idle_end_minutes = _idle_end_field("the default")

    def __init__(self, *args: object, zone: Zone | None = None, **kwargs: Any) -> None:
        """Offer every site for a new zone; a zone that is there stays at its site."""
        if zone is not None and "initial" not in kwargs:
            names = [name for name in self.base_fields if name != "site"]
            kwargs["initial"] = {name: getattr(zone, name) for name in names}
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        _choose_from_zones(self, "parent")
        parent, site = self.fields["parent"], self.fields["site"]
        assert isinstance(parent, forms.ModelChoiceField)  # noqa: S101  # for mypy
        assert isinstance(site, forms.ModelChoiceField)  # noqa: S101  # for mypy
        if zone is None:
            site.queryset = Site.objects.all()
        else:
            del self.fields["site"]
            parent.queryset = _zones().filter(site=zone.site).exclude(pk=zone.pk)


class ForwardsField(forms.CharField):
    """Destinations of forwards, `host:port`, one a line, as a list of services."""

    widget = forms.Textarea(
        attrs={"rows": 2, "spellcheck": "false", "autocomplete": "off"}
    )

    def to_python(self, value: object) -> list[str]:  # type: ignore[override]
        """Return the services; an empty field gives none."""
        lines = [line.strip() for line in str(value or "").splitlines()]
        try:
            return check_services(
                (f"{FORWARD_PREFIX}{line}" for line in lines if line),
                allow_local=settings.ALLOW_LOCAL_TARGETS,
            )
        except UnknownServiceError as error:
            raise forms.ValidationError(str(error)) from None

    def prepare_value(self, value: object) -> object:
        """Show services as lines of destinations."""
        if isinstance(value, list):
            return "\n".join(str(one).removeprefix(FORWARD_PREFIX) for one in value)
        return value


class CarriesForm(forms.Form):
    """What a conduit carries: services that are a word, and forwards."""

    services = forms.MultipleChoiceField(
        label="Carries",
        choices=[(service.value, LABELS[service]) for service in Service],
        widget=forms.CheckboxSelectMultiple,
        required=False,
        help_text="What is not chosen cannot cross.",
    )
    forwards = ForwardsField(
        label="Forwards to",
        required=False,
        help_text="Where `ssh -L` may lead from the assets there: host:port, one a "
        "line, such as 10.20.4.17:502.",
    )
    omits_forward_bytes = forms.BooleanField(
        label="Do not record what forwards carry",
        required=False,
        help_text="For what is too large to keep. Where a forward leads, when, and how "
        "many bytes it carries is recorded always.",
    )

    def clean(self) -> dict[str, object]:
        """Join both, and ask for at least one of them."""
        cleaned = super().clean() or {}
        if "forwards" in cleaned:
            forwards = cleaned.pop("forwards") or ()
            cleaned["services"] = [*cleaned.get("services", ()), *forwards]
            if not cleaned["services"]:
                self.add_error(
                    "services", "Choose at least one: to close a conduit, remove it."
                )
        return cleaned


class ConduitForm(CarriesForm):
    """A conduit between two zones of one site, and what it carries."""

    field_order = [
        "name",
        "from_zone",
        "to_zone",
        "services",
        "forwards",
        "omits_forward_bytes",
    ]
    name = forms.CharField(max_length=40, help_text="Such as C-14.")
    from_zone = ZoneChoiceField(
        queryset=Zone.objects.none(), label="From", empty_label="Choose"
    )
    to_zone = ZoneChoiceField(
        queryset=Zone.objects.none(), label="To", empty_label="Choose"
    )

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        _choose_from_zones(self, "from_zone", "to_zone")

    def clean(self) -> dict[str, object]:
        """Refuse a conduit that would leave its site."""
        cleaned = super().clean() or {}
        ends = cleaned.get("from_zone"), cleaned.get("to_zone")
        sites = {end.site_id for end in ends if isinstance(end, Zone)}
        if len(sites) > 1:
            self.add_error("to_zone", "Both zones must be of the same site.")
        return cleaned


class ConduitServicesForm(CarriesForm):
    """What a conduit that is there carries."""

    @classmethod
    def of(cls, conduit: Conduit) -> "ConduitServicesForm":
        """Return the form filled with what `conduit` carries."""
        forwards = [one for one in conduit.services if one.startswith(FORWARD_PREFIX)]
        words = [one for one in conduit.services if one not in forwards]
        return cls(
            initial={
                "services": words,
                "forwards": forwards,
                "omits_forward_bytes": conduit.omits_forward_bytes,
            }
        )


class AssetFilterForm(forms.Form):
    """Which assets to list."""

    q = forms.CharField(label="Name, vendor or description", required=False)
    kind = forms.ChoiceField(choices=[("", "Any"), *AssetKind.choices], required=False)
