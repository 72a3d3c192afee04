#!/usr/bin/env python3
"""Take the screenshots of the documentation from a running demo.

    manage.py demo --serve --data DIR --portal-port 0 --ssh-port 0 --ready-file F
    python scripts/screenshots.py F

Walks request, approval, work, and replay in Chromium as four people and writes
docs/images/NAME-light.png, and NAME-dark.png where both themes are worth showing. The
demo has to be a fresh one: its one-time codes are taken to be unused.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from playwright.sync_api import Browser, Page, sync_playwright  # noqa: E402

from jumpserver.demo.one_time_codes import CodeBook, step_now  # noqa: E402

IMAGES = ROOT / "docs" / "images"
LARGEST_BYTES = 200_000
WIDTH, HEIGHT = 1280, 860
WAIT_MS = 60_000


@dataclass(slots=True)
class Studio:
    """A browser, and the demo it looks at."""

    browser: Browser
    demo: dict[str, Any]

    @contextmanager
    def person(self, username: str) -> Iterator[Page]:
        """Yield a page on which `username` has signed in."""
        (card,) = (p for p in self.demo["people"] if p["username"] == username)
        codes = CodeBook.from_letters(card["totp_secret"], last_step=step_now() - 1)
        context = self.browser.new_context(
            base_url=self.demo["portal_url"],
            viewport={"width": WIDTH, "height": HEIGHT},
            color_scheme="light",
        )
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.goto("/sign-in/")
        page.get_by_label("Handle").fill(username)
        page.get_by_label("Password").fill(card["password"])
        page.get_by_role("button", name="Go on").click()
        page.get_by_label("One-time code").fill(codes.next_code())
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("heading", name="My access").wait_for()
        yield page
        context.close()


def take(page: Page, name: str, *, dark: bool = False) -> None:
    """Write the whole `page`, and the same in the dark theme. Raises: SystemExit."""
    for theme in ("light", "dark") if dark else ("light",):
        page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
        path = IMAGES / f"{name}-{theme}.png"
        page.screenshot(path=path, full_page=True)
        if path.stat().st_size > LARGEST_BYTES:
            sys.exit(f"{path} is larger than {LARGEST_BYTES} bytes")
        print(path.relative_to(ROOT), path.stat().st_size)
    page.emulate_media(color_scheme="light")


def ask(page: Page, target: str, *, minutes: int, reason: str, order: str) -> None:
    """Ask for `target` ("asset / account") and come back to My access."""
    page.goto("/requests/new/")
    page.get_by_label("Asset and account").select_option(label=target)
    page.get_by_label("For how many minutes").fill(str(minutes))
    for service in page.get_by_role("checkbox").all():
        if service.is_enabled():
            service.check()
    page.get_by_label("Why").fill(reason)
    page.get_by_label("Work order").fill(order)
    page.get_by_role("button", name="Ask").click()
    page.get_by_text("Waiting for").first.wait_for()
    page.goto("/")


def work_in_the_hmi(page: Page) -> None:
    """Open the terminal of the first active grant and look round the pump station."""
    page.get_by_role("link", name="Open terminal").first.click()
    page.locator(".badge.live[data-terminal-state]").wait_for()
    screen = page.locator(".xterm-screen")
    screen.wait_for()
    page.get_by_text("P-101").first.wait_for(state="attached")
    screen.click()
    for key in ("ArrowDown", "ArrowDown", "ArrowUp"):
        page.keyboard.press(key)
        page.wait_for_timeout(700)
    page.wait_for_timeout(4_000)


def tell_the_story(studio: Studio) -> None:
    """Walk the main job once, taking pictures on the way."""
    with studio.person("engineer") as engineer, studio.person("approver") as approver:
        ask(
            engineer,
            "hmi-pump-01 / operator",
            minutes=45,
            reason="Bearing of P-102 runs hot: compare trends, adjust the set point",
            order="WO-20417",
        )
        approver.goto("/approvals/")
        approver.get_by_role("link", name="Decide").click()
        approver.get_by_label("For how many minutes").fill("30")
        take(approver, "approval", dark=True)
        approver.get_by_role("button", name="Approve").click()
        approver.get_by_role("heading", name="Approvals").wait_for()
        ask(
            engineer,
            "scada-01 / historian",
            minutes=60,
            reason="Export last week's flow for the bearing report",
            order="WO-20417",
        )
        engineer.get_by_role("link", name="Open terminal").wait_for()
        take(engineer, "my-access", dark=True)
        work_in_the_hmi(engineer)
        take(engineer, "session")
        engineer.get_by_role("button", name="Disconnect").click()
        engineer.get_by_text("Ended", exact=True).wait_for()
    with studio.person("auditor") as auditor:
        auditor.goto("/sessions/")
        auditor.get_by_role("link", name="S-").first.click()
        # The page follows by itself until the recording was read back.
        auditor.get_by_text("Verified").first.wait_for()
        auditor.get_by_role("link", name="Replay").first.click()
        auditor.get_by_role("button", name="Play", exact=True).click()
        auditor.get_by_text("00:04").first.wait_for()
        auditor.get_by_role("button", name="Pause").click()
        take(auditor, "replay")


def main() -> None:
    """Parse the command line and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ready_file", type=Path, help="of `manage.py demo --serve`")
    chosen = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("there is no Chromium on this machine")
    IMAGES.mkdir(parents=True, exist_ok=True)
    demo = json.loads(chosen.ready_file.read_text("utf-8"))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        tell_the_story(Studio(browser, demo))
        browser.close()


if __name__ == "__main__":
    main()
