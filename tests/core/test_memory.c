/* Memory ends, at every place in turn where the control side asks for some: what was refused has changed nothing, what was
 * accepted comes into force with the next tick or with the same call again, and meanwhile packets go on. */
#include "objects.h"
#include "rig.h"

enum { VIPS = 5, CLIENTS = 24, PROBES = VIPS * CLIENTS };

static const char *const VIP[VIPS] = {"203.0.113.10", "203.0.113.20", "203.0.113.30",
                                      "203.0.113.40", "203.0.113.50"};

/* ------------------------------------------------------------------------------- the allocator */

static struct {
    unsigned left; /* allocations until the one that fails; 0: none does */
    bool for_good; /* and all after it */
    bool happened;
} scarce;

static bool denied(void)
{
    if (scarce.left > 1) {
        scarce.left--;
        return false;
    }
    if (scarce.left == 0) {
        return false;
    }
    scarce.left = scarce.for_good ? 1 : 0;
    scarce.happened = true;
    return true;
}

void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size)
{
    return denied() ? NULL : __real_calloc(count, size);
}

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_malloc(size_t size)
{
    return denied() ? NULL : __real_malloc(size);
}

/* ------------------------------------------------------------------------------- changes */

typedef struct stage {
    rig_t rig;
    lbrl_frames_t frames;
    void *frames_memory;
    connection_t open[8];
} stage_t;

static lbrl_vip_config_t gre(lbrl_backend_config_t *backends, uint16_t mtu)
{
    lbrl_vip_config_t vip = rig_vip(2, VIP[1], 80, 6, backends, 4);
    vip.forwarding = LBRL_FORWARD_GRE;
    vip.scheduler = LBRL_SCHEDULER_MAGLEV;
    vip.mtu = mtu;
    return vip;
}

static lbrl_vip_config_t balanced(lbrl_backend_config_t *backends, uint32_t count)
{
    lbrl_vip_config_t vip = rig_vip(1, VIP[0], 80, 6, backends, count);
    vip.feature_level = LBRL_LEVEL_FULL;
    return vip;
}

static int more_sources(rig_t *rig)
{
    lbrl_nat_source_t sources[3] = {{address_of("192.0.2.1"), 16384, 28671},
                                    {address_of("9:1"), 16384, 28671},
                                    {address_of("192.0.2.9"), 16384, 28671}};
    return lbrl_sources_set(rig->lb, sources, 3);
}

static int another_key(rig_t *rig)
{
    return lbrl_node_set(rig->lb, (const uint8_t[16]){7, 7, 7}, 3);
}

static int more_backends_and_another_address(rig_t *rig)
{
    lbrl_backend_config_t backends[12];
    lbrl_vip_config_t vip = balanced(backends, 12);
    vip.addresses[vip.address_count++] = address_of(VIP[2]);
    vip.scheduler = LBRL_SCHEDULER_SED;
    return lbrl_vip_set(rig->lb, &vip, rig->now_us);
}

static int another_level(rig_t *rig)
{
    lbrl_backend_config_t backends[4];
    lbrl_vip_config_t vip = balanced(backends, 4);
    vip.feature_level = LBRL_LEVEL_OFF;
    return lbrl_vip_set(rig->lb, &vip, rig->now_us);
}

static int fewer_backends(rig_t *rig)
{
    lbrl_backend_config_t backends[4];
    lbrl_vip_config_t vip = balanced(backends, 2);
    return lbrl_vip_set(rig->lb, &vip, rig->now_us);
}

static int another_tunnel(rig_t *rig)
{
    lbrl_backend_config_t backends[4];
    lbrl_vip_config_t vip = gre(backends, 1300);
    backends[1].weight = 5;
    return lbrl_vip_set(rig->lb, &vip, rig->now_us);
}

static int another_vip(rig_t *rig)
{
    lbrl_backend_config_t backends[3];
    lbrl_vip_config_t vip = rig_vip(4, VIP[3], 80, 6, backends, 3);
    return lbrl_vip_set(rig->lb, &vip, rig->now_us);
}

static int one_vip_less(rig_t *rig)
{
    return lbrl_vip_remove(rig->lb, 5, rig->now_us);
}

static int other_weights(rig_t *rig)
{
    return lbrl_weights_set(rig->lb, 2, (const float[4]){1, 0, 0, 9}, NULL, NULL, 4);
}

static int weights_as_configured(rig_t *rig)
{
    return lbrl_weights_reset(rig->lb, 5);
}

/* ------------------------------------------------------------------------------- what shows */

