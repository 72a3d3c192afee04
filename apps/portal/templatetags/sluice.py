"""Tags and filters: states, times and identifiers in the same words everywhere.

Times are aware datetimes; they are shown in UTC, and in the plant's zone beside it.
"""

import datetime as dt
import uuid
import zoneinfo
from typing import TypedDict

from django import template
from django.forms import BaseForm, BoundField
from django.template.loader import render_to_string
from django.utils.safestring import SafeString, mark_safe

from apps.accounts.api_tokens import SCOPE_LABELS
from apps.accounts.models import User
from apps.audit.identifiers import short_id as audit_short_id
from apps.inventory.services import label_of

register = template.Library()
register.filter("service_label", label_of)


@register.filter
def scope_label(scope: str) -> str:
    """Return what an API token with this scope is for."""
    return SCOPE_LABELS.get(scope, scope)


_SOON_SECONDS = 300

# For each thing with states: the badge's kind (fill and shape) and its word. A live
# session is normal, so it is neither green nor red; amber waits for somebody or is
# about to end; red is a breach or a failed proof.
STATES: dict[str, dict[str, tuple[str, str]]] = {
    "request": {
        "pending": ("warn", "Waiting"),
        "approved": ("done", "Approved"),
        "denied": ("idle", "Denied"),
        "withdrawn": ("idle", "Withdrawn"),
        "lapsed": ("idle", "Lapsed"),
    },
    "grant": {
        "active": ("live", "Active"),
        "expired": ("idle", "Expired"),
        "revoked": ("idle", "Revoked"),
        "finished": ("done", "Finished"),
    },
    "session": {
        "opening": ("live", "Opening"),
        "active": ("live", "Live"),
        "frozen": ("warn", "Frozen"),
        "ending": ("warn", "Ending"),
        "ended": ("idle", "Ended"),
    },
    "lease": {
        "issued": ("live", "In use"),
        "withdrawing": ("warn", "Withdrawing"),
        "proved_dead": ("done", "Proved dead"),
        "open": ("alarm", "Still open"),
    },
    "recording": {
        "writing": ("live", "Recording"),
        "sealed": ("done", "Sealed"),
        "verified": ("done", "Verified"),
        "broken": ("alarm", "Broken"),
    },
    "outcome": {
        "success": ("done", "Done"),
        "denied": ("idle", "Denied"),
        "failure": ("alarm", "Failed"),
    },
    "held": {
        "receiving": ("live", "Receiving"),
        "held": ("warn", "Held"),
        "released": ("live", "Released"),
        "delivered": ("done", "Delivered"),
        "rejected": ("idle", "Rejected"),
        "expired": ("idle", "Expired"),
        "broken": ("alarm", "Broken"),
    },
    "file": {
        "held": ("warn", "Held"),
        "complete": ("done", "Done"),
        "partial": ("warn", "Partial"),
        "denied": ("idle", "Denied"),
        "failed": ("idle", "Failed"),
    },
    "person": {
        "enabled": ("done", "Enabled"),
        "disabled": ("idle", "Disabled"),
    },
}

# django.contrib.messages' level tags.
_MESSAGES: dict[str, tuple[str, str]] = {
    "debug": ("idle", "Note"),
    "info": ("idle", "Note"),
    "success": ("done", "Done"),
    "warning": ("warn", "Look"),
    "error": ("alarm", "Not done"),
}


class BadgeContext(TypedDict):
    """What components/badge.html shows."""

    kind: str
    text: str


@register.inclusion_tag("components/badge.html")
def badge(kind: str, text: str) -> BadgeContext:
    """Show `text` in a badge of `kind`: alarm, warn, live, idle or done."""
    return {"kind": kind, "text": text}


@register.inclusion_tag("components/badge.html")
def state_badge(thing: str, state: str) -> BadgeContext:
    """Show the state of a thing (a key of `STATES`) as fill, shape and word.

    Raises: KeyError on a state nobody gave a badge; a page must not invent one.
    """
    kind, text = STATES[thing][str(state)]
    return {"kind": kind, "text": text}


@register.filter
def message_kind(level_tag: str) -> str:
    """Return the badge kind for a message's level tag, such as `error`."""
    return _MESSAGES[level_tag][0]


@register.filter
def message_word(level_tag: str) -> str:
    """Return the badge word for a message's level tag."""
    return _MESSAGES[level_tag][1]


@register.filter
def short_id(identifier: uuid.UUID, prefix: str) -> str:
    """Return the form of an identifier shown to people, such as `S-7QK2MD`."""
    return audit_short_id(prefix, identifier)


@register.filter
def role_words(user: User) -> str:
    """Return a person's roles in words, such as `engineer and approver`."""
    names = user.role_names
    if len(names) < 2:
        return "".join(names) or "no role"
    return f"{', '.join(names[:-1])} and {names[-1]}"


@register.filter
def utc(value: dt.datetime) -> str:
    """Return an aware datetime as `23 Nov 2026 13:31 UTC`; naive ones are refused."""
    return f"{_day_and_minute(_aware(value).astimezone(dt.UTC))} UTC"


