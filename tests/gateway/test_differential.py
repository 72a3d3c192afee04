"""Through the gateway as straight to the target: stock OpenSSH, real sshd."""

import asyncio
import hashlib
import secrets
import shlex

import pytest

from tests.gateway.differential import (
    Case,
    OnTerminal,
    Seen,
    Ways,
    account_of,
    normal,
    put_under_control,
    run,
)
from tests.servers import sshd as real

MIB = 1 << 20


@pytest.fixture(scope="module")
def sshd(tmp_path_factory, sshd_binary):
    with real.running(tmp_path_factory.mktemp("sshd") / "sshd", sshd_binary) as running:
        yield running


@pytest.fixture
def target(sshd):
    return account_of(sshd)


@pytest.fixture
async def ways(client, sshd, tmp_path, ssh_binary):
    await client.ask(put_under_control, client.here, sshd)
    await client.ask(client.here.grant)
    return Ways(client, sshd, tmp_path)


def ends(status: int, output: bytes | None = None):
    def holds(seen: Seen) -> bool:
        return seen.status == status and output in (None, seen.output)

    return holds


COMMANDS = [
    Case("out and err apart", ["echo out; echo err >&2; exit 3"], expects=ends(3)),
    Case("no output", ["true"], expects=ends(0, b"")),
    Case("status 255", ["exit 255"], expects=ends(255)),
    Case("status above a byte", ["exit 300"], expects=ends(44)),
    Case("not found", ["/no/such/program"], expects=ends(127)),
    Case("ended by TERM", ["kill -TERM $$"], expects=ends(255)),
    Case("ended by SEGV", ["ulimit -c 0; kill -SEGV $$"], expects=ends(255)),
    Case(
        "an empty command is a shell",
        [""],
        given=b"echo hi\nexit 4\n",
        expects=ends(4, b"hi\n"),
    ),
    Case(
        "words become one line",
        ["printf", "'%s|'", "a b", "'c d'"],
        expects=ends(0, b"a|b|c d|"),
    ),
    Case("lines in a command", ["echo 1\necho 2\n"], expects=ends(0, b"1\n2\n")),
    Case(
        "a long command", [f"echo {'x' * 90_000} | wc -c"], expects=ends(0, b"90001\n")
    ),
    Case(
        "bytes that are not UTF-8",
        ["printf '\udcff\udce9' | od -An -tx1"],
        expects=ends(0, b" ff e9\n"),
    ),
    Case("stdin is nothing", ["wc -c"], expects=ends(0, b"0\n")),
    Case("-n", ["wc -c"], options=["-n"], given=b"not read", expects=ends(0, b"0\n")),
    Case(
        "output after the end of input",
        ["cat; echo after; exit 9"],
        given=b"x",
        expects=ends(9, b"xafter\n"),
    ),
    Case(
        "input after the end of output",
        ["exec >&- 2>&-; cat >/dev/null; exit 6"],
        given=b"y" * MIB,
        expects=ends(6, b""),
    ),
    Case(
        "input that nobody wants",
        ["exec <&-; exit 2"],
        given=b"z" * MIB,
        expects=ends(2),
    ),
    Case("input left unread", ["head -c 3"], given=b"z" * MIB, expects=ends(0, b"zzz")),
    Case(
        "a child keeps the output open",
        ["(sleep 0.3; echo late) & echo early"],
        expects=ends(0, b"early\nlate\n"),
    ),
    Case(
        "server speaks first",
        ["echo 220 ready; read x; echo got $x"],
        given=b"hello\n",
        expects=ends(0, b"220 ready\ngot hello\n"),
    ),
    Case(
        "all bytes",
        ["cat"],
        given=bytes(range(256)) * 40,
        expects=ends(0, bytes(range(256)) * 40),
    ),
    Case(
        "a shell without terminal",
        [],
        options=["-T"],
        given=b"echo $0 $TERM; tty; exit 5\n",
        expects=ends(5),
    ),
    Case(
        "-C", ["head -c 300000 /dev/zero | sha256sum"], options=["-C"], expects=ends(0)
    ),
]

SETTINGS = [
    Case(
        "environment",
        ["env | sort"],
        options=["-oSendEnv=LANG LC_* TERM", "-oSetEnv=LC_ODD=\udcff"],
        environment={"LANG": "de_DE.UTF-8", "LC_TIME": "C", "LC_NAME": "x" * 200},
        expects=lambda seen: b"LC_NAME=xxx" in seen.output,
    ),
    Case(
        "-tt without a terminal",
        ["stty -a; tty; echo $TERM"],
        options=["-tt"],
        environment={"TERM": "vt220"},
        expects=lambda seen: b"vt220" in seen.output,
    ),
    Case("-tt keeps the status", ["exit 5"], options=["-tt"], expects=ends(5)),
    Case(
        "-tt and piped input",
        ["stty -echo; echo ready; cat"],
        options=["-tt"],
        given=b"line\n\x04",
    ),
    Case(
        "-tt joins out and err",
        ["echo out; echo err >&2"],
        options=["-tt"],
        expects=ends(0, b"out\r\nerr\r\n"),
    ),
    Case(
        "-tt and the end of input",
        ["stty -echo; sleep 0.2; echo still here"],
        options=["-tt"],
    ),
    Case(
        "environment on a terminal",
        ["env | sort"],
        options=["-tt", "-oSendEnv=LANG LC_*"],
        environment={"TERM": "screen", "LANG": "C.UTF-8"},
        expects=lambda seen: b"TERM=screen" in seen.output,
    ),
]


