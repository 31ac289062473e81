/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_layout: the offsets of a region's parts.  See mp_layout.h.
 */
#include "mp_layout.h"

#include <errno.h>
#include <string.h>

static int is_power_of_two(uint32_t n)
{
    return n && !(n & (n - 1));
}

static int geometry_is_sound(const struct mp_geometry *g)
{
    return g->lanes >= 1 && g->lanes <= MP_LANES_MAX && is_power_of_two(g->host_slots) && g->host_slots >= 64 &&
           g->host_slots <= 1u << 20 && is_power_of_two(g->overlay_slots) && g->overlay_slots >= 8 &&
           g->overlay_slots <= 1u << 12 && g->host_slot_bytes % MP_CACHE_LINE == 0 && g->mtu >= 576 &&
           g->mtu <= 65000 && g->host_slot_bytes >= sizeof(struct mp_slot) + g->mtu + 64 &&
           is_power_of_two(g->fib_buckets) && g->fib_entries >= 64 && g->fib_entries < MP_NO_ENTRY;
}

/* Return `at` and move it on by `bytes`, to the next cache line. */
static uint64_t allot(uint64_t *at, uint64_t bytes)
{
    uint64_t start = *at;
    *at = (start + bytes + MP_CACHE_LINE - 1) & ~(uint64_t)(MP_CACHE_LINE - 1);
    return start;
}

static void place(struct mp_region *r, const struct mp_geometry *g)
{
    uint64_t at = 0, lanes = g->lanes;
    r->geometry = *g;
    allot(&at, sizeof *r);
    r->processes_at = allot(&at, sizeof(struct mp_process) * (1 + MP_STAGES * lanes));
    r->published_at = allot(&at, sizeof(struct mp_published));
    r->sender_at = allot(&at, sizeof(struct mp_sender));
    r->fib_at = allot(&at, sizeof(struct mp_fib));
    r->fib_buckets_at = allot(&at, sizeof(uint32_t) * (uint64_t)g->fib_buckets);
    r->links_at = allot(&at, sizeof(struct mp_link) * MP_LINKS_MAX);
    r->keys_at = allot(&at, sizeof(struct mp_key) * MP_KEYS_MAX);
    r->lanes_at = allot(&at, sizeof(struct mp_lane) * lanes);
    r->counters_at = allot(&at, sizeof(struct mp_counters) * (MP_STAGES * lanes + 1));
    r->link_tx_at = allot(&at, sizeof(struct mp_link_tx) * MP_LINKS_MAX * lanes);
    r->link_rx_at = allot(&at, sizeof(struct mp_link_rx) * MP_LINKS_MAX * lanes);
    r->streams_at = allot(&at, sizeof(uint32_t) * MP_STREAMS);
    r->rates_at = allot(&at, sizeof(uint64_t) * MP_RATES);
    r->queries_at = allot(&at, sizeof(uint64_t) * MP_QUERIES);
    r->repair_tracks_at = allot(&at, sizeof(struct mp_repair_track) * MP_REPAIR_TRACKS);
    r->repair_requests_at = allot(&at, sizeof(struct mp_repair_request) * MP_REPAIR_REQUESTS);
    r->unresolved_at = allot(&at, mp_unresolved_bytes(g) * MP_UNRESOLVED * lanes);
    r->host_slots_at = allot(&at, (uint64_t)g->host_slot_bytes * g->host_slots * lanes);
    r->overlay_slots_at = allot(&at, sizeof(struct mp_super) * g->overlay_slots * lanes);
    at = (at + 4095) & ~UINT64_C(4095);
    r->lazy_at = at;
    r->fib_entries_at = allot(&at, sizeof(struct mp_fib_entry) * (uint64_t)g->fib_entries);
    at = (at + 4095) & ~UINT64_C(4095);
    r->windows_at = allot(&at, sizeof(struct mp_window) * MP_WINDOWS_MAX);
    r->size = at;
}

uint64_t mp_region_size(const struct mp_geometry *geometry)
{
    struct mp_region r = { 0 };
    if (!geometry_is_sound(geometry))
        return 0;
    place(&r, geometry);
    return r.size;
}

uint64_t mp_region_lazy_at(const struct mp_geometry *geometry)
{
    struct mp_region r = { 0 };
    if (!geometry_is_sound(geometry))
        return 0;
    place(&r, geometry);
    return r.lazy_at;
}

int mp_region_format(void *base, const struct mp_geometry *geometry)
{
    struct mp_region *r = base;
    if (!geometry_is_sound(geometry))
        return -EINVAL;
    r->version = MP_VERSION;
    place(r, geometry);
    memset(mp_at(r, r->fib_buckets_at), 0xff, sizeof(uint32_t) * (uint64_t)geometry->fib_buckets); /* MP_NO_ENTRY */
    /* release REGION_FORMAT: pairs with mp_region_check; a process that sees the magic sees the region */
    atomic_thread_fence(memory_order_release);
    r->magic = MP_MAGIC;
    return 0;
}

int mp_region_check(const void *base, uint64_t size)
{
    const struct mp_region *r = base;
    if (size < sizeof *r || r->magic != MP_MAGIC)
        return -EPROTO;
    /* acquire REGION_FORMAT: pairs with mp_region_format */
    atomic_thread_fence(memory_order_acquire);
    if (r->version != MP_VERSION)
        return -EPROTONOSUPPORT;
    return r->size == size ? 0 : -EMSGSIZE;
}