/* In place: the frames are bound where they lie. */
static void stage_make(stage_t *stage)
{
    rig_t *rig = &stage->rig;
    *rig = rig_sized(4096, 1);
    rig_set_sources(rig);
    lbrl_backend_config_t backends[4];
    lbrl_vip_config_t vip = balanced(backends, 4);
    CHECK_EQUAL(lbrl_vip_set(rig->lb, &vip, rig->now_us), 0);
    vip = gre(backends, 1400);
    CHECK_EQUAL(lbrl_vip_set(rig->lb, &vip, rig->now_us), 0);
    vip = rig_vip(5, VIP[4], 80, 6, backends, 4);
    vip.scheduler = LBRL_SCHEDULER_ALIAS;
    CHECK_EQUAL(lbrl_vip_set(rig->lb, &vip, rig->now_us), 0);
    CHECK_EQUAL(lbrl_weights_set(rig->lb, 5, (const float[4]){1, 2, 3, 0}, NULL, NULL, 4), 0);
    const lbrl_frames_config_t layout = {8, 1, LBRL_LEVEL_FULL, "memory"};
    size_t size = lbrl_frames_size(&layout);
    stage->frames_memory = zeroed(size);
    CHECK_EQUAL(
        lbrl_frames_format(&stage->frames, stage->frames_memory, size, &layout, rig->now_us), 0);
    CHECK_EQUAL(lbrl_frames_bind(rig->lb, 1, &stage->frames), 0);
}

static void stage_open(stage_t *stage)
{
    for (uint16_t i = 0; i < 8; i++) {
        stage->open[i] =
            connection_make(&stage->rig, "198.51.100.7", (uint16_t)(30000 + i), VIP[0]);
        connection_open(&stage->open[i]);
    }
}

static void stage_free(stage_t *stage)
{
    rig_free(&stage->rig);
    free(stage->frames_memory);
}

/* What becomes of a client's first packet, and of a large one. */
typedef struct fate {
    uint8_t verdict, reason, large;
    uint8_t to[16];
} fate_t;

static fate_t probe(rig_t *rig, const char *vip, uint16_t port)
{
    fate_t fate = {0};
    test_packet_t p;
    tcp_fields_t tcp = {.sequence = 100, .flags = SYN, .window = 1000};
    make_tcp(&p, "198.51.100.7", port, vip, 80, &tcp, 0);
    fate.verdict = (uint8_t)rig_send(rig, &p);
    fate.reason = p.p.reason;
    if (fate.verdict == LBRL_VERDICT_FORWARD) {
        memcpy(fate.to, p.p.data + 12, 8); /* source and destination */
    }
    tcp = (tcp_fields_t){.sequence = 101, .ack = 1, .flags = ACK, .window = 1000};
    make_tcp(&p, "198.51.100.7", port, vip, 80, &tcp, 1320);
    p.p.data[6] = 0x40; /* not to be fragmented */
    fix_checksums(&p.p);
    fate.large = (uint8_t)rig_send(rig, &p);
    return fate;
}

/* Established connections go on whatever happens; what new ones meet shows what is in force. */
static void look_at(stage_t *stage, fate_t *fates)
{
    for (uint32_t i = 0; i < 8; i++) {
        stage->open[i].rig = &stage->rig;
        CHECK_EQUAL(connection_client(&stage->open[i], PSH, 100), LBRL_VERDICT_FORWARD);
        CHECK_EQUAL(connection_server(&stage->open[i], PSH, 100), LBRL_VERDICT_FORWARD);
    }
    memset(fates, 0, PROBES * sizeof(*fates));
    for (uint32_t i = 0; i < PROBES; i++) {
        fates[i] = probe(&stage->rig, VIP[i % VIPS], (uint16_t)(40000 + i));
    }
    lbrl_publish(stage->rig.lb, stage->rig.now_us);
}

/* What shows before the change and after it where there is memory. */
static void expect(int (*change)(rig_t *), bool changed, bool ticked, fate_t *fates)
{
    stage_t stage;
    stage_make(&stage);
    stage_open(&stage);
    CHECK_EQUAL(changed ? change(&stage.rig) : 0, 0);
    if (ticked) {
        rig_pass(&stage.rig, 100);
    }
    look_at(&stage, fates);
    stage_free(&stage);
}

