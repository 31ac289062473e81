"""Bounds and intervals of the Python side, each with the reason for its number.  Those of C are in mp_layout.h."""

from __future__ import annotations

PORT = 4747
"""UDP port of data and TCP port of control: one number, so that one firewall rule is enough."""

LANES_MAX = 16
"""Lanes of one node, as MP_LANES_MAX: 64 worker processes use more cores than the TUN can feed."""

NAME_LENGTH_MAX = 63
"""Length of a DNS label.  The path `/run/mcast-pipeline/NAME/control.sock` stays under the 107 bytes of a socket."""

NODES_MAX = 1024
"""Nodes of one overlay, as MP_LINKS_MAX: a full mesh has one link to each."""

GROUPS_MAX = 65536
"""Groups with state on one node; users may rely on this number."""

SOURCES_PER_GROUP_MAX = 1024
"""Source timers of one group; further sources of a report are counted and ignored."""

MESSAGE_BYTES_MAX = 1 << 20
"""Size of one control message between nodes.  65,536 groups are sent in parts far below it."""

CONNECTION_SHARE, ADDRESS_SHARE, NODE_SHARE, PEERS_SHARE = 0.1, 0.2, 0.1, 0.5
"""Shares of control's time that one connection, all connections from one address, all connections of one node, and all
peers together may take.  A peer that does its duty takes less than 0.001.  Behind an address translator there may be
many."""

CONNECTION_BURST_S, ADDRESS_BURST_S, NODE_BURST_S, PEERS_BURST_S = 20.0, 40.0, 20.0, 5.0
"""Time of control that each of them may take at once.  65,536 groups of a peer take 4.5 s when they are joined and
2.5 s when they are left, a full directory 0.2 s (perf/message_cost.py).  With 5 s for a connection a second join of all
groups was beyond the budget: its messages were repeated, took 14 s, and arrived after 25 s."""

BUDGETS_MAX = 2 * NODES_MAX
"""Connections, addresses and nodes with a budget of their own.  One that is evicted gets a new burst; the budget of all
peers remains."""

DELAYED_MESSAGES_MAX = 64
"""Messages of one connection that wait for its budget.  All of 65,536 groups are some ten messages, a full directory
four."""

DELAYED_BYTES_MAX, DELAYED_OVERHEAD_BYTES = 64 << 20, 1024
"""Memory of all messages that wait, and that of one without its content."""

MESSAGE_COST_MIN_S = 1e-4
"""Least cost of a message, so that a connection may send 1,000 a second.  A peer sends a Heartbeat a second and one
message for each change."""

TURN_S = 0.02
"""Time that control spends on peers' messages and their outputs before it serves requests of this host and punts."""

HELLO_INTERVAL_S = 0.75
"""Time between heartbeats on a link, and between attempts on a link that is down for the first time."""

PROBED_HEARTBEAT_S, HEARTBEATS_PER_S = 5.0, 20.0
"""Time between heartbeats on a link with answered probes, which show each second at a tenth of the cost that the peer
is alive.  With hundreds of peers the time grows, so that all heartbeats together stay below the second number."""

PROBES_TRUSTED_S = 1.4
"""Time after an answered probe in which heartbeats may be rare.  The next probe may be late, and still the next
heartbeat arrives before the peer, which uses the same values, takes the link down."""

PROBES_AGE_S = 0.5
"""Time between two evaluations of the probes."""

PROBES_LOSS_MAX = 0.05
"""Loss above which probes do not replace heartbeats: the control link then shows each second that the peer is alive."""

LINK_TIMEOUT_S = 2.5
"""Silence after which a link is down: two lost heartbeats and a late third one, and less than the promised 3 s."""

ANSWER_EXPECTED_S = 10.0
"""Time after which a configured peer that has not answered is reported; nodes that start together need less."""

RECONNECT_INTERVAL_MAX_S = 30.0
"""Longest time between attempts on a peer that stays away.  The attempts never end, but cost next to nothing."""

LOCAL_MESSAGE_BYTES_MAX = 64 << 20
"""Size of one reply to the command line: `show groups` of 65,536 groups has some 10 MB."""

ENDPOINT_LENGTH_MAX = 64
"""Length of an endpoint's text: "[", 45 characters of an IPv6 address and "]:65535" are 53."""

ADDRESSES_PER_NODE_MAX = 16
"""Overlay addresses of one node in a record.  A node of this version has at most one for each family."""

