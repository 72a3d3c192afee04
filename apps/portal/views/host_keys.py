"""Pinning an asset's host keys: one administrator pins, a second one confirms."""

import uuid

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils import timezone
from django.views.decorators.http import require_POST

from apps.accounts.models import User
from apps.inventory import operations as inventory
from apps.inventory import queries
from apps.inventory.models import HostKey
from apps.portal.forms.inventory import HostKeyForm
from apps.portal.roles import only_for, signed_in
from apps.portal.views.assets import asset_page


@require_POST
@only_for("administrator")
def pin_host_key(request: HttpRequest, asset_id: uuid.UUID) -> HttpResponse:
    person = signed_in(request)
    asset = get_object_or_404(queries.assets_visible_to(person), pk=asset_id)
    form = HostKeyForm(request.POST, prefix="key")
    if form.is_valid():
        try:
            key = inventory.pin_host_key(
                asset=asset,
                text=form.cleaned_data["text"],
                by=person,
                now=timezone.now(),
            )
        except inventory.InventoryRefusedError as refusal:
            form.add_error("text", str(refusal))
        else:
            messages.success(
                request,
                f"Pinned: {key.fingerprint}. It counts when a second administrator has "
                "confirmed it.",
            )
            return redirect("portal:asset-detail", asset_id=asset.pk)
    return asset_page(request, person, asset, key_form=form)


@require_POST
@only_for("administrator")
def confirm_host_key(request: HttpRequest, key_id: uuid.UUID) -> HttpResponse:
    person = signed_in(request)
    key = _key(person, key_id)
    if inventory.confirm_host_key(key_id=key.pk, by=person, now=timezone.now()):
        messages.success(request, f"Confirmed: {key.fingerprint} counts from now on.")
    else:
        messages.error(
            request, "Not confirmed: who pinned a key cannot confirm it as well."
        )
    return redirect("portal:asset-detail", asset_id=key.asset_id)


@require_POST
@only_for("administrator")
def remove_host_key(request: HttpRequest, key_id: uuid.UUID) -> HttpResponse:
    person = signed_in(request)
    key = _key(person, key_id)
    if inventory.remove_host_key(key_id=key.pk, by=person.party, now=timezone.now()):
        messages.success(request, f"Removed: {key.fingerprint} counts no more.")
    return redirect("portal:asset-detail", asset_id=key.asset_id)


def _key(person: User, key_id: uuid.UUID) -> HostKey:
    return get_object_or_404(
        HostKey, pk=key_id, removed_at=None, asset__in=queries.assets_visible_to(person)
    )
