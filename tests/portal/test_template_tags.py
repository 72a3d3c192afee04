"""Tags and filters, and the components they show."""

import datetime as dt
import enum
import re
import uuid

import pytest
from django.core.paginator import Paginator
from django.http import HttpRequest
from django.template import engines
from django.test import RequestFactory
from hypothesis import given
from hypothesis import strategies as st

from apps.access.lifecycle import GrantState, RequestState
from apps.accounts.models import User
from apps.audit.models import Outcome
from apps.portal.templatetags import sluice
from apps.recordings.lifecycle import RecordingState
from apps.sessions.lifecycle import SessionState
from apps.vault.lifecycle import LeaseStep

NOON = dt.datetime(2026, 11, 23, 13, 31, 4, 250_000, tzinfo=dt.UTC)


def shown(source: str, **context: object) -> str:
    """Return what a template with our tags loaded shows, white space folded."""
    template = engines["django"].from_string("{% load sluice %}" + source)
    request = context.pop("request", None)
    assert request is None or isinstance(request, HttpRequest)
    return re.sub(r"\s+", " ", template.render(context, request)).strip()


@pytest.mark.parametrize(
    ("thing", "states"),
    [
        ("request", RequestState),
        ("grant", GrantState),
        ("session", SessionState),
        ("lease", LeaseStep),
        ("recording", RecordingState),
        ("outcome", Outcome),
    ],
)
def test_every_state_has_a_badge_and_no_badge_is_left_over(
    thing: str, states: type[enum.Enum]
) -> None:
    assert set(sluice.STATES[thing]) == {str(state.value) for state in states}


def test_a_state_is_a_shape_and_a_word() -> None:
    assert (
        shown("{% state_badge 'session' state %}", state=SessionState.ACTIVE)
        == '<span class="badge live">Live</span>'
    )


def test_a_state_without_a_badge_is_a_fault() -> None:
    with pytest.raises(KeyError):
        sluice.state_badge("session", "resting")


def test_what_people_typed_is_text() -> None:
    assert "&lt;b&gt;" in shown("{% badge 'idle' text %}", text="<b>")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, ""),
        (0, "0 s"),
        (0.84, "0.8 s"),
        (9.99, "9.9 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (61, "1 min 1 s"),
        (299, "4 min 59 s"),
        (301, "5 min"),
        (dt.timedelta(minutes=41, seconds=12), "41 min"),
        (3600, "1 h"),
        (3900, "1 h 5 min"),
        (dt.timedelta(days=1, hours=3), "1 day 3 h"),
        (dt.timedelta(days=2), "2 days"),
    ],
)
def test_durations_are_words(value: dt.timedelta | float | None, words: str) -> None:
    assert sluice.duration(value) == words


def test_a_negative_duration_is_refused() -> None:
    with pytest.raises(ValueError, match="not negative"):
        sluice.duration(-1)


def test_utc_stands_first_and_the_plant_beside_it() -> None:
    assert sluice.utc(NOON) == "23 Nov 2026 13:31 UTC"
    assert sluice.utc_second(NOON) == "23 Nov 2026 13:31:04 UTC"
    assert sluice.plant_time(NOON, "Europe/Amsterdam") == "23 Nov 2026 14:31 CET"
    summer = dt.datetime(2026, 7, 1, 22, 30, tzinfo=dt.UTC)
    assert sluice.plant_time(summer, "Europe/Amsterdam") == "2 Jul 2026 00:30 CEST"


@pytest.mark.parametrize("zone", ["", None, "Nowhere/Plant", "../etc/passwd"])
def test_without_a_known_zone_utc_stands_alone(zone: str | None) -> None:
    assert sluice.plant_time(NOON, zone) == ""
    html = shown("{% moment at zone %}", at=NOON, zone=zone)
    assert "plant" not in html
    assert "tabindex" not in html


def test_a_time_without_a_zone_is_refused() -> None:
    naive = NOON.replace(tzinfo=None)
    with pytest.raises(ValueError, match="needs its zone"):
        sluice.utc(naive)


