"""One's own API tokens: made with a fresh one-time code, shown once, revoked."""

import uuid

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST

from apps.accounts import api_tokens
from apps.accounts import operations as accounts
from apps.accounts.models import ApiToken
from apps.portal.forms.account import MakeTokenForm
from apps.portal.roles import signed_in
from apps.portal.source import source_address

_INVALID = 422


@require_http_methods(["GET", "POST"])
def tokens(request: HttpRequest) -> HttpResponse:
    person = signed_in(request)
    form = MakeTokenForm(request.POST or None)
    secret = None
    if request.method == "POST" and form.is_valid():
        secret = _make(request, form)
    return render(
        request,
        "portal/api_tokens.html",
        {
            "form": MakeTokenForm() if secret else form,
            "secret": secret,
            "tokens": ApiToken.objects.usable(at=timezone.now()).filter(user=person),
        },
        status=_INVALID if form.errors else 200,
    )


def _make(request: HttpRequest, form: MakeTokenForm) -> str | None:
    """Return the new token's secret; None with the reason on the form."""
    person, now = signed_in(request), timezone.now()
    # Through the limiter: a stolen portal session must not make itself a token.
    verdict = accounts.verify_second_factor(
        user=person, code=form.cleaned_data["code"], now=now
    )
    if not verdict:
        form.add_error(
            "code",
            f"Too many tries in a row: wait {verdict.wait_seconds} s."
            if verdict.wait_seconds
            else "That code is not right or was used already: wait for the next one.",
        )
        return None
    try:
        _token, secret = api_tokens.make_token(
            user=person,
            name=form.cleaned_data["name"],
            scopes=form.cleaned_data["scopes"],
            days=form.cleaned_data["days"],
            source_address=source_address(request),
            now=now,
        )
    except api_tokens.TokenRefusedError as refusal:
        form.add_error(None, str(refusal))
        return None
    return secret


@require_POST
def revoke_token(request: HttpRequest, token_id: uuid.UUID) -> HttpResponse:
    revoked = api_tokens.revoke_token(
        token_id=token_id, user=signed_in(request), now=timezone.now()
    )
    if not revoked:
        raise Http404
    messages.success(request, "The token is revoked: nothing works with it any more.")
    return redirect("portal:api-tokens")
