/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_stage: the state that the stages of a worker share, and the interface of each stage.  Private to the C library.
 *
 * A stage keeps its own state behind a pointer of struct mp_worker and allocates it in its *_init.  Nothing is
 * allocated for a packet.
 */
#ifndef MP_STAGE_H
#define MP_STAGE_H

#include "mp_counter.h"
#include "mp_gcm.h"
#include "mp_schedule.h"
#include "mp_worker.h"

struct mp_classify;
struct mp_egress;
struct mp_ingress;
struct mp_punts;

struct mp_worker {
    struct mp_region *region;
    struct mp_lane *lane;
    struct mp_worker_config config;
    struct mp_policy policy;
    struct mp_gcm *gcm;
    struct mp_counters *count[MP_STAGES];
    struct mp_classify *classify;
    struct mp_egress *egress;
    struct mp_ingress *ingress;
    struct mp_punts *punts;
    struct mp_schedule schedule;
    uint32_t id;                /* 1 + its first stage */
    uint32_t held;              /* bit set of the stages that it is the runner of; inline ones until the round ends */
    uint64_t now_ns;            /* read once before each round of bursts that may need it */
    uint64_t receive_at_ns;     /* overlay_ingress: the socket fills until then */
    uint64_t read_at_ns;        /* tun_ingress: the TUN fills until then */
    uint64_t window_ns;         /* tun_ingress: start of the present load window */
    uint32_t window_packets;
    uint32_t wait_ns;           /* tun_ingress: not 0: the last window was loaded, reads are moderated */
    uint32_t unresolved_version; /* tun_ingress: of the forwarding table, at the last round of mp_unresolved */
    uint16_t unresolved_round;  /* tun_ingress: number of that round */
};

/* Return whether the stage is the worker's own, and not one that it may run inline. */
static inline int mp_has_stage(const struct mp_worker *w, uint32_t stage)
{
    return (w->config.stages >> stage & 1) != 0;
}

/* ---- the stages: each burst returns how many packets or datagrams it moved ---- */

uint32_t mp_tun_ingress_burst(struct mp_worker *w);

/* Return when tun_ingress must look for routes of unresolved packets; UINT64_MAX: there are none. */
uint64_t mp_tun_ingress_due_ns(struct mp_worker *w);

int mp_classify_init(struct mp_worker *w);
void mp_classify_exit(struct mp_worker *w);
uint32_t mp_classify_burst(struct mp_worker *w);

int mp_egress_init(struct mp_worker *w);
void mp_egress_exit(struct mp_worker *w);
uint32_t mp_egress_burst(struct mp_worker *w);

int mp_ingress_init(struct mp_worker *w);
void mp_ingress_exit(struct mp_worker *w);
uint32_t mp_ingress_burst(struct mp_worker *w);

/* Return when overlay_ingress must run although nothing arrives (probes, gaps, held datagrams); UINT64_MAX: never. */
uint64_t mp_ingress_due_ns(const struct mp_worker *w);

#endif
