/* The arena across restarts: what is sound goes on, what is torn or foreign is dropped, other sizes are imported. */
#include <math.h>

#include "arena.h"
#include "rig.h"

static const char *const CLIENT[] = {"198.51.100.7", "5:7"};
static const char *const VIP[] = {"203.0.113.10", "1:10"};

enum { CONNECTIONS = 60 };

static void open_many(rig_t *rig, connection_t *c)
{
    for (uint32_t i = 0; i < CONNECTIONS; i++) {
        c[i] = connection_make(rig, CLIENT[i % 2], (uint16_t)(40000 + i), VIP[i % 2]);
        connection_open(&c[i]);
    }
}

static void all_go_on(connection_t *c)
{
    for (uint32_t i = 0; i < CONNECTIONS; i++) {
        CHECK_EQUAL(connection_client(&c[i], PSH, 100), LBRL_VERDICT_FORWARD);
        CHECK_EQUAL(connection_server(&c[i], PSH, 100), LBRL_VERDICT_FORWARD);
    }
}

static void restarted_process_forwards_before_anybody_speaks(void)
{
    rig_t rig = rig_make(1, 4);
    connection_t c[CONNECTIONS];
    open_many(&rig, c);
    connection_t half = connection_make(&rig, CLIENT[0], 50000, VIP[0]);
    CHECK_EQUAL(connection_syn(&half), LBRL_VERDICT_FORWARD);
    connection_t closing = connection_make(&rig, CLIENT[0], 50001, VIP[0]);
    connection_open(&closing);
    connection_server(&closing, FIN, 0);
    connection_client(&closing, FIN, 0);
    connection_server(&closing, 0, 0);
    rig_restart(&rig);
    CHECK_EQUAL(rig.report.status, LBRL_ARENA_ATTACHED);
    CHECK_EQUAL(rig.report.vips, 3);
    CHECK_EQUAL(rig.report.flows, CONNECTIONS + 2);
    CHECK_EQUAL(rig.report.flows_dropped, 0);
    all_go_on(c);
    CHECK_EQUAL(connection_flow(&closing).state, LBRL_FLOW_CLOSING);
    CHECK_EQUAL(connection_server(&half, SYN, 0), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(connection_client(&half, 0, 0), LBRL_VERDICT_FORWARD);
    int64_t open = 0;
    for (uint64_t id = 1001; id <= 1004; id++) {
        open += rig_backend(&rig, 1, id).open_flows + rig_backend(&rig, 2, id + 1000).open_flows;
    }
    CHECK_EQUAL(open, CONNECTIONS + 1);
    /* new flows get ports that are free, from all that are */
    for (uint16_t i = 0; i < 500; i++) {
        connection_t fresh = connection_make(&rig, CLIENT[0], (uint16_t)(51000 + i), VIP[0]);
        connection_open(&fresh);
        for (uint32_t j = 0; j < CONNECTIONS; j++) {
            CHECK(fresh.nat_port != c[j].nat_port ||
                  memcmp(&fresh.backend, &c[j].backend, 16) != 0);
        }
    }
    /* the configuration that comes back changes nothing */
    rig_set_standard_vips(&rig, 4);
    all_go_on(c);
    rig_pass(&rig, 1000000);
    lbrl_stats_t stats;
    lbrl_stats(rig.lb, &stats);
    CHECK_EQUAL(stats.flows, 0);
    rig_free(&rig);
}

static void flows_that_expired_meanwhile_are_gone(void)
{
    rig_t rig = rig_make(1, 4);
    connection_t c[CONNECTIONS];
    open_many(&rig, c);
    rig.now_us += 901000000;
    rig_restart(&rig);
    CHECK_EQUAL(rig.report.flows, 0);
    CHECK_EQUAL(rig.report.flows_dropped, CONNECTIONS);
    CHECK_EQUAL(rig.report.flows_expired, CONNECTIONS);
    rig_free(&rig);
}

static void flows_of_another_boot_are_gone_but_vips_are_not(void)
{
    rig_t rig = rig_make(1, 4);
    connection_t c[CONNECTIONS];
    open_many(&rig, c);
    rig.config.boot_id[0] ^= 1;
    rig.now_us = 5000000;
    rig_restart(&rig);
    CHECK_EQUAL(rig.report.vips, 3);
    CHECK_EQUAL(rig.report.flows, 0);
    CHECK_EQUAL(rig.report.flows_dropped, CONNECTIONS);
    CHECK_EQUAL(rig.report.flows_expired, 0);
    connection_t fresh = connection_make(&rig, CLIENT[0], 52000, VIP[0]);
    connection_open(&fresh);
    rig_free(&rig);
}

static void another_server_by_the_id_of_one_that_drains_is_kept(void)
{
    rig_t rig = rig_make(1, 1);
    connection_t old = connection_make(&rig, CLIENT[0], 40000, VIP[0]);
    connection_open(&old);
    lbrl_backend_config_t backends[1];
    lbrl_vip_config_t vip = rig_vip(1, VIP[0], 80, 6, backends, 1);
    backends[0].address = address_of("10.9.9.9");
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &vip, rig.now_us), 0);
    connection_t moved = connection_make(&rig, CLIENT[0], 40001, VIP[0]);
    connection_open(&moved);
    rig_restart(&rig);
    CHECK_EQUAL(rig.report.flows, 2);
    CHECK_EQUAL(connection_client(&old, PSH, 100), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(connection_client(&moved, PSH, 100), LBRL_VERDICT_FORWARD);
    connection_t fresh = connection_make(&rig, CLIENT[0], 40002, VIP[0]);
    connection_open(&fresh);
    CHECK(memcmp(&fresh.backend, &backends[0].address, 16) == 0);
    rig_free(&rig);
}

