"""Clients other than OpenSSH's `ssh`, and programs that run it, through the gateway."""

import asyncio
import base64
import hashlib
import os
import re
import secrets
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import asyncssh
import paramiko
import pytest

from apps.inventory import operations as inventory
from tests import factories
from tests.gateway.differential import (
    OnTerminal,
    Seen,
    account_of,
    fresh_code,
    put_under_control,
    run,
)
from tests.gateway.openssh_asset import EVERY_RIGHT
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

    def prepare():
        here = client.here
        put_under_control(here, sshd)
        # A zone whose level leaves room for a grace after a full sign-in.
        inventory.change_zone(
            zone_id=here.plant.cell.pk,
            changes={"sl_t": 2},
            by=factories.SET_UP,
            now=factories.clock(),
        )
        inventory.change_conduit(
            conduit_id=here.plant.conduit.pk,
            services=EVERY_RIGHT,
            by=factories.SET_UP,
            now=factories.clock(),
        )
        here.grant(services=EVERY_RIGHT)

    await client.ask(prepare)
    return client


@pytest.fixture
async def in_grace(engineer):
    """The engineer has signed in with everything a moment ago: the key will do."""
    connection = await engineer.connect(person=await fresh_code(engineer))
    await connection.run("true")
    connection.abort()
    await connection.wait_closed()
    return engineer


def identity(client) -> Path:
    """Return the engineer's private key in OpenSSH's form."""
    path = client.directory / "identity"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_bytes(client.here.engineer.key.export_private_key("openssh"))
        path.with_suffix(".pub").write_bytes(
            client.here.engineer.key.export_public_key()
        )
    return path


async def with_code(client, line: Sequence[str], prompt: bytes = b"code: ") -> Seen:
    """Run a client on a terminal and type the one-time code when it asks."""
    person = await fresh_code(client)
    terminal = OnTerminal(line, dict(os.environ))
    await terminal.wait_for(prompt)
    terminal.type(person.code().encode() + b"\r")
    return await terminal.ended()


def a_file(directory: Path) -> Path:
    """Make a file of three megabytes."""
    path = directory / "source"
    path.write_bytes(secrets.token_bytes(3 << 20))
    return path


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
                "-noagent", *(["-no-antispoof"] if program == "plink" else []),
                "-hostkey", fingerprint, "-i", str(key.with_suffix(".ppk")),
                *arguments,
            ]  # fmt: skip

        return line

    async def test_plink_runs_a_command(self, engineer, putty):
        line = putty("plink", "127.0.0.1", "echo out; exit 7")
        seen = await with_code(engineer, line)
        assert seen.status == 7
        assert seen.output.endswith(b"out\n")

    async def test_in_batch_mode_the_grace_lets_in(self, in_grace, putty):
        line = putty("plink", "-batch", "127.0.0.1", "cat; exit 7")
        seen = await run(line, dict(os.environ), b"in")
        assert (seen.status, seen.output) == (7, b"in"), seen.errors

    @pytest.mark.parametrize("form", ["-sftp", "-scp"])
    async def test_pscp_both_ways(self, in_grace, putty, tmp_path, form):
        source, there, back = a_file(tmp_path), tmp_path / "there", tmp_path / "back"
        for arguments in (
            [str(source), f"127.0.0.1:{there}"],
            [f"127.0.0.1:{there}", str(back)],
        ):
            line = putty("pscp", "-batch", form, "-q", *arguments)
            seen = await run(line, dict(os.environ))
            assert seen.status == 0, seen
        assert source.read_bytes() == there.read_bytes() == back.read_bytes()

    async def test_psftp_runs_a_batch(self, in_grace, putty, tmp_path):
        source, there, back = a_file(tmp_path), tmp_path / "there", tmp_path / "back"
        batch = tmp_path / "batch"
        batch.write_text(
            f"put {source} {there}\nls {tmp_path}\nget {there} {back}\nrm {there}\n"
        )
        line = putty("psftp", "-batch", "-b", str(batch), "127.0.0.1")
        seen = await run(line, dict(os.environ))
        assert seen.status == 0, seen
        assert back.read_bytes() == source.read_bytes()
        assert not there.exists()

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


