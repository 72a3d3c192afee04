"""One person at the portal: a browser without scripts, and its WebSockets.

Only what the portal shows is used: pages are fetched, their own forms are filled in and
sent with the token in them, and the cookie is kept.
"""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx2
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from jumpserver.demo.html_forms import HtmlPage, read_page
from jumpserver.demo.one_time_codes import CodeBook
from jumpserver.demo.people_file import PersonCard

SECONDS = 30.0
_CODE_TRIES = 3
_COOKIE = "sluice_session"


class PortalError(AssertionError):
    """The portal did not answer as it must; the message says to what and how."""


@dataclass(frozen=True, slots=True)
class PortalAnswer:
    """A page as it came: status, the path it was found at, and what it holds."""

    status: int
    path: str
    html: str
    page: HtmlPage

    @property
    def text(self) -> str:
        """Return the words of the page, blanks joined."""
        return self.page.text


class PortalClient:
    """A person's browser."""

    def __init__(self, url: str, card: PersonCard, codes: CodeBook) -> None:
        self.card = card
        self.received = bytearray()
        self._url = url
        self._codes = codes
        self._http = httpx2.Client(
            base_url=url, follow_redirects=True, timeout=SECONDS, trust_env=False
        )

    def close(self) -> None:
        """Forget cookies and connections."""
        self._http.close()

    def sign_in(self) -> PortalAnswer:
        """Sign in with password and one-time code; return the page arrived at.

        A code that somebody has used already is followed by the next one.
        Raises: PortalError.
        """
        answer = self.fill_in(
            "/sign-in/",
            {"username": self.card.username, "password": self.card.password},
        )
        for refused in range(_CODE_TRIES):
            if answer.path != "/sign-in/code/":
                break
            if refused:
                # A refused code holds the next one up: one second, then twice as long.
                time.sleep(1.1 * 2 ** (refused - 1))
            answer = self.fill_in("/sign-in/code/", {"code": self._codes.next_code()})
        if answer.status != 200 or answer.path.startswith("/sign-in"):
            raise PortalError(
                f"{self.card.username} cannot sign in: {answer.status} at {answer.path}"
            )
        return answer

    def get(self, path: str) -> PortalAnswer:
        """Fetch a page; any status is an answer."""
        return self._answer(self._http.get(path))

    def download(self, path: str) -> bytes:
        """Fetch a file. Raises: PortalError on any status but 200."""
        return self._content(self._http.get(path), path)

    def download_by_form(self, page_path: str, action: str) -> bytes:
        """Press a button that answers with a file. Raises: PortalError."""
        form = self.get(page_path).page.form_to(action)
        answer = self._http.post(action, data=form.fields, headers=self._origin(action))
        return self._content(answer, action)

    def fill_in(
        self,
        page_path: str,
        filled: Mapping[str, str | list[str]],
        *,
        action: str = "",
    ) -> PortalAnswer:
        """Fill in the form of a page that goes to `action` and send it.

        A value that is a label of a select stands for its option.
        Raises: PortalError when the page or the form is not there.
        """
        answer = self.get(page_path)
        if answer.status != 200:
            raise PortalError(f"{page_path} answered {answer.status}")
        return self.send(answer, filled, action=action)

    def send(
        self,
        answer: PortalAnswer,
        filled: Mapping[str, str | list[str]],
        *,
        action: str = "",
        instead_to: str = "",
    ) -> PortalAnswer:
        """Send a form of a page that was fetched before, filled in like this.

        `instead_to` is for somebody who forges an address the page does not offer.
        """
        try:
            form = answer.page.form_to(action)
        except LookupError as error:
            raise PortalError(f"{answer.path}: {error}") from error
        fields: dict[str, list[str]] = dict(form.fields)
        for name, value in filled.items():
            values = [value] if isinstance(value, str) else value
            labels = form.choices.get(name, {})
            fields[name] = [labels.get(each, each) for each in values]
        target = instead_to or action or answer.path
        return self._answer(
            self._http.post(target, data=fields, headers=self._origin(answer.path))
        )

    @contextmanager
    def websocket(self, path: str) -> Iterator[ClientConnection]:
        """Open a WebSocket as the page's script does: same origin, same cookie."""
        connection = self.open_websocket(path)
        try:
            yield connection
        finally:
            connection.close()

    def open_websocket(self, path: str) -> ClientConnection:
        """Open a WebSocket and leave it open. Raises: websockets' exceptions."""
        host = urlsplit(self._url).netloc
        return connect(
            f"ws://{host}{path}",
            origin=Origin(self._url),
            additional_headers={"Cookie": f"{_COOKIE}={self._cookie()}"},
            open_timeout=SECONDS,
            max_size=None,
            proxy=None,
            # The caller closes it, in another thread than the one that reads.
            legacy=True,
        )

    def _cookie(self) -> str:
        cookie = self._http.cookies.get(_COOKIE)
        if cookie is None:
            raise PortalError(f"{self.card.username} is not signed in")
        return cookie

    def _origin(self, path: str) -> dict[str, str]:
        return {"Origin": self._url, "Referer": f"{self._url}{path}"}

    def _content(self, answer: httpx2.Response, path: str) -> bytes:
        if answer.status_code != 200:
            raise PortalError(f"{path} answered {answer.status_code}")
        return bytes(answer.content)

    def _answer(self, answer: httpx2.Response) -> PortalAnswer:
        self.received += answer.content
        html = answer.text
        return PortalAnswer(
            answer.status_code, str(answer.url.path), html, read_page(html)
        )


def control_message(message: str | bytes) -> dict[str, Any]:
    """Return a text message of a terminal or watch WebSocket; {} for a binary one."""
    if isinstance(message, bytes):
        return {}
    told = json.loads(message)
    return told if isinstance(told, dict) else {}
