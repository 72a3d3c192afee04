"""Addresses of evidence: recordings, the ledger, and what verifies both."""

from django.urls import path

from apps.portal.views import ledger, recordings, verification

urlpatterns = [
    path("recordings/<uuid:recording_id>/", recordings.replay, name="recording-replay"),
    path(
        "recordings/<uuid:recording_id>/cast/", recordings.cast, name="recording-cast"
    ),
    path(
        "recordings/<uuid:recording_id>/download/",
        recordings.download,
        name="recording-download",
    ),
    path("ledger/", ledger.ledger, name="ledger"),
    path("ledger/events/<int:seq>/", ledger.ledger_event, name="ledger-event"),
    path("ledger/verify/", ledger.verify_ledger, name="ledger-verify"),
    path("ledger/export/", ledger.export_ledger, name="ledger-export"),
    path("verify/verifier.py", verification.verifier, name="verifier-download"),
    path("verify/keys.pub", verification.signing_keys, name="signing-keys"),
]
