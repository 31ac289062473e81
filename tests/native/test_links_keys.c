/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Goal: stages copy links and keys whole or not at all, see each change by the version of its table, and survive a
 * control that dies while it writes.
 * Method: functional checks; a writer against readers in other processes, with records that reveal a torn copy;
 * generations left odd by hand.
 */
#include <errno.h>
#include <sys/socket.h>

#include "actor.h"
#include "links.h"

static uint32_t version_of(_Atomic uint32_t *version)
{
    return atomic_load_explicit(version, memory_order_acquire);
}

static void links_are_read_as_written(void)
{
    struct mp_region *r = actor_region(&actor_small);
    struct mp_link link;
    const struct mp_endpoint v6 = { AF_INET6, 4747, 3, { 0xfe, 0x80, [15] = 9 } };
    const struct mp_endpoint v4 = { AF_INET, 1, 0, { 10, 0, 0, 7, 9 } }, unix_socket = { .family = AF_UNIX };
    CHECK(mp_link_read(r, 5, &link) && link.node == 0);
    CHECK_EQUAL(set_link(r, 5, 42, 1, &v6, &v4), 0);
    CHECK(mp_link_read(r, 5, &link) && link.node == 42 && link.up == 1 && link.endpoint.family == AF_INET6);
    CHECK(link.endpoint.port == 4747 && link.endpoint.scope == 3 && !memcmp(link.endpoint.address, v6.address, 16));
    CHECK(link.candidate.family == AF_INET && link.candidate.port == 1 && link.candidate.address[4] == 0);
    CHECK_EQUAL(version_of(&mp_published(r)->links_version), 1);
    CHECK_EQUAL(set_link(r, MP_LINKS_MAX - 1, 43, 0, &v4, NULL), 0);
    CHECK(mp_link_read(r, MP_LINKS_MAX - 1, &link) && !memcmp(link.endpoint.address, v4.address, 4));
    CHECK_EQUAL(link.candidate.family, 0);
    CHECK_EQUAL(link.endpoint.address[4], 0);
    CHECK_EQUAL(set_link(r, 6, 44, 0, NULL, NULL), 0);
    CHECK(mp_link_read(r, 6, &link) && link.node == 44 && link.endpoint.family == 0);
    CHECK_EQUAL(mp_link_clear(r, 5), 0);
    CHECK(mp_link_read(r, 5, &link) && link.node == 0 && link.endpoint.family == 0);
    CHECK_EQUAL(version_of(&mp_published(r)->links_version), 4);
    CHECK_EQUAL(set_link(r, MP_LINKS_MAX, 1, 1, NULL, NULL), -EINVAL);
    CHECK_EQUAL(set_link(r, 0, 0, 1, NULL, NULL), -EINVAL);
    CHECK_EQUAL(set_link(r, 0, 1, 1, &unix_socket, NULL), -EINVAL);
    CHECK_EQUAL(set_link(r, 0, 1, 1, NULL, &unix_socket), -EINVAL);
    CHECK_EQUAL(mp_link_clear(r, MP_LINKS_MAX), -EINVAL);
    CHECK_EQUAL(version_of(&mp_published(r)->links_version), 4);
    actor_unmap(r);
}

static void keys_are_read_as_written_with_fresh_windows(void)
{
    struct mp_region *r = actor_region(&actor_small);
    struct mp_key key;
    uint8_t secret[MP_KEY_BYTES];
    memset(secret, 7, sizeof secret);
    atomic_store(&mp_windows(r)[13].word[5], 99);
    atomic_store(&mp_windows(r)[14].word[5], 98);
    CHECK_EQUAL(mp_key_set(r, 9, 1234, 3, 1, 2, 10, secret), 0);
    CHECK(mp_key_read(r, 9, &key) && key.origin == 1234 && key.epoch == 3 && key.lanes == 2 && key.window == 10);
    CHECK(key.sealed == 1 && !memcmp(key.key, secret, sizeof secret));
    CHECK_EQUAL(atomic_load(&mp_windows(r)[13].word[5]), 0);
    CHECK_EQUAL(atomic_load(&mp_windows(r)[14].word[5]), 98);
    CHECK_EQUAL(mp_key_clear(r, 9), 0);
    CHECK(mp_key_read(r, 9, &key) && key.origin == 0 && key.key[0] == 0);
    CHECK_EQUAL(version_of(&mp_published(r)->keys_version), 2);
    CHECK_EQUAL(mp_key_set(r, MP_KEYS_MAX, 1, 0, 1, 1, 0, secret), -EINVAL);
    CHECK_EQUAL(mp_key_set(r, 0, 0, 0, 1, 1, 0, secret), -EINVAL);
    CHECK_EQUAL(mp_key_set(r, 0, 1, 0, 1, 0, 0, secret), -EINVAL);
    CHECK_EQUAL(mp_key_set(r, 0, 1, 0, 1, MP_LANES_MAX + 1, 0, secret), -EINVAL);
    CHECK_EQUAL(mp_key_set(r, 0, 1, 0, 1, 1, MP_WINDOWS_MAX - 1, secret), -EINVAL);
    CHECK_EQUAL(mp_key_set(r, 0, 1, 0, 1, 1, UINT32_MAX, secret), -EINVAL);
    CHECK_EQUAL(mp_key_set(r, 0, 1, 0, 1, 1, MP_WINDOWS_MAX - 2, secret), 0);
    actor_unmap(r);
}