@register.filter
def utc_second(value: dt.datetime) -> str:
    """Return an aware datetime as `23 Nov 2026 13:31:04 UTC`."""
    at = _aware(value).astimezone(dt.UTC)
    return f"{_day_and_minute(at)}:{at:%S} UTC"


@register.filter
def plant_time(value: dt.datetime, zone: str | zoneinfo.ZoneInfo | None) -> str:
    """Return an aware datetime at the plant, as `23 Nov 2026 14:31 CET`.

    `zone` is an IANA name or a ZoneInfo. Empty without a zone, or with a name that
    this machine's time zone tables do not know: UTC still stands beside it.
    """
    if not zone:
        return ""
    try:
        place = zoneinfo.ZoneInfo(zone) if isinstance(zone, str) else zone
    except (zoneinfo.ZoneInfoNotFoundError, ValueError):
        return ""
    at = _aware(value).astimezone(place)
    return f"{_day_and_minute(at)} {at:%Z}"


@register.filter
def duration(value: dt.timedelta | float | None) -> str:
    """Return a length of time in words: `0.8 s`, `41 min`, `1 h 5 min`, `2 days 3 h`.

    Takes a timedelta or seconds; at most two units, rounded down to the smaller one,
    so that no page promises more time than there is.
    """
    if value is None:
        return ""
    seconds = value.total_seconds() if isinstance(value, dt.timedelta) else float(value)
    if seconds < 0:
        raise ValueError("a duration is not negative")
    if seconds < 10 and seconds != int(seconds):
        return f"{int(seconds * 10) / 10} s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes < 5 and rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    shown = f"{days} day" if days == 1 else f"{days} days"
    return f"{shown} {hours} h" if hours else shown


@register.filter
def milliseconds(value: int) -> str:
    """Return a whole number of milliseconds in words, such as `0.8 s`."""
    return duration(dt.timedelta(milliseconds=value)) if value >= 100 else f"{value} ms"


class MomentContext(TypedDict):
    """What components/time.html shows."""

    iso: str
    utc: str
    plant: str
    folded: bool
    focusable: bool


@register.simple_tag
def moment(
    value: dt.datetime | None,
    zone: str | zoneinfo.ZoneInfo | None = None,
    *,
    seconds: bool = False,
    unfolded: bool = False,
    focusable: bool = True,
) -> SafeString:
    """Show a moment in UTC; the plant's own time on hover and focus, or `unfolded`.

    `focusable=False` is for long tables, where the plant's line would add a stop to
    the keyboard's way on every row.
    """
    context: MomentContext = {
        "iso": _iso(value) if value else "",
        "utc": (utc_second(value) if seconds else utc(value)) if value else "not yet",
        "plant": plant_time(value, zone) if value else "",
        "folded": not unfolded,
        "focusable": focusable,
    }
    html = render_to_string("components/time.html", dict(context))
    # Nothing around it, so that a comma can follow; the template has escaped it all.
    return mark_safe(html.strip())  # noqa: S308  # nosec B308 B703


class CountdownContext(TypedDict):
    """What components/countdown.html shows; `left` and `total` are whole seconds."""

    ends_iso: str
    now_iso: str
    duration_iso: str
    face: str
    left: int
    total: int
    soon: bool
    label: str
    note: str


@register.inclusion_tag("components/countdown.html")
def countdown(
    starts_at: dt.datetime,
    ends_at: dt.datetime,
    *,
    now: dt.datetime,
    label: str,
    note: str = "",
) -> CountdownContext:
    """Show the time left of `[starts_at, ends_at)` at `now`; countdown.js counts on.

    `label` says what ends ("Access to hmi-pump-01"), `note` what happens then.
    """
    left = max(0, -((now - ends_at) // dt.timedelta(seconds=1)))
    return {
        "ends_iso": _iso(ends_at),
        "now_iso": _iso(now),
        "duration_iso": f"PT{left}S",
        "face": clock_face(left),
        "left": left,
        "total": max(1, int((ends_at - starts_at).total_seconds())),
        "soon": left < _SOON_SECONDS,
        "label": label,
        "note": note,
    }


@register.filter
def clock_face(seconds: int) -> str:
    """Return `41:12`, or `2:05:00` from an hour on; as countdown.js writes it."""
    hours, rest = divmod(int(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


@register.filter
def fields_with_errors(form: BaseForm) -> list[BoundField]:
    """Return the visible fields of `form` that have an error, in their order."""
    return [field for field in form.visible_fields() if field.errors]


def _aware(value: dt.datetime) -> dt.datetime:
    if value.utcoffset() is None:
        raise ValueError("a time on a page needs its zone")
    return value


def _day_and_minute(value: dt.datetime) -> str:
    return f"{value.day} {value:%b %Y %H:%M}"


def _iso(value: dt.datetime) -> str:
    return f"{_aware(value).astimezone(dt.UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"
