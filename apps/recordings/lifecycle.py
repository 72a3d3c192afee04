"""Which state may follow which, for recordings. Pure."""

from enum import StrEnum


class RecordingState(StrEnum):
    """States of a recording."""

    WRITING = "writing"
    SEALED = "sealed"
    VERIFIED = "verified"
    BROKEN = "broken"


TRANSITIONS: dict[RecordingState, frozenset[RecordingState]] = {
    RecordingState.WRITING: frozenset({RecordingState.SEALED, RecordingState.BROKEN}),
    RecordingState.SEALED: frozenset({RecordingState.VERIFIED, RecordingState.BROKEN}),
    RecordingState.VERIFIED: frozenset({RecordingState.BROKEN}),
    RecordingState.BROKEN: frozenset(),
}
