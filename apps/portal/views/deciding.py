"""The page on which an approver decides, whatever it is that was asked for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from apps.access.denials import Allowed, Denied
from apps.access.models import AccessRequest, Grant, GrantExtension
from apps.portal.forms.access import DecisionForm
from apps.portal.source import source_address

_INVALID = 422


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is decided on one page, and the two operations a verdict may call.

    Both take `comment` and `source_address`, `approve` also `minutes`.
    """

    asked: AccessRequest | GrantExtension
    form: DecisionForm
    approve: Callable[..., Grant | Denied]
    deny: Callable[..., AccessRequest | GrantExtension | Denied]
    approved: Callable[[Grant], str]
    """What the approver is told then."""
    may_decide: Callable[[], Allowed | Denied]
    template: str
    picture: Callable[[], Mapping[str, object]]
    """What else the page shows; asked for after the decision."""


def decision_page(request: HttpRequest, decision: Decision) -> HttpResponse:
    """Show what was asked for, or take the verdict on it."""
    form = decision.form
    if request.method == "POST" and form.is_valid():
        denial = _decide(request, decision)
        if denial is None:
            return redirect("portal:approvals")
        form.add_error(None, denial.message)
        decision.asked.refresh_from_db()
    may_decide = decision.may_decide()
    return render(
        request,
        decision.template,
        {
            "form": form,
            "asked": decision.asked,
            "may_decide": isinstance(may_decide, Allowed),
            "why_not": may_decide.message if isinstance(may_decide, Denied) else "",
            **decision.picture(),
        },
        status=_INVALID if form.errors else 200,
    )


def _decide(request: HttpRequest, decision: Decision) -> Denied | None:
    """Call the one operation the verdict asks for; a refusal is returned."""
    facts = decision.form.cleaned_data
    came = {"comment": facts["comment"], "source_address": source_address(request)}
    if facts["verdict"] == "deny":
        denied = decision.deny(**came)
        if isinstance(denied, Denied):
            return denied
        who = decision.asked.requester.username
        messages.success(request, f"Denied: {who} is shown your reason.")
        return None
    grant = decision.approve(minutes=facts["minutes"], **came)
    if isinstance(grant, Denied):
        return grant
    messages.success(request, decision.approved(grant))
    return None
