/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_views: views of a region.  See mp_views.h.
 */
#include "mp_views.h"

#include <errno.h>

static uint32_t get32(const void *word)
{
    return atomic_load_explicit((const _Atomic uint32_t *)word, memory_order_relaxed);
}

static uint64_t get64(const _Atomic uint64_t *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

/* ---- sizes and offsets ---- */

uint32_t mp_host_slot_bytes(uint32_t mtu)
{
    const uint32_t step = 2048u;
    return ((uint32_t)sizeof(struct mp_slot) + mtu + 64u + step - 1u) / step * step;
}

uint64_t mp_fib_entry_at(const struct mp_region *r, uint32_t index)
{
    return r->fib_entries_at + (uint64_t)index * sizeof(struct mp_fib_entry);
}

uint64_t mp_window_at(const struct mp_region *r, uint32_t index)
{
    return r->windows_at + (uint64_t)index * sizeof(struct mp_window);
}

/* ---- processes ---- */

static struct mp_process *process_at(const struct mp_region *r, uint32_t index)
{
    return index < 1u + MP_STAGES * r->geometry.lanes ? &mp_processes(r)[index] : NULL;
}

int mp_process_get(const struct mp_region *r, uint32_t index, struct mp_process_view *out)
{
    const struct mp_process *p = process_at(r, index);
    if (!p)
        return -EINVAL;
    *out = (struct mp_process_view){ .pid = get32(&p->pid), .state = get32(&p->state), .restarts = get32(&p->restarts),
                                     .stages = get32(&p->stages) };
    return 0;
}

static int set_field(struct mp_process *p, void *field, uint32_t value)
{
    if (!p)
        return -EINVAL;
    atomic_store_explicit((_Atomic uint32_t *)field, value, memory_order_relaxed);
    return 0;
}

int mp_process_set_pid(struct mp_region *r, uint32_t index, uint32_t pid)
{
    struct mp_process *p = process_at(r, index);
    return set_field(p, p ? &p->pid : NULL, pid);
}

int mp_process_set_state(struct mp_region *r, uint32_t index, uint32_t state)
{
    struct mp_process *p = process_at(r, index);
    return state > MP_STOPPED ? -EINVAL : set_field(p, p ? &p->state : NULL, state);
}

int mp_process_set_stages(struct mp_region *r, uint32_t index, uint32_t stages)
{
    struct mp_process *p = process_at(r, index);
    return set_field(p, p ? &p->stages : NULL, stages);
}

int mp_process_count_restart(struct mp_region *r, uint32_t index)
{
    struct mp_process *p = process_at(r, index);
    return set_field(p, p ? &p->restarts : NULL, p ? get32(&p->restarts) + 1u : 0u);
}

/* ---- views ---- */

static void view_ring(struct mp_ring_view *out, struct mp_lane *lane, struct mp_cursor *cursors, const uint32_t *stages,
                      uint32_t count)
{
    out->stages = count;
    /* From the last stage to the first, so that no stage seems ahead of the one before it. */
    for (uint32_t i = count; i-- > 0;) {
        out->stage[i] = stages[i];
        /* acquire RING_PUBLISH: pairs with mp_publish and mp_release, and keeps the order of these loads */
        out->passed[i] = atomic_load_explicit(&cursors[i].at, memory_order_acquire);
        out->sleeping[i] = get32(&lane->bell[stages[i]].sleeping);
    }
}

int mp_ring_get(const struct mp_region *r, uint32_t lane, uint32_t ring, struct mp_ring_view *out)
{
    static const uint32_t host[] = { MP_TUN_INGRESS, MP_CLASSIFY, MP_OVERLAY_EGRESS };
    static const uint32_t overlay[] = { MP_OVERLAY_INGRESS, MP_OVERLAY_EGRESS };
    if (lane >= r->geometry.lanes || ring >= MP_RINGS)
        return -EINVAL;
    struct mp_lane *l = mp_lane(r, lane);
    *out = (struct mp_ring_view){ .slots = ring == MP_RING_HOST ? r->geometry.host_slots : r->geometry.overlay_slots };
    if (ring == MP_RING_HOST)
        view_ring(out, l, l->host, host, 3);
    else
        view_ring(out, l, l->overlay, overlay, 2);
    return 0;
}

int mp_link_get(const struct mp_region *r, uint32_t index, struct mp_link_view *out)
{
    if (index >= MP_LINKS_MAX)
        return -EINVAL;
    *out = (struct mp_link_view){ .rtt_ns = get64(&mp_link_rx(r, 0)[index].rtt_ns),
                                  .loss_ppm = get64(&mp_link_rx(r, 0)[index].loss_ppm) };
    for (uint32_t lane = 0; lane < r->geometry.lanes; lane++) {
        const struct mp_link_tx *tx = mp_link_tx(r, lane) + index;
        const struct mp_link_rx *rx = mp_link_rx(r, lane) + index;
        out->tx_datagrams += get64(&tx->datagrams);
        out->tx_bytes += get64(&tx->bytes) + get64(&rx->probe_bytes);
        out->tx_errors += get64(&tx->errors);
        out->rx_datagrams += get64(&rx->datagrams);
        out->rx_bytes += get64(&rx->bytes);
        out->probes += get64(&rx->probes);
        out->echoes += get64(&rx->echoes);
        out->answered += get64(&rx->answered);
    }
    return 0;
}

uint32_t mp_fib_entries(const struct mp_region *r)
{
    return atomic_load_explicit(&mp_fib(r)->entries, memory_order_relaxed);
}

uint32_t mp_fib_version(const struct mp_region *r)
{
    /* acquire FIB_VERSION: pairs with next_version of mp_fib.c */
    return atomic_load_explicit(&mp_fib(r)->version, memory_order_acquire);
}

uint32_t mp_fib_repairing(const struct mp_region *r)
{
    return get32(&mp_published(r)->repairing);
}
