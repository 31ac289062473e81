/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_worker: a worker process, which runs some of the four stages of a lane.
 *
 *   host ring     tun_ingress ──▶ classify ──▶ overlay_egress ──▶ UDP
 *   overlay ring  UDP ──▶ overlay_ingress ──▶ TUN
 *                               └──▶ overlay_egress ──▶ UDP            (datagrams that are relayed)
 *
 * A stage is one burst function: it does the work that it can do without waiting, and returns how much that was.
 * mp_worker_run() calls the bursts of its stages one after the other and sleeps when all return 0.  A worker owns
 * nothing that outlives it: the supervisor opens the descriptors, and state that must survive is in the region.
 */
#ifndef MP_WORKER_H
#define MP_WORKER_H

#include "mp_policy.h"

enum mp_idle { MP_IDLE_ADAPTIVE, MP_IDLE_BUSY, MP_IDLE_SLEEP };

struct mp_worker_config {
    uint32_t lane;
    uint32_t stages;            /* bit set of enum mp_stage_id: the worker's own */
    uint32_t inline_stages;     /* bit set of later stages that it may run inline, see mp_hand_off.h */
    uint32_t idle;              /* enum mp_idle */
    uint32_t super;             /* the TUN takes UDP super-packets */
    uint32_t moderation_us;     /* time that a packet may wait for others under load */
    int tun, udp;               /* non-blocking descriptors of the lane, -1 where no stage needs them */
    int wake;                   /* readable when the process should handle its signals */
    int bell[MP_STAGES];        /* eventfds of the lane's stages */
    const struct mp_policy *policy; /* NULL: everything is allowed */
};

struct mp_worker;

/* Prepare the stages.  Slots that a dead predecessor had in work are skipped and counted.  `config` is copied.
 * Returns NULL without memory or without AES-256-GCM. */
struct mp_worker *mp_worker_new(struct mp_region *region, const struct mp_worker_config *config);
void mp_worker_free(struct mp_worker *w);

/* Run the stages for about `budget_ns`.  Returns early with the number of punts to take, or with -EINTR when `wake` is
 * readable; else 0. */
int mp_worker_run(struct mp_worker *w, uint64_t budget_ns);

#endif
