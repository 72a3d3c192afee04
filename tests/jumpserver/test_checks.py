"""`check --deploy` holds our own promises, too."""

import base64
import re
import secrets
from pathlib import Path

import pytest
from django.core.checks import CheckMessage, Error

from jumpserver import checks
from tests.jumpserver.commands import manage

GOOD_KEY = base64.b64encode(bytes(range(32))).decode()


def identifiers(found: list[CheckMessage]) -> set[str | None]:
    return {message.id for message in found}


@pytest.fixture
def safe(settings, tmp_path: Path):
    """Settings that nothing is wrong with."""
    tmp_path.chmod(0o700)
    settings.SLUICE_DATA_DIR = tmp_path
    settings.RECORDINGS_DIR = tmp_path / "recordings"
    settings.ALLOW_LOCAL_TARGETS = settings.ALLOW_HTTP = False
    settings.PORTAL_TLS_CERTIFICATE, settings.TRUSTED_PROXIES = "", 1
    settings.PORTAL_URL = "https://gate.north.example"
    settings.SLUICE_VAULT_KEY = GOOD_KEY
    return settings


def test_safe_settings_pass(safe):
    assert checks.demo_switches_are_off(None) == []
    assert checks.files_are_private(None) == []
    assert checks.vault_key_is_a_key(None) == []


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"ALLOW_LOCAL_TARGETS": True}, "sluice.E010"),
        ({"ALLOW_HTTP": True}, "sluice.E011"),
        ({"TRUSTED_PROXIES": 0}, "sluice.E012"),
        ({"PORTAL_URL": ""}, "sluice.W013"),
    ],
)
def test_each_demo_switch_is_named(safe, changes, found):
    """R26: what lets a demo reach this machine itself does not go live unseen."""
    for name, value in changes.items():
        setattr(safe, name, value)
    (message,) = checks.demo_switches_are_off(None)
    assert message.id == found
    assert message.hint


@pytest.mark.parametrize(
    "key",
    [
        "",
        "not base64!",
        base64.b64encode(bytes(31)).decode(),
        base64.b64encode(bytes(33)).decode(),
        GOOD_KEY + "\n!",
    ],
)
def test_a_vault_key_is_32_bytes(safe, key):
    safe.SLUICE_VAULT_KEY = key
    (message,) = checks.vault_key_is_a_key(None)
    assert message.id == "sluice.E002"
    assert isinstance(message, Error)
    if key:
        assert key not in message.msg


@pytest.mark.parametrize("name", ["", "recordings", "secrets/vault-key"])
@pytest.mark.parametrize("mode", [0o740, 0o704, 0o720])
def test_what_others_can_read_is_named(safe, tmp_path: Path, name, mode):
    (tmp_path / "recordings").mkdir(mode=0o700)
    (tmp_path / "secrets").mkdir(mode=0o700)
    (tmp_path / "secrets" / "vault-key").touch(mode=0o600)
    path = tmp_path / name
    path.chmod(mode)
    (message,) = checks.files_are_private(None)
    assert message.id == "sluice.E021"
    assert str(path) in message.msg
    assert f"chmod go-rwx {path}" == message.hint


def test_missing_packages_of_the_browser_are_named(safe, tmp_path: Path):
    safe.STATICFILES_DIRS = [("xterm", tmp_path / "not-there")]
    (message,) = checks.front_end_packages(None)
    assert message.id == "sluice.E001"
    assert "make setup" in (message.hint or "")


def test_the_command_rejects_the_demos_settings(tmp_path: Path):
    """As an administrator calls it, with everything that is wrong in one answer."""
    data = tmp_path / "data"
    told = manage(
        *("check", "--deploy", "--fail-level", "ERROR"),
        data=data,
        SLUICE_ALLOW_HTTP="yes",
        SLUICE_ALLOW_LOCAL_TARGETS="yes",
    )
    assert told.returncode == 1
    for name in ("sluice.E010", "sluice.E011"):
        assert name in told.stderr


def test_the_command_accepts_a_production(tmp_path: Path):
    """Django itself warns of nothing but other hosts of the same domain."""
    told = manage(
        *("check", "--deploy", "--fail-level", "ERROR"),
        data=tmp_path / "data",
        SLUICE_SECRET_KEY=secrets.token_urlsafe(48),
        SLUICE_VAULT_KEY=GOOD_KEY,
        SLUICE_TRUSTED_PROXIES="1",
        SLUICE_PORTAL_URL="https://gate.north.example",
    )
    assert told.returncode == 0, told.stderr
    warned = set(re.findall(r"\((\w+\.[WE]\d+)\)", told.stderr))
    assert warned <= {"security.W005", "security.W021"}


@pytest.mark.parametrize(
    ("settings_", "said"),
    [
        ({"SLUICE_ALLOW_HTTP": "perhaps"}, "SLUICE_ALLOW_HTTP"),
        ({"SLUICE_SSH_PORT": "ssh"}, "SLUICE_SSH_PORT"),
        ({"SLUICE_LOG_LEVEL": "LOUD"}, "SLUICE_LOG_LEVEL"),
        ({"DATABASE_URL": "mysql://u:geheim@h/d"}, "DATABASE_URL"),
        # On PostgreSQL nothing is made up: secrets are given.
        ({"DATABASE_URL": "postgresql://u@h/d"}, "SLUICE_SECRET_KEY"),
        (
            {
                "DATABASE_URL": "postgresql://u@h/d",
                "SLUICE_SECRET_KEY": "x" * 50,
            },
            "SLUICE_VAULT_KEY",
        ),
        ({"SLUICE_SECRET_KEY": " "}, "SLUICE_SECRET_KEY"),
    ],
)
def test_what_cannot_be_read_refuses_to_start(tmp_path: Path, settings_, said):
    """R9: no default secrets; an unknown value is a refusal with one line."""
    told = manage("run", data=tmp_path / "data", **settings_)
    assert told.returncode != 0
    last = told.stderr.strip().splitlines()[-1]
    assert said in last
    assert "geheim" not in told.stderr


def test_r31_cookies_travel_over_tls_only_unless_the_demo_says_so(tmp_path: Path):
    """R31: Secure, HttpOnly and SameSite, as the settings come out."""
    names = [
        f"{kind}_COOKIE_{flag}"
        for kind in ("SESSION", "CSRF")
        for flag in ("SECURE", "HTTPONLY", "SAMESITE")
    ]
    code = "from django.conf import settings as s; print([getattr(s, n) for n in %r])"
    for given, secure in (({}, True), ({"SLUICE_ALLOW_HTTP": "yes"}, False)):
        told = manage(
            *("shell", "--no-imports", "-c", code % (names,)),
            data=tmp_path / "data",
            **given,
        )
        assert told.returncode == 0, told.stderr
        flags = [secure, True, "Lax"]
        assert told.stdout.strip() == str(flags * 2)
