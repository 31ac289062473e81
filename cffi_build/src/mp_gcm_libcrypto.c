/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_gcm by OpenSSL's libcrypto.  The context is reused: only the nonce is set for each packet.
 */
#include "mp_gcm.h"

#if !MP_IPSEC_MB

#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

struct mp_gcm {
    EVP_CIPHER *cipher;
};

struct mp_cipher {
    EVP_CIPHER_CTX *context;
};

struct mp_gcm *mp_gcm_new(void)
{
    struct mp_gcm *gcm = calloc(1, sizeof *gcm);
    if (gcm && (gcm->cipher = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL)))
        return gcm;
    free(gcm);
    return NULL;
}

void mp_gcm_free(struct mp_gcm *gcm)
{
    if (gcm)
        EVP_CIPHER_free(gcm->cipher);
    free(gcm);
}

struct mp_cipher *mp_cipher_new(const struct mp_gcm *gcm, const uint8_t key[MP_GCM_KEY_BYTES], int seals)
{
    struct mp_cipher *c = calloc(1, sizeof *c);
    if (c && (c->context = EVP_CIPHER_CTX_new()) &&
        EVP_CipherInit_ex(c->context, gcm->cipher, NULL, key, NULL, seals) == 1)
        return c;
    mp_cipher_free(c);
    return NULL;
}

void mp_cipher_free(struct mp_cipher *c)
{
    if (c)
        EVP_CIPHER_CTX_free(c->context);        /* wipes the key */
    free(c);
}

static int begin(EVP_CIPHER_CTX *context, const struct mp_gcm_packet *p)
{
    int n;
    return EVP_CipherInit_ex(context, NULL, NULL, NULL, p->nonce, -1) == 1 &&
           EVP_CipherUpdate(context, NULL, &n, p->associated, (int)p->associated_bytes) == 1;
}

int mp_gcm_seal(struct mp_cipher *c, const struct mp_gcm_packet *p, uint8_t *body, uint32_t length, uint8_t *tag)
{
    int n;
    if (begin(c->context, p) && EVP_CipherUpdate(c->context, body, &n, body, (int)length) == 1 &&
        EVP_CipherFinal_ex(c->context, body + length, &n) == 1 &&
        EVP_CIPHER_CTX_ctrl(c->context, EVP_CTRL_GCM_GET_TAG, MP_GCM_TAG_BYTES, tag) == 1)
        return 0;
    return -EIO;
}

int mp_gcm_open(struct mp_cipher *c, const struct mp_gcm_packet *p, const uint8_t *body, uint32_t length,
                const uint8_t *tag, uint8_t *out)
{
    uint8_t expected[MP_GCM_TAG_BYTES];         /* the call takes no const pointer */
    int n;
    memcpy(expected, tag, sizeof expected);
    if (begin(c->context, p) && EVP_CipherUpdate(c->context, out, &n, body, (int)length) == 1 &&
        EVP_CIPHER_CTX_ctrl(c->context, EVP_CTRL_GCM_SET_TAG, sizeof expected, expected) == 1 &&
        EVP_CipherFinal_ex(c->context, out + length, &n) == 1)
        return 0;
    return -EBADMSG;
}

#endif
