"""`hmi-pump-01` through the OpenSSH client, and its screens for every window size."""

import asyncio
import re
import signal
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncssh
import paramiko
import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jumpserver.demo.hmi import is_key_authorized
from jumpserver.demo.hmi_screen import (
    KeyReader,
    Page,
    clamp_size,
    draw,
    recognise_terminal,
)
from jumpserver.demo.pump_station import PumpStation
from tests import openssh
from tests.terminal import Terminal

NOW = datetime(2026, 11, 23, 13, 58, 22, tzinfo=UTC)
XTERM = {"TERM": "xterm-256color", "LANG": "C.UTF-8", "PATH": "/usr/bin:/bin"}
SEND_LANG = "-oSendEnv=LANG"


@pytest.fixture
def open_hmi(plant):
    terminals = []

    def start(columns=80, rows=24, environment=XTERM):
        terminals.append(
            Terminal(
                plant.hmi("-tt", SEND_LANG),
                columns=columns,
                rows=rows,
                environment=environment,
            )
        )
        return terminals[-1]

    yield start
    for terminal in terminals:
        terminal.close()


def tags(plant) -> dict[str, str]:
    answer = openssh.run([*plant.hmi(), "tags"])
    assert answer.returncode == 0
    lines = answer.stdout.decode().splitlines()
    return {line[:18].strip(): line[18:] for line in lines}


def test_shows_the_station_in_80_by_24(open_hmi):
    hmi = open_hmi()
    text = hmi.wait_for(lambda text: "└" in text)
    lines = text.split("\n")
    assert lines[0].startswith("┌ PUMP STATION 3 ─")
    assert re.search(r"\d\d:\d\d:\d\d UTC ─┐$", lines[0])
    assert re.search(r"TANK A +█+░+ +\d+\.\d %", lines[2])
    assert re.search(r"TANK B +█+░+ +\d+\.\d %", lines[3])
    for line, tag in zip(lines[5:8], ("P-101", "P-102", "P-103"), strict=True):
        assert re.search(tag + r"  (RUN|STOP) +\d+ rpm +\d+\.\d kW", line)
    assert "F10 logout" in lines[22]
    assert lines[23] == "└" + "─" * 78 + "┘"


def test_levels_and_clock_move(open_hmi):
    hmi = open_hmi()
    first = hmi.wait_for(lambda text: "└" in text).split("\n")
    hmi.wait_for(lambda text: text.split("\n")[0] != first[0])
    hmi.wait_for(lambda text: text.split("\n")[2] != first[2])


def test_redraws_only_changed_lines(open_hmi):
    hmi = open_hmi()
    clock = hmi.wait_for(lambda text: "└" in text).split("\n")[0]
    already = len(hmi.received)
    hmi.wait_for(lambda text: text.split("\n")[0] != clock)
    update = hmi.received[already:]
    assert b"\x1b[1;1H" in update
    assert b"\x1b[24;1H" not in update
    assert len(update) < already / 2


def test_keys_change_the_one_station_of_all_sessions(open_hmi, plant):
    hmi = open_hmi()
    hmi.wait_for(lambda text: "P-103" in text)
    before = tags(plant)["P-103.state"]
    after = "RUN" if before == "STOP" else "STOP"
    hmi.type("3")
    hmi.wait_for(lambda text: re.search(rf"P-103  {after}\b", text) is not None)
    hmi.wait_for(lambda text: "P-103 st" in text and "by operator" in text)
    assert tags(plant)["P-103.state"] == after


def test_alarm_is_acknowledged_with_the_operators_name(start_plant):
    plant = start_plant()
    hmi = Terminal(plant.hmi("-tt", SEND_LANG), environment=XTERM)
    try:
        hmi.wait_for(lambda text: re.search("Tank B level low +NEW", text) is not None)
        assert "1 waiting" in hmi.text()
        hmi.type("a")
        hmi.wait_for(lambda text: "Tank B level low" in text and "ACK operator" in text)
        hmi.wait_for(lambda text: "waiting" not in text)
    finally:
        hmi.close()


