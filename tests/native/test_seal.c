/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Goal: datagrams are sealed with standard AES-256-GCM, and no changed datagram opens.
 * Method: libcrypto's EVP seals and opens the same by itself, for each length; each bit of a datagram is changed in
 * turn.
 */
#include <openssl/evp.h>

#include "check.h"
#include "mp_seal.h"

#define LENGTH_MAX 1500u

static const uint8_t key[MP_KEY_BYTES] = { 3, 1, 4, 1, 5, 9, 2, 6 };

/* Seal as specified: nonce = origin and sequence, associated data = header without hop limit. */
static void seal_by_evp(uint8_t *datagram, uint32_t length)
{
    uint8_t header[MP_HEADER_BYTES];
    int n;
    memcpy(header, datagram, sizeof header);
    header[2] = 0;
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    CHECK(EVP_EncryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, datagram + 4) == 1);
    CHECK(EVP_EncryptUpdate(ctx, NULL, &n, header, sizeof header) == 1);
    uint8_t *body = datagram + MP_HEADER_BYTES;
    CHECK(EVP_EncryptUpdate(ctx, body, &n, body, (int)length) == 1);
    CHECK(EVP_EncryptFinal_ex(ctx, body + length, &n) == 1);
    CHECK(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_GET_TAG, MP_TAG_BYTES, body + length) == 1);
    EVP_CIPHER_CTX_free(ctx);
}

static void make_datagram(uint8_t *datagram, uint32_t length)
{
    struct mp_header h = { .type = MP_TYPE_DATA, .flags = MP_FLAG_SEALED, .hop_limit = 9, .epoch = 2, .origin = 77,
                           .sequence = check_mix(length), .stream_sequence = length };
    mp_header_write(datagram, &h);
    for (uint32_t i = 0; i < length; i++)
        datagram[MP_HEADER_BYTES + i] = (uint8_t)(check_mix(i) >> 9);
}

static void sealed_bytes_match_evp_at_each_length(void)
{
    struct mp_gcm *gcm = mp_gcm_new();
    struct mp_cipher *seals = mp_cipher_new(gcm, key, 1), *opens = mp_cipher_new(gcm, key, 0);
    uint8_t expected[2048], got[2048], plain[2048];
    for (uint32_t length = 0; length <= LENGTH_MAX; length++) {
        make_datagram(expected, length);
        make_datagram(got, length);
        seal_by_evp(expected, length);
        CHECK_EQUAL(mp_seal(seals, got, length), 0);
        CHECK(!memcmp(expected, got, MP_HEADER_BYTES + length + MP_TAG_BYTES));
        got[2]--;               /* the hop limit changes at each relay */
        CHECK_EQUAL(mp_open(opens, got, length, plain), 0);
        make_datagram(expected, length);
        CHECK(!memcmp(expected + MP_HEADER_BYTES, plain, length));
    }
    mp_cipher_free(seals);
    mp_cipher_free(opens);
    mp_gcm_free(gcm);
}

static void no_changed_bit_opens(void)
{
    const uint32_t length = 100, all = MP_HEADER_BYTES + 100 + MP_TAG_BYTES;
    struct mp_gcm *gcm = mp_gcm_new();
    struct mp_cipher *seals = mp_cipher_new(gcm, key, 1), *opens = mp_cipher_new(gcm, key, 0);
    uint8_t datagram[256], plain[256];
    make_datagram(datagram, length);
    CHECK_EQUAL(mp_seal(seals, datagram, length), 0);
    for (uint32_t bit = 0; bit < 8 * all; bit++) {
        datagram[bit / 8] ^= (uint8_t)(1u << bit % 8);
        CHECK_EQUAL(mp_open(opens, datagram, length, plain), bit / 8 == 2 ? 0 : MP_DROP_authentication);
        datagram[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    CHECK_EQUAL(mp_open(opens, datagram, length - 1, plain), MP_DROP_authentication);
    CHECK_EQUAL(mp_open(opens, datagram, length, plain), 0);
    mp_cipher_free(seals);
    mp_cipher_free(opens);
    mp_gcm_free(gcm);
}

int main(void)
{
    RUN(sealed_bytes_match_evp_at_each_length);
    RUN(no_changed_bit_opens);
    return 0;
}
