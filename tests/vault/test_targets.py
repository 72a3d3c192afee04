"""Rotation and proof against real servers: OpenSSH, asyncssh, and odd ones."""

import asyncio
import contextlib
import datetime as dt
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from apps.inventory.crypto_profiles import LEGACY_SHA1, MODERN
from apps.vault import ssh_keys, targets
from apps.vault.certificates import generate_authority, issue_certificate
from apps.vault.dialogues import SWITCH, UNIX
from apps.vault.login_credentials import LoginCredential, new_password
from apps.vault.models import Finding
from apps.vault.secret_values import Secret
from apps.vault.targets import RotationError
from apps.vault.whereabouts import Target
from jumpserver.demo.ssh_target import TrackedServer, end_all, listen
from jumpserver.demo.sshd import OpenSshd
from tests.targets import (
    closing_target,
    echo_target,
    hanging_target,
    in_background,
    ssh_target,
)
from tests.vault.conftest import initial_login, initial_secret, running, whereabouts

SECONDS = 10.0
# What the old switch needs is deprecated in cryptography, and rightly so.
pytestmark = pytest.mark.filterwarnings("ignore:Diffie-Hellman over finite fields")


def _new_key() -> tuple[LoginCredential, str]:
    key = ssh_keys.generate_key()
    login = LoginCredential(private_key=ssh_keys.private_text(key))
    return login, ssh_keys.public_line(key)


def _line_of(login: LoginCredential) -> str:
    assert login.private_key is not None
    return ssh_keys.public_line(ssh_keys.load_private_key(login.private_key))


def _rotate(target: Target, old: LoginCredential) -> LoginCredential:
    new, line = _new_key()
    targets.rotate_key(
        target,
        old=old,
        old_line=_line_of(old),
        new=new,
        new_line=line,
        seconds=SECONDS,
    )
    return new


def _echo_whereabouts(target, **changes) -> Target:
    values = {
        "name": "echo",
        "address": target.address,
        "port": target.port,
        "login": target.login,
        "host_keys": (target.host_key,),
        "profile": MODERN,
    }
    return Target(**{**values, **changes})


def test_a_rotated_key_is_dead_and_the_new_one_alive(hmi):
    target, old = whereabouts(hmi), initial_login(hmi)
    before = targets.prove_dead(target, old, seconds=SECONDS)
    assert before.finding is Finding.ACCEPTED
    new = _rotate(target, old)
    dead = targets.prove_dead(target, old, seconds=SECONDS)
    assert dead.finding is Finding.REFUSED
    assert dead.tried_by.startswith("paramiko 5.")
    assert dead.answer == "authentication refused"
    alive = targets.prove_dead(target, new, seconds=SECONDS)
    assert alive.finding is Finding.ACCEPTED
    assert targets.log_in(target, new, seconds=SECONDS).finding is Finding.ACCEPTED
    assert targets.log_in(target, old, seconds=SECONDS).finding is Finding.REFUSED


def test_rotation_keeps_options_and_other_lines_and_leaves_nothing_behind(hmi):
    old = initial_login(hmi)
    other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHello other person"
    hmi.authorized_keys.write_text(
        f'# plant\n{other}\nfrom="127.0.0.1" {_line_of(old)} vault\r\n'
    )
    hmi.authorized_keys.chmod(0o644)
    new = _rotate(whereabouts(hmi), old)
    assert hmi.authorized_keys.read_bytes().decode() == (
        f'# plant\n{other}\nfrom="127.0.0.1" {_line_of(new)} vault\r\n'
    )
    assert stat.S_IMODE(hmi.authorized_keys.stat().st_mode) == 0o600
    assert [p.name for p in hmi.authorized_keys.parent.iterdir()] == ["authorized_keys"]


def test_a_symbolic_link_stays_one(hmi):
    old = initial_login(hmi)
    real = hmi.home / "keys"
    hmi.authorized_keys.rename(real)
    hmi.authorized_keys.symlink_to("../keys")
    new = _rotate(whereabouts(hmi), old)
    assert hmi.authorized_keys.is_symlink()
    assert _line_of(new) in real.read_text()


