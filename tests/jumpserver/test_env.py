"""Settings from the environment: what cannot be read stops the start, with a hint."""

import os
import stat
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from jumpserver import env

NAME = "SLUICE_TEST_SETTING"


@pytest.fixture(autouse=True)
def _register_as_it_was(monkeypatch):
    monkeypatch.setattr(env, "REGISTER", dict(env.REGISTER))
    monkeypatch.delenv(NAME, raising=False)
    monkeypatch.delenv(f"{NAME}_FILE", raising=False)


def read_bool() -> bool:
    return env.env_bool(NAME, default=False, explain="Says yes or no.")


def read_int() -> int:
    return env.env_int(NAME, default=5, minimum=1, maximum=9, explain="A number.")


def read_choice() -> str:
    return env.env_choice(
        NAME, default="a", choices=frozenset({"a", "b"}), explain="A or b."
    )


def read_secret() -> str:
    return env.env_secret(NAME, generate=None, explain="A secret.")


@pytest.mark.parametrize("text", ["1", "true", "YES", "On"])
def test_yes(monkeypatch, text):
    monkeypatch.setenv(NAME, text)
    assert read_bool() is True


@pytest.mark.parametrize("text", ["0", "false", "NO", "Off", ""])
def test_no(monkeypatch, text):
    monkeypatch.setenv(NAME, text)
    assert read_bool() is False


@pytest.mark.parametrize(
    ("read", "text", "hint"),
    [
        (read_bool, "maybe", "yes/no"),
        (read_bool, "2", "yes/no"),
        (read_int, "five", "whole number"),
        (read_int, "0", "1 to 9"),
        (read_int, "10", "1 to 9"),
        (read_int, "1.5", "whole number"),
        (read_choice, "c", "a, b"),
        (read_choice, "A", "a, b"),
    ],
)
def test_anything_else_stops_the_start_and_names_the_setting(
    monkeypatch, read, text, hint
):
    monkeypatch.setenv(NAME, text)
    with pytest.raises(ImproperlyConfigured) as refusal:
        read()
    assert NAME in str(refusal.value)
    assert hint in str(refusal.value)


def test_bounds_are_inclusive(monkeypatch):
    for text in ("1", "9"):
        monkeypatch.setenv(NAME, text)
        assert read_int() == int(text)


def test_a_list_drops_blanks(monkeypatch):
    monkeypatch.setenv(NAME, " a, ,b ,")
    assert env.env_list(NAME, default=[], explain="A list.") == ["a", "b"]


def test_a_required_secret_says_how_to_make_one():
    with pytest.raises(ImproperlyConfigured) as refusal:
        read_secret()
    assert NAME in str(refusal.value)
    assert f"{NAME}_FILE" in str(refusal.value)
    assert "token_urlsafe" in str(refusal.value)


def test_a_secret_from_a_file(monkeypatch, tmp_path: Path):
    path = tmp_path / "secret"
    path.write_text("open sesame\n")
    monkeypatch.setenv(f"{NAME}_FILE", str(path))
    assert read_secret() == "open sesame"


def test_both_ways_at_once_are_refused_without_showing_either(
    monkeypatch, tmp_path: Path
):
    path = tmp_path / "secret"
    path.write_text("open sesame")
    monkeypatch.setenv(NAME, "hunter2hunter2")
    monkeypatch.setenv(f"{NAME}_FILE", str(path))
    with pytest.raises(ImproperlyConfigured, match="not both") as refusal:
        read_secret()
    assert "sesame" not in str(refusal.value)
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize("text", [" ", "\t\n", "\u00a0"])
def test_r12_a_blank_secret_is_none(monkeypatch, tmp_path: Path, text):
    monkeypatch.setenv(NAME, text)
    with pytest.raises(ImproperlyConfigured, match="blank"):
        read_secret()
    monkeypatch.delenv(NAME)
    path = tmp_path / "secret"
    path.write_text(text)
    monkeypatch.setenv(f"{NAME}_FILE", str(path))
    with pytest.raises(ImproperlyConfigured, match="blank"):
        read_secret()


@pytest.mark.parametrize("what", ["missing", "folder", "binary"])
def test_a_file_that_cannot_be_read_is_explained(monkeypatch, tmp_path: Path, what):
    path = tmp_path / what
    if what == "folder":
        path.mkdir()
    if what == "binary":
        path.write_bytes(b"\xff\xfe\x00secret")
    monkeypatch.setenv(f"{NAME}_FILE", str(path))
    with pytest.raises(ImproperlyConfigured) as refusal:
        read_secret()
    assert f"{NAME}_FILE" in str(refusal.value)


