"""Every page of the main job in Chromium: accessible, in both themes, on a phone."""

import uuid
from collections.abc import Callable

import pytest
from django.conf import settings as django_settings
from playwright.sync_api import Browser, Page
from pytest_django.live_server_helper import LiveServer

from apps.accounts.models import User
from apps.sessions.models import Session
from tests import factories
from tests.portal import plant_work
from tests.portal.browser import Eye, browser, in_a_thread
from tests.portal.doors import sign_in

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(240),
    # This server is synchronous; the product serves streams to an async one.
    pytest.mark.filterwarnings(
        "ignore:StreamingHttpResponse must consume asynchronous iterators"
    ),
]


@pytest.fixture
def here() -> factories.Plant:
    return factories.plant()


@pytest.fixture
def work(here: factories.Plant) -> dict[str, uuid.UUID]:
    """A live and an ended session, a recording, and requests of two people."""
    node, grant = plant_work.gateway(), factories.grant(here)
    ended = plant_work.live_session(grant, node)
    recording = plant_work.sealed_recording(ended)
    held = plant_work.held_upload(ended)
    plant_work.end(ended)
    live = plant_work.live_session(grant, node)
    plant_work.watch(live, plant_work.receiver(here))
    asked = factories.request(here, requester=here.second_engineer)
    return {
        "grant": grant.pk,
        "ended": ended.pk,
        "recording": recording.pk,
        "live": live.pk,
        "asked": asked.pk,
        "held": held.pk,
        "own": grant.request_id,
        "asset": here.asset.pk,
        "account": here.account.pk,
        "zone": here.cell.pk,
        "conduit": here.conduit.pk,
    }


PAGES = {
    "engineer": [
        "/",
        "/requests/new/",
        "/requests/{own}/",
        "/grants/{grant}/terminal/",
        "/assets/{asset}/",
        "/gateway/",
        "/account/api-tokens/",
    ],
    "approver": [
        "/approvals/",
        "/approvals/{asked}/",
        "/held/",
        "/held/{held}/",
        "/sessions/",
        "/sessions/{live}/",
        "/sessions/{live}/watch/",
    ],
    "auditor": [
        "/",
        "/sessions/{ended}/",
        "/recordings/{recording}/",
        "/ledger/?kind=access.",
        "/ledger/?text=nothing-like-this",
        "/ledger/events/3/",
    ],
    "administrator": [
        "/assets/",
        "/assets/add/",
        "/assets/{asset}/",
        "/accounts-on-assets/{account}/credential/",
        "/zones/",
        "/zones/{zone}/change/",
        "/conduits/{conduit}/change/",
        "/conduits/add/",
    ],
}


def cookie_of(person: User) -> str:
    """Return the cookie of a browser this person is signed in with."""
    cookies = sign_in(person).client.cookies
    return str(cookies[django_settings.SESSION_COOKIE_NAME].value)


def page_of(chromium: Browser, address: str, cookie: str, **how: bool) -> Page:
    """Return a page in a browser that has this cookie."""
    context = chromium.new_context(**how)  # type: ignore[arg-type]
    name = django_settings.SESSION_COOKIE_NAME
    context.add_cookies([{"name": name, "value": cookie, "url": address}])
    return context.new_page()


@pytest.mark.parametrize("who", sorted(PAGES))
def test_pages_are_accessible_on_every_screen(
    live_server: LiveServer,
    chromium_path: str,
    here: factories.Plant,
    work: dict[str, uuid.UUID],
    who: str,
) -> None:
    """WCAG 2.2 AA by axe, in both themes, at 1400 and 360 pixels."""
    cookie = cookie_of(getattr(here, who))

    def walk() -> list[str]:
        with browser(chromium_path) as chromium:
            page = page_of(chromium, live_server.url, cookie)
            eye = Eye(page)
            for template in PAGES[who]:
                path = template.format(**work)
                answer = page.goto(live_server.url + path)
                if answer is None or answer.status != 200:
                    eye.problems.append(f"{path}: {answer}")
                eye.look(path)
            return eye.problems

    assert in_a_thread(walk) == []


