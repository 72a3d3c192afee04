"""What every page of a signed-in person shows: the rail's links and who waits where."""

from dataclasses import dataclass

from django.http import HttpRequest
from django.urls import reverse
from django.utils.functional import SimpleLazyObject

from apps.accounts.models import User


@dataclass(frozen=True, slots=True, kw_only=True)
class RailLink:
    """One link of the rail; `count` says how much waits there for this person."""

    url: str
    label: str
    current: bool
    count: int = 0
    count_label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RailGroup:
    """Links that belong together, under a heading or none."""

    heading: str
    links: list[RailLink]


# Heading, then: name of the page, its label, the roles that need it (none: everybody).
_GROUPS: list[tuple[str, list[tuple[str, str, frozenset[str]]]]] = [
    (
        "",
        [
            ("my-access", "My access", frozenset()),
            ("approvals", "Approvals", frozenset({"approver"})),
            ("sessions", "Sessions", frozenset()),
            ("assets", "Assets", frozenset()),
        ],
    ),
    (
        "Evidence",
        [("ledger", "Ledger", frozenset({"auditor"}))],
    ),
    (
        "Administration",
        [
            ("zones", "Zones and conduits", frozenset({"administrator"})),
            ("people", "People", frozenset({"administrator"})),
        ],
    ),
    ("You", [("account", "My account", frozenset())]),
]


def navigation(request: HttpRequest) -> dict[str, object]:
    """Return `navigation`, worked out only when a page asks for it."""
    return {"navigation": SimpleLazyObject(lambda: _groups(request))}


def _groups(request: HttpRequest) -> list[RailGroup]:
    user = getattr(request, "user", None)
    if not isinstance(user, User):
        return []
    roles = set(user.role_names)
    groups = []
    for heading, entries in _GROUPS:
        links = [
            _link(request, name=name, label=label)
            for name, label, needs in entries
            if not needs or needs & roles
        ]
        if links:
            groups.append(RailGroup(heading=heading, links=links))
    return groups


def _link(request: HttpRequest, *, name: str, label: str) -> RailLink:
    url = reverse(f"portal:{name}")
    # My access is the root, which every address begins with.
    here = request.path == url or (name != "my-access" and request.path.startswith(url))
    return RailLink(url=url, label=label, current=here)
