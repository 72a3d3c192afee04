"""Recordings: for auditors of the site, written down, and what is sent."""

import json
import uuid
from pathlib import Path

import pytest
from django.http import StreamingHttpResponse
from django.test import Client

from apps.audit.kinds import Kind
from apps.audit.models import AuditEvent
from apps.recordings.models import Recording, Viewing
from apps.recordings.operations import path_of
from apps.recordings.verifier import load_keys, verify_recording
from tests import factories
from tests.portal import plant_work
from tests.portal.doors import sign_in

pytestmark = [
    pytest.mark.django_db(transaction=True),
    # The test client is synchronous; the product serves streams to an async server.
    pytest.mark.filterwarnings(
        "ignore:StreamingHttpResponse must consume asynchronous iterators"
    ),
]


@pytest.fixture
def here() -> factories.Plant:
    return factories.plant()


@pytest.fixture
def recording(here: factories.Plant) -> Recording:
    session = plant_work.live_session(factories.grant(here), plant_work.gateway())
    made = plant_work.sealed_recording(session)
    plant_work.end(session)
    return made


def fetched(client: Client, url: str) -> bytes:
    answer = client.get(url)
    assert answer.status_code == 200
    assert isinstance(answer, StreamingHttpResponse)
    return b"".join(answer)


def test_the_page_tells_the_facts_and_opens_nothing_yet(
    here: factories.Plant, recording: Recording
) -> None:
    client = sign_in(here.auditor).client
    answer = client.get(f"/recordings/{recording.pk}/?t=2")
    shown = answer.content.decode()
    assert recording.root_hash in shown
    assert "the seal's signature is genuine" in shown.replace("&#x27;", "'")
    assert 'data-start="2"' in shown
    assert "'wasm-unsafe-eval'" in answer.headers["Content-Security-Policy"]
    assert not Viewing.objects.exists()


def test_replay_is_sent_without_what_was_typed_and_written_down(
    here: factories.Plant, recording: Recording
) -> None:
    client = sign_in(here.auditor).client
    text = fetched(client, f"/recordings/{recording.pk}/cast/").decode()
    lines = [json.loads(line) for line in text.splitlines()]
    assert lines[0]["version"] == 2
    assert [2.0, "r", "120x36"] in lines
    assert "TANK A 74.2 %" in text
    assert "typed-secret" not in text
    viewing = Viewing.objects.get()
    assert (viewing.viewer, viewing.how) == (here.auditor, "replay")
    assert AuditEvent.objects.filter(kind=Kind.RECORDING_VIEWED).count() == 1


def test_one_channel_can_be_chosen(here: factories.Plant, recording: Recording) -> None:
    client = sign_in(here.auditor).client
    text = fetched(client, f"/recordings/{recording.pk}/cast/?channel=2").decode()
    assert "Linux" in text
    assert "TANK A" not in text


def test_a_download_is_a_file_and_says_so_in_the_ledger(
    here: factories.Plant, recording: Recording
) -> None:
    client = sign_in(here.auditor).client
    answer = client.get(f"/recordings/{recording.pk}/cast/?download=1")
    name = f'filename="{recording.session.short_id}.cast"'
    assert name in answer.headers["Content-Disposition"]
    assert Viewing.objects.get().how == "download"
    assert AuditEvent.objects.filter(kind=Kind.RECORDING_EXPORTED).count() == 1


def test_the_sealed_file_verifies_with_what_the_portal_gives_out(
    here: factories.Plant, recording: Recording, tmp_path: Path
) -> None:
    client = sign_in(here.auditor).client
    file, keys = tmp_path / "s.slrec", tmp_path / "keys.pub"
    file.write_bytes(fetched(client, f"/recordings/{recording.pk}/download/"))
    keys.write_bytes(client.get("/verify/keys.pub").content)
    report = verify_recording(str(file), load_keys([str(keys)]))
    assert report.ok, report
    altered = bytearray(file.read_bytes())
    altered[len(altered) // 2] ^= 1
    file.write_bytes(altered)
    assert not verify_recording(str(file), load_keys([str(keys)])).ok


def test_the_verifier_is_the_very_file_that_runs_here(here: factories.Plant) -> None:
    answer = sign_in(here.auditor).client.get("/verify/verifier.py")
    source = Path("apps/recordings/verifier.py").read_bytes()
    assert answer.content == source


@pytest.mark.parametrize(
    "who", ["engineer", "approver", "administrator", "second_engineer"]
)
@pytest.mark.parametrize("what", ["", "cast/", "download/", "cast/?download=1"])
def test_nobody_but_auditors_opens_a_recording(
    here: factories.Plant, recording: Recording, who: str, what: str
) -> None:
    """R1: not by being administrator, approver or its engineer; refusals are kept."""
    client = sign_in(getattr(here, who)).client
    forbidden = client.get(f"/recordings/{recording.pk}/{what}")
    unknown = client.get(f"/recordings/{uuid.uuid4()}/{what}")
    assert forbidden.status_code == unknown.status_code == 404
    assert forbidden.content == unknown.content
    assert not Viewing.objects.exists()
    refused = AuditEvent.objects.get(kind=Kind.RECORDING_REFUSED)
    assert refused.actor_label == getattr(here, who).username


def test_an_auditor_of_another_site_is_refused(
    here: factories.Plant, recording: Recording
) -> None:
    client = sign_in(factories.plant().auditor).client
    for what in ["", "cast/", "download/"]:
        assert client.get(f"/recordings/{recording.pk}/{what}").status_code == 404
    assert AuditEvent.objects.filter(kind=Kind.RECORDING_REFUSED).count() == 3


def test_recordings_are_not_opened_by_post(
    here: factories.Plant, recording: Recording
) -> None:
    client = sign_in(here.auditor).client
    for what in ["", "cast/", "download/"]:
        assert client.post(f"/recordings/{recording.pk}/{what}").status_code == 405


def test_recorded_bytes_never_reach_html(here: factories.Plant) -> None:
    """R14: what a host printed is data for the player, not part of a page."""
    session = plant_work.live_session(factories.grant(here), plant_work.gateway())
    evil = b"<script>alert(1)</script>"
    recording = plant_work.sealed_recording(session, text=evil)
    client = sign_in(here.auditor).client
    page = client.get(f"/recordings/{recording.pk}/").content
    assert b"alert(1)" not in page
    answer = client.get(f"/recordings/{recording.pk}/cast/")
    assert answer.headers["Content-Type"] == "application/x-asciicast"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_file_that_is_gone_is_no_server_error(
    here: factories.Plant, recording: Recording
) -> None:
    path = path_of(recording)
    path.unlink()
    client = sign_in(here.auditor).client
    assert client.get(f"/recordings/{recording.pk}/cast/").status_code == 404
    assert client.get(f"/recordings/{recording.pk}/download/").status_code == 404
