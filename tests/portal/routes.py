"""Every address of the portal: who may open it, and who may post to it.

The table is the product's promise (R1, R13). Whoever adds an address adds a row, or
`test_authorization` fails. A role that a row does not name is refused: the anonymous
are sent to sign in, everybody else is told that there is no such page.
"""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.urls import reverse

from apps.access.models import AccessRequest, Grant, GrantExtension
from apps.accounts import api_tokens
from apps.accounts import operations as accounts
from apps.accounts.models import SshPublicKey, User
from apps.inventory import operations as inventory
from apps.inventory.models import HostKey, TargetAccount
from apps.quarantine.models import HeldUpload
from apps.recordings.models import Recording
from apps.sessions.models import Session
from tests import factories
from tests.portal import plant_work
from tests.portal.doors import PASSWORD

ANONYMOUS = "anonymous"
OWNER = "owner"
COLLEAGUE = "colleague"
STRANGER = "stranger"
APPROVER = "approver"
OTHER_APPROVER = "approver of another site"
AUDITOR = "auditor"
OTHER_AUDITOR = "auditor of another site"
ADMINISTRATOR = "administrator"

SIGNED_IN = (
    OWNER,
    COLLEAGUE,
    STRANGER,
    APPROVER,
    OTHER_APPROVER,
    AUDITOR,
    OTHER_AUDITOR,
    ADMINISTRATOR,
)
EVERYBODY = (ANONYMOUS, *SIGNED_IN)
ENGINEERS = (OWNER, COLLEAGUE, STRANGER)
APPROVERS = (APPROVER, OTHER_APPROVER)
AUDITORS = (AUDITOR, OTHER_AUDITOR)
OF_THE_SITE = (OWNER, COLLEAGUE, APPROVER, AUDITOR)

TO_SIGN_IN = "to sign-in"
REFUSED = 404
WRONG_METHOD = 405
Outcome = int | str
Outcomes = Mapping[str, Outcome]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """The plant whose things are asked for, and another one with strangers."""

    here: factories.Plant
    elsewhere: factories.Plant
    asked: AccessRequest
    grant: Grant
    extension: GrantExtension
    live: Session
    frozen: Session
    handed: Session
    handed_to: User
    recording: Recording
    held: HeldUpload
    key: SshPublicKey
    host_key: HostKey
    second_account: TargetAccount
    spare: User

    def person(self, role: str) -> User:
        """Return who plays `role`."""
        people = {
            OWNER: self.here.engineer,
            COLLEAGUE: self.here.second_engineer,
            STRANGER: self.elsewhere.engineer,
            APPROVER: self.here.approver,
            OTHER_APPROVER: self.elsewhere.approver,
            AUDITOR: self.here.auditor,
            OTHER_AUDITOR: self.elsewhere.auditor,
            ADMINISTRATOR: self.here.administrator,
        }
        return people[role]


def scene() -> Scene:
    """Return two plants; in one of them somebody works, worked and asks for more."""
    here, elsewhere = factories.plant(), factories.plant()
    node = plant_work.gateway("/nowhere/terminal-link")
    earlier = plant_work.live_session(factories.grant(here), node)
    plant_work.end(earlier)
    recording = plant_work.sealed_recording(earlier)
    grant = factories.grant(here)
    now = factories.clock()
    frozen = plant_work.live_session(grant, node)
    plant_work.freeze(frozen, here.approver)
    live, handed = (plant_work.live_session(grant, node) for _ in range(2))
    receiver = plant_work.receiver(here)
    for session in (live, handed):
        plant_work.watch(session, receiver)
    plant_work.hand_over(handed, receiver)
    return Scene(
        here=here,
        elsewhere=elsewhere,
        grant=grant,
        extension=plant_work.extension(factories.grant(here, minutes=60)),
        live=live,
        frozen=frozen,
        handed=handed,
        handed_to=receiver,
        recording=recording,
        held=plant_work.held_upload(earlier),
        asked=factories.request(here),
        key=accounts.add_key(
            user=here.engineer,
            name="laptop",
            text=factories.ed25519_line(),
            by=here.engineer.party,
            now=now,
        ),
        # Pinned by another administrator, so that the one of the table may confirm.
        host_key=inventory.pin_host_key(
            asset=here.asset,
            text=factories.ed25519_line(),
            by=here.second_administrator,
            now=now,
        ),
        second_account=inventory.add_account(
            asset=here.asset,
            name="viewer",
            credential_kind="key",
            by=factories.SET_UP,
            now=now,
        ),
        spare=factories.person("engineer", site=here.site),
    )


