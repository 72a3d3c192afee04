"""The sign-in notice: set by administrators, shown to strangers."""

import pytest
from django.test import Client

from apps.accounts import notices
from apps.accounts.models import SignInNotice
from apps.audit.kinds import Kind
from apps.audit.models import AuditEvent
from tests.portal.doors import SignedIn, add_person, sign_in

pytestmark = pytest.mark.django_db


@pytest.fixture
def boss() -> SignedIn:
    return sign_in(add_person("boss", "administrator"))


def test_what_an_administrator_writes_strangers_read(boss: SignedIn) -> None:
    body = {"banner": "Waterworks <b>North</b>\nNobody else.", "greets": "on"}
    assert boss.client.post("/sign-in-notice/", body).status_code == 302
    page = Client().get("/sign-in/").content.decode()
    assert "Waterworks &lt;b&gt;North&lt;/b&gt;<br>Nobody else." in page
    notice = notices.current_notice()
    assert notice is not None
    assert (notice.greets, notice.consent_required) == (True, False)
    assert notice.made_by == boss.person
    assert AuditEvent.objects.filter(kind=Kind.NOTICE_CHANGED).count() == 1
    assert "Nobody else." in boss.client.get("/sign-in-notice/").content.decode()


def test_an_empty_form_takes_the_notice_away(boss: SignedIn) -> None:
    boss.client.post("/sign-in-notice/", {"banner": "For a while."})
    assert boss.client.post("/sign-in-notice/", {"banner": ""}).status_code == 302
    assert "For a while." not in Client().get("/sign-in/").content.decode()


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"banner": "clear\x1b[2J"}, "cannot be printed"),
        ({"consent": "", "consent_required": "on"}, "write one"),
    ],
)
def test_what_cannot_be_told_is_refused(
    boss: SignedIn, body: dict[str, str], sentence: str
) -> None:
    answer = boss.client.post("/sign-in-notice/", body)
    assert answer.status_code == 422
    assert sentence in answer.content.decode()
    assert not SignInNotice.objects.exists()
