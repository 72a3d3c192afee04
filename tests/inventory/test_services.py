"""What may cross a conduit: words and destinations, each in one spelling."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.inventory.services import (
    LABELS,
    ForwardDestination,
    Service,
    UnknownServiceError,
    check_services,
    forwards_of,
    label_of,
    parse_destination,
    parse_forward,
)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("10.20.4.17:502", "forward:10.20.4.17:502"),
        ("PLC-7.Plant.Example.:502", "forward:plc-7.plant.example:502"),
        (" plc-7:44818 ", "forward:plc-7:44818"),
        ("[fd00:0:0::17]:22", "forward:[fd00::17]:22"),
        ("10.20.4.17:65535", "forward:10.20.4.17:65535"),
    ],
)
def test_a_destination_has_one_spelling(text: str, kept: str) -> None:
    assert parse_forward(text).service == kept
    assert check_services([f"forward:{text}"]) == [kept]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plc-7",
        ":502",
        "plc-7:",
        "plc-7:0",
        "plc-7:65536",
        "plc-7:0502",
        "plc-7:5o2",
        "plc-7:٥٠٢",
        "fd00::17:502",
        "[fd00::17%eth0]:502",
        "plc 7:502",
        "plc_7:502",
        "-plc:502",
        "plc;reboot:502",
        "plc/../x:502",
        "a" * 64 + ":502",
        "*:502",
        # Old spellings of IPv4 addresses that resolvers still take.
        "127.1:502",
        "2130706433:502",
        "0177.0.0.1:502",
    ],
)
def test_what_is_no_destination_is_refused(text: str) -> None:
    with pytest.raises(UnknownServiceError):
        parse_forward(text, allow_local=True)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.8.8.8",
        "::1",
        "::ffff:127.0.0.1",
        "169.254.169.254",
        "fe80::1",
        "0.0.0.0",  # noqa: S104 - refused as a destination
        "localhost",
        "LocalHost.",
        "hmi.localhost",
    ],
)
def test_r26_this_machine_and_metadata_are_no_destination(host: str) -> None:
    with pytest.raises(UnknownServiceError, match="cannot be a destination"):
        parse_destination(host, 502)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_machine_counts_where_local_targets_are_allowed(host: str) -> None:
    assert parse_destination(host, 502, allow_local=True).port == 502


def test_services_are_kept_sorted_and_once() -> None:
    given_ = ["shell", "forward:PLC:502", "exec", "shell", "forward:plc.:502"]
    assert check_services(given_) == ["exec", "forward:plc:502", "shell"]


@pytest.mark.parametrize("text", ["", "ssh", "Shell", "sftp", "forward:", "forward"])
def test_what_is_no_service_is_refused(text: str) -> None:
    with pytest.raises(UnknownServiceError):
        check_services(["shell", text])


def test_only_forwards_have_destinations() -> None:
    services = ["exec", "forward:[fd00::17]:22", "forward:plc:502", "shell"]
    assert forwards_of(services) == {
        ForwardDestination("fd00::17", 22),
        ForwardDestination("plc", 502),
    }


def test_each_service_has_words_for_people() -> None:
    assert set(LABELS) == set(Service)
    assert label_of("forward:plc:502") == "Forward to plc:502"
    assert label_of("sftp-up") == "Upload files"
    assert label_of("from-elsewhere") == "from-elsewhere"


@given(
    st.one_of(
        st.ip_addresses().map(str), st.from_regex(r"\A[a-z]([a-z0-9-]{0,8}[a-z0-9])?\Z")
    ),
    st.integers(1, 65535),
)
def test_a_kept_service_reads_back_as_itself(host: str, port: int) -> None:
    try:
        destination = parse_destination(host, port)
    except UnknownServiceError:
        return
    assert parse_forward(str(destination)) == destination
    assert check_services([destination.service]) == [destination.service]


@given(st.text(max_size=40))
def test_any_text_is_a_destination_or_refused(text: str) -> None:
    try:
        destination = parse_forward(text)
    except UnknownServiceError:
        return
    assert parse_forward(str(destination)) == destination
