/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_policy: lists of allowed groups, source addresses of nodes, unicast, and rates.
 *
 * Lists and rates are a worker's own copy of the configuration.  Control writes the source addresses of each node
 * into the forwarding table (MP_KIND_SOURCE).  The verdict on a flow is found once and cached with its look-up.  Only
 * rates are checked for each datagram, by one compare-and-swap each, and only where they are set.
 *
 * It drops nothing itself: a verdict is 0, a drop counter, or MP_EACH_PACKET.
 */
#ifndef MP_POLICY_H
#define MP_POLICY_H

#include "mp_packet.h"

#define MP_PREFIXES_MAX 64u     /* of a list, which is written by hand */
#define MP_RATE_SLOTS 16384u    /* groups with the same hash share a rate: rare with so many slots */
_Static_assert(3u * MP_RATE_SLOTS == MP_RATES && MP_RATE_SLOTS >= MP_LINKS_MAX, "a slot for each link");
#define MP_RATE_BURST_NS UINT64_C(1000000000) /* an idle sender may send the packets of one second at once */

struct mp_prefix {
    uint8_t address[16];        /* IPv4 as ::ffff:a.b.c.d */
    uint8_t bits;               /* of the 128 */
};

struct mp_prefixes {            /* an empty allow list allows all groups */
    uint32_t count;
    struct mp_prefix prefix[MP_PREFIXES_MAX];
};

enum mp_unicast { MP_UNICAST_ALL, MP_UNICAST_DISCOVERY, MP_UNICAST_NONE };    /* [security] unicast */

struct mp_policy {              /* all zero: everything is allowed */
    struct mp_prefixes send_allow, send_deny, receive_allow, receive_deny;
    uint32_t bound_sources;     /* the source address of a packet must belong to the node that sends it */
    uint32_t peer_pps;          /* datagrams a second of one peer, 0: no limit */
    uint32_t send_pps, receive_pps; /* packets sent, datagrams received a second of one group, 0: no limit */
    uint32_t unicast;           /* enum mp_unicast */
    uint32_t has_unicast_ports; /* any bit of unicast_port is set */
    uint8_t unicast_port[8192]; /* bit n % 8 of byte n / 8: port n of this host can be reached */
};

/* ---- verdicts: 0 or the drop counter ---- */

#define MP_EACH_PACKET UINT32_MAX /* the packets of the flow have different verdicts: mp_unicast.h */

/* Return the verdict on a packet that a local program sends. */
uint32_t mp_policy_sends(const struct mp_policy *policy, const struct mp_region *r, const struct mp_packet *p);

/* Return the verdict on a packet from `origin` by its source address: whether it is delivered or relayed at all. */
uint32_t mp_policy_passes(const struct mp_policy *policy, const struct mp_region *r, const struct mp_packet *p,
                          uint32_t origin);

/* Return the verdict on its delivery to this host by its group. */
uint32_t mp_policy_delivers(const struct mp_policy *policy, const struct mp_packet *p);

/* ---- rates, shared by all lanes: the generic cell rate algorithm (ITU-T I.371), a token bucket in one word ---- */

enum mp_rate_kind { MP_RATE_SEND, MP_RATE_RECEIVE, MP_RATE_PEER };

/* Return the rate slot of a group.  The slot of a peer is its link. */
uint32_t mp_rate_slot(const struct mp_region *r, const uint8_t group[16]);

/* Take one of `pps` tokens a second.  Returns 0 if there is none; always 1 if pps is 0. */
int mp_rate_take(const struct mp_region *r, enum mp_rate_kind kind, uint32_t slot, uint32_t pps, uint64_t now_ns);

#endif
