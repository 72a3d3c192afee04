"""Writes the parts of the documentation that are lists in the code.

A page says `<!-- from the code: NAME -->` and gets the list, as Markdown, in its
place; `<!-- file: NAME -->` gives a file of the repository's root. So a page cannot
fall behind the code it describes, and a name that does not exist stops the build.
"""

import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from state_diagrams import Machine, steps_of, svg

from apps.access.denials import SENTENCES as DENIALS
from apps.access.lifecycle import GRANT_TRANSITIONS, REQUEST_TRANSITIONS
from apps.audit.kinds import SENTENCES as KINDS
from apps.gateway.sftp_rights import EXTENSIONS
from apps.inventory.crypto_profiles import PROFILES
from apps.quarantine.lifecycle import TRANSITIONS as HELD_TRANSITIONS
from apps.recordings.lifecycle import TRANSITIONS as RECORDING_TRANSITIONS
from apps.recordings.manifest import RESULT_SENTENCES
from apps.sessions.lifecycle import SENTENCES as END_REASONS
from apps.sessions.lifecycle import TRANSITIONS as SESSION_TRANSITIONS
from apps.vault.lifecycle import TRANSITIONS as LEASE_TRANSITIONS
from jumpserver.env import REGISTER, Setting

ROOT = Path(__file__).resolve().parents[2]
MARK = re.compile(r"^<!-- (from the code|file): ([A-Za-z. _-]+?) -->$", re.MULTILINE)

# Where the files of the root are in the documentation.
PAGES = {
    "THREAT_MODEL.md": "threat-model.md",
    "SECURITY.md": "security-policy.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}

MACHINES: dict[str, tuple[str, Machine]] = {
    "request states": ("States of an access request", REQUEST_TRANSITIONS),
    "grant states": ("States of a grant", GRANT_TRANSITIONS),
    "session states": ("States of a session", SESSION_TRANSITIONS),
    "recording states": ("States of a recording", RECORDING_TRANSITIONS),
    "held upload states": ("States of a held upload", HELD_TRANSITIONS),
    "lease states": ("States of a lease", LEASE_TRANSITIONS),
}


def all_settings() -> list[Setting]:
    """Return every setting that the settings file reads, in its order.

    Reading it must neither depend on nor touch this machine's own product.
    """
    if "jumpserver.settings" in sys.modules:
        return list(REGISTER.values())
    ours = ("SLUICE_", "DATABASE_URL", "REDIS_URL")
    kept = {name: text for name, text in os.environ.items() if name.startswith(ours)}
    with tempfile.TemporaryDirectory() as directory:
        for name in kept:
            del os.environ[name]
        os.environ["SLUICE_DATA_DIR"] = directory
        try:
            __import__("jumpserver.settings")
        finally:
            del os.environ["SLUICE_DATA_DIR"]
            os.environ.update(kept)
    return list(REGISTER.values())


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table; a bar in a cell would end it."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |"
        for line in lines
    )


def settings_table() -> str:
    """Return the reference of settings."""

    def name_of(setting: Setting) -> str:
        twin = f" or `{setting.name}_FILE`" if setting.secret else ""
        return f"`{setting.name}`{twin}"

    def default_of(setting: Setting) -> str:
        return f"`{setting.default}`" if setting.default else "none"

    return _table(
        ("Setting", "Kind", "Default", "What it does"),
        (
            (name_of(setting), setting.kind, default_of(setting), setting.explain)
            for setting in all_settings()
        ),
    )


def _sentences(head: str, sentences: Mapping[Any, str]) -> str:
    return _table(
        (head, "What it means"),
        ((f"`{key.value}`", sentence) for key, sentence in sentences.items()),
    )


def audit_kinds() -> str:
    """Return the ledger's kinds, a table for each floor that writes them."""
    floors: dict[str, dict[Any, str]] = {}
    for kind, sentence in KINDS.items():
        floors.setdefault(kind.value.split(".")[0], {})[kind] = sentence
    return "\n\n".join(
        f"## {floor.capitalize()}\n\n{_sentences('Kind', kinds)}"
        for floor, kinds in floors.items()
    )


