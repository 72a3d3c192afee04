"""The documentation builds, and says of the code what the code says of itself."""

import ast
import html
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from apps.access.denials import SENTENCES as DENIALS
from apps.access.lifecycle import GRANT_TRANSITIONS, REQUEST_TRANSITIONS
from apps.audit.kinds import SENTENCES as KINDS
from apps.inventory.crypto_profiles import PROFILES
from apps.recordings.lifecycle import TRANSITIONS as RECORDING_TRANSITIONS
from apps.sessions.lifecycle import SENTENCES as END_REASONS
from apps.sessions.lifecycle import TRANSITIONS as SESSION_TRANSITIONS
from apps.vault.lifecycle import TRANSITIONS as LEASE_TRANSITIONS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
TEXTS = [*sorted(ROOT.glob("*.md")), *PAGES]
LARGEST_IMAGE_BYTES = 200_000

# The words of the product, each with a meaning of its own.
WORDS = {
    "requester",
    "approver",
    "auditor",
    "administrator",
    "engineer",
    "access-request",
    "approval",
    "grant",
    "session",
    "recording",
    "asset",
    "site",
    "zone",
    "conduit",
    "target-account",
    "credential",
    "lease",
    "policy-decision-point",
    "policy-enforcement-point",
    "expire",
    "revoke",
    "terminate",
    "close",
    "freeze",
    "cut",
    "drain",
    "lapse",
    "withdraw",
    "finish",
    "permit",
    "revocation-receipt",
    "ledger",
    "seal",
    "vault",
    "gateway",
    "portal",
    "channel",
    "service",
    "host-key",
    "crypto-profile",
    "deadline",
    "certificate",
    "in-operation",
}

