"""What to answer when a target asks for name and password by prompts (RFC 4256). Pure.

The texts are the target's own and may be anything, in any language; what counts is that
one answer is hidden (the password) and that another, if any, asks for the name.
"""

import re
from collections.abc import Sequence

from apps.vault.secret_values import Secret

MOST_PROMPTS = 4

_NAME = re.compile(r"(?i)log[io]n|user|account|name")
_PASSWORD = re.compile(r"(?i)pass ?(?:word|code|phrase)|\bpin\b")
_CHANGE = re.compile(
    r"(?i)\b(?:new|old|current|retype|re-enter|confirm)\b.{0,20}(?:pass ?\w+|pin)\b"
)
_EXPIRED = re.compile(r"(?i)(?:pass ?\w+|pin)\b.{0,20}\bexpired|change your pass ?\w+")


class PasswordExpiredError(Exception):
    """The target wants a new password before it lets anybody in."""


class UnknownQuestionError(Exception):
    """The target asks for something the vault does not hold."""


def answers_to(
    instructions: str,
    prompts: Sequence[tuple[str, bool]],
    *,
    login: str,
    password: Secret,
) -> list[str]:
    """Return one answer for each of `prompts`: (text, whether the answer is echoed).

    Raises: PasswordExpiredError, UnknownQuestionError.
    """
    if not prompts:
        return []
    texts = [instructions, *(text for text, _ in prompts)]
    if any(_CHANGE.search(text) or _EXPIRED.search(text) for text in texts):
        raise PasswordExpiredError
    hidden = [not echo or bool(_PASSWORD.search(text)) for text, echo in prompts]
    names = [bool(_NAME.search(text)) for text, _ in prompts]
    known = all(secret or name for secret, name in zip(hidden, names, strict=True))
    if len(prompts) > MOST_PROMPTS or sum(hidden) > 1 or not known:
        raise UnknownQuestionError
    return [password.reveal() if secret else login for secret in hidden]
