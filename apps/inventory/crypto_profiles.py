"""Which SSH algorithms the gateway may use towards an asset. Pure lists.

A profile is exact: nothing is negotiated down by itself. `modern` is for everything
that can; each other profile exists for devices that cannot, is chosen per asset by an
administrator and is shown wherever that asset is shown.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CryptoProfile:
    """Algorithm names as on the wire (RFC 4253 section 7.1), in order of preference.

    `patience` multiplies the time a device has for key exchange and sign-in: old
    processors take tens of seconds.
    """

    name: str
    title: str
    weak: bool
    kex: tuple[str, ...]
    ciphers: tuple[str, ...]
    macs: tuple[str, ...]
    host_keys: tuple[str, ...]
    signatures: tuple[str, ...]
    patience: float = 1.0


MODERN = CryptoProfile(
    name="modern",
    title="Modern",
    weak=False,
    kex=(
        "mlkem768x25519-sha256",
        "curve25519-sha256",
        "curve25519-sha256@libssh.org",
        "ecdh-sha2-nistp256",
        "diffie-hellman-group16-sha512",
    ),
    ciphers=(
        "aes128-gcm@openssh.com",
        "aes256-gcm@openssh.com",
        "chacha20-poly1305@openssh.com",
    ),
    macs=("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com"),
    host_keys=(
        "ssh-ed25519",
        "ecdsa-sha2-nistp256",
        "rsa-sha2-512",
        "rsa-sha2-256",
    ),
    signatures=(
        "ssh-ed25519",
        "ssh-ed25519-cert-v01@openssh.com",
        "ecdsa-sha2-nistp256",
        "rsa-sha2-512",
        "rsa-sha2-256",
    ),
)

# Devices of about 2012: sound key sizes, but SHA-1 and counter mode.
COMPAT_2012 = CryptoProfile(
    name="compat-2012",
    title="Compatible, 2012",
    weak=True,
    kex=(
        "ecdh-sha2-nistp256",
        "diffie-hellman-group14-sha256",
        "diffie-hellman-group14-sha1",
    ),
    ciphers=("aes256-ctr", "aes128-ctr"),
    macs=("hmac-sha2-256", "hmac-sha1"),
    host_keys=("ecdsa-sha2-nistp256", "rsa-sha2-256", "ssh-rsa"),
    signatures=("ecdsa-sha2-nistp256", "rsa-sha2-256", "ssh-rsa"),
    patience=2.0,
)

# Without strict key exchange neither ChaCha20 nor CBC with encrypt-then-MAC is safe
# (CVE-2023-48795), so the MAC here is the plain one.
LEGACY_SHA1 = CryptoProfile(
    name="legacy-sha1",
    title="Legacy, SHA-1 and CBC",
    weak=True,
    kex=("diffie-hellman-group14-sha1", "diffie-hellman-group1-sha1"),
    ciphers=("aes128-cbc", "3des-cbc"),
    macs=("hmac-sha1",),
    host_keys=("ssh-rsa",),
    signatures=("ssh-rsa",),
    patience=4.0,
)

# Each of the next three is what one family of devices offers, and nothing beside it.
LEGACY_GEX = CryptoProfile(
    name="legacy-gex",
    title="Legacy, group exchange with SHA-1",
    weak=True,
    kex=("diffie-hellman-group-exchange-sha1",),
    ciphers=("aes256-cbc", "aes128-cbc"),
    macs=("hmac-sha1", "hmac-sha1-96"),
    host_keys=("ssh-rsa",),
    signatures=("ssh-rsa",),
    patience=4.0,
)

LEGACY_DSS = CryptoProfile(
    name="legacy-dss",
    title="Legacy, DSS host key",
    weak=True,
    kex=("diffie-hellman-group14-sha1",),
    ciphers=("aes128-cbc", "3des-cbc"),
    macs=("hmac-sha1",),
    host_keys=("ssh-dss",),
    signatures=("ssh-rsa",),
    patience=4.0,
)

LEGACY_BROKEN = CryptoProfile(
    name="legacy-broken",
    title="Broken: group 1, 3DES, MD5",
    weak=True,
    kex=("diffie-hellman-group1-sha1",),
    ciphers=("3des-cbc",),
    macs=("hmac-md5",),
    host_keys=("ssh-rsa",),
    signatures=("ssh-rsa",),
    patience=4.0,
)

PROFILES: dict[str, CryptoProfile] = {
    profile.name: profile
    for profile in (
        MODERN,
        COMPAT_2012,
        LEGACY_SHA1,
        LEGACY_GEX,
        LEGACY_DSS,
        LEGACY_BROKEN,
    )
}