def file_results() -> str:
    """Return how an entry of a manifest can end."""
    return _sentences("Result", RESULT_SENTENCES)


def sftp_extensions() -> str:
    """Return what becomes of each known extension of SFTP."""
    rows = (
        (
            f"`{name.decode()}`",
            "offered" if extension.offered else "taken out",
            " or ".join(f"`{right}`" for right in sorted(extension.needs)) or "any",
            extension.why,
        )
        for name, extension in EXTENSIONS.items()
    )
    return _table(("Extension", "", "Right", "What it does"), rows)


def crypto_profiles() -> str:
    """Return the algorithms of each crypto profile, in order of preference."""
    parts = (
        ("Key exchange", "kex"),
        ("Ciphers", "ciphers"),
        ("MACs", "macs"),
        ("Host keys", "host_keys"),
        ("Signatures", "signatures"),
    )
    sections = []
    for profile in PROFILES.values():
        weak = " It is weak, and pages say so." if profile.weak else ""
        rows = (
            (what, ", ".join(f"`{name}`" for name in getattr(profile, field)))
            for what, field in parts
        )
        sections.append(
            f"## `{profile.name}`\n\n{profile.title}.{weak}\n\n"
            f"{_table(('Part', 'Algorithms, the preferred one first'), rows)}"
        )
    return "\n\n".join(sections)


def state_diagram(name: str) -> str:
    """Return one state machine as a picture, and as a table for those who read."""
    title, machine = MACHINES[name]
    followers: dict[str, list[str]] = {state.value: [] for state in machine}
    for start, end in steps_of(machine):
        followers[start].append(f"`{end}`")
    table = _table(
        ("State", "May be followed by"),
        (
            (f"`{state}`", ", ".join(ends) or "nothing: it is the end")
            for state, ends in followers.items()
        ),
    )
    picture = svg(machine, title=title)
    return f'<figure class="lifecycle">\n{picture}\n</figure>\n\n{table}'


LISTS: dict[str, Callable[[], str]] = {
    "settings": settings_table,
    "file results": file_results,
    "sftp extensions": sftp_extensions,
    "denial codes": lambda: _sentences("Code", DENIALS),
    "end reasons": lambda: _sentences("Reason", END_REASONS),
    "audit kinds": audit_kinds,
    "crypto profiles": crypto_profiles,
    **{name: (lambda name=name: state_diagram(name)) for name in MACHINES},
}


def _root_file(name: str) -> str:
    """Return a file of the root with its links turned to the pages made from them."""
    text = (ROOT / name).read_text("utf-8")
    text = text.replace("](docs/", "](")
    for file, page in PAGES.items():
        text = text.replace(f"]({file})", f"]({page})")
    return re.sub(r"\[([^]]+)\]\(LICENSE\)", r"\1 (the file `LICENSE`)", text)


def fill(text: str) -> str:
    """Return a page with its marks filled. Raises: KeyError for an unknown mark."""

    def put(mark: re.Match[str]) -> str:
        kind, name = mark.groups()
        return LISTS[name]() if kind == "from the code" else _root_file(name)

    return MARK.sub(put, text)


def _fill_page(app: Sphinx, _page: str, content: list[str]) -> None:
    for kind, name in MARK.findall(content[0]):
        if kind == "file":
            app.env.note_dependency(str(ROOT / name))
    content[0] = fill(content[0])


def setup(app: Sphinx) -> dict[str, object]:
    """Register with Sphinx. Pages follow the code, so each build reads them anew."""
    app.connect("source-read", _fill_page)
    app.connect(
        "env-get-outdated", lambda _app, env, _added, _changed, _gone: env.found_docs
    )
    return {"parallel_read_safe": True, "parallel_write_safe": True}
