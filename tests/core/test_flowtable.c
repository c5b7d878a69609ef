/* The index of a partition against a plain list of what should be in it, filled until buckets overflow and wrap. */
#include "tuplehash.h"

#include "check.h"

enum {
    ENTRIES = 400,
    BUCKETS = 30
}; /* of 450 places: nearly full, so that most buckets overflow */

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1du;
}

static bool is_nominated(const flow_index_t *index, uint64_t hash, uint32_t entry)
{
    index_cursor_t cursor = index_find(index, hash);
    for (uint32_t found; (found = index_next(&cursor)) != FLOW_NONE;) {
        if (found == entry) {
            return true;
        }
    }
    return false;
}

static void entries_are_found_until_removed(void)
{
    bucket_t *buckets = aligned_alloc(64, BUCKETS * sizeof(bucket_t));
    CHECK(buckets != NULL);
    memset(buckets, 0, BUCKETS * sizeof(bucket_t));
    flow_index_t index = {buckets, BUCKETS};
    uint64_t hashes[ENTRIES];
    bool present[ENTRIES] = {false};
    uint64_t random = 88172645463325252u;
    for (uint32_t step = 0; step < 40000; step++) {
        uint32_t entry = (uint32_t)(next_random(&random) % ENTRIES);
        if (present[entry]) {
            CHECK(is_nominated(&index, hashes[entry], entry));
            index_remove(&index, hashes[entry], entry);
            CHECK(!is_nominated(&index, hashes[entry], entry));
        } else {
            /* few distinct hashes: equal tags and homes are common */
            hashes[entry] = (next_random(&random) % 97) * 0x9e3779b97f4a7c15u;
            index_add(&index, hashes[entry], entry);
        }
        present[entry] = !present[entry];
        if (step % 1000 == 0) {
            for (uint32_t i = 0; i < ENTRIES; i++) {
                CHECK(!present[i] || is_nominated(&index, hashes[i], i));
            }
        }
    }
    for (uint32_t i = 0; i < ENTRIES; i++) {
        if (present[i]) {
            index_remove(&index, hashes[i], i);
        }
    }
    for (uint32_t i = 0; i < BUCKETS; i++) {
        for (unsigned place = 0; place <= BUCKET_OVERFLOW; place++) {
            CHECK_EQUAL(buckets[i].tag[place], 0); /* overflow counts have come back to 0 too */
        }
    }
    free(buckets);
}

static void matches_name_every_place_that_holds_the_tag(void)
{
    bucket_t bucket __attribute__((aligned(64))) = {
        .tag = {5, 7, 5, 0, 65535, 5, 0, 0, 5, 1, 2, 3, 0, 32768, 5, 5}};
    CHECK_EQUAL(bucket_matches(&bucket, 5), 1u << 0 | 1u << 2 | 1u << 5 | 1u << 8 | 1u << 14);
    CHECK_EQUAL(bucket_matches(&bucket, 0), 1u << 3 | 1u << 6 | 1u << 7 | 1u << 12);
    CHECK_EQUAL(bucket_matches(&bucket, 32768), 1u << 13);
    CHECK_EQUAL(bucket_matches(&bucket, 65535), 1u << 4);
    CHECK_EQUAL(bucket_matches(&bucket, 9), 0);
}

static void lists_keep_their_order(void)
{
    flow_keep_t keeps[8];
    partition_t partition = {.keeps = keeps, .flow_count = 8, .free_head = FLOW_NONE};
    flow_list_t list = {FLOW_NONE, FLOW_NONE, 0};
    for (uint32_t i = 0; i < 8; i++) {
        CHECK_EQUAL(entry_take(&partition), i);
        list_append(&partition, &list, i);
    }
    CHECK_EQUAL(entry_take(&partition), FLOW_NONE);
    const uint32_t gone[] = {0, 7, 3};
    for (unsigned i = 0; i < 3; i++) {
        list_unlink(&partition, &list, gone[i]);
        entry_release(&partition, gone[i]);
    }
    const uint32_t left[] = {1, 2, 4, 5, 6};
    uint32_t at = list.head;
    for (unsigned i = 0; i < 5; i++, at = keeps[at].link.next) {
        CHECK_EQUAL(at, left[i]);
    }
    CHECK_EQUAL(at, FLOW_NONE);
    CHECK_EQUAL(list.count, 5);
    CHECK_EQUAL(partition.used, 5);
    CHECK_EQUAL(entry_take(&partition), 3);
}

/* Reference values from the SipHash authors' C code with one compression and three finalisation rounds, key and message
 * as in their vectors: key 00..0f, message 00, 01, .. of growing length. */
static void hash_is_siphash_1_3(void)
{
    const uint64_t expected[] = {0xabac0158050fc4dcu, 0xc9f49bf37d57ca93u, 0x82cb9b024dc7d44du};
    uint8_t bytes[16];
    for (uint8_t i = 0; i < 16; i++) {
        bytes[i] = i;
    }
    lbrl_key_t key = lbrl_key_load(bytes);
    for (size_t size = 0; size < 3; size++) {
        CHECK(lbrl_hash_bytes(&key, bytes, size) == expected[size]);
    }
}

static void check_hashes_together(tuples_hash_t *hash, uint32_t count, uint64_t *random)
{
    const lbrl_key_t key = {next_random(random), next_random(random)};
    uint64_t expected[TUPLES_MAX];
    tuples_t tuples;
    memset(&tuples, 0xff, sizeof(tuples)); /* as memory may be */
    tuples.count = 0;
    for (uint32_t i = 0; i < count; i++) {
        const ip_t src = ip_from_v4((uint32_t)next_random(random));
        const ip_t dst = ip_from_v4((uint32_t)next_random(random));
        const uint16_t sport = (uint16_t)next_random(random), dport = (uint16_t)i;
        tuples_add(&tuples, &src, &dst, sport, dport, PROTO_TCP);
        expected[i] = tuple_hash(&key, &src, &dst, sport, dport, PROTO_TCP);
    }
    hash(&key, &tuples);
    for (uint32_t i = 0; i < count; i++) {
        CHECK(tuples.hash[i] == expected[i]);
    }
}

static void tuples_together_hash_as_each_alone(void)
{
    uint64_t random = 88172645463325252u;
    for (uint32_t count = 0; count <= TUPLES_MAX; count++) {
        check_hashes_together(tuples_hash_plain, count, &random);
        check_hashes_together(tuples_hash_best(), count, &random);
    }
}

int main(void)
{
    tuples_together_hash_as_each_alone();
    entries_are_found_until_removed();
    matches_name_every_place_that_holds_the_tag();
    lists_keep_their_order();
    hash_is_siphash_1_3();
    return 0;
}
