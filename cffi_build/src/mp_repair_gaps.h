/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_repair_gaps: tells control what streams lack, and not more often than is of use.  Private to overlay_ingress.
 *
 *   a datagram that is not the next of its stream ─▶ waits MP_REPAIR_GAP_WAIT_NS ─▶ what is missing still, as one punt
 *                                                       ▲                │
 *                                                       └─ some has come, ┘  at most MP_REPAIR_GAP_ROUNDS times
 *                                                          or this worker was late itself
 *
 * Packets that take stripes overtake each other all the time, on busy hosts by tens of milliseconds.  So a gap is reported when
 * it has been there for a while in which nothing of it has come and this worker has not been kept from its socket; and
 * only numbers that were passed over when the waiting began.  A punt is all that is missing, never a change, so the next
 * repairs one that is lost.
 *
 * Where much is missing for long, a path is full, and repairs would fill it more.  So the numbers reported of are bounded by
 * a share of those that come; a burst of some hundred mends what a relay that dies takes along.
 */
#ifndef MP_REPAIR_GAPS_H
#define MP_REPAIR_GAPS_H

#include "mp_worker.h"

#define MP_REPAIR_GAP_WAIT_NS UINT64_C(10000000) /* half of the shortest time after which an engine asks for what is missing */
#define MP_REPAIR_GAP_ROUNDS 8u        /* 80 ms: at 11 Mbit/s a fifth of what is remembered of a stream */
#define MP_REPAIR_GAPS_PENDING 256u    /* streams in which something is missing at one instant, of MP_REPAIR_TRACKS */
#define MP_REPAIR_GAP_NUMBERS 64u      /* of one punt: as many as one NACK asks for */
#define MP_REPAIR_GAP_LATE_NS (MP_REPAIR_GAP_WAIT_NS / 2) /* who wakes up so late has not had its share of the processor */
#define MP_REPAIR_GAP_SHARE 25u        /* a number is reported of for every so many that come: repairs stay below 5 % of the streams */
#define MP_REPAIR_GAP_CREDIT 256u      /* numbers that may be reported of at once: a third of 1.5 Mbit/s for 5 s, until routes change */

/* What control gets (MP_PUNT_GAP). */
struct mp_repair_gap {
    uint32_t origin, stream;
    uint32_t via;               /* link by which the datagram came that showed the gap, or closed it */
    uint32_t count;             /* 0: nothing is missing any more */
    uint32_t number[MP_REPAIR_GAP_NUMBERS];
};

struct mp_repair_gap_pending {
    struct mp_repair_track *heard;
    uint64_t name, due_ns;
    uint32_t last;              /* numbers up to here were passed over when it began to wait */
    uint32_t missing;           /* so many of them, in the last round */
    uint32_t rounds;
    uint32_t via;
};

struct mp_repair_gaps {                /* a queue in the order of due_ns, as all wait equally long */
    uint32_t head, tail;
    uint32_t credit;            /* of numbers that control may be reported of, in shares of one */
    struct mp_repair_gap_pending waiting[MP_REPAIR_GAPS_PENDING];
};

/* What a predecessor was about to tell is to be noted again.  (Another lane may then tell something twice.) */
void mp_repair_gaps_init(struct mp_worker *w, struct mp_repair_gaps *g);

/* A datagram of a stream that is repaired has come. */
static inline void mp_repair_gaps_earn_credit(struct mp_repair_gaps *g)
{
    g->credit += g->credit < MP_REPAIR_GAP_CREDIT * MP_REPAIR_GAP_SHARE;
}

/* What is missing in the stream may have changed. */
void mp_repair_gaps_schedule(struct mp_worker *w, struct mp_repair_gaps *g, struct mp_repair_track *heard, uint32_t via);

/* Tells what is due. */
void mp_repair_gaps_report(struct mp_worker *w, struct mp_repair_gaps *g);

/* When something will be due; UINT64_MAX: nothing waits. */
uint64_t mp_repair_gaps_due_ns(const struct mp_repair_gaps *g);

#endif
