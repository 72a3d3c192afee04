"""Only the interfaces look at the clock; below them `now` is an argument."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
READERS = (
    "apps/api/",
    "apps/portal/",
    "apps/gateway/",
    # The time inside a UUIDv7 only sorts rows; nothing is decided by it.
    "apps/audit/identifiers.py",
)
CONTEXTS = sorted(
    path
    for path in (ROOT / "apps").rglob("*.py")
    if not str(path.relative_to(ROOT)).startswith(READERS)
    and path.name != "tasks.py"
    and "management" not in path.parts
)
"""Everything below the interfaces, but tasks and commands."""

CLOCKS = {
    *("datetime.now", "datetime.utcnow", "datetime.today", "date.today"),
    *("timezone.now", "time.time", "time.time_ns", "time.localtime", "time.gmtime"),
    "now",
}


def looks(source: str) -> Iterator[int]:
    """Yield the lines of `source` that ask for the time, or hand a clock on."""
    tree = ast.parse(source)
    called = {
        id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            name = f"{ast.unparse(node.value).rpartition('.')[2]}.{node.attr}"
            if name in CLOCKS:
                yield node.lineno
        elif isinstance(node, ast.Name) and node.id == "now" and id(node) in called:
            # `from django.utils.timezone import now`: everywhere else it is a value.
            yield node.lineno


def test_the_search_finds_each_way_to_look() -> None:
    for text in (
        "import datetime as dt; x = dt.datetime.now(dt.UTC)",
        "from datetime import datetime; x = datetime.now()",
        "from django.utils import timezone; f(clock=timezone.now)",
        "import time; x = time.time()",
        "from django.utils.timezone import now; x = now()",
        "import datetime; x = datetime.date.today()",
    ):
        assert list(looks(text)) == [1], text
    assert not list(looks("import time\ndef f(now): return now, time.monotonic()"))


@pytest.mark.parametrize("path", CONTEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_below_the_interfaces_looks_at_the_clock(path: Path) -> None:
    assert list(looks(path.read_text("utf-8"))) == []
