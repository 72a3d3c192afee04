"""User certificates, as cryptography makes them and as OpenSSH reads them."""

import datetime as dt
import shutil
import subprocess
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    SSHCertificate,
    load_ssh_public_identity,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.vault import ssh_keys
from apps.vault.certificates import (
    CLOCK_ALLOWANCE,
    TooLateForCertificateError,
    UserCertificate,
    generate_authority,
    issue_certificate,
)

NOW = dt.datetime(2026, 11, 23, 21, 30, 15, 250_000, tzinfo=dt.UTC)
FAR = NOW.replace(year=2090)
AUTHORITY, AUTHORITY_LINE = generate_authority()


def _issue(**changes: Any) -> UserCertificate:
    arguments: dict[str, Any] = {
        "authority": AUTHORITY,
        "principal": "historian",
        "key_id": "sluice lease 0190",
        "serial": 7,
        "now": NOW,
        "deadline": NOW + dt.timedelta(hours=1),
        "login_seconds": 30,
    }
    return issue_certificate(**{**arguments, **changes})


def _loaded(certificate: UserCertificate) -> SSHCertificate:
    loaded = load_ssh_public_identity(certificate.line.encode())
    assert isinstance(loaded, SSHCertificate)
    loaded.verify_cert_signature()
    return loaded


def test_ports_are_forwarded_only_where_a_permit_has_forwards():
    """The target refuses forwards by itself when the grant names none."""
    assert dict(_loaded(_issue(forwards=True)).extensions) == {
        b"permit-port-forwarding": b"",
        b"permit-pty": b"",
    }
    assert dict(_loaded(_issue()).extensions) == {b"permit-pty": b""}


@settings(max_examples=30, deadline=None)
@given(
    principal=st.from_regex(r"\A[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\Z"),
    serial=st.integers(1, 2**64 - 1),
    now=st.datetimes(NOW.replace(tzinfo=None), max_value=FAR.replace(tzinfo=None)),
    deadline_after=st.timedeltas(dt.timedelta(seconds=1), dt.timedelta(days=1)),
    login_seconds=st.integers(5, 600),
)
def test_what_is_in_it(principal, serial, now, deadline_after, login_seconds):
    now = now.replace(tzinfo=dt.UTC)
    deadline = now + deadline_after
    certificate = _issue(
        principal=principal,
        serial=serial,
        now=now,
        deadline=deadline,
        login_seconds=login_seconds,
    )
    loaded = _loaded(certificate)
    assert loaded.serial == certificate.serial == serial
    assert list(loaded.valid_principals) == [principal.encode()]
    assert loaded.valid_before == int(certificate.valid_before.timestamp())
    assert now < certificate.valid_before <= deadline
    assert certificate.valid_before <= now + dt.timedelta(seconds=login_seconds)
    assert now.timestamp() - 301 < loaded.valid_after <= now.timestamp() - 300
    assert dict(loaded.extensions) == {b"permit-pty": b""}
    assert dict(loaded.critical_options) == {}
    key = ssh_keys.load_private_key(certificate.private_key)
    assert ssh_keys.public_line(key) == certificate.public_line
    assert loaded.public_key() == key.public_key()


def test_a_slow_clock_on_the_target_is_allowed_for():
    assert _loaded(_issue()).valid_after == int((NOW - CLOCK_ALLOWANCE).timestamp())


@pytest.mark.parametrize("left", [-3600, 0, 0.5, 0.74])
def test_too_late_is_refused_rather_than_stretched_past_the_deadline(left):
    with pytest.raises(TooLateForCertificateError):
        _issue(deadline=NOW + dt.timedelta(seconds=left))


@pytest.mark.parametrize("principal", ["", "a,b", "a\nb", "a\0b"])
def test_a_principal_is_one_name(principal):
    with pytest.raises(ValueError, match="principal"):
        _issue(principal=principal)


@pytest.mark.parametrize("serial", [0, -1, 2**64])
def test_a_serial_is_positive_and_fits(serial):
    with pytest.raises(ValueError, match="serial"):
        _issue(serial=serial)


def test_each_certificate_has_a_key_of_its_own():
    assert _issue().public_line != _issue().public_line


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
def test_openssh_reads_the_same(tmp_path):
    path = tmp_path / "lease-cert.pub"
    path.write_text(_issue().line + "\n")
    shown = subprocess.run(
        ["ssh-keygen", "-L", "-f", str(path)],
        capture_output=True,
        check=True,
        text=True,
        env={"TZ": "UTC", "PATH": "/usr/bin:/bin"},
    ).stdout
    lines = [line.strip() for line in shown.splitlines()]
    assert "Type: ssh-ed25519-cert-v01@openssh.com user certificate" in lines
    assert f"Signing CA: ED25519 {ssh_keys.fingerprint(AUTHORITY_LINE)}" in shown
    assert 'Key ID: "sluice lease 0190"' in lines
    assert "Serial: 7" in lines
    assert "Valid: from 2026-11-23T21:25:15 to 2026-11-23T21:30:45" in lines
    assert lines[lines.index("Principals:") + 1] == "historian"
    assert "Critical Options: (none)" in lines
    assert lines[lines.index("Extensions:") + 1 :] == ["permit-pty"]
