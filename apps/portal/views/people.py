"""People, for administrators: who there is, what they may come to do, and where."""

import secrets
import uuid

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from apps.accounts import operations as accounts
from apps.accounts import queries as accounts_queries
from apps.accounts.models import User
from apps.inventory import operations as inventory
from apps.inventory import queries as inventory_queries
from apps.inventory.models import Site
from apps.portal.forms.people import (
    AddPersonForm,
    PeopleFilterForm,
    PersonForm,
    SiteForm,
)
from apps.portal.roles import only_for, signed_in

_PER_PAGE = 50
_INVALID = 422
# 120 random bits: nobody chooses a first password, so nobody chooses a bad one.
_FIRST_PASSWORD_BYTES = 15


@require_GET
@only_for("administrator")
def people(request: HttpRequest) -> HttpResponse:
    form = PeopleFilterForm(request.GET)
    wanted = form.cleaned_data if form.is_valid() else {}
    found = accounts_queries.search_people(
        text=wanted.get("q", ""),
        role=wanted.get("role", ""),
        state=wanted.get("state", ""),
    ).prefetch_related("site_memberships__site")
    page = Paginator(found, _PER_PAGE).get_page(request.GET.get("page"))
    return render(
        request,
        "portal/people.html",
        {"form": form, "page": page, "filtered": any(wanted.values())},
    )


@require_http_methods(["GET", "POST"])
@only_for("administrator")
def add_person(request: HttpRequest) -> HttpResponse:
    form = AddPersonForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        password = secrets.token_urlsafe(_FIRST_PASSWORD_BYTES)
        try:
            person = accounts.add_person(
                username=form.cleaned_data["username"],
                full_name=form.cleaned_data["full_name"],
                email=form.cleaned_data["email"],
                organisation=form.cleaned_data["organisation"],
                roles=frozenset(form.cleaned_data["roles"]),
                password=password,
                by=signed_in(request).party,
                now=timezone.now(),
            )
        except accounts.PersonRefusedError as refusal:
            form.add_error("username", str(refusal))
        else:
            context = {"person": person, "password": password, "added": True}
            return render(request, "portal/first_password.html", context)
    return render(
        request,
        "portal/person_form.html",
        {"form": form, "person": None},
        status=_INVALID if form.errors else 200,
    )


@require_GET
@only_for("administrator")
def person_detail(request: HttpRequest, person_id: uuid.UUID) -> HttpResponse:
    person = get_object_or_404(User, pk=person_id)
    return render(
        request,
        "portal/person_detail.html",
        {
            "person": person,
            "is_self": person.pk == signed_in(request).pk,
            "sites": inventory_queries.sites_of(person),
            "site_form": SiteForm(person=person),
            "keys": accounts_queries.keys_of(person),
            "has_factor": accounts_queries.totp_device(person) is not None,
            "recovery_codes_left": accounts_queries.recovery_codes_left(person),
            "graces": accounts_queries.graces_of(person, now=timezone.now()),
        },
    )


@require_http_methods(["GET", "POST"])
@only_for("administrator")
def change_person(request: HttpRequest, person_id: uuid.UUID) -> HttpResponse:
    person = get_object_or_404(User, pk=person_id)
    form = (
        PersonForm(request.POST) if request.method == "POST" else PersonForm.of(person)
    )
    if request.method == "POST" and form.is_valid():
        try:
            accounts.change_person(
                user_id=person.pk,
                full_name=form.cleaned_data["full_name"],
                email=form.cleaned_data["email"],
                organisation=form.cleaned_data["organisation"],
                roles=frozenset(form.cleaned_data["roles"]),
                by=signed_in(request),
                now=timezone.now(),
            )
        except accounts.PersonRefusedError as refusal:
            form.add_error("roles", str(refusal))
        else:
            messages.success(request, "The change is saved and holds from now on.")
            return redirect("portal:person-detail", person_id=person.pk)
    return render(
        request,
        "portal/person_form.html",
        {"form": form, "person": person},
        status=_INVALID if form.errors else 200,
    )


@require_POST
@only_for("administrator")
def disable_person(request: HttpRequest, person_id: uuid.UUID) -> HttpResponse:
    person = get_object_or_404(User, pk=person_id)
    try:
        disabled = accounts.disable_person(
            user_id=person.pk, by=signed_in(request), now=timezone.now()
        )
    except accounts.PersonRefusedError as refusal:
        messages.error(request, str(refusal))
    else:
        text = "is disabled" if disabled else "was disabled already"
        messages.success(request, f"{person.username} {text}.")
    return redirect("portal:person-detail", person_id=person.pk)


@require_POST
@only_for("administrator")
def enable_person(request: HttpRequest, person_id: uuid.UUID) -> HttpResponse:
    person = get_object_or_404(User, pk=person_id)
    enabled = accounts.enable_person(
        user_id=person.pk, by=signed_in(request), now=timezone.now()
    )
    text = "is enabled again" if enabled else "was enabled already"
    messages.success(request, f"{person.username} {text}.")
    return redirect("portal:person-detail", person_id=person.pk)


@require_POST
@only_for("administrator")
def reset_factors(request: HttpRequest, person_id: uuid.UUID) -> HttpResponse:
    person = get_object_or_404(User, pk=person_id)
    done = accounts.reset_factors(
        user_id=person.pk, by=signed_in(request), now=timezone.now()
    )
    if done:
        messages.success(
            request,
            f"{person.username} has no second factor now and enrols at next sign-in.",
        )
    else:
        messages.error(
            request, "You cannot reset your own factors: ask another administrator."
        )
    return redirect("portal:person-detail", person_id=person.pk)


@require_POST
@only_for("administrator")
def reset_password(request: HttpRequest, person_id: uuid.UUID) -> HttpResponse:
    person = get_object_or_404(User, pk=person_id)
    password = secrets.token_urlsafe(_FIRST_PASSWORD_BYTES)
    try:
        accounts.reset_password(
            user_id=person.pk,
            new_password=password,
            by=signed_in(request),
            now=timezone.now(),
        )
    except accounts.PersonRefusedError as refusal:
        messages.error(request, str(refusal))
        return redirect("portal:person-detail", person_id=person.pk)
    context = {"person": person, "password": password, "added": False}
    return render(request, "portal/first_password.html", context)


@require_POST
@only_for("administrator")
def add_site(request: HttpRequest, person_id: uuid.UUID) -> HttpResponse:
    person = get_object_or_404(User, pk=person_id)
    form = SiteForm(request.POST, person=person)
    if not form.is_valid():
        messages.error(request, "Choose a site they do not belong to yet.")
        return redirect("portal:person-detail", person_id=person.pk)
    site: Site = form.cleaned_data["site"]
    try:
        inventory.add_member(
            site=site, user=person, by=signed_in(request).party, now=timezone.now()
        )
    except inventory.InventoryRefusedError as refusal:
        messages.error(request, str(refusal))
    else:
        messages.success(request, f"{person.username} belongs to {site.name} now.")
    return redirect("portal:person-detail", person_id=person.pk)


@require_POST
@only_for("administrator")
def remove_site(
    request: HttpRequest, person_id: uuid.UUID, site_id: uuid.UUID
) -> HttpResponse:
    person = get_object_or_404(User, pk=person_id)
    site = get_object_or_404(Site, pk=site_id)
    removed = inventory.remove_member(
        site=site, user=person, by=signed_in(request).party, now=timezone.now()
    )
    text = "no longer belongs to" if removed else "did not belong to"
    messages.success(request, f"{person.username} {text} {site.name}.")
    return redirect("portal:person-detail", person_id=person.pk)
