"""What the engineer's side offers (R34, R38)."""

import asyncssh
import pytest

from apps.gateway import algorithms


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3", algorithms.GCM),
        (b"SSH-2.0-OpenSSH_for_Windows_9.5", algorithms.GCM),
        (b"SSH-2.0-OpenSSH_10.0", algorithms.GCM),
        (b"SSH-2.0-OpenSSH_6.1", algorithms.CHACHA),
        (b"SSH-2.0-PuTTY_Release_0.78", algorithms.CHACHA),
        (b"SSH-2.0-PuTTY_Release_0.81", algorithms.GCM),
        (b"SSH-2.0-dropbear_2022.83", algorithms.CHACHA),
        (b"SSH-2.0-dropbear", algorithms.CHACHA),
        (b"SSH-2.0-WinSCP_release_5.21.5", algorithms.CHACHA),
        (b"SSH-2.0-paramiko_5.1.0", algorithms.GCM),
        (b"SSH-2.0-libssh2_1.11.0", algorithms.GCM),
        (b"SSH-2.0-", algorithms.GCM),
        (b"SSH-2.0-\xff\xfe", algorithms.GCM),
    ],
)
def test_ciphers_by_client(version, expected):
    assert algorithms.ciphers_for(version) == expected


def test_r38_nothing_weak_is_listed():
    everything = " ".join(
        (*algorithms.KEX, *algorithms.GCM, *algorithms.MACS, *algorithms.SIGNATURES)
    )
    for weak in ("sha1", "cbc", "group14", "group1-", "md5", "ssh-rsa", "dss", "3des"):
        assert weak not in everything
    assert algorithms.KEX[0] == "mlkem768x25519-sha256"
    assert all("-etm@" in mac for mac in algorithms.MACS)


async def test_r38_asyncssh_knows_every_name():
    options = await asyncssh.SSHServerConnectionOptions.construct(
        kex_algs=list(algorithms.KEX),
        encryption_algs=[*algorithms.GCM, *algorithms.CHACHA],
        mac_algs=list(algorithms.MACS),
        signature_algs=list(algorithms.SIGNATURES),
        server_host_keys=[asyncssh.generate_private_key(algorithms.HOST_KEY)],
        config=None,
    )
    assert [name.decode() for name in options.kex_algs] == list(algorithms.KEX)
    assert [name.decode() for name in options.mac_algs] == list(algorithms.MACS)
