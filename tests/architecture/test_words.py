"""Names say what a thing is, and pages speak the words of the product."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = sorted(
    path for tree in ("apps", "jumpserver") for path in (ROOT / tree).rglob("*.py")
)
TEMPLATES = sorted((ROOT / "templates").rglob("*.html"))

EMPTY_CLASS_WORDS = re.compile(
    r"(?:Manager|Helpers?|Utils?|Common|Misc|Service|Data|Info)$|^Handler$"
)
EMPTY_FUNCTION_WORDS = re.compile(r"^(?:process_|do_)|^is_valid$|_?(?:utils?|misc)$")

# Each name that may stay, and why.
KEPT = {
    "UserManager": "Django's own word for what makes rows",
    "Service": "what crosses a conduit: a word of the product",
    "GatewayService": "what the supervisor runs, as the service manager sees it",
    "process_view": "Django's middleware calls it so",
    "process_connection_close": "asyncssh calls it so",
    "process_open_confirmation": "asyncssh calls it so",
    "process_packet": "asyncssh calls it so",
}

# Rivals of the product's words, with the word to use.
RIVALS = {
    "user": "person, engineer",
    "users": "people",
    "permission": "grant",
    "permissions": "grants",
    "ticket": "access request",
    "tunnel": "conduit",
    "server": "asset",
    "servers": "assets",
    "bastion": "gateway",
    "admin": "administrator",
    "admins": "administrators",
    "kill": "terminate",
    "killed": "terminated",
    "abort": "terminate",
    "privileges": "roles",
    **dict.fromkeys(("helper", "utils", "misc", "handler"), "say what it is"),
}


def empty_names(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ClassDef):
            pattern = EMPTY_CLASS_WORDS
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            # Private ones may follow the names of the protocol they handle.
            pattern = EMPTY_FUNCTION_WORDS
        else:
            continue
        if pattern.search(node.name):
            yield node.name


def visible_words(template: str) -> set[str]:
    """Return the words a reader of the page may see, small."""
    for hidden in (r"\{#.*?#\}", r"<(code|pre)\b.*?</\1>", r"\{\{.*?\}\}"):
        template = re.sub(hidden, " ", template, flags=re.DOTALL)
    # What a tag is given may be shown: labels, titles, texts of components.
    given = " ".join(
        value
        for tag in re.findall(r"\{%(.*?)%\}", template, re.DOTALL)
        if not tag.split()[:1] or tag.split()[0] not in {"url", "load", "extends"}
        for value in re.findall(r'(?:text|label|title|button)="([^"]*)"', tag)
    )
    shown = re.findall(
        r'(?:aria-label|placeholder|title|alt)="([^"{]*)"', template, re.DOTALL
    )
    template = re.sub(r"\{%.*?%\}|<[^>]*>", " ", template, flags=re.DOTALL)
    return set(re.findall(r"[a-z]+", " ".join([template, given, *shown]).lower()))


def test_names_say_what_things_are() -> None:
    found = {
        name: str(path.relative_to(ROOT))
        for path in PRODUCT
        for name in empty_names(path)
    }
    assert found.keys() - KEPT.keys() == set(), found
    assert KEPT.keys() - found.keys() == set(), "a name that is kept no longer exists"


@pytest.mark.parametrize(
    "path", TEMPLATES, ids=lambda path: str(path.relative_to(ROOT / "templates"))
)
def test_pages_use_the_words_of_the_product(path: Path) -> None:
    rivals = visible_words(path.read_text("utf-8")) & RIVALS.keys()
    assert rivals == set(), {word: RIVALS[word] for word in rivals}


def test_the_search_sees_what_a_reader_sees() -> None:
    page = (
        '{# user #}<a title="Admin" href="/users/">Kill</a><code>user</code>'
        '{% include "x.html" with text="A ticket" url=server %}{{ user.name }}'
    )
    assert visible_words(page) & RIVALS.keys() == {"admin", "kill", "ticket"}