def test_pages_by_letter_and_function_key(open_hmi):
    hmi = open_hmi()
    hmi.wait_for(lambda text: "ALARMS" in text)
    hmi.type("t")
    hmi.wait_for(lambda text: "TANK A %" in text and "█" in text)
    hmi.type("\x1bOP")
    hmi.wait_for(lambda text: "start or stop P-101" in text)
    hmi.type("?")
    hmi.wait_for(lambda text: "ALARMS" in text)


def test_resize_lays_out_again(open_hmi):
    hmi = open_hmi()
    hmi.wait_for(lambda text: "└" in text)
    hmi.resize(110, 32)
    text = hmi.wait_for(lambda text: text.split("\n")[-1].startswith("└"))
    assert text.split("\n")[31] == "└" + "─" * 108 + "┘"
    hmi.resize(20, 5)
    text = hmi.wait_for(lambda text: "PS 3" in text and "q logout" in text)
    assert "┌" not in text
    hmi.resize(80, 24)
    hmi.wait_for(lambda text: text.split("\n")[-1] == "└" + "─" * 78 + "┘")


@pytest.mark.parametrize("leave", ["q", "\x1b[21~", "\x03"])
def test_logout_restores_the_terminal(open_hmi, leave):
    hmi = open_hmi()
    hmi.wait_for(lambda text: "└" in text)
    hmi.type(leave)
    assert hmi.wait_until_ended() == 0
    assert hmi.received.startswith(b"\x1b[?1049h\x1b[?25l")
    assert b"\x1b[?25h\x1b[?1049l" in hmi.received
    assert b"Logged out" in hmi.received.rpartition(b"\x1b[?1049l")[2]


def test_falls_back_to_ascii(open_hmi):
    hmi = open_hmi(environment={**XTERM, "TERM": "vt100", "LANG": "C"})
    text = hmi.wait_for(lambda text: "TANK A" in text and "F10" in text)
    assert re.search(r"TANK A +#+\.+ ", text)
    assert text.startswith("+ PUMP STATION 3 --")
    assert max(hmi.received) < 0x80
    assert b"[0;1;37;41m" not in hmi.received


@pytest.mark.parametrize(
    ("claimed", "drawn"), [((0, 0), (80, 24)), ((65535, 65535), (240, 100))]
)
async def test_absurd_sizes(plant, claimed, drawn):
    asset = plant.asset("hmi-pump-01")
    async with asyncssh.connect(
        asset["address"],
        asset["port"],
        username="operator",
        client_keys=[str(plant.initial_secret("hmi-pump-01"))],
        known_hosts=asyncssh.import_known_hosts(
            f"[{asset['address']}]:{asset['port']} {asset['host_key']}\n"
        ),
        config=None,
    ) as connection:
        process = await connection.create_process(
            term_type="xterm", term_size=claimed, encoding=None
        )
        screen = pyte.Screen(*drawn)
        stream = pyte.ByteStream(screen)
        async with asyncio.timeout(15):
            while screen.display[-1] != "└" + "─" * (drawn[0] - 2) + "┘":
                stream.feed(await process.stdout.read(65536))
            process.change_terminal_size(65535, 1)
            screen.resize(24, 240)
            screen.reset()
            while "PS 3" not in screen.display[0]:
                stream.feed(await process.stdout.read(65536))
            process.stdin.write(bytes(range(256)) * 64)
            process.stdin.write(b"q")
            await process.wait_closed()
        assert process.exit_status == 0


@pytest.mark.parametrize(
    ("command", "status", "out", "err"),
    [
        ("echo hello  there", 0, b"hello  there\n", b""),
        ("exit 7", 7, b"", b""),
        ("exit 256", 2, b"", b"exit: status from 0 to 255\n"),
        ("sleep 0", 0, b"", b""),
        ("sleep forever", 1, b"", b"sleep: seconds from 0 to 3600\n"),
        ("cat", 0, bytes(range(256)), b""),
        ("rm -rf /", 127, b"", b"sh: rm: command not found\n"),
    ],
)
def test_commands(plant, command, status, out, err):
    answer = openssh.run([*plant.hmi(), command], given=bytes(range(256)))
    assert (answer.returncode, answer.stdout, answer.stderr) == (status, out, err)


