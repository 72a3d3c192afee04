"""What to trust: the gateway's host key, and the authority the assets have to know."""

import uuid

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from apps.accounts.models import User
from apps.inventory.models import Site
from apps.inventory.queries import assets_visible_to, sites_visible_to
from apps.portal.roles import only_for, signed_in
from apps.portal.ssh_door import SshDoor, ssh_door
from apps.sessions.queries import running_gateways
from apps.vault import operations as vault
from apps.vault.models import ServiceKey, ServiceKeyPurpose
from apps.vault.queries import authority_of


@require_GET
def gateway_info(request: HttpRequest) -> HttpResponse:
    person = signed_in(request)
    door = ssh_door()
    key = ServiceKey.objects.filter(
        purpose=ServiceKeyPurpose.GATEWAY_HOST,
        retired_at=None,
        in_use_since__isnull=False,
    ).first()
    return render(
        request,
        "portal/gateway_info.html",
        {
            "door": door,
            "host_key": key,
            "next_key": vault.next_host_key(),
            "known_hosts": f"{door.known_hosts_name} {key.public_line}" if key else "",
            **_jump_context(person, door),
            "gateways": running_gateways(),
            "sites": [(site, authority_of(site)) for site in sites_visible_to(person)],
        },
    )


def _jump_context(person: User, door: SshDoor) -> dict[str, str]:
    """Return the lines that `ssh -J` needs: for known_hosts and for ssh_config."""
    authority = ServiceKey.objects.filter(
        purpose=ServiceKeyPurpose.JUMP_AUTHORITY, retired_at=None
    ).first()
    names = list(assets_visible_to(person).values_list("name", flat=True))
    names += [f"*.{site.slug.lower()}" for site in sites_visible_to(person)]
    if authority is None or not names:
        return {"jump_line": "", "jump_config": "", "jump_host": ""}
    return {
        "jump_host": door.jump_host(person.username),
        "jump_line": f"@cert-authority {','.join(names)} {authority.public_line}",
        "jump_config": (
            f"Host {' '.join(names)}\n    ProxyJump {door.jump_host(person.username)}"
        ),
    }


@require_POST
@only_for("administrator")
def make_authority(request: HttpRequest, site_id: uuid.UUID) -> HttpResponse:
    site = get_object_or_404(Site, pk=site_id)
    try:
        vault.make_authority(site=site, by=signed_in(request).party, now=timezone.now())
    except vault.VaultRefusedError as refusal:
        messages.error(request, str(refusal))
    else:
        messages.success(
            request, f"{site.name} has its authority. Install it on the hosts now."
        )
    return redirect("portal:gateway-info")
