"""Goal: the header of overlay datagrams is that of design §4.  Method: known bytes, there and back, bad bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import WireError
from pipeline.wire.overlay import HEADER_BYTES, DatagramFlag, DatagramType, OverlayHeader, decode, sequence_of


def test_known_bytes() -> None:
    header = OverlayHeader(
        type=DatagramType.PROBE,
        flags=DatagramFlag.SEALED,
        hop_limit=32,
        epoch=3,
        origin=0x01020304,
        sequence=sequence_of(5, lane=2, is_probe=True),
        stream_sequence=6,
    )
    assert header.encode().hex() == "12012003" + "01020304" + "1200000000000005" + "00000006"
    assert header.nonce() == header.encode()[4:16]
    assert (header.space, header.lane) == (18, 2)


@given(
    st.sampled_from(DatagramType), st.integers(0, 255), st.integers(0, 255), st.integers(1, 0xFFFFFFFF),
    st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.binary(),
)  # fmt: skip
def test_there_and_back(
    kind: DatagramType, hop_limit: int, epoch: int, origin: int, sequence: int, stream: int, rest: bytes
) -> None:
    header = OverlayHeader(
        type=kind, hop_limit=hop_limit, epoch=epoch, origin=origin, sequence=sequence, stream_sequence=stream
    )
    assert len(header.encode()) == HEADER_BYTES
    assert decode(header.encode() + rest) == (header, memoryview(rest))


@pytest.mark.parametrize(
    "data", [b"", bytes(20), b"\x11" + bytes(18), b"\x21" + bytes(19), b"\x10" + bytes(19), b"\x14" + bytes(19)]
)
def test_no_header(data: bytes) -> None:
    with pytest.raises(WireError, match="wire_header"):
        decode(data)
