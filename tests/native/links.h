/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * links: links of tests, in one call each.
 */
#ifndef LINKS_H
#define LINKS_H

#include "mp_links_keys.h"

/* Set a link; NULL: no endpoint, or no candidate. */
static inline int set_link(struct mp_region *r, uint32_t index, uint32_t node, uint32_t up,
                           const struct mp_endpoint *endpoint, const struct mp_endpoint *candidate)
{
    struct mp_link link = { .node = node, .up = up };
    if (endpoint)
        link.endpoint = *endpoint;
    if (candidate)
        link.candidate = *candidate;
    return mp_link_set(r, index, &link);
}

#endif
