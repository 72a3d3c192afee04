"""No module grows beyond what one can hold in mind."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TREES = ("apps", "jumpserver", "tests", "benchmarks", "scripts", "docs/_ext")
HARD_STOP = 800


def lines_of(path: Path) -> int:
    return len(path.read_text("utf-8").splitlines())


def test_no_module_is_too_long() -> None:
    long = {
        str(path.relative_to(ROOT)): lines_of(path)
        for tree in TREES
        for path in (ROOT / tree).rglob("*.py")
        if lines_of(path) > HARD_STOP
    }
    assert long == {}
