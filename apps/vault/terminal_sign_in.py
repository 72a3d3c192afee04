"""How the gateway signs in at a device's own prompts, as a state machine. Pure.

Some devices let anybody in by SSH and ask for name and password on the terminal. A
sign-in is fed what the device prints, cut anywhere, and says what to type; when the
device has been quiet for `QUIET_SECONDS` it is told so, for only then is the last line
a prompt and not the middle of a greeting. It is bounded in bytes here and in time by
whoever feeds it. What was typed is neither kept nor reported; what the person may see
is the prompt at the end and no more, as a careless device may print anything before.
"""

import re
from enum import Enum
from typing import Final

from apps.vault.secret_values import Secret

QUIET_SECONDS: Final = 0.3
"""Silence after which the last line counts as a prompt for commands."""

LONGEST_DIALOGUE: Final = 65536
"""Bytes a device may print before its prompt."""

_LONGEST_TEXT = 4096
_LONGEST_LINE = 200
_LONGEST_REFUSAL = 120
_MOST_ANSWERS = 8
_RETURN = b"\r"
# CSI and OSC sequences and charset choices (ECMA-48): colours around a prompt.
_ESCAPES = re.compile(
    rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()].|[=>])"
)

# In the languages of the plants, as far as one word tells.
_NAME = re.compile(
    rb"(?i)(?:log[io]n|user(?: ?name| ?id)?|account|benutzer(?:name)?|utilisateur"
    rb"|identifiant|usuario|usu.{1,2}rio|gebruiker(?:snaam)?)\s*[:>]\s*\Z"
)
_PASSWORD = re.compile(
    rb"(?i)(?:pass ?(?:word|wort|code|phrase)|\bpin\b|kennwort|wachtwoord"
    rb"|mot de passe|contrase|senha)[^:>]*[:>]\s*\Z"
)
_CHANGE = re.compile(rb"(?i)\b(?:new|old|current|change|retype|confirm)\b")
_KEYPRESS = re.compile(rb"(?i)(?:press|hit|type)\s.*?\b(?:enter|return|any key)\b.*\Z")
_PROMPT = re.compile(rb"[#>$%\]]\s?\Z")
_ELEVATED = re.compile(rb"#\s?\Z")
_EXPIRED = re.compile(
    rb"(?i)expired|(?:must|required to|need to|have to) (?:be )?change"
)
_NO = re.compile(
    rb"(?i)incorrect|invalid|fail|denied|reject|locked|disabled|bad |wrong|too many"
)


class SignInProgress(Enum):
    """How a sign-in stands."""

    TALKING = "talking"
    SIGNED_IN = "signed in"
    REFUSED = "refused"


class TerminalSignIn:
    """One sign-in. Feed it until `progress` is not TALKING.

    With `elevates` it types `enable` at the prompt, and the same password again.
    """

    def __init__(self, *, login: str, password: Secret, elevates: bool = False) -> None:
        self._login = login
        self._password = password
        self._elevates = elevates
        self._text = b""
        self._printed = 0
        self._answers = 0
        self._named = False
        self._passwords = 0
        self._enables = 0
        self.progress = SignInProgress.TALKING
        self.refusal = ""
        self.was_refused = False
        """True when the device itself said no to the password."""
        self.prompt = b""

    def feed(self, printed: bytes) -> bytes:
        """Take what the device printed; return what to type, if anything."""
        if self.progress is not SignInProgress.TALKING:
            return b""
        self._printed += len(printed)
        if self._printed > LONGEST_DIALOGUE:
            return self._refuse("it printed too much before its prompt")
        self._text = (self._text + printed)[-_LONGEST_TEXT:]
        line = self._last_line()
        if _PASSWORD.search(line):
            return self._give_password(line)
        if _NAME.search(line):
            return self._give_name()
        if _KEYPRESS.search(line):
            return self._type(b"")
        return b""

    def quiet(self) -> bytes:
        """Know that nothing came for a while; return what to type, if anything."""
        line = self._last_line()
        if self.progress is not SignInProgress.TALKING or not _PROMPT.search(line):
            return b""
        if not self._passwords:
            # It does not know who this is, so neither would the recording.
            return self._refuse("it showed a prompt and never asked for the password")
        if self._elevates and not _ELEVATED.search(line):
            if self._enables:
                return self._refuse(self._reason("it did not take `enable`"))
            self._enables += 1
            return self._type(b"enable")
        self.progress = SignInProgress.SIGNED_IN
        self.prompt = self._without_secret(line)
        self._text = b""
        return b""

    def give_up(self, why: str) -> None:
        """Refuse because of something outside: it closed, or the time is up."""
        if self.progress is SignInProgress.TALKING:
            self._refuse(self._reason(f"{why}; waited for {self._waits_for}"))

    @property
    def _waits_for(self) -> str:
        if self._enables:
            return "the prompt after `enable`"
        if self._passwords:
            return "its prompt for commands"
        return "the question for the password"

    def _give_name(self) -> bytes:
        if self._named or self._passwords:
            self.was_refused = self._passwords > self._enables
            return self._refuse(self._reason("it asked for the name again"))
        self._named = True
        return self._type(self._login.encode())

    def _give_password(self, line: bytes) -> bytes:
        if self._passwords and _CHANGE.search(line):
            return self._refuse("the password has expired: change it on the device")
        if self._passwords > self._enables:
            self.was_refused = not self._enables
            return self._refuse(self._reason("it asked for the password again"))
        self._passwords += 1
        return self._type(self._password.reveal().encode())

    def _reason(self, otherwise: str) -> str:
        """Return why: expired, the device's own words, or `otherwise`."""
        if not self._passwords:
            return otherwise
        for line in self._lines():
            if _EXPIRED.search(line):
                return "the password has expired: change it on the device"
            if _NO.search(line):
                self.was_refused = not self._enables
                said = self._without_secret(line).decode("utf-8", "replace")
                return f'it said "{said.strip()}"'
        return otherwise

    def _type(self, words: bytes) -> bytes:
        self._answers += 1
        if self._answers > _MOST_ANSWERS:
            return self._refuse("it asked too many questions")
        self._text = b""
        return words + _RETURN

    def _lines(self) -> list[bytes]:
        return re.split(rb"[\r\n]", _ESCAPES.sub(b"", self._text))

    def _last_line(self) -> bytes:
        return self._lines()[-1][-_LONGEST_LINE:]

    def _without_secret(self, text: bytes) -> bytes:
        return text.replace(self._password.reveal().encode(), b"")

    def _refuse(self, words: str) -> bytes:
        self.progress = SignInProgress.REFUSED
        self._text = b""
        self.refusal = "".join(c if c.isprintable() else " " for c in words)[
            :_LONGEST_REFUSAL
        ]
        return b""