def test_a_key_that_opens_the_target_but_is_not_in_the_file_is_an_error(hmi):
    old = initial_login(hmi)
    stranger, line = _new_key()
    before = hmi.authorized_keys.read_bytes()
    with pytest.raises(RotationError, match="not in") as refused:
        targets.rotate_key(
            whereabouts(hmi),
            old=old,
            old_line=line,
            new=stranger,
            new_line=line,
            seconds=SECONDS,
        )
    assert refused.value.finding is Finding.NOT_ROTATED
    assert hmi.authorized_keys.read_bytes() == before


def test_a_new_key_that_the_target_refuses_is_taken_back(hmi):
    """Otherwise the way in would be lost."""
    old = initial_login(hmi)
    before = hmi.authorized_keys.read_bytes()
    installed = _new_key()[1]
    other = _new_key()[0]
    with pytest.raises(RotationError, match="put back") as refused:
        targets.rotate_key(
            whereabouts(hmi),
            old=old,
            old_line=_line_of(old),
            new=other,
            new_line=installed,
            seconds=SECONDS,
        )
    assert refused.value.finding is Finding.NOT_ROTATED
    assert hmi.authorized_keys.read_bytes() == before
    attempt = targets.log_in(whereabouts(hmi), old, seconds=SECONDS)
    assert attempt.finding is Finding.ACCEPTED


def test_rotation_with_a_dead_key_says_refused(hmi):
    stranger, _ = _new_key()
    with pytest.raises(RotationError) as refused:
        _rotate(whereabouts(hmi), stranger)
    assert refused.value.finding is Finding.REFUSED


def test_a_rotated_password_is_dead_on_an_old_switch(switch):
    """paramiko cannot speak to it, and the receipt will say who tried instead."""
    target, old, new = (
        whereabouts(switch),
        initial_secret(switch),
        new_password(),
    )
    targets.rotate_password(target, old=old, new=new, dialogue=SWITCH, seconds=SECONDS)
    dead = targets.prove_dead(target, LoginCredential(password=old), seconds=SECONDS)
    assert dead.finding is Finding.REFUSED
    assert dead.tried_by.startswith("asyncssh 2.")
    assert "paramiko does not speak legacy-sha1" in dead.tried_by
    alive = targets.log_in(target, LoginCredential(password=new), seconds=SECONDS)
    assert alive.finding is Finding.ACCEPTED


def test_the_switch_refusing_a_password_is_told_in_its_words(switch):
    target, old = whereabouts(switch), initial_secret(switch)
    with pytest.raises(RotationError, match="8 to 64") as refused:
        targets.rotate_password(
            target, old=old, new=Secret("short"), dialogue=SWITCH, seconds=SECONDS
        )
    assert refused.value.finding is Finding.NOT_ROTATED
    assert "short" not in str(refused.value)
    attempt = targets.log_in(target, LoginCredential(password=old), seconds=SECONDS)
    assert attempt.finding is Finding.ACCEPTED


def test_a_dialogue_that_does_not_fit_ends_in_time(switch):
    with pytest.raises(RotationError, match="back at its prompt"):
        targets.rotate_password(
            whereabouts(switch),
            old=initial_secret(switch),
            new=new_password(),
            dialogue=UNIX,
            seconds=2,
        )


def test_passwords_are_proved_dead_by_paramiko_where_it_can():
    with in_background(echo_target()) as echo:
        target = _echo_whereabouts(echo)
        right = LoginCredential(password=Secret(echo.password))
        wrong = LoginCredential(password=new_password())
        accepted = targets.prove_dead(target, right, seconds=SECONDS)
        refused = targets.prove_dead(target, wrong, seconds=SECONDS)
    assert accepted.finding is Finding.ACCEPTED
    assert refused.finding is Finding.REFUSED
    assert refused.tried_by.startswith("paramiko")


