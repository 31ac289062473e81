/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_views: plain values that the supervisor and control read from a region, and write into its process table.
 *
 * Python accesses shared memory only through these functions and those of mp_links_keys, mp_fib and the repair files,
 * so that no layout is defined twice.  Each value is one relaxed load: a view of a running instance is not a
 * snapshot.
 */
#ifndef MP_VIEWS_H
#define MP_VIEWS_H

#include "mp_layout.h"

enum mp_ring_id { MP_RING_HOST, MP_RING_OVERLAY, MP_RINGS };

#define MP_RING_STAGES_MAX 3u

struct mp_process_view {
    uint32_t pid;
    uint32_t state;             /* enum mp_process_state */
    uint32_t restarts;
    uint32_t stages;
};

struct mp_ring_view {
    uint32_t slots;
    uint32_t stages;            /* entries of the arrays, in the order of a packet */
    uint32_t stage[MP_RING_STAGES_MAX];     /* enum mp_stage_id */
    uint64_t passed[MP_RING_STAGES_MAX];    /* slots since the start; never more than in the entry before */
    uint32_t sleeping[MP_RING_STAGES_MAX];  /* the stage's process waits at its doorbell */
};

struct mp_link_view {           /* sums over lanes */
    uint64_t tx_datagrams;
    uint64_t tx_bytes;          /* probes and echoes included */
    uint64_t tx_errors;
    uint64_t rx_datagrams, rx_bytes;
    uint64_t probes, echoes, answered;
    uint64_t rtt_ns;            /* of lane 0, which sends the probes; 0: unknown */
    uint64_t loss_ppm;
};

/* ---- sizes and offsets, to lay out a region and to reserve its pages ---- */

/* Return the stride of host slots for this MTU: headers, packet and tag, rounded up to 2 KiB, so that two fill a
 * page. */
uint32_t mp_host_slot_bytes(uint32_t mtu);

/* Return the offset of entry or window `index` from the start of the region. */
uint64_t mp_fib_entry_at(const struct mp_region *r, uint32_t index);
uint64_t mp_window_at(const struct mp_region *r, uint32_t index);

/* ---- processes: 0 is control, the worker of lane l with first stage s is 1 + 4 * l + s.  Return 0 or -EINVAL ---- */

int mp_process_get(const struct mp_region *r, uint32_t index, struct mp_process_view *out);
int mp_process_set_pid(struct mp_region *r, uint32_t index, uint32_t pid);
int mp_process_set_state(struct mp_region *r, uint32_t index, uint32_t state);
int mp_process_set_stages(struct mp_region *r, uint32_t index, uint32_t stages);
int mp_process_count_restart(struct mp_region *r, uint32_t index);

/* ---- views.  Return 0 or -EINVAL ---- */

int mp_ring_get(const struct mp_region *r, uint32_t lane, uint32_t ring, struct mp_ring_view *out);
int mp_link_get(const struct mp_region *r, uint32_t index, struct mp_link_view *out);

/* ---- forwarding table ---- */

uint32_t mp_fib_entries(const struct mp_region *r);
uint32_t mp_fib_version(const struct mp_region *r);
uint32_t mp_fib_repairing(const struct mp_region *r);   /* entries with MP_ENTRY_REPAIR */

#endif
