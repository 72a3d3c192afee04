"""Who is lost, as one observer sees it: no clock but its own, no hasty judgement."""

import datetime as dt
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.sessions.heartbeats import HeartbeatObserver

ONE, OTHER = uuid.UUID(int=1), uuid.UUID(int=2)
START = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)


def moment(seconds: float) -> dt.datetime:
    return START + dt.timedelta(seconds=seconds)


def test_a_silent_gateway_is_lost_and_a_living_one_is_not():
    observer = HeartbeatObserver(4.0)
    found = {}
    for step in range(60):
        at = step * observer.pause_seconds
        found = observer.look({ONE: START, OTHER: moment(int(at))}, at=at)
        if found:
            assert at == pytest.approx(4.0)
            break
    assert found == {ONE: START}


def test_a_new_observer_judges_nobody_at_once():
    """However old the row is by the clock on the wall."""
    assert HeartbeatObserver(4.0).look({ONE: moment(-86400)}, at=0) == {}


def test_a_gateway_that_speaks_again_starts_anew():
    observer = HeartbeatObserver(4.0)
    for step in range(9):
        assert observer.look({ONE: START}, at=step * 0.4) == {}
    assert observer.look({ONE: moment(1)}, at=3.6) == {}
    assert observer.look({ONE: moment(1)}, at=4.0) == {}


def test_an_observer_that_slept_accuses_nobody():
    """Suspended for an hour, or kept from the database: it looks again first."""
    observer = HeartbeatObserver(4.0)
    observer.look({ONE: START}, at=0)
    assert observer.look({ONE: START}, at=3600) == {}


def test_a_gateway_that_is_gone_is_forgotten():
    observer = HeartbeatObserver(4.0)
    for at in range(9):
        assert observer.look({number_id(at): START}, at=at * 0.4) == {}
    assert len(observer._heard) == 1


def number_id(number: int) -> uuid.UUID:
    return uuid.UUID(int=number)


@given(
    skew=st.floats(-1e6, 1e6),
    beats=st.lists(st.floats(0.5, 1.5), min_size=30, max_size=60),
    pauses=st.lists(st.floats(0.1, 30.0), min_size=10, max_size=60),
)
def test_who_beats_in_time_is_never_lost(skew, beats, pauses):
    """Whatever its clock says, and however irregularly it is looked at."""
    observer = HeartbeatObserver(4.0)
    times = [0.0]
    while times[-1] < sum(pauses):
        times.append(times[-1] + beats[len(times) % len(beats)])
    at = 0.0
    for pause in pauses:
        at += pause
        last = max(time for time in times if time <= at)
        assert observer.look({ONE: moment(skew + last)}, at=at) == {}


@given(lost=st.integers(3, 600), jitter=st.floats(0.5, 1.0))
def test_who_is_silent_is_lost_in_time(lost, jitter):
    """An observer that looks as often as meant, or oftener, finds it soon enough."""
    observer = HeartbeatObserver(float(lost))
    at = 0.0
    while not observer.look({ONE: START}, at=at):
        at += observer.pause_seconds * jitter
        assert at <= lost + 2 * observer.pause_seconds
    assert at >= lost * 0.99