static arena_t inspect(const rig_t *rig)
{
    arena_t arena;
    CHECK_EQUAL(arena_inspect(&arena, rig->arena, rig->arena_size), ARENA_SOUND);
    return arena;
}

/* What is configured, and what weights and time have made of it, are told apart by who comes after. */
static void backends_states_outlive_a_restart(void)
{
    rig_t rig = rig_make(1, 5);
    lbrl_backend_config_t backends[5];
    lbrl_vip_config_t vip = rig_vip(1, VIP[0], 80, 6, backends, 5);
    connection_t c[5];
    bool met[5] = {false};
    for (uint16_t i = 0; !(met[0] && met[1] && met[2] && met[3] && met[4]); i++) {
        connection_t next = connection_make(&rig, CLIENT[0], (uint16_t)(40000 + i), VIP[0]);
        connection_open(&next);
        uint8_t which = next.backend.bytes[15] - 1;
        c[which] = next;
        met[which] = true;
    }
    backends[2].state = LBRL_BACKEND_DRAINING;
    backends[3].state = LBRL_BACKEND_FAILED;
    vip.backend_count = 4; /* the fifth goes */
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &vip, rig.now_us), 0);
    const float weights[5] = {0, 1, 1, 1, 1};
    CHECK_EQUAL(lbrl_weights_set(rig.lb, 1, weights, NULL, NULL, 5), 0); /* ends nobody's flows */
    rig_pass(&rig, 301000);
    for (unsigned restarts = 0; restarts < 3; restarts++) {
        CHECK_EQUAL(rig_backend(&rig, 1, 1001).state, LBRL_BACKEND_ACTIVE);
        CHECK_EQUAL(rig_backend(&rig, 1, 1002).state, LBRL_BACKEND_ACTIVE);
        CHECK_EQUAL(rig_backend(&rig, 1, 1003).state, LBRL_BACKEND_FAILED);
        CHECK_EQUAL(rig_backend(&rig, 1, 1004).state, LBRL_BACKEND_FAILED);
        lbrl_backend_config_t found[5];
        CHECK_EQUAL(lbrl_vip_config(rig.lb, 1, &vip, found, 5), 0);
        CHECK_EQUAL(vip.backend_count, 4);
        for (unsigned i = 0; i < 4; i++) {
            CHECK_EQUAL(found[i].state, backends[i].state);
        }
        rig_restart(&rig);
        rig_pass(&rig, 1000);
    }
    CHECK_EQUAL(connection_client(&c[0], PSH, 100), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(connection_client(&c[2], PSH, 100), LBRL_VERDICT_REPLY);
    CHECK_EQUAL(connection_client(&c[4], PSH, 100),
                LBRL_VERDICT_REPLY); /* of the one that goes, too */

    /* as they were written before configured states were: what was in force is all there is to go by */
    lbrl_close(rig.lb);
    arena_t arena = inspect(&rig);
    uint32_t base = arena_vip(&arena, 0)->slot_base;
    arena.slots[base + 1].state = SLOT_DRAINING;
    arena.slots[base + 1].wanted = 0;
    rig.config.now_us = rig.now_us;
    CHECK_EQUAL(lbrl_open(&rig.lb, &rig.config, rig.arena, rig.arena_size, &rig.report), 0);
    CHECK_EQUAL(rig_backend(&rig, 1, 1002).state, LBRL_BACKEND_DRAINING);
    rig_free(&rig);
}