RECORDS_PER_MESSAGE_MAX = 256
"""Node records in one message, of some 200 bytes each: a directory of 1,024 nodes takes four messages."""

MESSAGE_WINDOW = 256
"""Numbers of a peer's messages that may overtake each other: those of a moment in which a second connection is made."""

GREETING_INTERVAL_S = 0.05
"""Time between two replies to Greetings of one node, which anybody can repeat; half the time of the first attempts."""

GREETINGS_PER_S = 100
"""Greetings of this node in reply to messages for another node, or of nodes that it does not know."""

REPORTED_ENDPOINTS_MAX = 8
"""Endpoints of one silent peer that other nodes report and that are tried in turn.  One member that lies fills one."""

LEADS_MAX = 16
"""Endpoints reported by nodes of protocol 1 that are greeted at a time.  The first node that answers sends
all others."""

LEAD_ATTEMPTS_MAX, LEAD_INTERVAL_S = 3, 0.5
"""Greetings to such an endpoint: the first one is lost, as it only makes the connection."""

PINS_MAX = 4 * NODES_MAX
"""Identities whose names are pinned: all nodes of an overlay and as many again that have left it, some 400 kB."""

RECORD_BYTES_MAX = 4096
"""Size of the signed part of a record: some 300 bytes, and a certificate."""

CERTIFICATE_BYTES_MAX = 2048
"""Size of a certificate: 64 addresses and prefixes, and room for a hundred groups."""

REVOCATION_LIST_BYTES_MAX = 256 << 10
"""Size of a revocation list: 4,096 nodes of 32 bytes and their reasons."""

REFUSAL_DETAIL_MAX = 200
"""Characters of a reason that another node gives: one line of the log."""

SEEDS_MAX = 64
"""Configured peers (`--peer`) of one node.  One that answers is enough: the node learns the others from it."""

RECONNECT_INTERVAL_MIN_S = 0.1
"""Time between the first attempts on a peer, so that two nodes that start together are linked well within 1 s."""

FORGERY_RENEWAL_INTERVAL_S = 10.0
"""Time between two renewals of the sender key because of forged datagrams.  Each sends the node's record to every peer
three times, and a member can cause them at will."""

RECONNECT_SHARE = 0.25
"""Time between later attempts as a share of the peer's absence, which becomes at most a quarter longer by it."""

NODE_FORGET_S = 120.0
"""Time for which the record of an unreachable node is kept, and after that a tombstone that keeps it from returning."""

RESTORE_STEP = 1 << 20
"""Increase of versions and message numbers after a restart of control: more than were used since the checkpoint."""

INCARNATION_MAX = 1 << 53
"""Largest incarnation, which is the start time in ms since 1970.  No clock reaches it; a larger one in a message could
only serve to make a node's own incarnation overflow."""

DIRECTORY_SYNC_INTERVAL_S = 0.2
"""Time between two directory exchanges that a node begins, so that a hundred peers with other records do not cause a
hundred exchanges at once."""

NAME_TAKEN_S = 3 * LINK_TIMEOUT_S
"""Time of refusals after which a node's name counts as taken: by then its own previous process is no longer linked."""

NODE_ID_ATTEMPTS_MAX = 64
"""Attempts to find a free node id.  With 1,024 nodes in 2^32 ids, one node in four million needs the second."""

ADDRESS_ATTEMPTS_MAX = 4096
"""Attempts to find a free derived address.  1,024 nodes use 1.6 % of 10.77.0.0/16, so a few always suffice."""

ENGINE_SYNC_INTERVAL_S = 0.75
"""Time between an engine's repeated messages to a peer after a change.  A lost message is replaced within two of these
intervals, in less than 2 s."""

ENGINE_SYNC_INTERVAL_MAX_S, ENGINE_SYNCS_PER_S = 12.0, 20.0
"""Longest such interval, which doubles while nothing changes, as in Trickle (RFC 6206).  With hundreds of peers it
grows further, so that all messages together stay below the second number."""

ENGINE_MESSAGE_BYTES_MAX = 128 << 10
"""Size at which an engine splits a message: 2,000 groups fit into one, 65,536 into some ten."""

ENGINE_BODY_BYTES_MAX = ENGINE_MESSAGE_BYTES_MAX + 1024
"""Size of an engine's message with what the split does not count.  Control handles one message without a break: one of
1 MiB would take 4 s."""

TOMBSTONES_MAX = 16384
"""Deleted keys that a replicated map keeps for peers that have missed the deletion.  A peer that is further behind
receives the whole map again."""