class _AsksForPassword(TrackedServer):
    """Offers keyboard-interactive only, as many appliances do (RFC 4256)."""

    def kbdint_auth_supported(self) -> bool:
        return True

    def get_kbdint_challenge(self, username, lang, submethods):
        return "", "", "", [("Password: ", False)]

    def validate_kbdint_response(self, username, responses):
        return list(responses) == ["right"]


class _OddServer:
    """A modern server on loopback that behaves as `factory` says."""

    name = "odd"

    def __init__(self, factory: type[TrackedServer], **options: Any) -> None:
        self._factory = factory
        self._options = options
        self._key = asyncssh.generate_private_key("ssh-ed25519")
        self._connections: set[asyncssh.SSHServerConnection] = set()
        self._acceptor: asyncssh.SSHAcceptor | None = None

    async def start(self, wanted_port: int) -> int:
        self._acceptor = await listen(
            wanted_port,
            lambda: self._factory(self._connections),
            self._key,
            **self._options,
        )
        return self._acceptor.get_port()

    async def stop(self) -> None:
        await end_all(self._acceptor, self._connections)

    def describe(self) -> dict[str, Any]:
        assert self._acceptor is not None
        return {
            "name": self.name,
            "address": "127.0.0.1",
            "port": self._acceptor.get_port(),
            "host_key": self._key.export_public_key("openssh").decode().strip(),
            "crypto_profile": "modern",
            "accounts": [{"login": "tester"}],
        }


@contextlib.contextmanager
def _serving(factory: type[TrackedServer], **options: Any) -> Iterator[Target]:
    with running(_OddServer(factory, **options)) as server:
        yield whereabouts(server)


def test_a_password_asked_for_by_prompt_is_tried_there():
    with _serving(_AsksForPassword) as target:
        found = [
            targets.prove_dead(
                target, LoginCredential(password=Secret(text)), seconds=SECONDS
            )
            for text in ("right", "wrong")
        ]
    assert [attempt.finding for attempt in found] == [Finding.ACCEPTED, Finding.REFUSED]


def test_a_password_asked_for_by_prompt_is_tried_there_with_asyncssh_too():
    with _serving(_AsksForPassword) as target:
        found = [
            targets.log_in(
                target, LoginCredential(password=Secret(text)), seconds=SECONDS
            ).finding
            for text in ("right", "wrong")
        ]
    assert found == [Finding.ACCEPTED, Finding.REFUSED]


class _TakesOnePassword(TrackedServer):
    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username, password):
        return bool(password == "right")


def test_a_modern_target_that_paramiko_cannot_speak_to_is_tried_anew():
    only = ["chacha20-poly1305@openssh.com"]
    with _serving(_TakesOnePassword, encryption_algs=only) as target:
        found = [
            targets.prove_dead(
                target, LoginCredential(password=Secret(text)), seconds=SECONDS
            )
            for text in ("right", "wrong")
        ]
    assert [attempt.finding for attempt in found] == [Finding.ACCEPTED, Finding.REFUSED]
    assert "does not speak what this target offers" in found[1].tried_by
    assert len(found[1].tried_by) <= 120


class _AsksForMore(_AsksForPassword):
    def get_kbdint_challenge(self, username, lang, submethods):
        return "", "", "", [("User: ", True), ("Password: ", False)]


def test_a_password_is_given_to_one_hidden_prompt_only():
    with _serving(_AsksForMore) as target:
        for try_ in (targets.log_in, targets.prove_dead):
            attempt = try_(
                target, LoginCredential(password=Secret("right")), seconds=SECONDS
            )
            assert attempt.finding is Finding.NOT_TRIED


def test_a_method_that_is_not_on_offer_proves_nothing():
    with _serving(_AsksForPassword) as target:
        attempts = [
            try_(target, _new_key()[0], seconds=SECONDS)
            for try_ in (targets.prove_dead, targets.log_in)
        ]
    for attempt in attempts:
        assert attempt.finding is Finding.NOT_TRIED
        assert "not tried" in attempt.answer


