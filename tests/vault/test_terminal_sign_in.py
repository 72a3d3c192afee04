"""The sign-in at a device's own prompts, as tables and as anything at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.vault.secret_values import Secret
from apps.vault.terminal_sign_in import (
    LONGEST_DIALOGUE,
    SignInProgress,
    TerminalSignIn,
)

PASSWORD = "s3cret pass"
LOGIN = "operator"


def sign_in(**options) -> TerminalSignIn:
    return TerminalSignIn(login=LOGIN, password=Secret(PASSWORD), **options)


def talk(device: TerminalSignIn, *said: bytes | None) -> bytes:
    """Feed what was said, None for silence; return all that was typed."""
    return b"".join(
        device.quiet() if words is None else device.feed(words) for words in said
    )


TOO_MUCH = b"x" * (LONGEST_DIALOGUE + 1)
TYPED = f"{LOGIN}\r{PASSWORD}\r".encode()


@pytest.mark.parametrize(
    ("said", "prompt"),
    [
        ([b"login: ", b"operator\r\nPassword: ", b"\r\n$ ", None], b"$ "),
        (
            [
                b"\r\n### WARNING ###\r\n\x1b[1mUser Access\x1b[0m\r\nUsername:",
                b"operator\r\nPassword:",
                b"\r\nLast failed login: never\r\nsw01>",
                None,
            ],
            b"sw01>",
        ),
        ([b"Benutzer: ", b"Kennwort: ", b"\r\nplc [main] >", None], b"plc [main] >"),
        (
            [b"User Name:", b"Passcode for user: ", b"\r\n[admin@rtr]", None],
            b"[admin@rtr]",
        ),
        ([b"log", b"in", b": ", b"Pass", b"word: ", b"\r\nx", b"#", None], b"x#"),
    ],
)
def test_devices_let_the_gateway_in(said, prompt):
    device = sign_in()
    assert talk(device, *said) == TYPED
    assert device.progress is SignInProgress.SIGNED_IN
    assert device.prompt == prompt


def test_a_key_is_pressed_where_one_is_asked_for():
    device = sign_in()
    typed = talk(device, b"Press RETURN to get started", b"\r\nlogin: ")
    assert typed == b"\r" + LOGIN.encode() + b"\r"


def test_enable_is_answered_with_the_same_password():
    device = sign_in(elevates=True)
    said = [b"Password: ", b"\r\nsw>", None, b"enable\r\nPassword: ", b"\r\nsw#", None]
    password = PASSWORD.encode() + b"\r"
    assert talk(device, *said) == password + b"enable\r" + password
    assert device.progress is SignInProgress.SIGNED_IN


@pytest.mark.parametrize(
    ("said", "reason", "was_refused"),
    [
        (
            [b"login: ", b"Password: ", b"\r\nLogin incorrect\r\nlogin: "],
            'it said "Login incorrect"',
            True,
        ),
        (
            [b"login: ", b"Password: ", b"\r\nlogin: "],
            "it asked for the name again",
            True,
        ),
        ([b"Password: ", b"\r\nPassword: "], "it asked for the password again", True),
        (
            [b"login: ", b"Password: ", b"\r\nNew password: "],
            "the password has expired: change it on the device",
            False,
        ),
        (
            [b"Password: ", b"\r\nYour password has expired.\r\nPassword: "],
            "the password has expired: change it on the device",
            True,
        ),
        ([b"login: ", b"login: "], "it asked for the name again", False),
        (
            [b"sw01#", None],
            "it showed a prompt and never asked for the password",
            False,
        ),
        (
            [b"x" * (LONGEST_DIALOGUE + 1)],
            "it printed too much before its prompt",
            False,
        ),
        ([b"Press any key"] * 9, "it asked too many questions", False),
    ],
)
def test_refusals_and_their_reasons(said, reason, was_refused):
    device = sign_in()
    talk(device, *said)
    assert device.progress is SignInProgress.REFUSED
    assert device.refusal == reason
    assert device.was_refused is was_refused


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ([b"hello"], "it closed; waited for the question for the password"),
        ([b"Password: ", b"\r\n"], "it closed; waited for its prompt for commands"),
        ([b"Password: ", b"\r\nAccess denied\r\n"], 'it said "Access denied"'),
    ],
)
def test_a_device_that_closes(said, reason):
    device = sign_in()
    talk(device, *said)
    device.give_up("it closed")
    assert device.refusal == reason


def test_enable_that_is_refused():
    device = sign_in(elevates=True)
    talk(device, b"Password: ", b"\r\nsw>", None, b"enable\r\nPassword: ")
    talk(device, b"\r\n% Access denied\r\nsw>", None)
    assert device.refusal == 'it said "% Access denied"'
    assert not device.was_refused, "the sign-in itself was accepted"


@given(
    st.lists(
        st.one_of(
            st.none(),
            st.binary(max_size=40),
            st.sampled_from(
                [b"login: ", b"Password: ", b"sw>", b"#", PASSWORD.encode(), b"\r\n"]
            ),
        ),
        max_size=30,
    ),
    st.booleans(),
)
def test_whatever_a_device_says(said, elevates):
    """It types the secret at most twice, and repeats it to nobody."""
    device = sign_in(elevates=elevates)
    typed = talk(device, *said)
    assert typed.count(PASSWORD.encode()) <= 1 + elevates
    assert PASSWORD not in device.refusal
    assert PASSWORD.encode() not in device.prompt
    assert device.refusal.isprintable()
    if device.progress is not SignInProgress.TALKING:
        assert device.feed(b"login: ") == device.quiet() == b""
