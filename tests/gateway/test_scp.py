"""The old form of scp: a command like any other, and the rules for files as well."""

import datetime as dt
import hashlib
import itertools
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.gateway.scp_observer import LINE_LIMIT, ScpObserver, TransferRefusedError
from apps.gateway.sftp_policy import SftpPolicy, Usage
from apps.inventory.file_rules import NO_RULES, FileRules
from apps.recordings.manifest import FileNote, FileResult
from apps.recordings.models import FileTransfer
from tests.gateway.conftest import until
from tests.gateway.openssh_asset import files, sshd_asset

__all__ = ["files", "sshd_asset"]

pytestmark = pytest.mark.timeout(120)

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


async def rows(files, count):
    def look():
        found = list(FileTransfer.objects.order_by("started_at", "id"))
        return found if len(found) >= count else None

    return await until(lambda: files.client.ask(look))


async def test_the_old_form_has_the_same_manifest(files, ssh_binary):
    tree = files.local / "tree"
    (tree / "inner").mkdir(parents=True)
    content = os.urandom(300_000)
    (tree / "inner" / "file").write_bytes(content)
    (tree / "inner" / "empty").touch()
    await files.grant("exec", "sftp-up", "sftp-down", "sftp-mkdir")
    done = await files.run("scp", "-O", "-rp", "tree", f"HOST:{files.home}/")
    assert done.returncode == 0, done.stderr
    found = await rows(files, 2)
    digests = {
        row.path: row.sha256
        for row in found
        if (row.action, row.result) == ("upload", "complete")
    }
    assert digests == {
        "tree/inner/file": hashlib.sha256(content).hexdigest(),
        "tree/inner/empty": hashlib.sha256(b"").hexdigest(),
    }
    done = await files.run("scp", "-O", f"HOST:{files.home}/tree/inner/file", "back")
    assert done.returncode == 0, done.stderr
    row = (await rows(files, 3))[-1]
    assert (row.action, row.path, row.result) == ("download", "file", "complete")
    assert row.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("services", "said"),
    [
        (["exec", "sftp-down"], b"your access does not include: upload files"),
        (["exec", "sftp-up"], b"your access does not include: download files"),
    ],
)
async def test_it_is_no_way_round_the_rights_to_files(
    files, ssh_binary, services, said
):
    """With single commands, but without the right, no file goes that way; with the
    right for the other direction alone, that one works."""
    (files.local / "up").write_bytes(b"from here")
    (files.home / "there").write_bytes(b"from there")
    await files.grant(*services)
    up = await files.run("scp", "-O", "up", f"HOST:{files.home}/new")
    down = await files.run("scp", "-O", f"HOST:{files.home}/there", "down")
    works, refused = (down, up) if "sftp-down" in services else (up, down)
    assert works.returncode == 0, works.stderr
    assert refused.returncode != 0
    assert said in refused.stderr
    assert (files.home / "new").exists() is ("sftp-up" in services)
    assert (files.local / "down").exists() is ("sftp-down" in services)
    assert {row.result for row in await rows(files, 2)} == {"complete", "denied"}


async def test_it_does_not_go_where_files_are_confined(files, ssh_binary):
    """Its target stands in the command only, which is never judged (R10)."""
    (files.local / "up").write_bytes(b"from here")
    await files.change(file_roots=str(files.home))
    await files.grant("exec", "sftp-up")
    done = await files.run("scp", "-O", "up", f"HOST:{files.home}/new")
    assert done.returncode != 0
    assert b"this asset takes files by SFTP only" in done.stderr
    assert not (files.home / "new").exists()
    done = await files.run("scp", "up", f"HOST:{files.home}/new")
    assert done.returncode == 0, done.stderr


async def test_sftp_in_a_command_is_refused(files, ssh_binary):
    """`sftp -s /path` asks for a command; the inspector would not see it."""
    await files.grant("exec", "sftp-down")
    done = await files.run(
        "sftp",
        "HOST",
        given=b"ls\n",
        options=["-b", "-", "-s", "/usr/lib/openssh/sftp-server"],
    )
    assert done.returncode != 0
    assert b"SFTP is spoken in the sftp subsystem only" in done.stderr


async def test_commands_go_on_as_they_did(files, ssh_binary):
    """What only looks like the beginning of scp passes, in both directions."""
    await files.grant("exec")
    for text in (b"Can\n", b"C", b"D\nD", b"T1 2 3\n", b"\0\0\0\1x", b"C0644 x y\n"):
        connection = await files.client.connect(files.address)
        done = await connection.run("cat", input=text, encoding=None)
        assert done.stdout == text
        done = await connection.run("cat", input=text * 5000, encoding=None)
        assert done.stdout == text * 5000


