"""IP headers.  Goal: headers of membership packets are built and parsed by the RFCs, and hostile bytes raise WireError
only.

Method: scapy builds and dissects the other side; hypothesis cuts packets and changes bytes.
"""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP, IPOption_NOP, IPOption_Router_Alert
from scapy.layers.inet6 import (
    ICMPv6MLQuery,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    RouterAlert,
)
from scapy.utils import checksum as scapy_checksum

from pipeline.address import parse as address
from pipeline.errors import WireError
from pipeline.wire import ip

V4 = {"src": "10.77.0.1", "dst": "224.0.0.22"}
V6 = {"src": "fe80::1", "dst": "ff02::16"}


def refusal(packet: bytes) -> str:
    with pytest.raises(WireError) as caught:
        ip.parse(packet)
    return str(caught.value)


@given(st.binary(max_size=200))
def test_checksum_agrees_with_scapy(data: bytes) -> None:
    """Goal: RFC 1071.  Method: scapy's function; a sum of zero has two representations."""
    ours = ip.checksum(data)
    assert ours == scapy_checksum(data) or {ours, scapy_checksum(data)} == {0, 0xFFFF}


@given(st.binary(min_size=2, max_size=100).map(lambda data: b"\x11" + data))
def test_checksum_is_accepted_and_a_changed_bit_is_not(data: bytes) -> None:
    """Goal: a message with the checksum is accepted, also with an odd length, and one with a changed bit is not."""
    blank = data[:2] + b"\0\0" + data[2:]
    message = blank[:2] + ip.checksum(blank).to_bytes(2, "big") + blank[4:]
    assert ip.checksum_holds(message)
    flipped = bytes([message[0] ^ 4]) + message[1:]
    assert not ip.checksum_holds(flipped)
    assert not ip.checksum_holds(bytes(8))


def test_scapy_parses_the_ipv4_packet() -> None:
    """Goal: TTL 1, TOS 0xc0, Router Alert, right lengths and checksum (RFC 9776 §4).  Method: scapy dissects it."""
    packet = ip.build_v4(source=address("10.77.255.254"), destination=address("224.0.0.1"), payload=b"12345678")
    seen = IP(packet)
    assert (seen.ttl, seen.tos, seen.proto, seen.ihl, seen.len) == (1, 0xC0, 2, 6, 32)
    assert [type(option) for option in seen.options] == [IPOption_Router_Alert]
    assert scapy_checksum(packet[:24]) == 0
    parsed = ip.parse(packet)
    assert parsed == ip.IpPacket(address(seen.src), address(seen.dst), 1, 2, True, b"12345678")


def test_scapy_parses_the_ipv6_packet() -> None:
    """Goal: hop limit 1, Router Alert in a hop-by-hop header (RFC 9777 §5).  Method: scapy dissects it."""
    packet = ip.build_v6(source=address("fe80::1"), destination=address("ff02::1"), payload=b"12345678")
    seen = IPv6(packet)
    assert (seen.hlim, seen.nh, seen.plen) == (1, 0, 16)
    assert seen[IPv6ExtHdrHopByHop].nh == 58
    alerts = [option for option in seen[IPv6ExtHdrHopByHop].options if isinstance(option, RouterAlert)]
    assert [alert.value for alert in alerts] == [0]
    parsed = ip.parse(packet)
    assert parsed == ip.IpPacket(address("fe80::1"), address("ff02::1"), 1, 58, True, b"12345678")


def test_router_alert_is_found_among_ipv4_options() -> None:
    """Goal: the option is found behind others, and its absence noticed."""
    with_more = (
        IP(**V4, proto=2, ttl=1, options=[IPOption_NOP(), IPOption_NOP(), IPOption_Router_Alert()]) / b"abcdefgh"
    )
    assert ip.parse(bytes(with_more)).router_alert
    assert not ip.parse(bytes(IP(**V4, proto=2, ttl=1) / b"abcdefgh")).router_alert


def test_message_is_found_behind_extension_headers() -> None:
    """Goal: extension headers are skipped; a Router Alert with another value than MLD's is not one."""
    packet = IPv6(**V6, hlim=1) / IPv6ExtHdrHopByHop(options=[RouterAlert()]) / IPv6ExtHdrDestOpt() / ICMPv6MLQuery()
    parsed = ip.parse(bytes(packet))
    assert (parsed.protocol, parsed.router_alert, parsed.payload[0]) == (58, True, 130)
    rsvp = IPv6(**V6, hlim=1) / IPv6ExtHdrHopByHop(options=[RouterAlert(value=1)]) / ICMPv6MLQuery()
    assert not ip.parse(bytes(rsvp)).router_alert


