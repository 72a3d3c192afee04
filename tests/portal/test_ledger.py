"""The ledger: for auditors, filtered, checked, and exported with a signed head."""

from pathlib import Path

import pytest
from django.http import StreamingHttpResponse

from apps.access import operations as access
from apps.audit.kinds import Kind
from apps.audit.models import AuditEvent
from apps.recordings.verifier import load_keys, verify_ledger
from tests import factories
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


@pytest.mark.parametrize("who", ["engineer", "approver", "administrator"])
def test_the_ledger_is_for_auditors(here: factories.Plant, who: str) -> None:
    client = sign_in(getattr(here, who)).client
    for url in ["/ledger/", "/ledger/events/1/", "/verify/verifier.py"]:
        assert client.get(url).status_code == 404
    for url in ["/ledger/verify/", "/ledger/export/"]:
        assert client.post(url).status_code == 404
    assert client.get("/verify/keys.pub").status_code == 404
    assert not AuditEvent.objects.filter(kind=Kind.LEDGER_EXPORTED).exists()


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("kind=access.", True),
        ("kind=access.request.submitted", True),
        ("kind=vault.", False),
        ("text=WO-20417", True),
        ("text=WO-99999", False),
        ("outcome=denied", False),
        ("since=2020-01-01&until=2020-01-31", False),
    ],
)
def test_filters_narrow(here: factories.Plant, query: str, found: bool) -> None:
    factories.request(here)
    answer = sign_in(here.auditor).client.get(f"/ledger/?{query}")
    assert ("Access was asked for." in answer.content.decode()) is found


def test_an_unknown_kind_is_explained(here: factories.Plant) -> None:
    shown = sign_in(here.auditor).client.get("/ledger/?kind=nonsense")
    assert "not one of the available choices" in shown.content.decode()


def test_long_lists_have_pages(here: factories.Plant) -> None:
    for _ in range(30):
        asked = factories.request(here)
        access.withdraw_request(
            request_id=asked.pk, by=here.engineer, now=factories.clock()
        )
    client = sign_in(here.auditor).client
    first = client.get("/ledger/").content.decode()
    assert "Page 1 of" in first
    second = client.get("/ledger/?kind=access.&page=2").content.decode()
    assert "kind=access.&amp;page=1" in second


def test_one_event_shows_what_was_hashed(here: factories.Plant) -> None:
    client = sign_in(here.auditor).client
    shown = client.get("/ledger/events/1/").content.decode()
    event = AuditEvent.objects.get(pk=1)
    assert bytes(event.hash).hex() in shown
    assert event.kind in shown
    assert client.get("/ledger/events/999999/").status_code == 404


def test_verifying_tells_the_verdict(here: factories.Plant) -> None:
    client = sign_in(here.auditor).client
    assert client.get("/ledger/verify/").status_code == 405
    shown = client.post("/ledger/verify/").content.decode()
    assert f"All {AuditEvent.objects.count()} events checked" in shown


def test_an_export_verifies_with_the_stand_alone_verifier(
    here: factories.Plant, tmp_path: Path
) -> None:
    client = sign_in(here.auditor).client
    assert client.get("/ledger/export/").status_code == 405
    answer = client.post("/ledger/export/")
    assert isinstance(answer, StreamingHttpResponse)
    file, keys = tmp_path / "ledger.jsonl", tmp_path / "keys.pub"
    file.write_bytes(b"".join(answer))
    keys.write_bytes(client.get("/verify/keys.pub").content)
    report = verify_ledger(str(file), load_keys([str(keys)]))
    assert report.ok, report
    exported = AuditEvent.objects.get(kind=Kind.LEDGER_EXPORTED)
    assert report.facts["last_seq"] == exported.seq
    assert exported.actor_label == here.auditor.username
    text = file.read_bytes().replace(b"Europe/Amsterdam", b"Europe/Rotterdam")
    file.write_bytes(text.replace(b'"outcome":"success"', b'"outcome":"failure"', 1))
    assert not verify_ledger(str(file), load_keys([str(keys)])).ok
