"""How a password is changed in a terminal, as data and a state machine. Pure.

A conversation is fed what the target prints and returns what to type. Answers to
prompts are secrets, so nothing that was typed or printed is kept or reported, except a
refusal in the target's own words with the secrets taken out.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum

from apps.vault.secret_values import Secret

_LONGEST_TEXT = 65536
_LONGEST_REFUSAL = 120
_RETURN = b"\r"
# CSI and OSC sequences and charset choices (ECMA-48): colours around a prompt.
_ESCAPES = re.compile(
    rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()].)"
)


class Answer(StrEnum):
    """What is typed at a prompt."""

    COMMAND = "command"
    CURRENT = "current"
    NEW = "new"


@dataclass(frozen=True, slots=True)
class Step:
    """When the text ends with `prompt`, type `answer`; some targets skip a step."""

    prompt: re.Pattern[bytes]
    answer: Answer
    may_be_skipped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialogue:
    """The prompts of one kind of target, in order, and how it says yes or no."""

    name: str
    command: str
    steps: tuple[Step, ...]
    success: re.Pattern[bytes]
    refusal: re.Pattern[bytes]
    shell_prompt: re.Pattern[bytes]


_SHELL_PROMPT = re.compile(rb"[#>$%]\s*\Z")

SWITCH = Dialogue(
    name="switch",
    command="password",
    steps=(
        Step(_SHELL_PROMPT, Answer.COMMAND),
        Step(re.compile(rb"(?i)current password:\s*\Z"), Answer.CURRENT),
        Step(re.compile(rb"(?i)new password:\s*\Z"), Answer.NEW),
        Step(re.compile(rb"(?i)confirm[^:\n]*:\s*\Z"), Answer.NEW),
    ),
    success=re.compile(rb"(?i)password changed"),
    refusal=re.compile(rb"(?m)^%[^\r\n]*(?=[\r\n])"),
    shell_prompt=_SHELL_PROMPT,
)

# passwd(1) of Linux-PAM and of BusyBox; root is not asked for the current password.
UNIX = Dialogue(
    name="unix",
    command="LC_ALL=C passwd",
    steps=(
        Step(_SHELL_PROMPT, Answer.COMMAND),
        Step(
            re.compile(rb"(?i)(?:current|old)[^:\n]*password:\s*\Z"),
            Answer.CURRENT,
            may_be_skipped=True,
        ),
        Step(re.compile(rb"(?i)new password:\s*\Z"), Answer.NEW),
        Step(re.compile(rb"(?i)retype[^:\n]*password:\s*\Z"), Answer.NEW),
    ),
    success=re.compile(
        rb"(?i)password (?:updated|changed)|password for \S+ changed"
        rb"|tokens updated successfully"
    ),
    refusal=re.compile(
        rb"(?im)^(?:passwd:(?![^\r\n]*(?:success|changed))|bad password|sorry)"
        rb"[^\r\n]*(?=[\r\n])"
    ),
    shell_prompt=_SHELL_PROMPT,
)


def dialogue_for(asset_kind: str) -> Dialogue:
    """Return how a password is changed on this kind of asset (`AssetKind`)."""
    return SWITCH if asset_kind == "switch" else UNIX


class Progress(Enum):
    """How a conversation stands."""

    TALKING = "talking"
    CHANGED = "changed"
    REFUSED = "refused"


class Conversation:
    """One run through a dialogue. Feed it until `progress` is not TALKING."""

    def __init__(self, dialogue: Dialogue, *, current: Secret, new: Secret) -> None:
        self._dialogue = dialogue
        self._answers: Mapping[Answer, Secret] = {
            Answer.COMMAND: Secret(dialogue.command),
            Answer.CURRENT: current,
            Answer.NEW: new,
        }
        self._next = 0
        self._text = b""
        self.progress = Progress.TALKING
        self.refusal = ""

    @property
    def waits_for(self) -> str:
        """Return what the target has not said yet, in words, for an error message."""
        if self._next == len(self._dialogue.steps):
            return "whether the password was changed"
        return {
            Answer.COMMAND: "a prompt for commands",
            Answer.CURRENT: "the current password",
            Answer.NEW: "the new password",
        }[self._dialogue.steps[self._next].answer]

    @property
    def new_was_sent(self) -> bool:
        """Say whether the new password may be in force, whatever was answered."""
        return any(
            step.answer is Answer.NEW for step in self._dialogue.steps[: self._next]
        )

    def feed(self, printed: bytes) -> bytes:
        """Take what the target printed, cut anywhere; return what to type, if any."""
        if self.progress is not Progress.TALKING:
            return b""
        self._text = (self._text + printed)[-_LONGEST_TEXT:]
        text = _ESCAPES.sub(b"", self._text)
        if self._next > 0 and (refused := self._dialogue.refusal.search(text)):
            return self._refuse(refused[0])
        if self._next == len(self._dialogue.steps) and (
            self._dialogue.success.search(text)
        ):
            self.progress = Progress.CHANGED
            return b""
        # The line end keeps an echoed command from being taken for a prompt.
        if (
            self._next > 0
            and b"\n" in text
            and self._dialogue.shell_prompt.search(text)
        ):
            return self._refuse(b"back at its prompt without changing it")
        for place in range(self._next, len(self._dialogue.steps)):
            step = self._dialogue.steps[place]
            if step.prompt.search(text):
                self._next, self._text = place + 1, b""
                return self._answers[step.answer].reveal().encode() + _RETURN
            if not step.may_be_skipped:
                break
        return b""

    def _refuse(self, words: bytes) -> bytes:
        self.progress = Progress.REFUSED
        text = words.decode("utf-8", "replace")
        for answer in (Answer.CURRENT, Answer.NEW):
            text = text.replace(self._answers[answer].reveal(), "<secret>")
        self.refusal = "".join(c if c.isprintable() else " " for c in text)[
            :_LONGEST_REFUSAL
        ]
        return b""