def observer(
    services: tuple[str, ...] = ("sftp-up", "sftp-down", "sftp-mkdir"),
    rules: FileRules = NO_RULES,
) -> tuple[ScpObserver, list[FileNote]]:
    notes: list[FileNote] = []
    policy = SftpPolicy(frozenset(services), rules, Usage())
    return ScpObserver(policy, clock=lambda: NOW, on_file=notes.append), notes


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_how_a_stream_is_cut_changes_nothing(data):
    content = data.draw(st.binary(max_size=500))
    made, notes = observer()
    made.asset_data(b"\0")
    stream = (
        b"T1 0 1 0\nD0755 0 dir\nC0644 %d a b\n" % len(content)
        + content
        + b"\0E\nC0600 0 empty\n\0"
    )
    places = data.draw(st.lists(st.integers(0, len(stream)), max_size=10).map(sorted))
    for begin, end in itertools.pairwise([0, *places, len(stream)]):
        if end > begin:
            made.client_data(stream[begin:end])
    made.asset_data(b"\0")
    made.end()
    assert [(note.path, note.result) for note in notes] == [
        ("dir/a b", FileResult.COMPLETE),
        ("empty", FileResult.COMPLETE),
    ]
    assert notes[0].sha256 == hashlib.sha256(content).hexdigest()


def test_a_file_the_receiver_does_not_want_is_not_taken_for_content():
    made, notes = observer()
    made.client_data(b"\0")
    made.asset_data(b"C0644 5 one\n")
    made.client_data(b"\1scp: no\n")
    made.asset_data(b"C0644 3 two\n")
    made.client_data(b"\0")
    made.asset_data(b"abc\0")
    made.client_data(b"\0")
    assert [(note.path, note.result, note.size) for note in notes] == [
        ("one", FileResult.FAILED, 0),
        ("two", FileResult.COMPLETE, 3),
    ]


def test_a_transfer_that_breaks_off_is_partial():
    made, notes = observer()
    made.client_data(b"C0644 5 one\n")
    made.client_data(b"abc")
    made.end()
    (note,) = notes
    assert (note.result, note.size) == (FileResult.PARTIAL, 3)
    assert note.sha256 == hashlib.sha256(b"abc").hexdigest()


@pytest.mark.parametrize(
    ("rules", "line"),
    [
        (FileRules(roots=("/srv",)), b"C0644 1 f\n"),
        (FileRules(file_bytes=10), b"C0644 11 f\n"),
        (FileRules(session_bytes=10), b"C0644 11 f\n"),
        (FileRules(denied_extensions=frozenset({"exe"})), b"C0644 1 f.EXE\n"),
        (FileRules(allowed_extensions=frozenset({"zip"})), b"C0644 1 f\n"),
    ],
)
@pytest.mark.parametrize("up", [True, False])
def test_rules_hold(rules, line, up):
    made, notes = observer(rules=rules)
    if not up:
        made.client_data(b"\0")
    with pytest.raises(TransferRefusedError):
        (made.client_data if up else made.asset_data)(line)
    assert [note.result for note in notes] == [FileResult.DENIED]


def test_making_folders_is_a_right_here_as_well():
    made, _ = observer(services=("sftp-up",))
    with pytest.raises(TransferRefusedError, match="make folders"):
        made.client_data(b"D0755 0 dir\n")


def kept_by(made: ScpObserver) -> int:
    """Count the bytes it remembers until a line is whole."""
    kept = len(made._client_began) + len(made._asset_began)
    conversation = made._conversation
    if conversation is not None:
        kept += len(conversation._line) + len(conversation._complaint or b"")
    return kept


PIECE = st.tuples(
    st.booleans(), st.binary(min_size=1, max_size=60), st.sampled_from([1, 1, 500])
)


@given(st.lists(PIECE))
@settings(deadline=None, max_examples=200)
def test_any_bytes_end_in_a_refusal_or_in_little_memory(pieces):
    made, _ = observer()
    made.client_data(b"C0644 9 f\n")
    try:
        for from_client, data, times in pieces:
            (made.client_data if from_client else made.asset_data)(data * times)
            assert kept_by(made) <= 4 * LINE_LIMIT
    except TransferRefusedError:
        return
    made.end()
