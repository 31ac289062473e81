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
    uint32_t is_refused;        /* its window has refused the number below since the last report, see mp_forgery.h */
    uint64_t refused;
};

/* Ciphers of a link's probes; NULL: it has no probe keys, and sender keys seal its probes. */
struct mp_probe_ciphers {
    struct mp_cipher *seal, *open;
};

struct mp_rx_peers {
    struct mp_worker *w;
    struct mp_counters *count;
    uint32_t links_version, keys_version, sender_version;
    uint32_t last_key;          /* of the last datagram: consecutive datagrams mostly have one origin */
    uint32_t has_refusals;      /* of any key */
    struct mp_sender sender;
    struct mp_cipher *seal;     /* with the active key of `sender`; NULL: not sealed */
    uint16_t by_key[MP_RX_INDEX], by_endpoint[MP_RX_INDEX], by_node[MP_RX_INDEX];
    struct mp_rx_key keys[MP_KEYS_MAX];
    struct mp_link links[MP_LINKS_MAX]; /* node 0: free, or control is writing it */
    struct mp_probe_ciphers probe[MP_LINKS_MAX];
};

struct mp_rx_peers *mp_rx_peers_new(struct mp_worker *w);
void mp_rx_peers_free(struct mp_rx_peers *s);

/* Copy the records that control has changed.  Returns whether links are among them. */
int mp_rx_peers_refresh(struct mp_rx_peers *s);

/* Return the link with this endpoint, or MP_NO_LINK. */
uint32_t mp_rx_peers_link_of(const struct mp_rx_peers *s, const union mp_address *from);

/* Return the replay window of a number's sequence space, NULL if the origin has no such space. */
struct mp_window *mp_rx_peers_window(const struct mp_rx_peers *s, const struct mp_key *key, uint64_t sequence);

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

#define MP_TYPE_REPLAYED_PROBE 16       /* no type of the wire, which has 4 bits */

/* Verify one datagram; `scratch` has room for its plain text.  Returns its type (enum mp_type) and fills `o`, or
 * returns 0 when the datagram was dropped and counted.  A probe that verifies but is a replay is counted too, and
 * returned as MP_TYPE_REPLAYED_PROBE: only its report may be read, which also a window full of forged numbers must not
 * keep out. */
int mp_rx_peers_open(struct mp_rx_peers *s, const uint8_t *datagram, uint32_t length, uint8_t *scratch,
                     struct mp_opened *o);

#endif
