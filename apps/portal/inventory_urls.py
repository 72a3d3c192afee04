"""Addresses of assets, sites with their zones and conduits, and the gateway."""

from django.urls import path

from apps.portal.views import accounts_on_assets, assets, gateway, host_keys, zones

urlpatterns = [
    path("assets/", assets.assets, name="assets"),
    path("assets/add/", assets.add_asset, name="asset-add"),
    path("assets/<uuid:asset_id>/", assets.asset_detail, name="asset-detail"),
    path("assets/<uuid:asset_id>/change/", assets.change_asset, name="asset-change"),
    path(
        "assets/<uuid:asset_id>/accounts/add/",
        accounts_on_assets.add_account,
        name="asset-account-add",
    ),
    path(
        "accounts-on-assets/<uuid:account_id>/credential/",
        accounts_on_assets.store_credential,
        name="asset-credential",
    ),
    path(
        "assets/<uuid:asset_id>/host-keys/pin/",
        host_keys.pin_host_key,
        name="host-key-pin",
    ),
    path(
        "host-keys/<uuid:key_id>/confirm/",
        host_keys.confirm_host_key,
        name="host-key-confirm",
    ),
    path(
        "host-keys/<uuid:key_id>/remove/",
        host_keys.remove_host_key,
        name="host-key-remove",
    ),
    path("zones/", zones.zones, name="zones"),
    path("zones/add/", zones.add_zone, name="zone-add"),
    path("zones/<uuid:zone_id>/change/", zones.change_zone, name="zone-change"),
    path("sites/add/", zones.add_site, name="site-add"),
    path("sites/<uuid:site_id>/banner/", zones.site_banner, name="site-banner"),
    path("conduits/add/", zones.add_conduit, name="conduit-add"),
    path(
        "conduits/<uuid:conduit_id>/change/",
        zones.change_conduit,
        name="conduit-change",
    ),
    path(
        "conduits/<uuid:conduit_id>/remove/",
        zones.remove_conduit,
        name="conduit-remove",
    ),
    path("gateway/", gateway.gateway_info, name="gateway-info"),
    path(
        "sites/<uuid:site_id>/authority/",
        gateway.make_authority,
        name="authority-make",
    ),
]
