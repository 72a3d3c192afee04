"""Sites, zones and conduits, for administrators."""

import uuid

from django.contrib import messages
from django.db.models import Count, Prefetch, Q
from django.forms import Form
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from apps.inventory import operations as inventory
from apps.inventory.models import Conduit, Site, SiteMembership, Zone
from apps.portal.forms.inventory import (
    ConduitForm,
    ConduitServicesForm,
    SiteBannerForm,
    SiteForm,
    ZoneForm,
)
from apps.portal.roles import only_for, signed_in

_INVALID = 422


@require_GET
@only_for("administrator")
def zones(request: HttpRequest) -> HttpResponse:
    counted = Zone.objects.annotate(
        asset_count=Count("assets", filter=Q(assets__retired_at=None))
    ).order_by("-purdue_level", "name")
    members = SiteMembership.objects.select_related("user").order_by("user__username")
    found = Site.objects.prefetch_related(
        Prefetch("zones", counted), Prefetch("memberships", members)
    )
    conduits = Conduit.objects.select_related("from_zone__site", "to_zone")
    sites = [
        (site, [c for c in conduits if c.from_zone.site_id == site.pk])
        for site in found
    ]
    return render(request, "portal/zones.html", {"sites": sites})


@require_http_methods(["GET", "POST"])
@only_for("administrator")
def add_site(request: HttpRequest) -> HttpResponse:
    form = SiteForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            site = inventory.add_site(
                **form.cleaned_data, by=signed_in(request).party, now=timezone.now()
            )
        except inventory.InventoryRefusedError as refusal:
            form.add_error(None, str(refusal))
        else:
            messages.success(request, f"{site.name} is added. Draw its zones now.")
            return redirect("portal:zones")
    return _form_page(request, form, "Add a site", "Add")


@require_http_methods(["GET", "POST"])
@only_for("administrator")
def site_banner(request: HttpRequest, site_id: uuid.UUID) -> HttpResponse:
    site = get_object_or_404(Site, pk=site_id)
    form = SiteBannerForm(request.POST or None, initial={"banner": site.banner})
    if request.method == "POST" and form.is_valid():
        try:
            inventory.set_site_banner(
                site_id=site.pk,
                **form.cleaned_data,
                by=signed_in(request).party,
                now=timezone.now(),
            )
        except inventory.InventoryRefusedError as refusal:
            form.add_error(None, str(refusal))
        else:
            messages.success(request, f"This is what people are told at {site.name}.")
            return redirect("portal:zones")
    return _form_page(request, form, f"What people are told at {site.name}", "Save")


@require_http_methods(["GET", "POST"])
@only_for("administrator")
def add_zone(request: HttpRequest) -> HttpResponse:
    form = ZoneForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            zone = inventory.add_zone(
                **form.cleaned_data, by=signed_in(request).party, now=timezone.now()
            )
        except inventory.InventoryRefusedError as refusal:
            form.add_error(None, str(refusal))
        else:
            messages.success(request, f"Zone {zone.name} is added.")
            return redirect("portal:zones")
    return _form_page(request, form, "Add a zone", "Add")


@require_http_methods(["GET", "POST"])
@only_for("administrator")
def change_zone(request: HttpRequest, zone_id: uuid.UUID) -> HttpResponse:
    zone = get_object_or_404(Zone.objects.select_related("site"), pk=zone_id)
    form = ZoneForm(request.POST or None, zone=zone)
    if request.method == "POST" and form.is_valid():
        try:
            inventory.change_zone(
                zone_id=zone.pk,
                changes=form.cleaned_data,
                by=signed_in(request).party,
                now=timezone.now(),
            )
        except inventory.InventoryRefusedError as refusal:
            form.add_error(None, str(refusal))
        else:
            messages.success(request, "The change is saved and holds from now on.")
            return redirect("portal:zones")
    return _form_page(request, form, f"Change zone {zone.name}", "Save")


@require_http_methods(["GET", "POST"])
@only_for("administrator")
def add_conduit(request: HttpRequest) -> HttpResponse:
    form = ConduitForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            conduit = inventory.add_conduit(
                **form.cleaned_data, by=signed_in(request).party, now=timezone.now()
            )
        except inventory.InventoryRefusedError as refusal:
            form.add_error(None, str(refusal))
        else:
            messages.success(request, f"Conduit {conduit.name} is added.")
            return redirect("portal:zones")
    return _form_page(request, form, "Add a conduit", "Add")


@require_http_methods(["GET", "POST"])
@only_for("administrator")
def change_conduit(request: HttpRequest, conduit_id: uuid.UUID) -> HttpResponse:
    conduit = get_object_or_404(Conduit, pk=conduit_id)
    form = (
        ConduitServicesForm(request.POST)
        if request.method == "POST"
        else ConduitServicesForm.of(conduit)
    )
    if request.method == "POST" and form.is_valid():
        try:
            inventory.change_conduit(
                conduit_id=conduit.pk,
                services=form.cleaned_data["services"],
                omits_forward_bytes=form.cleaned_data["omits_forward_bytes"],
                by=signed_in(request).party,
                now=timezone.now(),
            )
        except inventory.InventoryRefusedError as refusal:
            form.add_error(None, str(refusal))
        else:
            messages.success(request, "The change is saved and holds from now on.")
            return redirect("portal:zones")
    return _form_page(request, form, f"Change conduit {conduit.name}", "Save")


@require_POST
@only_for("administrator")
def remove_conduit(request: HttpRequest, conduit_id: uuid.UUID) -> HttpResponse:
    conduit = get_object_or_404(Conduit, pk=conduit_id)
    inventory.remove_conduit(
        conduit_id=conduit.pk, by=signed_in(request).party, now=timezone.now()
    )
    messages.success(request, f"Conduit {conduit.name} is removed: nothing crosses it.")
    return redirect("portal:zones")


def _form_page(
    request: HttpRequest, form: Form, heading: str, action: str
) -> HttpResponse:
    return render(
        request,
        "portal/zone_form.html",
        {"form": form, "heading": heading, "action": action},
        status=_INVALID if form.errors else 200,
    )
