/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_probe: probes of links and their echoes, and reports of forged numbers.  Private to overlay_ingress.
 *
 *   lane 0, each second, and when a link comes up     a probe with the time of sending to each link that is up
 *   any lane                                          answers a probe of a peer by an echo with the same body
 *   lane of the echo                                  round-trip time and loss, smoothed, into mp_link_rx
 *   any lane, at most each second                     a probe with a report (mp_forgery.h) to each origin of which a
 *                                                     window has refused a datagram; a proof goes to control as a punt
 *
 * A probe or echo comes straight from its origin.  If it comes from a new address, control gets a punt: the peer, or
 * the address translator in front of it, has moved.
 */
#ifndef MP_PROBE_H
#define MP_PROBE_H

#include "mp_rx_peers.h"

struct mp_probe;

struct mp_probe *mp_probe_new(struct mp_rx_peers *peers);
void mp_probe_free(struct mp_probe *s);

/* After mp_rx_peers_refresh() has copied links: probe new ones at the next mp_probe_send(). */
void mp_probe_links_changed(struct mp_probe *s);

/* Send the probes that are due (lane 0 only), and the reports. */
void mp_probe_send(struct mp_probe *s);

/* Return when probes or reports are due; UINT64_MAX: never. */
uint64_t mp_probe_due_ns(const struct mp_probe *s);

/* Handle a verified datagram of type MP_TYPE_PROBE or MP_TYPE_ECHO, or an MP_TYPE_REPLAYED_PROBE. */
void mp_probe_receive(struct mp_probe *s, int type, const struct mp_opened *o, const union mp_address *from);

#endif