class _LetsAnybodyIn(TrackedServer):
    def begin_auth(self, username):
        return False


def test_a_target_that_lets_anybody_in_is_no_proof():
    with _serving(_LetsAnybodyIn) as target:
        for try_ in (targets.prove_dead, targets.log_in):
            attempt = try_(target, _new_key()[0], seconds=SECONDS)
            assert attempt.finding is not Finding.REFUSED


class _HangsUpAtPasswords(TrackedServer):
    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username, password):
        self.connection.abort()
        return False


def test_a_connection_that_breaks_off_during_log_in_proves_nothing():
    """paramiko itself calls this "authentication failed"."""
    with _serving(_HangsUpAtPasswords) as target:
        for try_ in (targets.prove_dead, targets.log_in):
            attempt = try_(
                target, LoginCredential(password=Secret("any")), seconds=SECONDS
            )
            assert attempt.finding is Finding.NOT_TRIED, try_


class _NeverAnswers(TrackedServer):
    def password_auth_supported(self) -> bool:
        return True

    async def validate_password(self, username, password):
        await asyncio.Event().wait()


class _AsksAndHangs(_AsksForPassword):
    async def validate_kbdint_response(self, username, responses):
        await asyncio.Event().wait()


@pytest.mark.parametrize("server", [_NeverAnswers, _AsksAndHangs])
def test_a_log_in_without_an_answer_proves_nothing(server):
    with _serving(server) as target:
        for try_ in (targets.prove_dead, targets.log_in):
            attempt = try_(target, LoginCredential(password=Secret("any")), seconds=1)
            assert attempt.finding is Finding.NOT_TRIED, try_


class _AsksAndHangsUp(_AsksForPassword):
    def validate_kbdint_response(self, username, responses):
        self.connection.abort()
        return False


def test_a_connection_that_breaks_off_after_the_prompt_proves_nothing():
    with _serving(_AsksAndHangsUp) as target:
        attempt = targets.prove_dead(
            target, LoginCredential(password=Secret("any")), seconds=SECONDS
        )
    assert attempt.finding is Finding.NOT_TRIED


class _TwoFactorSshd(OpenSshd):
    """Wants a certificate and then an answer to a prompt."""

    def _configuration(self) -> str:
        text = super()._configuration()
        return text.replace(
            "AuthenticationMethods publickey",
            "AuthenticationMethods publickey,keyboard-interactive",
        ).replace("KbdInteractiveAuthentication no", "KbdInteractiveAuthentication yes")


class _KeySshd(OpenSshd):
    """Takes keys from `home`/.ssh/authorized_keys; SFTP begins in `home`."""

    home: Path

    def _configuration(self) -> str:
        text = super()._configuration()
        return text.replace(
            "AuthorizedKeysFile none",
            f"AuthorizedKeysFile {self.home}/.ssh/authorized_keys",
        ).replace("internal-sftp", f"internal-sftp -d {self.home}")


def test_a_key_is_rotated_on_openssh(tmp_path, sshd_binary):
    old = _new_key()[0]
    sshd = _KeySshd(tmp_path / "sshd", Path(sshd_binary))
    sshd.home = tmp_path / "home"
    file = sshd.home / ".ssh" / "authorized_keys"
    file.parent.mkdir(parents=True)
    file.write_text(f"# plant\nno-pty {_line_of(old)} vault\n")
    with running(sshd):
        target = whereabouts(sshd)
        new = _rotate(target, old)
        assert file.read_text() == f"# plant\nno-pty {_line_of(new)} vault\n"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert [path.name for path in file.parent.iterdir()] == [file.name]
        dead = targets.prove_dead(target, old, seconds=SECONDS)
        alive = targets.prove_dead(target, new, seconds=SECONDS)
    assert (dead.finding, alive.finding) == (Finding.REFUSED, Finding.ACCEPTED)


