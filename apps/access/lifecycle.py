"""Which state may follow which, for requests and grants. Pure.

The diagrams in the documentation are made from these tables.
"""

from enum import StrEnum


class RequestState(StrEnum):
    """States of a request for access."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    WITHDRAWN = "withdrawn"
    LAPSED = "lapsed"


class GrantState(StrEnum):
    """States of a grant. What counts is time; `ended` is noted by a sweep."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"
    FINISHED = "finished"


class ExtensionState(StrEnum):
    """States of a question for more time."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    LAPSED = "lapsed"


EXTENSION_TRANSITIONS: dict[ExtensionState, frozenset[ExtensionState]] = {
    ExtensionState.PENDING: frozenset(
        {ExtensionState.APPROVED, ExtensionState.DENIED, ExtensionState.LAPSED}
    ),
    ExtensionState.APPROVED: frozenset(),
    ExtensionState.DENIED: frozenset(),
    ExtensionState.LAPSED: frozenset(),
}

REQUEST_TRANSITIONS: dict[RequestState, frozenset[RequestState]] = {
    RequestState.PENDING: frozenset(
        {
            RequestState.APPROVED,
            RequestState.DENIED,
            RequestState.WITHDRAWN,
            RequestState.LAPSED,
        }
    ),
    RequestState.APPROVED: frozenset(),
    RequestState.DENIED: frozenset(),
    RequestState.WITHDRAWN: frozenset(),
    RequestState.LAPSED: frozenset(),
}

GRANT_TRANSITIONS: dict[GrantState, frozenset[GrantState]] = {
    GrantState.ACTIVE: frozenset(
        {GrantState.EXPIRED, GrantState.REVOKED, GrantState.FINISHED}
    ),
    GrantState.EXPIRED: frozenset(),
    GrantState.REVOKED: frozenset(),
    GrantState.FINISHED: frozenset(),
}
