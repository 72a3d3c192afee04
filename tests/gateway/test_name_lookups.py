"""Names are looked up beside everything else, and only so many at a time."""

import asyncio
import socket
import threading

import pytest

from apps.gateway.forwarding import addresses_of
from apps.gateway.name_lookups import (
    AT_A_TIME,
    FORWARD_NAMES,
    LookupFailedError,
    NameLookups,
)
from apps.gateway.session_context import ChannelRefusedError
from apps.inventory.services import ForwardDestination

pytestmark = pytest.mark.timeout(60)


class Silence(threading.Event):
    """Until it is set, nobody answers; what was asked is kept."""

    def __init__(self):
        super().__init__()
        self.asked = []


@pytest.fixture
def silent(monkeypatch):
    """A name server that answers for *.silent only once it is let."""
    answers = Silence()
    asked = answers.asked

    def resolve(host, port, *_numbers, **_options):
        asked.append(host)
        if host.endswith(".silent"):
            assert answers.wait(30)
        elif not host.endswith(".plant"):
            raise socket.gaierror("unknown name")
        return [
            (2, 1, 6, "", ("192.0.2.4", port)),
            (10, 1, 6, "", ("fe80::1%eth0", port, 0, 2)),
            (2, 1, 6, "", ("192.0.2.4", port)),
        ]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    yield answers
    answers.set()


async def idle(names):
    async with asyncio.timeout(30):
        while names.running:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_names_without_an_answer_hold_up_nothing_else(silent):
    names = NameLookups()
    waiting = [
        asyncio.create_task(names.addresses(f"{number}.silent", 22, seconds=60))
        for number in range(AT_A_TIME)
    ]
    async with asyncio.timeout(30):
        while len(silent.asked) < AT_A_TIME:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert await asyncio.to_thread(lambda: "the loop's own pool is free")
        with pytest.raises(LookupFailedError, match="too many"):
            await names.addresses("one-more.plant", 22, seconds=60)
        found = await NameLookups().addresses("asset.plant", 22, seconds=60)
    assert [str(address) for address in found] == ["192.0.2.4", "fe80::1"]
    silent.set()
    assert await asyncio.gather(*waiting) == [found] * AT_A_TIME
    await idle(names)
    assert await names.addresses("one-more.plant", 22, seconds=60) == found


async def test_who_asks_for_the_same_name_shares_the_look_up(silent):
    names = NameLookups(1)
    one = asyncio.create_task(names.addresses("a.silent", 22, seconds=60))
    two = asyncio.create_task(names.addresses("a.silent", 22, seconds=60))
    await asyncio.sleep(0)
    one.cancel()
    silent.set()
    assert len(await two) == 2
    assert silent.asked == ["a.silent"]


async def test_a_look_up_that_takes_too_long_counts_until_it_ends(silent):
    names = NameLookups(1)
    with pytest.raises(LookupFailedError, match="in time"):
        await names.addresses("a.silent", 22, seconds=0.01)
    with pytest.raises(LookupFailedError, match="too many"):
        await names.addresses("b.plant", 22, seconds=60)
    silent.set()
    await idle(names)
    assert await names.addresses("b.plant", 22, seconds=60)
    with pytest.raises(LookupFailedError, match="unknown name"):
        await names.addresses("nowhere.example", 22, seconds=60)


async def test_a_forward_to_a_name_is_refused_while_too_many_are_looked_up(silent):
    waiting = [
        asyncio.create_task(FORWARD_NAMES.addresses(f"{number}.silent", 22, seconds=60))
        for number in range(AT_A_TIME)
    ]
    await asyncio.sleep(0)
    with pytest.raises(ChannelRefusedError, match="cannot resolve"):
        await addresses_of(ForwardDestination("b.plant", 22), allow_local=False)
    silent.set()
    await asyncio.gather(*waiting)
    await idle(FORWARD_NAMES)
