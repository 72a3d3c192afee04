"""R-secrets: a secret shows itself in no way but `reveal`."""

import copy
import dataclasses
import json
import logging
import pickle
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.vault.secret_values import Secret

SAMPLE = "hunter2-and-more"


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        lambda s: f"{s}",
        lambda s: f"{s!r:>40}",
        lambda s: f"{s:.3}",
        lambda s: f"{s:s}",
        lambda s: "%s %r" % (s, s),  # noqa: UP031 - the old way must not leak, too
        lambda s: str([s, {"x": s}]),
    ],
)
def test_no_format_shows_it(show):
    shown = show(Secret(SAMPLE))
    assert "hun" not in shown
    assert "<secret>" in shown


def test_logs_and_tracebacks_do_not_show_it(caplog):
    secret = Secret(SAMPLE)
    try:
        raise ValueError(secret)
    except ValueError as error:
        logging.getLogger("x").exception("failed with %s", secret)
        text = "".join(traceback.format_exception(error))
    assert SAMPLE not in caplog.text
    assert SAMPLE not in text


@pytest.mark.parametrize("take", [pickle.dumps, copy.copy, copy.deepcopy, json.dumps])
def test_it_is_neither_pickled_nor_copied_nor_serialised(take):
    with pytest.raises(TypeError):
        take(Secret(SAMPLE))


def test_a_dataclass_with_it_is_not_turned_into_plain_values():
    @dataclasses.dataclass
    class Holder:
        secret: Secret

    assert SAMPLE not in repr(Holder(Secret(SAMPLE)))
    with pytest.raises(TypeError):
        dataclasses.asdict(Holder(Secret(SAMPLE)))


def test_it_has_no_dictionary_and_no_hash():
    with pytest.raises(TypeError):
        vars(Secret(SAMPLE))
    with pytest.raises(TypeError):
        hash(Secret(SAMPLE))


def test_secrets_do_not_nest():
    with pytest.raises(TypeError):
        Secret(Secret(SAMPLE))  # type: ignore[arg-type]


@given(st.text(), st.text())
def test_equality_is_that_of_the_texts(one, other):
    assert (Secret(one) == Secret(other)) is (one == other)
    assert Secret(one).reveal() == one
    assert Secret(one) != one


@pytest.mark.parametrize(
    ("text", "is_blank"), [("", True), (" \t\n", True), ("x", False)]
)
def test_blank_is_known_without_revealing(text, is_blank):
    assert Secret(text).is_blank() is is_blank
