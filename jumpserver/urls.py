"""The one URL configuration: pages are in the portal, JSON is in the API."""

from django.urls import include, path

from apps.api.urls import urls as api

urlpatterns = [
    path("api/v1/", api),
    path("", include("apps.portal.urls")),
]

handler400 = "apps.portal.views.errors.bad_request"
handler403 = "apps.portal.views.errors.permission_denied"
handler404 = "apps.portal.views.errors.page_not_found"
handler500 = "apps.portal.views.errors.server_error"
