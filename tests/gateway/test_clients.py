"""Clients other than OpenSSH's `ssh`, and programs that run it, through the gateway."""

import os
import secrets
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import asyncssh
import pytest

from tests.gateway.differential import (
    OnTerminal,
    Seen,
    account_of,
    fresh_code,
    put_under_control,
    run,
)
from tests.servers import sshd as real

PACKAGES = {
    "plink": "putty-tools",
    "pscp": "putty-tools",
    "psftp": "putty-tools",
    "puttygen": "putty-tools",
    "dbclient": "dropbear-bin",
    "dropbearconvert": "dropbear-bin",
    "ansible": "ansible-core",
}


def need(*programs: str) -> None:
    """Skip when one of `programs` is not installed."""
    for program in programs:
        if shutil.which(program) is None:
            package = PACKAGES.get(program, program)
            pytest.skip(f"no {program} (Debian: apt-get install {package})")


@pytest.fixture(scope="module")
def sshd(tmp_path_factory, sshd_binary):
    with real.running(tmp_path_factory.mktemp("sshd") / "sshd", sshd_binary) as running:
        yield running


@pytest.fixture
def target(sshd):
    return account_of(sshd)


@pytest.fixture
async def engineer(client, sshd, tmp_path, ssh_binary):
    """The gateway's client, whose person may use a real sshd."""
    await client.ask(put_under_control, client.here, sshd)
    await client.ask(client.here.grant)
    return client


def identity(client) -> Path:
    """Return the engineer's private key in OpenSSH's form."""
    path = client.directory / "identity"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_bytes(client.here.engineer.key.export_private_key("openssh"))
    return path


async def with_code(client, line: Sequence[str], prompt: bytes = b"code: ") -> Seen:
    """Run a client on a terminal and type the one-time code when it asks."""
    person = await fresh_code(client)
    terminal = OnTerminal(line, dict(os.environ))
    await terminal.wait_for(prompt)
    terminal.type(person.code().encode() + b"\r")
    return await terminal.ended()


class TestPutty:
    @pytest.fixture
    def putty(self, engineer):
        need("plink", "puttygen")
        key = identity(engineer)
        subprocess.run(
            ["puttygen", key, "-O", "private", "-o", key.with_suffix(".ppk")],
            check=True,
            stdin=subprocess.DEVNULL,
        )
        fingerprint = asyncssh.import_public_key(
            engineer.service.host_key_line
        ).get_fingerprint()

        def line(program: str, *arguments: str) -> list[str]:
            return [
                program, "-P", str(engineer.port), "-l", engineer.here.address,
                "-noagent", "-no-antispoof",
                "-hostkey", fingerprint, "-i", str(key.with_suffix(".ppk")),
                *arguments,
            ]  # fmt: skip

        return line

    async def test_plink_runs_a_command(self, engineer, putty):
        line = putty("plink", "127.0.0.1", "echo out; exit 7")
        seen = await with_code(engineer, line)
        assert seen.status == 7
        assert seen.output.endswith(b"out\n")

    async def test_plink_opens_a_shell(self, engineer, putty):
        person = await fresh_code(engineer)
        line = putty("plink", "-t", "127.0.0.1")
        terminal = OnTerminal(line, dict(os.environ))
        await terminal.wait_for(b"code: ")
        terminal.type(person.code().encode() + b"\r")
        await terminal.wait_for(b"# " if os.geteuid() == 0 else b"$ ")
        terminal.type(b"echo $((6*7)) $TERM; stty size; exit 3\r")
        seen = await terminal.ended()
        assert seen.status == 3
        assert b"42 xterm" in seen.output
        assert b"31 97" in seen.output


class TestDropbear:
    @pytest.fixture
    def dbclient(self, engineer, tmp_path):
        need("dbclient", "dropbearconvert")
        key = identity(engineer)
        converted = tmp_path / "identity.dropbear"
        subprocess.run(
            ["dropbearconvert", "openssh", "dropbear", key, converted],
            check=True,
            capture_output=True,
        )
        home = tmp_path / "home"
        (home / ".ssh").mkdir(parents=True)
        (home / ".ssh" / "known_hosts").write_text(
            f"127.0.0.1 {engineer.service.host_key_line}\n"
        )

        async def line(*arguments: str) -> tuple[list[str], dict[str, str]]:
            person = await fresh_code(engineer)
            login = engineer.here.address
            words = ["-p", str(engineer.port), "-l", login, "-i", str(converted)]
            typed = {"HOME": str(home), "DROPBEAR_PASSWORD": person.code()}
            return (
                ["dbclient", *words, "127.0.0.1", *arguments],
                {**os.environ, **typed},
            )

        return line

    async def test_dbclient_runs_a_command(self, dbclient):
        line, environment = await dbclient("cat; echo err >&2; exit 6")
        seen = await run(line, environment, b"in")
        assert (seen.status, seen.output) == (6, b"in")
        assert seen.errors.endswith(b"err\n")

    async def test_dbclient_moves_megabytes(self, dbclient):
        content = secrets.token_bytes(3 << 20)
        line, environment = await dbclient("cat")
        seen = await run(line, environment, content)
        assert seen.status == 0
        assert seen.output == content


