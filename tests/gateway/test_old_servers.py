"""Crypto profiles on real servers that speak one old set of algorithms and no other."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import asyncssh
import pytest

from apps.gateway.upstream import SENTENCES, UpstreamProblem
from apps.inventory.crypto_profiles import PROFILES
from tests.gateway.differential import account_of, fresh_code, put_under_control
from tests.servers import process
from tests.servers import sshd as real
from tests.targets import Target

# OpenSSH 9.2 still speaks all of these when told to; cryptography warns of some.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Diffie-Hellman over finite fields"),
    pytest.mark.timeout(120),
]


@dataclass(frozen=True)
class OldServer:
    """One set, and the only profile that fits it."""

    profile: str
    kex: str
    cipher: str
    mac: str
    host_key: str
    key: tuple[str, ...]


RSA_1024 = ("-t", "rsa", "-b", "1024")
RSA_2048 = ("-t", "rsa", "-b", "2048")

OLD_SERVERS = [
    OldServer(
        "compat-2012",
        "diffie-hellman-group14-sha256",
        "aes128-ctr",
        "hmac-sha2-256",
        "rsa-sha2-256",
        RSA_2048,
    ),
    OldServer(
        "legacy-sha1",
        "diffie-hellman-group14-sha1",
        "aes128-cbc",
        "hmac-sha1",
        "ssh-rsa",
        RSA_2048,
    ),
    OldServer(
        "legacy-gex",
        "diffie-hellman-group-exchange-sha1",
        "aes256-cbc",
        "hmac-sha1-96",
        "ssh-rsa",
        RSA_2048,
    ),
    OldServer(
        "legacy-dss",
        "diffie-hellman-group14-sha1",
        "aes128-cbc",
        "hmac-sha1",
        "ssh-dss",
        ("-t", "dsa"),
    ),
    OldServer(
        "legacy-broken",
        "diffie-hellman-group1-sha1",
        "3des-cbc",
        "hmac-md5",
        "ssh-rsa",
        RSA_1024,
    ),
]

REFUSALS = {
    SENTENCES[UpstreamProblem.NO_COMMON_ALGORITHM],
    # Both ends come to the same end, and the server may be the first to close.
    SENTENCES[UpstreamProblem.CLOSED_EARLY],
}


@pytest.fixture(params=OLD_SERVERS, ids=lambda one: one.profile)
def old(request) -> OldServer:
    return request.param


@pytest.fixture
def sshd(old, tmp_path, sshd_binary):
    settings = {
        "KexAlgorithms": old.kex,
        "Ciphers": old.cipher,
        "MACs": old.mac,
        "HostKeyAlgorithms": old.host_key,
        "PubkeyAcceptedAlgorithms": "+ssh-rsa",
        "RequiredRSASize": "1024",
    }
    with real.running(
        tmp_path / "sshd",
        sshd_binary,
        host_key=old.key,
        identity=RSA_2048,
        settings=settings,
    ) as running:
        yield running


@pytest.fixture
def target(sshd):
    return account_of(sshd)


async def said_with(client, profile: str) -> str:
    """Run a command with this profile; return its output, or what was refused."""

    def choose():
        client.here.asset.crypto_profile = profile
        client.here.asset.save(update_fields=["crypto_profile"])

    await client.ask(choose)
    connection = await client.connect(person=await fresh_code(client))
    try:
        result = await connection.run("echo fine")
    except asyncssh.ChannelOpenError as error:
        return error.reason.removeprefix("Sluice: ")
    finally:
        connection.abort()
    return str(result.stdout)


async def test_each_old_server_is_reached_with_its_own_profile_only(client, sshd, old):
    """R10, R38: a profile is an exact list, and nothing is negotiated down."""
    await client.ask(put_under_control, client.here, sshd)
    await client.ask(client.here.grant)
    said = {name: await said_with(client, name) for name in PROFILES}
    assert said.pop(old.profile) == "fine\n"
    assert set(said.values()) <= REFUSALS, said


DROPBEAR = Path("/usr/sbin/dropbear")


@pytest.fixture
def dropbear(tmp_path):
    """Dropbear's server; it reads keys below the home of who runs it, so that home is
    a place of the test's own, which takes a mount namespace."""
    if os.geteuid() != 0 or not DROPBEAR.exists() or not shutil.which("unshare"):
        pytest.skip("needs root, unshare and dropbear (apt-get install dropbear-bin)")
    home, host_key = tmp_path / "home", tmp_path / "host_key"
    (home / ".ssh").mkdir(mode=0o700, parents=True)
    home.chmod(0o700)
    key = asyncssh.generate_private_key("ssh-ed25519")
    (home / ".ssh" / "authorized_keys").write_bytes(key.export_public_key())
    identity = tmp_path / "identity"
    identity.write_bytes(key.export_private_key())
    made = subprocess.run(
        ["dropbearkey", "-t", "ed25519", "-f", host_key],
        capture_output=True,
        check=True,
    )
    line = next(
        text for text in made.stdout.decode().splitlines() if text.startswith("ssh-")
    )
    port = process.free_port()
    listen = ["-p", f"127.0.0.1:{port}", "-r", str(host_key), "-P", ""]
    server = process.start(
        process.as_user(
            [
                "unshare", "--mount", "--propagation", "private",
                "sh", "-c", 'mount --bind "$0" "$HOME" && exec "$@"',
                str(home), str(DROPBEAR), "-F", "-E", "-s", *listen,
            ]
        ),
        log=tmp_path / "log",
        answers=lambda: real.greets(port),
    )  # fmt: skip
    try:
        yield real.Sshd(port, " ".join(line.split()[:2]), "root", identity, home)
    finally:
        process.stop(server)


class TestDropbear:
    @pytest.fixture
    def target(self, dropbear) -> Target:
        return account_of(dropbear)

    async def test_dropbear_is_reached_with_the_modern_profile(self, client, dropbear):
        """R38: it reads only the first names of a list, so the list is short."""
        await client.ask(put_under_control, client.here, dropbear)
        await client.ask(client.here.grant)
        assert await said_with(client, "modern") == "fine\n"
        connection = await client.connect(person=await fresh_code(client))
        result = await connection.run("head -c 300000 /dev/zero", encoding=None)
        assert result.stdout == bytes(300_000)
        assert (await connection.run("kill -TERM $$")).exit_signal[0] == "TERM"


def test_the_lists_are_exact():
    """R34, R38: what only weak devices need is in no other profile."""
    weak = {name for name, profile in PROFILES.items() if profile.weak}
    assert weak == set(PROFILES) - {"modern"}
    modern = PROFILES["modern"]
    assert not any("cbc" in name or "ctr" in name for name in modern.ciphers)
    assert not any("sha1" in name for name in (*modern.kex, *modern.macs))
    for name in weak:
        # Strict key exchange is not asked of these, so Terrapin must not touch them.
        assert not any("chacha20" in cipher for cipher in PROFILES[name].ciphers)
        if any("cbc" in cipher for cipher in PROFILES[name].ciphers):
            assert not any("etm" in mac for mac in PROFILES[name].macs)


def test_every_profile_has_a_signature_that_the_vault_can_make():
    for profile in PROFILES.values():
        assert {"ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"} & set(
            profile.signatures
        ), profile
