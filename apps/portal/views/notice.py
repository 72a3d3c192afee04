"""What people are told before and at sign-in, for administrators."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods

from apps.accounts import notices
from apps.portal.forms.signin import NoticeForm
from apps.portal.roles import only_for, signed_in

_INVALID = 422


@require_http_methods(["GET", "POST"])
@only_for("administrator")
def notice(request: HttpRequest) -> HttpResponse:
    current = notices.current_notice()
    posted = request.method == "POST"
    form = NoticeForm(request.POST) if posted else NoticeForm.of(current)
    if posted and form.is_valid():
        try:
            notices.set_notice(
                **form.cleaned_data, by=signed_in(request), now=timezone.now()
            )
        except notices.NoticeRefusedError as refusal:
            form.add_error(None, str(refusal))
        else:
            messages.success(request, "The notice holds from now on.")
            return redirect("portal:sign-in-notice")
    return render(
        request,
        "portal/notice.html",
        {"form": form, "current": current},
        status=_INVALID if form.errors else 200,
    )
