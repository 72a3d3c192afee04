"""Uploads that are held for release: what waits, the decision, the content."""

import uuid

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods

from apps.access.denials import Allowed, Denied
from apps.portal.forms.held import HeldDecisionForm
from apps.portal.roles import signed_in
from apps.portal.source import source_address
from apps.portal.streaming import FromThread
from apps.quarantine import operations, queries
from apps.quarantine.lifecycle import HeldState
from apps.quarantine.models import HeldUpload

_PAGE_ROWS = 50


@require_GET
def held_uploads(request: HttpRequest) -> HttpResponse:
    rows = queries.held_visible_to(signed_in(request))
    page = Paginator(rows, _PAGE_ROWS).get_page(request.GET.get("page"))
    return render(request, "portal/held_uploads.html", {"page": page})


@require_http_methods(["GET", "POST"])
def held_upload(request: HttpRequest, held_id: uuid.UUID) -> HttpResponse:
    person = signed_in(request)
    held = get_object_or_404(queries.held_visible_to(person), pk=held_id)
    form = HeldDecisionForm(request.POST or None)
    if request.method == "POST":
        if not queries.may_decide(person, held):
            # Written down as a refusal; the page that posts is not theirs.
            operations.release_upload(
                held_id=held.pk,
                by=person,
                reason="",
                source_address=source_address(request),
                now=timezone.now(),
            )
            raise Http404
        if form.is_valid() and _decided(request, held, form):
            return redirect("portal:held-uploads")
        held.refresh_from_db()
    return render(
        request,
        "portal/held_upload.html",
        {
            "held": held,
            "form": form,
            "zone": held.session.asset.zone.site.time_zone,
            "may_decide": isinstance(queries.may_decide(person, held), Allowed),
            "is_waiting": held.state == HeldState.HELD,
        },
        status=422 if form.errors else 200,
    )


def _decided(request: HttpRequest, held: HeldUpload, form: HeldDecisionForm) -> bool:
    release = form.cleaned_data["verdict"] == "release"
    decide = operations.release_upload if release else operations.reject_upload
    done = decide(
        held_id=held.pk,
        by=signed_in(request),
        reason=form.cleaned_data["reason"],
        source_address=source_address(request),
        now=timezone.now(),
    )
    if isinstance(done, Denied):
        form.add_error(None, done.message)
        return False
    said = (
        f"Released: it goes to {held.session.asset.name} over a session of "
        f"{held.uploader.username}, now or when the next one opens."
        if release
        else "Rejected: the content was deleted."
    )
    messages.success(request, said)
    return True


@require_GET
def held_content(request: HttpRequest, held_id: uuid.UUID) -> HttpResponseBase:
    """Send the content to whoever decides, for a scan; always as an attachment."""
    person = signed_in(request)
    held = get_object_or_404(queries.held_visible_to(person), pk=held_id)
    try:
        content = operations.open_for_scan(
            held_id=held.pk,
            by=person,
            source_address=source_address(request),
            now=timezone.now(),
        )
    except (OSError, ValueError):
        raise Http404 from None
    if isinstance(content, Denied):
        raise Http404
    response = StreamingHttpResponse(
        FromThread(content, close=content.close),
        content_type="application/octet-stream",
    )
    response.headers["Content-Length"] = str(held.size)
    response.headers["Content-Disposition"] = (
        f'attachment; filename="{held.short_id}.bin"'
    )
    return response
