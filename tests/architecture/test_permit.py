"""The proof value: whoever dials has been let through, to exactly that."""

import ast
import dataclasses
import inspect
import typing
from pathlib import Path

import pytest

from apps.access.permits import ConnectionPermit
from apps.gateway import upstream
from apps.vault.leases import LeasedCredential

ROOT = Path(__file__).resolve().parents[2]


def test_dialling_takes_a_permit_and_nothing_that_says_where() -> None:
    wanted = typing.get_type_hints(upstream.dial)
    assert list(inspect.signature(upstream.dial).parameters) == ["permit", "settings"]
    assert wanted["permit"] is ConnectionPermit
    assert {field.name for field in dataclasses.fields(upstream.Dialled)} == {
        "permit",
        "connection",
        "owner",
        "waiter",
    }
    wanted = typing.get_type_hints(upstream.sign_in)
    parameters = list(inspect.signature(upstream.sign_in).parameters)
    assert parameters == ["dialled", "lease", "settings"]
    assert wanted["dialled"] is upstream.Dialled
    assert wanted["lease"] is LeasedCredential
    # Times, and whether this machine itself may be a target (R26): no address.
    limits = {field.name for field in dataclasses.fields(upstream.UpstreamSettings)}
    assert limits == {
        "tcp_seconds",
        "kex_seconds",
        "auth_seconds",
        "busy_seconds",
        "allow_local_targets",
    }


def test_only_a_live_session_dials() -> None:
    """`dial` of `gateway.upstream` is asked for in one place."""
    importers = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "apps").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom)
        and node.module == "apps.gateway.upstream"
        and "dial" in {alias.name for alias in node.names}
    ]
    assert importers == ["apps/gateway/opening.py"]


@pytest.mark.parametrize("proof", [ConnectionPermit, LeasedCredential])
def test_a_proof_cannot_be_changed_afterwards(proof: type) -> None:
    assert proof.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert not hasattr(proof, "__dict__") or "__slots__" in vars(proof)
