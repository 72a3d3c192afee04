"""Reading a host key that somebody pasted or scanned. Pure rules.

Old devices have keys that a person may not use any more, so this is wider than
`accounts.public_keys`: whether such a key may be used is the crypto profile's say.
"""

import base64
import binascii

from apps.accounts.public_keys import PublicKeyRefusedError

_KINDS = {
    "ssh-ed25519",
    "ssh-rsa",
    "ssh-dss",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
}
_LONGEST_LINE = 8192


def parse_host_key(text: str) -> tuple[str, str, bytes]:
    """Return (algorithm, line without comment, wire-format bytes) of one host key.

    A leading host field, as in `ssh-keyscan` output or known_hosts, is dropped.
    Raises: PublicKeyRefusedError with a sentence that says what to do.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) != 1 or len(lines[0]) > _LONGEST_LINE:
        raise PublicKeyRefusedError(
            "Paste exactly one key, such as one line of `ssh-keyscan` for this asset."
        )
    parts = lines[0].split()
    if len(parts) >= 3 and parts[0] not in _KINDS and parts[1] in _KINDS:
        parts = parts[1:]
    if len(parts) < 2 or parts[0] not in _KINDS:
        raise PublicKeyRefusedError(
            "A host key begins with its kind, such as ssh-ed25519 or ssh-rsa."
        )
    try:
        blob = base64.b64decode(parts[1], validate=True)
    except (binascii.Error, ValueError):
        raise PublicKeyRefusedError(
            "The key is damaged: copy the line again."
        ) from None
    name = parts[0].encode()
    if blob[:4] != len(name).to_bytes(4, "big") or blob[4 : 4 + len(name)] != name:
        raise PublicKeyRefusedError(
            "The key's kind and its content differ: copy the line again."
        )
    return parts[0], f"{parts[0]} {parts[1]}", blob
