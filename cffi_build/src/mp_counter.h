/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_counter: the counters of the stages.  One list gives the enum, the words of the command line and the metric
 * labels.
 *
 * A block of counters belongs to one (lane, stage) or to control, and has one writer.  Readers use relaxed loads and
 * never reset a counter.
 */
#ifndef MP_COUNTER_H
#define MP_COUNTER_H

#include "mp_layout.h"

/* X(name, text) */
#define MP_EVENTS(X)                                                       \
    X(tun_rx_packets, "inner packets read from the TUN")                   \
    X(tun_rx_bytes, "their bytes")                                         \
    X(tun_rx_wakeups, "times that reading found packets")                  \
    X(tun_tx_packets, "inner packets delivered into the TUN")              \
    X(tun_tx_bytes, "their bytes")                                         \
    X(tun_tx_writes, "writes they took")                                   \
    X(overlay_tx_datagrams, "datagrams sent to peers")                     \
    X(overlay_tx_bytes, "their UDP payload bytes")                         \
    X(overlay_tx_calls, "system calls they took")                          \
    X(overlay_rx_datagrams, "datagrams received")                          \
    X(overlay_rx_bytes, "their UDP payload bytes")                         \
    X(overlay_rx_calls, "system calls that found some")                    \
    X(sealed, "datagrams made from inner packets")                         \
    X(packed, "inner packets that shared a datagram with others")          \
    X(relayed, "datagrams forwarded for other nodes")                      \
    X(punted, "packets handed to control")                                 \
    X(gaps_told, "reports of missing datagrams to control")                \
    X(gaps_untold, "such reports put off, being above the limit")          \
    X(resend_asked, "datagrams that peers requested again")                \
    X(resend_refused, "of them, above the limit")                          \
    X(resent, "datagrams retransmitted from the slots of the rings")       \
    X(resent_bytes, "their UDP payload bytes")                             \
    X(sleeps, "times that the stage's process slept")                      \
    X(borrowed, "rounds that another process ran the stage meanwhile")

#define MP_DROPS(X)                                                        \
    X(truncated, "shorter than its header")                                \
    X(ip_version, "neither IPv4 nor IPv6")                                 \
    X(ip_header, "header length or extension headers do not fit")          \
    X(ip_length, "the header's length is not the packet's")                \
    X(ip_checksum, "wrong IPv4 header checksum")                           \
    X(ip_source, "source address is no unicast address")                   \
    X(too_big, "does not fit a slot or a datagram")                        \
    X(node_scope, "IPv6 group that never leaves a host")                   \
    X(not_overlay, "unicast to no node of the overlay")                    \
    X(no_member, "group without a member elsewhere")                       \
    X(no_key, "no sender key yet: control is starting")                    \
    X(punt_limit, "more packets for control than the limit")               \
    X(report_limit, "more membership reports than the limit")              \
    X(restart_skip, "under way in a stage that died")                      \
    X(send_blocked, "the socket buffer stayed full")                       \
    X(send_failed, "the kernel refused to send")                           \
    X(wire_header, "no datagram of this protocol version")                 \
    X(own_origin, "own datagram came back")                                \
    X(unknown_origin, "sender or key epoch not known")                     \
    X(authentication, "tag does not verify")                               \
    X(replay, "seen before or older than the window")                      \
    X(inner, "malformed packet inside a datagram")                         \
    X(hop_limit, "relayed too often")                                      \
    X(not_wanted, "arrived for a group without local member or relay")     \
    X(relay_full, "overlay ring full, not relayed")                        \
    X(tun_write, "the kernel refused the packet on the TUN")               \
    X(group_denied, "group not allowed by send_* or receive_* lists")      \
    X(foreign_source, "source address is not the sending node's")          \
    X(group_rate, "above the rate of its group")                           \
    X(peer_rate, "above the rate of its peer")                             \
    X(unicast_denied, "unicast that [security] unicast does not allow")    \
    X(stray_echo, "echo that answers no probe to its endpoint")            \
    X(probe_budget, "probe put off: too many have no answer")

enum mp_counter_id {
#define MP_NAME(name, text) MP_COUNT_##name,
    MP_EVENTS(MP_NAME)
#undef MP_NAME
#define MP_NAME(name, text) MP_DROP_##name,
    MP_DROPS(MP_NAME)
#undef MP_NAME
    MP_COUNTERS
};
#define MP_FIRST_DROP ((uint32_t)MP_DROP_truncated)
_Static_assert(MP_COUNTERS <= MP_COUNTER_SLOTS, "room in a block");

static inline struct mp_counters *mp_counters(const struct mp_region *r, uint32_t lane, uint32_t stage)
{
    return (struct mp_counters *)mp_at(r, r->counters_at) + lane * MP_STAGES + stage;
}

static inline struct mp_counters *mp_control_counters(const struct mp_region *r)
{
    return mp_counters(r, r->geometry.lanes, 0);
}

/* Add to a counter.  Only one process adds, so load and store need not be one step. */
static inline void mp_count_in(_Atomic uint64_t *value, uint64_t n)
{
    atomic_store_explicit(value, atomic_load_explicit(value, memory_order_relaxed) + n, memory_order_relaxed);
}

static inline void mp_count(struct mp_counters *c, uint32_t which, uint64_t n)
{
    mp_count_in(&c->value[which], n);
}

/* Return the word of a counter, and its meaning; NULL past the last counter. */
const char *mp_counter_name(uint32_t which);
const char *mp_counter_text(uint32_t which);

/* Return the sum of a counter over all lanes, all stages and control; a `lane` or `stage` in bounds limits it to
 * that. */
uint64_t mp_counter_sum(const struct mp_region *r, uint32_t which, uint32_t lane, uint32_t stage);

#endif