def test_asking_and_deciding_need_no_scripts(
    live_server: LiveServer, chromium_path: str, here: factories.Plant
) -> None:
    engineer, approver = cookie_of(here.engineer), cookie_of(here.approver)

    def walk() -> str:
        with browser(chromium_path) as chromium:
            page = page_of(
                chromium, live_server.url, engineer, java_script_enabled=False
            )
            page.goto(f"{live_server.url}/requests/new/")
            page.select_option("#id_target", str(here.account.pk))
            page.fill("#id_reason", "Alarm list cleanup")
            page.fill("#id_work_order", "WO-20417")
            page.click("main button[type=submit]")
            page.wait_for_selector("text=Waiting for")
            decider = page_of(
                chromium, live_server.url, approver, java_script_enabled=False
            )
            decider.goto(f"{live_server.url}/approvals/")
            decider.click("main a:has-text('Decide')")
            decider.fill("#id_minutes", "10")
            decider.click("button[value=approve]")
            decider.wait_for_selector("text=Nothing waits for you")
            page.goto(live_server.url)
            return page.locator(".copy-text").first.inner_text()

    assert in_a_thread(walk).endswith(f"{here.asset.name}@127.0.0.1")


def test_the_decision_is_made_with_the_keyboard_alone(
    live_server: LiveServer, chromium_path: str, here: factories.Plant
) -> None:
    asked, cookie = factories.request(here), cookie_of(here.approver)

    def walk() -> str:
        with browser(chromium_path) as chromium:
            page = page_of(chromium, live_server.url, cookie)
            page.goto(f"{live_server.url}/approvals/{asked.pk}/")
            page.keyboard.press("Tab")
            page.keyboard.press("Enter")
            _tab_to(page, lambda: _focused(page) == "id_comment")
            page.keyboard.type("Fine")
            _tab_to(page, lambda: _focused(page) == "approve")
            page.keyboard.press("Enter")
            page.wait_for_selector("text=Approved:")
            return page.url

    assert in_a_thread(walk).partition("#")[0] == f"{live_server.url}/approvals/"


def _focused(page: Page) -> str:
    found = page.evaluate(
        "document.activeElement.id || document.activeElement.value || ''"
    )
    return str(found)


def _tab_to(page: Page, reached: Callable[[], bool]) -> None:
    for _ in range(40):
        if reached():
            return
        page.keyboard.press("Tab")
    raise AssertionError("the keyboard does not get there")


def test_replay_plays_seeks_and_gives_out_a_link(
    live_server: LiveServer,
    chromium_path: str,
    here: factories.Plant,
    work: dict[str, uuid.UUID],
) -> None:
    cookie = cookie_of(here.auditor)
    session = Session.objects.get(pk=work["ended"])

    def walk() -> dict[str, str]:
        with browser(chromium_path) as chromium:
            page = page_of(chromium, live_server.url, cookie)
            page.goto(f"{live_server.url}/recordings/{work['recording']}/?channel=1")
            page.wait_for_selector("[data-replay-controls]:not([hidden])")
            before = page.locator("[data-replay-size]").inner_text()
            page.locator("#replay-seek").fill("2")
            # The policy of the page forbids scripts made of text, so no predicates.
            sized = page.locator("[data-replay-size]", has_text="120 \u00d7 36")
            sized.wait_for()
            # Played on from its end, it begins anew.
            link = page.locator("#replay-link").inner_text()
            page.click("[data-replay-play]")
            return {
                "before": before,
                "title": page.title(),
                "link": link,
            }

    seen = in_a_thread(walk)
    assert seen["before"] == "80 \u00d7 24"
    assert session.short_id in seen["title"]
    assert "channel=1" in seen["link"]
    assert "t=2" in seen["link"]
