/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_lookup: look-ups in the order that mp_lookup.h lists.
 */
#include "mp_lookup.h"

/* The least specific key of a packet. */
static void default_key(struct mp_fib_key *key, const struct mp_packet *p, uint8_t side)
{
    *key = (struct mp_fib_key){ .via = MP_NO_LINK, .side = side };
    if (p->class == MP_CLASS_FLOOD) {
        key->kind = MP_KIND_FLOOD;
        if (p->version == 4)
            key->group[10] = key->group[11] = 0xff;
    } else {
        key->kind = p->class == MP_CLASS_UNICAST ? MP_KIND_UNICAST : MP_KIND_GROUP;
        memcpy(key->group, p->destination, 16);
    }
}

/* Without specific entries on this side one look-up does. */
static int may_be_specific(const struct mp_region *r, const struct mp_packet *p, uint32_t side)
{
    return p->class == MP_CLASS_GROUP && atomic_load_explicit(&mp_fib(r)->specific[side], memory_order_relaxed);
}

uint32_t mp_lookup_host(const struct mp_region *r, const struct mp_packet *p, struct mp_fib_key *key,
                        struct mp_fib_value *value)
{
    uint32_t entry = MP_NO_ENTRY;
    default_key(key, p, MP_SIDE_HOST);
    if (may_be_specific(r, p, MP_SIDE_HOST)) {
        memcpy(key->source, p->source, 16);
        entry = mp_fib_lookup(r, key, value);
        if (entry == MP_NO_ENTRY)
            memset(key->source, 0, 16);
    }
    return entry != MP_NO_ENTRY ? entry : mp_fib_lookup(r, key, value);
}

uint32_t mp_lookup_overlay(const struct mp_region *r, const struct mp_packet *p, uint32_t origin, uint32_t via,
                           struct mp_fib_key *key, struct mp_fib_value *value)
{
    uint32_t entry = MP_NO_ENTRY;
    default_key(key, p, MP_SIDE_OVERLAY);
    if (may_be_specific(r, p, MP_SIDE_OVERLAY)) {
        for (uint32_t i = 0; i < 3 && entry == MP_NO_ENTRY; i++) {  /* (origin, via), (origin), (via) */
            key->origin = i < 2 ? origin : 0;
            key->via = i != 1 ? (uint16_t)via : MP_NO_LINK;
            entry = mp_fib_lookup(r, key, value);
        }
        if (entry == MP_NO_ENTRY)
            key->via = MP_NO_LINK;
    }
    return entry != MP_NO_ENTRY ? entry : mp_fib_lookup(r, key, value);
}
