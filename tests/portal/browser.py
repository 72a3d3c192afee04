"""A real browser on the pages: where it looks, and what it may not find."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
_RULES = {
    "runOnly": {
        "type": "tag",
        "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"],
    }
}
_WIDTHS = (1400, 360)
_THEMES = ("light", "dark")
_BEYOND_THE_EDGE = (
    "document.documentElement.scrollWidth - document.documentElement.clientWidth"
)


def in_a_thread(walk: Any) -> Any:
    """Run `walk()` in a thread of its own and return what it returns.

    Playwright's synchronous API runs an event loop in its thread, where Django refuses
    to touch the database.
    """
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(walk).result()


@contextmanager
def browser(path: str) -> Iterator[Browser]:
    """Yield the Chromium at `path`, headless and quiet."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=_FLAGS)
        try:
            yield chromium
        finally:
            chromium.close()


class Eye:
    """Looks at a page in both themes and two widths, and keeps what is wrong."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.problems: list[str] = []
        self._axe = Axe()
        page.on("pageerror", lambda error: self.problems.append(f"script: {error}"))
        page.on("console", self._hear)

    def _hear(self, message: Any) -> None:
        # A status is what the page was asked for, and Django's test server speaks no
        # WebSocket; a blocked style or script is a fault.
        expected = ("Failed to load resource", "WebSocket connection to")
        if message.type == "error" and not message.text.startswith(expected):
            self.problems.append(f"{self.page.url}: console: {message.text}")

    def look(self, name: str) -> None:
        """Check accessibility (axe, WCAG 2.2 AA) and that nothing sticks out."""
        for theme in _THEMES:
            self.page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
            for width in _WIDTHS:
                self.page.set_viewport_size({"width": width, "height": 900})
                place = f"{name}, {theme}, {width} px"
                found = self._axe.run(self.page, options=_RULES).response["violations"]
                self.problems += [
                    f"{place}: {violation['id']}: {violation['nodes'][0]['html'][:200]}"
                    for violation in found
                ]
                if self.page.evaluate(_BEYOND_THE_EDGE) > 0:
                    self.problems.append(f"{place}: the page is wider than the window")
