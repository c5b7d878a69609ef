/*
 * libFuzzer target of weights: an agent, or what has got into its place, writes an actions object that the data plane
 * follows. An input is a list of steps, a byte each (its low 3 bits, see below), with operands behind it. Whatever is
 * written, weights and bases in force are numbers in their range, and new flows go to backends that may have them.
 */
#include "objects.h"
#include "rig.h"
#include "shm_layout.h"

enum { BACKENDS = 4, SLOTS = 8 };

enum {
    STEP_WRITE, /* as agents do: 8 x 4 bytes of weights, 1 byte which generation, and whether as many of bases follow */
    STEP_DAMAGE, /* 2 bytes offset, 1 byte value */
    STEP_FOLLOW, /* 1 byte: how much time passes before */
    STEP_UNFOLLOW,
    STEP_SET,      /* by hand: 8 x 4 bytes of weights, as many of bases */
    STEP_RESET,    /* to the configured ones */
    STEP_BACKENDS, /* 1 byte: state of each of 4 backends, 2 bits each */
    STEP_SCHEDULER /* 1 byte */
};

typedef struct input {
    const uint8_t *data;
    size_t size;
} input_t;

typedef struct agent {
    rig_t rig;
    lbrl_actions_t actions;
    void *memory;
    size_t size;
    uint8_t scheduler, states;
} agent_t;

static uint8_t next_byte(input_t *input)
{
    if (!input->size) {
        return 0;
    }
    input->size--;
    return *input->data++;
}

static void next_floats(input_t *input, float values[SLOTS])
{
    for (uint32_t i = 0; i < SLOTS; i++) {
        uint32_t bits = 0;
        for (unsigned k = 0; k < 4; k++) {
            bits |= (uint32_t)next_byte(input) << (8 * k);
        }
        memcpy(&values[i], &bits, sizeof(bits));
    }
}

static void configure(agent_t *agent)
{
    lbrl_backend_config_t backends[BACKENDS];
    lbrl_vip_config_t vip = rig_vip(1, "203.0.113.10", 80, 6, backends, BACKENDS);
    vip.scheduler = agent->scheduler;
    for (uint32_t i = 0; i < BACKENDS; i++) {
        uint8_t state = agent->states >> (2 * i) & 3;
        backends[i].state = state ? state : LBRL_BACKEND_ACTIVE;
    }
    CHECK_EQUAL(lbrl_vip_set(agent->rig.lb, &vip, agent->rig.now_us), 0);
}

static void write_weights(agent_t *agent, input_t *input)
{
    float weights[SLOTS], bases[SLOTS];
    uint8_t generation[SLOTS];
    next_floats(input, weights);
    const uint8_t mode = next_byte(input);
    const bool has_bases = (mode & 4) != 0;
    memset(generation, mode & 3, sizeof(generation));
    if (has_bases) {
        next_floats(input, bases);
    }
    /* a writer looks before it writes into what others have damaged */
    lbrl_actions_t actions;
    if (lbrl_actions_attach(&actions, agent->memory, agent->size, SLOTS, NULL) == 0) {
        lbrl_actions_write(&actions, weights, has_bases ? bases : NULL, generation,
                           agent->rig.now_us);
    }
}

static void follow(agent_t *agent, uint8_t time)
{
    static const uint32_t passes[4] = {0, 200000, 5000000, 40000000};
    agent->rig.now_us += passes[time & 3];
    lbrl_shm_view_t view;
    if (lbrl_shm_open(&view, agent->memory, agent->size, LBRL_SHM_ACTIONS_MAGIC, NULL) == 0) {
        int result = lbrl_weights_follow(agent->rig.lb, 1, &view, agent->rig.now_us);
        CHECK(result <= 1);
    }
    lbrl_control_tick(agent->rig.lb, agent->rig.now_us);
}

static void take_step(agent_t *agent, input_t *input)
{
    float weights[SLOTS], bases[SLOTS];
    size_t offset;
    switch (next_byte(input) & 7) {
    case STEP_WRITE:
        write_weights(agent, input);
        break;
    case STEP_DAMAGE:
        offset = (size_t)next_byte(input) | (size_t)next_byte(input) << 8;
        ((uint8_t *)agent->memory)[offset % agent->size] = next_byte(input);
        break;
    case STEP_FOLLOW:
        follow(agent, next_byte(input));
        break;
    case STEP_UNFOLLOW:
        CHECK_EQUAL(lbrl_weights_unfollow(agent->rig.lb, 1, agent->rig.now_us), 0);
        break;
    case STEP_SET:
        next_floats(input, weights);
        next_floats(input, bases);
        (void)lbrl_weights_set(agent->rig.lb, 1, weights, bases, NULL, SLOTS);
        break;
    case STEP_RESET:
        CHECK_EQUAL(lbrl_weights_reset(agent->rig.lb, 1), 0);
        break;
    case STEP_BACKENDS:
        agent->states = next_byte(input);
        configure(agent);
        break;
    default:
        agent->scheduler = next_byte(input) % LBRL_SCHEDULER_COUNT;
        configure(agent);
        break;
    }
}

/* Weights are in range, and a new flow goes where it may. */
static void check_state(agent_t *agent, uint16_t port)
{
    lbrl_vip_status_t status;
    lbrl_backend_status_t backends[SLOTS];
    CHECK_EQUAL(lbrl_vip_status(agent->rig.lb, 1, &status, backends, SLOTS), 0);
    for (uint32_t i = 0; i < status.backend_count; i++) {
        CHECK(backends[i].weight >= 0 && backends[i].weight <= LBRL_WEIGHT_MAX);
        CHECK(backends[i].base > 0 && backends[i].base <= LBRL_BASE_MAX);
    }
    connection_t c = connection_make(&agent->rig, "198.51.100.7", port, "203.0.113.10");
    if (connection_syn(&c) == LBRL_VERDICT_FORWARD) {
        const lbrl_flow_info_t flow = connection_flow(&c);
        bool found = false;
        for (uint32_t i = 0; i < status.backend_count; i++) {
            found |= backends[i].slot == flow.slot && backends[i].state == LBRL_BACKEND_ACTIVE &&
                     backends[i].weight > 0;
        }
        CHECK(found);
    }
    connection_client(&c, RST, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    agent_t agent = {.rig = rig_tiny(), .scheduler = LBRL_SCHEDULER_SED};
    lbrl_nat_source_t source = {address_of("192.0.2.1"), 16384, 20479};
    CHECK_EQUAL(lbrl_sources_set(agent.rig.lb, &source, 1), 0);
    configure(&agent);
    agent.size = lbrl_actions_size(SLOTS);
    agent.memory = zeroed(agent.size);
    CHECK_EQUAL(lbrl_actions_format(&agent.actions, agent.memory, agent.size, SLOTS, 1), 0);
    input_t input = {data, size};
    for (uint16_t steps = 0; input.size && steps < 64; steps++) {
        take_step(&agent, &input);
        check_state(&agent, (uint16_t)(40000 + steps));
    }
    rig_free(&agent.rig);
    free(agent.memory);
    return 0;
}
