/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_probe: probes of links and their echoes, and reports of forged numbers.  Private to overlay_ingress.
 *
 *   lane 0, each second               a probe to the endpoint of each link that is up
 *   lane 0, at once, then rarer       a probe to the candidate of such a link, which has not answered yet
 *   any lane                          answers a probe of a peer by an echo with the same body
 *   lane of the echo                  round-trip time and loss, smoothed, into mp_link_rx; a punt if its endpoint is
 *                                     new
 *   any lane, at most each second     a probe with a report (mp_forgery.h) to the endpoint of each origin of which a
 *                                     window has refused a datagram; a proof goes to control as a punt
 *
 * A probe carries the time of sending and a number: the hash of time, link and endpoint under a secret of this region.
 * So any lane can check an echo, and only who receives datagrams at an endpoint can answer for it.  Control writes an
 * endpoint into the link, and so lets data go there, only after such an echo has come from exactly that endpoint.
 *
 * Two nodes that have identities seal their probes and echoes with two keys of their own, one for each direction, also
 * with --insecure (mp_link.has_probe_keys).  Other members have the sender keys of both, but not these: they can
 * neither probe nor answer for a peer, and so neither move its endpoint nor report forgeries in its name.  The keys are
 * derived from the identities and the present start of both, and the numbers of probes are counted in shared memory for
 * all links of a lane: so no pair (key, nonce) is used twice.  Only the peer can mark the replay window of its probes.
 *
 * A candidate may be a stranger's.  It gets MP_PROBE_FIRST probes within a second, then one after MP_PROBE_WAIT_NS and
 * twice that time each; a candidate on a host that has never connected to this node waits MP_PROBE_STRANGER_WAIT_NS.
 * All candidates together get MP_PROBE_BURST probes and one each MP_PROBE_COST_NS; an answer gives its probes back.
 *
 * A probe or echo comes straight from its origin.  If it comes from a third endpoint, control gets a punt and makes
 * that one the candidate: the peer, or the address translator in front of it, has moved.
 */
#ifndef MP_PROBE_H
#define MP_PROBE_H

#include "mp_rx_peers.h"

#define MP_PROBE_FIRST 3u       /* with a loss of 10 % each way, all three are lost for 7 of 1,000 candidates */
#define MP_PROBE_WAIT_NS UINT64_C(5000000000) /* the probes of a peer that is there cause a next one much sooner */
#define MP_PROBE_STRANGER_WAIT_NS UINT64_C(60000000000) /* a stranger gets three probes a minute at the most */
#define MP_PROBE_WAIT_MAX_NS UINT64_C(300000000000)
#define MP_PROBE_BURST 32u      /* 64 nodes start together: two round trips until all are probed */
#define MP_PROBE_COST_NS UINT64_C(2000000000) /* with the burst 62 probes of 80 bytes in the worst minute, 5 kB */
#define MP_ECHO_AGE_NS UINT64_C(5000000000) /* oldest probe whose echo counts: twice the timeout of a session */

struct mp_probe;

struct mp_probe *mp_probe_new(struct mp_rx_peers *peers);
void mp_probe_free(struct mp_probe *s);

/* After mp_rx_peers_refresh() has copied links: probe new ones at the next mp_probe_send(). */
void mp_probe_links_changed(struct mp_probe *s);

/* Send the probes that are due (lane 0 only), and the reports. */
void mp_probe_send(struct mp_probe *s);

/* Return when probes or reports are due; UINT64_MAX: never. */
uint64_t mp_probe_due_ns(const struct mp_probe *s);

/* Data of this link's peer has come from an endpoint of no link: probe the peer, at most once a second.  Every member
 * can seal data in its name, so nothing moves; the echo shows where it is. */
void mp_probe_unknown_endpoint(struct mp_probe *s, uint32_t link);

/* Handle a verified datagram of type MP_TYPE_PROBE or MP_TYPE_ECHO, or an MP_TYPE_REPLAYED_PROBE. */
void mp_probe_receive(struct mp_probe *s, int type, const struct mp_opened *o, const union mp_address *from);

#endif