def _nothing(_scene: Scene) -> dict[str, Any]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One address: what each role gets from it.

    `writes` says that a POST which succeeds leaves an event in the ledger.
    """

    name: str
    get: Outcomes = field(default_factory=dict)
    post: Outcomes = field(default_factory=dict)
    target: Callable[[Scene], dict[str, Any]] = _nothing
    body: Callable[[Scene], dict[str, Any]] = _nothing
    writes: bool = True

    def address(self, kwargs: Mapping[str, Any]) -> str:
        """Return the address for these identifiers."""
        return reverse(f"portal:{self.name}", kwargs=dict(kwargs))

    def expected(self, method: str, role: str) -> Outcome:
        """Return what `role` gets: a status, or TO_SIGN_IN."""
        outcomes = self.get if method == "GET" else self.post
        return outcomes.get(role, TO_SIGN_IN if role == ANONYMOUS else REFUSED)


def only(status: int, *roles: str, **_: object) -> dict[str, Outcome]:
    """Return outcomes where `roles` get `status`."""
    return dict.fromkeys(roles, status)


_NO_METHOD = only(WRONG_METHOD, *SIGNED_IN)
_READ_BY_ALL = only(200, *SIGNED_IN)
_BY_ADMINISTRATORS = only(200, ADMINISTRATOR)
_DONE_BY_ADMINISTRATORS = only(302, ADMINISTRATOR)


def unknown(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return identifiers of the same shape that belong to nothing."""
    return {
        name: 987_654_321 if isinstance(value, int) else uuid.uuid4()
        for name, value in kwargs.items()
    }


def _person(scene: Scene) -> dict[str, Any]:
    return {"person_id": scene.spare.pk}


def _token(scene: Scene) -> dict[str, Any]:
    """Return a new token of the owner: signing in for the first time revokes theirs."""
    token, _secret = api_tokens.make_token(
        user=scene.here.engineer,
        name="board",
        scopes=[api_tokens.READ],
        days=1,
        source_address="192.0.2.7",
        now=factories.clock(),
    )
    return {"token_id": token.pk}


def _asset_fields(scene: Scene, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "zone": str(scene.here.cell.pk),
        "kind": "hmi",
        "address": "127.0.0.1",
        "port": 22,
        "on_expiry": "cut",
        "grace_seconds": 300,
        "crypto_profile": scene.here.asset.crypto_profile,
        "session_limit": 0,
    }


