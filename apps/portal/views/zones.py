"""Sites, zones and conduits, for administrators."""

import datetime as dt
import uuid
from functools import partial
from typing import Any

from django.contrib import messages
from django.db.models import Count, Prefetch, Q
from django.forms import Form
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from apps.audit.operations import Party
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
from apps.portal.views.saving import saved

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
    save = partial(saved, request, form, inventory.add_site)
    if save(said=lambda site: f"{site.name} is added. Draw its zones now."):
        return redirect("portal:zones")
    return _form_page(request, form, "Add a site", "Add")


@require_http_methods(["GET", "POST"])
@only_for("administrator")
def site_banner(request: HttpRequest, site_id: uuid.UUID) -> HttpResponse:
    site = get_object_or_404(Site, pk=site_id)
    form = SiteBannerForm(request.POST or None, initial={"banner": site.banner})
    change = partial(inventory.set_site_banner, site_id=site.pk)
    if saved(
        request, form, change, said=lambda _: f"{site.name}: this is what is told now."
    ):
        return redirect("portal:zones")
    return _form_page(request, form, f"What people are told at {site.name}", "Save")


@require_http_methods(["GET", "POST"])
@only_for("administrator")
def add_zone(request: HttpRequest) -> HttpResponse:
    form = ZoneForm(request.POST or None)
    save = partial(saved, request, form, inventory.add_zone)
    if save(said=lambda zone: f"Zone {zone.name} is added."):
        return redirect("portal:zones")
    return _form_page(request, form, "Add a zone", "Add")


@require_http_methods(["GET", "POST"])
@only_for("administrator")
def change_zone(request: HttpRequest, zone_id: uuid.UUID) -> HttpResponse:
    zone = get_object_or_404(Zone.objects.select_related("site"), pk=zone_id)
    form = ZoneForm(request.POST or None, zone=zone)

    def change(*, by: Party, now: dt.datetime, **changes: object) -> Zone:
        return inventory.change_zone(zone_id=zone.pk, changes=changes, by=by, now=now)

    if saved(request, form, change):
        return redirect("portal:zones")
    return _form_page(request, form, f"Change zone {zone.name}", "Save")


@require_http_methods(["GET", "POST"])
@only_for("administrator")
def add_conduit(request: HttpRequest) -> HttpResponse:
    form = ConduitForm(request.POST or None)
    save = partial(saved, request, form, inventory.add_conduit)
    if save(said=lambda conduit: f"Conduit {conduit.name} is added."):
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

    def change(*, by: Party, now: dt.datetime, **facts: Any) -> Conduit:
        return inventory.change_conduit(
            conduit_id=conduit.pk,
            services=facts["services"],
            omits_forward_bytes=facts["omits_forward_bytes"],
            by=by,
            now=now,
        )

    if saved(request, form, change):
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