def test_octets_after_the_length_are_cut_off() -> None:
    """Goal: padding of a link layer is not part of the packet."""
    packet = bytes(IP(**V4, proto=2) / b"abcdefgh")
    assert ip.parse(packet + b"padding").payload == b"abcdefgh"
    packet6 = ip.build_v6(source=address("fe80::1"), destination=address("ff02::1"), payload=b"12345678")
    assert ip.parse(packet6 + b"padding").payload == b"12345678"


V4_PLAIN = bytes(IP(**V4, proto=2, ttl=1) / b"abcdefgh")


def with_checksum(header: bytes, rest: bytes = b"") -> bytes:
    blank = header[:10] + b"\0\0" + header[12:]
    return blank[:10] + ip.checksum(blank).to_bytes(2, "big") + blank[12:] + rest


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"", "ip_truncated"),
        (b"\x50" + bytes(40), "ip_version"),
        (V4_PLAIN[:19], "ip_truncated"),
        (V4_PLAIN[:-1], "ip_truncated"),
        (b"\x44" + V4_PLAIN[1:], "ip_header"),
        (V4_PLAIN[:2] + b"\x00\x10" + V4_PLAIN[4:], "ip_header"),
        (V4_PLAIN[:8] + b"\x07" + V4_PLAIN[9:], "ip_checksum"),
        (bytes(IP(**V4, proto=2, flags="MF") / UDP()), "ip_fragment"),
        (bytes(IP(**V4, proto=2, frag=3) / b"abcdefgh"), "ip_fragment"),
        (with_checksum(b"\x46" + V4_PLAIN[1:20] + b"\x94\x00\x00\x00", b"abcdefgh")[:28], "ip_options"),
        (with_checksum(b"\x46" + V4_PLAIN[1:20] + b"\x94\x05\x00\x00", b"abcdefgh")[:28], "ip_options"),
        (with_checksum(b"\x46" + V4_PLAIN[1:20] + b"\x01\x01\x01\x07", b"abcdefgh")[:28], "ip_options"),
        (bytes(IPv6(**V6))[:39], "ip_truncated"),
        (bytes(IPv6(**V6, plen=9) / b"abcdefgh"), "ip_truncated"),
        (bytes(IPv6(**V6) / IPv6ExtHdrFragment(m=1) / b"abcdefgh"), "ip_fragment"),
        (bytes(IPv6(**V6, nh=0) / b"\x3a\x05"), "ip_truncated"),
        (bytes(IPv6(**V6, nh=0) / (b"\x3a\x05" + bytes(14))), "ip_truncated"),
        (bytes(IPv6(**V6, nh=0) / (b"\x3a\x00\x05\x09" + bytes(4))), "ip_options"),
        (bytes(IPv6(**V6, nh=0) / (b"\x3a\x00\x01\x03\x00\x00\x00\x05")), "ip_options"),
        (bytes(IPv6(**V6, nh=60) / (b"\x00\x00" + bytes(6) + b"\x3a\x00" + bytes(6))), "ip_header"),
        (bytes(IPv6(**V6, nh=60) / ((b"\x3c\x00" + bytes(6)) * 20)), "ip_header"),
    ],
)
def test_malformed_header_has_a_drop_reason(packet: bytes, reason: str) -> None:
    """Goal: each fault has its reason.  Method: packets with one fault each."""
    assert refusal(packet) == reason


@given(st.data())
def test_hostile_bytes_raise_wire_errors_only(data: st.DataObject) -> None:
    """Goal: no bytes raise another exception.  Method: valid packets, cut and overwritten anywhere."""
    good = data.draw(
        st.sampled_from(
            [
                ip.build_v4(source=address("10.0.0.1"), destination=address("224.0.0.1"), payload=bytes(12)),
                ip.build_v6(source=address("fe80::1"), destination=address("ff02::1"), payload=bytes(28)),
            ]
        )
    )
    packet = bytearray(good[: data.draw(st.integers(0, len(good)))])
    for _ in range(data.draw(st.integers(0, 4))):
        if packet:
            packet[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(WireError):
        ip.parse(bytes(packet))
