"""Signing in with two factors, enrolling the second one, signing out."""

import base64
import binascii
import datetime as dt
import re
import textwrap

import segno
from django.conf import settings
from django.contrib import messages
from django.contrib.auth import authenticate, login, logout
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.safestring import mark_safe
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST
from django_otp import login as mark_verified
from django_otp.plugins.otp_totp.models import TOTPDevice

from apps.accounts import operations as accounts
from apps.accounts import queries as people
from apps.accounts.models import HANDLE, User
from apps.accounts.notices import current_notice
from apps.portal import pending_sign_in, portal_sessions
from apps.portal.destinations import safe_destination
from apps.portal.forms.signin import CodeForm, EnrolmentCodeForm, SignInForm
from apps.portal.pending_sign_in import PendingSignIn
from apps.portal.roles import has_both_factors
from apps.portal.source import source_address

_DOOR = "portal"
_BACKEND = "django.contrib.auth.backends.ModelBackend"
_FEW_CODES = 3
_INVALID = 422


@login_not_required
@sensitive_post_parameters("password")
@require_http_methods(["GET", "POST"])
def sign_in(request: HttpRequest) -> HttpResponse:
    wanted = request.POST.get("next") or request.GET.get("next") or ""
    destination = safe_destination(request, wanted)
    if has_both_factors(request):
        return redirect(destination)
    now = timezone.now()
    form = SignInForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        handle = form.cleaned_data["username"]
        person = authenticate(
            request, username=handle, password=form.cleaned_data["password"]
        )
        if isinstance(person, User):
            pending_sign_in.begin(
                request, person=person, destination=destination, now=now
            )
            return redirect("portal:sign-in-code")
        _record_refusal(request, handle=handle, reason="password", now=now)
        form.add_error(None, "This handle and this password do not belong together.")
    return render(
        request,
        "portal/sign_in.html",
        {"form": form, "next": destination, "notice": current_notice()},
        status=_INVALID if form.errors else 200,
    )


@login_not_required
@require_http_methods(["GET", "POST"])
def one_time_code(request: HttpRequest) -> HttpResponse:
    now = timezone.now()
    pending = pending_sign_in.current(request, now=now)
    if pending is None:
        return _start_again(request)
    if people.totp_device(pending.person) is None:
        return redirect("portal:enrol")
    form = CodeForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        code = form.cleaned_data["code"]
        verdict = accounts.verify_second_factor(user=pending.person, code=code, now=now)
        if verdict:
            is_one_time = code.isdigit() and len(code) == 6
            factor = "one-time code" if is_one_time else "recovery code"
            _finish(request, pending, factor=factor, now=now)
            return redirect(pending.destination)
        if _refuse_code(request, pending, form, wait=verdict.wait_seconds, now=now):
            return _start_again(request)
    return render(
        request,
        "portal/one_time_code.html",
        {"form": form, "person": pending.person},
        status=_INVALID if form.errors else 200,
    )


@login_not_required
@require_http_methods(["GET", "POST"])
def enrol(request: HttpRequest) -> HttpResponse:
    now = timezone.now()
    pending = pending_sign_in.current(request, now=now)
    if pending is None:
        return _start_again(request)
    if people.totp_device(pending.person) is not None:
        return redirect("portal:sign-in-code")
    device = accounts.start_totp_enrolment(
        user=pending.person, shown_device_id=pending.device_id
    )
    pending_sign_in.keep_device(request, device.pk)
    form = EnrolmentCodeForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            codes = accounts.confirm_totp_enrolment(
                user=pending.person, code=form.cleaned_data["code"], now=now
            )
        except accounts.FactorRefusedError as refusal:
            form.add_error("code", str(refusal))
        else:
            _finish(request, pending, factor="one-time code", now=now)
            return render(
                request,
                "portal/recovery_codes.html",
                {"codes": codes, "destination": pending.destination, "enrolled": True},
            )
    return render(
        request,
        "portal/enrol.html",
        {"form": form, "person": pending.person, **_secret_of(device)},
        status=_INVALID if form.errors else 200,
    )