static void workers_may_change_in_number(void)
{
    rig_t rig = rig_make(3, 4);
    connection_t c[CONNECTIONS];
    open_many(&rig, c);
    rig.config.workers = 1;
    rig_restart(&rig);
    CHECK_EQUAL(rig.report.flows, CONNECTIONS);
    all_go_on(c);
    rig.config.workers = 5;
    rig_restart(&rig);
    CHECK_EQUAL(rig.report.flows, CONNECTIONS);
    all_go_on(c);
    rig_free(&rig);
}

/* Every bit of every identity: an entry that differs in one must not be believed. */
static void torn_entries_are_dropped(void)
{
    rig_t rig = rig_make(1, 4);
    connection_t c[CONNECTIONS];
    open_many(&rig, c);
    lbrl_close(rig.lb);
    arena_t arena = inspect(&rig);
    uint32_t torn = 0;
    for (uint32_t i = 0; i < arena.flow_count; i++) {
        if (arena.flows[i].state != LBRL_FLOW_FREE) {
            ((uint8_t *)&arena.flows[i])[torn * 5 % 32] ^= (uint8_t)(1 << torn % 8);
            torn++;
        }
    }
    CHECK_EQUAL(torn, CONNECTIONS);
    rig.config.now_us = rig.now_us;
    CHECK_EQUAL(lbrl_open(&rig.lb, &rig.config, rig.arena, rig.arena_size, &rig.report), 0);
    CHECK_EQUAL(rig.report.flows, 0);
    CHECK_EQUAL(rig.report.flows_dropped, CONNECTIONS);
    rig_free(&rig);
}

static void copied_and_misplaced_entries_are_dropped(void)
{
    rig_t rig = rig_make(1, 4);
    connection_t c[CONNECTIONS];
    open_many(&rig, c);
    lbrl_close(rig.lb);
    arena_t arena = inspect(&rig);
    uint32_t per_partition = arena.flow_count / LBRL_PARTITIONS;
    uint32_t first = UINT32_MAX;
    for (uint32_t i = 0; first == UINT32_MAX; i++) {
        first = arena.flows[i].state != LBRL_FLOW_FREE ? i : UINT32_MAX;
    }
    /* the last places of partitions, which nobody uses */
    uint32_t last = (first / per_partition + 1) * per_partition - 1;
    arena.flows[last] = arena.flows[first];                                      /* twice */
    arena.flows[(last + per_partition) % arena.flow_count] = arena.flows[first]; /* elsewhere */
    arena.flows[(last + 2 * per_partition) % arena.flow_count].state =
        LBRL_FLOW_SYN; /* all zero but that */
    arena.flows[(last + 3 * per_partition) % arena.flow_count].state = 200;
    rig.config.now_us = rig.now_us;
    CHECK_EQUAL(lbrl_open(&rig.lb, &rig.config, rig.arena, rig.arena_size, &rig.report), 0);
    CHECK_EQUAL(rig.report.flows, CONNECTIONS);
    CHECK_EQUAL(rig.report.flows_dropped, 4);
    all_go_on(c);
    rig_free(&rig);
}

static void damaged_directory_loses_what_it_describes_and_no_more(void)
{
    rig_t rig = rig_make(1, 4);
    connection_t c[CONNECTIONS];
    open_many(&rig, c);
    lbrl_close(rig.lb);
    arena_t arena = inspect(&rig);
    const arena_vip_t *vip = arena_vip(&arena, 0);
    CHECK(vip != NULL);
    arena.slots[vip->slot_base + 1].address.word[1] ^=
        1u << 24;                                 /* another backend address: check fails */
    arena.slots[vip->slot_base + 2].weight = NAN; /* not part of the check, but mended */
    rig.config.now_us = rig.now_us;
    CHECK_EQUAL(lbrl_open(&rig.lb, &rig.config, rig.arena, rig.arena_size, &rig.report), 0);
    CHECK_EQUAL(rig.report.vips, 3);
    CHECK(rig.report.flows_dropped > 0 && rig.report.flows_dropped < 20);
    for (uint32_t i = 0; i < CONNECTIONS; i++) {
        lbrl_verdict_t verdict = connection_client(&c[i], PSH, 1);
        CHECK(verdict == LBRL_VERDICT_FORWARD || c[i].packet.p.reason == LBRL_DROP_NO_FLOW);
    }
    rig_free(&rig);
}