def test_uptime(plant):
    assert openssh.run([*plant.hmi(), "uptime"]).stdout.startswith(b"up 0 min")


def test_shell_without_terminal_says_what_to_do(plant):
    answer = openssh.run(plant.hmi("-T"))
    assert answer.returncode == 1
    assert b"needs a terminal" in answer.stderr


async def test_signal_ends_a_command_and_is_reported(plant):
    asset = plant.asset("hmi-pump-01")
    async with asyncssh.connect(
        asset["address"],
        asset["port"],
        username="operator",
        client_keys=[str(plant.initial_secret("hmi-pump-01"))],
        known_hosts=None,
        config=None,
    ) as connection:
        for command in ("sleep 60", "cat"):
            process = await connection.create_process(command)
            process.send_signal("TERM")
            async with asyncio.timeout(10):
                await process.wait_closed()
            assert process.exit_signal is not None
            assert process.exit_signal[0] == "TERM"


def sftp_batch(plant, identity: Path, batch: str) -> subprocess.CompletedProcess:
    asset = plant.asset("hmi-pump-01")
    command = openssh.ssh_command(
        plant.data,
        address=asset["address"],
        port=asset["port"],
        host_key=asset["host_key"],
        login="operator",
        identity=identity,
        options=["-b", "-"],
        program="sftp",
    )
    return openssh.run(command, given=batch.encode())


def test_key_is_rotated_through_sftp_and_the_old_one_is_dead(start_plant, tmp_path):
    plant = start_plant()
    old = plant.initial_secret("hmi-pump-01")
    new = openssh.make_key(tmp_path / "new")
    replacement = tmp_path / "authorized_keys"
    replacement.write_text(openssh.public_key(new) + "\n")
    done = sftp_batch(
        plant,
        old,
        f"put {replacement} .ssh/authorized_keys.new\n"
        "chmod 600 .ssh/authorized_keys.new\n"
        "rename .ssh/authorized_keys.new .ssh/authorized_keys\n",
    )
    assert done.returncode == 0, done.stderr
    for _ in range(2):
        refused = openssh.run([*plant.hmi(), "echo", "in"])
        assert refused.returncode == 255
        assert b"Permission denied" in refused.stderr
        asset = plant.asset("hmi-pump-01")
        with paramiko.SSHClient() as second_library:
            second_library.set_missing_host_key_policy(paramiko.AutoAddPolicy())
            with pytest.raises(paramiko.AuthenticationException):
                second_library.connect(
                    asset["address"],
                    asset["port"],
                    "operator",
                    key_filename=str(old),
                    allow_agent=False,
                    look_for_keys=False,
                )
        accepted = openssh.run([*plant.ssh("hmi-pump-01", identity=new), "echo", "in"])
        assert accepted.stdout == b"in\n"
        assert plant.stop(signal.SIGTERM) == 0
        old.unlink(missing_ok=True)  # a vault may also tidy up the first key
        plant = start_plant()
        old = openssh.make_key(tmp_path / f"stranger-{plant.process.pid}")


def test_sftp_shows_the_home_directory_only(plant, tmp_path):
    key = plant.initial_secret("hmi-pump-01")
    listing = sftp_batch(plant, key, "ls -a /\npwd\n")
    assert b".ssh" in listing.stdout
    assert b"working directory: /\n" in listing.stdout
    for path in ("../../operator_key", "/../../../host_key", str(key)):
        stolen = tmp_path / "stolen"
        answer = sftp_batch(plant, key, f"get {path} {stolen}\n")
        assert answer.returncode != 0
        assert not stolen.exists()


