"""Forms of asking for access and deciding on it."""

import uuid
from itertools import groupby
from typing import Any

from django import forms

from apps.access.policy import RequestRules
from apps.inventory.models import TargetAccount
from apps.inventory.services import Service, label_of

_REASON_LENGTH = 500
Choice = tuple[str, str]


def _place(account: TargetAccount) -> tuple[str, str]:
    zone = account.asset.zone
    return zone.site.name, zone.name


def target_choices(accounts: list[TargetAccount]) -> list[tuple[str, list[Choice]]]:
    """Return the accounts as choices, grouped by site and zone."""
    ordered = sorted(accounts, key=lambda a: (_place(a), a.asset.name, a.name))
    return [
        (
            " / ".join(place),
            [(str(a.pk), f"{a.asset.name} / {a.name}") for a in group],
        )
        for place, group in groupby(ordered, key=_place)
    ]


class RequestForm(forms.Form):
    """What somebody asks for; the policy says whether it may be asked."""

    target = forms.TypedChoiceField(label="Asset and account", coerce=uuid.UUID)
    minutes = forms.IntegerField(label="For how many minutes")
    services = forms.MultipleChoiceField(
        label="To use",
        widget=forms.CheckboxSelectMultiple,
        error_messages={"required": "Choose at least one."},
    )
    reason = forms.CharField(
        label="Why",
        max_length=_REASON_LENGTH,
        help_text="What you will do there. The approver decides on this.",
        widget=forms.Textarea(attrs={"rows": 3}),
    )
    work_order = forms.CharField(
        label="Work order",
        max_length=40,
        help_text="Such as WO-20417.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )

    def __init__(
        self,
        *args: object,
        accounts: list[TargetAccount],
        rules: RequestRules,
        services: frozenset[str],
        **kwargs: object,
    ) -> None:
        """Offer `accounts`, lengths of time within `rules`, and `services`."""
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.has_targets = bool(accounts)
        target, minutes = self.fields["target"], self.fields["minutes"]
        assert isinstance(target, forms.TypedChoiceField)  # noqa: S101  # for mypy
        target.choices = [("", "Choose"), *target_choices(accounts)]
        minutes.help_text = (
            f"In steps of {rules.step_minutes}, at most {rules.maximum_minutes}. "
            "It begins with the approval."
        )
        minutes.widget.attrs.update(
            min=rules.step_minutes, max=rules.maximum_minutes, step=rules.step_minutes
        )
        chosen = self.fields["services"]
        assert isinstance(chosen, forms.MultipleChoiceField)  # noqa: S101  # for mypy
        order = {service.value: number for number, service in enumerate(Service)}
        chosen.choices = [
            (service, label_of(service))
            for service in sorted(services, key=lambda s: (order.get(s, len(order)), s))
        ]


class DecisionForm(forms.Form):
    """An approver's verdict; `version` is that of what they read."""

    verdict = forms.ChoiceField(choices=[("approve", "Approve"), ("deny", "Deny")])
    version = forms.IntegerField(min_value=1, widget=forms.HiddenInput)
    minutes = forms.IntegerField(
        label="For how many minutes",
        min_value=1,
        help_text="Shorten it if less will do.",
        error_messages={"required": "Say for how long."},
    )
    comment = forms.CharField(
        max_length=_REASON_LENGTH,
        required=False,
        label="Comment",
        help_text="Needed to deny: the requester is shown it.",
        widget=forms.Textarea(attrs={"rows": 2}),
    )

    def __init__(
        self,
        *args: Any,
        asked: int,
        rules: RequestRules,
        version: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Cap the minutes at what was asked. Without `version` there is but one."""
        kwargs.setdefault("initial", {"minutes": asked, "version": version})
        super().__init__(*args, **kwargs)
        if version is None:
            del self.fields["version"]
        self.asked = asked
        self.fields["minutes"].widget.attrs.update(
            min=rules.step_minutes, max=asked, step=rules.step_minutes
        )

    def clean(self) -> dict[str, object]:
        """Ask for what the chosen verdict needs."""
        cleaned = super().clean() or {}
        minutes = cleaned.get("minutes")
        if cleaned.get("verdict") == "deny" and not cleaned.get("comment"):
            self.add_error("comment", "Say why: the requester is shown it.")
        if isinstance(minutes, int) and minutes > self.asked:
            self.add_error("minutes", f"Only {self.asked} minutes were asked for.")
        return cleaned


class ReasonForm(forms.Form):
    """Why something is ended; whoever it concerns is told."""

    reason = forms.CharField(
        max_length=300,
        label="Why",
        help_text="The engineer is told this.",
        error_messages={"required": "Say why: the engineer is told it."},
    )


class AskExtensionForm(forms.Form):
    """More time on a grant that holds; the policy says whether it may be asked."""

    minutes = forms.IntegerField(label="Minutes more", min_value=1)
    reason = forms.CharField(label="Why", max_length=_REASON_LENGTH)

    def __init__(self, *args: object, rules: RequestRules, **kwargs: object) -> None:
        """Offer lengths of time within `rules`."""
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.fields["minutes"].widget.attrs.update(
            min=rules.step_minutes, max=rules.maximum_minutes, step=rules.step_minutes
        )
