/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * actor: a part of a test that runs beside it on the same region.  It is a process, as in the daemon, or under
 * ThreadSanitizer, which sees one process only, a thread.  Threads can not be killed: tests that kill an actor are not
 * built then.
 */
#ifndef ACTOR_H
#define ACTOR_H

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "check.h"
#include "mp_layout.h"

#if defined(__SANITIZE_THREAD__)
#define ACTORS_ARE_THREADS 1
#else
#define ACTORS_ARE_THREADS 0
#endif

struct actor {
    void (*body)(void *);
    void *argument;
    pid_t pid;
    pthread_t thread;
};

static inline void *actor_thread(void *a)
{
    ((struct actor *)a)->body(((struct actor *)a)->argument);
    return NULL;
}

static inline void actor_start(struct actor *a, void (*body)(void *), void *argument)
{
    *a = (struct actor){ .body = body, .argument = argument };
    if (ACTORS_ARE_THREADS) {
        CHECK(pthread_create(&a->thread, NULL, actor_thread, a) == 0);
        return;
    }
    a->pid = fork();
    CHECK(a->pid >= 0);
    if (a->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        body(argument);
        _exit(0);
    }
}

/* Wait for the end of an actor.  A CHECK that failed in it fails here. */
static inline void actor_join(struct actor *a)
{
    int status = 0;
    if (ACTORS_ARE_THREADS)
        CHECK(pthread_join(a->thread, NULL) == 0);
    else
        CHECK(waitpid(a->pid, &status, 0) == a->pid);
    CHECK_EQUAL(status, 0);
}

#if !ACTORS_ARE_THREADS
/* Kill an actor at any point.  It must not have ended by a failed CHECK. */
static inline void actor_kill(struct actor *a)
{
    int status = 0;
    kill(a->pid, SIGKILL);
    CHECK(waitpid(a->pid, &status, 0) == a->pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}
#endif

/* Return zeroed memory that actors share. */
static inline void *actor_memory(size_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(at != MAP_FAILED);
    return at;
}

static inline struct mp_region *actor_region(const struct mp_geometry *g)
{
    CHECK(mp_region_size(g) != 0);
    struct mp_region *r = actor_memory(mp_region_size(g));
    CHECK_EQUAL(mp_region_format(r, g), 0);
    return r;
}

static inline void actor_unmap(struct mp_region *r)
{
    munmap(r, r->size);
}

static inline void actor_pause_us(uint32_t us)
{
    struct timespec pause = { .tv_nsec = (long)us * 1000 };
    nanosleep(&pause, NULL);
}

/* The smallest useful region. */
static const struct mp_geometry actor_small = { .lanes = 1, .host_slots = 256, .host_slot_bytes = 896,
                                                .overlay_slots = 8, .fib_entries = 64, .fib_buckets = 8,
                                                .mtu = 576, .seed = 1 };

#endif
