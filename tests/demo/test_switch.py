"""`switch-old-01`: algorithms of 2004, one line, a password changed in-band."""

import re

import asyncssh
import pytest

from tests import openssh
from tests.demo.conftest import RunningPlant
from tests.terminal import Terminal

# cryptography means to drop finite-field Diffie-Hellman, which is what this switch has.
pytestmark = pytest.mark.filterwarnings("ignore:Diffie-Hellman over finite fields")

WRONG = "wrong-" + "x" * 12


class Switch:
    """A dialogue with the switch through the OpenSSH client."""

    def __init__(self, plant: RunningPlant, password: str, *, rows: int = 24) -> None:
        self.terminal = Terminal(
            plant.ssh(
                "switch-old-01", "-tt", "-oNumberOfPasswordPrompts=1", *openssh.LEGACY
            ),
            rows=rows,
        )
        self.terminal.wait_for(lambda text: "password:" in text)
        self.terminal.type(f"{password}\n")

    def wait(self, words: str) -> str:
        return self.terminal.wait_for(lambda text: words in text)

    def ask(self, command: str, *, until: str) -> str:
        """Type `command` and return what came back, up to and with `until`."""
        already = len(self.terminal.received)
        self.terminal.type(f"{command}\r")

        def has_come(_: str) -> bool:
            echoed = self.terminal.received[already:].decode("latin-1")
            return until in echoed.partition("\n")[2]

        self.terminal.wait_for(has_come)
        return self.terminal.received[already:].decode("latin-1")

    def close(self) -> None:
        self.terminal.close()


@pytest.fixture
def open_switch():
    opened = []

    def start(plant, password=None, **more):
        password = password or initial_password(plant)
        opened.append(Switch(plant, password, **more))
        return opened[-1]

    yield start
    for switch in opened:
        switch.close()


def initial_password(plant: RunningPlant) -> str:
    return plant.initial_secret("switch-old-01").read_text().strip()


def test_stock_ssh_finds_nothing_in_common(plant):
    answer = openssh.run(plant.ssh("switch-old-01"))
    assert answer.returncode == 255
    assert b"no matching key exchange method found" in answer.stderr


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        (openssh.LEGACY[:1] + openssh.LEGACY[1:2], b"no matching host key type"),
        (openssh.LEGACY[:1] + openssh.LEGACY[2:], b"no matching cipher"),
    ],
)
def test_every_old_algorithm_is_needed(plant, options, missing):
    answer = openssh.run(plant.ssh("switch-old-01", *options))
    assert answer.returncode == 255
    assert missing in answer.stderr


def test_offers_exactly_the_old_algorithms(plant):
    answer = openssh.run(plant.ssh("switch-old-01", "-vv", *openssh.LEGACY))
    offer = answer.stderr.decode().partition("peer server KEXINIT proposal")[2]

    def offered(kind: str) -> set[str]:
        found = re.search(rf"debug2: {kind}: (\S+)", offer)
        assert found
        return set(found[1].split(","))

    kex = {name for name in offered("KEX algorithms") if name.startswith("diffie")}
    assert kex == {"diffie-hellman-group1-sha1", "diffie-hellman-group14-sha1"}
    assert not any("256" in name for name in offered("KEX algorithms"))
    assert offered("host key algorithms") == {"ssh-rsa"}
    assert offered("ciphers stoc") == {"aes128-cbc", "3des-cbc"}
    assert offered("MACs stoc") == {"hmac-sha1"}


@pytest.mark.parametrize(
    ("kex", "cipher"),
    [
        ("diffie-hellman-group1-sha1", "3des-cbc"),
        ("diffie-hellman-group14-sha1", "aes128-cbc"),
    ],
)
async def test_legacy_profile_reaches_it(plant, kex, cipher):
    asset = plant.asset("switch-old-01")
    async with asyncssh.connect(
        asset["address"],
        asset["port"],
        username="admin",
        password=initial_password(plant),
        known_hosts=asyncssh.import_known_hosts(
            f"[{asset['address']}]:{asset['port']} {asset['host_key']}\n"
        ),
        kex_algs=[kex],
        encryption_algs=[cipher],
        mac_algs=["hmac-sha1"],
        server_host_key_algs=["ssh-rsa"],
        client_keys=None,
        config=None,
    ) as connection:
        assert connection.get_extra_info("send_cipher") == cipher
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.run("show version")
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.start_sftp_client()


