/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_forgery: evidence of forged sequence numbers, in the second half of a probe.  Private to overlay_ingress.
 *
 *   receiver   a replay window has refused datagrams of an origin: reports the highest number of that window to it
 *   origin     has not used that number: another node seals with its key, and control is notified
 *
 * Every member has the sender keys of all nodes.  It can seal numbers far ahead of the origin's in its name, and the
 * window then refuses the origin's own.  The receiver cannot know which are genuine; the origin has counted them.  So
 * replays that an outsider sends prove nothing, and a receiver need trust nobody.  Control then changes the key, which
 * gives every receiver a new window; with --insecure it changes the epoch only.
 *
 * It sends nothing: mp_probe.h does, with 0 in place of the form in probes without a report.  In network byte order:
 *
 *   0         1       2       3   4             8
 *   | form 1 | epoch | space | 0 | block u32    |    a block is 32 numbers, see mp_seal.h
 */
#ifndef MP_FORGERY_H
#define MP_FORGERY_H

#include "mp_rx_peers.h"

#define MP_FORGERY_BYTES 8u

/* Write the report about a window that has refused the number `sequence` of this key. */
void mp_forgery_write(const struct mp_rx_peers *s, const struct mp_key *key, uint64_t sequence,
                      uint8_t out[MP_FORGERY_BYTES]);

/* Return whether a report proves that a number was used that this node has not used. */
int mp_forgery_is_proven(const struct mp_rx_peers *s, const uint8_t report[MP_FORGERY_BYTES]);

#endif
