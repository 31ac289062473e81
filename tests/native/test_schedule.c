/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Goal: a loaded worker gets SCHED_BATCH and an idle one SCHED_OTHER, it keeps its priority, and a policy that the
 * process was started with never changes.
 * Method: rates by an invented clock; the policy that the kernel reports for this process.
 */
#include "mp_schedule.h"

#include <sched.h>
#include <sys/resource.h>

#include "check.h"

#define WINDOWS_PER_S 100u

/* Run several windows at a rate, in two rounds each. */
static void work_at(struct mp_schedule *s, uint32_t packets_per_s, uint64_t *now_ns)
{
    for (uint32_t i = 0; i < 6; i++) {
        *now_ns += MP_SCHEDULE_WINDOW_NS / 2;
        mp_schedule_note(s, packets_per_s / WINDOWS_PER_S / 2, *now_ns);
    }
}

static void policy_follows_load(void)
{
    struct mp_schedule s;
    uint64_t now_ns = 1;
    int priority = getpriority(PRIO_PROCESS, 0);
    mp_schedule_init(&s, now_ns);
    CHECK_EQUAL(sched_getscheduler(0), SCHED_OTHER);
    work_at(&s, 30000, &now_ns);
    CHECK_EQUAL(sched_getscheduler(0), SCHED_OTHER);
    work_at(&s, 50000, &now_ns);
    CHECK_EQUAL(sched_getscheduler(0), SCHED_BATCH);
    work_at(&s, 30000, &now_ns);                /* a rate in between changes nothing */
    CHECK_EQUAL(sched_getscheduler(0), SCHED_BATCH);
    work_at(&s, 10000, &now_ns);
    CHECK_EQUAL(sched_getscheduler(0), SCHED_OTHER);
    CHECK_EQUAL(getpriority(PRIO_PROCESS, 0), priority);
}

/* The first packet after a long sleep ends a window with a rate of almost 0. */
static void pause_ends_load(void)
{
    struct mp_schedule s;
    uint64_t now_ns = 1;
    mp_schedule_init(&s, now_ns);
    work_at(&s, 100000, &now_ns);
    CHECK_EQUAL(sched_getscheduler(0), SCHED_BATCH);
    now_ns += UINT64_C(1000000000);
    mp_schedule_note(&s, 1, now_ns);
    CHECK_EQUAL(sched_getscheduler(0), SCHED_OTHER);
}

static void given_policy_stays(void)
{
    struct sched_param none = { 0 };
    struct mp_schedule s;
    uint64_t now_ns = 1;
    CHECK(!sched_setscheduler(0, SCHED_BATCH, &none));
    mp_schedule_init(&s, now_ns);
    work_at(&s, 100000, &now_ns);
    work_at(&s, 100, &now_ns);
    CHECK_EQUAL(sched_getscheduler(0), SCHED_BATCH);
}

int main(void)
{
    RUN(policy_follows_load);
    RUN(pause_ends_load);
    RUN(given_policy_stays);
    return 0;
}
