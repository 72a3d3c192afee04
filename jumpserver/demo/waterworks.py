"""What the demo consists of: sites, zones, conduits, assets and people. No secrets."""

from dataclasses import dataclass

NORTH = "waterworks-north"
SOUTH = "waterworks-south"
TIME_ZONE = "Europe/Amsterdam"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoZone:
    """A zone (IEC 62443-1-1) with its Purdue level and target security level."""

    name: str
    level: str
    sl_t: int
    hosts_gateway: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoConduit:
    """A conduit of a site, by the names of its zones."""

    name: str
    from_zone: str
    to_zone: str
    services: tuple[str, ...] = ("exec", "shell")


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSite:
    """A site with its zones and conduits."""

    slug: str
    name: str
    zones: tuple[DemoZone, ...]
    conduits: tuple[DemoConduit, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoAsset:
    """An asset of the plant; address, port and host key are the plant's to say."""

    name: str
    zone: str
    kind: str
    account: str
    description: str
    vendor: str
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoPerson:
    """A person with one role, so that everybody shows one side of the product."""

    username: str
    full_name: str
    role: str
    site: str = NORTH
    organisation: str = ""


SITES = (
    DemoSite(
        slug=NORTH,
        name="Waterworks North",
        zones=(
            DemoZone(name="Enterprise & vendors", level="4", sl_t=1),
            DemoZone(name="DMZ", level="3.5", sl_t=3, hosts_gateway=True),
            DemoZone(name="Control centre", level="3", sl_t=2),
            DemoZone(name="Cell 3 Pump station", level="2", sl_t=3),
            DemoZone(name="Cell 4 Filters", level="2", sl_t=3),
            DemoZone(name="Lab bench", level="1", sl_t=1),
        ),
        # No conduit leads to the lab bench: nothing there may be reached.
        conduits=(
            DemoConduit(name="C-01", from_zone="Enterprise & vendors", to_zone="DMZ"),
            DemoConduit(
                name="C-02",
                from_zone="DMZ",
                to_zone="Control centre",
                services=("exec", "sftp-down", "sftp-up", "shell"),
            ),
            DemoConduit(
                name="C-03",
                from_zone="DMZ",
                to_zone="Cell 3 Pump station",
                services=("exec", "sftp-down", "sftp-up", "shell"),
            ),
            DemoConduit(
                name="C-04",
                from_zone="DMZ",
                to_zone="Cell 4 Filters",
                services=("shell",),
            ),
        ),
    ),
    DemoSite(
        slug=SOUTH,
        name="Waterworks South",
        zones=(
            DemoZone(name="DMZ", level="3.5", sl_t=3, hosts_gateway=True),
            DemoZone(name="Cell 1 Intake", level="2", sl_t=3),
        ),
        conduits=(DemoConduit(name="C-11", from_zone="DMZ", to_zone="Cell 1 Intake"),),
    ),
)

ASSETS = (
    DemoAsset(
        name="hmi-pump-01",
        zone="Cell 3 Pump station",
        kind="hmi",
        account="operator",
        description="Operator panel of the pump station",
        vendor="Demo plant",
        model="Full-screen HMI",
    ),
    DemoAsset(
        name="scada-01",
        zone="Control centre",
        kind="scada",
        account="historian",
        description="SCADA server; trusts the site's SSH authority",
        vendor="OpenSSH",
        model="sshd",
    ),
    DemoAsset(
        name="switch-old-01",
        zone="Cell 4 Filters",
        kind="switch",
        account="admin",
        description="Cell switch of 2004: SHA-1 and CBC are all it speaks",
        vendor="Demo plant",
        model="Legacy switch",
    ),
    DemoAsset(
        name="lab-bench-01",
        zone="Lab bench",
        kind="workstation",
        account="bench",
        description="Outside every conduit: nobody reaches it",
        vendor="Demo plant",
        model="Bench",
    ),
)

# The first engineer is the one of the printed commands.
PEOPLE = (
    DemoPerson(username="engineer", full_name="Noor de Wit", role="engineer"),
    DemoPerson(
        username="vendor",
        full_name="Tomas Lindqvist",
        role="engineer",
        organisation="Pumpenbau Nord",
    ),
    DemoPerson(username="approver", full_name="Bram Hoekstra", role="approver"),
    DemoPerson(username="approver2", full_name="Ines Moreau", role="approver"),
    DemoPerson(username="auditor", full_name="Kofi Mensah", role="auditor"),
    DemoPerson(username="administrator", full_name="Yara Haddad", role="administrator"),
    DemoPerson(
        username="administrator2", full_name="Piet Janssen", role="administrator"
    ),
    DemoPerson(
        username="stranger", full_name="Sofia Rossi", role="engineer", site=SOUTH
    ),
)
