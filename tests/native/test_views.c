/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Goal: views show the values of a region, and refuse indices out of bounds.
 * Method: write through the layout, read through the accessors.
 */
#include <errno.h>

#include "actor.h"
#include "mp_views.h"
#include "mp_ring.h"

static void process_table_returns_values_set(void)
{
    struct mp_region *r = actor_region(&actor_small);
    struct mp_process_view v;
    CHECK_EQUAL(mp_process_get(r, 4, &v), 0);
    CHECK(v.pid == 0 && v.state == MP_ABSENT && v.restarts == 0);
    CHECK_EQUAL(mp_process_set_pid(r, 4, 77), 0);
    CHECK_EQUAL(mp_process_set_state(r, 4, MP_READY), 0);
    CHECK_EQUAL(mp_process_set_stages(r, 4, 8), 0);
    CHECK_EQUAL(mp_process_count_restart(r, 4), 0);
    CHECK_EQUAL(mp_process_count_restart(r, 4), 0);
    CHECK_EQUAL(mp_process_get(r, 4, &v), 0);
    CHECK(v.pid == 77 && v.state == MP_READY && v.stages == 8 && v.restarts == 2);
    CHECK_EQUAL(mp_process_get(r, 5, &v), -EINVAL);
    CHECK_EQUAL(mp_process_set_pid(r, 5, 1), -EINVAL);
    CHECK_EQUAL(mp_process_set_state(r, 0, MP_STOPPED + 1), -EINVAL);
    CHECK_EQUAL(mp_process_set_stages(r, UINT32_MAX, 1), -EINVAL);
    CHECK_EQUAL(mp_process_count_restart(r, 5), -EINVAL);
    actor_unmap(r);
}

static void ring_view_shows_cursors_and_sleeping_stages(void)
{
    struct mp_region *r = actor_region(&actor_small);
    struct mp_lane *lane = mp_lane(r, 0);
    struct mp_ring_view v;
    mp_publish(&lane->host[0], 30);
    mp_publish(&lane->host[1], 20);
    mp_publish(&lane->host[2], 5);
    mp_publish(&lane->overlay[0], 7);
    mp_bell_arm(&lane->bell[MP_OVERLAY_EGRESS]);
    CHECK_EQUAL(mp_ring_get(r, 0, MP_RING_HOST, &v), 0);
    CHECK(v.slots == 256 && v.stages == 3 && v.passed[0] == 30 && v.passed[1] == 20 && v.passed[2] == 5);
    CHECK(v.stage[1] == MP_CLASSIFY && !v.sleeping[1] && v.sleeping[2]);
    CHECK_EQUAL(mp_ring_get(r, 0, MP_RING_OVERLAY, &v), 0);
    CHECK(v.slots == 8 && v.stages == 2 && v.passed[0] == 7 && v.passed[1] == 0 && v.stage[0] == MP_OVERLAY_INGRESS);
    CHECK_EQUAL(mp_ring_get(r, 1, MP_RING_HOST, &v), -EINVAL);
    CHECK_EQUAL(mp_ring_get(r, 0, MP_RINGS, &v), -EINVAL);
    actor_unmap(r);
}

static void link_view_sums_all_lanes(void)
{
    struct mp_geometry g = actor_small;
    g.lanes = 3;
    struct mp_region *r = actor_region(&g);
    struct mp_link_view v;
    for (uint32_t lane = 0; lane < 3; lane++) {
        atomic_store(&mp_link_tx(r, lane)[1023].datagrams, lane + 1);
        atomic_store(&mp_link_tx(r, lane)[1023].bytes, 100);
        atomic_store(&mp_link_rx(r, lane)[1023].probe_bytes, 10);
        atomic_store(&mp_link_rx(r, lane)[1023].bytes, 1000);
        atomic_store(&mp_link_rx(r, lane)[1023].rtt_ns, 5 + lane);
        atomic_store(&mp_link_rx(r, lane)[1023].loss_ppm, 6 + lane);
    }
    CHECK_EQUAL(mp_link_get(r, 1023, &v), 0);
    CHECK(v.tx_datagrams == 6 && v.tx_bytes == 330 && v.rx_bytes == 3000 && v.rtt_ns == 5 && v.loss_ppm == 6);
    CHECK_EQUAL(mp_link_get(r, 1022, &v), 0);
    CHECK(v.tx_datagrams == 0 && v.rx_bytes == 0);
    CHECK_EQUAL(mp_link_get(r, MP_LINKS_MAX, &v), -EINVAL);
    actor_unmap(r);
}

static void offsets_follow_the_layout(void)
{
    struct mp_region *r = actor_region(&actor_small);
    CHECK(mp_host_slot_bytes(576) == 2048 && mp_host_slot_bytes(1728) == 2048 && mp_host_slot_bytes(1729) == 4096);
    CHECK_EQUAL(mp_fib_entry_at(r, 3), r->fib_entries_at + 3 * sizeof(struct mp_fib_entry));
    CHECK_EQUAL(mp_window_at(r, MP_WINDOWS_MAX), r->size);
    actor_unmap(r);
}

int main(void)
{
    RUN(process_table_returns_values_set);
    RUN(ring_view_shows_cursors_and_sleeping_stages);
    RUN(link_view_sums_all_lanes);
    RUN(offsets_follow_the_layout);
    return 0;
}
