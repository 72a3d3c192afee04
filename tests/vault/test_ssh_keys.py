"""Keys in OpenSSH's formats, checked against ssh-keygen."""

import shutil
import subprocess

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from apps.vault import ssh_keys
from apps.vault.secret_values import Secret


@pytest.mark.parametrize(
    ("signatures", "kind"),
    [
        (("rsa-sha2-512", "ssh-ed25519"), "ssh-ed25519"),
        (("ssh-rsa", "ecdsa-sha2-nistp256"), "ecdsa-sha2-nistp256"),
        (("ssh-rsa",), "ssh-rsa"),
        (("rsa-sha2-256",), "ssh-rsa"),
    ],
)
def test_the_best_kind_the_target_takes_is_made(signatures, kind):
    key = ssh_keys.generate_key(signatures)
    assert ssh_keys.public_line(key).split()[0] == kind
    again = ssh_keys.load_private_key(ssh_keys.private_text(key))
    assert ssh_keys.public_line(again) == ssh_keys.public_line(key)


def test_no_kind_is_made_up():
    with pytest.raises(ValueError, match="no signature algorithm"):
        ssh_keys.generate_key(("ssh-dss",))


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_ssh_keygen_agrees_about_line_and_fingerprint(tmp_path, kind):
    path = tmp_path / "key"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "", "-f", str(path)],
        check=True,
    )
    key = ssh_keys.load_private_key(Secret(path.read_text()))
    line = ssh_keys.public_line(key)
    assert line == " ".join(path.with_suffix(".pub").read_text().split()[:2])
    shown = subprocess.run(
        ["ssh-keygen", "-l", "-f", str(path)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert ssh_keys.fingerprint(line) == shown.split()[1]


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
def test_a_passphrase_is_refused_with_what_to_do(tmp_path):
    path = tmp_path / "key"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "open sesame", "-f", str(path)],
        check=True,
    )
    with pytest.raises(ssh_keys.PrivateKeyRefusedError, match=r"passphrase.*keygen -p"):
        ssh_keys.load_private_key(Secret(path.read_text()))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no key",
        "ssh-ed25519 AAAA",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    ],
)
def test_what_is_no_key_is_refused_without_repeating_it(text):
    with pytest.raises(ssh_keys.PrivateKeyRefusedError) as refused:
        ssh_keys.load_private_key(Secret(text))
    assert not text or text not in str(refused.value)
    assert refused.value.__cause__ is None


def test_pem_and_windows_line_ends_are_read():
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    line = ssh_keys.public_line(key)
    assert ssh_keys.public_line(ssh_keys.load_private_key(Secret(pem))) == line
    openssh = ssh_keys.private_text(key).reveal().replace("\n", "\r\n")
    assert ssh_keys.public_line(ssh_keys.load_private_key(Secret(openssh))) == line
