/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Goal: the parts of a region lie within it and do not overlap; bad geometries and foreign memory are refused.
 * Method: sort the parts of several geometries by offset; format and check memory of the test's own.
 */
#include <errno.h>

#include "actor.h"
#include "mp_counter.h"

struct part {
    uint64_t at, bytes;
};

static int by_offset(const void *a, const void *b)
{
    uint64_t x = ((const struct part *)a)->at, y = ((const struct part *)b)->at;
    return (x > y) - (x < y);
}

static void check_parts(uint32_t lanes, uint32_t host_slots, uint32_t mtu)
{
    struct mp_geometry g = { .lanes = lanes, .host_slots = host_slots, .host_slot_bytes = (256 + mtu + 127) / 64 * 64,
                             .overlay_slots = 8, .fib_entries = 1000, .fib_buckets = 512, .mtu = mtu };
    struct mp_region *r = actor_region(&g);
    struct part parts[] = {
        { 0, sizeof *r },
        { r->processes_at, sizeof(struct mp_process) * (1 + MP_STAGES * lanes) },
        { r->published_at, sizeof(struct mp_published) },
        { r->sender_at, sizeof(struct mp_sender) },
        { r->fib_at, sizeof(struct mp_fib) },
        { r->fib_buckets_at, 4 * 512 },
        { r->links_at, sizeof(struct mp_link) * MP_LINKS_MAX },
        { r->keys_at, sizeof(struct mp_key) * MP_KEYS_MAX },
        { r->lanes_at, sizeof(struct mp_lane) * lanes },
        { r->counters_at, sizeof(struct mp_counters) * (MP_STAGES * lanes + 1) },
        { r->link_tx_at, sizeof(struct mp_link_tx) * MP_LINKS_MAX * lanes },
        { r->link_rx_at, sizeof(struct mp_link_rx) * MP_LINKS_MAX * lanes },
        { r->streams_at, sizeof(uint32_t) * MP_STREAMS },
        { r->rates_at, sizeof(uint64_t) * MP_RATES },
        { r->queries_at, sizeof(uint64_t) * MP_QUERIES },
        { r->repair_tracks_at, sizeof(struct mp_repair_track) * MP_REPAIR_TRACKS },
        { r->repair_requests_at, sizeof(struct mp_repair_request) * MP_REPAIR_REQUESTS },
        { r->host_slots_at, (uint64_t)g.host_slot_bytes * host_slots * lanes },
        { r->overlay_slots_at, sizeof(struct mp_super) * 8 * lanes },
        { r->fib_entries_at, sizeof(struct mp_fib_entry) * 1000 },
        { r->windows_at, sizeof(struct mp_window) * MP_WINDOWS_MAX },
    };
    size_t count = sizeof parts / sizeof parts[0];
    qsort(parts, count, sizeof parts[0], by_offset);
    for (size_t i = 0; i < count; i++) {
        CHECK_EQUAL(parts[i].at % 64, 0);
        CHECK(parts[i].at + parts[i].bytes <= (i + 1 < count ? parts[i + 1].at : r->size));
    }
    CHECK_EQUAL(r->size, mp_region_size(&g));
    CHECK_EQUAL(r->lazy_at, mp_region_lazy_at(&g));
    CHECK(r->lazy_at % 4096 == 0 && r->fib_entries_at >= r->lazy_at && r->windows_at >= r->lazy_at);
    CHECK(r->overlay_slots_at < r->lazy_at);
    CHECK_EQUAL(((uint32_t *)mp_at(r, r->fib_buckets_at))[511], MP_NO_ENTRY);
    actor_unmap(r);
}

static void parts_do_not_overlap(void)
{
    check_parts(1, 64, 576);
    check_parts(3, 1024, 1436);
    check_parts(MP_LANES_MAX, 256, 9000);
}

static void bad_geometries_are_refused(void)
{
    struct mp_geometry g;
#define REFUSED(field, value) \
    (g = actor_small, g.field = (value), mp_region_size(&g) == 0 && mp_region_lazy_at(&g) == 0)
    CHECK(mp_region_size(&actor_small) != 0);
    CHECK(REFUSED(lanes, 0) && REFUSED(lanes, MP_LANES_MAX + 1));
    CHECK(REFUSED(host_slots, 100) && REFUSED(host_slots, 32) && REFUSED(host_slots, 1u << 21));
    CHECK(REFUSED(host_slot_bytes, 900) && REFUSED(host_slot_bytes, 832));
    CHECK(REFUSED(overlay_slots, 4) && REFUSED(overlay_slots, 9));
    CHECK(REFUSED(fib_entries, 0) && REFUSED(fib_entries, MP_NO_ENTRY) && REFUSED(fib_buckets, 3));
    CHECK(REFUSED(mtu, 575) && REFUSED(mtu, 65001));
    CHECK_EQUAL(mp_region_format(&g, &g), -EINVAL);
}

static void foreign_memory_is_refused(void)
{
    struct mp_region *r = actor_region(&actor_small);
    CHECK_EQUAL(mp_region_check(r, r->size), 0);
    CHECK_EQUAL(mp_region_check(r, r->size - 1), -EMSGSIZE);
    CHECK_EQUAL(mp_region_check(r, 16), -EPROTO);
    r->version++;
    CHECK_EQUAL(mp_region_check(r, r->size), -EPROTONOSUPPORT);
    r->magic = 0;
    CHECK_EQUAL(mp_region_check(r, r->size), -EPROTO);
    actor_unmap(r);
}

int main(void)
{
    RUN(parts_do_not_overlap);
    RUN(bad_geometries_are_refused);
    RUN(foreign_memory_is_refused);
    return 0;
}