def test_one_accepted_factor_of_two_is_no_proof(tmp_path, sshd_binary):
    private, line = generate_authority()
    now = dt.datetime.now(dt.UTC)
    certificate = issue_certificate(
        authority=private,
        principal="historian",
        key_id="test",
        serial=1,
        now=now,
        deadline=now + dt.timedelta(minutes=10),
        login_seconds=30,
    )
    credential = LoginCredential(
        private_key=certificate.private_key, certificate=certificate.line
    )
    with running(_TwoFactorSshd(tmp_path / "scada", Path(sshd_binary))) as scada:
        Path(scada.describe()["user_ca_file"]).write_text(f"{line}\n")
        target = whereabouts(scada)
        attempt = targets.prove_dead(target, credential, seconds=SECONDS)
        assert attempt.finding is Finding.ACCEPTED
        assert attempt.answer == "accepted as the first of several factors"
        attempt = targets.log_in(target, credential, seconds=SECONDS)
        assert attempt.finding is Finding.NOT_TRIED


def test_a_target_without_files_keeps_its_key():
    with in_background(echo_target()) as echo:
        assert echo.client_key is not None
        text = echo.client_key.export_private_key("openssh").decode()
        with pytest.raises(RotationError) as refused:
            _rotate(_echo_whereabouts(echo), LoginCredential(private_key=Secret(text)))
    assert refused.value.finding is Finding.NOT_ROTATED


def test_a_file_of_keys_over_a_mebibyte_is_left_alone(hmi):
    old = initial_login(hmi)
    with hmi.authorized_keys.open("ab") as file:
        file.write(b"# padding\n" * 120_000)
    before = hmi.authorized_keys.read_bytes()
    with pytest.raises(RotationError, match="over 1 MiB"):
        _rotate(whereabouts(hmi), old)
    assert hmi.authorized_keys.read_bytes() == before


def _change_password(program, **changes):
    """Run the switch's dialogue against a shell that is `program`."""
    with in_background(ssh_target(program)) as shell:
        targets.rotate_password(
            _echo_whereabouts(shell, **changes),
            old=Secret(shell.password),
            new=new_password(),
            dialogue=SWITCH,
            seconds=1,
        )


async def _hang_up(_target, process):
    process.stdout.write(b"sw#")
    process.exit(0)


async def _say_nothing(_target, process):
    await process.stdin.read()


async def _ask_once(_target, process):
    process.stdout.write(b"sw#")
    await process.stdin.read(1)
    process.stdout.write(b"\r\nCurrent password: ")
    await process.stdin.read()


async def _lie(_target, process):
    process.stdout.write(b"sw#")
    for prompt in (b"Current password: ", b"New password: ", b"Confirm: "):
        while b"\r" not in await process.stdin.read(100):
            pass
        process.stdout.write(b"\r\n" + prompt)
    while b"\r" not in await process.stdin.read(100):
        pass
    process.stdout.write(b"\r\nPassword changed.\r\nsw#")
    await process.stdin.read()


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (_hang_up, "waited for the current password"),
        (_say_nothing, "no answer in time: waited for a prompt for commands"),
        (_ask_once, "no answer in time: waited for the new password"),
        (_lie, "the new password: authentication refused"),
    ],
)
def test_a_dialogue_that_goes_wrong_says_where(program, words):
    with pytest.raises(RotationError, match=words) as refused:
        _change_password(program)
    assert refused.value.finding is Finding.NOT_ROTATED


def test_a_pin_that_the_profile_does_not_allow_is_said_so():
    line = ssh_keys.public_line(ssh_keys.generate_key())
    with in_background(closing_target()) as odd:
        attempt = targets.prove_dead(
            _echo_whereabouts(odd, host_keys=(line,), profile=LEGACY_SHA1),
            _new_key()[0],
            seconds=SECONDS,
        )
        assert odd.connections == 0
    assert attempt.finding is Finding.NOT_TRIED
    assert "of a kind its profile allows" in attempt.answer


