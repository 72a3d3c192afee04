"""Making and reading SSH keys in OpenSSH's formats. Pure.

Private keys: OpenSSH's PROTOCOL.key, unencrypted, as text; the vault seals them.
Public keys: one line without comment (RFC 4253 section 6.6, RFC 8709).
"""

import base64
import hashlib
from collections.abc import Collection

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
)
from cryptography.hazmat.primitives.asymmetric.ec import (
    generate_private_key as generate_ec_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import (
    generate_private_key as generate_rsa_key,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
)

from apps.vault.secret_values import Secret

_RSA_BITS = 3072

PrivateKey = Ed25519PrivateKey | EllipticCurvePrivateKey | RSAPrivateKey


class PrivateKeyRefusedError(ValueError):
    """The text is no private key that can be used; the message says what to do."""


def generate_key(signatures: Collection[str] = ("ssh-ed25519",)) -> PrivateKey:
    """Return a new key of the best kind among `signatures` (names as on the wire).

    Raises: ValueError when there is none that a key can be made for.
    """
    if "ssh-ed25519" in signatures:
        return Ed25519PrivateKey.generate()
    if "ecdsa-sha2-nistp256" in signatures:
        return generate_ec_key(SECP256R1())
    if {"rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"} & set(signatures):
        return generate_rsa_key(public_exponent=65537, key_size=_RSA_BITS)
    raise ValueError("no signature algorithm that a key can be made for")


def private_text(key: PrivateKey) -> Secret:
    """Return `key` in OpenSSH's PEM form, unencrypted."""
    return Secret(
        key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode(
            "ascii"
        )
    )


def load_private_key(text: Secret) -> PrivateKey:
    """Return the Ed25519, ECDSA or RSA key in `text` (OpenSSH or PEM, unencrypted).

    Raises: PrivateKeyRefusedError with a sentence that says what to do.
    """
    content = text.reveal().strip().encode() + b"\n"
    load = (
        load_ssh_private_key
        if b"BEGIN OPENSSH PRIVATE KEY" in content
        else load_pem_private_key
    )
    try:
        key = load(content, password=None)
    except TypeError:
        raise PrivateKeyRefusedError(
            "The key has a passphrase: remove it with `ssh-keygen -p` first; the vault "
            "seals the key itself."
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise PrivateKeyRefusedError(
            "This is not a private key in OpenSSH's format: paste the whole file, from "
            "its BEGIN line to its END line."
        ) from None
    if not isinstance(key, Ed25519PrivateKey | EllipticCurvePrivateKey | RSAPrivateKey):
        raise PrivateKeyRefusedError(
            "Only Ed25519, ECDSA and RSA keys can be used: make one with "
            "`ssh-keygen -t ed25519`."
        )
    return key


def public_line(key: PrivateKey) -> str:
    """Return the public half of `key` as one line without comment."""
    return (
        key.public_key()
        .public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        .decode("ascii")
    )


def fingerprint(line: str) -> str:
    """Return `SHA256:...` of a public key line, as `ssh-keygen -l` prints it."""
    digest = hashlib.sha256(base64.b64decode(line.split()[1], validate=True)).digest()
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"
