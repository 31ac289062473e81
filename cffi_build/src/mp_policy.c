/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_policy: lists, sources, unicast and rates.  See mp_policy.h.
 */
#include "mp_policy.h"

#include "mp_fib.h"

/* ---- lists ---- */

static int is_within(const uint8_t address[16], const struct mp_prefix *prefix)
{
    uint32_t whole = prefix->bits / 8u, rest = prefix->bits % 8u;
    if (memcmp(address, prefix->address, whole))
        return 0;
    return !rest || (address[whole] ^ prefix->address[whole]) >> (8u - rest) == 0;
}

static int is_listed(const uint8_t address[16], const struct mp_prefixes *list)
{
    for (uint32_t i = 0; i < list->count && i < MP_PREFIXES_MAX; i++)
        if (is_within(address, &list->prefix[i]))
            return 1;
    return 0;
}

static uint32_t by_group(const struct mp_packet *p, const struct mp_prefixes *allow, const struct mp_prefixes *deny)
{
    if (p->class == MP_CLASS_UNICAST)
        return 0;
    if (is_listed(p->destination, deny) || (allow->count && !is_listed(p->destination, allow)))
        return MP_DROP_group_denied;
    return 0;
}

/* ---- sources ---- */

/* IPv6 link-local addresses belong to no node: the kernel assigns them, and every link has the same prefix. */
static int is_link_local(const uint8_t address[16])
{
    return address[0] == 0xfe && (address[1] & 0xc0) == 0x80;
}

static uint32_t by_source(const struct mp_policy *policy, const struct mp_region *r, const struct mp_packet *p,
                          uint32_t origin, uint8_t side)
{
    struct mp_fib_key key = { .origin = origin, .via = MP_NO_LINK, .side = side, .kind = MP_KIND_SOURCE };
    struct mp_fib_value value;
    if (!policy->bound_sources || is_link_local(p->source))
        return 0;
    memcpy(key.group, p->source, sizeof key.group);
    return mp_fib_lookup(r, &key, &value) == MP_NO_ENTRY ? MP_DROP_foreign_source : 0;
}

/* ---- unicast ---- */

/* Return whether what a local program sends must be looked at: to a group, as it may be a query; to a node. */
static int sends_vary(const struct mp_policy *policy, const struct mp_packet *p)
{
    return policy->unicast == (p->class == MP_CLASS_UNICAST ? MP_UNICAST_NONE : MP_UNICAST_DISCOVERY);
}

static int deliveries_vary(const struct mp_policy *policy, const struct mp_packet *p)
{
    return p->class == MP_CLASS_UNICAST && (policy->unicast != MP_UNICAST_ALL || policy->has_unicast_ports);
}

/* ---- verdicts ---- */

uint32_t mp_policy_sends(const struct mp_policy *policy, const struct mp_region *r, const struct mp_packet *p)
{
    uint32_t drop = by_group(p, &policy->send_allow, &policy->send_deny);
    drop = drop ? drop : by_source(policy, r, p, 0, MP_SIDE_HOST);
    return !drop && sends_vary(policy, p) ? MP_EACH_PACKET : drop;
}

uint32_t mp_policy_passes(const struct mp_policy *policy, const struct mp_region *r, const struct mp_packet *p,
                          uint32_t origin)
{
    return by_source(policy, r, p, origin, MP_SIDE_OVERLAY);
}

uint32_t mp_policy_delivers(const struct mp_policy *policy, const struct mp_packet *p)
{
    return deliveries_vary(policy, p) ? MP_EACH_PACKET : by_group(p, &policy->receive_allow, &policy->receive_deny);
}

/* ---- rates ---- */

uint32_t mp_rate_slot(const struct mp_region *r, const uint8_t group[16])
{
    uint64_t low, high;
    memcpy(&high, group, sizeof high);
    memcpy(&low, group + 8, sizeof low);
    uint64_t h = low ^ (high << 31 | high >> 33) ^ r->geometry.seed;
    h = (h ^ h >> 32) * UINT64_C(0x9e3779b97f4a7c15);   /* groups differ in their last bytes, the top ones of `h` */
    return (uint32_t)(h >> 40) % MP_RATE_SLOTS;
}

int mp_rate_take(const struct mp_region *r, enum mp_rate_kind kind, uint32_t slot, uint32_t pps, uint64_t now_ns)
{
    if (!pps)
        return 1;
    /* The word is the time at which the bucket is full again.  Each token moves it on by one interval; it may be one
     * burst ahead of now at the most. */
    _Atomic uint64_t *full_at = mp_rates(r) + (uint32_t)kind * MP_RATE_SLOTS + slot;
    uint64_t interval = UINT64_C(1000000000) / pps, at = atomic_load_explicit(full_at, memory_order_relaxed), next;
    do {
        next = (at > now_ns ? at : now_ns) + interval;
        if (next - now_ns > MP_RATE_BURST_NS && next - now_ns > interval)
            return 0;
    } while (!atomic_compare_exchange_weak_explicit(full_at, &at, next, memory_order_relaxed, memory_order_relaxed));
    return 1;
}
