"""What the API says about live sessions, and what it does to them."""

import datetime as dt
import json
from typing import Any

import pytest
from django.test import Client
from django_otp.plugins.otp_totp.models import TOTPDevice

from apps.accounts import api_tokens
from apps.accounts import operations as accounts
from apps.accounts.models import ApiToken, User
from apps.audit.kinds import Kind
from apps.audit.models import AuditEvent
from apps.sessions.models import Session
from apps.sessions.terminals import note_locked
from tests import factories
from tests.factories import clock
from tests.portal import plant_work
from tests.portal.doors import PASSWORD, code_now, sign_in

pytestmark = pytest.mark.django_db


class Program:
    """Calls with a token."""

    def __init__(self, person: User, *scopes: str) -> None:
        self.token, self.secret = api_tokens.make_token(
            user=person,
            name="shift board",
            scopes=scopes or api_tokens.SCOPES,
            days=30,
            source_address="192.0.2.7",
            now=clock(),
        )
        self._headers = {"Authorization": f"Bearer {self.secret}"}

    def get(self, path: str) -> Any:
        return Client().get(f"/api/v1/{path}", headers=self._headers)

    def post(self, path: str, body: object = None) -> Any:
        return Client().post(
            f"/api/v1/{path}",
            body if isinstance(body, str) else json.dumps(body or {}),
            content_type="application/json",
            headers=self._headers,
        )


@pytest.fixture
def here() -> factories.Plant:
    return factories.plant()


@pytest.fixture
def live(here: factories.Plant) -> Session:
    return plant_work.live_session(factories.grant(here), plant_work.gateway())


def test_one_sees_what_the_pages_show(here: factories.Plant, live: Session) -> None:
    shown = Program(here.approver).get("sessions").json()
    assert shown["more"] is False
    (one,) = shown["sessions"]
    assert one["id"] == str(live.pk)
    assert (one["person"], one["asset"], one["account"]) == (
        here.engineer.username,
        here.asset.name,
        here.account.name,
    )
    every = ("watch", "control", "terminate", "hand_over")
    assert one["may"] == dict.fromkeys(every, True)
    assert one["typist"] == here.engineer.username
    own = Program(here.engineer).get(f"sessions/{live.pk}").json()
    assert own["may"] == {
        "watch": False,
        "control": False,
        "terminate": True,
        "hand_over": True,
    }
    assert Program(here.second_engineer).get("sessions").json()["sessions"] == []


def test_freeze_message_resume_terminate(here: factories.Plant, live: Session) -> None:
    program, path = Program(here.approver), f"sessions/{live.pk}"
    done = program.post(f"{path}/freeze", {"reason": "alarm"})
    assert done.json() == {"accepted": True}
    assert program.get(path).json()["frozen_by"] == here.approver.username
    assert program.get(path).json()["locked_at"] is None
    note_locked(session_id=live.pk, now=factories.clock())
    assert program.get(path).json()["locked_at"] is not None
    assert program.post(f"{path}/messages", {"text": "wait"}).status_code == 200
    assert program.post(f"{path}/resume").status_code == 200
    assert program.post(f"{path}/resume").status_code == 409
    assert program.post(f"{path}/terminate", {"reason": "enough"}).status_code == 200
    live.refresh_from_db()
    assert live.terminate_asked_by == here.approver
    assert live.terminate_reason == "enough"
    assert [message.text for message in live.messages.all()] == ["wait"]
    kinds = set(AuditEvent.objects.values_list("kind", flat=True))
    assert kinds >= {
        Kind.SESSION_FREEZE_ASKED,
        Kind.SESSION_RESUME_ASKED,
        Kind.SESSION_TERMINATE_ASKED,
    }


def test_the_typing_is_handed_over_and_taken_back(
    here: factories.Plant, live: Session
) -> None:
    receiver = plant_work.receiver(here)
    program, path = Program(here.engineer), f"sessions/{live.pk}"
    body = {"to": receiver.username}
    refused = program.post(f"{path}/handover", body)
    assert (refused.status_code, refused.json()["code"]) == (409, "receiver_refused")
    plant_work.watch(live, receiver)
    assert program.post(f"{path}/handover", body).json() == {"accepted": True}
    assert program.get(path).json()["typist"] == receiver.username
    assert Program(receiver).post(f"{path}/take-back").status_code == 200
    assert program.get(path).json()["typist"] == here.engineer.username
    rows = AuditEvent.objects.filter(
        kind__in=[Kind.SESSION_HANDED_OVER, Kind.SESSION_TAKEN_BACK]
    )
    assert {json.loads(row.data)["door"] for row in rows} == {"api"}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("freeze", {}, 422),
        ("freeze", {"reason": ""}, 422),
        ("freeze", {"reason": "x" * 301}, 422),
        ("freeze", {"reason": 7}, 422),
        ("freeze", {"reason": "   "}, 409),
        ("freeze", "no json", 400),
        ("freeze", "[]", 422),
        ("messages", {"text": None}, 422),
        ("terminate", {"why": "x"}, 422),
        ("handover", {}, 422),
        ("handover", {"to": ""}, 422),
        ("handover", {"to": "x" * 65}, 422),
    ],
)
def test_what_is_no_request_does_nothing(
    here: factories.Plant, live: Session, path: str, body: object, status: int
) -> None:
    program = Program(here.approver)
    events = AuditEvent.objects.count()
    answer = program.post(f"sessions/{live.pk}/{path}", body)
    assert answer.status_code == status
    assert answer["Content-Type"] == "application/problem+json"
    assert answer.json()["code"] in {"invalid", "reason_missing"}
    assert AuditEvent.objects.count() == events


