"""Rules for files at an asset: folders, endings, sizes; with a real sshd behind."""

import os

import asyncssh
import pytest

from tests.gateway.openssh_asset import EVERY_RIGHT, files, sshd_asset

__all__ = ["files", "sshd_asset"]

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def confined(files):
    """Only `home`/inside may be used; there is a lot to reach outside of it."""
    inside, outside = files.home / "inside", files.home / "outside"
    (inside / "deep").mkdir(parents=True)
    outside.mkdir()
    (inside / "file").write_bytes(b"mine")
    (outside / "secret").write_bytes(b"not yours")
    (inside / "to-file").symlink_to("../outside/secret")
    (inside / "to-folder").symlink_to("../outside")
    (inside / "to-nothing").symlink_to("../outside/new")
    (inside / "deep" / "up").symlink_to("../..")
    await files.change(file_roots=str(inside))
    await files.grant(*EVERY_RIGHT)
    return files


async def test_a_channel_begins_in_its_folder_and_works_there(confined, ssh_binary):
    (confined.local / "up").write_bytes(b"new")
    status, said = await confined.sftp(
        "pwd",
        "ls",
        "put up there",
        "get file down",
        "mkdir folder",
        "rename there folder/moved",
        "cd folder",
        "symlink moved link",
        "get link linked",
        "rm moved",
        "cd ..",
        "rm folder/link",
        "rmdir folder",
        "df .",
    )
    assert status == 0, said
    assert f"directory: {confined.home}/inside" in said
    assert (confined.local / "down").read_bytes() == b"mine"
    assert (confined.local / "linked").read_bytes() == b"new"


WAYS_OUT = [
    "get {outside}/secret loot",
    "get ../outside/secret loot",
    "get deep/../../outside/secret loot",
    "get to-file loot",
    "get to-folder/secret loot",
    "get deep/up/outside/secret loot",
    "ls {outside}",
    "ls to-folder/",
    "ls deep/up/outside/",
    "put up {outside}/new",
    "put up to-nothing",
    "put up to-folder/new",
    "put up ../new",
    "rm ../outside/secret",
    "rm to-folder/secret",
    "mkdir ../outside/new",
    "mkdir to-folder/new",
    "rmdir ../outside",
    "rename file ../outside/new",
    "rename ../outside/secret loot",
    "rename to-folder/secret loot",
    "rename ../inside ../elsewhere",
    "symlink {outside}/secret link",
    "symlink ../outside link",
    "symlink file ../outside/link",
    "ln {outside}/secret hard",
    "ln to-file hard",
    "ln file ../outside/hard",
    "chmod 777 ../outside/secret",
    "chmod 777 to-file",
    "cd ../outside",
    "cd to-folder",
    "df ../outside",
]


async def test_no_trick_leads_outside(confined, ssh_binary):
    """`..`, links to files and folders, links of links, names of the folder itself."""
    (confined.local / "up").write_bytes(b"new")
    before = sorted(confined.home.rglob("*"))
    mode = (confined.home / "outside" / "secret").stat().st_mode
    ways = [way.format(outside=confined.home / "outside") for way in WAYS_OUT]
    status, said = await confined.sftp(*[f"-{way}" for way in ways])
    assert status == 0, said
    assert b"not yours" not in b"".join(
        path.read_bytes() for path in confined.local.iterdir()
    )
    assert sorted(confined.home.rglob("*")) == before
    assert (confined.home / "outside" / "secret").stat().st_mode == mode
    assert (confined.home / "outside" / "secret").read_bytes() == b"not yours"


