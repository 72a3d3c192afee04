"""Password dialogues: prompts cut anywhere, refusals, and nothing that leaks."""

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.vault.dialogues import (
    SWITCH,
    UNIX,
    Conversation,
    Dialogue,
    Progress,
    dialogue_for,
)
from apps.vault.secret_values import Secret

CURRENT, NEW = Secret("old-secret-1"), Secret("new-secret-2")


def _talk(
    dialogue: Dialogue, printed: list[bytes], cuts: Iterable[int] = ()
) -> tuple[Conversation, list[bytes]]:
    """Return (conversation, what was typed) when `printed` comes in, cut at `cuts`.

    `printed` is a list: each text comes after the answer to the one before.
    """
    conversation = Conversation(dialogue, current=CURRENT, new=NEW)
    typed = []
    for text in printed:
        answer = b""
        places = [0, *sorted(c for c in set(cuts) if 0 < c < len(text)), len(text)]
        for start, end in itertools.pairwise(places):
            answer += conversation.feed(text[start:end])
        typed.append(answer)
    return conversation, typed


SWITCH_TALK = [
    b"\r\nswitch-old-01  access switch, authorized use only\r\n\r\nswitch-old-01#",
    b"password\r\nCurrent password: ",
    b"\r\nNew password: ",
    b"\r\nConfirm: ",
    b"\r\nPassword changed.\r\nswitch-old-01#",
]
UNIX_TALK = [
    b"Linux scada 6.1\r\n\x1b[01;32moperator@scada\x1b[00m:~$ ",
    b"LC_ALL=C passwd\r\nChanging password for operator.\r\nCurrent password: ",
    b"\r\nNew password: ",
    b"\r\nRetype new password: ",
    b"\r\npasswd: password updated successfully\r\noperator@scada:~$ ",
]


@given(st.lists(st.integers(1, 90)))
def test_the_switch_is_answered_in_order_wherever_its_words_are_cut(cuts):
    conversation, typed = _talk(SWITCH, SWITCH_TALK, cuts)
    assert conversation.progress is Progress.CHANGED
    assert typed == [
        b"password\r",
        b"old-secret-1\r",
        b"new-secret-2\r",
        b"new-secret-2\r",
        b"",
    ]


def test_passwd_is_answered_in_order():
    conversation, typed = _talk(UNIX, UNIX_TALK)
    assert conversation.progress is Progress.CHANGED
    assert typed[1:4] == [b"old-secret-1\r", b"new-secret-2\r", b"new-secret-2\r"]


def test_root_is_not_asked_for_the_current_password():
    talk = [b"root@scada:~# ", b"passwd\r\nNew password: ", *UNIX_TALK[3:]]
    conversation, typed = _talk(UNIX, talk)
    assert conversation.progress is Progress.CHANGED
    assert b"old-secret-1\r" not in typed


@pytest.mark.parametrize(
    ("dialogue", "talk", "words"),
    [
        (
            SWITCH,
            [*SWITCH_TALK[:4], b"\r\n% Passwords do not match\r\n"],
            "% Passwords",
        ),
        (
            SWITCH,
            [*SWITCH_TALK[:1], b"password\r\n% Invalid input\r\nsw#"],
            "% Invalid",
        ),
        (SWITCH, [*SWITCH_TALK[:4], b"\r\nsw#"], "back at its prompt"),
        (
            SWITCH,
            [*SWITCH_TALK[:4], b"\r\n% old-secret-1 new-secret-2\r\n"],
            "% <secret> <secret>",
        ),
        (
            UNIX,
            [
                *UNIX_TALK[:2],
                b"\r\npasswd: Authentication token manipulation error\r\n",
            ],
            "passwd: Authentication token",
        ),
        (UNIX, [*UNIX_TALK[:3], b"\r\nBAD PASSWORD: too short\r\n"], "BAD PASSWORD"),
    ],
)
def test_a_refusal_is_told_in_the_targets_words_without_the_secrets(
    dialogue, talk, words
):
    conversation, _ = _talk(dialogue, talk)
    assert conversation.progress is Progress.REFUSED
    assert words in conversation.refusal
    assert "secret-" not in conversation.refusal
    assert conversation.feed(b"Current password: ") == b""


def test_a_percent_sign_in_the_greeting_is_no_refusal():
    conversation, _ = _talk(SWITCH, [b"% 80 disk used %\r\n% ok\r\n", *SWITCH_TALK])
    assert conversation.progress is Progress.CHANGED


def test_secrets_are_typed_at_their_prompts_only():
    conversation, typed = _talk(SWITCH, [SWITCH_TALK[0], b"password\r\nsomething else"])
    assert typed == [b"password\r", b""]
    assert conversation.waits_for == "the current password"
    assert not conversation.new_was_sent


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_any_bytes_are_taken_and_nothing_secret_is_typed_for_them(pieces):
    conversation = Conversation(SWITCH, current=CURRENT, new=NEW)
    for piece in pieces:
        typed = conversation.feed(piece.replace(b":", b""))
        assert typed in (b"", b"password\r")


@pytest.mark.parametrize(("kind", "name"), [("switch", "switch"), ("hmi", "unix")])
def test_the_dialogue_follows_from_the_kind_of_asset(kind, name):
    assert dialogue_for(kind).name == name