/* Of the two copies of a record the newer sound one counts. */
static void half_written_record_leaves_the_one_before(void)
{
    rig_t rig = rig_make(1, 4);
    connection_t c[CONNECTIONS];
    open_many(&rig, c);
    lbrl_close(rig.lb);
    arena_t arena = inspect(&rig);
    arena_vip_t vip = *arena_vip(&arena, 0);
    vip.drain_timeout = 77;
    arena_vip_write(&arena, 0, &vip);
    CHECK_EQUAL(arena_vip(&arena, 0)->drain_timeout, 77);
    uint8_t *newest = (uint8_t *)(uintptr_t)arena_vip(&arena, 0);
    newest[20] ^= 4; /* as if killed while it was written */
    CHECK_EQUAL(arena_vip(&arena, 0)->drain_timeout, 300000);
    rig.config.now_us = rig.now_us;
    CHECK_EQUAL(lbrl_open(&rig.lb, &rig.config, rig.arena, rig.arena_size, &rig.report), 0);
    CHECK_EQUAL(rig.report.vips, 3);
    CHECK_EQUAL(rig.report.flows, CONNECTIONS);
    all_go_on(c);
    rig_free(&rig);
}

/* Each of these records carries a check of its own, as only who knows the seed, or a bug, could have given it. */
static void absurd_record_is_not_followed(void)
{
    enum { EDITS = 11 };
    rig_t rig = rig_make(1, 4);
    lbrl_close(rig.lb);
    arena_t arena = inspect(&rig);
    const arena_vip_t vip = *arena_vip(&arena, 1), *other = arena_vip(&arena, 0);
    CHECK(vip.protocol == other->protocol && vip.port == other->port);
    arena_vip_t edits[EDITS] = {vip, vip, vip, vip, vip, vip, vip, vip, vip, vip, vip};
    edits[0].slots = 60000;
    edits[1].slot_base = 510;
    edits[2].slot_base = other->slot_base;
    edits[3].scheduler = 9;
    edits[4].table_size = 4;
    edits[5].feature_level = 9;
    edits[6].dscp = 9;
    edits[7].timeouts.tcp_closing = 0;
    edits[8].id = other->id;
    edits[9].addresses[0] = other->addresses[0];
    edits[10].addresses[0] = arena_node(&arena)->sources[0].address;
    edits[10].port = swap16(arena_node(&arena)->sources[0].port_first);
    for (unsigned i = 0; i < EDITS; i++) {
        arena_vip_write(&arena, 1, &edits[i]);
        rig.config.now_us = rig.now_us;
        CHECK_EQUAL(lbrl_open(&rig.lb, &rig.config, rig.arena, rig.arena_size, &rig.report), 0);
        CHECK_EQUAL(rig.report.vips, 2);
        lbrl_close(rig.lb);
    }
    arena_vip_write(&arena, 1, &vip);
    CHECK_EQUAL(lbrl_open(&rig.lb, &rig.config, rig.arena, rig.arena_size, &rig.report), 0);
    CHECK_EQUAL(rig.report.vips, 3);
    rig_free(&rig);
}

static uint8_t *vip_pair(const arena_t *arena, uint32_t index, size_t *size)
{
    *size = 2 * (sizeof(arena_copy_t) + sizeof(arena_vip_t));
    return arena->base + arena->header->vip_offset + index * *size;
}

/* A record that was copied whole, check and all, to the place of another: flows there would follow it to a wrong backend. */
static void record_in_another_place_is_not_followed(void)
{
    for (int vips = 0; vips < 2; vips++) {
        rig_t rig = rig_make(1, 4);
        connection_t c[CONNECTIONS];
        open_many(&rig, c);
        lbrl_close(rig.lb);
        arena_t arena = inspect(&rig);
        const uint32_t base = arena_vip(&arena, 0)->slot_base;
        if (vips) {
            size_t size;
            uint8_t *first = vip_pair(&arena, 0, &size), *third = vip_pair(&arena, 2, &size);
            memcpy(third, first, size);
            memset(first, 0, size);
        } else {
            arena.slots[base + 1] = arena.slots[base];
            arena.slots[base] = (arena_slot_t){.id = 0};
        }
        rig.config.now_us = rig.now_us;
        CHECK_EQUAL(lbrl_open(&rig.lb, &rig.config, rig.arena, rig.arena_size, &rig.report), 0);
        CHECK_EQUAL(rig.report.vips, vips ? 1 : 3);
        CHECK(rig.report.flows_dropped > 0);
        lbrl_flow_info_t flow;
        uint64_t cursor = 0;
        while (lbrl_flow_next(rig.lb, &cursor, rig.now_us, &flow)) {
            for (unsigned i = 0; i < CONNECTIONS; i++) {
                CHECK(flow.client_port != c[i].client_port || flow.nat_port != c[i].nat_port ||
                      memcmp(&flow.backend, &c[i].backend, sizeof(flow.backend)) == 0);
            }
        }
        rig_free(&rig);
    }
}