@login_not_required
@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    if isinstance(request.user, User):
        accounts.record_signed_out(
            user=request.user,
            source_address=source_address(request),
            now=timezone.now(),
        )
    logout(request)
    messages.success(request, "You are signed out.")
    return redirect("portal:sign-in")


def locked_out(
    request: HttpRequest,
    _response: HttpResponse | None = None,
    credentials: dict[str, str] | None = None,
) -> HttpResponse:
    """Answer a sign-in that django-axes refuses without looking at the password."""
    _record_refusal(
        request,
        handle=(credentials or {}).get("username", ""),
        reason="too many attempts",
        now=timezone.now(),
    )
    cooloff = dt.timedelta(hours=settings.AXES_COOLOFF_TIME)
    response = render(request, "429.html", {"cooloff": cooloff}, status=429)
    response.headers["Retry-After"] = str(int(cooloff.total_seconds()))
    return response


def _finish(
    request: HttpRequest, pending: PendingSignIn, *, factor: str, now: dt.datetime
) -> None:
    """Sign the person in; both factors were right."""
    source = source_address(request)
    accounts.record_sign_in(
        user=pending.person,
        door=_DOOR,
        source_address=source,
        now=now,
        factors=("password", factor),
    )
    pending_sign_in.forget(request)
    login(request, pending.person, backend=_BACKEND)
    # Always the app's device, also after a recovery code: a session is verified as
    # long as that device stands, and an administrator's reset ends it.
    mark_verified(request, people.totp_device(pending.person))
    portal_sessions.describe(request, source_address=source, now=now)
    left = people.recovery_codes_left(pending.person)
    if factor == "recovery code" and left <= _FEW_CODES:
        messages.warning(
            request,
            f"You have {left} recovery codes left: make new ones in My account.",
        )


def _refuse_code(
    request: HttpRequest,
    pending: PendingSignIn,
    form: CodeForm,
    *,
    wait: int,
    now: dt.datetime,
) -> bool:
    """Put the reason on the form; True when that was the last try."""
    _record_refusal(
        request, handle=pending.person.username, reason="second factor", now=now
    )
    if wait:
        form.add_error(
            "code",
            f"Too many tries in a row: wait {wait} s, then type the code shown then.",
        )
        return False
    pending_sign_in.count_try(request)
    form.add_error(
        "code",
        "That code is not right or was used already. Wait for the next one, and check "
        "that your phone's clock is set automatically.",
    )
    return pending.tries_left <= 1


def _record_refusal(
    request: HttpRequest, *, handle: str, reason: str, now: dt.datetime
) -> None:
    # People type passwords into the first field by mistake; the ledger keeps for ever.
    is_handle = re.fullmatch(HANDLE.regex, handle) is not None
    accounts.record_sign_in_refused(
        handle=handle if is_handle else "",
        door=_DOOR,
        reason=reason,
        source_address=source_address(request),
        now=now,
    )


def _start_again(request: HttpRequest) -> HttpResponse:
    pending_sign_in.forget(request)
    messages.warning(
        request, "Begin again: that sign-in took too long or had too many wrong codes."
    )
    return redirect("portal:sign-in")


def _secret_of(device: TOTPDevice) -> dict[str, str]:
    """Return the secret as an inline SVG and as letters in groups of four."""
    symbol = segno.make(device.config_url, micro=False, error="m")
    letters = base64.b32encode(binascii.unhexlify(device.key)).decode().rstrip("=")
    svg = symbol.svg_inline(omitsize=True, dark="#000000", light="#ffffff", border=4)
    return {
        # Drawn by segno from numbers alone: no text of anybody is in it.
        "qr_svg": mark_safe(svg),  # noqa: S308  # nosec B308 B703
        "secret_letters": " ".join(textwrap.wrap(letters, 4)),
    }
