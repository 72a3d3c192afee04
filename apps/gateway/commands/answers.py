"""What each command answers: the same operations as the portal's pages and the API.

Everything here is called in a thread and reads anew. Who may not do something is told
the same as for a session that does not exist, as on the pages.
"""

from __future__ import annotations

import datetime as dt
import json
import uuid
from dataclasses import dataclass
from typing import Final

from apps.access import queries as access
from apps.access.denials import Denied
from apps.accounts.models import User
from apps.gateway.commands.grammar import Command
from apps.gateway.terminal_lines import plain
from apps.sessions import controls, handover, queries
from apps.sessions.lifecycle import AskedBy
from apps.sessions.models import Session

DONE: Final = 0
REFUSED: Final = 1
WRONG: Final = 2

MOST: Final = 200
"""Sessions of one list; also those that a short form is looked for among."""

NOT_FOUND_LINE: Final = "no such live session, or it is not yours to do that with"
NOTHING_LINE: Final = "no live session"

_NEEDS_REASON: Final = frozenset({"freeze", "terminate"})
_HEADINGS: Final = ("SESSION", "PERSON", "ASSET", "ACCOUNT", "STATE", "LEFT", "YOU MAY")


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes to standard output and error, and the exit status."""

    status: int = DONE
    out: str = ""
    error: str = ""
    denied: bool = False
    """Something was refused: that is written down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks: by which key they signed in, when, and how old that is.

    `age` is None while the full sign-in is as good as just made.
    """

    user: User
    key_id: uuid.UUID
    signed_in_at: dt.datetime
    age: dt.timedelta | None
    source_address: str


def refusal_of(caller: Caller, *, now: dt.datetime) -> Answer | None:
    """Return why this sign-in is no longer good for commands; None when it is."""
    verdict = access.may_give_commands(
        caller.user,
        key_id=caller.key_id,
        signed_in_at=caller.signed_in_at,
        age=caller.age,
        now=now,
    )
    if isinstance(verdict, Denied):
        return Answer(REFUSED, error=verdict.message, denied=True)
    return None


def list_sessions(command: Command, caller: Caller, *, now: dt.datetime) -> Answer:
    """Return the live sessions the caller may see; what ends first, first."""
    person = User.objects.get(pk=caller.user.pk)
    found = list(
        queries.live_sessions_visible_to(person)
        .select_related("freeze_asked_by", "typist")
        .order_by("deadline")[: MOST + 1]
    )
    shown, more = found[:MOST], len(found) > MOST
    if command.json:
        facts = [_facts(person, session) for session in shown]
        return Answer(out=_json({"sessions": facts, "more": more}))
    if not shown:
        return Answer(out=f"{NOTHING_LINE}\n")
    rows: list[tuple[str, ...]] = [_HEADINGS]
    rows += [_row(person, session, now) for session in shown]
    text = _table(rows)
    if more:
        text += f"more than {MOST} are live; the rest is left out\n"
    return Answer(out=text)


def find(command: Command, caller: Caller) -> Session | None:
    """Return the session named, when the caller may do with it what they ask."""
    person = User.objects.get(pk=caller.user.pk)
    visible = queries.live_sessions_visible_to(person).order_by("deadline")
    session = _named(list(visible[:MOST]), command.session)
    if session is None:
        identifier = _identifier(command.session)
        session = visible.filter(pk=identifier).first() if identifier else None
    if session is None or not _may(command.name, person, session):
        return None
    return session


def _named(visible: list[Session], name: str) -> Session | None:
    """Return the one session of that short form; two of the same name are none."""
    wanted = name.upper()
    found = [session for session in visible if session.short_id == wanted]
    return found[0] if len(found) == 1 else None


def _identifier(name: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(name) if len(name) == 36 else None
    except ValueError:
        return None


def _may(name: str, person: User, session: Session) -> bool:
    if name == "watch":
        return bool(queries.may_watch(person, session))
    if name == "terminate":
        return bool(queries.may_terminate(person, session))
    if name == "handover":
        return bool(queries.may_take_back(person, session))
    return bool(queries.may_control(person, session))


def carry_out(
    command: Command, caller: Caller, session_id: uuid.UUID, *, now: dt.datetime
) -> Answer:
    """Do what was asked of the session, and say so."""
    verdict = _operation(command, caller, session_id, now=now)
    if isinstance(verdict, Denied):
        return Answer(REFUSED, error=verdict.message, denied=True)
    session = Session.objects.get(pk=session_id)
    if command.json:
        told = {"accepted": True, "id": str(session.pk), "short_id": session.short_id}
        return Answer(out=_json(told))
    done = {
        "message": "the message is on its way",
        "freeze": "the gateway holds the input now",
        "resume": "the gateway lets input through again",
        "terminate": "the gateway ends it now",
        "handover": f"{command.to} types from now on"
        if command.to
        else "its engineer types again",
    }
    return Answer(out=f"{session.short_id}: {done[command.name]}\n")


def _operation(
    command: Command, caller: Caller, session_id: uuid.UUID, *, now: dt.datetime
) -> object:
    by, asked = caller.user, AskedBy("ssh", caller.source_address)
    match command.name:
        case "message":
            return controls.send_message(
                session_id=session_id, by=by, text=command.text, now=now, asked=asked
            )
        case "handover" if command.back:
            return handover.take_back(
                session_id=session_id, by=by, now=now, asked=asked
            )
        case "handover":
            return handover.hand_over(
                session_id=session_id, by=by, to=command.to, now=now, asked=asked
            )
        case "freeze":
            return controls.ask_freeze(
                session_id=session_id,
                by=by,
                reason=command.reason,
                now=now,
                asked=asked,
            )
        case "resume":
            return controls.ask_resume(
                session_id=session_id, by=by, now=now, asked=asked
            )
        case "terminate":
            return controls.ask_terminate(
                session_id=session_id,
                by=by,
                reason=command.reason,
                now=now,
                asked=asked,
            )
    raise ValueError(f"{command.name} is no command for a session")


def needs_reason(command: Command) -> bool:
    """Say whether a reason is missing that the operation will ask for."""
    return command.name in _NEEDS_REASON and not command.reason.strip()


def question(command: Command, session: Session) -> str:
    """Return what is asked before anything is done."""
    what = f"{command.name.capitalize()} {session.short_id}"
    if command.to:
        what = f"Hand the typing to {command.to} in {session.short_id}"
    elif command.back:
        what = f"Take the typing back in {session.short_id}"
    return plain(
        f"{what}, {session.person.username} on "
        f"{session.asset.name} as {session.account.name}?"
    )


def _facts(person: User, session: Session) -> dict[str, object]:
    """Return what the API says of a live session, by the same names."""
    frozen_by = session.freeze_asked_by
    return {
        "id": str(session.pk),
        "short_id": session.short_id,
        "person": session.person.username,
        "asset": session.asset.name,
        "account": session.account.name,
        "site": session.asset.zone.site.name,
        "door": session.door,
        "source_address": session.source_address,
        "state": session.state,
        "opened_at": session.opened_at.isoformat(),
        "deadline": session.deadline.isoformat(),
        "frozen_by": frozen_by.username if frozen_by else None,
        "locked_at": session.locked_at.isoformat() if session.locked_at else None,
        "typist": (session.typist or session.person).username,
        "may": _rights(person, session),
    }


def _rights(person: User, session: Session) -> dict[str, bool]:
    return {
        "watch": bool(queries.may_watch(person, session)),
        "control": bool(queries.may_control(person, session)),
        "terminate": bool(queries.may_terminate(person, session)),
        "hand_over": bool(queries.may_hand_over(person, session)),
    }


def _row(person: User, session: Session, now: dt.datetime) -> tuple[str, ...]:
    names = [name for name, has in _rights(person, session).items() if has]
    minutes = max(0, int((session.deadline - now).total_seconds() // 60))
    return (
        session.short_id,
        session.person.username,
        session.asset.name,
        session.account.name,
        _state(session),
        f"{minutes} min",
        ", ".join(names).replace("_", " ") or "see it",
    )


def _state(session: Session) -> str:
    parts = [str(session.state)]
    if session.freeze_asked_by is not None:
        parts = [f"frozen by {session.freeze_asked_by.username}"]
    if session.locked_at is not None:
        parts.append("locked")
    if session.typist is not None:
        parts.append(f"{session.typist.username} types")
    return ", ".join(parts)


def _table(rows: list[tuple[str, ...]]) -> str:
    cells = [[plain(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return "".join(
        "  ".join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        + "\n"
        for row in cells
    )


def _json(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"