/* As version 1 wrote it: checks of records do not depend on their places. */
static void make_version_1(rig_t *rig)
{
    arena_t from = inspect(rig), to = from;
    const lbrl_key_t key = lbrl_key_load(from.header->seed);
    const arena_node_t node = *arena_node(&from);
    to.version = ARENA_VERSION_UNPLACED;
    for (uint32_t i = 0; i < from.vip_count; i++) {
        size_t size;
        if (!arena_vip(&from, i)) {
            continue;
        }
        const arena_vip_t vip = *arena_vip(&from, i);
        memset(vip_pair(&from, i, &size), 0, size);
        arena_vip_write(&to, i, &vip);
        for (uint32_t s = vip.slot_base; s < vip.slot_base + vip.slots; s++) {
            to.slots[s].check = arena_slot_check(&to, s, &to.slots[s], vip.id);
        }
    }
    memset(from.base + from.header->node_offset, 0,
           from.header->vip_offset - from.header->node_offset);
    arena_node_write(&to, &node);
    to.header->version = ARENA_VERSION_UNPLACED;
    to.header->check = lbrl_hash_bytes(&key, to.header, offsetof(arena_header_t, check));
}

static void arena_of_the_version_before_is_imported(void)
{
    rig_t old = rig_make(1, 4);
    connection_t c[CONNECTIONS];
    open_many(&old, c);
    lbrl_close(old.lb);
    make_version_1(&old);
    CHECK_EQUAL(lbrl_open(&old.lb, &old.config, old.arena, old.arena_size, &old.report),
                LBRL_ERR_GEOMETRY);
    CHECK_EQUAL(old.report.version, ARENA_VERSION_UNPLACED);
    rig_t rig = rig_sized(4096, 1);
    rig.now_us = old.now_us;
    CHECK_EQUAL(lbrl_import(rig.lb, old.arena, old.arena_size, rig.now_us, &rig.report), 0);
    CHECK_EQUAL(rig.report.version, ARENA_VERSION_UNPLACED);
    CHECK_EQUAL(rig.report.vips, 3);
    CHECK_EQUAL(rig.report.flows, CONNECTIONS);
    for (unsigned i = 0; i < CONNECTIONS; i++) {
        c[i].rig = &rig;
    }
    all_go_on(c);
    rig_restart(&rig);
    CHECK_EQUAL(rig.report.version, ARENA_VERSION);
    CHECK_EQUAL(rig.report.flows, CONNECTIONS);
    all_go_on(c);
    rig_free(&rig);
    free(old.arena);
}

static void foreign_memory_is_formatted_anew(void)
{
    rig_t rig = rig_make(1, 4);
    lbrl_close(rig.lb);
    uint8_t *bytes = rig.arena;
    const size_t places[] = {0, 12, 16, 24, 40, 60, 72, 80};
    for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        bytes[places[i]] ^= 0x40;
        CHECK_EQUAL(lbrl_open(&rig.lb, &rig.config, rig.arena, rig.arena_size, &rig.report), 0);
        CHECK_EQUAL(rig.report.status, LBRL_ARENA_REPLACED);
        CHECK_EQUAL(rig.report.vips, 0);
        lbrl_close(rig.lb);
        CHECK_EQUAL(lbrl_open(&rig.lb, &rig.config, rig.arena, rig.arena_size, &rig.report), 0);
        CHECK_EQUAL(rig.report.status, LBRL_ARENA_ATTACHED);
        lbrl_close(rig.lb);
    }
    memset(rig.arena, 0xa5, rig.arena_size);
    CHECK_EQUAL(lbrl_open(&rig.lb, &rig.config, rig.arena, rig.arena_size, &rig.report), 0);
    CHECK_EQUAL(rig.report.status, LBRL_ARENA_REPLACED);
    rig_free(&rig);
}

/* Of an arena that a later release left, or one that nobody knows, nothing is believed and nothing is lost: it stays as it
 * is, the new one beside it starts empty, and VIPs are told again. */
