"""The rail: what each role finds there, and who is waiting."""

import re

import pytest
from django.test import Client

from tests import factories
from tests.portal.doors import add_person, sign_in

pytestmark = pytest.mark.django_db

EVERYBODY = {"My access", "Sessions", "Assets", "My account", "The gateway"}


def rail(client: Client, address: str = "/account/") -> list[str]:
    """Return the words of the rail's links, counts included, white space folded."""
    html = client.get(address).content.decode()
    links = re.findall(r'<a class="rail-link".*?</a>', html, re.S)
    return [re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", link)).strip() for link in links]


@pytest.mark.parametrize(
    ("role", "more"),
    [
        ("engineer", {"Held uploads"}),
        ("approver", {"Approvals", "Held uploads"}),
        ("auditor", {"Ledger", "Held uploads"}),
        ("administrator", {"Zones and conduits", "People", "Sign-in notice"}),
    ],
)
def test_each_role_finds_its_pages(role: str, more: set[str]) -> None:
    client = sign_in(add_person("somebody", role)).client
    assert set(rail(client)) == EVERYBODY | more


@pytest.mark.parametrize("role", ["engineer", "approver", "auditor", "administrator"])
def test_every_link_of_the_rail_opens_and_is_marked(role: str) -> None:
    client = sign_in(add_person("somebody", role)).client
    html = client.get("/account/").content.decode()
    targets = re.findall(r'<a class="rail-link"\s+href="([^"]+)"', html)
    assert len(targets) == len(rail(client))
    for target in targets:
        answer = client.get(target)
        assert answer.status_code == 200, target
        marked = re.findall(
            r'href="([^"]+)"\s+aria-current="page"', answer.content.decode()
        )
        assert marked == [target]


def test_who_is_signed_in_is_said() -> None:
    client = sign_in(add_person("somebody", "engineer", "approver")).client
    html = client.get("/account/").content.decode()
    assert "Somebody Jansen" in html
    assert "engineer and approver" in html


def test_what_waits_is_counted_for_those_who_can_decide() -> None:
    here, elsewhere = factories.plant(), factories.plant()
    factories.request(here)
    decides = sign_in(here.approver).client
    assert "Approvals 1 waiting for you" in rail(decides)
    for person in (elsewhere.approver, here.engineer, here.auditor):
        assert not any("waiting" in link for link in rail(sign_in(person).client))
