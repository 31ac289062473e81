/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_peers: what overlay_ingress knows of its peers, process-local copies of the region's tables with an index each:
 * keys by (origin, epoch), links by endpoint and by node.  Verifies datagrams, measures links.
 *
 * Refreshed when control has changed the tables; nothing is allocated for a packet.  Private to overlay_ingress.
 */
#ifndef MP_PEERS_H
#define MP_PEERS_H

#include "mp_udp.h"
#include "mp_worker.h"

struct mp_peers;

struct mp_peers *mp_peers_new(struct mp_worker *w);
void mp_peers_free(struct mp_peers *s);

/* Takes over what control has changed. */
void mp_peers_refresh(struct mp_peers *s);

/* The link whose endpoint this is, or MP_NO_LINK. */
uint32_t mp_peers_link_of(struct mp_peers *s, const union mp_address *from);

/* Counts what came in by a link. */
void mp_peers_received(struct mp_peers *s, uint32_t link, uint32_t datagrams, uint64_t bytes);

struct mp_opened {
    uint32_t via;               /* in: the link it came by */
    uint32_t origin;
    uint32_t link;              /* to the origin, or MP_NO_LINK */
    uint32_t stream_sequence;
    uint8_t epoch;
    const uint8_t *body;        /* inner packets */
    uint32_t length;
};

/* Verifies one datagram; `scratch` has room for its plain text.  Returns MP_TYPE_DATA with `o` filled, or 0 when it
 * was dropped (and counted) or was a probe or an echo, which are dealt with here. */
int mp_peers_open(struct mp_peers *s, const uint8_t *datagram, uint32_t length, uint8_t *scratch,
                  const union mp_address *from, struct mp_opened *o);

/* Sends probes that are due (lane 0 only). */
void mp_peers_probe(struct mp_peers *s);
uint64_t mp_peers_due_ns(const struct mp_peers *s);

#endif