/* Lets the change fail at allocation number `at`; false if it needs fewer. `ticked`: the tick alone must mend it. */
static bool fails_at(int (*change)(rig_t *), unsigned at, bool for_good, bool ticked,
                     const fate_t *before, const fate_t *after)
{
    stage_t stage;
    stage_make(&stage);
    stage_open(&stage);
    scarce.left = at;
    scarce.for_good = for_good;
    scarce.happened = false;
    int error = change(&stage.rig);
    scarce.left = 0;
    CHECK(error == 0 || (scarce.happened && error == LBRL_ERR_MEMORY));
    if (ticked) {
        rig_pass(&stage.rig, 100);
    } else {
        CHECK_EQUAL(change(&stage.rig), 0);
    }
    fate_t fates[PROBES];
    look_at(&stage, fates);
    bool is_after = memcmp(fates, after, sizeof(fates)) == 0;
    CHECK(is_after || (ticked && error && memcmp(fates, before, sizeof(fates)) == 0));
    int again = change(&stage.rig);
    CHECK(again == 0 || (again == LBRL_ERR_NOT_FOUND && change == one_vip_less));
    rig_pass(&stage.rig, 1000);
    stage_free(&stage);
    return scarce.happened;
}

static void the_end_of_memory_is_survived(int (*change)(rig_t *))
{
    for (unsigned way = 0; way < 4; way++) {
        bool for_good = way & 1, ticked = way & 2;
        fate_t before[PROBES], after[PROBES];
        expect(change, false, ticked, before);
        expect(change, true, ticked, after);
        CHECK(memcmp(before, after, sizeof(after)) != 0 || change == another_level);
        unsigned at = 1;
        while (fails_at(change, at, for_good, ticked, before, after)) {
            at++;
        }
        CHECK(at > 1);
    }
}

/* States of backends are in force before a schedule is, and without one for want of memory: then the others take the flows. */
static void no_client_is_refused_for_a_schedule_that_is_late(void)
{
    for (unsigned drained = 0; drained < 4; drained++) {
        stage_t stage;
        stage_make(&stage);
        lbrl_backend_config_t backends[4];
        lbrl_vip_config_t vip = balanced(backends, 4);
        backends[drained].state = LBRL_BACKEND_DRAINING;
        scarce.left = 2; /* the first is for the plan of the change */
        scarce.for_good = true;
        CHECK_EQUAL(lbrl_vip_set(stage.rig.lb, &vip, stage.rig.now_us), LBRL_ERR_MEMORY);
        scarce.left = 0;
        for (uint16_t i = 0; i < 64; i++) {
            connection_t c =
                connection_make(&stage.rig, "198.51.100.7", (uint16_t)(40000 + i), VIP[0]);
            connection_open(&c);
            CHECK(c.backend.bytes[15] != drained + 1);
        }
        stage_free(&stage);
    }
}

/* An import needs most of all, and leaves nothing where it fails. */
static void a_failed_import_leaves_nothing(void)
{
    stage_t old;
    stage_make(&old);
    stage_open(&old);
    lbrl_close(old.rig.lb);
    int error = LBRL_ERR_MEMORY;
    for (unsigned at = 1; error; at++) {
        rig_t rig = rig_sized(8192, 1);
        rig.now_us = old.rig.now_us;
        scarce.left = at;
        error = lbrl_import(rig.lb, old.rig.arena, old.rig.arena_size, rig.now_us, &rig.report);
        scarce.left = 0;
        CHECK(error == 0 || error == LBRL_ERR_MEMORY);
        CHECK_EQUAL(lbrl_vip_ids(rig.lb, NULL, 0), error ? 0 : 3);
        rig_restart(&rig);
        CHECK_EQUAL(rig.report.vips, error ? 0 : 3);
        if (error) { /* and the next attempt succeeds */
            CHECK_EQUAL(
                lbrl_import(rig.lb, old.rig.arena, old.rig.arena_size, rig.now_us, &rig.report), 0);
        }
        CHECK_EQUAL(rig.report.flows, 8);
        rig_free(&rig);
    }
    free(old.rig.arena);
    free(old.frames_memory);
}

int main(void)
{
    the_end_of_memory_is_survived(more_sources);
    the_end_of_memory_is_survived(another_key);
    the_end_of_memory_is_survived(more_backends_and_another_address);
    the_end_of_memory_is_survived(another_level);
    the_end_of_memory_is_survived(fewer_backends);
    the_end_of_memory_is_survived(another_tunnel);
    the_end_of_memory_is_survived(another_vip);
    the_end_of_memory_is_survived(one_vip_less);
    the_end_of_memory_is_survived(other_weights);
    the_end_of_memory_is_survived(weights_as_configured);
    no_client_is_refused_for_a_schedule_that_is_late();
    a_failed_import_leaves_nothing();
    return 0;
}
