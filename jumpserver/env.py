"""Typed readers for environment settings, and the register the docs are made from.

Every reader takes a name, a default (or none: then the setting is required) and one
sentence of help. A value that cannot be read stops the start with a hint. Each secret
has a `NAME_FILE` twin that names a file to read it from, so that no secret needs to be
in the process environment.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One environment setting as the settings reference shows it."""

    name: str
    kind: str
    default: str
    explain: str
    secret: bool = False


REGISTER: dict[str, Setting] = {}

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}


def _register(
    name: str, kind: str, default: object, help_text: str, *, secret: bool = False
) -> None:
    shown = "" if default is None else str(default)
    REGISTER[name] = Setting(
        name=name, kind=kind, default=shown, explain=help_text, secret=secret
    )


def _raw(name: str) -> str | None:
    value = os.environ.get(name)
    return None if value is None or value == "" else value


def env_bool(name: str, *, default: bool, explain: str) -> bool:
    """Read yes/no. Raises ImproperlyConfigured on any word that is neither."""
    _register(name, "yes/no", "yes" if default else "no", explain)
    value = _raw(name)
    if value is None:
        return default
    if value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise ImproperlyConfigured(
        f"{name}={value!r} is neither yes nor no: use 1/0, yes/no or on/off."
    )


def env_int(
    name: str, *, default: int, minimum: int, maximum: int, explain: str
) -> int:
    """Read a whole number in [minimum, maximum]; else ImproperlyConfigured."""
    _register(name, f"whole number, {minimum} to {maximum}", default, explain)
    value = _raw(name)
    if value is None:
        return default
    try:
        number = int(value)
    except ValueError:
        raise ImproperlyConfigured(f"{name}={value!r} is not a whole number.") from None
    if not minimum <= number <= maximum:
        raise ImproperlyConfigured(
            f"{name}={number} is outside {minimum} to {maximum}."
        )
    return number


def env_str(name: str, *, default: str, explain: str) -> str:
    """Read text."""
    _register(name, "text", default, explain)
    return _raw(name) or default


def env_choice(
    name: str, *, default: str, choices: frozenset[str], explain: str
) -> str:
    """Read one of a closed list; raises ImproperlyConfigured on any other word."""
    _register(name, "one of " + ", ".join(sorted(choices)), default, explain)
    value = _raw(name) or default
    if value not in choices:
        raise ImproperlyConfigured(
            f"{name}={value!r} is unknown: choose one of {', '.join(sorted(choices))}."
        )
    return value


def env_list(name: str, *, default: list[str], explain: str) -> list[str]:
    """Read a comma-separated list; blanks are dropped."""
    _register(name, "comma-separated list", ",".join(default), explain)
    value = _raw(name)
    if value is None:
        return list(default)
    return [item.strip() for item in value.split(",") if item.strip()]


def env_path(name: str, *, default: Path, explain: str, shown_default: str) -> Path:
    """Read a folder or file path, made absolute."""
    _register(name, "path", shown_default, explain)
    value = _raw(name)
    return (Path(value).expanduser() if value else default).resolve()


def _from_file_or_environment(name: str) -> str | None:
    """Return the value of `name`, or the content of the file `NAME_FILE` names."""
    value, file_name = _raw(name), _raw(f"{name}_FILE")
    if value is not None and file_name is not None:
        raise ImproperlyConfigured(f"Set {name} or {name}_FILE, not both.")
    if file_name is None:
        return value
    try:
        return Path(file_name).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ImproperlyConfigured(
            f"{name}_FILE cannot be read ({error}): name a text file that the "
            "user running Sluice may read."
        ) from None


def env_secret(name: str, *, generate: Callable[[], str] | None, explain: str) -> str:
    """Read a secret from `NAME` or from the file `NAME_FILE`.

    `generate` makes the value where the embedded mode keeps its own; without it the
    setting is required. Raises ImproperlyConfigured when both are set, the file cannot
    be read or the secret is empty or blank.
    """
    _register(name, "secret", None, explain, secret=True)
    value = _from_file_or_environment(name)
    if value is None and generate is not None:
        value = generate()
    if value is None:
        raise ImproperlyConfigured(
            f"{name} is not set. Set it, or set {name}_FILE to a file that holds it; "
            "`python3 -c 'import secrets; print(secrets.token_urlsafe(48))'` makes one."
        )
    if not value.strip():
        raise ImproperlyConfigured(f"{name} is blank: a secret needs a value.")
    return value.strip()


def env_database(name: str, *, sqlite_path: Path, explain: str) -> dict[str, object]:
    """Read a database URL: `postgresql://user:password@host:port/name` or nothing.

    Nothing means SQLite at `sqlite_path`. A Unix socket folder goes into the query as
    `?host=/folder`. Raises ImproperlyConfigured for any other scheme.
    """
    _register(
        name, "PostgreSQL address", "SQLite in the data directory", explain, secret=True
    )
    value = _from_file_or_environment(name)
    if value is None:
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(sqlite_path),
            "OPTIONS": {
                # A read that turns into a write must not fail half-way.
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
                # FULL: the ledger's last commits survive a power cut.
                "init_command": (
                    "PRAGMA journal_mode=WAL;"
                    "PRAGMA synchronous=FULL;"
                    "PRAGMA foreign_keys=ON;"
                ),
            },
            # Each thread keeps its connection: opening one reads the whole schema, and
            # closing the last one folds the write-ahead log into the file and syncs.
            "CONN_MAX_AGE": None,
            # Threads need a file: the shared in-memory database ignores busy timeouts.
            "TEST": {"NAME": str(sqlite_path.with_name("test.sqlite3"))},
        }
    parts = urlsplit(value)
    if parts.scheme not in {"postgres", "postgresql"}:
        raise ImproperlyConfigured(
            f"{name} names the scheme {parts.scheme!r}: use "
            "postgresql://user@host/name, or leave it unset for SQLite."
        )
    try:
        port = parts.port
    except ValueError:
        raise ImproperlyConfigured(
            f"{name} names a port that is no number from 0 to 65535."
        ) from None
    # A server that went without a word is given up after seconds, not minutes. Over a
    # Unix socket these count for nothing.
    options: dict[str, object] = {
        "connect_timeout": 5,
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 10_000,
    }
    host = parts.hostname or ""
    for pair in filter(None, parts.query.split("&")):
        key, _, text = pair.partition("=")
        if key == "host":
            host = unquote(text)
        else:
            options[key] = unquote(text)
    # Giving an attempt up soon keeps the pauses between them short: a database that is
    # back is found within two seconds, however long it was away.
    options["pool"] = {
        "min_size": 1,
        "max_size": 20,
        "timeout": 5,
        "reconnect_timeout": 2,
    }
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": host,
        "PORT": str(port or ""),
        "OPTIONS": options,
        "CONN_MAX_AGE": 0,
        # After a restart of the server nobody is given a connection that is dead.
        "CONN_HEALTH_CHECKS": True,
    }


def kept_secret(path: Path, make: Callable[[], str]) -> Callable[[], str]:
    """Return a reader of a secret that the embedded mode makes once and keeps.

    The file is made with mode 0600 in a 0700 folder, whole or not at all; two processes
    that start together end up with the same value. It is random, never a default.
    """

    def read() -> str:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            draft = path.with_name(f".{path.name}.{os.getpid()}")
            handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(make())
                file.flush()
                os.fsync(file.fileno())
            try:
                # link(), unlike rename(), refuses to replace what another process made.
                os.link(draft, path)
            except FileExistsError:
                pass
            finally:
                draft.unlink()
        return path.read_text(encoding="utf-8")

    return read
