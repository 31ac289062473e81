"""Every bound of the Python side with the reason for the number (the C side's are in mp_layout.h)."""

from __future__ import annotations

PORT = 4747
"""UDP for data and TCP for control: one number, so that one firewall rule does."""

LANES_MAX = 16
"""As MP_LANES_MAX: 64 worker processes serve more cores than the TUN can feed."""

NAME_LENGTH_MAX = 63
"""A DNS label; keeps `/run/mcast-pipeline/NAME/control.sock` under the 107 bytes of a socket path."""

NODES_MAX = 1024
"""Nodes of one overlay, as MP_LINKS_MAX: a full mesh has one link to each."""

GROUPS_MAX = 65536
"""Groups with state on one node (design §8)."""

SOURCES_PER_GROUP_MAX = 1024
"""Source timers of one group: above it a report's further sources are counted and ignored."""

MESSAGE_BYTES_MAX = 1 << 20
"""One control message between nodes: 65,536 groups are sent in parts far below it."""

HELLO_INTERVAL_S = 1.0
"""Between heartbeats on a link, and between attempts on one that is down for the first time."""

LINK_TIMEOUT_S = 2.5
"""Silence after which a link is down: two heartbeats lost and a half to spare, under the 3 s promised."""

RECONNECT_INTERVAL_MAX_S = 30.0
"""Back-off of attempts on a peer that stays away: they never end, but cost next to nothing."""
