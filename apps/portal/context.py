"""What every page of a signed-in person shows: the rail's links and who waits where."""

from dataclasses import dataclass

from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.functional import SimpleLazyObject

from apps.access import queries as access
from apps.accounts.models import User
from apps.quarantine import queries as quarantine


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
            (
                "held-uploads",
                "Held uploads",
                frozenset({"engineer", "approver", "auditor"}),
            ),
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
            ("sign-in-notice", "Sign-in notice", frozenset({"administrator"})),
        ],
    ),
    (
        "You",
        [
            ("account", "My account", frozenset()),
            ("gateway-info", "The gateway", frozenset()),
        ],
    ),
]


def navigation(request: HttpRequest) -> dict[str, object]:
    """Return `navigation`, worked out only when a page asks for it."""
    return {"navigation": SimpleLazyObject(lambda: _groups(request))}


def _groups(request: HttpRequest) -> list[RailGroup]:
    user = getattr(request, "user", None)
    if not isinstance(user, User):
        return []
    roles = set(user.role_names)
    counts = _counts(user)
    groups = []
    for heading, entries in _GROUPS:
        links = [
            _link(request, name=name, label=label, counts=counts)
            for name, label, needs in entries
            if not needs or needs & roles
        ]
        if links:
            groups.append(RailGroup(heading=heading, links=links))
    return groups


def _counts(user: User) -> dict[str, tuple[int, str]]:
    """Return what waits for `user`, by page: how much, and of what (for the ear)."""
    if not user.is_approver:
        return {}
    now = timezone.now()
    waiting = access.requests_awaiting(user, now=now).count()
    waiting += access.extensions_awaiting(user, now=now).count()
    return {
        "approvals": (waiting, "waiting for you"),
        "held-uploads": (quarantine.awaiting_count(user), "waiting for you"),
    }


def _link(
    request: HttpRequest, *, name: str, label: str, counts: dict[str, tuple[int, str]]
) -> RailLink:
    url = reverse(f"portal:{name}")
    # My access is the root, which every address begins with.
    here = request.path == url or (name != "my-access" and request.path.startswith(url))
    count, count_label = counts.get(name, (0, ""))
    return RailLink(
        url=url, label=label, current=here, count=count, count_label=count_label
    )
