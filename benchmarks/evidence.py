"""Says what the product wrote down during a benchmark, once it has stopped.

`python -m benchmarks.evidence ANSWER` writes ANSWER (JSON): how many sessions there
were, how many recordings are whole and verify (chain, seal and signature), and their
sizes. So the result shows that recording was on, and did its whole job.
Needs SLUICE_DATA_DIR.
"""

import datetime as dt
import sys
from pathlib import Path

import django

django.setup()

# These need Django to be set up.
from django.db.models import Sum  # noqa: E402

from apps.recordings import operations as recordings  # noqa: E402
from apps.recordings.lifecycle import RecordingState  # noqa: E402
from apps.recordings.models import Recording  # noqa: E402
from apps.sessions.models import Session  # noqa: E402
from jumpserver.private_files import write_private_json  # noqa: E402

_WHOLE = (RecordingState.SEALED, RecordingState.VERIFIED)


def evidence(*, now: dt.datetime) -> dict[str, int]:
    """Return the counts; sizes are bytes."""
    sealed = Recording.objects.filter(state__in=_WHOLE)
    verified = sum(
        recordings.verify_recording(recording_id=recording_id, now=now)
        for recording_id in list(sealed.values_list("pk", flat=True))
    )
    sums = Recording.objects.aggregate(
        carried=Sum("bytes_in", default=0) + Sum("bytes_out", default=0),
        kept=Sum("file_bytes", default=0),
    )
    return {
        "sessions": Session.objects.count(),
        "recordings_verified": verified,
        "carried_bytes": sums["carried"],
        "recording_bytes": sums["kept"],
    }


if __name__ == "__main__":
    write_private_json(Path(sys.argv[1]), evidence(now=dt.datetime.now(dt.UTC)))
