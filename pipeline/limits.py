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

MESSAGES_PER_S, MESSAGE_BURST = 1000, 10_000
"""Control messages of one peer: a Heartbeat a second, one a change, and all of 65,536 groups are some hundred."""

HELLO_INTERVAL_S = 0.75
"""Between heartbeats on a link, and between attempts on one that is down for the first time."""

PROBED_HEARTBEAT_S, HEARTBEATS_PER_S = 5.0, 20.0
"""Between heartbeats on a link whose probes are answered, which says as much each second at a tenth of the cost; with
hundreds of peers so rarely that all together are no more than this."""

PROBES_TRUSTED_S = 1.4
"""So long after an answered probe was seen heartbeats may be rare: one more may be late, and the next heartbeat comes
before the peer, who sees the same, gives this node up."""

PROBES_AGE_S = 0.5
"""Between looks at what the probes have shown."""

PROBES_LOSS_MAX = 0.05
"""On a path that loses more the word of the control link is wanted each second."""

LINK_TIMEOUT_S = 2.5
"""Silence after which a link is down: two heartbeats lost and the third late, under the 3 s promised."""

ANSWER_EXPECTED_S = 10.0
"""A given peer that has not answered for so long is told of: nodes that are started together need less."""

RECONNECT_INTERVAL_MAX_S = 30.0
"""Back-off of attempts on a peer that stays away: they never end, but cost next to nothing."""

LOCAL_MESSAGE_BYTES_MAX = 64 << 20
"""One answer to the command line: `show groups` of 65,536 groups is some 10 MB."""

ENDPOINT_LENGTH_MAX = 64
""""[" + 45 characters of IPv6 + "%" and an interface's 15 + "]:65535" never need more."""

ADDRESSES_PER_NODE_MAX = 16
"""Overlay addresses of one node: one for each family, and room for those who number by hand."""

RECORDS_PER_MESSAGE_MAX = 256
"""Of some 200 bytes each: a directory of 1,024 nodes travels in four messages."""

SEEDS_MAX = 64
"""`--peer`s of one node: one that answers is enough, the rest is learnt from it."""

RECONNECT_INTERVAL_MIN_S = 0.1
"""Between the first attempts on a peer: two nodes started together are linked well within 1 s."""

RECONNECT_SHARE = 0.25
"""Wait this share of the time that a peer has been away: it is back after at most a quarter of its absence more."""

NODE_FORGET_S = 120.0
"""How long the record of a node that nobody reaches is kept (and afterwards kept from coming back by gossip)."""

RESTORE_STEP = 1 << 20
"""Versions and message numbers jump by this after a restart of control: more than were used since the checkpoint."""

INCARNATION_MAX = 1 << 53
"""Milliseconds since 1970: no clock says so.  Who claims it wants to make a node's own count overflow."""

DIRECTORY_SYNC_INTERVAL_S = 0.2
"""Between two directory exchanges that a node begins: a hundred peers that disagree with it do not cost a hundred."""

NAME_TAKEN_S = 3 * LINK_TIMEOUT_S
"""A node refused for so long because of its name has a living namesake, not a dead former self."""

NODE_ID_ATTEMPTS_MAX = 64
"""Tries to find a free node id: with 1,024 nodes in 2^32 ids the second is already one in four million."""

ADDRESS_ATTEMPTS_MAX = 4096
"""Tries to find a free derived address: 1,024 nodes take 1.6 % of 10.77.0.0/16, so a few always do."""

ENGINE_SYNC_INTERVAL_S = 0.75
"""Between an engine's messages to a peer that repeat what has just changed: what was lost is repaired within two of
them, under 2 s."""

ENGINE_SYNC_INTERVAL_MAX_S, ENGINE_SYNCS_PER_S = 12.0, 20.0
"""The interval doubles up to this while nothing changes, as in Trickle (RFC 6206); with hundreds of peers until all
together are sent no more than so many."""

ENGINE_MESSAGE_BYTES_MAX = 128 << 10
"""At which an engine splits what it has to say: 2,000 groups fit into one, 65,536 into some ten."""

TOMBSTONES_MAX = 16384
"""Deleted keys that a replicated map remembers for those who missed it; who is further behind gets all of it anew."""

REPLICA_WEIGHT_MAX = 2 * GROUPS_MAX + 1024
"""Keys of one peer's replicated map, its groups and those it publishes to; four bytes of a value weigh as much."""

REPLICAS_WEIGHT_MAX = 1 << 19
"""Of all peers together: 1,024 nodes with 256 groups each that they want and send to; some 500 MB in control."""

REPLICA_VALUE_BYTES_MAX = 16 * SOURCES_PER_GROUP_MAX + 1
"""A source filter of SOURCES_PER_GROUP_MAX IPv6 addresses."""

STRIPES_MAX = 8
"""Trees that the packets of one stream can take in turn: a Nemo crew has 3, the paper tries up to 4."""

STREAMS_MAX = 65535
"""As MP_STREAMS less the shared stream 0."""
