/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_links_keys: seqlock records, and a version for each table.  See mp_links_keys.h.
 */
#include "mp_links_keys.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "mp_seqlock.h"

/* The words of a record behind its generation, which is one word. */
#define WORDS(type) ((uint32_t)(sizeof(type) / sizeof(uint32_t)) - 1u)

_Static_assert(offsetof(struct mp_link, generation) == 0 && offsetof(struct mp_link, node) == 4, "");
_Static_assert(offsetof(struct mp_key, generation) == 0 && offsetof(struct mp_key, origin) == 4, "");
_Static_assert(offsetof(struct mp_sender, generation) == 0 && offsetof(struct mp_sender, origin) == 4, "");
_Static_assert(WORDS(struct mp_sender) >= WORDS(struct mp_link) && WORDS(struct mp_sender) >= WORDS(struct mp_key), "");

/* Copy a record, its generation included.  Returns 0 if a write disturbed each attempt. */
static int read_record(const void *record, void *out, uint32_t words)
{
    const _Atomic uint32_t *generation = record;
    uint32_t copy[1 + WORDS(struct mp_sender)];
    for (int i = 0; i < MP_READ_TRIES; i++) {
        copy[0] = mp_seq_enter(generation);
        mp_words_load(&copy[1], generation + 1, words);
        if (mp_seq_same(generation, copy[0])) {
            memcpy(out, copy, sizeof copy[0] * (1u + words));
            return 1;
        }
    }
    return 0;
}

/* Write the words of a record and increment the version.  Only control writes, so a load and a store are enough. */
static void write_record(void *record, const void *from, uint32_t words, _Atomic uint32_t *version)
{
    _Atomic uint32_t *generation = record;
    mp_seq_begin(generation);
    mp_words_store(generation + 1, (const char *)from + sizeof(uint32_t), words);
    mp_seq_end(generation);
    /* release PUBLISHED_VERSION: pairs with the stages' loads; a stage that sees the version copies this record */
    atomic_store_explicit(version, atomic_load_explicit(version, memory_order_relaxed) + 1u, memory_order_release);
}

int mp_link_read(const struct mp_region *r, uint32_t index, struct mp_link *out)
{
    return read_record(&mp_links(r)[index], out, WORDS(struct mp_link));
}

int mp_key_read(const struct mp_region *r, uint32_t index, struct mp_key *out)
{
    return read_record(&mp_keys(r)[index], out, WORDS(struct mp_key));
}

int mp_sender_read(const struct mp_region *r, struct mp_sender *out)
{
    return read_record(mp_sender(r), out, WORDS(struct mp_sender));
}

static void write_link(struct mp_region *r, uint32_t index, const struct mp_link *link)
{
    write_record(&mp_links(r)[index], link, WORDS(struct mp_link), &mp_published(r)->links_version);
}

/* Clear the bytes of an endpoint that its family does not use.  Returns 0 for an unknown family. */
static int is_endpoint(struct mp_endpoint *e)
{
    uint32_t used = e->family == AF_INET6 ? 16 : e->family == AF_INET ? 4 : 0;
    memset(e->address + used, 0, sizeof e->address - used);
    return used || !e->family;
}

int mp_link_set(struct mp_region *r, uint32_t index, const struct mp_link *from)
{
    struct mp_link link = *from;
    if (index >= MP_LINKS_MAX || !link.node || !is_endpoint(&link.endpoint) || !is_endpoint(&link.candidate))
        return -EINVAL;
    write_link(r, index, &link);
    return 0;
}

int mp_link_clear(struct mp_region *r, uint32_t index)
{
    static const struct mp_link none;
    if (index >= MP_LINKS_MAX)
        return -EINVAL;
    write_link(r, index, &none);
    return 0;
}

static void write_key(struct mp_region *r, uint32_t index, const struct mp_key *key)
{
    write_record(&mp_keys(r)[index], key, WORDS(struct mp_key), &mp_published(r)->keys_version);
}

int mp_key_set(struct mp_region *r, uint32_t index, uint32_t origin, uint8_t epoch, uint8_t sealed, uint16_t lanes,
               uint32_t window, const uint8_t bytes[MP_KEY_BYTES])
{
    struct mp_key key = { .origin = origin, .epoch = epoch, .sealed = sealed, .lanes = lanes, .window = window };
    if (index >= MP_KEYS_MAX || !origin || !lanes || lanes > MP_LANES_MAX || window > MP_WINDOWS_MAX - 2u * lanes)
        return -EINVAL;
    memcpy(key.key, bytes, sizeof key.key);
    for (uint32_t i = 0; i < 2u * lanes; i++)
        for (uint32_t word = 0; word < MP_WINDOW_WORDS; word++)
            atomic_store_explicit(&mp_windows(r)[window + i].word[word], 0, memory_order_relaxed);
    write_key(r, index, &key);
    return 0;
}

int mp_key_clear(struct mp_region *r, uint32_t index)
{
    static const struct mp_key none;
    if (index >= MP_KEYS_MAX)
        return -EINVAL;
    write_key(r, index, &none);
    return 0;
}

int mp_sender_set(struct mp_region *r, uint32_t origin, uint32_t sealed, uint8_t active_epoch, uint8_t even_epoch,
                  const uint8_t *even_key, uint8_t odd_epoch, const uint8_t *odd_key)
{
    /* A slot without a key holds an epoch of the other parity, which no reader looks for there. */
    struct mp_sender sender = { .origin = origin, .sealed = sealed, .epoch = { 1, 0 },
                                .active = active_epoch & 1 };
    if ((even_key && even_epoch & 1) || (odd_key && !(odd_epoch & 1)))
        return -EINVAL;
    if (even_key) {
        sender.epoch[0] = even_epoch;
        memcpy(sender.key[0], even_key, MP_KEY_BYTES);
    }
    if (odd_key) {
        sender.epoch[1] = odd_epoch;
        memcpy(sender.key[1], odd_key, MP_KEY_BYTES);
    }
    write_record(mp_sender(r), &sender, WORDS(struct mp_sender), &mp_published(r)->sender_version);
    return 0;
}

int mp_keys_lock(struct mp_region *r)
{
    if (mlock(mp_sender(r), sizeof(struct mp_sender)) || mlock(mp_keys(r), MP_KEYS_MAX * sizeof(struct mp_key)) ||
        mlock(mp_links(r), MP_LINKS_MAX * sizeof(struct mp_link)))
        return -errno;
    return 0;
}

void mp_keys_wipe(struct mp_region *r)
{
    explicit_bzero(mp_sender(r), sizeof(struct mp_sender));
    explicit_bzero(mp_keys(r), MP_KEYS_MAX * sizeof(struct mp_key));
    explicit_bzero(mp_links(r), MP_LINKS_MAX * sizeof(struct mp_link));
}

static int is_half_written(const _Atomic uint32_t *generation)
{
    return (int)(atomic_load_explicit(generation, memory_order_relaxed) & 1u);
}

uint32_t mp_links_keys_repair(struct mp_region *r)
{
    uint32_t repaired = 0;
    for (uint32_t i = 0; i < MP_LINKS_MAX; i++)
        if (is_half_written(&mp_links(r)[i].generation))
            repaired += mp_link_clear(r, i) == 0;
    for (uint32_t i = 0; i < MP_KEYS_MAX; i++)
        if (is_half_written(&mp_keys(r)[i].generation))
            repaired += mp_key_clear(r, i) == 0;
    if (is_half_written(&mp_sender(r)->generation))
        repaired += mp_sender_set(r, 0, 0, 0, 0, NULL, 1, NULL) == 0;
    return repaired;
}