@pytest.fixture
def ssh_line(engineer):
    """Return how other programs are told to run `ssh`, and their environment."""

    async def words(*options: str) -> tuple[list[str], dict[str, str]]:
        person = await fresh_code(engineer)
        line, environment = engineer.openssh(person=person, options=list(options))
        return line[:-1], environment

    return words


def a_tree(directory: Path) -> Path:
    """Make some files: nested, empty, large, with odd names and modes."""
    (directory / "deep" / "er").mkdir(parents=True)
    (directory / "deep" / "er" / "big").write_bytes(secrets.token_bytes(3 << 20))
    (directory / "empty").touch()
    (directory / "odd name \u00e9").write_text("x")
    (directory / "run").write_text("#!/bin/sh\n")
    (directory / "run").chmod(0o755)
    return directory


def contents(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Return mode and content of each file below `directory`."""
    return {
        str(path.relative_to(directory)): (path.stat().st_mode, path.read_bytes())
        for path in directory.rglob("*")
        if path.is_file()
    }


class TestRsync:
    async def test_both_directions(self, engineer, ssh_line, tmp_path):
        need("rsync")
        source = a_tree(tmp_path / "source")
        there, back = tmp_path / "there", tmp_path / "back"
        host = f"{engineer.here.address}@127.0.0.1"
        for arguments in (
            [f"{source}/", f"{host}:{there}/"],
            [f"{host}:{there}/", f"{back}/"],
            # Once more with nothing to do, compressed and by checksum.
            ["-zc", "--delete", f"{source}/", f"{host}:{there}/"],
        ):
            line, environment = await ssh_line()
            seen = await run(
                ["rsync", "-a", "-e", shlex.join(line), *arguments], environment
            )
            assert seen == Seen(0, b"", b"")
        assert contents(source) == contents(there) == contents(back)


class TestGit:
    async def test_clone_push_and_fetch(self, engineer, ssh_line, tmp_path):
        need("git")
        bare, clone, other = (tmp_path / name for name in ("bare", "clone", "other"))

        async def git(*arguments: str, ssh: bool = False) -> Seen:
            environment = dict(os.environ)
            if ssh:
                line, environment = await ssh_line()
                environment["GIT_SSH_COMMAND"] = shlex.join(line)
            quiet = ["-c", "user.name=A", "-c", "user.email=a@b.invalid"]
            seen = await run(["git", *quiet, *arguments], environment)
            assert seen.status == 0, seen
            return seen

        await git("init", "-q", "--bare", "-b", "main", str(bare))
        url = f"ssh://{engineer.here.address.replace('@', '%40')}@127.0.0.1{bare}"
        await git("clone", "-q", url, str(clone), ssh=True)
        a_tree(clone / "tree")
        await git("-C", str(clone), "add", "-A")
        await git("-C", str(clone), "commit", "-q", "-m", "one")
        await git("-C", str(clone), "push", "-q", "origin", "HEAD:main", ssh=True)
        await git("clone", "-q", url, str(other), ssh=True)
        assert contents(other / "tree") == contents(clone / "tree")


PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - raw: echo raw $((6*7))
      register: first
    - command: /bin/sh -c 'exit 3'
      register: second
      failed_when: second.rc != 3
    - copy: {content: "hello\\n", dest: "@there@", mode: "0640"}
    - fetch: {src: "@there@", dest: "@back@", flat: true}
    - assert: {that: ["first.stdout_lines == ['raw 42']"]}
"""


@pytest.mark.slow
class TestAnsible:
    @pytest.mark.timeout(120)
    @pytest.mark.parametrize("pipelining", ["true", "false"])
    async def test_a_playbook(self, engineer, ssh_line, tmp_path, pipelining):
        need("ansible")
        there, back = tmp_path / "there", tmp_path / "back"
        playbook = tmp_path / "play.yml"
        playbook.write_text(
            PLAY.replace("@there@", str(there)).replace("@back@", str(back))
        )
        line, environment = await ssh_line()
        # Ansible itself turns prompts off; the first word on that counts for ssh.
        words = [
            *line[1:-2],
            "-oKbdInteractiveAuthentication=yes",
            "-oPreferredAuthentications=publickey,keyboard-interactive",
            "-oControlMaster=auto",
            "-oControlPersist=30",
        ]
        inventory = tmp_path / "hosts"
        inventory.write_text(
            f"pump ansible_host=127.0.0.1 ansible_port={engineer.port} "
            f"ansible_user={engineer.here.address} "
            "ansible_python_interpreter=/usr/bin/python3\n"
        )
        seen = await run(
            ["ansible-playbook", "-i", str(inventory), str(playbook)],
            {
                **environment,
                "HOME": str(tmp_path),
                "ANSIBLE_LOCAL_TEMP": str(tmp_path / "local"),
                "ANSIBLE_REMOTE_TEMP": str(tmp_path / "remote"),
                "ANSIBLE_SSH_ARGS": shlex.join(words),
                "ANSIBLE_PIPELINING": pipelining,
                "ANSIBLE_SSH_TRANSFER_METHOD": "piped",
            },
            seconds=100,
        )
        assert seen.status == 0, seen.output.decode()
        assert there.read_text() == back.read_text() == "hello\n"
        assert there.stat().st_mode & 0o777 == 0o640
