"""Which sessions to list."""

import datetime as dt

from django import forms

from apps.sessions.controls import MESSAGE_LENGTH

DATE = forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d")


class PeriodForm(forms.Form):
    """Whole days in UTC, both included."""

    since = forms.DateField(label="From (UTC)", required=False, widget=DATE)
    until = forms.DateField(label="To (UTC)", required=False, widget=DATE)

    def period(self) -> tuple[dt.datetime | None, dt.datetime | None]:
        """Return the half-open period in UTC; None where it is open."""
        since, until = self.cleaned_data.get("since"), self.cleaned_data.get("until")
        midnight = dt.time(tzinfo=dt.UTC)
        return (
            dt.datetime.combine(since, midnight) if since else None,
            dt.datetime.combine(until + dt.timedelta(days=1), midnight)
            if until
            else None,
        )


class MessageForm(forms.Form):
    """One line to the engineer of a live session."""

    text = forms.CharField(max_length=MESSAGE_LENGTH, label="Message")


class ReceiverForm(forms.Form):
    """The handle of whom the typing is handed to."""

    to = forms.CharField(max_length=64, label="To")


class SessionFilterForm(PeriodForm):
    """Which sessions to list; every field that is not empty narrows the list."""

    asset = forms.CharField(required=False)
    person = forms.CharField(label="Handle or name", required=False)
    state = forms.ChoiceField(
        choices=[("", "Any"), ("live", "Live"), ("ended", "Ended")], required=False
    )
    field_order = ["asset", "person", "state", "since", "until"]
