"""The closed list of what the ledger can hold, each with one sentence for people."""

from enum import StrEnum


class Kind(StrEnum):
    """An audit kind: floor, thing, what happened to it (past tense)."""

    PERSON_ADDED = "accounts.person.added"
    PERSON_CHANGED = "accounts.person.changed"
    PERSON_DISABLED = "accounts.person.disabled"
    PERSON_ENABLED = "accounts.person.enabled"
    PASSWORD_CHANGED = "accounts.password.changed"  # noqa: S105 - a kind, not a secret
    FACTOR_ENROLLED = "accounts.factor.enrolled"
    FACTOR_RESET = "accounts.factor.reset"
    RECOVERY_CODES_MADE = "accounts.recovery_codes.made"
    KEY_ADDED = "accounts.key.added"
    KEY_REMOVED = "accounts.key.removed"
    SIGNED_IN = "accounts.sign_in.succeeded"
    SIGN_IN_REFUSED = "accounts.sign_in.refused"
    SIGNED_OUT = "accounts.sign_in.ended"
    SIGNED_OUT_EVERYWHERE = "accounts.sign_in.ended_everywhere"
    GRACE_ENDED = "accounts.grace.ended"
    API_TOKEN_MADE = "accounts.api_token.made"  # noqa: S105 - a kind, not a secret
    API_TOKEN_REVOKED = "accounts.api_token.revoked"  # noqa: S105 - a kind
    NOTICE_CHANGED = "accounts.notice.changed"
    CONSENT_GIVEN = "accounts.consent.given"
    SITE_ADDED = "inventory.site.added"
    SITE_CHANGED = "inventory.site.changed"
    MEMBER_ADDED = "inventory.member.added"
    MEMBER_REMOVED = "inventory.member.removed"
    ZONE_ADDED = "inventory.zone.added"
    ZONE_CHANGED = "inventory.zone.changed"
    CONDUIT_ADDED = "inventory.conduit.added"
    CONDUIT_CHANGED = "inventory.conduit.changed"
    CONDUIT_REMOVED = "inventory.conduit.removed"
    ASSET_ADDED = "inventory.asset.added"
    ASSET_CHANGED = "inventory.asset.changed"
    ACCOUNT_ADDED = "inventory.account.added"
    HOST_KEY_PINNED = "inventory.host_key.pinned"
    HOST_KEY_CONFIRMED = "inventory.host_key.confirmed"
    HOST_KEY_REMOVED = "inventory.host_key.removed"
    SECRET_STORED = "vault.secret.stored"  # noqa: S105 - a kind, not a secret
    AUTHORITY_MADE = "vault.authority.made"
    SERVICE_KEY_MADE = "vault.service_key.made"
    GATEWAY_KEY_PREPARED = "vault.gateway_key.prepared"
    GATEWAY_KEY_SWITCHED = "vault.gateway_key.switched"
    LEASE_ISSUED = "vault.lease.issued"
    LEASE_WITHDRAWING = "vault.lease.withdrawing"
    LEASE_PROVED_DEAD = "vault.lease.proved_dead"
    LEASE_STILL_OPEN = "vault.lease.still_open"
    CREDENTIAL_ROTATED = "vault.credential.rotated"
    REQUEST_SUBMITTED = "access.request.submitted"
    REQUEST_REFUSED = "access.request.refused"
    REQUEST_APPROVED = "access.request.approved"
    REQUEST_DENIED = "access.request.denied"
    REQUEST_WITHDRAWN = "access.request.withdrawn"
    REQUEST_LAPSED = "access.request.lapsed"
    APPROVAL_REFUSED = "access.approval.refused"
    GRANT_MADE = "access.grant.made"
    GRANT_REVOKED = "access.grant.revoked"
    GRANT_EXPIRED = "access.grant.expired"
    GRANT_FINISHED = "access.grant.finished"
    GRANT_EXTENDED = "access.grant.extended"
    EXTENSION_ASKED = "access.extension.asked"
    EXTENSION_REFUSED = "access.extension.refused"
    EXTENSION_DENIED = "access.extension.denied"
    EXTENSION_LAPSED = "access.extension.lapsed"
    CONNECTION_ALLOWED = "access.connection.allowed"
    CONNECTION_DENIED = "access.connection.denied"
    SESSION_OPENED = "sessions.session.opened"
    SESSION_ACTIVATED = "sessions.session.activated"
    SESSION_FROZEN = "sessions.session.frozen"
    SESSION_RESUMED = "sessions.session.resumed"
    SESSION_FREEZE_ASKED = "sessions.session.freeze_asked"
    SESSION_RESUME_ASKED = "sessions.session.resume_asked"
    SESSION_LOCKED = "sessions.session.locked"
    SESSION_UNLOCKED = "sessions.session.unlocked"
    SESSION_UNLOCK_REFUSED = "sessions.session.unlock_refused"
    SESSION_MESSAGE_SENT = "sessions.message.sent"
    SESSION_MESSAGE_SHOWN = "sessions.message.shown"
    SESSION_TERMINATE_ASKED = "sessions.session.terminate_asked"
    SESSION_EXTENDED = "sessions.session.extended"
    SESSION_ENDED = "sessions.session.ended"
    SESSION_WATCHED = "sessions.session.watched"
    SESSION_WATCH_ENDED = "sessions.session.watch_ended"
    SESSION_HANDED_OVER = "sessions.session.handed_over"
    SESSION_TAKEN_BACK = "sessions.session.taken_back"
    SESSION_TYPIST_CHANGED = "sessions.session.typist_changed"
    CHANNEL_OPENED = "sessions.channel.opened"
    CHANNEL_REFUSED = "sessions.channel.refused"
    CHANNEL_CLOSED = "sessions.channel.closed"
    GATEWAY_STARTED = "sessions.gateway.started"
    GATEWAY_STOPPED = "sessions.gateway.stopped"
    GATEWAY_LOST = "sessions.gateway.lost"
    RECORDING_STARTED = "recordings.recording.started"
    RECORDING_SEALED = "recordings.recording.sealed"
    RECORDING_VERIFIED = "recordings.recording.verified"
    RECORDING_BROKEN = "recordings.recording.broken"
    RECORDING_VIEWED = "recordings.recording.viewed"
    RECORDING_EXPORTED = "recordings.recording.exported"
    RECORDING_REFUSED = "recordings.recording.refused"
    FILES_NOTED = "recordings.files.noted"
    FILES_REFUSED = "recordings.files.refused"
    UPLOAD_RECEIVING = "quarantine.upload.receiving"
    UPLOAD_HELD = "quarantine.upload.held"
    UPLOAD_BROKEN = "quarantine.upload.broken"
    UPLOAD_RELEASED = "quarantine.upload.released"
    UPLOAD_REJECTED = "quarantine.upload.rejected"
    UPLOAD_REFUSED = "quarantine.upload.refused"
    UPLOAD_SCANNED = "quarantine.upload.scanned"
    UPLOAD_DELIVERING = "quarantine.upload.delivering"
    UPLOAD_DELIVERED = "quarantine.upload.delivered"
    UPLOAD_NOT_DELIVERED = "quarantine.upload.not_delivered"
    UPLOAD_EXPIRED = "quarantine.upload.expired"
    LEDGER_EXPORTED = "audit.ledger.exported"