REPLICA_WEIGHT_MAX = 2 * GROUPS_MAX + 1024
"""Keys of one peer's replicated map: its groups and those to which it sends.  Four bytes of a value weigh as a key."""

REPLICAS_WEIGHT_MAX = 1 << 19
"""Weight of all peers' maps together: 1,024 nodes that join and send to 256 groups each, some 500 MB in control."""

REPLICA_VALUE_BYTES_MAX = 16 * SOURCES_PER_GROUP_MAX + 1
"""Size of a value: a source filter of SOURCES_PER_GROUP_MAX IPv6 addresses."""

STRIPES_MAX = 8
"""Trees that the packets of one stream can take in turn.  A Nemo crew has 3; the Nemo paper tries up to 4."""

STREAMS_MAX = 65535
"""Stream numbers of one node: MP_STREAMS without the shared stream 0."""

LOG_SUBJECT_BURST, LOG_SUBJECT_INTERVAL_S = 10, 60.0
"""Log lines of one kind about one peer: all its honest changes, but 1,440 a day of a link that always flaps."""

LOG_KIND_BURST, LOG_KIND_INTERVAL_S = 128, 2.0
"""Log lines of one kind about all peers: a network of 64 nodes that goes and returns, and its half once more.  A kind
has at most 43,200 lines a day, some 8 MB."""

LOG_SUMMARY_S = 60.0
"""Time for which lines that are not written are summed up in one line."""

LOG_KINDS_MAX = 256
"""Kinds of log lines with a limit of their own; the program has some forty."""

LOG_SUBJECTS_MAX = 2 * NODES_MAX
"""Limits of single peers that are kept: a link of each node that goes up and down.  One that is evicted is full again,
and the limit of its kind remains."""

LOG_SUMMARY_SUBJECTS_MAX = 64
"""Peers that are counted for a summary, which names the one with the most lines."""

TIME_MAX = 253_402_300_799
"""Latest time in certificates, in seconds since 1970: the end of the year 9999, the last with a date of four digits."""

CERTIFICATE_BYTES_MAX = 2048
"""Size of a certificate: most have 250 bytes, and the largest that the fields of this version allow has 1,700.
RECORDS_PER_MESSAGE_MAX of them are half a message of MESSAGE_BYTES_MAX."""

CERTIFICATE_PREFIXES_MAX = 16
"""Networks behind a node, and ranges of groups, in its certificate: a host routes for a few LANs."""

CERTIFICATE_GRACE_S = 24 * 3600
"""Time for which a certificate is accepted before and after its period.  A clock in local time instead of UTC is 14 h
wrong at the most, and a renewal may be a working day late.  A node that must leave at once is revoked."""

REVOCATIONS_MAX = 2 * NODES_MAX
"""Entries of a revocation list: every node of the largest overlay twice within the lifetime of its certificates."""

REVOCATION_REASON_LENGTH_MAX = 64
"""Length of the reason of a revocation: a few words for `authority list`."""

REVOCATION_LIST_BYTES_MAX = 256 << 10
"""Size of a revocation list: REVOCATIONS_MAX entries of 119 bytes, the largest, are 244 kB.  That is a quarter of a
message of MESSAGE_BYTES_MAX."""

REVOCATION_KEPT_S = 30 * 24 * 3600
"""Time for which a revocation stays in the list after the last certificate that it concerns has expired.  Nodes whose
clocks are that far behind do not accept an excluded node again."""

REGISTER_CERTIFICATES_MAX = 16 * NODES_MAX
"""Certificates in the register of an authority: every node of the largest overlay, renewed once a month.  The file has
some 6 MB then."""

DIALS_MAX, DIALS_REFILL_S = 8, 15.0
"""Connections to endpoints that have not answered, and the time after which one of them gives its place to another.
One sends some 400 bytes at the most: a few SYN, or a handshake that ends.  So 12 in the worst minute send 5 kB, and
with the probes of mp_probe.h strangers get 10 kB a minute at the most."""

DIALS_PER_REPORTER = 6
"""Of them, those to endpoints in records from one host: another host's records have places too."""

DIALS_PER_HOST = 32
"""Connections to endpoints on one host that has connected to this node and so is no stranger; one more each second."""

DIAL_ANSWER_S = 2.0
"""Time after which a connection that nobody has answered is closed, as long as ZeroMQ's handshake may take."""

DIAL_WAIT_S, DIAL_WAIT_MAX_S = 0.5, 300.0
"""Time from then to the next connection to the same endpoint; it doubles with each that fails."""