async def test_commands(ways):
    assert not await ways.differences(COMMANDS)


async def test_terminals_and_environment(ways):
    assert not await ways.differences(SETTINGS)


@pytest.mark.parametrize(
    ("command", "settings"),
    [
        ("stty -a; tty; echo $TERM $COLUMNS", ()),
        ("stty -a", ("-icrnl", "-ixon", "intr", "^X", "-echoctl", "iutf8", "9600")),
        ("exit 7", ()),
        ("kill -9 $$", ()),
        ("printf 'no line end'", ()),
    ],
)
async def test_a_terminal_of_their_own(ways, command, settings):
    case = Case("terminal", [command], options=["-t"])
    seen = []
    for way in (ways.direct, ways.through):
        line, environment = await way(case)
        terminal = OnTerminal(line, environment, settings=settings)
        seen.append(normal(await terminal.ended()))
    assert seen[0] == seen[1]


PROGRAM = """
import os, signal, sys
def say(*words): os.write(1, b"%s;\\n" % " ".join(map(str, words)).encode())
signal.signal(signal.SIGWINCH, lambda *_: say("size", *os.get_terminal_size()))
signal.signal(signal.SIGINT, lambda *_: say("interrupted"))
say("ready")
for line in sys.stdin.buffer:
    say("got", line)
    if line == b"end\\n":
        sys.exit(9)
"""


async def at_the_keyboard(terminal: OnTerminal) -> Seen:
    await terminal.wait_for(b"ready;\r\n")
    terminal.type(b"hello\r")
    await terminal.wait_for(b"got b'hello\\n';\r\n")
    terminal.resize(120, 40)
    await terminal.wait_for(b"size 120 40;\r\n")
    terminal.type(b"\x03")
    await terminal.wait_for(b"interrupted;\r\n")
    terminal.type("gr\u00fc\u00df\r".encode())
    await terminal.wait_for(b"got b'gr")
    terminal.type(b"end\r")
    return await terminal.ended()


async def test_typing_resizing_and_interrupting(ways):
    seen = []
    for way in (ways.direct, ways.through):
        line, environment = await way(
            Case(
                "keys",
                [f"stty -echo; exec python3 -u -c {shlex.quote(PROGRAM)}"],
                ["-t"],
            )
        )
        seen.append(normal(await at_the_keyboard(OnTerminal(line, environment))))
    assert seen[0] == seen[1]
    assert seen[0].status == 9


COPY = "stty -echo; echo ready; cat"


async def test_the_escapes_of_the_client(ways):
    """`~B` sends a break, `~.` leaves."""
    seen = []
    for way in (ways.direct, ways.through):
        line, environment = await way(Case("escapes", [COPY], ["-t"]))
        terminal = OnTerminal(line, environment)
        await terminal.wait_for(b"ready")
        terminal.type(b"\r~B")
        terminal.type(b"on it goes\r")
        await terminal.wait_for(b"on it goes")
        terminal.type(b"\r~.")
        seen.append(normal(await terminal.ended()))
    assert seen[0] == seen[1]
    assert seen[0].status == 255


async def test_many_commands_on_one_connection(ways, tmp_path):
    """As an editor or Ansible does: a master, and commands at the same time."""
    seen = []
    for name, way in (("direct", ways.direct), ("through", ways.through)):
        shared = [
            "-oControlMaster=auto",
            f"-oControlPath={tmp_path / name}",
            "-oControlPersist=5",
        ]
        line, environment = await way(Case("first", ["echo first"], shared))
        first = await run(line, environment)
        assert first.output == b"first\n", first
        runs = []
        for number in range(8):
            command = f"cat; echo {number} >&2; exit {number}"
            line, environment = await way(Case("more", [command], shared))
            runs.append(run(line, environment, b"%d" % number * 100_000))
        seen.append(await asyncio.gather(*runs))
        line, environment = await way(Case("end", [], [*shared, "-Oexit"]))
        await run(line, environment)
    assert seen[0] == seen[1]
    assert [one.status for one in seen[0]] == list(range(8))


@pytest.mark.parametrize("options", [[], ["-oRekeyLimit=1M"]])
async def test_files_by_redirection(ways, options, tmp_path):
    """`ssh host < file > file`, also with new keys after every megabyte."""
    content = secrets.token_bytes((8 if options else 50) * MIB)
    file, copy = tmp_path / "file", tmp_path / "copy"
    file.write_bytes(content)
    line, environment = await ways.through(Case("copy", ["cat"], options))
    with file.open("rb") as source, copy.open("wb") as sink:
        process = await asyncio.create_subprocess_exec(
            *line, stdin=source, stdout=sink, env=environment, start_new_session=True
        )
        assert await asyncio.wait_for(process.wait(), 50) == 0
    assert hashlib.sha256(copy.read_bytes()).digest() == (
        hashlib.sha256(content).digest()
    )


async def test_keepalives_of_the_client(ways):
    case = Case(
        "keepalives",
        ["sleep 2.5; echo done"],
        ["-oServerAliveInterval=1", "-oServerAliveCountMax=1"],
        expects=ends(0, b"done\n"),
    )
    assert not await ways.differences([case])
