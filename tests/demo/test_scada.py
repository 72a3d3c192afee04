"""`scada-01`: certificates of the site's CA, for sshd and for its stand-in alike."""

import asyncio
from pathlib import Path

import asyncssh
import pytest

from jumpserver.demo.ssh_target import PlantTarget
from jumpserver.demo.sshd import OpenSshd, find_sshd
from jumpserver.demo.sshd_stand_in import ScadaStandIn
from tests import openssh
from tests.terminal import Terminal


@pytest.fixture(params=["sshd", "stand-in"])
async def scada(request, tmp_path):
    """The target, running, and a CA that it does not trust yet."""
    target: PlantTarget
    if request.param == "sshd":
        binary = find_sshd()
        if binary is None:
            pytest.skip("no sshd on this machine (Debian: openssh-server)")
        target = OpenSshd(tmp_path / "scada-01", binary)
    else:
        target = ScadaStandIn(tmp_path / "scada-01")
    await target.start(0)
    yield Scada(target, tmp_path)
    await target.stop()


class Scada:
    """What a test does with the target: trust, certify, log in."""

    def __init__(self, target: PlantTarget, directory: Path) -> None:
        self.asset = target.describe()
        self.directory = directory
        self.ca = openssh.make_key(directory / "ca")
        self.identity = openssh.make_key(directory / "id")

    def trust_ca(self) -> None:
        Path(self.asset["user_ca_file"]).write_text(openssh.public_key(self.ca) + "\n")

    def distrust_ca(self) -> None:
        Path(self.asset["user_ca_file"]).write_text("")

    def revoke_key(self) -> None:
        Path(self.asset["revoked_keys_file"]).write_text(
            openssh.public_key(self.identity) + "\n"
        )

    def certify(self, principal: str = "historian", validity: str = "-1m:+5m") -> Path:
        return openssh.certify(
            self.ca, self.identity, principal=principal, validity=validity
        )

    def command(self, *options: str, login: str | None = None) -> list[str]:
        return openssh.ssh_command(
            self.directory,
            address=self.asset["address"],
            port=self.asset["port"],
            host_key=self.asset["host_key"],
            login=login or self.asset["accounts"][0]["login"],
            identity=self.identity,
            options=list(options),
        )

    async def run(self, command: str, given: bytes = b"", **more):
        return await asyncio.to_thread(
            openssh.run, [*self.command(**more), command], given=given
        )


async def test_second_plant_process_finds_the_port_taken(scada, tmp_path):
    """Somebody else on the remembered port costs another port, not the start."""
    taken = scada.asset["port"]
    other = ScadaStandIn(tmp_path / "other")
    try:
        assert await other.start(taken) != taken
    finally:
        await other.stop()


async def test_says_which_kind_it_is(scada, request):
    is_stand_in = "stand-in" in request.node.name
    assert scada.asset["stand-in"] is is_stand_in
    assert (scada.asset["revoked_keys_file"] is None) is is_stand_in
    assert scada.asset["accounts"][0]["principal"] == "historian"
    answer = await scada.run("true")
    assert (b"stand-in" in answer.stderr) is is_stand_in


async def test_certificate_is_accepted_as_soon_as_the_ca_is_written(scada):
    scada.certify()
    refused = await scada.run("id -un")
    assert refused.returncode == 255
    assert b"Permission denied" in refused.stderr
    scada.trust_ca()
    answer = await scada.run("id -un")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.decode().strip() == scada.asset["accounts"][0]["login"]
    scada.distrust_ca()
    assert (await scada.run("id -un")).returncode == 255


@pytest.mark.parametrize(
    ("principal", "validity"),
    [
        ("operator", "-1m:+5m"),
        ("historian", "-2m:-1m"),
        ("historian", "+5m:+10m"),
    ],
)
async def test_wrong_principal_or_time_is_refused(scada, principal, validity):
    scada.trust_ca()
    scada.certify(principal, validity)
    assert (await scada.run("id -un")).returncode == 255


async def test_other_ways_in_are_refused(scada):
    scada.trust_ca()
    assert (await scada.run("id -un")).returncode == 255  # the bare key
    scada.certify()
    assert (await scada.run("id -un", login="nobody")).returncode == 255
    command = openssh.ssh_command(
        scada.directory,
        address=scada.asset["address"],
        port=scada.asset["port"],
        host_key=scada.asset["host_key"],
        login=scada.asset["accounts"][0]["login"],
    )
    answer = await asyncio.to_thread(openssh.run, command)
    assert b"Permission denied (publickey)" in answer.stderr


async def test_shell_commands_statuses_and_streams(scada):
    scada.trust_ca()
    scada.certify()
    answer = await scada.run("echo out; echo err >&2; exit 3")
    assert (answer.returncode, answer.stdout) == (3, b"out\n")
    assert answer.stderr.endswith(b"err\n")
    piped = bytes(range(256)) * 1000
    answer = await scada.run("cat", piped)
    assert (answer.returncode, answer.stdout) == (0, piped)


async def test_terminal_with_resize(scada):
    scada.trust_ca()
    scada.certify()
    command = scada.command("-tt")

    def use_terminal() -> int:
        terminal = Terminal(command, columns=90, rows=30)
        try:
            terminal.type("stty size\n")
            terminal.wait_for(lambda text: "30 90" in text)
            terminal.resize(100, 40)
            terminal.type("while ! stty size | grep '40 100'; do :; done\n")
            terminal.wait_for(lambda text: "\n40 100" in text)
            terminal.type("exit 5\n")
            return terminal.wait_until_ended()
        finally:
            terminal.close()

    assert await asyncio.to_thread(use_terminal) == 5


async def test_revoked_key_is_refused(scada):
    if scada.asset["stand-in"]:
        pytest.skip("the stand-in knows no revoked keys and says so in its state")
    scada.trust_ca()
    scada.certify()
    assert (await scada.run("true")).returncode == 0
    scada.revoke_key()
    assert (await scada.run("true")).returncode == 255


async def test_second_library_gets_in_with_the_same_certificate(scada):
    scada.trust_ca()
    certificate = scada.certify()
    async with asyncssh.connect(
        scada.asset["address"],
        scada.asset["port"],
        username=scada.asset["accounts"][0]["login"],
        client_keys=[(str(scada.identity), str(certificate))],
        known_hosts=asyncssh.import_known_hosts(
            f"[{scada.asset['address']}]:{scada.asset['port']} "
            f"{scada.asset['host_key']}\n"
        ),
        config=None,
    ) as connection:
        result = await connection.run("echo in; exit 9")
        assert (result.exit_status, result.stdout) == (9, "in\n")


async def test_signal_reaches_the_command(scada):
    if not scada.asset["stand-in"]:
        pytest.skip("sshd passes signals on only where it can separate privileges")
    scada.trust_ca()
    certificate = scada.certify()
    async with asyncssh.connect(
        scada.asset["address"],
        scada.asset["port"],
        username=scada.asset["accounts"][0]["login"],
        client_keys=[(str(scada.identity), str(certificate))],
        known_hosts=None,
        config=None,
    ) as connection:
        process = await connection.create_process("exec sleep 60")
        process.send_signal("TERM")
        async with asyncio.timeout(10):
            await process.wait_closed()
        assert process.exit_signal is not None
        assert process.exit_signal[0] == "TERM"
