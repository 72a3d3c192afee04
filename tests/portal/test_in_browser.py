"""Pages in Chromium: accessible in both themes, on a phone, and without scripts."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, WebSocketRoute
from pytest_django.live_server_helper import LiveServer

from apps.accounts.models import User
from tests.portal.browser import Eye, browser, in_a_thread
from tests.portal.doors import PASSWORD, add_person, code_now, enrol

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(240),
]

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI damaged"


@pytest.fixture
def boss() -> User:
    person = add_person("boss", "administrator")
    enrol(person)
    return person


def type_password(page: Page, address: str, handle: str) -> None:
    page.goto(f"{address}/sign-in/")
    page.fill("#id_username", handle)
    page.fill("#id_password", PASSWORD)
    page.click("text=Go on")


def test_pages_of_signing_in_and_enrolling(
    live_server: LiveServer, chromium_path: str
) -> None:
    person = add_person("engineer", "engineer")
    code: Callable[[], str] = lambda: code_now(person)  # noqa: E731

    def walk() -> list[str]:
        with browser(chromium_path) as chromium:
            page = chromium.new_page()
            eye = Eye(page)
            page.goto(live_server.url)
            eye.look("sign-in")
            page.fill("#id_username", "engineer")
            page.fill("#id_password", "wrong")
            page.click("text=Go on")
            eye.look("sign-in refused")
            page.fill("#id_password", PASSWORD)
            page.click("text=Go on")
            page.click("text=No camera?")
            eye.look("enrol")
            page.fill("#id_code", page_code(code))
            page.click("text=Finish")
            eye.look("recovery codes")
            page.click("text=I have kept them")
            page.goto(f"{live_server.url}/nothing/here/")
            eye.look("not found")
            return eye.problems

    assert in_a_thread(walk) == []


def page_code(code: Callable[[], str]) -> str:
    """Ask the app for its code outside the browser's thread."""
    return str(in_a_thread(code))


def test_pages_of_the_account_and_of_people(
    live_server: LiveServer, chromium_path: str, boss: User
) -> None:
    other = add_person("engineer", "engineer")

    def walk() -> list[str]:
        with browser(chromium_path) as chromium:
            page = chromium.new_page()
            eye = Eye(page)
            type_password(page, live_server.url, "boss")
            eye.look("one-time code")
            page.fill("#id_code", page_code(lambda: code_now(boss)))
            page.click("main >> text=Sign in")
            page.goto(f"{live_server.url}/account/")
            eye.look("account")
            page.fill("#id_text", KEY)
            page.click("text=Add key")
            eye.look("account, key refused")
            page.goto(f"{live_server.url}/account/password/")
            eye.look("password")
            page.goto(f"{live_server.url}/account/recovery-codes/")
            eye.look("new recovery codes")
            page.goto(f"{live_server.url}/people/")
            eye.look("people")
            page.goto(f"{live_server.url}/people/?q=nobody")
            eye.look("people, none")
            page.goto(f"{live_server.url}/people/add/")
            page.click("main button.primary")
            eye.look("add a person, refused")
            page.goto(f"{live_server.url}/people/{other.pk}/")
            page.click("text=Disable…")
            eye.look("a person")
            page.click("text=Disable now")
            eye.look("a disabled person")
            return eye.problems

    assert in_a_thread(walk) == []


def test_everything_works_without_scripts(
    live_server: LiveServer, chromium_path: str, boss: User
) -> None:
    def walk() -> None:
        with browser(chromium_path) as chromium:
            context = chromium.new_context(
                java_script_enabled=False, viewport={"width": 360, "height": 800}
            )
            page = context.new_page()
            type_password(page, live_server.url, "boss")
            page.fill("#id_code", page_code(lambda: code_now(boss)))
            page.click("main >> text=Sign in")
            page.goto(f"{live_server.url}/account/")
            assert not page.locator("nav").is_visible()
            assert not page.locator("[data-theme-toggle]").is_visible()
            page.click("summary >> text=Menu")
            page.click("nav >> text=People")
            page.locator("main >> text=boss").first.click()
            assert page.locator("h1").inner_text() == "Boss Jansen"
            page.click("summary >> text=Menu")
            page.click("text=Sign out")
            assert page.url == f"{live_server.url}/sign-in/"

    in_a_thread(walk)


def test_the_keyboard_alone_signs_in(
    live_server: LiveServer, chromium_path: str, boss: User
) -> None:
    def walk() -> None:
        with browser(chromium_path) as chromium:
            page = chromium.new_page()
            page.goto(f"{live_server.url}/sign-in/?next=/account/")
            page.keyboard.type("boss")
            page.keyboard.press("Tab")
            page.keyboard.type(PASSWORD)
            page.keyboard.press("Enter")
            page.wait_for_url("**/sign-in/code/")
            page.keyboard.type(page_code(lambda: code_now(boss)))
            page.keyboard.press("Enter")
            page.wait_for_url("**/account/")
            page.keyboard.press("Tab")
            focus = page.evaluate("document.activeElement.textContent")
            assert focus == "Skip to the content"
            page.keyboard.press("Enter")
            assert page.evaluate("document.activeElement.id") == "main"

    in_a_thread(walk)


