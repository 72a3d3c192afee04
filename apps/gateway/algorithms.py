"""Which algorithms the engineer's side of the gateway speaks.

Explicit lists, so that neither a library's defaults nor its updates decide (R38). The
asset's side is a different question, answered per asset by its crypto profile
(`apps.inventory.crypto_profiles`).

AES-GCM only: it is both the fastest and free of the Terrapin attack (CVE-2023-48795).
OpenSSH prefers ChaCha20-Poly1305 when it is offered, so that is offered only to clients
whose version string shows that they have no AES-GCM. Strict key exchange is required of
every client (R34), so that ChaCha20-Poly1305 is safe there too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

KEX: Final = (
    "mlkem768x25519-sha256",
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
)
"""Hybrid post-quantum first; OpenSSH older than 9.9 takes curve25519."""

GCM: Final = ("aes256-gcm@openssh.com", "aes128-gcm@openssh.com")
CHACHA: Final = ("chacha20-poly1305@openssh.com",)

MACS: Final = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com")
"""Announced for form's sake: each cipher above authenticates by itself."""

SIGNATURES: Final = (
    "ssh-ed25519",
    "sk-ssh-ed25519@openssh.com",
    "ecdsa-sha2-nistp256",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
)
"""What an engineer's own key may sign with; no SHA-1."""

HOST_KEY: Final = "ssh-ed25519"

REKEY_BYTES: Final = 1 << 36
"""64 GiB per AES-GCM key: far below its limit, rare enough not to be felt."""

REKEY_SECONDS: Final = 24 * 3600

STRICT_KEX_CLIENT: Final = b"kex-strict-c-v00@openssh.com"


@dataclass(frozen=True, slots=True)
class _NoGcm:
    product: re.Pattern[bytes]
    below: tuple[int, int]


_WITHOUT_GCM: Final = (
    # PuTTY and WinSCP gained AES-GCM about 2023; one release late costs only speed,
    # as all of them have ChaCha20-Poly1305.
    _NoGcm(re.compile(rb"^SSH-2\.0-PuTTY_Release_(\d+)\.(\d+)"), (0, 81)),
    _NoGcm(re.compile(rb"^SSH-2\.0-WinSCP_release_(\d+)\.(\d+)"), (6, 3)),
    # Dropbear's default build has no AES-GCM in any version.
    _NoGcm(re.compile(rb"^SSH-2\.0-dropbear(?:_(\d+)\.(\d+))?"), (1 << 30, 0)),
    # OpenSSH gained AES-GCM in 6.2.
    _NoGcm(re.compile(rb"^SSH-2\.0-OpenSSH_(\d+)\.(\d+)"), (6, 2)),
)


def ciphers_for(client_version: bytes) -> tuple[str, ...]:
    """Return the ciphers to offer to a client, by its version string (RFC 4253 4.2).

    `client_version` is the line without CR LF. Unknown clients are offered AES-GCM.
    """
    for entry in _WITHOUT_GCM:
        match = entry.product.match(client_version)
        if match is None:
            continue
        major, minor = (int(group or 0) for group in match.groups())
        if (major, minor) < entry.below:
            return CHACHA
    return GCM
