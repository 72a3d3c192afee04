"""Where a target is, and connecting to it: pinned keys and addresses come first."""

import ipaddress
import socket
import time
from dataclasses import dataclass

from django.conf import settings

from apps.inventory.addresses import refusal
from apps.inventory.crypto_profiles import PROFILES, CryptoProfile
from apps.inventory.models import TargetAccount
from apps.inventory.queries import pinned_host_keys
from apps.inventory.sign_ins import SignIn
from apps.vault.models import Finding

_RSA_HOST_ALGORITHMS = ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to log in as whom; `host_keys` are pinned OpenSSH lines.

    `typed_name` is typed where the device asks by its own prompts, else empty.
    """

    name: str
    address: str
    port: int
    login: str
    host_keys: tuple[str, ...]
    profile: CryptoProfile
    typed_name: str = ""


class NotReachedError(Exception):
    """The target was not reached at all, for a reason found before any log-in."""

    def __init__(self, finding: Finding, message: str) -> None:
        super().__init__(message)
        self.finding = finding


def target_of(account: TargetAccount) -> Target:
    """Return where `account` is now: address, pinned host keys, crypto profile."""
    asset = account.asset
    return Target(
        name=asset.name,
        address=asset.address,
        port=asset.port,
        login=account.login,
        host_keys=pinned_host_keys(asset.pk),
        profile=PROFILES[asset.crypto_profile],
        typed_name="" if account.sign_in == SignIn.SSH else account.name,
    )


def dial(target: Target, seconds: float) -> socket.socket:
    """Return a connection to the first of the target's addresses that answers.

    The addresses that were checked are the ones connected to, so that a name cannot
    point elsewhere a moment later.
    Raises: NotReachedError, OSError.
    """
    ends = time.monotonic() + seconds
    error: OSError | None = None
    for address in _addresses(target):
        left = ends - time.monotonic()
        if left <= 0:
            break
        try:
            return socket.create_connection((address, target.port), left)
        except OSError as failure:
            error = failure
    raise error or TimeoutError


def _addresses(target: Target) -> list[str]:
    """Return the IP addresses of the target, all of which may be connected to.

    Raises: NotReachedError, also for a name with any address that no target may have
    (R26).
    """
    try:
        found = socket.getaddrinfo(target.address, target.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise NotReachedError(
            Finding.NOT_TRIED, f"its name is unknown: {error.strerror}"
        ) from None
    addresses = [str(entry[4][0]) for entry in found]
    if not settings.ALLOW_LOCAL_TARGETS:
        for address in addresses:
            reason = refusal(ipaddress.ip_address(address.partition("%")[0]))
            if reason:
                raise NotReachedError(
                    Finding.NOT_TRIED, f"{address} cannot be a target: {reason}"
                )
    return addresses


def host_key_algorithms(target: Target) -> list[str]:
    """Return the profile's host key algorithms that a pinned key can answer (R38).

    Raises: NotReachedError, also for an asset without a pinned key (R39).
    """
    if not target.host_keys:
        raise NotReachedError(Finding.NOT_TRIED, "the asset has no pinned host key")
    kinds = {line.split()[0] for line in target.host_keys}
    wanted = kinds | (set(_RSA_HOST_ALGORITHMS) if "ssh-rsa" in kinds else set())
    algorithms = [name for name in target.profile.host_keys if name in wanted]
    if not algorithms:
        raise NotReachedError(
            Finding.NOT_TRIED, "no pinned host key is of a kind its profile allows"
        )
    return algorithms
