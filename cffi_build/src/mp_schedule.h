/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_schedule: how a worker shares its CPU, by what it has to do.
 *
 *              policy, slice        woken while another runs     for
 *   at ease    SCHED_OTHER, 1 ms    takes the CPU from it        low latency
 *   loaded     SCHED_BATCH, 3 ms    waits until it has done      large batches: the sender is not cut short, what is
 *                                                                waiting is moved at once, and caches stay warm
 *
 * The slices also bound how long a queue fills while others run; the kernel's default, 3 ms at ease, is long enough for
 * thousands of packets.  Linux before 6.12 keeps its own slices.
 */
#ifndef MP_SCHEDULE_H
#define MP_SCHEDULE_H

#include <stdint.h>

#define MP_SCHEDULE_WINDOW_NS UINT64_C(10000000)

struct mp_schedule {
    uint64_t window_ns;         /* when the present window began */
    uint64_t packets;           /* moved since */
    int loaded;
    int left_alone;             /* the process has a policy that somebody chose */
};

/* At ease, unless the process was started with a policy of its own. */
void mp_schedule_init(struct mp_schedule *s, uint64_t now_ns);

/* At the end of a window: changes the policy if the rate says so. */
void mp_schedule_review(struct mp_schedule *s, uint64_t now_ns);

/* After each round: how many packets or datagrams it moved. */
static inline void mp_schedule_note(struct mp_schedule *s, uint32_t packets, uint64_t now_ns)
{
    s->packets += packets;
    if (now_ns - s->window_ns >= MP_SCHEDULE_WINDOW_NS)
        mp_schedule_review(s, now_ns);
}

#endif