class TestCurl:
    async def test_sftp_up_and_down(self, in_grace, tmp_path):
        """libssh2; it cannot be asked for a code after the key, hence the grace.

        R34: before 1.11.1 it has no strict key exchange, and is refused.
        """
        need("curl")
        about = await run(["curl", "-V"], dict(os.environ))
        library = re.search(rb"libssh2/(\d+)\.(\d+)\.(\d+)", about.output)
        if library is None:
            pytest.skip("this curl has no libssh2")
        source, there, back = a_file(tmp_path), tmp_path / "there", tmp_path / "back"
        key = identity(in_grace)
        blob = base64.b64decode(in_grace.service.host_key_line.split()[1])
        digest = base64.b64encode(hashlib.sha256(blob).digest()).decode()
        login = in_grace.here.address.replace("@", "%40")
        url = f"sftp://{login}@127.0.0.1:{in_grace.port}{there}"
        statuses = []
        for words in (["-T", str(source)], ["-o", str(back)]):
            line = [
                "curl", "-sS", "--hostpubsha256", digest, "--key", str(key),
                "--pubkey", f"{key}.pub", *words, url,
            ]  # fmt: skip
            statuses.append((await run(line, dict(os.environ))).status)
        if tuple(map(int, library.groups())) < (1, 11, 1):
            failed_init = 2
            assert statuses == [failed_init] * 2
            return
        assert statuses == [0, 0]
        assert source.read_bytes() == there.read_bytes() == back.read_bytes()


class TestSshfs:
    async def test_a_mounted_folder(self, in_grace, ssh_line, tmp_path):
        need("sshfs", "fusermount3")
        if not os.access("/dev/fuse", os.W_OK):
            pytest.skip("no /dev/fuse for this user")
        there, mounted = a_tree(tmp_path / "there"), tmp_path / "mounted"
        mounted.mkdir()
        line, environment = await ssh_line()
        host = f"{in_grace.here.address}@127.0.0.1:{there}"
        seen = await run(
            ["sshfs", host, str(mounted), "-o", f"ssh_command={shlex.join(line)}"],
            environment,
        )
        if b"fuse: " in seen.errors or b"fusermount" in seen.errors:
            pytest.skip(f"this machine may not mount: {seen.errors!r}")
        assert seen.status == 0, seen
        try:
            assert await asyncio.to_thread(contents, mounted) == contents(there)
            await asyncio.to_thread((mounted / "new").write_bytes, b"n" * 300_000)
            assert (there / "new").read_bytes() == b"n" * 300_000
            await asyncio.to_thread((mounted / "new").unlink)
            assert not (there / "new").exists()
        finally:
            await run(["fusermount3", "-u", str(mounted)], environment)


