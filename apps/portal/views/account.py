"""One's own account: keys, password, recovery codes, places one is signed in."""

import uuid

from django.contrib import messages
from django.contrib.auth import authenticate, update_session_auth_hash
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render, resolve_url
from django.utils import timezone
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from apps.accounts import operations as accounts
from apps.accounts import queries as people
from apps.accounts.public_keys import PublicKeyRefusedError
from apps.inventory import queries as inventory
from apps.portal import portal_sessions
from apps.portal.forms.account import AddKeyForm, ChangePasswordForm
from apps.portal.forms.signin import CodeForm
from apps.portal.roles import signed_in
from apps.portal.source import source_address

_INVALID = 422


@require_GET
def account(request: HttpRequest) -> HttpResponse:
    return _account_page(request, AddKeyForm())


@require_POST
def add_key(request: HttpRequest) -> HttpResponse:
    person = signed_in(request)
    form = AddKeyForm(request.POST)
    if form.is_valid():
        try:
            key = accounts.add_key(
                user=person,
                name=form.cleaned_data["name"],
                text=form.cleaned_data["text"],
                by=person.party,
                now=timezone.now(),
            )
        except PublicKeyRefusedError as refusal:
            form.add_error("text", str(refusal))
        else:
            messages.success(request, f"Key {key.name} is added: {key.fingerprint}")
            return redirect("portal:account")
    return _account_page(request, form)


@require_POST
def remove_key(request: HttpRequest, key_id: uuid.UUID) -> HttpResponse:
    removed = accounts.remove_key(
        key_id=key_id, user=signed_in(request), now=timezone.now()
    )
    if not removed:
        raise Http404
    messages.success(request, "The key is removed: nobody signs in with it any more.")
    return redirect("portal:account")


@require_POST
def end_session(request: HttpRequest) -> HttpResponse:
    ended = portal_sessions.end_session(
        signed_in(request),
        name=request.POST.get("session", ""),
        source_address=source_address(request),
        now=timezone.now(),
    )
    if not ended:
        raise Http404
    messages.success(request, "You are signed out there.")
    return redirect("portal:account")


@require_POST
def sign_out_everywhere(request: HttpRequest) -> HttpResponse:
    portal_sessions.end_all_others(
        signed_in(request),
        this_key=request.session.session_key,
        source_address=source_address(request),
        now=timezone.now(),
    )
    messages.success(
        request,
        "You are signed out everywhere else, and SSH asks for the code again. "
        "Sessions on assets go on: end those under Sessions.",
    )
    return redirect("portal:account")


@sensitive_post_parameters("current", "new", "again")
@require_http_methods(["GET", "POST"])
def change_password(request: HttpRequest) -> HttpResponse:
    person = signed_in(request)
    form = ChangePasswordForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        # Through the limiter: a stolen portal session must not guess the password.
        known = authenticate(
            request, username=person.username, password=form.cleaned_data["current"]
        )
        if known is None:
            form.add_error("current", "That is not your current password.")
        else:
            try:
                accounts.change_password(
                    user=person,
                    new_password=form.cleaned_data["new"],
                    now=timezone.now(),
                )
            except accounts.PersonRefusedError as refusal:
                form.add_error("new", str(refusal))
            else:
                update_session_auth_hash(request, person)
                messages.success(
                    request, "The password is changed. You are signed out elsewhere."
                )
                return redirect("portal:account")
    return render(
        request,
        "portal/change_password.html",
        {"form": form},
        status=_INVALID if form.errors else 200,
    )


@require_http_methods(["GET", "POST"])
def recovery_codes(request: HttpRequest) -> HttpResponse:
    person, now = signed_in(request), timezone.now()
    form = CodeForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        verdict = accounts.verify_second_factor(
            user=person, code=form.cleaned_data["code"], now=now
        )
        if verdict:
            codes = accounts.make_recovery_codes(user=person, now=now)
            context = {
                "codes": codes,
                "destination": resolve_url("portal:account"),
                "enrolled": False,
            }
            return render(request, "portal/recovery_codes.html", context)
        wait = verdict.wait_seconds
        form.add_error(
            "code",
            f"Too many tries in a row: wait {wait} s, then type the code shown then."
            if wait
            else "That code is not right or was used already: wait for the next one.",
        )
    return render(
        request,
        "portal/new_recovery_codes.html",
        {"form": form, "left": people.recovery_codes_left(person)},
        status=_INVALID if form.errors else 200,
    )


def _account_page(request: HttpRequest, form: AddKeyForm) -> HttpResponse:
    person = signed_in(request)
    context = {
        "person": person,
        "sites": inventory.sites_of(person),
        "keys": people.keys_of(person),
        "recovery_codes_left": people.recovery_codes_left(person),
        "portal_sessions": portal_sessions.sessions_of(
            person, this_key=request.session.session_key, now=timezone.now()
        ),
        "form": form,
    }
    status = _INVALID if form.errors else 200
    return render(request, "portal/account.html", context, status=status)
