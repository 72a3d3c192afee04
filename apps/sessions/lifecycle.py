"""Which state may follow which, for sessions, and why a session ends. Pure."""

from dataclasses import dataclass
from enum import StrEnum


class SessionState(StrEnum):
    """States of a session. Only an active one may open channels."""

    OPENING = "opening"
    ACTIVE = "active"
    FROZEN = "frozen"
    ENDING = "ending"
    ENDED = "ended"


TRANSITIONS: dict[SessionState, frozenset[SessionState]] = {
    SessionState.OPENING: frozenset({SessionState.ACTIVE, SessionState.ENDED}),
    SessionState.ACTIVE: frozenset(
        {SessionState.FROZEN, SessionState.ENDING, SessionState.ENDED}
    ),
    SessionState.FROZEN: frozenset(
        {SessionState.ACTIVE, SessionState.ENDING, SessionState.ENDED}
    ),
    SessionState.ENDING: frozenset({SessionState.ENDED}),
    SessionState.ENDED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class AskedBy:
    """The way by which somebody controls a live session, for the ledger.

    `door` is `portal`, `api`, `ssh` (the `sluice` commands), or `terminal` (the keys of
    the session's own terminal).
    """

    door: str
    source_address: str = ""


IN_PORTAL = AskedBy("portal")

LIVE = frozenset(SessionState) - {SessionState.ENDED}


class EndReason(StrEnum):
    """Why a session ended."""

    FINISHED = "finished"
    EXPIRED = "expired"
    REVOKED = "revoked"
    TERMINATED = "terminated"
    IDLE = "idle"
    TARGET_LOST = "target_lost"
    CLIENT_LOST = "client_lost"
    GATEWAY_LOST = "gateway_lost"
    GATEWAY_STOPPED = "gateway_stopped"
    RECORDING_FAILED = "recording_failed"
    REFUSED = "refused"


SENTENCES: dict[EndReason, str] = {
    EndReason.FINISHED: "The engineer finished.",
    EndReason.EXPIRED: "The time was up.",
    EndReason.REVOKED: "The access was revoked.",
    EndReason.TERMINATED: "Somebody ended the session.",
    EndReason.IDLE: "Nothing was typed for too long.",
    EndReason.TARGET_LOST: "The asset closed the connection or could not be reached.",
    EndReason.CLIENT_LOST: "The engineer's connection broke.",
    EndReason.GATEWAY_LOST: "The gateway was lost; the recording goes up to then.",
    EndReason.GATEWAY_STOPPED: "The gateway was stopped in good order.",
    EndReason.RECORDING_FAILED: "The recording could not be written: nothing may run.",
    EndReason.REFUSED: "The session was refused before it began.",
}
