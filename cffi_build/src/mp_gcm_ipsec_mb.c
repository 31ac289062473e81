/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_gcm by Intel's Multi-Buffer Crypto for IPsec.  Only its direct calls for single packets are used.
 */
#include "mp_gcm.h"

#if MP_IPSEC_MB

#include <errno.h>
#include <intel-ipsec-mb.h>
#include <stdlib.h>
#include <string.h>

struct mp_gcm {                 /* the functions for the instruction set of this machine */
    aes_gcm_pre_t prepare;
    aes_gcm_enc_dec_t seal, open;
};

struct mp_cipher {
    struct gcm_key_data key;
    struct gcm_context_data work;
    const struct mp_gcm *gcm;
};

struct mp_gcm *mp_gcm_new(void)
{
    struct mp_gcm *gcm = calloc(1, sizeof *gcm);
    IMB_MGR *all = alloc_mb_mgr(0);
    IMB_ARCH arch = IMB_ARCH_NONE;
    if (all)
        init_mb_mgr_auto(all, &arch);
    if (!gcm || arch == IMB_ARCH_NONE) {
        free(gcm);
        gcm = NULL;
    } else {
        *gcm = (struct mp_gcm){ .prepare = all->gcm256_pre, .seal = all->gcm256_enc, .open = all->gcm256_dec };
    }
    if (all)
        free_mb_mgr(all);
    return gcm;
}

void mp_gcm_free(struct mp_gcm *gcm)
{
    free(gcm);
}

struct mp_cipher *mp_cipher_new(const struct mp_gcm *gcm, const uint8_t key[MP_GCM_KEY_BYTES], int seals)
{
    const size_t alignment = 64, bytes = (sizeof(struct mp_cipher) + alignment - 1) / alignment * alignment;
    struct mp_cipher *c = aligned_alloc(alignment, bytes);
    (void)seals;                /* one expanded key serves both */
    if (!c)
        return NULL;
    memset(c, 0, bytes);
    c->gcm = gcm;
    gcm->prepare(key, &c->key);
    return c;
}

void mp_cipher_free(struct mp_cipher *c)
{
    if (c)
        explicit_bzero(c, sizeof *c);
    free(c);
}

int mp_gcm_seal(struct mp_cipher *c, const struct mp_gcm_packet *p, uint8_t *body, uint32_t length, uint8_t *tag)
{
    c->gcm->seal(&c->key, &c->work, body, body, length, p->nonce, p->associated, p->associated_bytes, tag,
                 MP_GCM_TAG_BYTES);
    return 0;
}

/* Compare in a time that does not depend on where they differ. */
static int is_equal(const uint8_t *a, const uint8_t *b)
{
    uint64_t x[2], y[2];
    memcpy(x, a, sizeof x);
    memcpy(y, b, sizeof y);
    return ((x[0] ^ y[0]) | (x[1] ^ y[1])) == 0;
}

int mp_gcm_open(struct mp_cipher *c, const struct mp_gcm_packet *p, const uint8_t *body, uint32_t length,
                const uint8_t *tag, uint8_t *out)
{
    uint8_t computed[MP_GCM_TAG_BYTES];
    c->gcm->open(&c->key, &c->work, out, body, length, p->nonce, p->associated, p->associated_bytes, computed,
                 sizeof computed);
    return is_equal(computed, tag) ? 0 : -EBADMSG;
}

#endif
