"""Every address of the portal, in the order people meet them."""

from apps.portal import (
    access_urls,
    account_urls,
    evidence_urls,
    inventory_urls,
    session_urls,
)

app_name = "portal"
urlpatterns = [
    *account_urls.urlpatterns,
    *access_urls.urlpatterns,
    *session_urls.urlpatterns,
    *inventory_urls.urlpatterns,
    *evidence_urls.urlpatterns,
]
