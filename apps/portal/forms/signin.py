"""Forms of signing in and enrolling."""

from django import forms

from apps.accounts.models import BANNER_LENGTH, CONSENT_LENGTH, SignInNotice


class SignInForm(forms.Form):
    """The first factor."""

    username = forms.CharField(
        label="Handle",
        max_length=64,
        widget=forms.TextInput(
            attrs={
                "autocomplete": "username",
                "autocapitalize": "none",
                "spellcheck": "false",
                "autofocus": True,
            }
        ),
    )
    password = forms.CharField(
        max_length=1024,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )

    def clean_username(self) -> str:
        """Return the handle as it is stored, so that its case opens no second count."""
        return str(self.cleaned_data["username"]).strip().lower()


class CodeForm(forms.Form):
    """A one-time code, or a recovery code in its place."""

    code = forms.CharField(
        label="One-time code",
        max_length=40,
        help_text="Six digits from your authenticator app, or one recovery code.",
        widget=forms.TextInput(
            attrs={
                "autocomplete": "one-time-code",
                "autocapitalize": "none",
                "spellcheck": "false",
                "class": "code-input",
                "autofocus": True,
            }
        ),
    )

    def clean_code(self) -> str:
        """Return the code without the spaces that apps show in the middle."""
        return "".join(str(self.cleaned_data["code"]).split())


class EnrolmentCodeForm(CodeForm):
    """The first code of a device that is being enrolled."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.fields["code"].label = "The code your app shows now"
        self.fields[
            "code"
        ].help_text = "Six digits; a new one appears every 30 seconds."
        self.fields["code"].widget.attrs["inputmode"] = "numeric"
        # The secret comes first on this page; the keyboard should not jump past it.
        del self.fields["code"].widget.attrs["autofocus"]


class ConsentForm(forms.Form):
    """Agreeing to the text that was shown, and to no other."""

    notice = forms.UUIDField(widget=forms.HiddenInput)


class NoticeForm(forms.Form):
    """What people are told before and at sign-in."""

    banner = forms.CharField(
        label="Before the sign-in",
        required=False,
        max_length=BANNER_LENGTH,
        help_text="Shown by ssh and on the portal's sign-in page, to anybody.",
        widget=forms.Textarea(attrs={"rows": 5}),
    )
    consent = forms.CharField(
        label="After the sign-in",
        required=False,
        max_length=CONSENT_LENGTH,
        help_text="When people must agree: shown at the code over SSH, and before the "
        "first terminal in the browser. Else when a shell begins on a terminal.",
        widget=forms.Textarea(attrs={"rows": 4}),
    )
    consent_required = forms.BooleanField(
        required=False,
        label="People must agree to it: type yes with the one-time code, or press a "
        "button in the browser",
        help_text="Who signs in within the MFA grace is not asked again.",
    )
    greets = forms.BooleanField(
        required=False, label="A shell begins with who, where and until when"
    )

    @classmethod
    def of(cls, notice: SignInNotice | None) -> "NoticeForm":
        """Return the form filled with the notice that holds."""
        if notice is None:
            return cls(initial={"greets": True})
        return cls(initial={name: getattr(notice, name) for name in cls.base_fields})
