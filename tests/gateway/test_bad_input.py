"""What people and machines get wrong, seen through the stock client and on the wire.

Each gets a line that says what to do, the right exit status, a trace in the ledger
where it matters, and the next one is served as before.
"""

import asyncio
import datetime as dt
import json
import random
import shutil
import socket
import struct
from contextlib import suppress
from pathlib import Path

import asyncssh
import pytest
from asyncssh.packet import String

from apps.access import operations as access
from apps.access.models import Decision, Grant
from apps.accounts import operations as accounts
from apps.recordings import operations as recordings
from apps.recordings.cast import MOST_COLUMNS, MOST_ROWS, cast_lines
from apps.recordings.frames import EventKind, decode_open
from apps.recordings.models import Recording
from apps.recordings.reader import RecordingReader
from apps.sessions.models import Channel, Session
from tests import factories
from tests.gateway.conftest import until

SSH_ERROR = 255


def our_lines(stderr: bytes) -> list[str]:
    """Return what the gateway said; ssh's own lines are left out."""
    text = stderr.decode("utf-8", "replace").replace("\r", "")
    return [line for line in text.split("\n") if "Sluice" in line]


async def still_serves(client) -> bool:
    """Say whether somebody with a grant gets through."""
    if not await client.ask(Grant.objects.exists):
        await client.ask(client.here.grant)
    connection = await client.connect()
    return (await connection.run("stdout fine")).stdout == "fine\n"


def no_grant(here):
    return None


def expired(here):
    here.grant(minutes=30, now=factories.clock() - dt.timedelta(minutes=31))


def revoked(here):
    grant = here.grant()
    assert access.revoke_grant(
        grant_id=grant.pk,
        by=here.plant.approver,
        reason="not today",
        now=factories.clock(),
    )


def finished(here):
    grant = here.grant()
    assert access.finish_grant(
        grant_id=grant.pk, by=here.engineer.user, now=factories.clock()
    )


@pytest.mark.parametrize(
    ("state", "code", "said"),
    [
        (no_grant, "no_grant", "ask for one in the portal"),
        (expired, "grant_expired", "The grant has ended."),
        (revoked, "grant_revoked", "The grant was revoked."),
        (finished, "grant_finished", "The grant was given back."),
    ],
)
async def test_without_a_grant_in_force(client, ssh_binary, state, code, said):
    """One line, exit status 255, a decision in the books, nothing at the asset."""
    await client.ask(state, client.here)
    for command in (("stdout x",), ()):
        result = await client.run_openssh(*command)
        assert result.returncode == SSH_ERROR
        assert result.stdout == b""
        (line,) = our_lines(result.stderr)
        assert said in line
    assert client.here.target.connections == 0

    def books():
        denied = Decision.objects.filter(question="connection", allowed=False)
        return list(denied.values_list("code", flat=True)), Session.objects.count()

    codes, sessions = await client.ask(books)
    assert set(codes) == {code}
    assert sessions == 0


async def test_a_name_without_an_asset_is_told_how_to_write_it(client, ssh_binary):
    await client.ask(client.here.grant)
    me = client.here.engineer.user.username
    result = await client.run_openssh("stdout x", user_string=me)
    assert result.returncode == SSH_ERROR
    (line,) = our_lines(result.stderr)
    assert "@" in line
    assert await still_serves(client)


SIZES = [(0, 0), (1, 1), (65535, 65535), (2**32 - 1, 2**32 - 1), (80, 0)]


async def test_windows_of_any_size(client):
    """0x0 is a terminal that does not know; nothing is made of four billion columns."""
    await client.ask(client.here.grant)
    connection = await client.connect()
    for size in SIZES:
        result = await connection.run("size", term_type="xterm", term_size=size)
        assert result.exit_status == 0, size
    process = await connection.create_process(term_type="xterm", term_size=(80, 24))
    for size in SIZES:
        process.change_terminal_size(*size)
    process.stdin.write("still here")
    assert await process.stdout.readexactly(10) == "still here"
    process.stdin.write_eof()
    await process.wait()
    connection.close()

    def sealed():
        recording = Recording.objects.exclude(sealed_at=None).first()
        if recording is None:
            return None
        now = factories.clock()
        assert recordings.verify_recording(recording_id=recording.pk, now=now)
        path, key = recordings.path_of(recording), recordings.data_key_of(recording)
        with RecordingReader(path, key) as reader:
            return list(cast_lines(reader.events(), header=reader.header))

    lines = await until(lambda: client.ask(sealed))
    assert any("still here" in line for line in lines)
    sizes = [json.loads(line)[2] for line in lines[1:] if json.loads(line)[1] == "r"]
    # What replays it must not be asked for a screen of billions of cells.
    for size in sizes:
        columns, rows = map(int, size.split("x"))
        assert 0 < columns <= MOST_COLUMNS, size
        assert 0 < rows <= MOST_ROWS, size
    assert f"{MOST_COLUMNS}x{MOST_ROWS}" in sizes


@pytest.mark.parametrize(
    "term", ["", "x" * 5000, "\x1b]0;owned\x07", "../../etc", "xterm\n", "é"]
)
async def test_a_terminal_of_any_name(client, term):
    """Refused, or it is a terminal like any other; control codes go nowhere."""
    await client.ask(client.here.grant)
    connection = await client.connect()
    try:
        process = await connection.create_process(
            "stdout fine", term_type=term or "dumb", term_size=(80, 24)
        )
    except (asyncssh.ChannelOpenError, asyncssh.DisconnectError):
        assert client.here.target.sessions == 0
    else:
        told = await process.wait()
        assert told.exit_status == 0
        assert told.stdout.split() == ["fine"]
    assert await still_serves(client)


