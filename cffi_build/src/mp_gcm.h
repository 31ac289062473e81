/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_gcm: AES-256-GCM by one of two libraries, with the same results.
 *
 *   mp_gcm_ipsec_mb.c    Intel's Multi-Buffer Crypto for IPsec, x86-64: one call a datagram, a third cheaper
 *   mp_gcm_libcrypto.c   where that is not installed, or with -DMP_LIBCRYPTO
 *
 * It knows no datagrams, see mp_seal.h.  Lifecycle: a process selects its implementation once, before its filter of
 * system calls forbids to open files.  A cipher is made when a key is installed, gets a new nonce for each packet,
 * and is wiped when it is freed.
 */
#ifndef MP_GCM_H
#define MP_GCM_H

#include <stdint.h>

#if defined(__x86_64__) && !defined(MP_LIBCRYPTO) && __has_include(<intel-ipsec-mb.h>)
#define MP_IPSEC_MB 1
#else
#define MP_IPSEC_MB 0
#endif

#define MP_GCM_KEY_BYTES 32u
#define MP_GCM_NONCE_BYTES 12u
#define MP_GCM_TAG_BYTES 16u

struct mp_gcm;                  /* an implementation, which all ciphers of a process share */
struct mp_cipher;               /* a key and its working memory */

/* Select the implementation.  NULL: no memory, or no AES-256-GCM on this machine. */
struct mp_gcm *mp_gcm_new(void);
void mp_gcm_free(struct mp_gcm *gcm);

/* Make a cipher for sealing or for opening.  NULL: no memory.  It must not outlive `gcm`. */
struct mp_cipher *mp_cipher_new(const struct mp_gcm *gcm, const uint8_t key[MP_GCM_KEY_BYTES], int seals);
void mp_cipher_free(struct mp_cipher *c);

/* Nonce and associated data of a packet. */
struct mp_gcm_packet {
    const uint8_t *nonce;       /* MP_GCM_NONCE_BYTES */
    const uint8_t *associated;
    uint32_t associated_bytes;
};

/* Encrypt `body` in place and write the tag.  Returns 0 or -EIO. */
int mp_gcm_seal(struct mp_cipher *c, const struct mp_gcm_packet *p, uint8_t *body, uint32_t length, uint8_t *tag);

/* Decrypt `body` into `out`.  Returns 0, or -EBADMSG: the tag is wrong, and `out` must not be used. */
int mp_gcm_open(struct mp_cipher *c, const struct mp_gcm_packet *p, const uint8_t *body, uint32_t length,
                const uint8_t *tag, uint8_t *out);

#endif