_LINK = re.compile(r"\]\(([^)\s]+)\)|^```\{image\} (\S+)$", re.MULTILINE)
_CODE = re.compile(r"^(```+).*?^\1", re.MULTILINE | re.DOTALL)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation as `make docs` builds it, in a folder of its own."""
    out = tmp_path_factory.mktemp("docs")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning"),
            *("-b", "html", "-d", str(out / "trees"), str(DOCS), str(out / "html")),
        ],
        capture_output=True,
        text=True,
        check=False,
        # A production machine's settings must change nothing.
        env={**os.environ, "SLUICE_SSH_PORT": "not a port"},
    )
    assert done.returncode == 0, done.stderr
    return out / "html"


def text_of(built: Path, page: str) -> str:
    """Return what a reader reads on a page, in one line, and what pictures say."""
    source = (built / page).read_text("utf-8")
    article = source[source.index("<article") : source.index("</article>")]
    said = " ".join(re.findall(r'aria-label="([^"]*)"', article))
    words = re.sub(r"<[^>]*>", " ", article) + " " + said
    return " ".join(html.unescape(words).split())


def read(text: str) -> str:
    """Return `text` as `text_of` gives it."""
    return " ".join(text.split())


def settings_read() -> Iterator[tuple[str, bool]]:
    """Yield (name, whether it has a `_FILE` twin) of each setting that is read."""
    tree = ast.parse((ROOT / "jumpserver/settings.py").read_text("utf-8"))
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            continue
        if node.func.id.startswith("env_"):
            name = ast.literal_eval(node.args[0])
            yield name, node.func.id in {"env_secret", "env_database"}


SETTINGS = dict(settings_read())

pytestmark = pytest.mark.timeout(180)


@pytest.mark.slow
def test_the_documentation_builds_without_a_warning(built: Path) -> None:
    for page in PAGES:
        assert (built / page.relative_to(DOCS)).with_suffix(".html").is_file()


@pytest.mark.slow
def test_nothing_is_fetched_from_elsewhere(built: Path) -> None:
    """A reader in a plant has no network."""
    fetched = re.compile(
        r'<(?:script|img|link)\b[^>]*?(?:src|href)="((?:https?:)?//[^"]*)"'
    )
    for page in built.rglob("*.html"):
        assert fetched.findall(page.read_text("utf-8")) == [], page.name


@pytest.mark.slow
def test_every_setting_is_explained(built: Path) -> None:
    text = text_of(built, "settings.html")
    assert len(SETTINGS) > 30
    for name, has_file in SETTINGS.items():
        assert f"{name} " in text
        assert (f"{name}_FILE" in text) == has_file


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "sentences"),
    [
        ("reference/denial-codes.html", DENIALS),
        ("reference/end-reasons.html", END_REASONS),
        ("reference/audit-kinds.html", KINDS),
    ],
    ids=["denial codes", "end reasons", "audit kinds"],
)
def test_every_code_stands_beside_its_sentence(
    built: Path, page: str, sentences: Mapping[str, str]
) -> None:
    text = text_of(built, page)
    assert sentences
    for code, sentence in sentences.items():
        # Quotation marks are made typographic.
        plain = text.replace("\u2019", "'")
        assert f"{code} {read(sentence)}" in plain


@pytest.mark.slow
def test_every_algorithm_of_every_profile_is_named(built: Path) -> None:
    text = text_of(built, "reference/crypto-profiles.html")
    for name, profile in PROFILES.items():
        assert name in text
        for algorithms in (profile.kex, profile.ciphers, profile.host_keys):
            assert ", ".join(algorithms) in text.replace(" ,", ",")


@pytest.mark.slow
@pytest.mark.parametrize(
    "machine",
    [
        REQUEST_TRANSITIONS,
        GRANT_TRANSITIONS,
        SESSION_TRANSITIONS,
        RECORDING_TRANSITIONS,
        LEASE_TRANSITIONS,
    ],
    ids=["request", "grant", "session", "recording", "lease"],
)
def test_every_step_of_a_lifecycle_is_drawn(built: Path, machine) -> None:
    text = text_of(built, "session-flow.html")
    for state, following in machine.items():
        assert following or f"{state} nothing: it is the end" in text
        for each in following:
            assert f"{state} to {each}" in text


@pytest.mark.slow
def test_every_word_of_the_product_is_in_the_glossary(built: Path) -> None:
    source = (built / "glossary.html").read_text("utf-8")
    terms = set(re.findall(r'id="term-([^"]+)"', source))
    assert WORDS - terms == set()


def test_no_page_names_a_setting_that_does_not_exist() -> None:
    for path in TEXTS:
        for name in re.findall(r"\bSLUICE_[A-Z_]+\b", path.read_text("utf-8")):
            assert name.removesuffix("_FILE") in SETTINGS, f"{name_of(path)}: {name}"


def test_no_page_names_a_module_or_target_that_does_not_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for path in TEXTS:
        text = path.read_text("utf-8")
        for module in re.findall(
            r"\b(?:apps|jumpserver|docker|scripts)/[\w/.-]+", text
        ):
            file = ROOT / module.rstrip(".")
            assert file.exists(), f"{name_of(path)} names {module}"
        for target in re.findall(r"`make ([a-z-]+)`|^make ([a-z-]+)", text, re.M):
            assert set(target) - {""} <= targets, f"{name_of(path)}: make {target}"


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    text = _CODE.sub(
        lambda block: block[0] if block[0].startswith("```{image}") else "",
        path.read_text("utf-8"),
    )
    for link, image in _LINK.findall(text):
        target = (link or image).partition("#")[0]
        if target and not re.match(r"[a-z]+:", target):
            assert (path.parent / target).resolve().is_file(), target


def test_every_picture_is_shown_and_small() -> None:
    shown = " ".join(path.read_text("utf-8") for path in TEXTS)
    for picture in sorted((DOCS / "images").iterdir()):
        assert picture.name in shown, f"nothing shows {picture.name}"
        assert picture.stat().st_size <= LARGEST_IMAGE_BYTES


def test_the_readme_names_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert "make demo" in text
    assert "make test" in text
    assert 'not related to the product "JumpServer"' in text