def read_database(sqlite: Path) -> dict[str, object]:
    return env.env_database(NAME, sqlite_path=sqlite, explain="A database.")


def test_no_database_named_means_sqlite_with_wal(tmp_path: Path):
    found = read_database(tmp_path / "x.sqlite3")
    assert found["ENGINE"] == "django.db.backends.sqlite3"
    options = found["OPTIONS"]
    assert isinstance(options, dict)
    assert options["transaction_mode"] == "IMMEDIATE"
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        assert pragma in options["init_command"]


def test_postgresql_with_everything_escaped(monkeypatch, tmp_path: Path):
    monkeypatch.setenv(
        NAME, "postgresql://me%40x:p%3Aw%2Fd@db.example:6543/sl%20uice?sslmode=require"
    )
    found = read_database(tmp_path / "x")
    assert (found["USER"], found["PASSWORD"]) == ("me@x", "p:w/d")
    assert (found["HOST"], found["PORT"]) == ("db.example", "6543")
    assert found["NAME"] == "sl uice"
    assert found["OPTIONS"]["sslmode"] == "require"  # type: ignore[index]
    assert "pool" in found["OPTIONS"]  # type: ignore[operator]


def test_postgresql_on_a_unix_socket_and_from_a_file(monkeypatch, tmp_path: Path):
    path = tmp_path / "url"
    path.write_text("postgresql://sluice@/sluice?host=%2Frun%2Fpg\n")
    monkeypatch.setenv(f"{NAME}_FILE", str(path))
    found = read_database(tmp_path / "x")
    assert (found["HOST"], found["NAME"]) == ("/run/pg", "sluice")


@pytest.mark.parametrize(
    "url", ["mysql://u:geheim@h/d", "sqlite:///x", "just words", "://geheim"]
)
def test_another_database_is_refused_without_its_password(monkeypatch, tmp_path, url):
    monkeypatch.setenv(NAME, url)
    with pytest.raises(ImproperlyConfigured) as refusal:
        read_database(tmp_path / "x")
    assert NAME in str(refusal.value)
    assert "geheim" not in str(refusal.value)


def test_a_database_url_that_cannot_be_read_is_a_hint(monkeypatch, tmp_path: Path):
    monkeypatch.setenv(f"{NAME}_FILE", str(tmp_path / "missing"))
    with pytest.raises(ImproperlyConfigured, match=f"{NAME}_FILE"):
        read_database(tmp_path / "x")


def test_a_database_url_with_a_bad_port_is_a_hint(monkeypatch, tmp_path: Path):
    monkeypatch.setenv(NAME, "postgresql://u:geheim@h:port/d")
    with pytest.raises(ImproperlyConfigured, match=NAME) as refusal:
        read_database(tmp_path / "x")
    assert "geheim" not in str(refusal.value)


def test_a_database_from_two_places_is_refused(monkeypatch, tmp_path: Path):
    path = tmp_path / "url"
    path.write_text("postgresql://one@/one")
    monkeypatch.setenv(NAME, "postgresql://two@/two")
    monkeypatch.setenv(f"{NAME}_FILE", str(path))
    with pytest.raises(ImproperlyConfigured, match="not both"):
        read_database(tmp_path / "x")


def test_r9_a_kept_secret_is_random_private_and_made_once(tmp_path: Path):
    """R9: two fresh installs never share a secret."""
    path = tmp_path / "secrets" / "key"
    made: list[str] = []

    def make() -> str:
        made.append(os.urandom(16).hex())
        return made[-1]

    read = env.kept_secret(path, make)
    first = read()
    assert read() == first == made[0]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_two_that_start_together_keep_the_same_secret(tmp_path: Path):
    path = tmp_path / "key"

    def slowly() -> str:
        # Somebody else is quicker between the look and the making.
        path.write_text("made first")
        return "made second"

    assert env.kept_secret(path, slowly)() == "made first"
    assert list(tmp_path.iterdir()) == [path]


def test_every_setting_is_registered_with_its_sentence():
    assert len(env.REGISTER) > 20
    for setting in env.REGISTER.values():
        assert setting.explain.rstrip().endswith("."), setting.name
    secret = {name for name, setting in env.REGISTER.items() if setting.secret}
    assert secret == {"DATABASE_URL", "SLUICE_SECRET_KEY", "SLUICE_VAULT_KEY"}