def test_a_moment_can_be_reached_by_the_keyboard() -> None:
    html = shown("{% moment at 'Europe/Amsterdam' %}", at=NOON)
    assert 'datetime="2026-11-23T13:31:04.250Z"' in html
    assert 'tabindex="0"' in html
    assert "14:31 CET" in html


def test_a_moment_in_a_long_table_adds_no_stop() -> None:
    html = shown("{% moment at 'Europe/Amsterdam' focusable=False %}", at=NOON)
    assert "tabindex" not in html
    assert "14:31 CET" in html


def test_no_moment_yet() -> None:
    html = shown("{% moment at %}", at=None)
    assert "not yet" in html
    assert "<time" not in html


def test_a_countdown_is_right_without_a_script() -> None:
    html = shown(
        "{% countdown start end now=now label=label note='then it is cut' %}",
        start=NOON,
        end=NOON + dt.timedelta(hours=1),
        now=NOON + dt.timedelta(minutes=18, seconds=48),
        label="Access to hmi-pump-01",
    )
    assert ">41:12</time>" in html
    assert 'datetime="PT2472S"' in html
    assert 'max="3600" value="2472"' in html
    assert "then it is cut" in html
    assert "soon" not in html.split("data-soon")[0]
    assert "style=" not in html


@pytest.mark.parametrize(
    ("left", "face", "soon"),
    [
        (dt.timedelta(minutes=5), "05:00", False),
        (dt.timedelta(minutes=5) - dt.timedelta(milliseconds=1), "05:00", False),
        (dt.timedelta(minutes=4, seconds=59), "04:59", True),
        (dt.timedelta(milliseconds=1), "00:01", True),
        (dt.timedelta(0), "00:00", True),
        (dt.timedelta(seconds=-5), "00:00", True),
        (dt.timedelta(hours=2, minutes=5), "2:05:00", False),
    ],
)
def test_a_countdown_at_its_edges(left: dt.timedelta, face: str, soon: bool) -> None:
    context = sluice.countdown(NOON, NOON + left, now=NOON, label="Access", note="note")
    assert (context["face"], context["soon"]) == (face, soon)
    assert context["left"] >= 0


@given(seconds=st.integers(min_value=0, max_value=200_000))
def test_the_clock_face_says_the_seconds(seconds: int) -> None:
    parts = [int(part) for part in sluice.clock_face(seconds).split(":")]
    hours, minutes, rest = ([0] * (3 - len(parts)) + parts)[:3]
    assert hours * 3600 + minutes * 60 + rest == seconds
    assert minutes < 60
    assert rest < 60


@pytest.mark.parametrize(
    ("roles", "words"),
    [
        ([], "no role"),
        (["engineer"], "engineer"),
        (["engineer", "approver"], "engineer and approver"),
        (["engineer", "approver", "auditor"], "engineer, approver and auditor"),
    ],
)
def test_roles_in_words(roles: list[str], words: str) -> None:
    person = User(username="x", **{f"is_{role}": True for role in roles})
    assert sluice.role_words(person) == words


def test_short_identifiers() -> None:
    assert re.fullmatch(r"S-[0-9A-Z]{6}", sluice.short_id(uuid.uuid4(), "S"))


@pytest.mark.parametrize("tag", ["debug", "info", "success", "warning", "error"])
def test_every_message_has_a_shape_and_a_word(tag: str) -> None:
    assert sluice.message_kind(tag) in {"idle", "done", "warn", "alarm"}
    assert sluice.message_word(tag)


def test_pages_keep_the_filters() -> None:
    page = Paginator(range(95), 20).page(2)
    request = RequestFactory().get("/ledger/?kind=access.&page=2")
    html = shown(
        "{% include 'components/pagination.html' with things='events' %}",
        page=page,
        request=request,
    )
    assert "21 to 40 of 95 events" in html
    assert 'href="?kind=access.&amp;page=3"' in html
    assert 'href="?kind=access.&amp;page=1"' in html


def test_an_empty_page_shows_no_pages() -> None:
    page = Paginator([], 20).page(1)
    assert shown("{% include 'components/pagination.html' %}", page=page) == ""