static void arena_of_another_version_is_left_as_it_is(void)
{
    const uint32_t versions[] = {ARENA_VERSION + 1, 77, UINT32_MAX};
    for (unsigned i = 0; i < 2 * sizeof(versions) / sizeof(versions[0]); i++) {
        rig_t old = rig_make(1, 4);
        connection_t c[CONNECTIONS];
        open_many(&old, c);
        lbrl_close(old.lb);
        uint8_t *bytes = old.arena;
        const uint32_t version = versions[i / 2];
        memcpy(bytes + 8, &version, sizeof(version));
        for (size_t at = 16; i % 2 && at < old.arena_size; at++) { /* its layout may be any */
            bytes[at] = (uint8_t)(at * 2654435761u >> 13);
        }
        uint8_t *before = malloc(old.arena_size);
        CHECK(before != NULL);
        memcpy(before, bytes, old.arena_size);
        CHECK_EQUAL(lbrl_open(&old.lb, &old.config, old.arena, old.arena_size, &old.report),
                    LBRL_ERR_GEOMETRY);
        CHECK_EQUAL(old.report.version, version);

        rig_t rig = rig_sized(4096, 1);
        CHECK_EQUAL(lbrl_import(rig.lb, old.arena, old.arena_size, rig.now_us, &rig.report),
                    LBRL_ERR_VERSION);
        CHECK_EQUAL(rig.report.version, version);
        CHECK_EQUAL(rig.report.vips, 0);
        CHECK_EQUAL(rig.report.flows, 0);
        CHECK_EQUAL(lbrl_vip_ids(rig.lb, NULL, 0), 0);
        CHECK(memcmp(before, bytes, old.arena_size) == 0);
        rig_set_sources(&rig);
        rig_set_standard_vips(&rig, 4);
        connection_t fresh = connection_make(&rig, CLIENT[0], 52000, VIP[0]);
        connection_open(&fresh);
        rig_restart(&rig);
        CHECK_EQUAL(rig.report.status, LBRL_ARENA_ATTACHED);
        CHECK_EQUAL(rig.report.version, ARENA_VERSION);
        CHECK_EQUAL(rig.report.flows, 1);
        rig_free(&rig);
        free(before);
        free(old.arena);
    }
}

static void opening_refuses_what_cannot_be(void)
{
    rig_t rig = rig_make(1, 4);
    lbrl_t *lb = NULL;
    lbrl_attach_report_t report;
    lbrl_config_t config = rig.config;
    config.workers = 0;
    CHECK_EQUAL(lbrl_open(&lb, &config, rig.arena, rig.arena_size, &report), LBRL_ERR_INVALID);
    config.workers = LBRL_WORKERS_MAX + 1;
    CHECK_EQUAL(lbrl_open(&lb, &config, rig.arena, rig.arena_size, &report), LBRL_ERR_INVALID);
    config = rig.config;
    CHECK_EQUAL(lbrl_open(&lb, &config, (uint8_t *)rig.arena + 8, rig.arena_size - 8, &report),
                LBRL_ERR_INVALID);
    config.flows = 63;
    CHECK_EQUAL(lbrl_arena_size(&config), 0);
    CHECK_EQUAL(lbrl_open(&lb, &config, rig.arena, rig.arena_size, &report), LBRL_ERR_INVALID);
    config.flows = (1u << 22) + 1;
    CHECK_EQUAL(lbrl_arena_size(&config), 0);
    config = rig.config;
    config.slots = 7;
    CHECK_EQUAL(lbrl_arena_size(&config), 0);
    config = rig.config;
    config.vips = 0;
    CHECK_EQUAL(lbrl_arena_size(&config), 0);
    config = rig.config;
    config.flows = 8192;
    CHECK_EQUAL(lbrl_open(&lb, &config, rig.arena, rig.arena_size, &report), LBRL_ERR_GEOMETRY);
    uint8_t *small = aligned_alloc(64, 64);
    CHECK(small != NULL);
    memset(small, 1, 64);
    CHECK_EQUAL(lbrl_open(&lb, &config, small, 64, &report), LBRL_ERR_TOO_SMALL);
    free(small);
    CHECK(lbrl_worker(rig.lb, 1) == NULL);
    rig_free(&rig);
}

/* Opens a rig of another size and imports; the old arena is left as it is. */
static rig_t imported(const rig_t *old, uint32_t flows, uint32_t workers)
{
    rig_t rig = rig_sized(flows, workers);
    rig.now_us = old->now_us;
    CHECK_EQUAL(lbrl_import(rig.lb, old->arena, old->arena_size, rig.now_us, &rig.report), 0);
    CHECK_EQUAL(rig.report.status, LBRL_ARENA_IMPORTED);
    return rig;
}