class TestParamiko:
    async def test_key_code_and_several_channels(self, engineer):
        code = (await fresh_code(engineer)).code()
        said = await asyncio.to_thread(self.work, engineer, code)
        assert said == [(b"in 0", b"err\n", 0), (b"in 1", b"err\n", 1)]

    def work(self, client, code: str) -> list[tuple[bytes, bytes, int]]:
        login = client.here.address
        key = paramiko.Ed25519Key.from_private_key_file(str(identity(client)))
        transport = paramiko.Transport(("127.0.0.1", client.port))
        try:
            transport.start_client(timeout=10)
            shown = transport.get_remote_server_key().get_base64()
            assert shown == client.service.host_key_line.split()[1]
            assert transport.auth_publickey(login, key) == ["keyboard-interactive"]
            transport.auth_interactive(login, lambda *_: [code])
            channels = [transport.open_session(timeout=10) for _ in range(2)]
            for number, channel in enumerate(channels):
                channel.exec_command(f"cat; echo err >&2; exit {number}")
            for number, channel in enumerate(channels):
                channel.sendall(b"in %d" % number)
                channel.shutdown_write()
            return [
                (
                    channel.makefile("rb").read(),
                    channel.makefile_stderr("rb").read(),
                    channel.recv_exit_status(),
                )
                for channel in channels
            ]
        finally:
            transport.close()


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
    @pytest.fixture
    def directories(self, tmp_path):
        with tempfile.TemporaryDirectory(prefix="cp", dir="/tmp") as short:
            yield tmp_path, Path(short)

    @pytest.mark.timeout(120)
    async def test_a_playbook_and_a_code(self, engineer, ssh_line, directories):
        # Ansible itself turns prompts off; the first word on that counts for ssh.
        prompts = [
            "-oKbdInteractiveAuthentication=yes",
            "-oPreferredAuthentications=publickey,keyboard-interactive",
        ]
        await self.play(
            engineer,
            ssh_line,
            directories,
            prompts,
            ANSIBLE_SSH_TRANSFER_METHOD="piped",
        )

    @pytest.mark.timeout(120)
    @pytest.mark.parametrize(
        ("pipelining", "transfer"), [("true", "sftp"), ("false", "scp")]
    )
    async def test_a_playbook_in_the_grace(
        self, in_grace, ssh_line, directories, pipelining, transfer
    ):
        await self.play(
            in_grace,
            ssh_line,
            directories,
            [],
            ANSIBLE_PIPELINING=pipelining,
            ANSIBLE_SSH_TRANSFER_METHOD=transfer,
        )

    async def play(self, engineer, ssh_line, directories, more, **settings):
        need("ansible")
        tmp_path, short_directory = directories
        there, back = tmp_path / "there", tmp_path / "back"
        playbook = tmp_path / "play.yml"
        playbook.write_text(
            PLAY.replace("@there@", str(there)).replace("@back@", str(back))
        )
        line, environment = await ssh_line()
        words = [
            *line[1:-2],
            *more,
            "-oControlMaster=auto",
            "-oControlPersist=30",
        ]
        inventory = tmp_path / "hosts"
        inventory.write_text(
            f"pump ansible_host=127.0.0.1 ansible_port={engineer.port} "
            f"ansible_user={engineer.here.address} "
            "ansible_python_interpreter=/usr/bin/python3\n"
        )
        environment |= {
            "HOME": str(tmp_path),
            "ANSIBLE_LOCAL_TEMP": str(tmp_path / "local"),
            "ANSIBLE_REMOTE_TEMP": str(tmp_path / "remote"),
            "ANSIBLE_SSH_ARGS": shlex.join(words),
            # The path of a Unix socket has a hundred characters at most.
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(short_directory),
            **settings,
        }
        seen = await run(
            ["ansible-playbook", "-i", str(inventory), str(playbook)],
            environment,
            seconds=100,
        )
        assert seen.status == 0, seen.output.decode()
        assert there.read_text() == back.read_text() == "hello\n"
        assert there.stat().st_mode & 0o777 == 0o640


class TestEditor:
    async def test_one_connection_for_everything(self, engineer, ssh_line, tmp_path):
        """As a remote editor does it: a server on a shell without a terminal, which
        speaks first, and commands and copies at the same time on that connection."""
        path = tmp_path / "mux"
        shared = ["-oControlMaster=auto", f"-oControlPath={path}", "-oControlPersist=5"]
        host = f"{engineer.here.address}@127.0.0.1"
        line, environment = await ssh_line("-T", *shared)
        server = await asyncio.create_subprocess_exec(
            *line,
            host,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment,
        )
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(b"echo listening; while read x; do echo did $x; done\n")
        async with asyncio.timeout(20):
            assert await server.stdout.readline() == b"listening\n"
        source = a_file(tmp_path)
        line, _ = await ssh_line(*shared)
        copies = []
        for number in range(4):
            copy = ["scp", "-q", f"-oControlPath={path}", str(source)]
            copies.append([*copy, f"{host}:{tmp_path / f'copy-{number}'}"])
            copies.append([*line, host, f"echo {number}"])
        results = await asyncio.gather(*(run(copy, environment) for copy in copies))
        assert [one.status for one in results] == [0] * 8, results
        for number in range(4):
            assert (tmp_path / f"copy-{number}").read_bytes() == source.read_bytes()
        server.stdin.write(b"work\n")
        async with asyncio.timeout(20):
            assert await server.stdout.readline() == b"did work\n"
        server.stdin.close()
        assert await asyncio.wait_for(server.wait(), 20) == 0
        await run([*line, "-Oexit", host], environment)
