"""What is answered when a target asks by prompts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.vault.secret_values import Secret
from apps.vault.sign_in_prompts import (
    MOST_PROMPTS,
    PasswordExpiredError,
    UnknownQuestionError,
    answers_to,
)

PASSWORD = "s3cret"


def answers(*prompts: tuple[str, bool], said: str = "") -> list[str]:
    return answers_to(said, prompts, login="operator", password=Secret(PASSWORD))


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        ([], []),
        ([("Password: ", False)], [PASSWORD]),
        ([("\u5bc6\u7801\uff1a", False)], [PASSWORD]),
        ([("", False)], [PASSWORD]),
        ([("login: ", True), ("Secret? ", False)], ["operator", PASSWORD]),
        ([("Password (shown): ", True)], [PASSWORD]),
    ],
)
def test_names_and_passwords(prompts, expected):
    assert answers(*prompts) == expected


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        ([("New password: ", False)], ""),
        ([("Retype new password: ", False)], ""),
        ([("Password: ", False)], "Your password has expired."),
        ([("Current password: ", False), ("New password: ", False)], ""),
    ],
)
def test_expired_passwords(prompts, said):
    with pytest.raises(PasswordExpiredError):
        answers(*prompts, said=said)


@pytest.mark.parametrize(
    "prompts",
    [
        [("Password: ", False), ("Token: ", False)],
        [("Do you agree? ", True)],
        [("login: ", True)] * (MOST_PROMPTS + 1),
    ],
)
def test_questions_the_vault_has_no_answer_to(prompts):
    with pytest.raises(UnknownQuestionError):
        answers(*prompts)


@given(st.text(), st.lists(st.tuples(st.text(), st.booleans()), max_size=6))
def test_at_most_one_password_goes_out(said, prompts):
    try:
        given_answers = answers(*prompts, said=said)
    except (PasswordExpiredError, UnknownQuestionError):
        return
    assert len(given_answers) == len(prompts)
    assert given_answers.count(PASSWORD) <= 1
    assert set(given_answers) <= {PASSWORD, "operator"}
