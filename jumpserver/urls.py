"""The one URL configuration: everything people open is in the portal."""

from django.urls import include, path

urlpatterns = [
    path("", include("apps.portal.urls")),
]

handler400 = "apps.portal.views.errors.bad_request"
handler403 = "apps.portal.views.errors.permission_denied"
handler404 = "apps.portal.views.errors.page_not_found"
handler500 = "apps.portal.views.errors.server_error"
