"""Rules for files: what an administrator may write, and which names they refuse."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.inventory.file_rules import (
    NO_RULES,
    ROOTS,
    FileRuleError,
    FileRules,
    check_extensions,
    check_roots,
)

ONLY_ZIP = FileRules(allowed_extensions=frozenset({"zip", "tar.gz"}))
NO_EXE = FileRules(denied_extensions=frozenset({"exe", "tar.gz"}))


@pytest.mark.parametrize(
    ("rules", "name", "allowed"),
    [
        (NO_RULES, "anything", True),
        (ONLY_ZIP, "/srv/a.zip", True),
        (ONLY_ZIP, "a.ZIP", True),
        (ONLY_ZIP, "a.tar.gz", True),
        (ONLY_ZIP, "a.gz", False),
        (ONLY_ZIP, "zip", False),
        (ONLY_ZIP, "a.zip/b", False),
        (ONLY_ZIP, "a.exe:b.zip", False),
        (NO_EXE, "a.exe.txt", True),
        (NO_EXE, "a.exe", False),
        (NO_EXE, "A.Exe", False),
        (NO_EXE, "a.exe.", False),
        (NO_EXE, "a.exe. .", False),
        (NO_EXE, "a.exe::$DATA", False),
        (NO_EXE, "a.exe/", False),
        (NO_EXE, ".exe", False),
        (NO_EXE, "b.tar.gz", False),
        (NO_EXE, "b.gz", True),
    ],
)
def test_endings(rules: FileRules, name: str, allowed: bool) -> None:
    assert (rules.extension_problem(name) == "") is allowed


@given(st.text(max_size=30))
def test_any_name_is_judged(name: str) -> None:
    assert NO_RULES.extension_problem(name) == ""
    assert isinstance(NO_EXE.extension_problem(name), str)


def test_folders_are_kept_in_one_spelling() -> None:
    assert check_roots(["/srv//x/", " /srv/x", "", "/"]) == ["/srv/x", "/"]


@pytest.mark.parametrize(
    "lines",
    [
        ["srv"],
        ["~/x"],
        ["/srv/.."],
        ["/srv/./x"],
        ["/a\x07"],
        ["/" + "x" * 250],
        [f"/{number}" for number in range(ROOTS + 1)],
    ],
)
def test_what_is_no_folder_is_refused(lines: list[str]) -> None:
    with pytest.raises(FileRuleError):
        check_roots(lines)


@pytest.mark.parametrize("word", ["a b", "a/b", "..", "é", "x" * 30, "a.b.c"])
def test_what_is_no_ending_is_refused(word: str) -> None:
    with pytest.raises(FileRuleError):
        check_extensions([word])
