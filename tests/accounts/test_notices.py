"""What people are told at sign-in: kept row by row, clean, and in the ledger."""

import json

import pytest
from django.db import IntegrityError, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.accounts import notices
from apps.accounts.models import SignInNotice
from apps.audit.kinds import Kind
from apps.audit.models import AuditEvent
from tests import factories
from tests.factories import clock

pytestmark = [pytest.mark.django_db, pytest.mark.both_databases]


def put(by=None, **changes):
    texts = {"banner": "", "consent": "", "consent_required": False, "greets": False}
    return notices.set_notice(
        **{**texts, **changes},
        by=by or factories.person("administrator"),
        now=clock(),
    )


def test_the_newest_counts_and_each_is_kept():
    assert notices.current_notice() is None
    first = put(banner="one\r\ntwo  ")
    second = put(banner="three", consent="I may be recorded.", consent_required=True)
    assert first.banner == "one\ntwo"
    assert notices.current_notice() == second
    assert SignInNotice.objects.count() == 2
    events = AuditEvent.objects.filter(kind=Kind.NOTICE_CHANGED).order_by("seq")
    assert [json.loads(event.data)["banner"] for event in events] == [
        "one\ntwo",
        "three",
    ]


@pytest.mark.parametrize(
    "text", ["\x1b[2J", "bell\x07", "nul\x00", "csi\x9b1m", "a\tb"]
)
@pytest.mark.parametrize("field", ["banner", "consent"])
def test_no_control_sequence_reaches_a_terminal(field, text):
    """R30: nobody's terminal is driven by what an administrator pasted."""
    with pytest.raises(notices.NoticeRefusedError, match="cannot be printed"):
        put(**{field: f"before\n{text}"})
    assert not SignInNotice.objects.exists()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(max_size=60))
def test_what_is_kept_is_printable_line_by_line(text):
    with transaction.atomic():
        try:
            kept = notices.clean_text(text, 100, "banner")
        except notices.NoticeRefusedError:
            return
    assert all(line.isprintable() for line in kept.split("\n"))


def test_too_long_a_text_is_refused():
    with pytest.raises(notices.NoticeRefusedError, match="longer than 2000"):
        put(banner="x" * 2001)


def test_nobody_has_to_agree_to_nothing():
    with pytest.raises(notices.NoticeRefusedError, match="empty text"):
        put(consent="  ", consent_required=True)
    notice = put()
    with (
        pytest.raises(IntegrityError, match="consent_that_is_required_has_a_text"),
        transaction.atomic(),
    ):
        SignInNotice.objects.filter(pk=notice.pk).update(consent_required=True)