def test_a_key_is_replaced_and_tried_whatever_its_kind(hmi):
    """RSA and ECDSA keys, such as an administrator may have put into the vault."""
    old = initial_login(hmi)
    for signatures in (("ecdsa-sha2-nistp256",), ("rsa-sha2-512",)):
        key = ssh_keys.generate_key(signatures)
        new = LoginCredential(private_key=ssh_keys.private_text(key))
        hmi.authorized_keys.write_text(_line_of(old) + "\n")
        targets.rotate_key(
            whereabouts(hmi),
            old=old,
            old_line=_line_of(old),
            new=new,
            new_line=_line_of(new),
            seconds=SECONDS,
        )
        attempt = targets.prove_dead(whereabouts(hmi), new, seconds=SECONDS)
        assert attempt.finding is Finding.ACCEPTED
        assert _rotate(whereabouts(hmi), new).private_key is not None
        attempt = targets.prove_dead(whereabouts(hmi), new, seconds=SECONDS)
        assert attempt.finding is Finding.REFUSED


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("profile", [MODERN, LEGACY_SHA1])
def test_an_unreachable_target_proves_nothing(profile):
    line = ssh_keys.public_line(ssh_keys.generate_key(profile.signatures))
    target = Target(
        name="gone",
        address="127.0.0.1",
        port=_free_port(),
        login="x",
        host_keys=(line,),
        profile=profile,
    )
    attempt = targets.prove_dead(target, _new_key()[0], seconds=SECONDS)
    assert attempt.finding is Finding.NOT_TRIED
    assert "could not be reached" in attempt.answer


@pytest.mark.parametrize("profile", [MODERN, LEGACY_SHA1])
@pytest.mark.parametrize("behaviour", [hanging_target, closing_target])
def test_a_target_that_hangs_or_closes_proves_nothing(behaviour, profile):
    line = ssh_keys.public_line(ssh_keys.generate_key(profile.signatures))
    with in_background(behaviour()) as odd:
        attempt = targets.prove_dead(
            _echo_whereabouts(odd, host_keys=(line,), profile=profile),
            LoginCredential(password=Secret("x")),
            seconds=1,
        )
    assert attempt.finding is Finding.NOT_TRIED


def test_a_wrong_host_key_is_told_apart_and_gets_no_credential(hmi):
    """R39: nothing is sent to a host that is not the pinned one."""
    stranger = ssh_keys.public_line(ssh_keys.generate_key())
    target = whereabouts(hmi, host_keys=(stranger,))
    for try_ in (targets.prove_dead, targets.log_in):
        attempt = try_(target, initial_login(hmi), seconds=SECONDS)
        assert attempt.finding is Finding.WRONG_HOST_KEY
    with pytest.raises(RotationError) as refused:
        _rotate(target, initial_login(hmi))
    assert refused.value.finding is Finding.WRONG_HOST_KEY


def test_a_wrong_host_key_of_an_old_switch_is_told_apart(switch):
    stranger = ssh_keys.public_line(ssh_keys.generate_key(("ssh-rsa",)))
    target = whereabouts(switch, host_keys=(stranger,))
    attempt = targets.prove_dead(target, initial_login(switch), seconds=SECONDS)
    assert attempt.finding is Finding.WRONG_HOST_KEY


def test_r39_without_a_pinned_key_no_packet_is_sent():
    with in_background(closing_target()) as odd:
        target = _echo_whereabouts(odd, host_keys=())
        for try_ in (targets.prove_dead, targets.log_in):
            attempt = try_(target, _new_key()[0], seconds=SECONDS)
            assert attempt.finding is Finding.NOT_TRIED
            assert "no pinned host key" in attempt.answer
        assert odd.connections == 0


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "169.254.169.254", "localhost"]
)
def test_r26_local_addresses_are_refused_also_by_name(settings, address):
    settings.ALLOW_LOCAL_TARGETS = False
    with in_background(closing_target()) as odd:
        target = _echo_whereabouts(odd, address=address, host_keys=(_new_key()[1],))
        for try_ in (targets.prove_dead, targets.log_in):
            attempt = try_(target, _new_key()[0], seconds=SECONDS)
            assert attempt.finding is Finding.NOT_TRIED
            assert "cannot be a target" in attempt.answer
        assert odd.connections == 0


