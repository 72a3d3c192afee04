"""The decision on an upload that is held for release."""

from django import forms


class HeldDecisionForm(forms.Form):
    """Release or reject, with a reason."""

    verdict = forms.ChoiceField(choices=[("release", "Release"), ("reject", "Reject")])
    reason = forms.CharField(
        label="Reason",
        max_length=300,
        help_text="It is kept with the file and shown to whoever sent it.",
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
