"""R18: caps on connections that have not authenticated yet."""

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.gateway.limits import LoginGate, LoginLimits, source_of


def test_r18_one_source_cannot_use_up_the_total():
    gate = LoginGate(LoginLimits(total=10, per_source=3))
    admitted = [gate.admit(n, "192.0.2.1", lambda: None) for n in range(5)]
    assert admitted == [True, True, True, False, False]
    assert gate.admit("other", "192.0.2.2", lambda: None)
    assert gate.refused == 2


def test_r18_a_full_gate_still_lets_a_newcomer_in():
    dropped: list[int] = []
    gate = LoginGate(LoginLimits(total=4, per_source=4))
    for n in range(4):
        assert gate.admit(n, "192.0.2.1", partial(dropped.append, n))
    assert gate.admit("genuine", "192.0.2.9", partial(dropped.append, 99))
    assert dropped == [0]
    assert len(gate) == 4


def test_a_gate_full_of_single_connections_refuses():
    gate = LoginGate(LoginLimits(total=2, per_source=2))
    assert gate.admit(1, "192.0.2.1", lambda: None)
    assert gate.admit(2, "192.0.2.2", lambda: None)
    assert not gate.admit(3, "192.0.2.3", lambda: None)
    assert not gate.admit(4, "192.0.2.1", lambda: None)


def test_release_is_repeatable_and_makes_room():
    gate = LoginGate(LoginLimits(total=1, per_source=1))
    assert gate.admit(1, "192.0.2.1", lambda: None)
    gate.release(1, "192.0.2.1")
    gate.release(1, "192.0.2.1")
    gate.release(2, "192.0.2.7")
    assert len(gate) == 0
    assert gate.admit(2, "192.0.2.1", lambda: None)


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
            if gate.admit(key, address, partial(forget, key)):
                open_now[key] = address
        elif key in open_now:
            gate.release(key, open_now.pop(key))
        assert len(gate) == len(open_now) <= 8
        for source in set(open_now.values()):
            assert list(open_now.values()).count(source) <= 3
