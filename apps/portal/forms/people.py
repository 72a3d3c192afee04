"""Forms about people, for administrators."""

from django import forms

from apps.accounts.models import User
from apps.accounts.operations import ROLES
from apps.inventory.models import Site

_ROLE_WORDS = {
    "engineer": "Engineer: asks for access and connects",
    "approver": "Approver: decides and watches, in the sites they belong to",
    "auditor": "Auditor: replays recordings and reads the ledger",
    "administrator": "Administrator: people, assets, zones; no recordings, no grants",
}


class PersonForm(forms.Form):
    """What may change about a person after they were added."""

    full_name = forms.CharField(label="Full name", max_length=120)
    organisation = forms.CharField(
        max_length=120,
        required=False,
        help_text="The vendor's name for people who are not own staff.",
    )
    email = forms.EmailField(label="E-mail", required=False)
    roles = forms.MultipleChoiceField(
        choices=[(role, _ROLE_WORDS[role]) for role in ROLES],
        widget=forms.CheckboxSelectMultiple,
        help_text="Nobody approves their own request, whatever roles they hold.",
    )

    @classmethod
    def of(cls, person: User) -> "PersonForm":
        """Return the form filled with what is known of `person`."""
        return cls(
            initial={
                "full_name": person.full_name,
                "organisation": person.organisation,
                "email": person.email,
                "roles": person.role_names,
            }
        )


class AddPersonForm(PersonForm):
    """A new person: the handle comes first and never changes."""

    username = forms.CharField(
        label="Handle",
        max_length=32,
        help_text="The name for signing in and for ssh, such as j.devries: small "
        "letters, digits, dots, hyphens, underscores. It cannot change later.",
        widget=forms.TextInput(
            attrs={
                "autocapitalize": "none",
                "autocomplete": "off",
                "spellcheck": "false",
            }
        ),
    )
    field_order = ["username", "full_name", "organisation", "email", "roles"]


class SiteForm(forms.Form):
    """One site a person shall belong to."""

    def __init__(self, *args: object, person: User, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.fields["site"] = forms.ModelChoiceField(
            Site.objects.exclude(memberships__user=person).order_by("name"),
            empty_label="Choose a site",
        )


class PeopleFilterForm(forms.Form):
    """Which people to list."""

    q = forms.CharField(label="Handle, name or organisation", required=False)
    role = forms.ChoiceField(
        choices=[("", "Any"), *((role, role.capitalize()) for role in ROLES)],
        required=False,
    )
    state = forms.ChoiceField(
        choices=[("", "Any"), ("enabled", "Enabled"), ("disabled", "Disabled")],
        required=False,
    )
