"""The stock OpenSSH client, pointed at an asset of the demo plant or the gateway."""

import subprocess
from pathlib import Path

LEGACY = [
    "-oKexAlgorithms=+diffie-hellman-group1-sha1",
    "-oCiphers=+aes128-cbc",
    "-oHostKeyAlgorithms=+ssh-rsa",
]


def ssh_command(
    directory: Path,
    *,
    address: str,
    port: int,
    host_key: str,
    login: str,
    identity: Path | None = None,
    options: list[str] | None = None,
    program: str = "ssh",
) -> list[str]:
    """Return an `ssh` command line that trusts exactly `host_key` (a public line).

    `directory` receives the known_hosts file. Without `identity` only password and
    keyboard-interactive are tried. The person's own configuration and agent stay out.
    """
    known_hosts = directory / f"known_hosts-{port}"
    known_hosts.write_text(f"[{address}]:{port} {host_key}\n")
    who = ["-oIdentityAgent=none", "-oIdentitiesOnly=yes"]
    if identity is None:
        who.append("-oPubkeyAuthentication=no")
    else:
        who += ["-oBatchMode=yes", "-i", str(identity)]
    return [
        program,
        "-F/dev/null",
        f"-oUserKnownHostsFile={known_hosts}",
        "-oGlobalKnownHostsFile=/dev/null",
        "-oStrictHostKeyChecking=yes",
        "-oConnectTimeout=10",
        *who,
        *(options or []),
        *(["-p", str(port)] if program == "ssh" else [f"-oPort={port}"]),
        f"{login}@{address}",
    ]


def run(
    command: list[str], *, given: bytes = b"", seconds: float = 20
) -> subprocess.CompletedProcess[bytes]:
    """Run `command` with `given` on standard input and return all it said."""
    return subprocess.run(
        command, input=given, capture_output=True, timeout=seconds, check=False
    )


def make_key(path: Path, kind: str = "ed25519") -> Path:
    """Make a key pair without passphrase at `path` and return `path`."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(path)], check=True
    )
    return path


def public_key(path: Path) -> str:
    """Return the public line of the key pair at `path`."""
    return path.with_name(f"{path.name}.pub").read_text().strip()


def certify(
    ca: Path, identity: Path, *, principal: str, validity: str = "-1m:+5m"
) -> Path:
    """Sign `identity` with `ca` for `principal` and return the certificate's path."""
    subprocess.run(
        [
            "ssh-keygen", "-q", "-s", str(ca), "-I", "test", "-n", principal,
            "-V", validity, f"{identity}.pub",
        ],
        check=True,
    )  # fmt: skip
    return identity.with_name(f"{identity.name}-cert.pub")