static void arena_of_another_size_is_imported(void)
{
    const uint32_t sizes[] = {16384, 2048};
    for (unsigned s = 0; s < 2; s++) {
        rig_t old = rig_make(1, 4);
        connection_t c[CONNECTIONS];
        open_many(&old, c);
        lbrl_close(old.lb);
        rig_t rig = imported(&old, sizes[s], 2);
        CHECK_EQUAL(rig.report.vips, 3);
        CHECK_EQUAL(rig.report.flows, CONNECTIONS);
        CHECK_EQUAL(rig.report.flows_dropped, 0);
        for (uint32_t i = 0; i < CONNECTIONS; i++) {
            c[i].rig = &rig;
        }
        all_go_on(c);
        CHECK_EQUAL(lbrl_import(rig.lb, old.arena, old.arena_size, rig.now_us, &rig.report),
                    LBRL_ERR_INVALID);
        rig_restart(&rig); /* and it is an arena like any other */
        CHECK_EQUAL(rig.report.flows, CONNECTIONS);
        all_go_on(c);
        free(old.arena);
        rig_free(&rig);
    }
}

/* One-way flows have no NAT port that would name their partition. */
static void flows_of_gre_and_l3dsr_are_imported(void)
{
    static const struct {
        const char *client, *vip;
        uint8_t forwarding, dscp;
    } ways[] = {{"198.51.100.7", "203.0.113.50", LBRL_FORWARD_GRE, 0},
                {"198.51.100.7", "203.0.113.50", LBRL_FORWARD_L3DSR, 10},
                {"5:7", "1:50", LBRL_FORWARD_GRE, 0},
                {"5:7", "1:50", LBRL_FORWARD_L3DSR, 10}};
    for (unsigned w = 0; w < sizeof(ways) / sizeof(ways[0]); w++) {
        rig_t old = rig_sized(4096, 1);
        rig_set_sources(&old);
        lbrl_backend_config_t backends[4];
        lbrl_vip_config_t vip = rig_vip(7, ways[w].vip, 80, 6, backends, 4);
        vip.forwarding = ways[w].forwarding;
        vip.dscp = ways[w].dscp;
        CHECK_EQUAL(lbrl_vip_set(old.lb, &vip, old.now_us), 0);
        for (uint16_t i = 0; i < 1000; i++) { /* SYN and ACK of 500 flows */
            tcp_fields_t tcp = {.sequence = 100 + i % 2u, .flags = i % 2 ? ACK : SYN, .ack = 1};
            test_packet_t p;
            make_tcp(&p, ways[w].client, (uint16_t)(20000 + i / 2), ways[w].vip, 80, &tcp, 0);
            CHECK_EQUAL(rig_send(&old, &p), LBRL_VERDICT_FORWARD);
        }
        lbrl_close(old.lb);
        for (uint32_t flows = 2048; flows <= 8192; flows *= 4) {
            rig_t rig = imported(&old, flows, 2);
            CHECK_EQUAL(rig.report.flows, 500);
            CHECK_EQUAL(rig.report.flows_dropped, 0);
            rig_free(&rig);
        }
        free(old.arena);
    }
}

static void import_keeps_what_fits(void)
{
    rig_t old = rig_make(1, 4);
    for (uint16_t i = 0; i < 800; i++) {
        connection_t c = connection_make(&old, CLIENT[0], (uint16_t)(20000 + i), VIP[0]);
        connection_open(&c);
    }
    lbrl_close(old.lb);
    rig_t rig = imported(&old, 512, 1); /* 8 per partition */
    CHECK(rig.report.flows > 400 && rig.report.flows <= 512);
    CHECK_EQUAL(rig.report.flows + rig.report.flows_dropped, 800);
    rig_free(&rig);

    rig = rig_sized(4096, 1);
    rig.config.boot_id[3] ^= 1;
    lbrl_close(rig.lb);
    memset(rig.arena, 0, rig.arena_size);
    CHECK_EQUAL(lbrl_open(&rig.lb, &rig.config, rig.arena, rig.arena_size, &rig.report), 0);
    CHECK_EQUAL(lbrl_import(rig.lb, old.arena, old.arena_size, rig.now_us, &rig.report), 0);
    CHECK_EQUAL(rig.report.flows, 0); /* of another boot */
    CHECK_EQUAL(rig.report.flows_dropped, 800);
    CHECK_EQUAL(rig.report.vips, 3);
    rig_free(&rig);

    rig = rig_sized(4096, 1);
    memset(old.arena, 0, 64);
    CHECK_EQUAL(lbrl_import(rig.lb, old.arena, old.arena_size, rig.now_us, &rig.report),
                LBRL_ERR_GEOMETRY);
    rig_free(&rig);
    free(old.arena);
}

/* What is in the old arena before the flows that the smaller one has to keep. */
typedef enum dead { DEAD_HALF_OPEN, DEAD_CLOSED, DEAD_EXPIRED, DEAD_KINDS } dead_t;

