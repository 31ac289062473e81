/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Goal: the replay window accepts each sequence number once, late ones within its width, and older ones never.
 * Method: the cases of RFC 6479 (the reference in its Appendix, and WireGuard's test of it) with the width of this
 * window; random order against a plain model; the edges of the number space; two threads on one window.
 */
#include <pthread.h>
#include <sched.h>

#include "check.h"
#include "mp_seal.h"

#define WIDTH ((uint64_t)MP_WINDOW_WORDS * 32)
#define SPACE (UINT64_C(1) << 56)

static struct mp_window window;

static void clear(void)
{
    memset(&window, 0, sizeof window);
}

static void take(uint64_t sequence, int fresh)
{
    CHECK_EQUAL(mp_window_is_fresh(&window, sequence), fresh);
    CHECK_EQUAL(mp_window_take(&window, sequence), fresh);
    CHECK_EQUAL(mp_window_is_fresh(&window, sequence), 0);
}

/* In the order of WireGuard's counter_test (selftest/counter.c), which follows the RFC. */
static void rfc6479_cases_hold(void)
{
    clear();
    take(0, 1);
    take(1, 1);
    take(1, 0);
    take(9, 1);
    take(8, 1);
    take(7, 1);
    take(7, 0);
    take(WIDTH, 1);
    take(WIDTH - 1, 1);
    take(WIDTH - 1, 0);
    take(WIDTH - 2, 1);
    take(2, 0);                 /* its word belongs to the block of WIDTH now */
    take(WIDTH + 32, 1);
    take(40, 0);                /* … as does that of the block of 32 … 63 */
    take(64, 1);                /* the oldest number that still has a word */
    take(3 * WIDTH, 1);
    take(2 * WIDTH - 1, 1);     /* late, within the width */
    take(2 * WIDTH - 1, 0);
}

static void numbers_pass_once_in_both_directions(void)
{
    clear();
    for (uint64_t i = 1; i <= WIDTH; i++)
        take(i, 1);
    take(0, 0);
    clear();
    for (uint64_t i = WIDTH; i-- > 0;)
        take(i, 1);
    for (uint64_t i = 0; i < WIDTH; i += 7)
        take(i, 0);
}

static void wide_jump_expires_older_numbers(void)
{
    clear();
    take(5, 1);
    take(5 + 1000 * WIDTH, 1);
    take(5, 0);
    take(5 + 999 * WIDTH, 0);
}

/* The window of a new key begins with high numbers if the sender has sent for long: they do not restart at 0. */
static void window_begins_at_any_number(void)
{
    static const uint64_t starts[] = { 0, 1, UINT64_C(1) << 20, UINT64_C(1) << 35, (UINT64_C(1) << 36) - 1,
                                       UINT64_C(1) << 36, (UINT64_C(1) << 36) + 12345, (UINT64_C(1) << 37) - 1,
                                       UINT64_C(1) << 37, (UINT64_C(1) << 55) + 3 };
    for (size_t i = 0; i < sizeof starts / sizeof starts[0]; i++) {
        clear();
        for (uint64_t n = starts[i]; n < starts[i] + 3 * WIDTH; n += 31)
            take(n, 1);
        take(starts[i], 0);
        take(starts[i] + 2 * WIDTH + 31, (starts[i] + 2 * WIDTH + 31 - starts[i]) % 31 != 0);
    }
}

/* The top byte is the sequence space and not part of the number. */
static void space_is_not_part_of_the_number(void)
{
    clear();
    take(3, 1);
    CHECK_EQUAL(mp_window_is_fresh(&window, 5 * SPACE + 3), 0);
    CHECK_EQUAL(mp_window_is_fresh(&window, 5 * SPACE + 4), 1);
}

/* The block that refuses numbers is found, wherever it is, and across the end of the 32 bits of a block. */
static void highest_block_is_found(void)
{
    static const uint64_t starts[] = { 0, 31, UINT64_C(1) << 20, (UINT64_C(1) << 37) - 64, (UINT64_C(1) << 55) + 3 };
    for (size_t i = 0; i < sizeof starts / sizeof starts[0]; i++) {
        clear();
        CHECK_EQUAL(mp_window_highest(&window, starts[i]), (uint32_t)(starts[i] >> 5));
        take(starts[i], 1);
        CHECK_EQUAL(mp_window_highest(&window, starts[i]), (uint32_t)(starts[i] >> 5));
        take(starts[i] + 5 * WIDTH + 77, 1);
        take(starts[i] + 2 * WIDTH, 1);
        CHECK_EQUAL(mp_window_highest(&window, starts[i]), (uint32_t)((starts[i] + 5 * WIDTH + 77) >> 5));
        CHECK_EQUAL(mp_window_highest(&window, 7 * SPACE + starts[i]), (uint32_t)((starts[i] + 5 * WIDTH + 77) >> 5));
    }
}

/* Against a model that holds all numbers: none is accepted twice, none of the last WIDTH - 32 is refused. */
static void random_order_matches_a_model(void)
{
    static uint8_t seen[1u << 20];
    uint64_t state = 6479, newest = 0;
    clear();
    for (uint32_t i = 0; i < 2000000; i++) {
        state = check_mix(state + i);
        uint64_t late = state >> 63 ? 0 : state % (state & 64 ? WIDTH + 5000 : 300), n = newest + 1 + state / WIDTH % 3;
        n = n > late ? n - late : 0;
        if (n >= sizeof seen)
            break;
        int fresh = mp_window_take(&window, n);
        CHECK(!(fresh && seen[n]));
        CHECK(fresh || seen[n] || n / 32 + MP_WINDOW_WORDS <= newest / 32);
        seen[n] |= (uint8_t)fresh;
        newest = n > newest ? n : newest;
    }
    CHECK(newest > 300000);
}

static _Atomic uint32_t taken, reached[2], last = 100000;

#define SHARED_SECONDS 5.0 /* bound for busy machines, where each number may take some milliseconds */

/* Two threads take each number at the same moment: neither goes on before the other has reached it. */
static void *take_all(void *argument)
{
    uint32_t self = argument != NULL;
    double start = check_now_s();
    for (uint32_t n = 1; n <= atomic_load(&last); n++) {
        if (self == 0 && n + 1 < atomic_load(&last) && check_now_s() - start > SHARED_SECONDS)
            atomic_store(&last, n + 1);
        atomic_store(&reached[self], n);
        while (atomic_load(&reached[!self]) < n)
            sched_yield();
        if (mp_window_take(&window, n))
            atomic_fetch_add(&taken, 1);
    }
    return NULL;
}

static void threads_share_a_window(void)
{
    pthread_t thread[2];
    clear();
    for (int i = 0; i < 2; i++)
        CHECK_EQUAL(pthread_create(&thread[i], NULL, take_all, i ? &window : NULL), 0);
    for (int i = 0; i < 2; i++)
        CHECK_EQUAL(pthread_join(thread[i], NULL), 0);
    CHECK_EQUAL(atomic_load(&taken), atomic_load(&last));
}

int main(void)
{
    RUN(rfc6479_cases_hold);
    RUN(numbers_pass_once_in_both_directions);
    RUN(wide_jump_expires_older_numbers);
    RUN(window_begins_at_any_number);
    RUN(space_is_not_part_of_the_number);
    RUN(highest_block_is_found);
    RUN(random_order_matches_a_model);
    RUN(threads_share_a_window);
    return 0;
}
