/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_lookup: the order in which the stages look up the forwarding entry of a packet.
 *
 *   host side      group     (S,G), then (*,G)
 *   overlay side   group     (origin, via), (origin), (via), then (*,G); `via` is the link that the datagram came by
 *   both sides     unicast   the destination
 *                  flood     one entry for each family
 *
 * pipeline/forwarding/lookup.py is the same order for the simulators; tests/unit/test_lookup.py compares the two.
 * It knows no flow and no cache: a stage calls it once for a flow and each version of the table.
 */
#ifndef MP_LOOKUP_H
#define MP_LOOKUP_H

#include "mp_fib.h"
#include "mp_packet.h"

/* Both return the entry's index and fill `key` (the one that matched) and `value`, or return MP_NO_ENTRY.  `value` is
 * that of stripe 0: mp_fib_stripe() finds the other stripes by `key`. */
uint32_t mp_lookup_host(const struct mp_region *r, const struct mp_packet *p, struct mp_fib_key *key,
                        struct mp_fib_value *value);
uint32_t mp_lookup_overlay(const struct mp_region *r, const struct mp_packet *p, uint32_t origin, uint32_t via,
                           struct mp_fib_key *key, struct mp_fib_value *value);

#endif
