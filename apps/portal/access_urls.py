"""Addresses of asking for access, deciding on it, and giving it back."""

from django.urls import path

from apps.portal.views import (
    approvals,
    extensions,
    graces,
    grants,
    held_uploads,
    my_access,
    requests,
)

urlpatterns = [
    path("held/", held_uploads.held_uploads, name="held-uploads"),
    path("held/<uuid:held_id>/", held_uploads.held_upload, name="held-upload"),
    path(
        "held/<uuid:held_id>/content/", held_uploads.held_content, name="held-content"
    ),
    path("", my_access.my_access, name="my-access"),
    path("requests/new/", requests.new_request, name="request-new"),
    path("requests/<uuid:request_id>/", requests.request_detail, name="request-detail"),
    path(
        "requests/<uuid:request_id>/withdraw/",
        requests.withdraw_request,
        name="request-withdraw",
    ),
    path("approvals/", approvals.approvals, name="approvals"),
    path(
        "approvals/<uuid:request_id>/",
        approvals.approval_detail,
        name="approval-detail",
    ),
    path(
        "grants/<uuid:grant_id>/extension/",
        extensions.ask_extension,
        name="extension-ask",
    ),
    path(
        "extensions/<uuid:extension_id>/",
        extensions.decide_extension,
        name="extension-detail",
    ),
    path("graces/end/", graces.end_own, name="graces-end"),
    path("grants/<uuid:grant_id>/finish/", grants.finish_grant, name="grant-finish"),
    path("grants/<uuid:grant_id>/revoke/", grants.revoke_grant, name="grant-revoke"),
]
