"""Contents of files are left out of a recording, and nothing else is."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from apps.gateway.sftp_content import ContentFilter
from apps.gateway.sftp_frames import FrameType

_KINDS = [kind for kind in FrameType if kind not in {FrameType.WRITE, FrameType.DATA}]


def frame(kind: int, body: bytes) -> bytes:
    return struct.pack(">IB", len(body) + 1, kind) + body


def write(number: int, handle: bytes, offset: int, content: bytes) -> tuple[bytes, int]:
    head = struct.pack(">II", number, len(handle)) + handle
    head += struct.pack(">QI", offset, len(content))
    return frame(FrameType.WRITE, head + content), len(content)


def data(number: int, content: bytes) -> tuple[bytes, int]:
    head = struct.pack(">II", number, len(content))
    return frame(FrameType.DATA, head + content), len(content)


u32 = st.integers(0, 2**32 - 1)
content = st.binary(max_size=300)
frames = st.one_of(
    st.builds(
        lambda kind, body: (frame(kind, body), 0),
        st.sampled_from(_KINDS),
        st.binary(max_size=100),
    ),
    st.builds(write, u32, st.binary(max_size=40), st.integers(0, 2**64 - 1), content),
    st.builds(data, u32, content),
)


@given(st.lists(frames, max_size=12), st.data())
def test_whatever_the_pieces(conversation, draw):
    stream = b"".join(whole for whole, _ in conversation)
    wanted = b"".join(whole[: len(whole) - left] for whole, left in conversation)
    kept, position, found = ContentFilter(), 0, b""
    while position < len(stream):
        size = draw.draw(st.integers(1, len(stream) - position))
        found += kept.feed(stream[position : position + size])
        position += size
    assert found == wanted


@given(st.lists(st.binary(max_size=200), max_size=8))
def test_whatever_the_bytes(pieces):
    """It is fed before anybody has judged them."""
    kept = ContentFilter()
    out = b"".join(kept.feed(piece) for piece in pieces)
    assert len(out) <= sum(map(len, pieces))
