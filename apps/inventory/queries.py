"""Reading the inventory: who sees which site, and which conduit leads to an asset."""

import uuid
from collections.abc import Iterable

from django.db.models import F, QuerySet

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


def conduits_into(zone_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, Conduit]:
    """Return, for each of these zones that has one, the conduit from its site's gateway
    zone; the gateway zone is read with it."""
    conduits = Conduit.objects.select_related("from_zone").filter(
        to_zone_id__in=set(zone_ids),
        from_zone__site_id=F("to_zone__site_id"),
        from_zone__hosts_gateway=True,
    )
    return {conduit.to_zone_id: conduit for conduit in conduits}


def members_among(
    pairs: Iterable[tuple[uuid.UUID, uuid.UUID]],
) -> set[tuple[uuid.UUID, uuid.UUID]]:
    """Return those (person, site) where the person belongs to the site."""
    wanted = set(pairs)
    rows = SiteMembership.objects.filter(
        user_id__in={user for user, _ in wanted},
        site_id__in={site for _, site in wanted},
    ).values_list("user_id", "site_id")
    return wanted & set(rows)


def assets_with_host_key(asset_ids: Iterable[uuid.UUID]) -> set[uuid.UUID]:
    """Return those of these assets that have a pinned host key."""
    return set(
        HostKey.objects.pinned()
        .filter(asset_id__in=set(asset_ids))
        .values_list("asset_id", flat=True)
    )


def conduit_to(asset: Asset) -> Conduit | None:
    """Return the conduit from the site's gateway zone to the asset's zone, if any."""
    return conduits_into([asset.zone_id]).get(asset.zone_id)


def pinned_host_keys(asset_id: uuid.UUID) -> tuple[str, ...]:
    """Return the lines of the asset's confirmed host keys, newest first."""
    return tuple(
        HostKey.objects.pinned()
        .filter(asset_id=asset_id)
        .order_by("-pinned_at")
        .values_list("line", flat=True)
    )
