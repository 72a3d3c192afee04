"""Why something is denied: a closed list, each with one sentence for people. Pure."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal


class DenialCode(StrEnum):
    """Stable codes: kept in the ledger, tested on, never changed in meaning."""

    UNKNOWN_PERSON = "unknown_person"
    PERSON_DISABLED = "person_disabled"
    NOT_ENGINEER = "not_engineer"
    NOT_A_MEMBER = "not_a_member"
    UNKNOWN_ASSET = "unknown_asset"
    ASSET_RETIRED = "asset_retired"
    UNKNOWN_ACCOUNT = "unknown_account"
    ACCOUNT_AMBIGUOUS = "account_ambiguous"
    NO_GATEWAY_ZONE = "no_gateway_zone"
    NO_CONDUIT = "no_conduit"
    SERVICE_NOT_IN_CONDUIT = "service_not_in_conduit"
    NO_GRANT = "no_grant"
    GRANT_NOT_STARTED = "grant_not_started"
    GRANT_EXPIRED = "grant_expired"
    GRANT_REVOKED = "grant_revoked"
    GRANT_FINISHED = "grant_finished"
    NO_HOST_KEY = "no_host_key"
    ADDRESS_FORBIDDEN = "address_forbidden"
    FULL_SIGN_IN_NEEDED = "full_sign_in_needed"
    CONSENT_MISSING = "consent_missing"
    SESSION_LIMIT = "session_limit"
    NO_CREDENTIAL = "no_credential"
    DURATION_REFUSED = "duration_refused"
    WORK_ORDER_REFUSED = "work_order_refused"
    REASON_MISSING = "reason_missing"
    SERVICES_MISSING = "services_missing"
    REQUEST_PENDING_ALREADY = "request_pending_already"
    REQUEST_NOT_PENDING = "request_not_pending"
    EXTENSION_PENDING_ALREADY = "extension_pending_already"
    REQUEST_CHANGED = "request_changed"
    NOT_APPROVER = "not_approver"
    OWN_REQUEST = "own_request"
    NOT_PERMITTED = "not_permitted"
    NO_APPROVER = "no_approver"
    OWN_SESSION = "own_session"
    NOT_FROZEN = "not_frozen"
    MESSAGE_REFUSED = "message_refused"
    RECEIVER_REFUSED = "receiver_refused"
    NOT_HANDED_OVER = "not_handed_over"
    HANDED_OVER_ALREADY = "handed_over_already"
    HANDOVER_NOT_NOW = "handover_not_now"


SENTENCES: dict[DenialCode, str] = {
    DenialCode.UNKNOWN_PERSON: "There is no such person.",
    DenialCode.PERSON_DISABLED: "This person is disabled.",
    DenialCode.NOT_ENGINEER: "Only engineers ask for access and connect.",
    DenialCode.NOT_A_MEMBER: "The person does not belong to the asset's site.",
    DenialCode.UNKNOWN_ASSET: "There is no such asset.",
    DenialCode.ASSET_RETIRED: "The asset was taken out of use.",
    DenialCode.UNKNOWN_ACCOUNT: "The asset has no such account.",
    DenialCode.ACCOUNT_AMBIGUOUS: "Grants for several accounts: name the account.",
    DenialCode.NO_GATEWAY_ZONE: "No zone of this site holds the gateway.",
    DenialCode.NO_CONDUIT: "No conduit leads from the gateway's zone to the asset's.",
    DenialCode.SERVICE_NOT_IN_CONDUIT: "The conduit does not carry this service.",
    DenialCode.NO_GRANT: "There is no grant for this person, asset and account.",
    DenialCode.GRANT_NOT_STARTED: "The grant has not started yet.",
    DenialCode.GRANT_EXPIRED: "The grant has ended.",
    DenialCode.GRANT_REVOKED: "The grant was revoked.",
    DenialCode.GRANT_FINISHED: "The grant was given back.",
    DenialCode.NO_HOST_KEY: "No host key of the asset is pinned and confirmed.",
    DenialCode.ADDRESS_FORBIDDEN: "The asset's address may not be a target.",
    DenialCode.FULL_SIGN_IN_NEEDED: "This zone needs the one-time code: connect again.",
    DenialCode.CONSENT_MISSING: "Nobody connects who has not agreed to the notice.",
    DenialCode.SESSION_LIMIT: "The asset has as many sessions as it may have.",
    DenialCode.NO_CREDENTIAL: "The vault holds no credential for this account.",
    DenialCode.DURATION_REFUSED: "This length of time cannot be granted.",
    DenialCode.WORK_ORDER_REFUSED: "The work-order number has not the site's form.",
    DenialCode.REASON_MISSING: "A request needs a reason.",
    DenialCode.SERVICES_MISSING: "A request needs at least one service.",
    DenialCode.REQUEST_PENDING_ALREADY: "You are waiting for this access already.",
    DenialCode.REQUEST_NOT_PENDING: "The request was decided already.",
    DenialCode.EXTENSION_PENDING_ALREADY: "You have asked for more time already.",
    DenialCode.REQUEST_CHANGED: "The request changed after you read it.",
    DenialCode.NOT_APPROVER: "Only approvers of the asset's site decide.",
    DenialCode.OWN_REQUEST: "Nobody approves their own request.",
    DenialCode.NOT_PERMITTED: "You may not do this.",
    DenialCode.NO_APPROVER: "Nobody could approve this.",
    DenialCode.OWN_SESSION: "Somebody else controls your session, not you.",
    DenialCode.NOT_FROZEN: "Nobody froze the session, so nobody can resume it.",
    DenialCode.MESSAGE_REFUSED: "A message is one line of 1 to 300 characters.",
    DenialCode.RECEIVER_REFUSED: (
        "Typing goes only to somebody else who watches at a keyboard and holds a grant "
        "of their own for a shell on this account."
    ),
    DenialCode.NOT_HANDED_OVER: "The engineer types already.",
    DenialCode.HANDED_OVER_ALREADY: "Somebody else types: take that back first.",
    DenialCode.HANDOVER_NOT_NOW: (
        "Typing is handed over in an active session with one shell on one terminal."
    ),
}


@dataclass(frozen=True, slots=True)
class Denied:
    """A refusal: falsy, so that a forgotten check fails closed."""

    code: DenialCode
    message: str = ""
    details: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.message:
            object.__setattr__(self, "message", SENTENCES[self.code])

    def __bool__(self) -> Literal[False]:
        return False


@dataclass(frozen=True, slots=True)
class Allowed:
    """A permission: truthy; `rule` names what allowed it."""

    rule: str = ""

    def __bool__(self) -> Literal[True]:
        return True