static void add_dead(rig_t *rig, dead_t kind, uint16_t port)
{
    connection_t c = connection_make(rig, CLIENT[0], port, VIP[0]);
    if (kind == DEAD_HALF_OPEN) {
        CHECK_EQUAL(connection_syn(&c), LBRL_VERDICT_FORWARD);
        return;
    }
    connection_open(&c);
    if (kind == DEAD_CLOSED) {
        connection_client(&c, FIN, 0);
        connection_server(&c, FIN, 0);
    }
}

static void import_into_a_smaller_arena_prefers_live_flows(void)
{
    for (dead_t kind = 0; kind < DEAD_KINDS; kind++) {
        rig_t old = rig_make(1, 4);
        for (uint16_t i = 0; i < 1500; i++) {
            add_dead(&old, kind, (uint16_t)(20000 + i));
        }
        old.now_us += kind == DEAD_EXPIRED ? UINT64_C(1000000000) : 0;
        connection_t c[CONNECTIONS];
        open_many(&old, c);
        lbrl_close(old.lb);
        rig_t rig = imported(&old, 512, 2); /* 8 per partition */
        CHECK_EQUAL(rig.report.flows_expired, kind == DEAD_EXPIRED ? 1500 : 0);
        CHECK(kind == DEAD_EXPIRED ? rig.report.flows == CONNECTIONS : rig.report.flows > 400);
        for (uint32_t i = 0; i < CONNECTIONS; i++) {
            c[i].rig = &rig;
        }
        all_go_on(c);
        free(old.arena);
        rig_free(&rig);
    }
}

static void import_into_a_directory_that_is_too_small_changes_nothing(void)
{
    rig_t old = rig_make(1, 4);
    lbrl_close(old.lb);
    for (unsigned few_slots = 0; few_slots < 2; few_slots++) {
        rig_t rig = {.config = old.config, .now_us = old.now_us};
        *(few_slots ? &rig.config.slots : &rig.config.vips) = few_slots ? 16 : 2;
        rig.config.seed[3] ^= 1;
        rig.arena_size = lbrl_arena_size(&rig.config);
        rig.arena = aligned_alloc(64, (rig.arena_size + 63) / 64 * 64);
        CHECK(rig.arena != NULL);
        memset(rig.arena, 0, rig.arena_size);
        CHECK_EQUAL(lbrl_open(&rig.lb, &rig.config, rig.arena, rig.arena_size, &rig.report), 0);
        CHECK_EQUAL(lbrl_import(rig.lb, old.arena, old.arena_size, rig.now_us, &rig.report),
                    LBRL_ERR_EXHAUSTED);
        CHECK_EQUAL(rig.report.vips, 0);
        for (unsigned restarted = 0; restarted < 2; restarted++) {
            CHECK_EQUAL(lbrl_vip_ids(rig.lb, NULL, 0), 0);
            CHECK_EQUAL(lbrl_sources(rig.lb, NULL, 0), 0);
            rig_restart(&rig);
            CHECK_EQUAL(rig.report.status, LBRL_ARENA_ATTACHED);
            CHECK_EQUAL(rig.report.vips, 0);
        }
        rig_set_sources(&rig); /* and it is of use */
        lbrl_backend_config_t backends[4];
        lbrl_vip_config_t vip = rig_vip(1, VIP[0], 80, 6, backends, 4);
        CHECK_EQUAL(lbrl_vip_set(rig.lb, &vip, rig.now_us), 0);
        connection_t c = connection_make(&rig, CLIENT[0], 40000, VIP[0]);
        connection_open(&c);
        rig_free(&rig);
    }
    free(old.arena);
}

int main(void)
{
    restarted_process_forwards_before_anybody_speaks();
    flows_that_expired_meanwhile_are_gone();
    flows_of_another_boot_are_gone_but_vips_are_not();
    another_server_by_the_id_of_one_that_drains_is_kept();
    backends_states_outlive_a_restart();
    workers_may_change_in_number();
    torn_entries_are_dropped();
    copied_and_misplaced_entries_are_dropped();
    damaged_directory_loses_what_it_describes_and_no_more();
    half_written_record_leaves_the_one_before();
    absurd_record_is_not_followed();
    foreign_memory_is_formatted_anew();
    record_in_another_place_is_not_followed();
    arena_of_the_version_before_is_imported();
    arena_of_another_version_is_left_as_it_is();
    opening_refuses_what_cannot_be();
    arena_of_another_size_is_imported();
    flows_of_gre_and_l3dsr_are_imported();
    import_keeps_what_fits();
    import_into_a_smaller_arena_prefers_live_flows();
    import_into_a_directory_that_is_too_small_changes_nothing();
    return 0;
}
