"""People, as administrators see and change them."""

import pytest
from django.test import Client
from django.utils import timezone

from apps.accounts.models import User
from apps.accounts.queries import totp_device
from apps.audit.kinds import Kind
from apps.audit.models import AuditEvent
from apps.audit.operations import system
from apps.inventory import operations as inventory
from apps.inventory.models import Site
from apps.inventory.queries import is_member
from tests.portal.doors import PASSWORD, SignedIn, add_person, enrol, sign_in

pytestmark = pytest.mark.django_db


@pytest.fixture
def boss() -> SignedIn:
    return sign_in(add_person("boss", "administrator"))


@pytest.fixture
def engineer() -> User:
    person = add_person("engineer", "engineer")
    enrol(person)
    return person


@pytest.fixture
def site() -> Site:
    return inventory.add_site(
        slug="north",
        name="Waterworks North",
        time_zone="Europe/Amsterdam",
        by=system("test"),
        now=timezone.now(),
    )


def addresses(person: User, site: Site) -> list[tuple[str, str]]:
    """Return every address about people, with the method it wants."""
    one = f"/people/{person.pk}/"
    return [
        ("get", "/people/"),
        ("get", "/people/add/"),
        ("post", "/people/add/"),
        ("get", one),
        ("get", f"{one}change/"),
        ("post", f"{one}change/"),
        ("post", f"{one}disable/"),
        ("post", f"{one}enable/"),
        ("post", f"{one}reset-factors/"),
        ("post", f"{one}reset-password/"),
        ("post", f"{one}sites/add/"),
        ("post", f"{one}sites/{site.pk}/remove/"),
    ]


@pytest.mark.parametrize("role", ["engineer", "approver", "auditor"])
def test_for_others_these_pages_do_not_exist(
    role: str, engineer: User, site: Site
) -> None:
    """R1: wrong role, every address and method; nothing changed."""
    client = sign_in(add_person("somebody", role)).client
    before = AuditEvent.objects.count()
    for method, address in addresses(engineer, site):
        answer = getattr(client, method)(address)
        assert answer.status_code == 404, (method, address)
        assert "engineer Jansen" not in answer.content.decode()
    assert AuditEvent.objects.count() == before


def test_the_anonymous_are_sent_to_sign_in(
    engineer: User, site: Site, client: Client
) -> None:
    """R1: anonymous, every address and method."""
    for method, address in addresses(engineer, site):
        answer = getattr(client, method)(address)
        assert answer.status_code == 302, (method, address)
        assert answer.headers["Location"].startswith("/sign-in/?next=")


def test_an_unknown_person_is_nobody(boss: SignedIn, site: Site) -> None:
    stranger = User(username="gone")
    for method, address in addresses(stranger, site):
        if str(stranger.pk) in address:
            answer = getattr(boss.client, method)(address)
            assert answer.status_code == 404, (method, address)


def test_people_are_listed_and_filtered(boss: SignedIn, engineer: User) -> None:
    del engineer
    everybody = boss.client.get("/people/").content.decode()
    assert ">boss</a>" in everybody
    assert ">engineer</a>" in everybody
    engineers = boss.client.get("/people/?role=engineer").content.decode()
    assert ">boss</a>" not in engineers
    by_name = boss.client.get("/people/?q=ENGINEER+J").content.decode()
    assert ">engineer</a>" in by_name
    assert ">boss</a>" not in by_name
    nobody = boss.client.get("/people/?state=disabled").content.decode()
    assert "Nobody fits" in nobody


@pytest.mark.parametrize("query", ["page=0", "page=x", "page=999", "role=king"])
def test_odd_filters_are_no_fault(query: str, boss: SignedIn) -> None:
    assert boss.client.get(f"/people/?{query}").status_code == 200


def test_the_list_costs_the_same_however_long(
    boss: SignedIn, django_assert_max_num_queries: object
) -> None:
    for number in range(5):
        add_person(f"engineer{number}", "engineer")
    with django_assert_max_num_queries(12):  # type: ignore[operator]
        boss.client.get("/people/")


def test_a_person_is_added_with_a_password_shown_once(boss: SignedIn) -> None:
    answer = boss.client.post(
        "/people/add/",
        {"username": "J.deVries", "full_name": "Jan de Vries", "roles": ["engineer"]},
    )
    person = User.objects.get(username="j.devries")
    assert person.role_names == ["engineer"]
    html = answer.content.decode()
    password = html.split('id="password">')[1].split("<")[0]
    assert person.check_password(password)
    assert len(password) == 20
    page = boss.client.get(f"/people/{person.pk}/").content.decode()
    assert password not in page
    assert all(password not in event.data for event in AuditEvent.objects.all())


