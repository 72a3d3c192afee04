"""What is installed, and from where: locks, floors and programs agree."""

import itertools
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
_PIN = re.compile(r"^([a-z0-9][a-z0-9.-]*)(?:\[[a-z,]+\])?==([^\s;]+)", re.MULTILINE)


def pins(text: str) -> dict[str, str]:
    return dict(_PIN.findall(text))


def project() -> dict[str, list[str]]:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {"base": data["dependencies"], **data["optional-dependencies"]}


def test_r36_asyncssh_is_at_least_2_24() -> None:
    """R36: older versions let a rogue peer inject extensions and session messages."""
    declared = pins("\n".join(project()["base"]))["asyncssh"]
    locked = pins((ROOT / "requirements/base.txt").read_text())["asyncssh"]
    assert declared == locked
    assert tuple(int(part) for part in locked.split(".")[:2]) >= (2, 24)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_lock_names_hashes_and_no_address(lock: Path) -> None:
    text = lock.read_text()
    assert pins(text)
    assert not re.search(r"https?:|--index-url|--find-links", text)
    for line in text.splitlines():
        if _PIN.match(line):
            assert line.endswith("\\"), f"{line} has no hash"


def test_development_installs_what_production_installs() -> None:
    base = pins((ROOT / "requirements/base.txt").read_text())
    dev = pins((ROOT / "requirements/dev.txt").read_text())
    assert base.items() <= dev.items()


def test_locks_are_of_the_declared_versions() -> None:
    dev = pins((ROOT / "requirements/dev.txt").read_text())
    declared = pins("\n".join(itertools.chain(*project().values())))
    assert declared.items() <= dev.items()


def test_npm_lock_names_hashes_and_no_address() -> None:
    text = (ROOT / "package-lock.json").read_text()
    assert '"integrity"' in text
    assert '"resolved"' not in text


def test_check_locks_finds_an_address(tmp_path: Path) -> None:
    """The script that guards the locks is itself shown to notice."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "requirements").mkdir()
    script = tmp_path / "scripts/check-locks.sh"
    script.write_bytes((ROOT / "scripts/check-locks.sh").read_bytes())
    (tmp_path / "package-lock.json").write_text("{}\n")
    lock = tmp_path / "requirements/base.txt"

    def verdict(text: str) -> int:
        lock.write_text(text)
        (tmp_path / "requirements/base.in").write_text("")
        return subprocess.run(
            ["bash", script], capture_output=True, check=False
        ).returncode

    good = "rich==15.0.0 \\\n    --hash=sha256:00\n"
    assert verdict(good) == 0
    assert verdict("--index-url https://pypi.example/simple\n" + good) == 1
    assert verdict(good + "    # from http://mirror.example\n") == 1
    assert verdict("rich==15.0.0\n") == 1
