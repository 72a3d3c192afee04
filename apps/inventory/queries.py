"""Reading the inventory: who sees which site, and which conduit leads to an asset."""

import uuid

from django.db.models import QuerySet

from apps.accounts.models import User
from apps.inventory.models import Asset, Conduit, HostKey, Site, SiteMembership, Zone


def sites_of(user: User) -> QuerySet[Site]:
    """Return the sites `user` belongs to."""
    return Site.objects.filter(memberships__user=user)


def sites_visible_to(user: User) -> QuerySet[Site]:
    """Return the sites `user` may see: their own; an administrator's are all."""
    return Site.objects.all() if user.is_administrator else sites_of(user)


def is_member(user: User, site: Site) -> bool:
    """Say whether `user` belongs to `site`."""
    return SiteMembership.objects.filter(user=user, site=site).exists()


def assets_visible_to(user: User) -> QuerySet[Asset]:
    """Return the assets `user` may know of: those of their sites, not retired ones."""
    return (
        Asset.objects.select_related("zone__site")
        .filter(retired_at=None, zone__site__in=sites_visible_to(user))
        .order_by("name")
    )


def requestable_assets(user: User) -> QuerySet[Asset]:
    """Return the assets `user` may ask for: those of the sites they belong to."""
    return (
        Asset.objects.select_related("zone__site")
        .filter(retired_at=None, zone__site__in=sites_of(user))
        .order_by("name")
    )


def asset_by_name(name: str) -> Asset | None:
    """Return the asset with this name, whatever its case, unless it is retired."""
    return (
        Asset.objects.select_related("zone__site")
        .filter(name__iexact=name, retired_at=None)
        .first()
    )


def gateway_zone(site: Site) -> Zone | None:
    """Return the zone of `site` that the gateway is in."""
    return Zone.objects.filter(site=site, hosts_gateway=True).first()


def conduit_to(asset: Asset) -> Conduit | None:
    """Return the conduit from the site's gateway zone to the asset's zone, if any."""
    return (
        Conduit.objects.select_related("from_zone")
        .filter(
            to_zone=asset.zone,
            from_zone__site_id=asset.zone.site_id,
            from_zone__hosts_gateway=True,
        )
        .first()
    )


def pinned_host_keys(asset_id: uuid.UUID) -> tuple[str, ...]:
    """Return the lines of the asset's confirmed host keys, newest first."""
    return tuple(
        HostKey.objects.pinned()
        .filter(asset_id=asset_id)
        .order_by("-pinned_at")
        .values_list("line", flat=True)
    )
