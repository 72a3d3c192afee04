"""Pasted public keys: real ones are read, everything else gets a sentence."""

import contextlib
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.accounts.public_keys import PublicKeyRefusedError, parse_public_key
from tests.factories import ed25519_line


@pytest.mark.parametrize(
    ("kind", "bits"), [("ed25519", ""), ("rsa", "3072"), ("ecdsa", "256")]
)
def test_keys_of_ssh_keygen_are_read(kind, bits, tmp_path):
    path = tmp_path / "key"
    size = ["-b", bits] if bits else []
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, *size, "-N", "", "-C", "me", "-f", str(path)],
        check=True,
    )
    shown = subprocess.run(
        ["ssh-keygen", "-lf", f"{path}.pub"], check=True, capture_output=True, text=True
    ).stdout
    parsed = parse_public_key((tmp_path / "key.pub").read_text())
    assert parsed.fingerprint == shown.split()[1]
    assert parsed.comment == "me"


def test_a_short_rsa_key_is_refused_with_advice(tmp_path):
    path = tmp_path / "key"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", str(path)],
        check=True,
    )
    with pytest.raises(PublicKeyRefusedError, match=r"3072.*ed25519"):
        parse_public_key((tmp_path / "key.pub").read_text())


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("", "exactly one line"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA", "private key"),
        ("hello world", "begins with its kind"),
        ("ssh-ed25519 !!!!", "damaged"),
        ("ssh-ed25519 AAAA", "damaged"),
        ("ssh-dss AAAAB3NzaC1kc3M=", "begins with its kind"),
        ('command="x" ssh-ed25519 AAAA', "begins with its kind"),
        (f"{ed25519_line()}\n{ed25519_line()}", "exactly one line"),
        ("ssh-ed25519 " + "A" * 9000, "exactly one line"),
    ],
)
def test_what_is_no_public_key_gets_a_sentence(text, advice):
    with pytest.raises(PublicKeyRefusedError, match=advice):
        parse_public_key(text)


@given(st.text(max_size=300))
def test_no_text_crashes_the_reader(text):
    with contextlib.suppress(PublicKeyRefusedError):
        assert parse_public_key(text).fingerprint.startswith("SHA256:")
