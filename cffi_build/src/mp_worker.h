/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_worker: what the stages of one worker share.  Private to mp_stage*.c.
 */
#ifndef MP_WORKER_H
#define MP_WORKER_H

#include "mp_bucket.h"
#include "mp_gcm.h"
#include "mp_ring.h"
#include "mp_schedule.h"
#include "mp_stage.h"

#define MP_PUNT_SLOTS 256u      /* more than a burst can punt: the ring is emptied after each */
#define MP_PUNT_BYTES 9216u     /* a membership report fills one packet at the most, of the largest MTU */
#define MP_REPORTS_PER_S 25000u /* control takes in twice as many; 20,000 must pass however unevenly they come */
#define MP_REPORTS_BURST 8192u  /* 2,000 joins at once, in two versions, each repeated */
#define MP_GAPS_PER_S 25u       /* a gap and the messages that come of it take control and its peers' a millisecond: 3 % of a core; */
#define MP_GAPS_BURST 50u       /* what is put off is reported as one with what is missing by then */
#define MP_NEWS_PER_S 1000u     /* new sources and endpoints: a flood of them must not crowd out membership */

struct mp_punt {
    uint32_t kind, length;
    uint8_t bytes[MP_PUNT_BYTES];
};

struct mp_classify;
struct mp_egress;
struct mp_ingress;

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
    uint32_t id;                /* 1 + its first stage */
    uint32_t held;              /* bit set of stages that it is the runner of; borrowed ones until the end of a round */
    uint64_t now_ns;            /* read once before each round of bursts that may need it */
    uint64_t window_ns;         /* when the present load window of tun_ingress began */
    uint32_t window_packets;
    uint32_t wait_ns;           /* not 0: the last window was full, reads are moderated */
    uint64_t read_at_ns;        /* the TUN is left to fill until then */
    uint64_t receive_at_ns;     /* the socket is left to fill until then */
    uint32_t unresolved_version;   /* of the forwarding table, when tun_ingress last put packets that wait back */
    uint16_t unresolved_round;     /* how often it did */
    struct mp_schedule schedule;
    struct mp_bucket reports, news, gaps;
    uint32_t punt_head, punt_tail;
    struct mp_punt *punts;
};

/* Is it a stage of its own, not a borrowed one? */
static inline int mp_has_stage(const struct mp_worker *w, uint32_t stage)
{
    return (w->config.stages >> stage & 1) != 0;
}

/* After publishing to a stage: if its process sleeps, inline_stages the stage for the rest of this round, or wakes the process
 * where that is better: this worker has more to do itself, or must not run that stage. */
void mp_hand_off(struct mp_worker *w, uint32_t stage, int has_more);

/* Hands bytes to control; returns 0 if it could not, which is counted. */
int mp_punt_add(struct mp_worker *w, uint32_t stage, uint32_t kind, const void *bytes, uint32_t length);

uint64_t mp_now_ns(void);

/* ---- the stages: each returns how many packets or datagrams it moved ---- */

uint32_t mp_tun_ingress_burst(struct mp_worker *w);

/* When tun_ingress wants to look for routes of packets that wait; UINT64_MAX: none does. */
uint64_t mp_unresolved_due_ns(struct mp_worker *w);

int mp_classify_init(struct mp_worker *w);
void mp_classify_exit(struct mp_worker *w);
uint32_t mp_classify_burst(struct mp_worker *w);

int mp_egress_init(struct mp_worker *w);
void mp_egress_exit(struct mp_worker *w);
uint32_t mp_egress_burst(struct mp_worker *w);

int mp_ingress_init(struct mp_worker *w);
void mp_ingress_exit(struct mp_worker *w);
uint32_t mp_ingress_burst(struct mp_worker *w);

/* When overlay_ingress wants to run again although nothing arrives (probes, gaps); UINT64_MAX: never. */
uint64_t mp_ingress_due_ns(const struct mp_worker *w);

#endif
