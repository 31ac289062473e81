/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_unicast: which unicast between overlay addresses passes, where [security] unicast limits it.
 *
 *                       all, with ports   discovery                    none
 *   to this host
 *     UDP               ports             ports, ports of queries      ports
 *     TCP               ports             ports                        ports
 *     ICMP errors       yes               yes                          yes         path MTU discovery needs them
 *     ICMP echo         yes               yes                          no
 *     other ICMP        yes               no                           no
 *     other protocols   no                no                           no
 *     later fragments   yes               yes                          with ports  see below
 *   from this host      all               all                          from ports, ICMP errors, later fragments
 *
 * Ports are those of [security] unicast_ports, and always ports of this host.  A query is a UDP packet that a local
 * program sends to a group: for MP_QUERY_NS every node may reply by UDP to its source address and port.  What this host
 * sends is its programs' matter, except with `none`: each receiver has a policy of its own, and a program must be able
 * to reply to the queries of other nodes.
 *
 * A fragment behind the first has no ports.  It passes, because without its first fragment no program gets it.  It
 * cannot replace the ports either: they are in the first eight bytes, which only a first fragment has.
 *
 * The open queries are a table of words in shared memory, which the classify stages of all lanes write and their
 * overlay_ingress stages read, each word by one atomic access: the time of a query and a name.  The source address
 * and the port choose MP_QUERY_WAYS words and the name together, so no other port has both.  Names of two addresses of
 * this host agree by a chance of 2^-26.  A new query takes the word that was renewed longest ago.
 */
#ifndef MP_UNICAST_H
#define MP_UNICAST_H

#include "mp_policy.h"

#define MP_QUERY_NS UINT64_C(30000000000) /* SSDP replies within 5 s, WS-Discovery within 10; queries repeat each 20 */
#define MP_QUERY_WAYS 4u
_Static_assert(MP_QUERIES % MP_QUERY_WAYS == 0 && MP_QUERIES / MP_QUERY_WAYS == 1024, "ten bits of a port");

/* Return the verdict on a packet that a local program sends, of a flow with MP_EACH_PACKET: 0 or the drop counter.  One
 * to a group opens a query. */
uint32_t mp_unicast_sends(const struct mp_policy *policy, const struct mp_region *r, const uint8_t *bytes,
                          const struct mp_packet *p, uint64_t now_ns);

/* Return the verdict on a unicast packet to this host: 0 or the drop counter. */
uint32_t mp_unicast_delivers(const struct mp_policy *policy, const struct mp_region *r, const uint8_t *bytes,
                             const struct mp_packet *p, uint64_t now_ns);

#endif
