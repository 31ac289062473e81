/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * check: the harness of the C tests.  A test is a function, and RUN prints one line for it.  The first CHECK that fails
 * prints its place and ends the process with status 1; the parent of a forked process checks that.
 */
#ifndef CHECK_H
#define CHECK_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifndef CHECK_VARIANT
#define CHECK_VARIANT "plain"
#endif

#define CHECK_SECONDS_MAX 60u   /* SIGALRM kills a test that takes longer */

_Noreturn static inline void check_fail(const char *file, int line, const char *text)
{
    fprintf(stderr, "%s:%d: check failed [%s]: %s\n", file, line, CHECK_VARIANT, text);
    _exit(1);
}

static inline void check_equal(const char *file, int line, const char *text, long long a, long long b)
{
    if (a == b)
        return;
    fprintf(stderr, "%s:%d: %lld is not %lld [%s]: %s\n", file, line, a, b, CHECK_VARIANT, text);
    _exit(1);
}

#define CHECK(condition) ((condition) ? (void)0 : check_fail(__FILE__, __LINE__, #condition))
#define CHECK_EQUAL(a, b) check_equal(__FILE__, __LINE__, #a " == " #b, (long long)(a), (long long)(b))

static inline double check_now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static inline void check_run(const char *file, const char *name, void (*test)(void))
{
    double start = check_now_s();
    alarm(CHECK_SECONDS_MAX);
    test();
    alarm(0);
    printf("ok  %-9s  %-18s %-60s %6.2f s\n", CHECK_VARIANT, file, name, check_now_s() - start);
    fflush(stdout);
}

#define RUN(test) check_run(__FILE__, #test, test)

/* A seeded generator (splitmix64), so that each run of a test is the same. */
static inline uint64_t check_mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static inline uint32_t check_random(uint64_t *state, uint32_t below)
{
    *state += 1;
    return (uint32_t)(check_mix(*state) >> 32) % below;
}

/* The part of its full length that a stress test runs under a sanitizer. */
#if defined(__SANITIZE_THREAD__)
#define CHECK_SCALE(n) ((n) / 20)
#elif defined(__SANITIZE_ADDRESS__)
#define CHECK_SCALE(n) ((n) / 10)
#else
#define CHECK_SCALE(n) (n)
#endif

#endif
