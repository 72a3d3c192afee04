"""Accounts on assets and their credentials, for administrators."""

import uuid

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from django.views.decorators.http import require_http_methods, require_POST

from apps.inventory import operations as inventory
from apps.inventory import queries
from apps.inventory.models import CredentialKind, TargetAccount
from apps.inventory.sign_ins import SignIn
from apps.portal.forms.inventory import AccountForm, CredentialForm
from apps.portal.roles import only_for, signed_in
from apps.portal.views.assets import asset_page
from apps.vault import operations as vault
from apps.vault.secret_values import Secret

_INVALID = 422


@require_POST
@only_for("administrator")
def add_account(request: HttpRequest, asset_id: uuid.UUID) -> HttpResponse:
    person = signed_in(request)
    asset = get_object_or_404(queries.assets_visible_to(person), pk=asset_id)
    form = AccountForm(request.POST, prefix="account")
    if form.is_valid():
        try:
            account = inventory.add_account(
                asset=asset,
                name=form.cleaned_data["name"],
                login=form.cleaned_data["login"],
                credential_kind=form.cleaned_data["credential_kind"],
                sign_in=form.cleaned_data["sign_in"] or SignIn.SSH,
                by=person.party,
                now=timezone.now(),
            )
        except inventory.InventoryRefusedError as refusal:
            form.add_error(None, str(refusal))
        else:
            messages.success(request, f"Account {account.name} is added.")
            return redirect("portal:asset-detail", asset_id=asset.pk)
    return asset_page(request, person, asset, account_form=form)


@sensitive_post_parameters("secret")
@sensitive_variables("form")
@require_http_methods(["GET", "POST"])
@only_for("administrator")
def store_credential(request: HttpRequest, account_id: uuid.UUID) -> HttpResponse:
    person = signed_in(request)
    account = get_object_or_404(
        TargetAccount.objects.select_related("asset__zone__site").exclude(
            credential_kind=CredentialKind.CERTIFICATE
        ),
        pk=account_id,
        asset__in=queries.assets_visible_to(person),
    )
    form = CredentialForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            vault.store_credential(
                account=account,
                kind=account.credential_kind,
                secret=Secret(form.cleaned_data["secret"]),
                by=person.party,
                now=timezone.now(),
            )
        except ValueError as refusal:
            form.add_error("secret", str(refusal))
        else:
            messages.success(request, f"The vault holds the credential of {account}.")
            return redirect("portal:asset-detail", asset_id=account.asset_id)
    return render(
        request,
        "portal/credential_form.html",
        {"form": form, "account": account},
        status=_INVALID if form.errors else 200,
    )