static void sender_keys_stand_in_slots_by_parity(void)
{
    struct mp_region *r = actor_region(&actor_small);
    struct mp_sender s;
    uint8_t even[MP_KEY_BYTES] = { 1 }, odd[MP_KEY_BYTES] = { 2 };
    CHECK(mp_sender_read(r, &s) && s.origin == 0);
    CHECK_EQUAL(mp_sender_set(r, 5, 1, 4, 4, even, 0, NULL), 0);
    CHECK(mp_sender_read(r, &s) && s.origin == 5 && s.active == 0 && s.epoch[0] == 4 && s.key[0][0] == 1);
    CHECK(s.epoch[1] % 2 == 0); /* of the wrong parity: no reader looks for it */
    CHECK_EQUAL(mp_sender_set(r, 5, 1, 5, 4, even, 5, odd), 0);
    CHECK(mp_sender_read(r, &s) && s.active == 1 && s.epoch[1] == 5 && s.key[1][0] == 2);
    CHECK_EQUAL(mp_sender_set(r, 5, 1, 5, 5, even, 0, NULL), -EINVAL);
    CHECK_EQUAL(mp_sender_set(r, 5, 1, 5, 0, NULL, 4, odd), -EINVAL);
    CHECK_EQUAL(version_of(&mp_published(r)->sender_version), 2);
    actor_unmap(r);
}

static void half_written_records_are_repaired(void)
{
    struct mp_region *r = actor_region(&actor_small);
    struct mp_link link = { .node = 123 };
    const struct mp_endpoint v4 = { AF_INET, 4747, 0, { 10, 0, 0, 7 } };
    uint8_t secret[MP_KEY_BYTES] = { 0 };
    CHECK_EQUAL(set_link(r, 5, 42, 1, &v4, NULL), 0);
    CHECK_EQUAL(set_link(r, 6, 43, 1, &v4, NULL), 0);
    CHECK_EQUAL(mp_key_set(r, 7, 42, 0, 1, 1, 0, secret), 0);
    CHECK_EQUAL(mp_sender_set(r, 9, 0, 0, 0, secret, 0, NULL), 0);
    atomic_fetch_add(&mp_links(r)[5].generation, 1);
    atomic_fetch_add(&mp_keys(r)[7].generation, 1);
    atomic_fetch_add(&mp_sender(r)->generation, 1);
    CHECK(!mp_link_read(r, 5, &link) && link.node == 123); /* the reader's copy is unchanged */
    CHECK_EQUAL(mp_links_keys_repair(r), 3);
    CHECK(mp_link_read(r, 5, &link) && link.node == 0);
    CHECK(mp_link_read(r, 6, &link) && link.node == 43);
    CHECK_EQUAL(mp_links_keys_repair(r), 0);
    atomic_fetch_add(&mp_links(r)[6].generation, 1); /* written again, without a repair */
    CHECK_EQUAL(set_link(r, 6, 44, 1, &v4, NULL), 0);
    CHECK(mp_link_read(r, 6, &link) && link.node == 44);
    actor_unmap(r);
}

struct race {
    struct mp_region *r;
    _Atomic uint32_t stop;
};

/* All fields of record n follow from n. */
static void write_many(void *argument)
{
    struct race *race = argument;
    for (uint32_t n = 1; !atomic_load(&race->stop); n++) {
        struct mp_endpoint e = { .family = AF_INET6, .port = (uint16_t)n, .scope = n };
        memset(e.address, (int)(n & 255), sizeof e.address);
        CHECK_EQUAL(set_link(race->r, 3, n, n, &e, &e), 0);
    }
}

static void read_many(void *argument)
{
    struct race *race = argument;
    struct mp_link link;
    uint32_t last = 0, copies = 0;
    while (!atomic_load(&race->stop) || !copies) {
        uint32_t version = version_of(&mp_published(race->r)->links_version);
        if (!mp_link_read(race->r, 3, &link))
            continue;
        copies++;
        CHECK(link.node >= version); /* the version is incremented after the record */
        CHECK(link.node >= last && link.up == link.node && link.endpoint.scope == link.node);
        CHECK_EQUAL(link.endpoint.port, (uint16_t)link.node);
        for (int i = 0; i < 16 && link.node; i++)
            CHECK_EQUAL(link.endpoint.address[i], link.node & 255);
        CHECK(!memcmp(&link.endpoint, &link.candidate, sizeof link.endpoint));
        last = link.node;
    }
}

static void readers_get_no_torn_record(void)
{
    struct race *race = actor_memory(sizeof *race);
    struct actor writer, readers[2];
    race->r = actor_region(&actor_small);
    for (int i = 0; i < 2; i++)
        actor_start(&readers[i], read_many, race);
    actor_start(&writer, write_many, race);
    actor_pause_us(500000);
    atomic_store(&race->stop, 1);
    actor_join(&writer);
    for (int i = 0; i < 2; i++)
        actor_join(&readers[i]);
    actor_unmap(race->r);
}

int main(void)
{
    RUN(links_are_read_as_written);
    RUN(keys_are_read_as_written_with_fresh_windows);
    RUN(sender_keys_stand_in_slots_by_parity);
    RUN(half_written_records_are_repaired);
    RUN(readers_get_no_torn_record);
    return 0;
}
