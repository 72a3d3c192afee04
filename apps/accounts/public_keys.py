"""Reading an SSH public key that somebody pasted. Pure rules.

Formats and names: RFC 4253 section 6.6, RFC 8709 (Ed25519), PROTOCOL.u2f of OpenSSH
for the hardware-backed kinds.
"""

import base64
import binascii
import hashlib
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

_MINIMUM_RSA_BITS = 3072
_LONGEST_LINE = 8192
_PLAIN = {
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
}
_HARDWARE = {
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
}


@dataclass(frozen=True, slots=True)
class PublicKeyLine:
    """A public key: its algorithm, its line without comment, its fingerprint."""

    algorithm: str
    line: str
    fingerprint: str
    comment: str


class PublicKeyRefusedError(ValueError):
    """The text is not a public key that Sluice accepts; the message says what to do."""


def fingerprint_of(blob: bytes) -> str:
    """Return `SHA256:...` of a key in SSH wire format, as `ssh-keygen -l` prints it."""
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    return f"SHA256:{digest}"


def parse_public_key(text: str) -> PublicKeyLine:
    """Return the key in `text`, one line in OpenSSH's format.

    Raises: PublicKeyRefusedError with a sentence that says what to do instead.
    """
    if "PRIVATE KEY" in text:
        raise PublicKeyRefusedError(
            "This is a private key. Throw it away, make a new pair, and paste only the "
            "line of the file that ends in .pub."
        )
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) != 1 or len(lines[0]) > _LONGEST_LINE:
        raise PublicKeyRefusedError(
            "Paste exactly one line: the content of a .pub file, such as "
            "~/.ssh/id_ed25519.pub."
        )
    parts = lines[0].split(None, 2)
    if len(parts) < 2 or parts[0] not in _PLAIN | _HARDWARE:
        raise PublicKeyRefusedError(
            "A public key begins with its kind, such as ssh-ed25519. Make one with "
            "`ssh-keygen -t ed25519` and paste the .pub file."
        )
    algorithm, encoded = parts[0], parts[1]
    try:
        blob = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise PublicKeyRefusedError(
            "The key is damaged: copy the whole line of the .pub file again."
        ) from None
    if algorithm in _PLAIN:
        _check_plain(algorithm, encoded)
    else:
        _check_hardware(algorithm, blob)
    return PublicKeyLine(
        algorithm=algorithm,
        line=f"{algorithm} {encoded}",
        fingerprint=fingerprint_of(blob),
        comment=parts[2][:80] if len(parts) > 2 else "",
    )


def _check_plain(algorithm: str, encoded: str) -> None:
    try:
        key = load_ssh_public_key(f"{algorithm} {encoded}".encode())
    except (ValueError, UnsupportedAlgorithm):
        raise PublicKeyRefusedError(
            "The key is damaged: copy the whole line of the .pub file again."
        ) from None
    if isinstance(key, RSAPublicKey) and key.key_size < _MINIMUM_RSA_BITS:
        raise PublicKeyRefusedError(
            f"An RSA key needs {_MINIMUM_RSA_BITS} bits or more and this one has "
            f"{key.key_size}. Better: `ssh-keygen -t ed25519`."
        )


def _check_hardware(algorithm: str, blob: bytes) -> None:
    """Check the outer shape; the signature check at log-in does the rest."""
    name = algorithm.encode()
    if blob[:4] != len(name).to_bytes(4, "big") or blob[4 : 4 + len(name)] != name:
        raise PublicKeyRefusedError(
            "The key is damaged: copy the whole line of the .pub file again."
        )
