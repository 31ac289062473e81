/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_schedule: sched_setattr(2) by load.  See mp_schedule.h.
 */
#include "mp_schedule.h"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LOADED_PPS 40000u       /* from this rate on a worker is loaded */
#define IDLE_PPS 20000u         /* below this rate it is idle again */
#define LOADED_SLICE_NS 3000000u
#define IDLE_SLICE_NS 1000000u

struct attributes {             /* the kernel's struct sched_attr, version 1; glibc has had it since 2.41 only */
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period; /* runtime is the slice */
    uint32_t util_min, util_max;
};
_Static_assert(sizeof(struct attributes) == 56, "as the kernel's");

static int read_attributes(struct attributes *a)
{
    return (int)syscall(SYS_sched_getattr, 0, a, sizeof *a, 0);
}

/* A change that the kernel refuses costs performance only. */
static void apply(struct mp_schedule *s)
{
    struct attributes a;
    if (read_attributes(&a))
        return;
    a.policy = s->loaded ? SCHED_BATCH : SCHED_OTHER;
    a.runtime = s->loaded ? LOADED_SLICE_NS : IDLE_SLICE_NS;
    syscall(SYS_sched_setattr, 0, &a, 0);
}

void mp_schedule_init(struct mp_schedule *s, uint64_t now_ns)
{
    struct attributes a = { .policy = SCHED_OTHER };
    *s = (struct mp_schedule){ .window_ns = now_ns };
    s->is_fixed = read_attributes(&a) || a.policy != SCHED_OTHER;
    if (!s->is_fixed)
        apply(s);
}

void mp_schedule_review(struct mp_schedule *s, uint64_t now_ns)
{
    uint64_t rate = s->packets * UINT64_C(1000000000) / (now_ns - s->window_ns);
    int loaded = rate >= (s->loaded ? IDLE_PPS : LOADED_PPS);
    s->packets = 0;
    s->window_ns = now_ns;
    if (loaded == s->loaded || s->is_fixed)
        return;
    s->loaded = loaded;
    apply(s);
}
