/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_stage: the four stages of a lane and the worker that runs some of them.
 *
 *   host ring     tun_ingress ──▶ classify ──▶ overlay_egress ──▶ UDP
 *   overlay ring  UDP ──▶ overlay_ingress ──▶ TUN
 *                               └──▶ overlay_egress ──▶ UDP            (what must be relayed)
 *
 * A stage is one burst function: it does what it can without waiting and returns how much that was.  mp_worker_run()
 * calls the bursts of its stages in turn and sleeps when all return 0.  A worker is one process; it owns nothing that
 * outlives it: descriptors come from the supervisor, state that must survive is in the region.
 *
 * At low rates a wake-up costs more than what is to be done then.  So a worker that has handed a batch on and has nothing
 * else to do inline_stages the next stage while its process sleeps, and does the work itself; under load, when there is more to
 * read, the processes work side by side.  Only a stage's own process punts: a borrower stops in front of such a packet.
 */
#ifndef MP_STAGE_H
#define MP_STAGE_H

#include "mp_counter.h"
#include "mp_packet.h"
#include "mp_policy.h"

enum mp_idle { MP_IDLE_ADAPTIVE, MP_IDLE_BUSY, MP_IDLE_SLEEP };

enum mp_punt_kind {
    MP_PUNT_MEMBERSHIP = 1,     /* an IGMP or MLD packet */
    MP_PUNT_SOURCE,             /* the first packet of a flow that no entry covers */
    MP_PUNT_ENDPOINT,           /* a peer was heard from another address: u32 link, struct mp_endpoint */
    MP_PUNT_GAP,                /* what a stream lacks: struct mp_repair_gap */
};

struct mp_worker_config {
    uint32_t lane;
    uint32_t stages;            /* bit set of enum mp_stage_id */
    uint32_t inline_stages;           /* bit set of stages behind them that it may run while their own process sleeps */
    uint32_t idle;              /* enum mp_idle */
    uint32_t super;             /* the TUN takes UDP super-packets */
    uint32_t moderation_us;     /* how long a packet may wait for others under load */
    int tun, udp;               /* non-blocking descriptors of the lane, -1 where no stage needs them */
    int wake;                   /* readable when the process should look at its signals */
    int bell[MP_STAGES];        /* eventfds of the lane's stages */
    const struct mp_policy *policy; /* NULL: everything is allowed; must outlive the worker */
};

struct mp_worker;

/* Prepares the stages; a predecessor's slots under way are skipped and counted.  NULL: no memory, or no AES-256-GCM. */
struct mp_worker *mp_worker_new(struct mp_region *region, const struct mp_worker_config *config);
void mp_worker_free(struct mp_worker *w);

/* Runs the stages for about `budget_ns`.  Returns early with the number of punts to be taken, or with
 * -EINTR when `wake` is readable. */
int mp_worker_run(struct mp_worker *w, uint64_t budget_ns);

/* Takes the oldest punt: fills kind, copies up to `size` bytes.  Returns their number, 0 if there is none. */
uint32_t mp_worker_punt(struct mp_worker *w, uint32_t *kind, uint8_t *out, uint32_t size);

/* The punt just taken did not reach control, which is away or behind: it is counted as dropped. */
void mp_worker_punt_lost(struct mp_worker *w, uint32_t kind);

#endif
