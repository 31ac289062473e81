/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_schedule: the scheduling policy of a worker, by its load.
 *
 *   load       policy, slice        woken while another runs     reason
 *   idle       SCHED_OTHER, 1 ms    preempts it                  low latency
 *   loaded     SCHED_BATCH, 3 ms    waits until it has done      large batches: the sender is not interrupted, queued
 *                                                                packets are moved together, and caches stay warm
 *
 * The slices also bound how long a queue fills while others run: in 3 ms, the default of the kernel, thousands of
 * packets arrive.  Linux before 6.12 keeps its own slices.
 */
#ifndef MP_SCHEDULE_H
#define MP_SCHEDULE_H

#include <stdint.h>

#define MP_SCHEDULE_WINDOW_NS UINT64_C(10000000)

struct mp_schedule {
    uint64_t window_ns;         /* start of the present window */
    uint64_t packets;           /* moved since then */
    int loaded;
    int is_fixed;               /* the process was started with another policy, which stays */
};

/* Begin as idle, unless the process was started with another policy than SCHED_OTHER. */
void mp_schedule_init(struct mp_schedule *s, uint64_t now_ns);

/* Called at the end of a window: change the policy if the rate has crossed a threshold. */
void mp_schedule_review(struct mp_schedule *s, uint64_t now_ns);

/* Called after each round with the number of packets or datagrams that it moved. */
static inline void mp_schedule_note(struct mp_schedule *s, uint32_t packets, uint64_t now_ns)
{
    s->packets += packets;
    if (now_ns - s->window_ns >= MP_SCHEDULE_WINDOW_NS)
        mp_schedule_review(s, now_ns);
}

#endif