@pytest.mark.parametrize(
    ("handle", "says"),
    [
        ("engineer", "taken"),
        ("ENGINEER", "taken"),
        ("a@b", "small letters"),
        ("a:b", "small letters"),
        ("a+b", "small letters"),
        ("../x", "small letters"),
        ("x", "small letters"),
        ("", "required"),
    ],
)
def test_a_handle_that_will_not_do(
    handle: str, says: str, boss: SignedIn, engineer: User
) -> None:
    del engineer
    answer = boss.client.post(
        "/people/add/",
        {"username": handle, "full_name": "Somebody", "roles": ["engineer"]},
    )
    assert answer.status_code == 422
    assert says in answer.content.decode()
    assert User.objects.count() == 2


def test_roles_of_others_change(boss: SignedIn, engineer: User) -> None:
    answer = boss.client.post(
        f"/people/{engineer.pk}/change/",
        {"full_name": "E. Jansen", "roles": ["engineer", "approver"]},
    )
    assert answer.status_code == 302
    engineer.refresh_from_db()
    assert engineer.role_names == ["engineer", "approver"]
    assert AuditEvent.objects.filter(kind=Kind.PERSON_CHANGED).count() == 1


def test_nobody_changes_their_own_roles(boss: SignedIn) -> None:
    """R17: an administrator does not make themselves auditor or approver."""
    answer = boss.client.post(
        f"/people/{boss.person.pk}/change/",
        {"full_name": "Boss", "roles": ["administrator", "auditor"]},
    )
    assert answer.status_code == 422
    assert b"cannot change your own roles" in answer.content
    boss.person.refresh_from_db()
    assert boss.person.role_names == ["administrator"]


@pytest.mark.parametrize("roles", [["king"], ["engineer", "is_superuser"]])
def test_there_are_no_other_roles(
    roles: list[str], boss: SignedIn, engineer: User
) -> None:
    answer = boss.client.post(
        f"/people/{engineer.pk}/change/", {"full_name": "E", "roles": roles}
    )
    assert answer.status_code == 422
    engineer.refresh_from_db()
    assert engineer.role_names == ["engineer"]


def test_a_person_is_disabled_and_enabled(boss: SignedIn, engineer: User) -> None:
    their_browser = sign_in(engineer).client
    boss.client.post(f"/people/{engineer.pk}/disable/")
    assert their_browser.get("/account/").status_code == 302
    engineer.refresh_from_db()
    assert engineer.disabled_at is not None
    boss.client.post(f"/people/{engineer.pk}/enable/")
    engineer.refresh_from_db()
    assert engineer.disabled_at is None


@pytest.mark.parametrize("action", ["disable", "reset-factors", "reset-password"])
def test_not_to_oneself(action: str, boss: SignedIn) -> None:
    """A stolen portal session takes no account over and locks nobody out."""
    answer = boss.client.post(f"/people/{boss.person.pk}/{action}/", follow=True)
    assert b"Not done" in answer.content
    boss.person.refresh_from_db()
    assert boss.person.disabled_at is None
    assert boss.person.check_password(PASSWORD)
    assert totp_device(boss.person) is not None


def test_a_lost_phone(boss: SignedIn, engineer: User) -> None:
    boss.client.post(f"/people/{engineer.pk}/reset-factors/")
    assert totp_device(engineer) is None
    assert AuditEvent.objects.filter(kind=Kind.FACTOR_RESET).count() == 1
    page = boss.client.get(f"/people/{engineer.pk}/").content.decode()
    assert "Enrols at next sign-in" in page


def test_a_forgotten_password(boss: SignedIn, engineer: User) -> None:
    their_browser = sign_in(engineer).client
    answer = boss.client.post(f"/people/{engineer.pk}/reset-password/")
    password = answer.content.decode().split('id="password">')[1].split("<")[0]
    engineer.refresh_from_db()
    assert engineer.check_password(password)
    assert totp_device(engineer) is not None
    assert their_browser.get("/account/").status_code == 302
    event = AuditEvent.objects.get(kind=Kind.PASSWORD_CHANGED)
    assert (event.actor_label, event.object_label) == ("boss", "engineer")


def test_sites_are_given_and_taken(boss: SignedIn, engineer: User, site: Site) -> None:
    one = f"/people/{engineer.pk}/"
    boss.client.post(f"{one}sites/add/", {"site": site.pk})
    assert is_member(engineer, site)
    again = boss.client.post(f"{one}sites/add/", {"site": site.pk}, follow=True)
    assert b"Choose a site" in again.content
    boss.client.post(f"{one}sites/{site.pk}/remove/")
    assert not is_member(engineer, site)


def test_nobody_lets_themselves_in(boss: SignedIn, site: Site) -> None:
    """R17: another administrator adds one to a site."""
    answer = boss.client.post(
        f"/people/{boss.person.pk}/sites/add/", {"site": site.pk}, follow=True
    )
    assert b"cannot add yourself" in answer.content
    assert not is_member(boss.person, site)