async def test_raw_requests_for_the_outside_are_denied(confined):
    """The client library asks for exactly these paths; nothing of a client's own."""
    connection = await confined.client.connect(confined.address)
    async with connection.start_sftp_client() as sftp:
        outside = f"{confined.home}/outside"
        inside = f"{confined.home}/inside"
        for ask in (
            lambda: sftp.open(f"{inside}/to-file", "rb"),
            lambda: sftp.open(f"{inside}/to-nothing", "wb"),
            lambda: sftp.open(f"{inside}/deep/up/outside/secret", "rb"),
            lambda: sftp.open("outside/secret", "rb"),
            lambda: sftp.stat(f"{inside}/to-file"),
            lambda: sftp.lstat(f"{outside}/secret"),
            lambda: sftp.listdir(outside),
            lambda: sftp.listdir(f"{inside}/.."),
            lambda: sftp.realpath(outside),
            lambda: sftp.readlink(f"{inside}/to-folder/secret"),
            lambda: sftp.remove(f"{inside}/to-folder/secret"),
            lambda: sftp.rmdir(inside),
            lambda: sftp.rename(inside, f"{inside}/deep/x"),
            lambda: sftp.posix_rename(f"{inside}/file", f"{outside}/file"),
            lambda: sftp.symlink("../../outside", f"{inside}/deep/link"),
            lambda: sftp.symlink(f"{inside}/to-folder/secret", f"{inside}/link"),
            lambda: sftp.link(f"{outside}/secret", f"{inside}/hard"),
            lambda: sftp.statvfs(outside),
            lambda: sftp.mkdir(f"{inside}/to-folder/new"),
            lambda: sftp.chmod(f"{inside}/to-file", 0o777),
        ):
            with pytest.raises(asyncssh.SFTPPermissionDenied) as denial:
                await ask()
            assert denial.value.reason.startswith("Sluice: ")
        # A link itself is inside, wherever it leads.
        assert await sftp.readlink(f"{inside}/to-file") == "../outside/secret"
        assert (await sftp.lstat(f"{inside}/to-file")).permissions is not None
        async with sftp.open(f"{inside}/file", "rb") as file:
            assert await file.read() == b"mine"


async def test_a_folder_that_is_missing_allows_nothing(files, ssh_binary):
    (files.home / "file").write_bytes(b"there")
    await files.change(file_roots="/no/such/folder")
    await files.grant(*EVERY_RIGHT)
    status, _ = await files.sftp(f"get {files.home}/file loot")
    assert status != 0
    assert not (files.local / "loot").exists()


async def test_endings_of_files(files, ssh_binary):
    for name in ("a.zip", "b.exe", "c"):
        (files.local / name).write_bytes(b"x")
    await files.change(file_endings_allowed="zip", file_endings_denied="exe, dll")
    await files.grant(*EVERY_RIGHT)
    status, said = await files.sftp(
        "put a.zip", "-put b.exe", "-put c", "-rename a.zip a.exe", "-put b.exe b.zip"
    )
    assert status == 0, said
    assert said.lower().count("permission denied") == 3, said
    assert sorted(path.name for path in files.home.iterdir()) == ["a.zip", "b.zip"]


async def test_sizes_of_files(files, ssh_binary):
    """Each file, up and down, and all of a session; within them nothing is lost."""
    small, large = os.urandom(900_000), os.urandom(1_100_000)
    (files.local / "small").write_bytes(small)
    (files.local / "large").write_bytes(large)
    (files.home / "large").write_bytes(large)
    await files.change(file_limit_mb=1, files_limit_mb=3)
    await files.grant("sftp-up", "sftp-down")
    status, said = await files.sftp(
        "put small one",
        "-put large two",
        "-get large down",
        "get one back",
        "-put small three",
    )
    assert status == 0, said
    assert (files.home / "one").read_bytes() == small
    assert (files.local / "back").read_bytes() == small
    assert (files.home / "two").stat().st_size <= 1_000_000
    assert not (files.local / "down").exists()
    assert (files.home / "three").stat().st_size < len(small)


async def test_a_file_does_not_grow_over_its_limit_in_pieces(files, ssh_binary):
    """Continued by the stock client, and opened again and again to be added to."""
    half = os.urandom(500_000)
    (files.local / "whole").write_bytes(half * 3)
    (files.home / "whole").write_bytes(half)
    await files.change(file_limit_mb=1)
    await files.grant("sftp-up", "sftp-down")
    status, said = await files.sftp("-reput whole", "-reput whole")
    assert status == 0, said
    assert "permission denied" in said.lower()
    assert (files.home / "whole").stat().st_size <= 1_000_000
    connection = await files.client.connect(files.address)
    async with connection.start_sftp_client() as sftp:
        for _ in range(2):
            async with sftp.open("added", "ab") as file:
                await file.write(half)
        with pytest.raises(asyncssh.SFTPPermissionDenied, match="at most 1 MB"):
            async with sftp.open("added", "ab") as file:
                await file.write(b"x")
    assert (files.home / "added").read_bytes() == half * 2
