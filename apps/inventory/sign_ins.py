"""Where an asset asks for the credential of an account. Pure."""

from enum import StrEnum


class SignIn(StrEnum):
    """Who asks: SSH itself, or the device's own prompts after it."""

    SSH = "ssh"
    TERMINAL = "terminal"
    TERMINAL_ENABLE = "terminal-enable"


TITLES: dict[SignIn, str] = {
    SignIn.SSH: "SSH",
    SignIn.TERMINAL: "The device's own prompts on the terminal",
    SignIn.TERMINAL_ENABLE: (
        "The device's own prompts, then enable with the same password"
    ),
}
