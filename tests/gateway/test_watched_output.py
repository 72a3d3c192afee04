"""What an asset prints is a picture on a watcher's terminal, and nothing else."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.gateway.watched_output import OutputFilter

STEERING = re.compile(
    r"\x1b[]PX^_Z]|\x05|[\x80-\x9f]|\x1b\[[^@-~]*[cnxtyi]|\x1b\[[>=?][^@-~]*[qum]"
)


@pytest.mark.parametrize(
    "drawn",
    [
        b"plain text\r\n\ttab \x08 back",
        "Messgröße: 3 µm".encode(),
        b"\x1b[1;31mred\x1b[0m\x1b[2J\x1b[H",
        b"\x1b[?1049h\x1b[?25l\x1b[3;4r\x1b[5 q",
        b"\x1b7\x1b8\x1bM\x1b(0lqk\x1b(B\x1b=\x1b>",
        b"\x1b[38;2;1;2;3mrgb\x1b[3S",
    ],
)
def test_what_draws_is_passed_on_untouched(drawn):
    assert OutputFilter().feed(drawn) == drawn


@pytest.mark.parametrize(
    "steering",
    [
        b"\x1b]52;c;cm0gLXJm\x07",
        b"\x1b]0;title\x1b\\",
        b"\x1bP$q m\x1b\\",
        b"\x1b_application\x1b\\",
        b"\x1b^privacy\x1b\\",
        b"\x1bXstring\x1b\\",
        b"\x1b[c",
        b"\x1b[>0c",
        b"\x1b[6n",
        b"\x1b[?6n",
        b"\x1b[21t",
        b"\x1b[5i",
        b"\x1b[?1$p",
        b"\x1b[>q",
        b"\x1b[?u",
        b"\x1bZ",
        b"\x05",
        "\x9b6n".encode()[:2],
        b"\x1b[" + b"1;" * 200 + b"m",
    ],
)
def test_what_asks_or_tells_the_terminal_something_is_taken_out(steering):
    assert OutputFilter().feed(b"a" + steering + b"b").startswith(b"a")
    shown = OutputFilter().feed(b"a" + steering + b"b").decode()
    assert STEERING.search(shown) is None
    assert shown.endswith("b")


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=8),
            st.sampled_from(
                [b"\x1b", b"\x1b[", b"\x1b]", b"\x1bP", b"\x1b\\", b"\x07", b"6n", b"c"]
            ),
        ),
        max_size=30,
    )
)
def test_nothing_steers_and_pieces_make_no_difference(pieces):
    in_pieces = OutputFilter()
    shown = b"".join(in_pieces.feed(piece) for piece in pieces)
    assert shown == OutputFilter().feed(b"".join(pieces))
    assert STEERING.search(shown.decode()) is None
