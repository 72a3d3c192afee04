"""R18: caps on connections that have not authenticated yet."""

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.gateway.limits import SOURCES, Budget, LoginGate, LoginLimits, source_of


def test_r18_one_source_cannot_use_up_the_total():
    gate = LoginGate(LoginLimits(total=10, per_source=3))
    admitted = [gate.admit(n, "192.0.2.1", lambda: None, at=0.0) for n in range(5)]
    assert admitted == [True, True, True, False, False]
    assert gate.admit("other", "192.0.2.2", lambda: None, at=0.0)
    assert gate.refused == 2


def test_r18_a_full_gate_still_lets_a_newcomer_in():
    dropped: list[int] = []
    gate = LoginGate(LoginLimits(total=4, per_source=4))
    for n in range(4):
        assert gate.admit(n, "192.0.2.1", partial(dropped.append, n), at=0.0)
    assert gate.admit("genuine", "192.0.2.9", partial(dropped.append, 99), at=0.0)
    assert dropped == [0]
    assert len(gate) == 4


def test_a_gate_full_of_single_connections_refuses():
    gate = LoginGate(LoginLimits(total=2, per_source=2))
    assert gate.admit(1, "192.0.2.1", lambda: None, at=0.0)
    assert gate.admit(2, "192.0.2.2", lambda: None, at=0.0)
    assert not gate.admit(3, "192.0.2.3", lambda: None, at=0.0)
    assert not gate.admit(4, "192.0.2.1", lambda: None, at=0.0)


def test_release_is_repeatable_and_makes_room():
    gate = LoginGate(LoginLimits(total=1, per_source=1))
    assert gate.admit(1, "192.0.2.1", lambda: None, at=0.0)
    gate.release(1, "192.0.2.1")
    gate.release(1, "192.0.2.1")
    gate.release(2, "192.0.2.7")
    assert len(gate) == 0
    assert gate.admit(2, "192.0.2.1", lambda: None, at=0.0)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("", "", True),
        ("unix", "192.0.2.1", False),
    ],
)
def test_sources(one, other, same):
    assert (source_of(one) == source_of(other)) is same


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 6), st.integers(0, 40)), max_size=200
    )
)
def test_r18_the_state_never_exceeds_the_limits(steps):
    gate = LoginGate(LoginLimits(total=8, per_source=3))
    open_now: dict[int, str] = {}

    def forget(key: int) -> None:
        del open_now[key]

    for arrive, host, key in steps:
        address = f"192.0.2.{host}"
        if arrive and key not in open_now:
            if gate.admit(key, address, partial(forget, key), at=0.0):
                open_now[key] = address
        elif key in open_now:
            gate.release(key, open_now.pop(key))
        assert len(gate) == len(open_now) <= 8
        for source in set(open_now.values()):
            assert list(open_now.values()).count(source) <= 3


def test_a_budget_is_used_up_and_comes_back():
    budget = Budget(burst=3, per_second=2)
    assert [budget.spend(10.0) for _ in range(4)] == [True, True, True, False]
    assert not budget.spend(10.4)
    assert budget.spend(10.5)
    assert not budget.spend(10.5)
    assert [budget.spend(1000.0) for _ in range(4)] == [True, True, True, False]


@given(
    st.lists(st.tuples(st.floats(0, 10), st.floats(0, 5)), max_size=100),
)
def test_a_budget_gives_no_more_than_burst_and_rate(steps):
    budget, at, spent = Budget(burst=5, per_second=1), 0.0, 0.0
    for pause, amount in steps:
        at += pause
        if budget.spend(at, amount):
            spent += amount
        assert spent <= 5 + at + 1e-6


def test_r18_connections_that_come_and_go_are_limited_by_their_rate():
    gate = LoginGate(LoginLimits(burst=10, per_second=1))

    def come_and_go(address, at):
        admitted = gate.admit("key", address, lambda: None, at=at)
        gate.release("key", address)
        return admitted

    assert sum(come_and_go("192.0.2.1", 5.0) for _ in range(50)) == 10
    assert come_and_go("192.0.2.2", 5.0), "another source is not held up"
    assert sum(come_and_go("192.0.2.1", 8.0) for _ in range(50)) == 3


def test_r18_what_is_remembered_of_sources_is_bounded():
    gate = LoginGate(LoginLimits())
    for number in range(3 * SOURCES):
        address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        assert gate.admit(number, address, lambda: None, at=0.0)
        gate.release(number, address)
    assert len(gate._rates) == SOURCES
    assert len(gate) == 0
