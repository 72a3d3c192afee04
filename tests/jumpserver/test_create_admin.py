"""R9: the first administrator is made by a command, and nobody is there before."""

import io

import pytest
from django.core.management import CommandError, call_command

from apps.accounts.models import User
from apps.audit.kinds import Kind
from apps.audit.models import AuditEvent
from tests.jumpserver.commands import manage

PASSWORD = "correct horse battery staple"


@pytest.fixture
def stdin(monkeypatch):
    """What is typed, as a pipe."""

    def give(text: str) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO(text))

    return give


@pytest.mark.django_db
def test_r9_a_fresh_install_has_nobody():
    assert not User.objects.exists()


@pytest.mark.django_db
def test_an_administrator_is_added_and_written_down(stdin):
    stdin(f"{PASSWORD}\n")
    call_command(
        "create_admin", "anna.berg", "--full-name", "Anna Berg", "--password-stdin"
    )
    user = User.objects.get()
    assert user.check_password(PASSWORD)
    assert list(user.role_names) == ["administrator"]
    event = AuditEvent.objects.get(kind=Kind.PERSON_ADDED)
    assert event.actor_id == "system:create_admin"
    assert PASSWORD not in str(event.data)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("handle", "password", "said"),
    [
        ("anna.berg", "", "blanks"),
        ("anna.berg", "            ", "blanks"),
        ("anna.berg", "short", "too short"),
        ("anna.berg", "123456789012", "numeric|common"),
        ("anna.berg", "anna.berg.anna", "similar"),
        ("me@host", PASSWORD, "."),
        ("a:b", PASSWORD, "."),
        ("", PASSWORD, "."),
        ("../etc", PASSWORD, "."),
    ],
)
def test_r12_what_will_not_do_is_refused(stdin, handle, password, said):
    stdin(f"{password}\n")
    with pytest.raises(CommandError, match=said):
        call_command("create_admin", handle, "--full-name", "X", "--password-stdin")
    assert not User.objects.exists()


@pytest.mark.django_db
def test_a_handle_is_taken_whatever_its_case(stdin):
    for handle in ("anna", "Anna"):
        stdin(f"{PASSWORD}\n")
        command = ["create_admin", handle, "--full-name", "A", "--password-stdin"]
        if handle == "anna":
            call_command(*command)
        else:
            with pytest.raises(CommandError):
                call_command(*command)
    assert User.objects.count() == 1


def test_without_a_terminal_it_says_how(tmp_path):
    data = tmp_path / "data"
    assert manage("migrate", "--verbosity", "0", data=data).returncode == 0
    told = manage("create_admin", "anna", "--full-name", "Anna", data=data)
    assert told.returncode == 1
    assert "--password-stdin" in told.stderr
    told = manage(
        *("create_admin", "anna", "--full-name", "Anna", "--password-stdin"),
        data=data,
        given=f"{PASSWORD}\n",
    )
    assert told.returncode == 0, told.stderr
    assert PASSWORD not in told.stdout + told.stderr
