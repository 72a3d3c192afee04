"""What `manage.py check` and `check --deploy` hold our own promises to."""

import base64
import binascii
import difflib
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.apps.config import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, register
from django.core.checks import Warning as CheckWarning

from jumpserver.env import REGISTER

# Read by the tests, not by the product.
_NOT_SETTINGS = "SLUICE_TEST_"


def front_end_packages(
    app_configs: Sequence[AppConfig] | None, **_kwargs: Any
) -> list[CheckMessage]:
    """Check that the browser's packages are where the pages look for them."""
    del app_configs
    return [
        Error(
            f"{path} is missing: the terminal or the replay would not work.",
            hint="Run `make setup`, which installs the packages of package-lock.json.",
            id="sluice.E001",
        )
        for entry in settings.STATICFILES_DIRS
        if isinstance(entry, tuple)
        for path in [Path(entry[1])]
        if not path.is_dir()
    ]


def settings_are_known(
    app_configs: Sequence[AppConfig] | None, **_kwargs: Any
) -> list[CheckMessage]:
    """Refuse a setting nobody reads: a misspelt one would silently keep its default."""
    del app_configs
    known = set(REGISTER) | {
        f"{setting.name}_FILE" for setting in REGISTER.values() if setting.secret
    }
    found: list[CheckMessage] = []
    for name in sorted(os.environ):
        if name in known or name.startswith(_NOT_SETTINGS):
            continue
        if name.startswith("SLUICE_"):
            nearest = difflib.get_close_matches(name, known, n=1)
            found.append(
                Error(
                    f"There is no setting {name}.",
                    hint=f"Did you mean {nearest[0]}?" if nearest else "Unset it.",
                    id="sluice.E003",
                )
            )
    return found


def vault_key_is_a_key(
    app_configs: Sequence[AppConfig] | None, **_kwargs: Any
) -> list[CheckMessage]:
    """Check that the vault key is 32 bytes in base64."""
    del app_configs
    try:
        length = len(base64.b64decode(settings.SLUICE_VAULT_KEY, validate=True))
    except (binascii.Error, ValueError):
        length = 0
    if length == 32:
        return []
    return [
        Error(
            "SLUICE_VAULT_KEY is not the base64 form of 32 bytes.",
            hint="`openssl rand -base64 32` makes one. Never change it while secrets "
            "are stored.",
            id="sluice.E002",
        )
    ]


def demo_switches_are_off(
    app_configs: Sequence[AppConfig] | None, **_kwargs: Any
) -> list[CheckMessage]:
    """Reject settings that are for a demo on one machine."""
    del app_configs
    found: list[CheckMessage] = []
    if settings.ALLOW_LOCAL_TARGETS:
        found.append(
            Error(
                "SLUICE_ALLOW_LOCAL_TARGETS is on: an asset could be this machine "
                "itself or a metadata service.",
                hint="Unset it.",
                id="sluice.E010",
            )
        )
    if settings.ALLOW_HTTP:
        found.append(
            Error(
                "SLUICE_ALLOW_HTTP is on: passwords and cookies travel unencrypted.",
                hint="Unset it, and give SLUICE_PORTAL_TLS_CERTIFICATE and "
                "SLUICE_PORTAL_TLS_KEY or a TLS proxy (SLUICE_TRUSTED_PROXIES).",
                id="sluice.E011",
            )
        )
    if not settings.ALLOW_HTTP and not (
        settings.PORTAL_TLS_CERTIFICATE or settings.TRUSTED_PROXIES
    ):
        found.append(
            Error(
                "Nothing ends TLS: there is neither a certificate nor a proxy.",
                hint="Set SLUICE_PORTAL_TLS_CERTIFICATE and SLUICE_PORTAL_TLS_KEY, or "
                "SLUICE_TRUSTED_PROXIES to the number of proxies in front.",
                id="sluice.E012",
            )
        )
    if not settings.PORTAL_URL:
        found.append(
            CheckWarning(
                "SLUICE_PORTAL_URL is not set: pages name the address of this process.",
                hint="Set it to the address people type.",
                id="sluice.W013",
            )
        )
    return found


def files_are_private(
    app_configs: Sequence[AppConfig] | None, **_kwargs: Any
) -> list[CheckMessage]:
    """Check that recordings can be written and that secrets are ours alone to read."""
    del app_configs
    found: list[CheckMessage] = []
    recordings = Path(settings.RECORDINGS_DIR)
    recordings.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not os.access(recordings, os.W_OK | os.X_OK):
        found.append(
            Error(
                f"{recordings} cannot be written: no session could start.",
                hint="Give the folder to the user that runs Sluice.",
                id="sluice.E020",
            )
        )
    private = [
        settings.SLUICE_DATA_DIR,
        recordings,
        *(settings.SLUICE_DATA_DIR / "secrets").glob("*"),
    ]
    found.extend(
        Error(
            f"{path} can be read or written by others.",
            hint=f"chmod go-rwx {path}",
            id="sluice.E021",
        )
        for path in map(Path, private)
        if stat.S_IMODE(path.stat().st_mode) & 0o077
    )
    return found


def register_checks() -> None:
    """Make the checks known to Django."""
    register(front_end_packages, "sluice")
    register(settings_are_known, "sluice")
    register(vault_key_is_a_key, "sluice")
    register(demo_switches_are_off, "sluice", deploy=True)
    register(files_are_private, "sluice", deploy=True)