def test_wrong_password_is_refused(plant, open_switch):
    switch = open_switch(plant, WRONG)
    assert switch.terminal.wait_until_ended() == 255
    assert b"Permission denied" in switch.terminal.received


def test_commands_and_paging(plant, open_switch):
    switch = open_switch(plant)
    switch.wait("switch-old-01#")
    assert "version 12.1" in switch.ask("show version", until="-01#")
    assert "% Invalid input" in switch.ask("reload", until="-01#")
    assert "not permitted" in switch.ask("ping 10.0.0.1", until="-01#")
    page = switch.ask("sh int", until="--More--")
    assert page.count("\r\n") == 1 + 23
    assert "Fa0/22" in page
    assert "Fa0/23" not in page
    switch.terminal.type("\r")
    switch.wait("Fa0/23")
    assert "Fa0/24" not in switch.terminal.text()
    switch.terminal.type(" ")
    switch.wait("Gi0/2")
    switch.ask("show interfaces", until="--More--")
    switch.terminal.type("q")
    switch.ask("", until="-01#")
    switch.terminal.type("exit\r")
    assert switch.terminal.wait_until_ended() == 0


def test_vlan_is_named_in_configuration_mode(plant, open_switch):
    switch = open_switch(plant)
    switch.wait("switch-old-01#")
    switch.ask("configure terminal", until="(config)#")
    switch.ask("vlan 30", until="(config-vlan)#")
    switch.ask("name WELLS", until="(config-vlan)#")
    switch.ask("exit", until="(config)#")
    assert "% Invalid input" in switch.ask("vlan 4095", until="(config)#")
    switch.ask("end", until="-01#")
    assert re.search("30 +WELLS", switch.ask("show vlan", until="-01#"))


def test_one_session_at_a_time(plant, open_switch):
    first = open_switch(plant)
    first.wait("switch-old-01#")
    second = open_switch(plant)
    second.wait("Line busy")
    assert second.terminal.wait_until_ended() == 1
    first.terminal.type("exit\r")
    assert first.terminal.wait_until_ended() == 0
    third = open_switch(plant)
    third.wait("switch-old-01#")


def test_line_is_free_again_when_the_client_vanishes(plant, open_switch):
    first = open_switch(plant)
    first.wait("switch-old-01#")
    first.close()
    for _ in range(50):
        again = open_switch(plant)
        again.terminal.wait_for(lambda text: "#" in text or "Line busy" in text)
        if "#" in again.terminal.text():
            return
        again.close()
    raise AssertionError("the line stayed busy")


def test_password_is_changed_in_band_and_kept(start_plant, open_switch):
    plant = start_plant()
    old = initial_password(plant)
    new = "Rotated-" + "k7" * 8
    switch = open_switch(plant)
    switch.wait("switch-old-01#")

    def change(current: str, first: str, second: str, answer: str) -> None:
        switch.ask("password", until="Current password: ")
        switch.ask(current, until="New password: ")
        switch.ask(first, until="Confirm: ")
        assert answer in switch.ask(second, until="-01#")

    change(WRONG, new, new, "% Current password is wrong")
    change(old, new, new + "x", "% Passwords do not match")
    change(old, "short", "short", "% Password:")
    change(old, new, new, "Password changed.")
    for password in (old, new):
        assert password.encode() not in switch.terminal.received
    switch.terminal.type("exit\r")
    assert switch.terminal.wait_until_ended() == 0

    refused = open_switch(plant, old)
    assert refused.terminal.wait_until_ended() == 255
    assert plant.stop() == 0
    plant = start_plant()
    assert open_switch(plant, old).terminal.wait_until_ended() == 255
    open_switch(plant, new).wait("switch-old-01#")
    kept = (plant.data / "plant" / "switch-old-01").iterdir()
    assert not any(new.encode() in path.read_bytes() for path in kept)