@pytest.mark.parametrize(
    ("line", "is_in"),
    [
        ("{key}", True),
        ('expiry-time="20261123135823Z" {key}', True),
        ('expiry-time="20261123135822Z" {key}', False),
        ('expiry-time="202611231358Z" {key}', False),
        ('expiry-time="20261125" {key}', True),
        ('expiry-time="20261121" {key}', False),
        ('expiry-time="soon" {key}', False),
        ('from="127.0.0.1" {key}', True),
        ('from="192.0.2.7" {key}', False),
        ("# {key}", False),
        ("", False),
    ],
)
def test_authorized_keys_options(tmp_path, line, is_in):
    key = asyncssh.generate_private_key("ssh-ed25519").convert_to_public()
    public = key.export_public_key("openssh").decode().strip()
    path = tmp_path / "authorized_keys"
    path.write_text(line.format(key=public) + "\n")
    now = NOW
    assert is_key_authorized(path, key, address="127.0.0.1", now=now) is is_in
    stranger = asyncssh.generate_private_key("ssh-ed25519").convert_to_public()
    assert not is_key_authorized(path, stranger, address="127.0.0.1", now=now)
    path.unlink()
    assert not is_key_authorized(path, key, address="127.0.0.1", now=now)


@given(
    st.integers(-5, 70000),
    st.integers(-5, 70000),
    st.sampled_from(Page),
    st.booleans(),
    st.integers(0, 300),
)
def test_every_page_fits_every_window(columns, rows, page, is_ascii, seconds):
    station = PumpStation(started_at=NOW)
    for second in range(seconds):
        station.step(1.0, now=NOW + timedelta(seconds=second))
    columns, rows = clamp_size(min(columns, 130), min(rows, 40))
    canvas = draw(station, page, columns=columns, rows=rows, now=NOW)
    encoded = canvas.encode(is_ascii=is_ascii, has_colour=True)
    assert len(encoded) == rows
    for row in encoded:
        assert len(re.sub(r"\x1b\[[0-9;]*m", "", row.decode())) == columns
        assert not is_ascii or row.isascii()


@given(st.binary(max_size=200), st.integers(0, 200))
def test_keys_do_not_depend_on_where_input_is_cut(typed, cut):
    whole, halves = KeyReader(), KeyReader()
    expected = whole.feed(typed)
    assert halves.feed(typed[:cut]) + halves.feed(typed[cut:]) == expected


@pytest.mark.parametrize(
    ("term", "environment", "is_ascii", "has_colour"),
    [
        ("xterm-256color", {"LANG": "en_GB.UTF-8"}, False, True),
        ("xterm", {}, False, True),
        ("xterm", {"LANG": "C"}, True, True),
        ("xterm", {"LC_ALL": "C", "LANG": "de_DE.utf8"}, True, True),
        ("vt100", {}, True, False),
        ("vt220", {"LC_CTYPE": "de_DE.utf8"}, False, False),
        ("", {}, True, False),
        (None, {}, True, False),
    ],
)
def test_terminal_is_recognised(term, environment, is_ascii, has_colour):
    kind = recognise_terminal(term, environment)
    assert (kind.is_ascii, kind.has_colour) == (is_ascii, has_colour)


def test_simulation_stays_physical_and_raises_each_alarm_once():
    station = PumpStation(started_at=NOW)
    for second in range(3600):
        station.step(1.0, now=NOW + timedelta(seconds=second))
        assert 0 <= station.tank_a <= 100
        assert 0 <= station.tank_b <= 100
        active = [alarm.text for alarm in station.alarms if alarm.cleared_at is None]
        assert len(active) == len(set(active))
    assert any(alarm.text == "P-102 vibration high" for alarm in station.alarms)


def test_third_pump_overfills_tank_b_until_the_interlock_trips():
    station = PumpStation(started_at=NOW, tank_b=97.5, tank_a=90)
    station.toggle_pump(3, by="operator")
    for second in range(600):
        station.step(1.0, now=NOW + timedelta(seconds=second))
    assert any(alarm.text == "Tank B overfill trip" for alarm in station.alarms)
    assert not any(pump.is_running for pump in station.pumps)
    station.tank_b = 99
    station.toggle_pump(1, by="operator")
    assert "refused" in station.message
