"""The ledger, for auditors: reading, checking the chain, exporting."""

import datetime as dt
import json

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from apps.audit import queries
from apps.audit.models import AuditEvent
from apps.audit.operations import ledger_head
from apps.portal import ledger_export
from apps.portal.forms.ledger import LedgerFilterForm
from apps.portal.roles import only_for, signed_in
from apps.portal.source import source_address
from apps.portal.streaming import FromThread

_PER_PAGE = 50


@require_GET
@only_for("auditor")
def ledger(request: HttpRequest) -> HttpResponse:
    form = LedgerFilterForm(request.GET)
    if form.is_valid():
        since, until = form.period()
        found = queries.search(
            text=form.cleaned_data["text"],
            kind=form.cleaned_data["kind"],
            actor=form.cleaned_data["actor"],
            outcome=form.cleaned_data["outcome"],
            since=since,
            until=until,
        )
    else:
        found = AuditEvent.objects.none()
    page = Paginator(found, _PER_PAGE).get_page(request.GET.get("page"))
    return _page(request, form=form, page=page)


@require_POST
@only_for("auditor")
def verify_ledger(request: HttpRequest) -> HttpResponse:
    """Recompute the whole chain and show the verdict above the newest events."""
    began = dt.datetime.now(dt.UTC)
    verdict = queries.verify_chain()
    page = Paginator(queries.search(), _PER_PAGE).get_page(1)
    return _page(
        request,
        form=LedgerFilterForm({}),
        page=page,
        verdict=verdict,
        verified_at=began,
        took=dt.datetime.now(dt.UTC) - began,
    )


def _page(request: HttpRequest, **context: object) -> HttpResponse:
    form = context["form"]
    assert isinstance(form, LedgerFilterForm)  # noqa: S101  # for mypy
    seq, chain_hash = ledger_head()
    context |= {
        "filtered": any(request.GET.get(name) for name in form.fields),
        "head_seq": seq,
        "head_hash": chain_hash.hex(),
    }
    return render(request, "portal/ledger.html", context)


@require_GET
@only_for("auditor")
def ledger_event(request: HttpRequest, seq: int) -> HttpResponse:
    event = get_object_or_404(AuditEvent, pk=seq)
    data = json.loads(event.data)
    return render(
        request,
        "portal/ledger_event.html",
        {
            "event": event,
            "payload": json.dumps(data, indent=2, ensure_ascii=False),
            "previous_hash": bytes(event.previous_hash).hex(),
            "leaf_hash": bytes(event.leaf_hash).hex(),
            "chain_hash": bytes(event.hash).hex(),
            "before": seq - 1 if seq > 1 else None,
            "after": seq + 1
            if AuditEvent.objects.filter(pk=seq + 1).exists()
            else None,
        },
    )


@require_POST
@only_for("auditor")
def export_ledger(request: HttpRequest) -> HttpResponseBase:
    person, now = signed_in(request), timezone.now()
    lines = ledger_export.export(
        by=person, source_address=source_address(request), now=now
    )
    response = StreamingHttpResponse(
        FromThread(lines, close=lambda: None), content_type="application/jsonl"
    )
    name = f"sluice-ledger-{now:%Y%m%dT%H%M%SZ}.jsonl"
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response
