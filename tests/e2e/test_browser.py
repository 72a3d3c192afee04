"""The main job in a real browser: ask, decide, work, watch, revoke, replay."""

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from jumpserver.demo.one_time_codes import code_at, step_now
from tests.demo.test_demo_command import ServedDemo
from tests.portal.browser import browser

pytestmark = pytest.mark.timeout(240)

PATIENCE = 30_000
"""Milliseconds a page may take on a busy machine."""


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[ServedDemo]:
    demo = ServedDemo(tmp_path / "data")
    yield demo
    demo.stop()


def signed_in(chromium: Browser, demo: ServedDemo, username: str) -> Page:
    """Return a page of this person's browser, signed in with both factors."""
    (card,) = (one for one in demo.ready["people"] if one["username"] == username)
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto(f"{demo.ready['portal_url']}/")
    page.fill("input[name=username]", card["username"])
    page.fill("input[name=password]", card["password"])
    page.click("main button[type=submit]")
    page.wait_for_url("**/sign-in/code/**")
    secret = base64.b32decode(card["totp_secret"])
    # The next half minute's: the enrolment may have used up this one's.
    page.fill("input[name=code]", code_at(secret, step_now() + 1))
    page.click("main button[type=submit]")
    expect(page.get_by_role("heading", level=1)).to_have_text("My access")
    return page


def first_link(page: Page, address: str, start: str) -> None:
    """Open the first link in the page's content that goes below `start`."""
    page.goto(address)
    page.locator(f"main a[href^='{start}']").first.click()


def test_the_main_job_in_a_browser(demo: ServedDemo, chromium_path: str) -> None:
    portal = demo.ready["portal_url"]
    with browser(chromium_path) as chromium:
        engineer = signed_in(chromium, demo, "engineer")
        engineer.goto(f"{portal}/requests/new/")
        engineer.select_option("select", label="hmi-pump-01 / operator")
        engineer.fill("[name=reason]", "Alarm list cleanup")
        engineer.fill("[name=work_order]", "WO-20417")
        engineer.click("main form button[type=submit]")
        expect(engineer.locator("main")).to_contain_text("Waiting for")

        approver = signed_in(chromium, demo, "approver")
        first_link(approver, f"{portal}/approvals/", "/approvals/")
        approver.fill("input[name=minutes]", "10")
        approver.get_by_role("button", name="Approve").click()
        approver.wait_for_url(f"{portal}/approvals/")

        engineer.goto(f"{portal}/")
        engineer.get_by_role("link", name="Open terminal").click()
        screen = engineer.locator(".xterm-rows")
        expect(screen).to_contain_text(re.compile(r"PUMP.STATION"), timeout=PATIENCE)
        engineer.keyboard.type("2")
        expect(screen).to_contain_text(
            re.compile(r"P-102.(stopped|started).by.operator"), timeout=PATIENCE
        )

        first_link(approver, f"{portal}/sessions/", "/sessions/")
        approver.get_by_role("link", name="Watch").click()
        expect(approver.locator(".xterm-rows")).to_contain_text(
            re.compile(r"PUMP.STATION"), timeout=PATIENCE
        )
        first_link(approver, f"{portal}/sessions/", "/sessions/")
        revoke = approver.locator("form").filter(
            has=approver.get_by_role("button", name=re.compile("Revoke"))
        )
        revoke.locator("[name=reason]").fill("P-102 must not be touched")
        revoke.get_by_role("button", name=re.compile("Revoke")).click()
        expect(engineer.locator("main")).to_contain_text(
            "access revoked by approver: P-102 must not be touched", timeout=PATIENCE
        )

        auditor = signed_in(chromium, demo, "auditor")
        first_link(auditor, f"{portal}/sessions/", "/sessions/")
        auditor.get_by_role("link", name=re.compile("Replay")).click()
        auditor.get_by_role("button", name="Play").click()
        expect(auditor.locator("main")).to_contain_text(
            re.compile(r"00:0[1-9] / 00:"), timeout=PATIENCE
        )