def test_the_description_names_every_address_and_its_errors(
    here: factories.Plant,
) -> None:
    schema = Program(here.auditor).get("openapi.json").json()
    assert schema["info"]["title"] == "Sluice"
    assert set(schema["paths"]) == {
        "/api/v1/sessions",
        *(
            f"/api/v1/sessions/{{session_id}}{action}"
            for action in (
                "",
                "/freeze",
                "/resume",
                "/messages",
                "/handover",
                "/take-back",
                "/terminate",
            )
        ),
    }
    for path in schema["paths"].values():
        for operation in path.values():
            assert {"200", "401", "403", "404", "422"} <= set(operation["responses"])
            assert operation["security"]


@pytest.mark.parametrize("how", ["revoked", "expired", "disabled", "password", "reset"])
def test_a_dead_token_is_nobody(here: factories.Plant, how: str) -> None:
    """R2, R15: a token never outlives what its person lost."""
    person, now = here.approver, clock()
    program = Program(person)
    assert program.get("sessions").status_code == 200
    if how == "revoked":
        assert api_tokens.revoke_token(token_id=program.token.pk, user=person, now=now)
    elif how == "expired":
        row = ApiToken.objects.filter(pk=program.token.pk)
        row.update(made_at=now - dt.timedelta(days=2), expires_at=now)
    elif how == "disabled":
        accounts.disable_person(user_id=person.pk, by=here.administrator, now=now)
        accounts.enable_person(user_id=person.pk, by=here.administrator, now=now)
    elif how == "password":
        new = factories.password()
        accounts.change_password(user=person, new_password=new, now=now)
    else:
        accounts.reset_factors(user_id=person.pk, by=here.administrator, now=now)
    answer = program.get("sessions")
    assert answer.status_code == 401
    assert answer.json()["code"] == "unauthenticated"


def test_a_role_that_was_taken_away_does_not_live_on_in_a_token(
    here: factories.Plant, live: Session
) -> None:
    """R15: what a token may do is what its person may do now."""
    program = Program(here.approver)
    accounts.change_person(
        user_id=here.approver.pk,
        full_name="x",
        email="",
        organisation="",
        roles=frozenset({"engineer"}),
        by=here.administrator,
        now=clock(),
    )
    path = f"sessions/{live.pk}"
    assert program.get(path).status_code == 404
    assert program.post(f"{path}/freeze", {"reason": "x"}).status_code == 404


def test_only_the_hash_is_kept(here: factories.Plant) -> None:
    """R2, R3: 256 random bits, and no row holds them."""
    program = Program(here.engineer)
    row = ApiToken.objects.get()
    assert program.secret.startswith(api_tokens.PREFIX)
    assert len(program.secret) >= 50
    assert len(bytes(row.token_hash)) == 32
    held = [str(value) for value in ApiToken.objects.values_list()]
    events = list(AuditEvent.objects.values_list("data", flat=True))
    assert not any(program.secret in text for text in [*held, *events])
    assert Program(here.engineer).secret != program.secret


@pytest.mark.parametrize(
    "changes",
    [{"days": 0}, {"days": 91}, {"scopes": []}, {"scopes": ["all"]}, {"name": " "}],
)
def test_odd_tokens_are_refused(here: factories.Plant, changes: Any) -> None:
    wanted = {"name": "x", "scopes": [api_tokens.READ], "days": 1, **changes}
    with pytest.raises(api_tokens.TokenRefusedError):
        api_tokens.make_token(
            user=here.engineer, source_address="192.0.2.7", now=clock(), **wanted
        )
    assert not ApiToken.objects.exists()


def test_a_token_takes_a_fresh_code_and_is_shown_once(here: factories.Plant) -> None:
    client = sign_in(here.engineer).client
    codes = accounts.make_recovery_codes(user=here.engineer, now=clock())
    body = {
        "name": "shift board",
        "scopes": ["sessions:read"],
        "days": 30,
        # The code that signed in is used up.
        "code": code_now(here.engineer),
    }
    assert client.post("/account/api-tokens/", body).status_code == 422
    assert not ApiToken.objects.exists()
    page = client.post("/account/api-tokens/", {**body, "code": codes[0]})
    assert page.status_code == 200
    secret = page.content.decode().split("sluice_", 1)[1].split("<", 1)[0]
    headers = {"Authorization": f"Bearer sluice_{secret}"}
    assert Client().get("/api/v1/sessions", headers=headers).status_code == 200
    again = client.get("/account/api-tokens/").content.decode()
    assert "shift board" in again
    assert secret not in again
    token = ApiToken.objects.get()
    assert client.post(f"/account/api-tokens/{token.pk}/revoke/").status_code == 302
    assert Client().get("/api/v1/sessions", headers=headers).status_code == 401
    kinds = list(AuditEvent.objects.values_list("kind", flat=True))
    assert kinds.count(Kind.API_TOKEN_MADE) == kinds.count(Kind.API_TOKEN_REVOKED) == 1


def test_half_a_sign_in_is_nobody(here: factories.Plant) -> None:
    """R4: whose second factor was taken away proves too little, with a cookie too."""
    client = sign_in(here.engineer).client
    assert client.get("/api/v1/sessions").status_code == 200
    TOTPDevice.objects.filter(user=here.engineer).delete()
    assert client.get("/api/v1/sessions").status_code == 401
    password_only = Client()
    password_only.post("/sign-in/", {"username": here.engineer, "password": PASSWORD})
    assert password_only.get("/api/v1/sessions").status_code == 401