ROUTES = [
    # Signing in, and one's own account.
    Route(
        name="sign-in",
        get={**only(302, *SIGNED_IN), ANONYMOUS: 200},
        post={**only(302, *SIGNED_IN), ANONYMOUS: 422},
        body=lambda scene: {"username": "nobody", "password": "wrong"},
        writes=False,
    ),
    Route(
        name="sign-in-code",
        get=only(302, *EVERYBODY),
        post=only(302, *EVERYBODY),
        body=lambda scene: {"code": "000000"},
        writes=False,
    ),
    Route(
        name="enrol",
        get=only(302, *EVERYBODY),
        post=only(302, *EVERYBODY),
        body=lambda scene: {"code": "000000"},
        writes=False,
    ),
    Route(
        name="sign-out",
        get=only(WRONG_METHOD, *EVERYBODY),
        post=only(302, *EVERYBODY),
        writes=False,
    ),
    Route(name="account", get=_READ_BY_ALL, post=_NO_METHOD),
    Route(
        name="key-add",
        get=_NO_METHOD,
        post=only(302, *SIGNED_IN),
        body=lambda scene: {"name": "phone", "text": factories.ed25519_line()},
    ),
    Route(
        name="key-remove",
        get=_NO_METHOD,
        post=only(302, OWNER),
        target=lambda scene: {"key_id": scene.key.pk},
    ),
    Route(
        # No session has this name; `test_bodies` tries one that somebody else has.
        name="portal-session-end",
        get=_NO_METHOD,
        body=lambda scene: {"session": "0" * 24},
    ),
    Route(
        name="sign-out-everywhere",
        get=_NO_METHOD,
        post=only(302, *SIGNED_IN),
    ),
    Route(
        name="api-tokens",
        get=_READ_BY_ALL,
        post=only(422, *SIGNED_IN),
        body=lambda scene: {
            "name": "board",
            "scopes": ["sessions:read"],
            "days": 1,
            "code": "not-a-code",
        },
    ),
    Route(
        name="api-token-revoke",
        get=_NO_METHOD,
        post=only(302, OWNER),
        target=_token,
    ),
    Route(
        name="password",
        get=_READ_BY_ALL,
        post=only(302, *SIGNED_IN),
        body=lambda scene: {
            "current": PASSWORD,
            "new": "a rather different phrase",
            "again": "a rather different phrase",
        },
    ),
    Route(
        name="recovery-codes",
        get=_READ_BY_ALL,
        post=only(422, *SIGNED_IN),
        body=lambda scene: {"code": "not-a-code"},
    ),
    Route(
        name="sign-in-notice",
        get=_BY_ADMINISTRATORS,
        post=_DONE_BY_ADMINISTRATORS,
        body=lambda scene: {"banner": "For those who are allowed to."},
    ),
    # People.
    Route(name="people", get=_BY_ADMINISTRATORS, post=_NO_METHOD),
    Route(
        name="person-add",
        get=_BY_ADMINISTRATORS,
        post=_BY_ADMINISTRATORS,
        body=lambda scene: {
            "username": "newcomer",
            "full_name": "New Comer",
            "roles": ["engineer"],
        },
    ),
    Route(
        name="person-detail", get=_BY_ADMINISTRATORS, post=_NO_METHOD, target=_person
    ),
    Route(
        name="person-change",
        get=_BY_ADMINISTRATORS,
        post=_DONE_BY_ADMINISTRATORS,
        target=_person,
        body=lambda scene: {"full_name": "Another Name", "roles": ["auditor"]},
    ),
    Route(
        name="person-disable",
        get=_NO_METHOD,
        post=_DONE_BY_ADMINISTRATORS,
        target=_person,
    ),
    Route(
        name="person-enable",
        get=_NO_METHOD,
        post=_DONE_BY_ADMINISTRATORS,
        target=_person,
        writes=False,
    ),
    Route(
        name="person-reset-factors",
        get=_NO_METHOD,
        post=_DONE_BY_ADMINISTRATORS,
        target=_person,
    ),
    Route(
        name="person-reset-password",
        get=_NO_METHOD,
        post=_BY_ADMINISTRATORS,
        target=_person,
    ),
    Route(
        name="person-graces-end",
        get=_NO_METHOD,
        post=_DONE_BY_ADMINISTRATORS,
        target=_person,
        # Only what there was to end leaves an event; `test_graces` looks at that.
        writes=False,
    ),
    Route(
        name="person-site-add",
        get=_NO_METHOD,
        post=_DONE_BY_ADMINISTRATORS,
        target=_person,
        body=lambda scene: {"site": str(scene.elsewhere.site.pk)},
    ),
    Route(
        name="person-site-remove",
        get=_NO_METHOD,
        post=_DONE_BY_ADMINISTRATORS,
        target=lambda scene: {**_person(scene), "site_id": scene.here.site.pk},
    ),
    # Asking for access, deciding, giving it back.
    Route(name="my-access", get=_READ_BY_ALL, post=_NO_METHOD),
    Route(
        name="extension-ask",
        get=_NO_METHOD,
        post=only(302, OWNER),
        target=lambda scene: {"grant_id": scene.grant.pk},
        body=lambda scene: {"minutes": 30, "reason": "The pump does not start"},
    ),
    Route(
        name="extension-detail",
        get=only(200, APPROVER),
        post=only(302, APPROVER),
        target=lambda scene: {"extension_id": scene.extension.pk},
        body=lambda scene: {"verdict": "approve", "minutes": 15},
    ),
    Route(name="held-uploads", get=_READ_BY_ALL, post=_NO_METHOD),
    Route(
        name="held-upload",
        get=only(200, OWNER, APPROVER, AUDITOR),
        post=only(302, APPROVER),
        target=lambda scene: {"held_id": scene.held.pk},
        body=lambda scene: {"verdict": "reject", "reason": "A macro is in it"},
    ),
    Route(
        name="held-content",
        get=only(200, APPROVER),
        post=_NO_METHOD,
        target=lambda scene: {"held_id": scene.held.pk},
    ),
    Route(
        name="graces-end",
        get=_NO_METHOD,
        post=only(302, *SIGNED_IN),
        writes=False,
    ),
    Route(
        name="request-new",
        get=only(200, *ENGINEERS),
        post={**only(302, OWNER, COLLEAGUE), STRANGER: 422},
        body=lambda scene: {
            "target": str(scene.second_account.pk),
            "minutes": 30,
            "services": ["shell"],
            "reason": "Look at the trend",
            "work_order": "WO-1",
        },
    ),
    Route(
        name="request-detail",
        get=only(200, OWNER, APPROVER, AUDITOR),
        post=_NO_METHOD,
        target=lambda scene: {"request_id": scene.asked.pk},
    ),
    Route(
        name="request-withdraw",
        get=_NO_METHOD,
        post=only(302, OWNER),
        target=lambda scene: {"request_id": scene.asked.pk},
    ),
    Route(name="approvals", get=only(200, *APPROVERS), post=_NO_METHOD),
    Route(
        name="approval-detail",
        get=only(200, APPROVER),
        post=only(302, APPROVER),
        target=lambda scene: {"request_id": scene.asked.pk},
        body=lambda scene: {
            "verdict": "approve",
            "version": scene.asked.version,
            "minutes": 10,
        },
    ),
    Route(
        name="grant-finish",
        get=_NO_METHOD,
        post=only(302, OWNER),
        target=lambda scene: {"grant_id": scene.grant.pk},
    ),
    Route(
        name="grant-revoke",
        get=_NO_METHOD,
        post=only(302, APPROVER),
        target=lambda scene: {"grant_id": scene.grant.pk},
        body=lambda scene: {"reason": "Leave the pump alone"},
    ),
    # Sessions.
    Route(name="sessions", get=_READ_BY_ALL, post=_NO_METHOD),
    Route(
        name="session-detail",
        get=only(200, OWNER, APPROVER, AUDITOR),
        post=_NO_METHOD,
        target=lambda scene: {"session_id": scene.live.pk},
    ),
    Route(
        name="session-terminate",
        get=_NO_METHOD,
        post=only(302, OWNER, APPROVER),
        target=lambda scene: {"session_id": scene.live.pk},
        body=lambda scene: {"reason": "Enough for today"},
    ),
    Route(
        name="session-freeze",
        get=_NO_METHOD,
        post=only(302, APPROVER),
        target=lambda scene: {"session_id": scene.live.pk},
        body=lambda scene: {"reason": "Wait for the shift lead"},
    ),
    Route(
        name="session-resume",
        get=_NO_METHOD,
        post=only(302, APPROVER),
        target=lambda scene: {"session_id": scene.frozen.pk},
    ),
    Route(
        name="session-message",
        get=_NO_METHOD,
        post=only(302, APPROVER),
        target=lambda scene: {"session_id": scene.live.pk},
        body=lambda scene: {"text": "Leave pump 3 alone"},
    ),
    Route(
        name="session-handover",
        get=_NO_METHOD,
        post=only(302, OWNER, APPROVER),
        target=lambda scene: {"session_id": scene.live.pk},
        body=lambda scene: {"to": scene.handed_to.username},
    ),
    Route(
        name="session-take-back",
        get=_NO_METHOD,
        post=only(302, OWNER, APPROVER),
        target=lambda scene: {"session_id": scene.handed.pk},
    ),
    Route(
        name="session-watch",
        get=only(200, APPROVER, AUDITOR),
        post=_NO_METHOD,
        target=lambda scene: {"session_id": scene.live.pk},
    ),
    Route(
        name="terminal",
        get=only(200, OWNER),
        post=_NO_METHOD,
        target=lambda scene: {"grant_id": scene.grant.pk},
    ),
    # Nobody has written a text to agree to, so it leads on to the terminal.
    Route(
        name="terminal-consent",
        get=only(302, OWNER),
        post=only(302, OWNER),
        writes=False,
        target=lambda scene: {"grant_id": scene.grant.pk},
    ),
    # Assets, zones, the gateway.
    Route(name="assets", get=_READ_BY_ALL, post=_NO_METHOD),
    Route(
        name="asset-add",
        get=_BY_ADMINISTRATORS,
        post=_DONE_BY_ADMINISTRATORS,
        body=lambda scene: _asset_fields(scene, "new-asset"),
    ),
    Route(
        name="asset-detail",
        get=only(200, *OF_THE_SITE, ADMINISTRATOR),
        post=_NO_METHOD,
        target=lambda scene: {"asset_id": scene.here.asset.pk},
    ),
    Route(
        name="asset-change",
        get=_BY_ADMINISTRATORS,
        post=_DONE_BY_ADMINISTRATORS,
        target=lambda scene: {"asset_id": scene.here.asset.pk},
        body=lambda scene: _asset_fields(scene, "another-name"),
    ),
    Route(
        name="asset-account-add",
        get=_NO_METHOD,
        post=_DONE_BY_ADMINISTRATORS,
        target=lambda scene: {"asset_id": scene.here.asset.pk},
        body=lambda scene: {
            "account-name": "service",
            "account-credential_kind": "password",
        },
    ),
    Route(
        name="asset-credential",
        get=_BY_ADMINISTRATORS,
        post=only(422, ADMINISTRATOR),
        target=lambda scene: {"account_id": scene.here.account.pk},
        body=lambda scene: {"secret": "no private key"},
    ),
    Route(
        name="host-key-pin",
        get=_NO_METHOD,
        post=_DONE_BY_ADMINISTRATORS,
        target=lambda scene: {"asset_id": scene.here.asset.pk},
        body=lambda scene: {"key-text": factories.ed25519_line()},
    ),
    Route(
        name="host-key-confirm",
        get=_NO_METHOD,
        post=_DONE_BY_ADMINISTRATORS,
        target=lambda scene: {"key_id": scene.host_key.pk},
    ),
    Route(
        name="host-key-remove",
        get=_NO_METHOD,
        post=_DONE_BY_ADMINISTRATORS,
        target=lambda scene: {"key_id": scene.host_key.pk},
    ),
    Route(name="zones", get=_BY_ADMINISTRATORS, post=_NO_METHOD),
    Route(
        name="zone-add",
        get=_BY_ADMINISTRATORS,
        post=_DONE_BY_ADMINISTRATORS,
        body=lambda scene: {
            "site": str(scene.here.site.pk),
            "name": "Cell 4",
            "purdue_level": "2",
            "sl_t": 2,
        },
    ),
    Route(
        name="zone-change",
        get=_BY_ADMINISTRATORS,
        post=_DONE_BY_ADMINISTRATORS,
        target=lambda scene: {"zone_id": scene.here.cell.pk},
        body=lambda scene: {"name": "Cell three", "purdue_level": "2", "sl_t": 3},
    ),
    Route(
        name="site-add",
        get=_BY_ADMINISTRATORS,
        post=_DONE_BY_ADMINISTRATORS,
        body=lambda scene: {"name": "South", "slug": "south", "time_zone": "UTC"},
    ),
    Route(
        name="site-banner",
        get=_BY_ADMINISTRATORS,
        post=_DONE_BY_ADMINISTRATORS,
        target=lambda scene: {"site_id": scene.here.site.pk},
        body=lambda scene: {"banner": "Waterworks North"},
    ),
    Route(
        name="conduit-add",
        get=_BY_ADMINISTRATORS,
        post=_DONE_BY_ADMINISTRATORS,
        body=lambda scene: {
            "name": "C-99",
            "from_zone": str(scene.here.dmz.pk),
            "to_zone": str(scene.here.bench.pk),
            "services": ["shell"],
        },
    ),
    Route(
        name="conduit-change",
        get=_BY_ADMINISTRATORS,
        post=_DONE_BY_ADMINISTRATORS,
        target=lambda scene: {"conduit_id": scene.here.conduit.pk},
        body=lambda scene: {"services": ["shell"]},
    ),
    Route(
        name="conduit-remove",
        get=_NO_METHOD,
        post=_DONE_BY_ADMINISTRATORS,
        target=lambda scene: {"conduit_id": scene.here.conduit.pk},
    ),
    Route(name="gateway-info", get=_READ_BY_ALL, post=_NO_METHOD),
    Route(
        name="authority-make",
        get=_NO_METHOD,
        post=_DONE_BY_ADMINISTRATORS,
        target=lambda scene: {"site_id": scene.here.site.pk},
    ),
    # Evidence.
    Route(
        name="recording-replay",
        get=only(200, AUDITOR),
        post=_NO_METHOD,
        target=lambda scene: {"recording_id": scene.recording.pk},
    ),
    Route(
        name="recording-cast",
        get=only(200, AUDITOR),
        post=_NO_METHOD,
        target=lambda scene: {"recording_id": scene.recording.pk},
    ),
    Route(
        name="recording-download",
        get=only(200, AUDITOR),
        post=_NO_METHOD,
        target=lambda scene: {"recording_id": scene.recording.pk},
    ),
    Route(name="ledger", get=only(200, *AUDITORS), post=_NO_METHOD),
    Route(
        name="ledger-event",
        get=only(200, *AUDITORS),
        post=_NO_METHOD,
        target=lambda scene: {"seq": 1},
    ),
    Route(
        name="ledger-verify", get=_NO_METHOD, post=only(200, *AUDITORS), writes=False
    ),
    Route(name="ledger-export", get=_NO_METHOD, post=only(200, *AUDITORS)),
    Route(name="verifier-download", get=only(200, *AUDITORS), post=_NO_METHOD),
    Route(name="signing-keys", get=only(200, *AUDITORS), post=_NO_METHOD),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Socket:
    """One WebSocket: whose is accepted; everybody else's is refused."""

    route: str
    accepts: tuple[str, ...]
    address: Callable[[Scene], str]
    unknown: str = ""


SOCKETS = [
    Socket(
        route="ws/changes/",
        accepts=SIGNED_IN,
        address=lambda scene: "/ws/changes/",
    ),
    Socket(
        route="ws/terminal/<uuid:grant_id>/",
        accepts=(OWNER,),
        address=lambda scene: f"/ws/terminal/{scene.grant.pk}/",
        unknown=f"/ws/terminal/{uuid.UUID(int=7)}/",
    ),
    Socket(
        route="ws/watch/<uuid:session_id>/",
        accepts=(APPROVER, AUDITOR),
        address=lambda scene: f"/ws/watch/{scene.live.pk}/",
        unknown=f"/ws/watch/{uuid.UUID(int=7)}/",
    ),
]
