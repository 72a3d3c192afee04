"""Which events of the ledger to list."""

from django import forms

from apps.audit.kinds import Kind
from apps.audit.models import Outcome
from apps.portal.forms.sessions import PeriodForm


def _kinds() -> list[tuple[str, str]]:
    """Return every kind, and the prefixes that hold several, in order."""
    prefixes = {
        ".".join(kind.value.split(".")[:depth]) + "."
        for kind in Kind
        for depth in (1, 2)
    }
    names = sorted({*prefixes, *(kind.value for kind in Kind)})
    return [(name, f"{name}*" if name.endswith(".") else name) for name in names]


class LedgerFilterForm(PeriodForm):
    """Every field that is not empty narrows the list."""

    kind = forms.ChoiceField(required=False)
    actor = forms.CharField(label="Who", required=False)
    text = forms.CharField(label="Contains", required=False)
    outcome = forms.ChoiceField(choices=[("", "Any"), *Outcome.choices], required=False)
    field_order = ["kind", "actor", "text", "outcome", "since", "until"]

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        kind = self.fields["kind"]
        assert isinstance(kind, forms.ChoiceField)  # noqa: S101  # for mypy
        kind.choices = [("", "Any"), *_kinds()]
