"""Who is on the line: public key and then one-time code, or a grace. Small on purpose
(R24).

This module decides; `server` only carries SSH messages to it. Rules:

* A key counts when it belongs to the enabled person named and a signature over this
  connection's session id was verified; offering a key proves nothing (R4).
* The code counts only after the key, for the same user name (R4).
* A grace takes the code's place only after the key was proved, once for each proof; how
  long it holds for what the user name asks for is decided in `access.policy` (R15).
* A different user name forgets everything (R11), also while an answer is on its way.
* Empty and blank codes are refused without asking anybody (R12), and so is every code
  without the consent that is required.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Protocol

from apps.accounts.models import User
from apps.accounts.operations import FactorVerdict
from apps.gateway.user_string import ParsedLogin, UserStringError, parse_user_string

CODE_TRIES: Final = 3
"""Wrong codes on one connection; the account's own throttle counts across them."""

CONSENT_WORD: Final = "yes"

KEY_TRIES: Final = 20
"""Keys that are not the person's, as an agent offers all it has."""


class Stage(Enum):
    """What is missing."""

    NOBODY = auto()
    KEY = auto()
    CODE = auto()
    NOTHING = auto()


@dataclass(frozen=True, slots=True)
class KeyOwner:
    """The person a usable key belongs to."""

    user: User
    key_id: uuid.UUID
    has_second_factor: bool


class Factors(Protocol):
    """Where keys and codes are looked up."""

    async def find_key(self, handle: str, fingerprint: str) -> KeyOwner | None:
        """Return the owner when the key is a usable one of the person `handle`."""

    async def check_code(self, owner: KeyOwner, code: str) -> FactorVerdict:
        """Return whether the code is right; each code is accepted once."""

    async def sign_in_by_grace(
        self, owner: KeyOwner, login: ParsedLogin
    ) -> dt.timedelta | None:
        """Sign in by the key alone; return the age of the full sign-in, None if not."""


class Authentication:
    """The progress of one connection."""

    def __init__(self, factors: Factors, *, consent_required: bool = False) -> None:
        self._factors = factors
        self.consent_required = consent_required
        self._round = 0
        self._user_string: str | None = None
        self._known: dict[str, KeyOwner] = {}
        self._owner: KeyOwner | None = None
        self._complete = False
        self.grace_age: dt.timedelta | None = None
        """How old the full sign-in was, when a grace completed this one."""
        self.login: ParsedLogin | None = None
        self.wrong_keys = 0
        self.wrong_codes = 0
        self.wait_seconds = 0

    @property
    def stage(self) -> Stage:
        """Return what is asked for next."""
        if self.login is None:
            return Stage.NOBODY
        if self._owner is None:
            return Stage.KEY
        return Stage.NOTHING if self._complete else Stage.CODE

    @property
    def owner(self) -> KeyOwner | None:
        """Return whose key was proved; complete only when `stage` is NOTHING."""
        return self._owner

    @property
    def exhausted(self) -> bool:
        """Say whether the connection has used up its tries."""
        return self.wrong_codes >= CODE_TRIES or self.wrong_keys >= KEY_TRIES

    def begin(self, user_string: str) -> None:
        """Start from nothing as `user_string` (R11).

        Raises: UserStringError; nobody can sign in until the next `begin` then.
        """
        self._round += 1
        self._user_string = user_string
        self._known = {}
        self._owner = None
        self._complete = False
        self.grace_age = None
        self.login = None
        self.login = parse_user_string(user_string)

    def _is_current(self, user_string: str, stage: Stage) -> bool:
        return user_string == self._user_string and self.stage is stage

    async def key_offered(self, user_string: str, fingerprint: str) -> bool:
        """Return whether a key may be signed with. Proves nothing by itself (R4)."""
        if not self._is_current(user_string, Stage.KEY) or self.login is None:
            return False
        if fingerprint in self._known:
            # It was offered, now it signs. Whether it is still a usable one is asked
            # again in the transaction that writes the sign-in down.
            return True
        this_round = self._round
        owner = await self._factors.find_key(self.login.handle, fingerprint)
        if this_round != self._round:
            return False
        if owner is None:
            self.wrong_keys += 1
            return False
        self._known[fingerprint] = owner
        return True

    def key_proved(self, user_string: str, fingerprint: str) -> bool:
        """Count the key: its signature over the session was verified just now."""
        if not self._is_current(user_string, Stage.KEY):
            return False
        owner = self._known.get(fingerprint)
        if owner is None:
            return False
        self._owner = owner
        return True

    async def try_grace(self, user_string: str) -> bool:
        """Return whether a grace completes the sign-in, so that no code is asked."""
        owner, login = self._owner, self.login
        if not self._is_current(user_string, Stage.CODE) or not (owner and login):
            return False
        if self.exhausted or self.wrong_codes:
            return False
        this_round = self._round
        age = await self._factors.sign_in_by_grace(owner, login)
        if this_round != self._round or age is None:
            return False
        self.grace_age = age
        self._complete = True
        return True

    def _code_in(self, answers: Sequence[str]) -> str:
        """Return the code, where consent is required only behind a yes; else empty."""
        if not self.consent_required:
            return answers[0].strip() if len(answers) == 1 else ""
        agreed = len(answers) == 2 and answers[1].strip().lower() == CONSENT_WORD
        return answers[0].strip() if agreed else ""

    async def code_given(self, user_string: str, answers: Sequence[str]) -> bool:
        """Return whether the one-time code completes the sign-in."""
        owner = self._owner
        if not self._is_current(user_string, Stage.CODE) or owner is None:
            return False
        code = self._code_in(answers)
        if not code or self.exhausted:
            self.wrong_codes += 1
            return False
        this_round = self._round
        verdict = await self._factors.check_code(owner, code)
        if this_round != self._round:
            return False
        if not verdict.accepted:
            self.wrong_codes += 1
            self.wait_seconds = verdict.wait_seconds
            return False
        self._complete = True
        return True


__all__ = [
    "Authentication",
    "Factors",
    "KeyOwner",
    "Stage",
    "UserStringError",
]
