"""SFTP through the gateway: stock clients, a real sshd, each right alone."""

import os

import pytest

from tests.gateway.openssh_asset import EVERY_RIGHT, files, sshd_asset

__all__ = ["files", "sshd_asset"]

pytestmark = pytest.mark.timeout(120)


async def test_stock_sftp_does_all_it_can(files, ssh_binary):
    await files.grant(*EVERY_RIGHT)
    content = os.urandom(3_000_000)
    (files.local / "up").write_bytes(content)
    status, said = await files.sftp(
        "mkdir new",
        "put up new/there",
        "get new/there down",
        "rename new/there new/other",
        "chmod 600 new/other",
        "symlink other new/link",
        "ln new/other new/hard",
        "ls -l new",
        "df .",
        "rm new/link",
        "rm new/hard",
    )
    assert status == 0, said
    assert (files.local / "down").read_bytes() == content
    assert (files.home / "new" / "other").read_bytes() == content
    assert (files.home / "new" / "other").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in (files.home / "new").iterdir()) == ["other"]


RIGHTS = {
    "sftp-down": "get file down",
    "sftp-up": "put up there",
    "sftp-delete": "rm file",
    "sftp-rename": "rename file other",
    "sftp-mkdir": "mkdir folder",
    "sftp-chmod": "chmod 600 file",
    "sftp-symlink": "symlink file link",
}


@pytest.mark.parametrize("right", RIGHTS)
async def test_each_right_is_one_of_its_own(files, ssh_binary, right):
    """With one right its command works and every other is denied."""
    (files.local / "up").write_bytes(b"from here")
    (files.home / "file").write_bytes(b"from there")
    await files.grant(right)
    others = [command for name, command in RIGHTS.items() if name != right]
    status, said = await files.sftp(*[f"-{command}" for command in others])
    assert status == 0, said
    assert said.lower().count("permission denied") == len(others), said
    assert [path.name for path in files.home.iterdir()] == ["file"]
    assert (files.home / "file").read_bytes() == b"from there"
    assert not (files.local / "down").exists()
    status, said = await files.sftp("ls -l", RIGHTS[right])
    assert status == 0, said


async def test_without_any_right_sftp_does_not_open(files, ssh_binary):
    await files.grant("shell", "exec")
    status, said = await files.sftp("ls")
    assert status != 0
    assert "Sluice: the grant does not include sftp" in said


@pytest.mark.parametrize("form", ["-s", "-O"])
async def test_scp_in_both_forms(files, ssh_binary, form):
    """Up and down, folders and times (`-r`, `-p`)."""
    await files.grant(*EVERY_RIGHT)
    tree = files.local / "tree"
    (tree / "inner").mkdir(parents=True)
    content = os.urandom(700_000)
    (tree / "inner" / "file").write_bytes(content)
    (tree / "empty").touch()
    os.utime(tree / "inner" / "file", (1_000_000_000, 1_000_000_000))
    done = await files.run("scp", form, "-rp", "tree", f"HOST:{files.home}/there")
    assert done.returncode == 0, done.stderr
    there = files.home / "there" / "inner" / "file"
    assert there.read_bytes() == content
    assert there.stat().st_mtime == 1_000_000_000
    done = await files.run("scp", form, "-rp", f"HOST:{files.home}/there", "back")
    assert done.returncode == 0, done.stderr
    assert (files.local / "back" / "inner" / "file").read_bytes() == content
    assert (files.local / "back" / "empty").read_bytes() == b""
