/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * seal_bench: nanoseconds to seal a datagram with AES-128-GCM, with AES-256-GCM, and by mp_seal.
 *
 * Question: what do the longer key and the library cost?
 * Method: libcrypto (context reused, a new nonce and 20 bytes of associated data a datagram) with both keys, then
 * mp_seal with the library that it was built with; a small and a usual length, in turn; the median of several runs.
 *
 *   make -C tests/native bench [ARGS=--json]
 */
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "mp_seal.h"

#define RUNS 9
#define DATAGRAMS 100000

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static double seal(EVP_CIPHER_CTX *c, int length)
{
    static uint8_t datagram[64][2048];
    uint8_t nonce[12] = { 0 }, header[20] = { 0 }, tag[16];
    double start = now_ns();
    for (int i = 0, n; i < DATAGRAMS; i++) {
        uint8_t *body = datagram[i % 64];
        memcpy(nonce, &i, sizeof i);
        if (EVP_CipherInit_ex(c, NULL, NULL, NULL, nonce, -1) != 1 ||
            EVP_CipherUpdate(c, NULL, &n, header, sizeof header) != 1 ||
            EVP_CipherUpdate(c, body, &n, body, length) != 1 || EVP_CipherFinal_ex(c, body + length, &n) != 1 ||
            EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_GET_TAG, sizeof tag, tag) != 1)
            exit(1);
    }
    return (now_ns() - start) / DATAGRAMS;
}

static double seal_as_built(struct mp_cipher *c, int length)
{
    static uint8_t datagram[64][2048];
    double start = now_ns();
    for (int i = 0; i < DATAGRAMS; i++) {
        memcpy(datagram[i % 64] + 8, &i, sizeof i);
        if (mp_seal(c, datagram[i % 64], (uint32_t)length))
            exit(1);
    }
    return (now_ns() - start) / DATAGRAMS;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
    static const int lengths[] = { 92, 1344 };
    const uint8_t key[32] = { 1 };
    int json = argc > 1 && !strcmp(argv[1], "--json");
    EVP_CIPHER_CTX *cipher[2] = { EVP_CIPHER_CTX_new(), EVP_CIPHER_CTX_new() };
    EVP_CipherInit_ex(cipher[0], EVP_aes_128_gcm(), NULL, key, NULL, 1);
    EVP_CipherInit_ex(cipher[1], EVP_aes_256_gcm(), NULL, key, NULL, 1);
    struct mp_cipher *built = mp_cipher_new(mp_gcm_new(), key, 1);
    const char *name = MP_IPSEC_MB ? "ipsec-mb" : "libcrypto";
    printf(json ? "{\"built_with\": \"%s\", \"seal_ns\": {"
                : "seal, ns a datagram       AES-128-GCM  AES-256-GCM  mp_seal (%s)\n", name);
    for (int l = 0; l < 2; l++) {
        double took[3][RUNS];
        for (int run = 0; run < RUNS; run++) {
            for (int k = 0; k < 2; k++)
                took[k][run] = seal(cipher[k], lengths[l]);
            took[2][run] = seal_as_built(built, lengths[l]);
        }
        for (int k = 0; k < 3; k++)
            qsort(took[k], RUNS, sizeof took[k][0], compare);
        printf(json ? "%s\"%d\": [%.0f, %.0f, %.0f]" : "%s%6d bytes              %11.0f  %11.0f  %11.0f\n",
               json && l ? ", " : "", lengths[l], took[0][RUNS / 2], took[1][RUNS / 2], took[2][RUNS / 2]);
    }
    printf("%s", json ? "}}\n" : "");
    EVP_CIPHER_CTX_free(cipher[0]);
    EVP_CIPHER_CTX_free(cipher[1]);
    return 0;
}
