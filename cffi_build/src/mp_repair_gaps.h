/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_repair_gaps: reports the missing datagrams of streams to control, at a bounded rate.  Private to overlay_ingress.
 *
 *   a datagram that is not the next of its stream ─▶ pending for MP_REPAIR_GAP_WAIT_NS ─▶ one punt of the numbers that
 *                                                       ▲                │               are still missing
 *                                                       └────────────────┘
 *                                                       while some arrive, or this worker was late itself,
 *                                                       at most MP_REPAIR_GAP_ROUNDS times
 *
 * Packets that take stripes overtake each other all the time, on busy hosts by tens of milliseconds.  A gap is
 * therefore reported when it has existed for a while in which none of its numbers arrived and this worker was not
 * kept from its socket; and only with the numbers that were passed over when it became pending.  A punt has all
 * missing numbers, never a change, so that the next punt makes up for a lost one.
 *
 * Where many numbers are missing for long, a path is full, and repairs would fill it more.  The numbers reported are
 * therefore limited to a share of those that arrive.  The credit for a burst of some hundred numbers covers those that
 * are lost with a relay that dies.
 */
#ifndef MP_REPAIR_GAPS_H
#define MP_REPAIR_GAPS_H

#include "mp_stage.h"

#define MP_REPAIR_GAP_WAIT_NS UINT64_C(10000000) /* half of the shortest time after which an engine sends a NACK */
#define MP_REPAIR_GAP_ROUNDS 8u /* 80 ms: at 11 Mbit/s a fifth of the numbers that a track holds */
#define MP_REPAIR_GAPS_PENDING 256u /* streams with a pending gap at one instant, of MP_REPAIR_TRACKS */
#define MP_REPAIR_GAP_NUMBERS 64u /* of one punt: as many as one NACK holds */
#define MP_REPAIR_GAP_LATE_NS (MP_REPAIR_GAP_WAIT_NS / 2) /* a worker so late was kept from the processor */
#define MP_REPAIR_GAP_SHARE 25u /* one number is reported for each 25 that arrive: repairs stay below 5 % of streams */
#define MP_REPAIR_GAP_CREDIT 256u /* numbers reported at once: a third of 1.5 Mbit/s for 5 s, until routes change */

/* Contents of a punt MP_PUNT_GAP. */
struct mp_repair_gap {
    uint32_t origin, stream;
    uint32_t via;               /* incoming link of the datagram that showed the gap or closed it */
    uint32_t count;             /* 0: no number is missing any more */
    uint32_t number[MP_REPAIR_GAP_NUMBERS];
};

struct mp_repair_gap_pending {
    struct mp_repair_track *track;
    uint64_t name, due_ns;
    uint32_t last;              /* numbers up to here were passed over when the gap became pending */
    uint32_t missing;           /* so many of them in the last round */
    uint32_t rounds;
    uint32_t via;
};

struct mp_repair_gaps {         /* a queue in the order of due_ns, as all gaps are pending for the same time */
    uint32_t head, tail;
    uint32_t credit;            /* 1 for each number that arrives; a reported number costs MP_REPAIR_GAP_SHARE */
    struct mp_repair_gap_pending pending[MP_REPAIR_GAPS_PENDING];
};

/* Prepare the queue.  Gaps that a predecessor had queued can be scheduled again; another lane may then report a gap
 * twice. */
void mp_repair_gaps_init(struct mp_worker *w, struct mp_repair_gaps *g);

/* A datagram of a repaired stream has arrived. */
static inline void mp_repair_gaps_earn_credit(struct mp_repair_gaps *g)
{
    g->credit += g->credit < MP_REPAIR_GAP_CREDIT * MP_REPAIR_GAP_SHARE;
}

/* Queue a report: the missing numbers of the stream may have changed. */
void mp_repair_gaps_schedule(struct mp_worker *w, struct mp_repair_gaps *g, struct mp_repair_track *track,
                             uint32_t via);

/* Punt the reports that are due. */
void mp_repair_gaps_report(struct mp_worker *w, struct mp_repair_gaps *g);

/* Return when the next report is due; UINT64_MAX: none is pending. */
uint64_t mp_repair_gaps_due_ns(const struct mp_repair_gaps *g);

#endif
