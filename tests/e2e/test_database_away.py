"""PostgreSQL goes away in the middle of the work, and comes back.

What is open goes on; nothing new opens; nothing is lost from the books.
"""

import sys
from collections.abc import Iterator

import pytest

from jumpserver.demo.scene import HMI, SCADA
from tests.e2e.production import Production, production, refusal, until
from tests.e2e.test_production import give_access, session_of
from tests.servers import postgresql, redis

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

AWAY = "the database does not answer"
GRACE_SECONDS = 20


@pytest.fixture(scope="module")
def plant(ssh_binary: str, sshd_binary: str) -> Iterator[Production]:
    if postgresql.binaries() is None:
        pytest.skip(postgresql.MISSING)
    if redis.binary() is None:
        pytest.skip(redis.MISSING)
    with production() as here:
        here.environment["SLUICE_DATABASE_GRACE_SECONDS"] = str(GRACE_SECONDS)
        here.start("portal")
        here.start("gateway")
        yield here
        # Shown when a test has failed.
        sys.stdout.write(here.logs())


def test_what_is_open_goes_on_and_the_books_are_kept(plant: Production) -> None:
    """And the one that is given back meanwhile is written down when it is back."""
    grant = give_access(plant, "engineer", SCADA)
    connection = plant.ssh("engineer").connect(f"historian@{SCADA}")
    lasting = connection.open("cat")
    lasting.type("one\n")
    lasting.transcript.wait_for("one")
    second = connection.open("echo go on; read line; echo got $line; exit 7")
    second.transcript.wait_for("go on")
    session = session_of(plant, grant, "ssh")
    plant.database.stop()
    try:
        lasting.type("two\n")
        lasting.transcript.wait_for("two")
        # A newcomer is told why, and is not asked for a code that would be used up.
        assert AWAY in refusal(plant.ssh("engineer"), f"historian@{SCADA}")
        # A further channel of the open connection opens no more than that.
        third = connection.open("echo never")
        third.transcript.wait_for(AWAY)
        assert third.exit_status() != 0
        # One ends meanwhile; how it ended must not be lost.
        second.type("it\n")
        second.transcript.wait_for("got it")
        assert second.exit_status() == 7
    finally:
        plant.database.start()
    lasting.type("three\n")
    lasting.transcript.wait_for("three")
    until(
        lambda: plant.rows(
            "select id from jump_sessions_channel where session_id = %s "
            "and exit_status = 7 and bytes_out = 13",
            session,
        ),
        "the end of the channel in the books",
    )
    # The pool holds no dead connection: the very next sign-in works.
    again = plant.ssh("engineer").connect(f"historian@{SCADA}")
    assert again.open("exit 3").exit_status() == 3
    again.close()
    connection.close()
    until(
        lambda: plant.rows(
            "select r.id from recordings_recording r join jump_sessions_session s "
            "on r.session_id = s.id where s.id = %s and s.end_reason = 'finished' "
            "and r.state = 'sealed' and r.sealed_how = 'closed'",
            session,
        ),
        "session closed and recording sealed",
    )
    # It was away for all of them alike: no gateway was given up for that.
    assert not plant.rows(
        "select id from jump_sessions_gatewaynode where stopped_at is not null"
    )


def test_after_the_grace_nothing_goes_on_unwatched(plant: Production) -> None:
    """Nobody could revoke it; so it ends, and is in the books when they are back."""
    grant = give_access(plant, "vendor", HMI)
    connection = plant.ssh("vendor").connect(HMI)
    lasting = connection.open("cat")
    lasting.type("one\n")
    lasting.transcript.wait_for("one")
    session = session_of(plant, grant, "ssh")
    plant.database.stop()
    try:
        lasting.transcript.wait_for_end(seconds=GRACE_SECONDS + 40)
        assert "can no longer be checked" in lasting.transcript.text
    finally:
        plant.database.start()
    connection.close()
    until(
        lambda: plant.rows(
            "select s.id from jump_sessions_session s "
            "join recordings_recording r on r.session_id = s.id "
            "where s.id = %s and s.end_reason = 'terminated' "
            "and s.end_detail like 'no answer from the database%%' "
            "and r.state = 'sealed'",
            session,
        ),
        "the end in the books",
    )
    assert plant.is_running("gateway")
    assert plant.is_running("portal")
