"""Who can sign in and where, printed for people once everything answers."""

from rich.console import Console
from rich.table import Table

from jumpserver.demo.processes import RunningDemo
from jumpserver.demo.waterworks import ASSETS

_TABLE_COLUMNS = 98


def show(demo: RunningDemo) -> None:
    """Print addresses, people with their secrets, and commands to copy."""
    console = Console(highlight=False)
    console.print()
    _show_people(console, demo)
    _print_plain(console, f"Portal:  {demo.portal_url}")
    known_host = f"[{demo.ssh_host}]:{demo.ssh_port} {demo.ssh_host_key}"
    _print_plain(console, f"Gateway: {known_host}")
    console.print("Ask in the portal, have it approved, then connect:")
    engineer = demo.person("engineer")
    for asset in ASSETS:
        _print_plain(
            console,
            f"  ssh -p {demo.ssh_port} -i {engineer.ssh_private_key} "
            f"{engineer.username}@{asset.name}@{demo.ssh_host}",
        )
    console.print("Ctrl-C stops everything; the same command resumes it.")


def _show_people(console: Console, demo: RunningDemo) -> None:
    """Print a table where it fits: a narrow terminal folds what is to be copied."""
    if console.width < _TABLE_COLUMNS:
        console.print("People: name (role) password TOTP-secret")
        for card in demo.people:
            _print_plain(
                console,
                f"  {card.username} ({card.role}) {card.password} {card.totp_secret}",
            )
        return
    people = Table("Person", "Role", "Password", "TOTP secret", title="People")
    for card in demo.people:
        people.add_row(card.username, card.role, card.password, card.totp_secret)
    console.print(people)


def _print_plain(console: Console, line: str) -> None:
    """Print a line as it is, however long: it is there to be copied."""
    console.print(line, markup=False, soft_wrap=True)
