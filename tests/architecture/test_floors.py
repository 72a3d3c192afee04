"""The shape of the tree, where import-linter cannot see it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.apps import apps

ROOT = Path(__file__).resolve().parents[2]
FLOORS = ["audit", "accounts", "inventory", "vault", "access", "sessions", "recordings"]
"""Contexts from the lowest floor up."""

CATCH_ALLS = {"utils", "util", "common", "helpers", "misc", "extras", "base", "core"}
DIALS = {"apps/gateway", "apps/vault/targets.py", "jumpserver/demo"}


def sources(*trees: str) -> list[Path]:
    return sorted(path for tree in trees for path in (ROOT / tree).rglob("*.py"))


PRODUCT = sources("apps", "jumpserver")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def calls(path: Path) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield node


def imported_modules(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def floor_of(module: str) -> int | None:
    parts = module.split(".")
    if parts[0] == "apps" and parts[1] in FLOORS:
        return FLOORS.index(parts[1])
    return None


def test_foreign_keys_point_down() -> None:
    """A foreign key given as a string is a dependency that no import shows."""
    seen = 0
    for model in apps.get_models():
        own = floor_of(model.__module__)
        if own is None:
            continue
        for field in model._meta.get_fields():
            if (
                not (field.is_relation and field.concrete)
                or field.related_model is None
            ):
                continue
            target = floor_of(field.related_model.__module__)
            if target is not None:
                seen += 1
                assert target <= own, f"{model.__name__}.{field.name} points up"
    assert seen > 10


def test_the_ledger_has_no_foreign_keys() -> None:
    """The ledger outlives what it speaks of."""
    models = [m for m in apps.get_models() if m.__module__.startswith("apps.audit.")]
    assert models
    for model in models:
        relations = [
            field.name for field in model._meta.get_fields() if field.is_relation
        ]
        assert relations == []


def test_no_catch_all_modules() -> None:
    assert [name_of(path) for path in PRODUCT if path.stem in CATCH_ALLS] == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        name_of(path)
        for path in PRODUCT
        if path.read_text().strip()
        and "migrations" not in path.parts
        and ast.get_docstring(ast.parse(path.read_text())) is None
    ]
    assert silent == []


def test_r3_only_the_secrets_module_makes_random_values() -> None:
    """R3: a predictable code was a way in elsewhere. The demo's tanks may be random."""
    users = [
        name_of(path)
        for path in PRODUCT
        if "random" in set(imported_modules(path)) and "demo" not in path.parts
    ]
    assert users == []


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_r8_r39_nothing_switches_verification_off(path: Path) -> None:
    """R8, R39: no TLS or host key check can be turned off by an argument."""
    for call in calls(path):
        for keyword in call.keywords:
            value = keyword.value
            if not isinstance(value, ast.Constant):
                continue
            off = (keyword.arg == "verify" and value.value is False) or (
                keyword.arg == "known_hosts" and value.value is None
            )
            assert not off, (
                f"{name_of(path)}:{call.lineno} {keyword.arg}={value.value!r}"
            )
    text = path.read_text()
    for word in ("AutoAddPolicy", "WarningPolicy", "CERT_NONE", "_create_unverified"):
        assert word not in text, f"{name_of(path)} names {word}"


def test_r5_no_process_is_started_through_a_shell() -> None:
    """R5: no text of a user ever meets a shell."""
    shells = [
        f"{name_of(path)}:{call.lineno}"
        for path in PRODUCT
        for call in calls(path)
        if any(
            keyword.arg == "shell"
            and not (
                isinstance(keyword.value, ast.Constant) and keyword.value.value is False
            )
            for keyword in call.keywords
            if _starts_a_process(call)
        )
        or _called(call) in {"os.system", "os.popen", "create_subprocess_shell"}
        or _called(call).endswith(".create_subprocess_shell")
    ]
    assert shells == []


def _called(call: ast.Call) -> str:
    return ast.unparse(call.func)


def _starts_a_process(call: ast.Call) -> bool:
    return _called(call).rpartition(".")[2] in {
        *("run", "call", "check_call", "check_output", "Popen"),
    }


def test_only_the_authorizer_makes_a_permit() -> None:
    """Whoever holds a `ConnectionPermit` has been through `authorize_connection`."""
    makers = {
        name_of(path)
        for path in PRODUCT
        for call in calls(path)
        if _called(call).rpartition(".")[2] == "ConnectionPermit"
        or (
            _called(call).rpartition(".")[2] in {"replace", "__new__"}
            and "permit" in ast.unparse(call).lower()
            and not _is_text_replace(call)
        )
    }
    assert makers == {"apps/access/authorization.py"}


def _is_text_replace(call: ast.Call) -> bool:
    return any(
        isinstance(argument, ast.Constant) and isinstance(argument.value, str)
        for argument in call.args
    )


def test_only_the_gateway_and_the_vault_dial() -> None:
    """SSH is spoken in the gateway, `vault.targets` and the demo's own targets."""
    strangers = [
        name_of(path)
        for path in PRODUCT
        if {module.split(".")[0] for module in imported_modules(path)}
        & {"asyncssh", "paramiko"}
        and not any(name_of(path).startswith(place) for place in DIALS)
    ]
    assert strangers == []
