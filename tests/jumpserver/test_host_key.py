"""`manage.py host_key`: each step says what there is now."""

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from apps.vault import operations as vault
from apps.vault.models import ServiceKey
from tests.factories import clock

pytestmark = [pytest.mark.django_db, pytest.mark.both_databases]


def lines(step: str) -> list[list[str]]:
    out = StringIO()
    call_command("host_key", step, stdout=out)
    shown = out.getvalue().replace("in use", "in-use")
    return [line.split()[:2] for line in shown.splitlines()]


def test_prepare_then_switch() -> None:
    ((name, first),) = lines("show")
    assert name == "in-use"
    prepared = lines("prepare")
    assert prepared[0] == ["in-use", first]
    name, following = prepared[1]
    assert name == "next"
    assert following != first
    switched = lines("switch")
    assert switched == [["in-use", following]]
    assert vault.host_keys(now=clock())[0].fingerprint == following
    retired = ServiceKey.objects.get(retired_at__isnull=False)
    assert retired.fingerprint == first


@pytest.mark.parametrize("steps", [["switch"], ["prepare", "prepare"]])
def test_steps_cannot_be_skipped_or_repeated(steps: list[str]) -> None:
    *before, last = steps
    for step in before:
        lines(step)
    with pytest.raises(CommandError):
        lines(last)
