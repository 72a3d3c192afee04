"""The sign-in notice: set by administrators, shown to strangers."""

import pytest
from django.test import Client

from apps.access.denials import DenialCode, Denied
from apps.accounts import notices
from apps.accounts.models import SignInNotice
from apps.audit.kinds import Kind
from apps.audit.models import AuditEvent
from apps.sessions import tickets
from tests import factories
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


def tell(boss: SignedIn, consent: str = "All you do is recorded.") -> None:
    body = {"consent": consent, "consent_required": "on"}
    assert boss.client.post("/sign-in-notice/", body).status_code == 302


def test_a_terminal_in_the_browser_needs_consent_once_for_each_text(
    boss: SignedIn,
) -> None:
    here = factories.plant()
    grant = factories.grant(here)
    engineer = sign_in(here.engineer)
    page, ask = (f"/grants/{grant.pk}/terminal/{tail}" for tail in ("", "consent/"))
    assert engineer.client.get(page).status_code == 200
    tell(boss)
    assert engineer.client.get(page).headers["Location"] == ask
    told = engineer.client.get(ask).content.decode()
    assert "All you do is recorded." in told
    first = notices.current_notice()
    assert first is not None
    tell(boss, "Another text.")
    stale = engineer.client.post(ask, {"notice": str(first.pk)})
    assert stale.status_code == 422
    assert "Another text." in stale.content.decode()
    assert engineer.client.post(ask, {"notice": "x"}).status_code == 422
    assert engineer.client.get(page).status_code == 302
    assert not AuditEvent.objects.filter(kind=Kind.CONSENT_GIVEN).exists()
    second = notices.current_notice()
    assert second is not None
    agreed = engineer.client.post(ask, {"notice": str(second.pk)})
    assert agreed.headers["Location"] == page
    assert engineer.client.get(page).status_code == 200
    event = AuditEvent.objects.get(kind=Kind.CONSENT_GIVEN)
    assert event.object_id == str(second.pk)


def test_without_consent_there_is_no_ticket(boss: SignedIn) -> None:
    here = factories.plant()
    grant = factories.grant(here)
    tell(boss)

    def ticket(agreed_to: str) -> str | Denied:
        return tickets.issue_terminal_ticket(
            user=here.engineer,
            grant_id=grant.pk,
            agreed_to=agreed_to,
            source_address="192.0.2.7",
            now=factories.clock(),
        )

    notice = notices.current_notice()
    assert notice is not None
    assert ticket("") == Denied(DenialCode.CONSENT_MISSING)
    assert ticket(str(here.engineer.pk)) == Denied(DenialCode.CONSENT_MISSING)
    assert isinstance(ticket(str(notice.pk)), str)


def test_a_site_may_have_a_banner_of_its_own(boss: SignedIn) -> None:
    here = factories.plant()
    page = f"/sites/{here.site.pk}/banner/"
    assert boss.client.post(page, {"banner": "North.\r\nAsk first."}).status_code == 302
    here.site.refresh_from_db()
    assert here.site.banner == "North.\nAsk first."
    assert "Ask first." in boss.client.get(page).content.decode()
    assert "Banner of its own" in boss.client.get("/zones/").content.decode()
    refused = boss.client.post(page, {"banner": "clear\x1b[2J"})
    assert refused.status_code == 422
    assert "cannot be printed" in refused.content.decode()
    (event,) = AuditEvent.objects.filter(kind=Kind.SITE_CHANGED)
    assert "Ask first." in event.data
    # What strangers read at the portal is what all are told.
    assert "Ask first." not in Client().get("/sign-in/").content.decode()
