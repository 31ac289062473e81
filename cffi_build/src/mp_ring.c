/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_ring: the part of the doorbell that needs the kernel.  See mp_ring.h.
 */
#include "mp_ring.h"

#include <errno.h>
#include <unistd.h>

void mp_bell_ring(struct mp_bell *bell, int fd)
{
    if (mp_bell_claim(bell))
        mp_bell_write(fd);
}

void mp_bell_write(int fd)
{
    const uint64_t one = 1;
    /* EAGAIN: the counter of the eventfd is full, so it is readable already. */
    while (write(fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

void mp_bell_clear(int fd)
{
    uint64_t count;
    /* EAGAIN: the eventfd is empty already, the wake-up had another cause. */
    while (read(fd, &count, sizeof count) < 0 && errno == EINTR)
        ;
}
