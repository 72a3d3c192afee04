"""The portal as it is without the demo's switches: over TLS only, cookies included.

Also the whole way of a first administrator, from the command to a signed-in browser.
"""

import datetime as dt
import ipaddress
import os
import re
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from jumpserver.demo.html_forms import read_page
from jumpserver.demo.one_time_codes import CodeBook, step_now
from tests.jumpserver.commands import manage, start
from tests.servers.process import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

PASSWORD = "correct horse battery staple"


def certificate(folder: Path) -> tuple[Path, Path]:
    """Make a self-signed certificate for 127.0.0.1; return it and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            ),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain, private = folder / "portal.pem", folder / "portal.key"
    chain.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    private.chmod(0o600)
    return chain, private


@dataclass(frozen=True, slots=True)
class Portal:
    """A portal over TLS, and what trusts it."""

    url: str
    trust: ssl.SSLContext
    log: Path

    def browser(self) -> httpx2.Client:
        """Return a browser that trusts the portal's certificate and no other."""
        return httpx2.Client(
            base_url=self.url, verify=self.trust, timeout=20, trust_env=False
        )


@pytest.fixture(scope="module")
def portal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Portal]:
    folder = tmp_path_factory.mktemp("tls")
    data, log, ready = folder / "data", folder / "log", folder / "ready"
    chain, private = certificate(folder)
    assert manage("migrate", "--verbosity", "0", data=data).returncode == 0
    told = manage(
        *("create_admin", "anna", "--full-name", "Anna Berg", "--password-stdin"),
        data=data,
        given=f"{PASSWORD}\n",
    )
    assert told.returncode == 0, told.stderr
    port = free_port()
    url = f"https://127.0.0.1:{port}"
    process = start(
        *("run", "--ready-file", str(ready)),
        data=data,
        log=log,
        SLUICE_PORTAL_PORT=str(port),
        SLUICE_SSH_PORT="0",
        SLUICE_PORTAL_URL=url,
        SLUICE_PORTAL_TLS_CERTIFICATE=str(chain),
        SLUICE_PORTAL_TLS_KEY=str(private),
    )
    try:
        deadline = time.monotonic() + 60
        while not ready.exists():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield Portal(url, ssl.create_default_context(cafile=str(chain)), log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert PASSWORD not in log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_r31_cookies_never_travel_in_the_clear(portal: Portal) -> None:
    """R31: Secure, HttpOnly, SameSite; and browsers are told to stay with TLS."""
    with portal.browser() as browser:
        answer = browser.get("/sign-in/")
        assert answer.status_code == 200
        cookies = answer.headers.get_list("set-cookie")
        assert cookies
        for cookie in cookies:
            parts = {part.strip().lower() for part in cookie.split(";")[1:]}
            assert {"secure", "httponly", "samesite=lax"} <= parts, cookie
        assert "max-age=31536000" in answer.headers["strict-transport-security"]


def test_the_first_administrator_enrols_and_is_in(portal: Portal) -> None:
    with portal.browser() as browser:
        post = {"Origin": portal.url, "Referer": f"{portal.url}/sign-in/"}
        form = read_page(browser.get("/sign-in/").text).form_to("")
        fields = {**form.fields, "username": "anna", "password": PASSWORD}
        first = browser.post("/sign-in/", data=fields, headers=post)
        assert first.headers["location"] == "/sign-in/code/"
        assert browser.get("/sign-in/code/").headers["location"] == "/sign-in/enrol/"
        page = browser.get("/sign-in/enrol/").text
        found = re.search(r"\b((?:[A-Z2-7]{4} )+[A-Z2-7]{1,4})\b", read_page(page).text)
        assert found is not None
        letters = found[1].replace(" ", "")
        letters += "=" * (-len(letters) % 8)
        codes = CodeBook.from_letters(letters, last_step=step_now() - 1)
        fields = {**read_page(page).form_to("").fields, "code": codes.next_code()}
        done = browser.post("/sign-in/enrol/", data=fields, headers=post)
        assert done.status_code == 200
        assert "recovery codes" in done.text.lower()
        assert browser.get("/people/").status_code == 200
        cookie = f"sluice_session={browser.cookies['sluice_session']}"
    address = portal.url.replace("https", "wss") + "/ws/changes/"
    given = {"ssl": portal.trust, "proxy": None, "open_timeout": 20}
    with connect(
        address,
        origin=Origin(portal.url),
        additional_headers={"Cookie": cookie},
        **given,  # type: ignore[arg-type]
    ) as socket_:
        assert socket_.ping()
    for origin, sent in ((portal.url, ""), ("https://evil.example", cookie)):
        with (
            pytest.raises(InvalidStatus) as refused,
            connect(
                address,
                origin=Origin(origin),
                additional_headers={"Cookie": sent},
                **given,  # type: ignore[arg-type]
            ),
        ):
            pass
        assert refused.value.response.status_code == 403


def test_plain_http_gets_nothing(portal: Portal) -> None:
    port = int(portal.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        plain.sendall(b"GET /sign-in/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        try:
            told = plain.recv(4096)
        except ConnectionResetError:
            told = b""
    assert b"200" not in told
    assert b"sluice" not in told.lower()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 400),
        ({"X-Forwarded-Host": "evil.example"}, 200),
        ({"X-Forwarded-For": "203.0.113.9"}, 200),
        ({"X-Forwarded-Proto": "http"}, 200),
        ({"Remote-User": "anna", "X-Remote-User": "anna"}, 200),
    ],
)
def test_r13_headers_that_lie(
    portal: Portal, headers: dict[str, str], status: int
) -> None:
    """R13: no proxy is trusted here, so nothing of it is believed or repeated."""
    with portal.browser() as browser:
        answer = browser.get("/sign-in/", headers=headers)
        assert answer.status_code == status
        assert "evil.example" not in answer.text
        assert "Traceback" not in answer.text
        start_page = browser.get("/", headers={**headers, "Host": "127.0.0.1"})
        assert start_page.headers["location"].startswith("/sign-in/")


@pytest.mark.parametrize(
    "path",
    [
        "/static/../manage.py",
        "/static/%2e%2e/manage.py",
        "/static/..%2fmanage.py",
        "/static/xterm/../../../package.json",
        "/static//etc/passwd",
        "/static/.../manage.py",
    ],
)
def test_r5_static_files_stay_in_their_folders(portal: Portal, path: str) -> None:
    """R5: a raw request, because clients tidy such paths up."""
    host, port = "127.0.0.1", int(portal.url.rpartition(":")[2])
    with (
        socket.create_connection((host, port), timeout=10) as plain,
        portal.trust.wrap_socket(plain, server_hostname=host) as secure,
    ):
        secure.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
        )
        told = b""
        while piece := secure.recv(65536):
            told += piece
    status = told.split(b" ", 2)[1]
    assert status in (b"302", b"400", b"404"), told[:200]
    for secret in (b"DJANGO_SETTINGS_MODULE", b"root:", b"dependencies"):
        assert secret not in told


def test_more_than_a_form_is_refused(portal: Portal) -> None:
    """A body of many megabytes is refused with a page, and the portal goes on."""
    with portal.browser() as browser:
        answer = browser.post("/sign-in/", content=os.urandom(3 << 20))
        assert answer.status_code in (400, 403, 413)
        assert "Traceback" not in answer.text
        assert browser.get("/sign-in/").status_code == 200
