/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_seal: libcrypto's GCM with the context reused, and the replay window.  See mp_seal.h.
 */
#include "mp_seal.h"

#include <errno.h>
#include <openssl/evp.h>

struct mp_cipher;               /* is an EVP_CIPHER_CTX: nothing of ours to add */

static EVP_CIPHER_CTX *context(struct mp_cipher *c)
{
    return (EVP_CIPHER_CTX *)(void *)c;
}

struct mp_cipher *mp_cipher_new(const uint8_t key[MP_KEY_BYTES], int seals)
{
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    if (ctx && EVP_CipherInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, NULL, seals) == 1)
        return (struct mp_cipher *)(void *)ctx;
    EVP_CIPHER_CTX_free(ctx);
    return NULL;
}

int mp_seal_prepare(void)
{
    static const uint8_t none[MP_KEY_BYTES];
    uint8_t datagram[MP_HEADER_BYTES + MP_TAG_BYTES] = { 0 };
    struct mp_cipher *c = mp_cipher_new(none, 1);
    int status = c ? mp_seal(c, datagram, 0) : -EIO;
    mp_cipher_free(c);
    return status;
}

void mp_cipher_free(struct mp_cipher *c)
{
    EVP_CIPHER_CTX_free(context(c));
}

/* Starts a packet: only the nonce is new.  The hop limit changes on the way and is not authenticated. */
static int begin(EVP_CIPHER_CTX *ctx, const uint8_t *header)
{
    uint8_t associated[MP_HEADER_BYTES];
    int n;
    memcpy(associated, header, sizeof associated);
    associated[2] = 0;
    return EVP_CipherInit_ex(ctx, NULL, NULL, NULL, header + 4, -1) == 1 &&
           EVP_CipherUpdate(ctx, NULL, &n, associated, sizeof associated) == 1;
}

int mp_seal(struct mp_cipher *c, uint8_t *header, uint32_t length)
{
    EVP_CIPHER_CTX *ctx = context(c);
    uint8_t *body = header + MP_HEADER_BYTES;
    int n;
    if (begin(ctx, header) && EVP_CipherUpdate(ctx, body, &n, body, (int)length) == 1 &&
        EVP_CipherFinal_ex(ctx, body + length, &n) == 1 &&
        EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_GET_TAG, MP_TAG_BYTES, body + length) == 1)
        return 0;
    return -EIO;
}

int mp_open(struct mp_cipher *c, const uint8_t *header, uint32_t length, uint8_t *out)
{
    EVP_CIPHER_CTX *ctx = context(c);
    const uint8_t *body = header + MP_HEADER_BYTES;
    uint8_t tag[MP_TAG_BYTES];
    int n;
    memcpy(tag, body + length, sizeof tag);
    if (begin(ctx, header) && EVP_CipherUpdate(ctx, out, &n, body, (int)length) == 1 &&
        EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_SET_TAG, MP_TAG_BYTES, tag) == 1 &&
        EVP_CipherFinal_ex(ctx, out + length, &n) == 1)
        return 0;
    return MP_DROP_authentication;
}

/* ---- replay window ---- */

#define SPACE_MASK ((UINT64_C(1) << 56) - 1)

/* The word after the number has been marked in it; the word itself if the number is not fresh.  A word without a mark
 * was never used: a sender does not start at 0 again when it has a new key. */
static uint64_t marked(uint64_t word, uint64_t block, uint64_t bit)
{
    if (!(uint32_t)word)
        return block << 32 | bit;
    uint32_t newer = (uint32_t)block - (uint32_t)(word >> 32);
    if (!newer)
        return word | bit;
    return newer < UINT32_C(1) << 31 ? block << 32 | bit : word;
}

int mp_window_is_fresh(struct mp_window *w, uint64_t sequence)
{
    uint64_t block = (sequence & SPACE_MASK) >> 5, bit = UINT64_C(1) << (sequence & 31);
    uint64_t word = atomic_load_explicit(&w->word[block % MP_WINDOW_WORDS], memory_order_relaxed);
    return marked(word, block, bit) != word;
}

int mp_window_take(struct mp_window *w, uint64_t sequence)
{
    uint64_t block = (sequence & SPACE_MASK) >> 5, bit = UINT64_C(1) << (sequence & 31), next;
    _Atomic uint64_t *at = &w->word[block % MP_WINDOW_WORDS];
    uint64_t word = atomic_load_explicit(at, memory_order_relaxed);
    do {                        /* lanes may meet here: GRO can put datagrams of two lanes into one super-buffer */
        next = marked(word, block, bit);
        if (next == word)
            return 0;
    } while (!atomic_compare_exchange_weak_explicit(at, &word, next, memory_order_relaxed, memory_order_relaxed));
    return 1;
}
