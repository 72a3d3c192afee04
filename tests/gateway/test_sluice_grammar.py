"""Whatever is sent as a command line: a command, one line about it, or not ours."""

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.gateway.commands.grammar import (
    LINE_LIMIT,
    Command,
    HelpAsked,
    UsageError,
    parse_line,
)

WORDS = st.one_of(
    st.sampled_from(
        [
            *("sluice", "freeze", "message", "watch", "handover", "sessions"),
            *("S-7QK2MD", "--yes", "--json", "--reason", "--back", "--channel"),
            *("-h", "--", "7"),
        ]
    ),
    st.text(max_size=12),
)


def read(line: str) -> Command | str | None:
    try:
        return parse_line(line)
    except HelpAsked as asked:
        return f"help {asked}"
    except UsageError as error:
        return f"usage {error}"


@given(st.one_of(st.text(max_size=60), st.lists(WORDS, max_size=9).map(" ".join)))
def test_anything_is_read_or_refused_in_one_line(line):
    found = read(line)
    if line.split()[:1] != ["sluice"]:
        assert found is None
    elif isinstance(found, str) and found.startswith("usage "):
        assert found.isprintable()
        assert len(found) < 500
    else:
        assert isinstance(found, Command | str)


@given(
    st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), min_size=1).filter(
        lambda text: text.isprintable() and not text.startswith("-") and text.strip()
    )
)
def test_a_reason_arrives_as_it_was_quoted(reason):
    line = f"sluice freeze S-7QK2MD --yes --reason {shlex.quote(reason)}"
    if len(line) > LINE_LIMIT:
        return
    assert parse_line(line) == Command(
        name="freeze", session="S-7QK2MD", reason=reason, yes=True
    )


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("sluice sessions", Command(name="sessions")),
        ("  sluice sessions --json ", Command(name="sessions", json=True)),
        (
            "sluice watch S-1 --channel 2",
            Command(name="watch", session="S-1", channel=2),
        ),
        (
            "sluice message S-1 two 'words  here' --yes",
            Command(name="message", session="S-1", text="two words  here", yes=True),
        ),
        (
            "sluice message S-1 -- --yes",
            Command(name="message", session="S-1", text="--yes"),
        ),
        (
            "sluice handover S-1 anna",
            Command(name="handover", session="S-1", to="anna"),
        ),
        (
            "sluice handover S-1 --back",
            Command(name="handover", session="S-1", back=True),
        ),
    ],
)
def test_what_a_line_means(line, command):
    assert parse_line(line) == command


@pytest.mark.parametrize(
    "line",
    [
        "sluice watch",
        "sluice watch S-1 S-2",
        "sluice watch S-1 --chan 2",
        "sluice watch S-1 --channel 99999999",
        "sluice watch S-1 --channel \u0664",
        "sluice handover S-1",
        "sluice handover S-1 anna --back",
        "sluice sessions; id",
        "sluice sessions $(id)",
        "sluice sessions `id`",
        "sluice freeze S-1 --reason",
        "sluice 'freeze",
        "sluice message S-1 \u202eevil",
        f"sluice message S-1 {'x' * LINE_LIMIT}",
    ],
)
def test_what_is_refused(line):
    with pytest.raises(UsageError):
        parse_line(line)
