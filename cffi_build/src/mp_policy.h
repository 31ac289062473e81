/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_policy: who may send what: lists of groups, source addresses that belong to nodes, rates.
 *
 * The lists and rates are a worker's own copy of the configuration; which address belongs to which node stands in the
 * forwarding table (MP_KIND_SOURCE), written by control.  Verdicts on a flow are asked for once and kept with the flow's
 * look-up; only the rates are asked for every datagram, one compare-and-swap each, and only where they are set.
 *
 * It drops nothing itself: a verdict is 0 or the drop counter.
 */
#ifndef MP_POLICY_H
#define MP_POLICY_H

#include "mp_packet.h"

#define MP_PREFIXES_MAX 64u     /* of a list: what people write by hand */
#define MP_RATE_SLOTS 16384u    /* groups share a rate if their hashes meet: the more of them, the rarer */
_Static_assert(3u * MP_RATE_SLOTS == MP_RATES && MP_RATE_SLOTS >= MP_LINKS_MAX, "a slot for each link");
#define MP_RATE_BURST_NS UINT64_C(1000000000) /* who has been silent may send a second's worth at once */

struct mp_prefix {
    uint8_t address[16];        /* IPv4 as ::ffff:a.b.c.d */
    uint8_t bits;               /* of the 128 */
};

struct mp_prefixes {            /* count 0 in a list of what is allowed: everything is */
    uint32_t count;
    struct mp_prefix prefix[MP_PREFIXES_MAX];
};

struct mp_policy {              /* all zero: everything is allowed */
    struct mp_prefixes send_allow, send_deny, receive_allow, receive_deny;
    uint32_t bound_sources;     /* a packet's source address must belong to the node that sends it */
    uint32_t peer_pps;          /* datagrams a second of one peer, 0: no limit */
    uint32_t send_pps, receive_pps; /* the same of one group: datagrams sent, received; packets and those of link scope */
};

/* ---- verdicts: 0 or the drop counter ---- */

/* Of a packet that a local program sends. */
uint32_t mp_policy_sends(const struct mp_policy *policy, const struct mp_region *r, const struct mp_packet *p);

/* Of a packet that came from `origin`: may it pass at all, by its source? */
uint32_t mp_policy_passes(const struct mp_policy *policy, const struct mp_region *r, const struct mp_packet *p,
                          uint32_t origin);

/* May it be delivered to this host, by its group? */
uint32_t mp_policy_delivers(const struct mp_policy *policy, const struct mp_packet *p);

/* ---- rates, shared by all lanes: the generic cell rate algorithm (ITU-T I.371), a token bucket in one word ---- */

enum mp_rate_kind { MP_RATE_SEND, MP_RATE_RECEIVE, MP_RATE_PEER };

/* The place of a group's rate; of a peer's it is the link. */
uint32_t mp_rate_slot(const struct mp_region *r, const uint8_t group[16]);

/* Takes one of `pps` tokens a second.  1, or 0 if there is none; always 1 if pps is 0. */
int mp_rate_take(const struct mp_region *r, enum mp_rate_kind kind, uint32_t slot, uint32_t pps, uint64_t now_ns);

#endif