def test_an_unknown_name_proves_nothing():
    target = Target(
        name="x",
        address="gone.invalid",
        port=22,
        login="x",
        host_keys=(_new_key()[1],),
        profile=MODERN,
    )
    attempt = targets.prove_dead(target, _new_key()[0], seconds=SECONDS)
    assert attempt.finding is Finding.NOT_TRIED
    assert "name is unknown" in attempt.answer


def test_a_modern_profile_does_not_reach_an_old_switch(switch):
    target = whereabouts(switch, profile=MODERN)
    attempt = targets.prove_dead(target, initial_login(switch), seconds=SECONDS)
    assert attempt.finding is Finding.NOT_TRIED


def test_openssh_takes_a_certificate_until_it_runs_out_and_not_a_second_longer(scada):
    private, line = generate_authority()
    Path(scada.describe()["user_ca_file"]).write_text(f"{line}\n")
    target = whereabouts(scada)

    def credential(now: dt.datetime) -> LoginCredential:
        certificate = issue_certificate(
            authority=private,
            principal="historian",
            key_id="test",
            serial=1,
            now=now,
            deadline=now + dt.timedelta(minutes=10),
            login_seconds=30,
        )
        return LoginCredential(
            private_key=certificate.private_key, certificate=certificate.line
        )

    now = dt.datetime.now(dt.UTC)
    alive = credential(now)
    dead = credential(now - dt.timedelta(seconds=31))
    for try_ in (targets.prove_dead, targets.log_in):
        assert try_(target, alive, seconds=SECONDS).finding is Finding.ACCEPTED
        assert try_(target, dead, seconds=SECONDS).finding is Finding.REFUSED
    stranger = generate_authority()[0]
    foreign = issue_certificate(
        authority=stranger,
        principal="historian",
        key_id="test",
        serial=1,
        now=now,
        deadline=now + dt.timedelta(minutes=10),
        login_seconds=30,
    )
    attempt = targets.prove_dead(
        target,
        LoginCredential(private_key=foreign.private_key, certificate=foreign.line),
        seconds=SECONDS,
    )
    assert attempt.finding is Finding.REFUSED


async def test_an_event_loop_is_no_place_for_this():
    target = Target(
        name="x", address="127.0.0.1", port=1, login="x", host_keys=(), profile=MODERN
    )
    with pytest.raises(RuntimeError, match="worker threads"):
        targets.log_in(target, _new_key()[0], seconds=1)


def test_new_passwords_are_long_mixed_and_never_the_same():
    made = {new_password().reveal() for _ in range(50)}
    assert len(made) == 50
    for text in made:
        assert len(text) == 24
        assert text.isalnum()
        assert text.isascii()
        assert not text.isalpha()
        assert not text.islower()
        assert not text.isupper()


def test_no_secret_is_logged(hmi, switch, caplog):
    caplog.set_level("DEBUG")
    old = initial_login(hmi)
    new = _rotate(whereabouts(hmi), old)
    targets.prove_dead(whereabouts(hmi), old, seconds=SECONDS)
    password, next_password = initial_secret(switch), new_password()
    targets.rotate_password(
        whereabouts(switch),
        old=password,
        new=next_password,
        dialogue=SWITCH,
        seconds=SECONDS,
    )
    assert new.private_key is not None
    for secret in (password, next_password, new.private_key):
        assert secret.reveal() not in caplog.text
        assert secret.reveal()[40:100] not in caplog.text or len(secret.reveal()) < 100
