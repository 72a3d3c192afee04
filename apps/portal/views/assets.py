"""Assets: the list and one of them for members; changing them for administrators."""

import datetime as dt
import uuid

from django.core.paginator import Paginator
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_http_methods

from apps.accounts.models import User
from apps.audit.operations import Party
from apps.inventory import operations as inventory
from apps.inventory import queries
from apps.inventory.crypto_profiles import PROFILES
from apps.inventory.models import Asset
from apps.portal.forms.inventory import (
    AccountForm,
    AssetFilterForm,
    AssetForm,
    HostKeyForm,
)
from apps.portal.roles import only_for, signed_in
from apps.portal.views.saving import saved
from apps.sessions.queries import live_sessions_visible_to
from apps.vault.models import AccountCredential

_PER_PAGE = 50
_INVALID = 422


@require_GET
def assets(request: HttpRequest) -> HttpResponse:
    person = signed_in(request)
    form = AssetFilterForm(request.GET)
    wanted = form.cleaned_data if form.is_valid() else {}
    found = queries.assets_visible_to(person).order_by("zone__site__name", "name")
    if wanted.get("q"):
        found = found.filter(
            Q(name__icontains=wanted["q"])
            | Q(description__icontains=wanted["q"])
            | Q(vendor__icontains=wanted["q"])
        )
    if wanted.get("kind"):
        found = found.filter(kind=wanted["kind"])
    page = Paginator(found.prefetch_related("accounts"), _PER_PAGE).get_page(
        request.GET.get("page")
    )
    return render(
        request,
        "portal/assets.html",
        {
            "form": form,
            "page": page,
            "filtered": any(wanted.values()),
            "weak": [name for name, profile in PROFILES.items() if profile.weak],
        },
    )


@require_GET
def asset_detail(request: HttpRequest, asset_id: uuid.UUID) -> HttpResponse:
    person = signed_in(request)
    asset = get_object_or_404(queries.assets_visible_to(person), pk=asset_id)
    return asset_page(request, person, asset)


def asset_page(
    request: HttpRequest,
    person: User,
    asset: Asset,
    *,
    account_form: AccountForm | None = None,
    key_form: HostKeyForm | None = None,
) -> HttpResponse:
    """Return the page of `asset`; with a form that has errors, to correct it there."""
    credentials = AccountCredential.objects.filter(
        account__asset=asset, replaced_at=None
    )
    with_credential = set(credentials.values_list("account_id", flat=True))
    wrong = any(form is not None for form in (account_form, key_form))
    return render(
        request,
        "portal/asset_detail.html",
        {
            "asset": asset,
            "accounts": asset.accounts.all(),
            "with_credential": with_credential,
            "host_keys": asset.host_keys.filter(removed_at=None).select_related(
                "pinned_by", "confirmed_by"
            ),
            "conduit": queries.conduit_to(asset),
            "crypto": PROFILES[asset.crypto_profile],
            "live": live_sessions_visible_to(person).filter(asset=asset),
            "is_member": queries.is_member(person, asset.zone.site),
            "account_form": account_form or AccountForm(prefix="account"),
            "key_form": key_form or HostKeyForm(prefix="key"),
            "zone": asset.zone.site.time_zone,
        },
        status=_INVALID if wrong else 200,
    )


@require_http_methods(["GET", "POST"])
@only_for("administrator")
def add_asset(request: HttpRequest) -> HttpResponse:
    form = AssetForm(request.POST or None)

    def add(*, by: Party, now: dt.datetime, **fields: object) -> Asset:
        return inventory.add_asset(fields=fields, by=by, now=now)

    asset = saved(
        request,
        form,
        add,
        said=lambda asset: (
            f"{asset.name} is added. Give it an account and a host key now."
        ),
    )
    if asset is not None:
        return redirect("portal:asset-detail", asset_id=asset.pk)
    return _form_page(request, form, None)


@require_http_methods(["GET", "POST"])
@only_for("administrator")
def change_asset(request: HttpRequest, asset_id: uuid.UUID) -> HttpResponse:
    asset = get_object_or_404(
        queries.assets_visible_to(signed_in(request)), pk=asset_id
    )
    form = AssetForm(request.POST) if request.method == "POST" else AssetForm.of(asset)

    def change(*, by: Party, now: dt.datetime, **changes: object) -> Asset:
        return inventory.change_asset(
            asset_id=asset.pk, changes=changes, by=by, now=now
        )

    if saved(request, form, change):
        return redirect("portal:asset-detail", asset_id=asset.pk)
    return _form_page(request, form, asset)


def _form_page(
    request: HttpRequest, form: AssetForm, asset: Asset | None
) -> HttpResponse:
    return render(
        request,
        "portal/asset_form.html",
        {"form": form, "asset": asset},
        status=_INVALID if form.errors else 200,
    )
