#include "balancer.h"

#include <stdlib.h>
#include <string.h>

enum {
    VIP_ID = 1,
    VIP_PORT = 80,
    SERVER_PORT = 8080,
    CLIENT_PORTS = 16384, /* of one client address */
    FIRST_CLIENT_PORT = 1024,
    FIRST_NAT_PORT = 1024,
    NAT_PORTS_MIN = 64, /* of a partition and server */
    NAT_PORTS_MAX = 992,
    LINE = 64,
};

#define VIP_ADDRESS    UINT32_C(0xcb007101) /* 203.0.113.1, RFC 5737 */
#define NAT_ADDRESS    UINT32_C(0xc0000201) /* 192.0.2.1, RFC 5737 */
#define SERVER_ADDRESS UINT32_C(0x0a000001) /* 10.0.0.1 and up */
#define CLIENT_ADDRESS UINT32_C(0x64400000) /* 100.64.0.0 and up, RFC 6598 */

/* A shared-memory object in private memory: writer and reader are of one process here. */
typedef struct object {
    void *memory;
    size_t size;
    lbrl_shm_view_t view;
} object_t;

struct sim_balancer {
    lbrl_t *lb;
    lbrl_worker_t *worker;
    void *arena;
    object_t frames_object, actions_object;
    lbrl_frames_t frames;
    lbrl_actions_t actions;
    const lbrl_shm_field_t *columns[LBRL_COUNTER_COUNT]; /* NULL: not recorded */
    const lbrl_shm_field_t *active, *generation, *peers;
    void *frame;   /* copy of the newest */
    void *scratch; /* of reductions */
    lbrl_reduced_t *reduced[LBRL_CHANNEL_COUNT];
    lbrl_backend_config_t *backends;
    lbrl_backend_status_t *status; /* `slots` of them */
    lbrl_backend_flows_t *flows;   /* of each server */
    uint32_t *server_of;           /* by slot */
    float *configured;             /* weight by server */
    uint8_t *generations;          /* that the newest frame showed */
    uint32_t slots, servers;
    uint32_t clients; /* connections so far */
    lbrl_vip_config_t vip;
};

/* Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014. */
static uint64_t splitmix(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static lbrl_address_t address_of(uint32_t number)
{
    lbrl_address_t address = {{[10] = 0xff, [11] = 0xff}};
    for (unsigned i = 0; i < 4; i++) {
        address.bytes[12 + i] = (uint8_t)(number >> (24 - 8 * i));
    }
    return address;
}

/* ------------------------------------------------------------------------------- life */

static void *zeroed(size_t size)
{
    void *memory = aligned_alloc(LINE, (size + LINE - 1) / LINE * LINE);
    return memory ? memset(memory, 0, size) : NULL;
}

static int open_core(sim_balancer_t *b, const sim_balancer_config_t *config)
{
    uint64_t state = config->seed;
    lbrl_attach_report_t report;
    lbrl_config_t core = {.flows = config->flows,
                          .vips = 1,
                          /* A VIP's own are a power of two of at most half, and the servers
                             take a power of two below four times their number. */
                          .slots = 8 * config->servers + LBRL_SLOTS_MIN,
                          .workers = 1,
                          .now_us = config->now_us};
    for (unsigned i = 0; i < sizeof(core.seed); i += sizeof(state)) {
        const uint64_t word = splitmix(&state);
        memcpy(core.seed + i, &word, sizeof(word));
    }
    const size_t size = lbrl_arena_size(&core);
    b->arena = size ? zeroed(size) : NULL;
    if (!b->arena) {
        return size ? LBRL_ERR_MEMORY : LBRL_ERR_INVALID;
    }
    int error = lbrl_open(&b->lb, &core, b->arena, size, &report);
    if (error) {
        return error;
    }
    b->worker = lbrl_worker(b->lb, 0);
    return lbrl_node_set(b->lb, core.seed, config->balancers);
}

static int set_source(sim_balancer_t *b, uint32_t flows)
{
    uint32_t ports = 2 * flows / LBRL_PARTITIONS;
    ports = ports < NAT_PORTS_MIN ? NAT_PORTS_MIN : ports > NAT_PORTS_MAX ? NAT_PORTS_MAX : ports;
    const lbrl_nat_source_t source = {address_of(NAT_ADDRESS), FIRST_NAT_PORT,
                                      (uint16_t)(FIRST_NAT_PORT + ports * LBRL_PARTITIONS - 1)};
    return lbrl_sources_set(b->lb, &source, 1);
}

static void describe_vip(sim_balancer_t *b, const sim_balancer_config_t *config)
{
    b->vip = (lbrl_vip_config_t){.id = VIP_ID,
                                 .address_count = 1,
                                 .port = VIP_PORT,
                                 .protocol = 6,
                                 .scheduler = config->scheduler,
                                 .load = config->load,
                                 .feature_level = config->level,
                                 .forwarding = config->forwarding,
                                 .timeouts = lbrl_timeouts_default(),
                                 .drain_timeout = 60000,
                                 .backends = b->backends};
    b->vip.addresses[0] = address_of(VIP_ADDRESS);
}

static void read_slots(sim_balancer_t *b)
{
    lbrl_vip_status_t status;
    memset(b->server_of, 0xff, b->slots * sizeof(*b->server_of));
    if (lbrl_vip_status(b->lb, VIP_ID, &status, b->status, b->slots) != LBRL_OK) {
        return;
    }
    for (uint32_t i = 0; i < status.backend_count; i++) {
        b->server_of[b->status[i].slot] = (uint32_t)(b->status[i].id - 1);
    }
}

static int set_vip(sim_balancer_t *b, const uint8_t *states, const float *weights, uint64_t now_us)
{
    uint32_t n = 0;
    memcpy(b->configured, weights, b->servers * sizeof(*weights));
    for (uint32_t i = 0; i < b->servers; i++) {
        if (!states || states[i]) {
            b->backends[n++] = (lbrl_backend_config_t){
                .id = i + 1,
                .address = address_of(SERVER_ADDRESS + i),
                .port = SERVER_PORT,
                .state = states ? states[i] : LBRL_BACKEND_ACTIVE,
                .weight = weights[i],
            };
        }
    }
    b->vip.backend_count = n;
    return lbrl_vip_set(b->lb, &b->vip, now_us);
}

/* With all servers at first, so that the VIP's tables have room for those that come later. */
static int make_vip(sim_balancer_t *b, const sim_balancer_config_t *config)
{
    lbrl_vip_status_t status;
    describe_vip(b, config);
    int error = set_vip(b, NULL, config->weights, config->now_us);
    if (!error) {
        error = set_vip(b, config->states, config->weights, config->now_us);
    }
    if (!error) {
        error = lbrl_vip_status(b->lb, VIP_ID, &status, NULL, 0);
        b->slots = status.slots;
    }
    return error;
}

static bool open_frames(sim_balancer_t *b, const sim_balancer_config_t *config)
{
    object_t *o = &b->frames_object;
    const lbrl_frames_config_t layout = {.slots = b->slots,
                                         .workers = 1,
                                         .level = (lbrl_level_t)config->level,
                                         .instance_id = "simulation"};
    o->size = lbrl_frames_size(&layout);
    o->memory = o->size ? zeroed(o->size) : NULL;
    if (!o->memory || lbrl_frames_format(&b->frames, o->memory, o->size, &layout, config->now_us) ||
        lbrl_frames_bind(b->lb, VIP_ID, &b->frames) ||
        lbrl_shm_open(&o->view, o->memory, o->size, LBRL_SHM_FRAMES_MAGIC, NULL)) {
        return false;
    }
    for (uint32_t i = 0; i < LBRL_COUNTER_COUNT; i++) {
        b->columns[i] =
            lbrl_shm_find(&o->view, LBRL_SHM_IN_FRAME, lbrl_counter_info((lbrl_counter_t)i)->name);
    }
    b->active = lbrl_shm_find(&o->view, LBRL_SHM_IN_FRAME, "active");
    b->generation = lbrl_shm_find(&o->view, LBRL_SHM_IN_FRAME, "generation");
    b->peers = lbrl_shm_find(&o->view, LBRL_SHM_IN_FRAME, LBRL_SHM_PEERS);
    b->frame = zeroed(o->view.header.frame_stride);
    b->scratch = zeroed(lbrl_reduce_scratch(&o->view));
    return b->active && b->generation && b->peers && b->frame && b->scratch;
}

static bool open_actions(sim_balancer_t *b, uint64_t now_us)
{
    object_t *o = &b->actions_object;
    o->size = lbrl_actions_size(b->slots);
    o->memory = o->size ? zeroed(o->size) : NULL;
    return o->memory &&
           lbrl_actions_format(&b->actions, o->memory, o->size, b->slots, now_us) == LBRL_SHM_OK &&
           lbrl_shm_open(&o->view, o->memory, o->size, LBRL_SHM_ACTIONS_MAGIC, NULL) == LBRL_SHM_OK;
}

static bool make(sim_balancer_t *b, const sim_balancer_config_t *config)
{
    b->servers = config->servers;
    b->backends = calloc(b->servers, sizeof(*b->backends));
    b->configured = calloc(b->servers, sizeof(*b->configured));
    b->flows = calloc(b->servers, sizeof(*b->flows));
    if (!b->backends || !b->configured || !b->flows || open_core(b, config) ||
        set_source(b, config->flows) || make_vip(b, config)) {
        return false;
    }
    b->status = calloc(b->slots, sizeof(*b->status));
    b->server_of = calloc(b->slots, sizeof(*b->server_of));
    b->generations = calloc(b->slots, sizeof(*b->generations));
    if (!b->status || !b->server_of || !b->generations || !open_frames(b, config) ||
        !open_actions(b, config->now_us)) {
        return false;
    }
    read_slots(b);
    return true;
}

sim_balancer_t *sim_balancer_make(const sim_balancer_config_t *config)
{
    sim_balancer_t *b = calloc(1, sizeof(*b));
    if (b && !make(b, config)) {
        sim_balancer_free(b);
        return NULL;
    }
    return b;
}

void sim_balancer_free(sim_balancer_t *b)
{
    if (!b) {
        return;
    }
    if (b->lb) {
        lbrl_close(b->lb);
    }
    for (uint32_t i = 0; i < LBRL_CHANNEL_COUNT; i++) {
        free(b->reduced[i]);
    }
    free(b->arena);
    free(b->frames_object.memory);
    free(b->actions_object.memory);
    free(b->frame);
    free(b->scratch);
    free(b->backends);
    free(b->configured);
    free(b->flows);
    free(b->status);
    free(b->server_of);
    free(b->generations);
    free(b);
}

uint32_t sim_balancer_slots(const sim_balancer_t *b)
{
    return b->slots;
}

/* ------------------------------------------------------------------------------- connections */

enum {
    FIN = LBRL_SEGMENT_FIN,
    SYN = LBRL_SEGMENT_SYN,
    RST = LBRL_SEGMENT_RST,
    PSH = LBRL_SEGMENT_PSH,
    ACK = LBRL_SEGMENT_ACK,
};

#define EXCHANGE(b, connection, segments, now_us)                                                  \
    (lbrl_connection_exchange((b)->worker, (connection), (segments),                               \
                              sizeof(segments) / sizeof(*(segments)),                              \
                              (now_us)) == sizeof(segments) / sizeof(*(segments)))

uint32_t sim_balancer_open(sim_balancer_t *b, uint64_t now_us, lbrl_connection_t *connection)
{
    const uint32_t number = b->clients++;
    const lbrl_connection_tuple_t tuple = {
        .vip = b->vip.addresses[0],
        .client = address_of(CLIENT_ADDRESS + number / CLIENT_PORTS),
        .vip_port = VIP_PORT,
        .client_port = (uint16_t)(FIRST_CLIENT_PORT + number % CLIENT_PORTS),
    };
    if (lbrl_connection_open(b->worker, &tuple, now_us, connection) != LBRL_DROP_NONE) {
        return SIM_NO_SERVER;
    }
    return b->server_of[connection->slot];
}

bool sim_balancer_establish(sim_balancer_t *b, lbrl_connection_t *connection, uint64_t now_us)
{
    static const lbrl_segment_t segments[] = {{0, 0, SYN | ACK}, {0, 1, ACK}};
    return EXCHANGE(b, connection, segments, now_us);
}

/* Payload of any size, the last segment pushed. */
static bool send_payload(const sim_balancer_t *b, lbrl_connection_t *connection, uint64_t now_us,
                         uint32_t bytes, bool from_client)
{
    for (;;) {
        const bool last = bytes <= LBRL_SEGMENT_MAX;
        const lbrl_segment_t segments[] = {
            {last ? bytes : LBRL_SEGMENT_MAX, from_client, last ? PSH | ACK : ACK}};
        if (!EXCHANGE(b, connection, segments, now_us)) {
            return false;
        }
        if (last) {
            return true;
        }
        bytes -= LBRL_SEGMENT_MAX;
        const lbrl_segment_t acknowledgement[] = {{0, !from_client, ACK}};
        if (!EXCHANGE(b, connection, acknowledgement, now_us)) {
            return false;
        }
    }
}

bool sim_balancer_request(sim_balancer_t *b, lbrl_connection_t *connection, uint64_t now_us,
                          uint32_t bytes)
{
    return send_payload(b, connection, now_us, bytes, true);
}

bool sim_balancer_response(sim_balancer_t *b, lbrl_connection_t *connection, uint64_t now_us,
                           uint32_t bytes)
{
    static const lbrl_segment_t acknowledgement[] = {{0, 1, ACK}};
    return send_payload(b, connection, now_us, bytes, false) &&
           EXCHANGE(b, connection, acknowledgement, now_us);
}

bool sim_balancer_close(sim_balancer_t *b, lbrl_connection_t *connection, uint64_t now_us)
{
    static const lbrl_segment_t segments[] = {{0, 1, FIN | ACK}, {0, 0, FIN | ACK}, {0, 1, ACK}};
    return EXCHANGE(b, connection, segments, now_us);
}

bool sim_balancer_reset(sim_balancer_t *b, lbrl_connection_t *connection, uint64_t now_us)
{
    static const lbrl_segment_t segments[] = {{0, 0, RST | ACK}};
    return EXCHANGE(b, connection, segments, now_us);
}

/* ------------------------------------------------------------------------------- control */

void sim_balancer_tick(sim_balancer_t *b, uint64_t now_us)
{
    lbrl_worker_tick(b->worker, now_us);
    lbrl_control_tick(b->lb, now_us);
}

int sim_balancer_set_servers(sim_balancer_t *b, const uint8_t *states, const float *weights,
                             uint64_t now_us)
{
    lbrl_vip_status_t status;
    int error = set_vip(b, states, weights, now_us);
    if (!error) {
        error = lbrl_vip_status(b->lb, VIP_ID, &status, NULL, 0);
    }
    if (!error && status.slots != b->slots) {
        error = LBRL_ERR_EXHAUSTED; /* frames and actions are of the size of before */
    }
    if (!error) {
        read_slots(b);
    }
    return error;
}

/* ------------------------------------------------------------------------------- shared view */

int sim_balancer_share(sim_balancer_t *b, const lbrl_sharing_t *how)
{
    return lbrl_sharing_set(b->lb, VIP_ID, how);
}

void sim_balancer_flows(sim_balancer_t *b, uint32_t *flows)
{
    uint32_t count = 0;
    memset(flows, 0, b->servers * sizeof(*flows));
    (void)lbrl_flows(b->lb, VIP_ID, b->flows, b->servers, &count);
    for (uint32_t i = 0; i < count; i++) {
        flows[b->flows[i].backend - 1] = b->flows[i].flows;
    }
}

int sim_balancer_set_peers(sim_balancer_t *b, const uint32_t *flows, uint64_t now_us)
{
    for (uint32_t i = 0; i < b->servers; i++) {
        b->flows[i] = (lbrl_backend_flows_t){i + 1, flows[i]};
    }
    return lbrl_peers_set(b->lb, VIP_ID, b->flows, b->servers, now_us);
}

/* ------------------------------------------------------------------------------- the agent's side */

static void read_backends(sim_balancer_t *b, const sim_observation_t *seen)
{
    lbrl_vip_status_t status;
    for (uint32_t i = 0; i < b->slots; i++) {
        seen->server[i] = -1;
        seen->eligible[i] = 0;
        seen->configured[i] = 0;
        seen->weight[i] = seen->base[i] = 0;
    }
    if (lbrl_vip_status(b->lb, VIP_ID, &status, b->status, b->slots) != LBRL_OK) {
        return;
    }
    for (uint32_t i = 0; i < status.backend_count; i++) {
        const lbrl_backend_status_t *is = &b->status[i];
        const float configured = is->removed ? 0 : b->configured[is->id - 1];
        seen->server[is->slot] = (int16_t)(is->id - 1);
        seen->configured[is->slot] = (double)configured;
        seen->eligible[is->slot] = is->state == LBRL_BACKEND_ACTIVE && configured > 0;
        seen->weight[is->slot] = is->weight;
        seen->base[is->slot] = is->base;
    }
}

int sim_balancer_observe(sim_balancer_t *b, uint64_t now_us, const sim_observation_t *seen)
{
    const lbrl_shm_view_t *view = &b->frames_object.view;
    lbrl_publish(b->lb, now_us);
    int error = lbrl_read(view, b->frame, view->header.frame_stride);
    if (error) {
        return error;
    }
    const uint8_t *frame = b->frame;
    const uint64_t *active = (const uint64_t *)(const void *)(frame + b->active->offset);
    memcpy(b->generations, frame + b->generation->offset, b->slots);
    memcpy(seen->generation, b->generations, b->slots);
    if (seen->peers) {
        memcpy(seen->peers, frame + b->peers->offset, b->slots * sizeof(*seen->peers));
    }
    for (uint32_t i = 0; i < b->slots; i++) {
        seen->active[i] = active[i / 64] >> i % 64 & 1;
    }
    for (uint32_t c = 0; c < LBRL_COUNTER_COUNT; c++) {
        if (seen->counters[c] && b->columns[c]) {
            memcpy(seen->counters[c], frame + b->columns[c]->offset, b->slots * sizeof(int64_t));
        }
    }
    read_backends(b, seen);
    return LBRL_SHM_OK;
}

int sim_balancer_reduce(sim_balancer_t *b, const lbrl_channel_t *channels, uint32_t count,
                        uint64_t now_us, lbrl_reduction_t *const *out)
{
    lbrl_channel_reduction_t wanted[LBRL_CHANNEL_COUNT];
    if (count > LBRL_CHANNEL_COUNT) {
        return LBRL_SHM_ARGUMENT;
    }
    for (uint32_t i = 0; i < count; i++) {
        lbrl_reduced_t **cache = &b->reduced[channels[i]];
        *cache = *cache ? *cache : calloc(b->slots, sizeof(**cache)); /* NULL: none, only slower */
        wanted[i] =
            (lbrl_channel_reduction_t){lbrl_channel_info(channels[i])->name, *cache, out[i]};
    }
    return lbrl_reduce_channels(&b->frames_object.view, wanted, count, now_us, b->scratch);
}

int sim_balancer_act(sim_balancer_t *b, const float *weights, const float *bases, bool shared,
                     uint64_t now_us)
{
    if (shared) {
        lbrl_actions_write_shared(&b->actions, weights, bases, b->generations, now_us);
    } else {
        lbrl_actions_write(&b->actions, weights, bases, b->generations, now_us);
    }
    int result = lbrl_weights_follow(b->lb, VIP_ID, &b->actions_object.view, now_us);
    return result < 0 ? result : 0;
}