SENTENCES: dict[Kind, str] = {
    Kind.PERSON_ADDED: "A person was added.",
    Kind.PERSON_CHANGED: "A person's roles, sites or name changed.",
    Kind.PERSON_DISABLED: "A person was disabled; nothing of theirs works any more.",
    Kind.PERSON_ENABLED: "A disabled person was enabled again.",
    Kind.PASSWORD_CHANGED: "A password was changed.",
    Kind.FACTOR_ENROLLED: "A second factor was enrolled.",
    Kind.FACTOR_RESET: "An administrator removed a person's second factors.",
    Kind.RECOVERY_CODES_MADE: "New recovery codes were made; the old ones are void.",
    Kind.KEY_ADDED: "An SSH public key was added.",
    Kind.KEY_REMOVED: "An SSH public key was removed.",
    Kind.SIGNED_IN: "Somebody signed in; the event names the factors.",
    Kind.SIGN_IN_REFUSED: "A sign-in was refused.",
    Kind.SIGNED_OUT: "Somebody signed out.",
    Kind.SIGNED_OUT_EVERYWHERE: "Somebody signed out of every browser.",
    Kind.NOTICE_CHANGED: "What people are told at sign-in was changed.",
    Kind.CONSENT_GIVEN: "Somebody agreed to the sign-in notice in the portal.",
    Kind.API_TOKEN_MADE: "Somebody made a personal token for the API.",
    Kind.API_TOKEN_REVOKED: "A personal token for the API was revoked.",
    Kind.GRACE_ENDED: "The time in which the key alone signs in was ended early.",
    Kind.SITE_ADDED: "A site was added.",
    Kind.SITE_CHANGED: "A site changed.",
    Kind.MEMBER_ADDED: "A person became a member of a site.",
    Kind.MEMBER_REMOVED: "A person is no longer a member of a site.",
    Kind.ZONE_ADDED: "A zone was added.",
    Kind.ZONE_CHANGED: "A zone changed.",
    Kind.CONDUIT_ADDED: "A conduit was added.",
    Kind.CONDUIT_CHANGED: "A conduit changed.",
    Kind.CONDUIT_REMOVED: "A conduit was removed.",
    Kind.ASSET_ADDED: "An asset was added.",
    Kind.ASSET_CHANGED: "An asset changed.",
    Kind.ACCOUNT_ADDED: "A target account was added to an asset.",
    Kind.HOST_KEY_PINNED: "A host key was pinned and waits for a second person.",
    Kind.HOST_KEY_CONFIRMED: "A second person confirmed a pinned host key.",
    Kind.HOST_KEY_REMOVED: "A pinned host key was removed.",
    Kind.SECRET_STORED: "A credential was put into the vault.",
    Kind.AUTHORITY_MADE: "A site's SSH certificate authority was made.",
    Kind.SERVICE_KEY_MADE: "One of Sluice's own signing or host keys was made.",
    Kind.GATEWAY_KEY_PREPARED: "The gateway's next host key was made.",
    Kind.GATEWAY_KEY_SWITCHED: "The gateway uses its next host key from now on.",
    Kind.LEASE_ISSUED: "A credential was leased for one session.",
    Kind.LEASE_WITHDRAWING: "A lease ended and its credential is being withdrawn.",
    Kind.LEASE_PROVED_DEAD: "A withdrawn credential was tried and refused.",
    Kind.LEASE_STILL_OPEN: "A withdrawn credential could not be proved dead yet.",
    Kind.CREDENTIAL_ROTATED: "A credential was replaced on its target.",
    Kind.REQUEST_SUBMITTED: "Access was asked for.",
    Kind.REQUEST_REFUSED: "A request for access was refused by a rule.",
    Kind.REQUEST_APPROVED: "A request was approved.",
    Kind.REQUEST_DENIED: "An approver denied a request.",
    Kind.REQUEST_WITHDRAWN: "The requester withdrew a request.",
    Kind.REQUEST_LAPSED: "Nobody answered a request in time.",
    Kind.APPROVAL_REFUSED: "Somebody tried to decide a request they may not decide.",
    Kind.GRANT_MADE: "A grant was made.",
    Kind.GRANT_REVOKED: "A grant was revoked by a person or a signal.",
    Kind.GRANT_EXPIRED: "A grant reached its end.",
    Kind.GRANT_FINISHED: "The engineer gave a grant back before its end.",
    Kind.GRANT_EXTENDED: "An approver let a grant end later.",
    Kind.EXTENSION_ASKED: "More time was asked for on a grant.",
    Kind.EXTENSION_REFUSED: "A question for more time was refused by a rule.",
    Kind.EXTENSION_DENIED: "An approver denied more time.",
    Kind.EXTENSION_LAPSED: "A grant ended before more time was decided on.",
    Kind.CONNECTION_ALLOWED: "A connection to an asset was allowed.",
    Kind.CONNECTION_DENIED: "A connection to an asset was denied.",
    Kind.SESSION_OPENED: "A session was opened.",
    Kind.SESSION_ACTIVATED: "A session reached its asset and became active.",
    Kind.SESSION_FROZEN: "A session's input was held.",
    Kind.SESSION_RESUMED: "A session's input was let through again.",
    Kind.SESSION_FREEZE_ASKED: "Somebody asked for a live session to be frozen.",
    Kind.SESSION_RESUME_ASKED: "Somebody asked for a frozen session to go on.",
    Kind.SESSION_LOCKED: "A session's terminals were locked: nobody typed.",
    Kind.SESSION_UNLOCKED: "A session's terminals were unlocked with a code.",
    Kind.SESSION_UNLOCK_REFUSED: "A code for locked terminals was refused.",
    Kind.SESSION_MESSAGE_SENT: "Somebody sent a message to a live session.",
    Kind.SESSION_MESSAGE_SHOWN: "Messages were shown on a session's terminals.",
    Kind.SESSION_TERMINATE_ASKED: "Somebody asked for a live session to be ended.",
    Kind.SESSION_EXTENDED: "A live session's deadline followed its grant's.",
    Kind.SESSION_ENDED: "A session ended.",
    Kind.SESSION_WATCHED: "Somebody began to watch a live session.",
    Kind.SESSION_WATCH_ENDED: "Somebody watches a live session no more.",
    Kind.SESSION_HANDED_OVER: "The typing in a session was handed to somebody else.",
    Kind.SESSION_TAKEN_BACK: "The typing in a session went back to its engineer.",
    Kind.SESSION_TYPIST_CHANGED: "From now on somebody else's typing passes.",
    Kind.CHANNEL_OPENED: "A channel was opened in a session.",
    Kind.CHANNEL_REFUSED: "A channel or request was refused in a session.",
    Kind.CHANNEL_CLOSED: "A channel was closed in a session.",
    Kind.GATEWAY_STARTED: "A gateway started.",
    Kind.GATEWAY_STOPPED: "A gateway stopped in good order.",
    Kind.GATEWAY_LOST: "A gateway vanished; its sessions were closed.",
    Kind.RECORDING_STARTED: "A recording was started.",
    Kind.RECORDING_SEALED: "A recording was sealed and signed.",
    Kind.RECORDING_VERIFIED: "A sealed recording was read back and found intact.",
    Kind.RECORDING_BROKEN: "A recording is not what was sealed, or has no seal.",
    Kind.RECORDING_VIEWED: "Somebody replayed a recording.",
    Kind.RECORDING_EXPORTED: "Somebody downloaded a recording.",
    Kind.RECORDING_REFUSED: "Somebody tried to open a recording that is not theirs.",
    Kind.FILES_NOTED: "Files were moved or changed in a session.",
    Kind.FILES_REFUSED: "Requests for files were refused in a session.",
    Kind.UPLOAD_RECEIVING: "An upload that is held for release began.",
    Kind.UPLOAD_HELD: "An upload is whole and waits for a second person.",
    Kind.UPLOAD_BROKEN: "An upload that was to be held did not come whole.",
    Kind.UPLOAD_RELEASED: "A second person released an upload.",
    Kind.UPLOAD_REJECTED: "A second person rejected an upload; it was deleted.",
    Kind.UPLOAD_REFUSED: "Somebody tried to decide on an upload and may not.",
    Kind.UPLOAD_SCANNED: "Somebody downloaded a held upload to look at it.",
    Kind.UPLOAD_DELIVERING: "A session began to deliver a released upload.",
    Kind.UPLOAD_DELIVERED: "A released upload was written on its asset.",
    Kind.UPLOAD_NOT_DELIVERED: "A released upload could not be delivered.",
    Kind.UPLOAD_EXPIRED: "A held upload was deleted because nobody took it in time.",
    Kind.LEDGER_EXPORTED: "Somebody exported the ledger.",
}
