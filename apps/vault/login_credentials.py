"""A credential as it is used to log in to a target. Pure."""

import json
import secrets
import string
from dataclasses import dataclass

from apps.vault.secret_values import Secret

_LONGEST_ANSWER = 200
_PASSWORD_LETTERS = string.ascii_letters + string.digits
# 24 letters and digits are 142 bits; some old devices take no other characters.
_PASSWORD_LENGTH = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginCredential:
    """A private key (OpenSSH PEM), perhaps with a certificate line, or a password."""

    private_key: Secret | None = None
    certificate: str | None = None
    password: Secret | None = None

    def without_secrets(self, text: str) -> str:
        """Return `text`, which a target sent, fit for a log or a receipt."""
        if self.password is not None:
            text = text.replace(self.password.reveal(), "<secret>")
        printable = "".join(c if c.isprintable() else " " for c in text)
        return " ".join(printable.split())[:_LONGEST_ANSWER]


def new_password() -> Secret:
    """Return a random password of 24 letters and digits, at least one of each kind."""
    while True:
        text = "".join(
            secrets.choice(_PASSWORD_LETTERS) for _ in range(_PASSWORD_LENGTH)
        )
        if (
            any(c.islower() for c in text)
            and any(c.isupper() for c in text)
            and any(c.isdigit() for c in text)
        ):
            return Secret(text)


def packed(credential: LoginCredential) -> Secret:
    """Return `credential` as one secret (JSON), to be sealed with its lease."""
    parts = {
        "private_key": credential.private_key and credential.private_key.reveal(),
        "certificate": credential.certificate,
        "password": credential.password and credential.password.reveal(),
    }
    return Secret(json.dumps({name: part for name, part in parts.items() if part}))


def unpacked(text: Secret) -> LoginCredential:
    """Return what `packed` was given."""
    parts: dict[str, str] = json.loads(text.reveal())
    return LoginCredential(
        private_key=Secret(parts["private_key"]) if "private_key" in parts else None,
        certificate=parts.get("certificate"),
        password=Secret(parts["password"]) if "password" in parts else None,
    )