def test_the_theme_is_chosen_and_remembered(
    live_server: LiveServer, chromium_path: str
) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    light, dark = "rgb(233, 234, 236)", "rgb(27, 29, 32)"

    def walk() -> None:
        with browser(chromium_path) as chromium:
            page = chromium.new_page()
            page.emulate_media(color_scheme="light")
            page.goto(f"{live_server.url}/sign-in/")
            assert page.evaluate(background) == light
            page.click("text=Dark")
            assert page.evaluate(background) == dark
            page.reload()
            assert page.evaluate(background) == dark
            assert page.locator("[aria-pressed=true]").inner_text() == "Dark"
            page.emulate_media(media="print")
            assert page.evaluate(background) == light
            page.emulate_media(media="screen")
            page.click("text=Auto")
            assert page.evaluate(background) == light
            page.emulate_media(color_scheme="dark")
            assert page.evaluate(background) == dark
            page.click("text=Light")
            assert page.evaluate(background) == light

    in_a_thread(walk)


_CLOCK = """(seconds) => {
  const clock = document.createElement("div");
  const now = Date.now() + 3_600_000;  // the browser's clock is an hour behind
  clock.dataset.now = new Date(now).toISOString();
  clock.dataset.endsAt = new Date(now + seconds * 1000).toISOString();
  clock.dataset.label = "Access to hmi-pump-01";
  clock.innerHTML = '<time></time><progress max="1000" value="0"></progress>' +
    '<span data-soon hidden>Ends soon</span>';
  document.querySelector("main").append(clock);
  window.said = [];
  window.deadlines = 0;
  new MutationObserver(() => {
    const text = document.getElementById("announce").textContent;
    if (text) window.said.push(text);
  }).observe(document.getElementById("announce"), { childList: true });
  document.addEventListener("sluice:deadline", () => { window.deadlines += 1; });
  return import("/static/js/countdown.js").then(() => {});
}"""


def test_the_countdown_speaks_at_15_5_and_1_minutes_only(
    live_server: LiveServer, chromium_path: str
) -> None:
    def walk() -> None:
        with browser(chromium_path) as chromium:
            page = chromium.new_page()
            page.clock.install()
            page.goto(f"{live_server.url}/sign-in/")
            page.evaluate(_CLOCK, 16 * 60)
            face, soon = page.locator("main time"), page.locator("[data-soon]")
            assert face.inner_text() == "16:00"
            for minutes in (10, 4, 1):
                page.clock.run_for(minutes * 60_000)
            page.clock.run_for(300)  # it looks four times a second
            assert page.locator("main progress").evaluate("bar => bar.value") == 60
            assert face.inner_text() == "01:00"
            assert face.get_attribute("datetime") == "PT1M0S"
            assert soon.is_visible()
            page.clock.run_for(70_000)
            assert face.inner_text() == "00:00"
            assert not soon.is_visible()
            assert page.evaluate("window.deadlines") == 1
            assert page.evaluate("window.said") == [
                "Access to hmi-pump-01 ends in 15 minutes.",
                "Access to hmi-pump-01 ends in 5 minutes.",
                "Access to hmi-pump-01 ends in 1 minute.",
                "Access to hmi-pump-01 has ended.",
            ]

    in_a_thread(walk)


_WATCHED = """() => {
  window.fetched = { access: 0, sessions: 0 };
  for (const topic of Object.keys(window.fetched)) {
    const part = document.createElement("section");
    part.dataset.changes = topic;
    part.innerHTML = `<input id="in-${topic}" aria-label="${topic}">`;
    part.addEventListener("sluice:changed", () => { window.fetched[topic] += 1; });
    document.querySelector("main").append(part);
  }
  return import("/static/js/changes.js").then(() => {});
}"""


def test_what_changed_is_fetched_again_and_nothing_else(
    live_server: LiveServer, chromium_path: str
) -> None:
    sockets: list[WebSocketRoute] = []

    def walk() -> None:
        with browser(chromium_path) as chromium:
            page = chromium.new_page()
            page.route_web_socket(
                "**/ws/changes/", lambda socket: sockets.append(socket)
            )
            page.goto(f"{live_server.url}/sign-in/")
            page.evaluate(_WATCHED)
            page.wait_for_function("() => window.fetched !== undefined")
            while not sockets:
                page.wait_for_timeout(10)
            sockets[0].send('{"changed": ["access.grant.revoked"]}')
            page.wait_for_function("() => window.fetched.access === 1")
            sockets[0].send("not json")
            sockets[0].send('{"changed": ["accessory.grant"]}')
            page.focus("#in-access")
            sockets[0].send('{"changed": ["access.request.denied", "sessions"]}')
            page.wait_for_function("() => window.fetched.sessions === 1")
            # Somebody is typing there: not under their hands.
            assert page.evaluate("window.fetched.access") == 1
            page.locator("#in-access").blur()
            page.wait_for_function("() => window.fetched.access === 2")

    in_a_thread(walk)


def test_without_a_socket_pages_are_polled_slower_and_slower(
    live_server: LiveServer, chromium_path: str
) -> None:
    """The test server speaks no WebSocket, as behind a proxy that blocks them."""

    def walk() -> None:
        with browser(chromium_path) as chromium:
            page = chromium.new_page()
            page.clock.install()
            page.goto(f"{live_server.url}/sign-in/")
            with page.expect_event("websocket") as opened:
                page.evaluate(_WATCHED)
            while not opened.value.is_closed():
                page.wait_for_timeout(10)
            page.clock.run_for(5_100)
            assert page.evaluate("window.fetched.access") == 1
            page.clock.run_for(7_600)
            assert page.evaluate("window.fetched.access") == 2
            page.clock.run_for(60_000)
            assert 3 <= page.evaluate("window.fetched.access") <= 6

    in_a_thread(walk)
