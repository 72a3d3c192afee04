"""Replaying and downloading recordings: for auditors of the site, and written down."""

import datetime as dt
import uuid
from collections.abc import Iterator

from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_GET

from apps.access.denials import Denied
from apps.accounts.models import User
from apps.portal.content_policy import with_player
from apps.portal.roles import signed_in
from apps.portal.source import source_address
from apps.portal.streaming import FromThread, in_pieces
from apps.recordings import operations, queries
from apps.recordings.cast import cast_lines
from apps.recordings.models import Recording, Viewing
from apps.recordings.reader import RecordingBrokenError, RecordingReader

_CHUNK_BYTES = 64 * 1024
_LATEST_VIEWINGS = 5


@with_player
@require_GET
def replay(request: HttpRequest, recording_id: uuid.UUID) -> HttpResponse:
    person = signed_in(request)
    recording = _visible(request, person, recording_id)
    channels = list(recording.session.channels.all())
    chosen = _channel(request)
    if chosen is None:
        terminals = [channel for channel in channels if channel.has_pty]
        chosen = (terminals or channels)[0].number if channels else None
    viewings = Viewing.objects.filter(recording=recording).select_related("viewer")
    return render(
        request,
        "portal/replay.html",
        {
            "recording": recording,
            "session": recording.session,
            "channels": channels,
            "chosen": chosen,
            "start": _seconds(request),
            "viewings": viewings[:_LATEST_VIEWINGS],
            "viewing_count": viewings.count(),
            "zone": recording.session.asset.zone.site.time_zone,
            "length": dt.timedelta(milliseconds=recording.duration_ms),
            "receipt": getattr(recording.session.lease, "receipt", None),
        },
    )


@require_GET
def cast(request: HttpRequest, recording_id: uuid.UUID) -> HttpResponseBase:
    """Send the recording as asciicast; with `download` as a file, else for replay."""
    person, now = signed_in(request), timezone.now()
    as_file = "download" in request.GET
    channel = _channel(request)
    try:
        reader = operations.open_for_viewing(
            recording_id=recording_id,
            viewer=person,
            how="download" if as_file else "replay",
            source_address=source_address(request),
            now=now,
        )
    except (OSError, RecordingBrokenError):
        # It stays an alarm on the recording's page; there is nothing to show here.
        raise Http404 from None
    if isinstance(reader, Denied):
        raise Http404
    response = StreamingHttpResponse(
        FromThread(_cast(reader, channel), close=reader.close),
        content_type="application/x-asciicast",
    )
    if as_file:
        name = f"{reader.header.get('session_short', 'session')}.cast"
        response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


@require_GET
def download(request: HttpRequest, recording_id: uuid.UUID) -> HttpResponseBase:
    """Send the sealed file itself, encrypted: it is what the verifier reads."""
    recording = operations.note_viewing(
        recording_id=recording_id,
        viewer=signed_in(request),
        how="download",
        source_address=source_address(request),
        now=timezone.now(),
    )
    if isinstance(recording, Denied):
        raise Http404
    path = operations.path_of(recording)
    try:
        file = path.open("rb")
    except OSError:
        raise Http404 from None
    chunks = iter(lambda: file.read(_CHUNK_BYTES), b"")
    response = StreamingHttpResponse(
        FromThread(chunks, close=file.close), content_type="application/octet-stream"
    )
    if recording.sealed_at is not None:
        response.headers["Content-Length"] = str(path.stat().st_size)
    name = f"{recording.session.short_id}.slrec"
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def _visible(request: HttpRequest, person: User, recording_id: uuid.UUID) -> Recording:
    """Return the recording when `person` may open it; a refusal is written down.

    Raises: Http404, the same for unknown and forbidden.
    """
    recording = (
        queries.recordings_visible_to(person)
        .select_related("session__lease__receipt", "session__grant__request")
        .filter(pk=recording_id)
        .first()
    )
    if recording is not None and queries.may_view(person, recording):
        return recording
    operations.note_viewing(
        recording_id=recording_id,
        viewer=person,
        how="replay",
        source_address=source_address(request),
        now=timezone.now(),
    )
    raise Http404


def _cast(reader: RecordingReader, channel: int | None) -> Iterator[bytes]:
    return in_pieces(cast_lines(reader.events(), header=reader.header, channel=channel))


def _channel(request: HttpRequest) -> int | None:
    text = request.GET.get("channel", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 8 else None


def _seconds(request: HttpRequest) -> int:
    text = request.GET.get("t", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 8 else 0
