/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_rx_peers: the peers as overlay_ingress sees them, and the verification of their datagrams.
 *
 * It holds process-local copies of the region's links and keys with an index each: keys by (origin, epoch), links by
 * endpoint and by node.  mp_rx_peers_refresh() copies what control has changed; nothing is allocated for a packet.
 * It sends nothing: probes and echoes are in mp_probe.h.  Private to overlay_ingress.
 */
#ifndef MP_RX_PEERS_H
#define MP_RX_PEERS_H

#include "mp_gcm.h"
#include "mp_stage.h"
#include "mp_udp.h"

#define MP_RX_INDEX 4096u       /* twice the keys: short chains of linear probing */

struct mp_rx_key {
    struct mp_key record;       /* origin 0: free, or control is writing it */
    struct mp_cipher *cipher;   /* NULL: not sealed */
    uint32_t link;              /* to the origin, or MP_NO_LINK */
};

struct mp_rx_peers {
    struct mp_worker *w;
    struct mp_counters *count;
    uint32_t links_version, keys_version, sender_version;
    uint32_t last_key;          /* of the last datagram: consecutive datagrams mostly have one origin */
    struct mp_sender sender;
    struct mp_cipher *seal;     /* with the active key of `sender`; NULL: not sealed */
    uint16_t by_key[MP_RX_INDEX], by_endpoint[MP_RX_INDEX], by_node[MP_RX_INDEX];
    struct mp_rx_key keys[MP_KEYS_MAX];
    struct mp_link links[MP_LINKS_MAX]; /* node 0: free, or control is writing it */
};

struct mp_rx_peers *mp_rx_peers_new(struct mp_worker *w);
void mp_rx_peers_free(struct mp_rx_peers *s);

/* Copy the records that control has changed.  Returns whether links are among them. */
int mp_rx_peers_refresh(struct mp_rx_peers *s);

/* Return the link with this endpoint, or MP_NO_LINK. */
uint32_t mp_rx_peers_link_of(const struct mp_rx_peers *s, const union mp_address *from);

/* A verified datagram. */
struct mp_opened {
    uint32_t via;               /* in: the link that it arrived by */
    uint32_t origin;
    uint32_t link;              /* to the origin, or MP_NO_LINK */
    uint32_t stream_sequence;
    uint8_t epoch;
    const uint8_t *body;        /* plain text behind the header */
    uint32_t length;
};

/* Verify one datagram; `scratch` has room for its plain text.  Returns its type (enum mp_type) and fills `o`, or
 * returns 0 when the datagram was dropped and counted. */
int mp_rx_peers_open(struct mp_rx_peers *s, const uint8_t *datagram, uint32_t length, uint8_t *scratch,
                     struct mp_opened *o);

#endif
