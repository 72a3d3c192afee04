"""Forms of one's own account."""

from django import forms

from apps.accounts.api_tokens import MOST_DAYS, SCOPE_LABELS
from apps.portal.forms.signin import CodeForm


class AddKeyForm(forms.Form):
    """One line of a .pub file."""

    name = forms.CharField(
        max_length=80,
        required=False,
        help_text="So that you know it again, such as: laptop in the control room.",
    )
    text = forms.CharField(
        label="Public key",
        max_length=10_000,
        help_text="The one line of the file that ends in .pub, such as "
        "~/.ssh/id_ed25519.pub.",
        widget=forms.Textarea(
            attrs={
                "rows": 4,
                "spellcheck": "false",
                "autocapitalize": "none",
                "class": "mono",
                "placeholder": "ssh-ed25519 AAAA...",
            }
        ),
    )


class ChangePasswordForm(forms.Form):
    """The old password, and the new one twice."""

    current = forms.CharField(
        label="Current password",
        max_length=1024,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )
    new = forms.CharField(
        label="New password",
        max_length=1024,
        strip=False,
        help_text="At least 12 characters. A few unrelated words are easier to "
        "remember and harder to guess than one with odd letters.",
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )
    again = forms.CharField(
        label="New password again",
        max_length=1024,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )

    def clean(self) -> dict[str, object]:
        """Refuse when the two new ones differ."""
        cleaned = super().clean() or {}
        if "again" in cleaned and cleaned.get("new") != cleaned["again"]:
            self.add_error("again", "The two new passwords are not the same.")
        return cleaned


class MakeTokenForm(CodeForm):
    """A token for the API, and the one-time code that it takes to make one."""

    name = forms.CharField(
        max_length=80, help_text="What will use it, such as: shift board."
    )
    scopes = forms.MultipleChoiceField(
        label="For",
        choices=list(SCOPE_LABELS.items()),
        widget=forms.CheckboxSelectMultiple,
        error_messages={"required": "Choose at least one."},
    )
    days = forms.IntegerField(
        label="Days it holds", min_value=1, max_value=MOST_DAYS, initial=30
    )
    field_order = ["name", "scopes", "days", "code"]

    def __init__(self, *args: object, **kwargs: object) -> None:
        """Begin at the first field, not at the code."""
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        del self.fields["code"].widget.attrs["autofocus"]