LONG = "stdout " + "x" * 100_000


@pytest.mark.parametrize("has_pty", [False, True])
@pytest.mark.parametrize(
    "command",
    ["scp -t x; bash", "stdout a\x00b", "stdout a\nb", "stdout \x1b]0;x\x07", LONG],
)
async def test_r32_a_command_is_recorded_as_it_was_sent(client, command, has_pty):
    """R10, R32: whatever it looks like; in the recording, the ledger and the books."""
    await client.ask(client.here.grant)
    connection = await client.connect()
    options = {"term_type": "xterm"} if has_pty else {}
    process = await connection.create_process(command, **options)
    process.stdin.write_eof()
    await process.wait()
    connection.close()

    def look():
        recording = Recording.objects.exclude(sealed_at=None).first()
        if recording is None:
            return None
        path, key = recordings.path_of(recording), recordings.data_key_of(recording)
        with RecordingReader(path, key) as reader:
            opened = [e for e in reader.events() if e.kind == EventKind.OPEN]
        return decode_open(opened[0].data), Channel.objects.get()

    opened, channel = await until(lambda: client.ask(look))
    assert opened.kind == channel.kind == "exec"
    assert opened.command == command
    assert channel.command == command.replace("\x00", "\ufffd")
    assert channel.has_pty is has_pty


async def test_r19_an_empty_command_is_a_shell_and_needs_its_right(client):
    """A grant of commands alone opens no shell through the back door."""

    def commands_only():
        here, now = client.here, factories.clock()
        asked = access.submit_request(
            requester=here.engineer.user,
            asset_id=here.asset.pk,
            account_id=here.account.pk,
            services=["exec"],
            minutes=30,
            reason="only commands",
            work_order="WO-1",
            source_address="192.0.2.7",
            now=now,
        )
        assert access.approve_request(
            request_id=asked.pk,
            version=asked.version,
            approver=here.plant.approver,
            minutes=30,
            comment="",
            source_address="192.0.2.8",
            now=now,
        )

    await client.ask(commands_only)
    connection = await client.connect()
    assert (await connection.run("stdout fine")).stdout == "fine\n"
    before = client.here.target.sessions
    channel = asyncssh.channel.SSHClientChannel(
        connection,
        asyncio.get_running_loop(),
        "strict",
        None,
        "strict",
        1 << 16,
        1 << 15,
    )
    await channel._open(b"session")
    channel._session = asyncssh.SSHClientSession()
    assert not await channel._make_request(b"exec", String(""))
    channel.close()
    assert client.here.target.sessions == before


def packets() -> list[bytes]:
    """Return what is no SSH: wrong lengths, wrong paddings, noise."""
    noise = random.Random(7)  # noqa: S311 - the same every time
    return [
        struct.pack(">IB", length, padding) + noise.randbytes(64)
        for length in (0, 1, 5, 12, 2**18, 2**31 - 1, 2**31, 2**32 - 1)
        for padding in (0, 4, 255)
    ] + [noise.randbytes(size) for size in (1, 7, 64, 5000, 100_000)]


async def test_eight_bit_noise_after_the_greeting(client, caplog):
    """Closed in time, nothing raised, and the next one is served."""
    for packet in packets():
        reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
        writer.write(b"SSH-2.0-noise\r\n" + packet)
        writer.write_eof()
        async with asyncio.timeout(10):
            with suppress(ConnectionResetError):
                while await reader.read(65536):
                    pass
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    assert await still_serves(client)
    assert [r.message for r in caplog.records if r.levelname == "ERROR"] == []


async def test_clients_that_vanish_at_once(client, caplog):
    """A hundred resets, half of them after the greeting: nobody is left behind."""
    for number in range(100):
        rude = socket.create_connection(("127.0.0.1", client.port), timeout=5)
        if number % 2:
            rude.sendall(b"SSH-2.0-rude\r\n")
        # SO_LINGER of 0 seconds: close() sends a reset.
        rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        rude.close()
        await asyncio.sleep(0)

    async def all_noticed():
        # Until then they count against the cap of this address.
        return not client.service._door.connections

    await until(all_noticed)
    assert await still_serves(client)
    assert [r.message for r in caplog.records if r.levelname == "ERROR"] == []


def empty(folder: Path) -> None:
    """Remove all that is in a folder, not the folder."""
    shutil.rmtree(folder)
    folder.mkdir(mode=0o700)


async def test_r23_recordings_that_are_taken_away_end_the_session(client, settings):
    """R23: a file that is deleted under a session is a recorder that failed."""
    await client.ask(client.here.grant)
    connection = await client.connect()
    process = await connection.create_process()
    process.stdin.write("one\n")
    assert await process.stdout.readline() == "one\n"
    empty(Path(settings.RECORDINGS_DIR))

    async def ended():
        with suppress(OSError, asyncssh.Error):
            process.stdin.write("two\n")
        return await client.ask(lambda: Session.objects.exclude(ended_at=None).first())

    session = await until(ended, seconds=15)
    assert session.end_reason == "recording_failed"


async def test_a_disabled_person_is_nobody_from_now_on(client, ssh_binary):
    """Both factors are right, and still it is the answer that a stranger gets."""
    await client.ask(client.here.grant)
    here = client.here
    await client.ask(
        accounts.disable_person,
        user_id=here.engineer.user.pk,
        by=here.plant.administrator,
        now=factories.clock(),
    )
    result = await client.run_openssh("stdout x")
    assert result.returncode == SSH_ERROR
    assert b"disabled" not in result.stderr
    assert b"Permission denied" in result.stderr
    assert here.target.connections == 0
