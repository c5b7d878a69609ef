/* The frames object: its writer, the data plane's control thread. */
#include "lbrl/shm.h"
#include "shm_layout.h"

/* An hour of old samples is looked for once per 256 frames (51 s at 200 ms): far more often than words could be
 * mistaken for young ones, which takes 18 hours. */
#define EXPIRE_PUBLICATIONS 256u

/* But the machine may have slept meanwhile. */
#define EXPIRE_ALL_AFTER_US (LBRL_SAMPLE_MAX_AGE_SECONDS * UINT64_C(1000000))

/* Flow microseconds by which an integral may seem to have fallen: what one vector changes, an hour late. */
#define INTEGRAL_MAX_FALL (UINT64_C(1) << 40)

typedef struct layout {
    uint32_t active, generation;                                          /* in the object */
    uint32_t frame_active, frame_generation, frame_counters, frame_peers; /* in a frame */
    lbrl_shm_header_t header;
} layout_t;

static bool config_valid(const lbrl_frames_config_t *config)
{
    return config->slots >= 1 && config->slots <= LBRL_SHM_MAX_SLOTS && config->workers >= 1 &&
           config->workers <= LBRL_SHM_MAX_WORKERS && (uint32_t)config->level < LBRL_LEVEL_COUNT &&
           lbrl_shm_text_valid(config->instance_id, sizeof(((lbrl_shm_header_t *)0)->instance_id));
}

static layout_t plan_layout(const lbrl_frames_config_t *config)
{
    const uint32_t slots = config->slots;
    const uint64_t bits = lbrl_bit_words(slots) * sizeof(uint64_t);
    const uint64_t channels = lbrl_level_channels(config->level);
    const uint64_t counters = (uint64_t)__builtin_popcount(lbrl_level_counters(config->level));
    /* active and generation live; sequence, times, active, generation and flows of the peers in a frame; the
     * rest */
    const uint64_t fields = 2 + 6 + counters + 2 * channels;

    layout_t plan = {0};
    uint64_t at =
        lbrl_align(sizeof(lbrl_shm_header_t) + fields * sizeof(lbrl_shm_field_t), LBRL_SHM_LINE);
    plan.active = (uint32_t)at;
    plan.generation = (uint32_t)(at += bits);
    at = lbrl_align(at + slots, LBRL_SHM_LINE);
    plan.header.frames_offset = (uint32_t)at;

    uint64_t in_frame = sizeof(lbrl_frame_t);
    plan.frame_active = (uint32_t)in_frame;
    plan.frame_counters = (uint32_t)(in_frame += bits);
    plan.frame_peers = (uint32_t)(in_frame += counters * slots * sizeof(int64_t));
    plan.frame_generation = (uint32_t)(in_frame += slots * sizeof(int64_t));
    plan.header.frame_stride = (uint32_t)lbrl_align(in_frame + slots, LBRL_SHM_LINE);

    at = lbrl_align(at + (uint64_t)LBRL_SHM_FRAMES * plan.header.frame_stride, LBRL_SHM_PAGE);
    plan.header.workers_offset = (uint32_t)at;
    const bool full = config->level == LBRL_LEVEL_FULL;
    const uint64_t seen = full ? lbrl_seen_step(full) : channels;
    plan.header.worker_stride = lbrl_align(
        (seen + channels * LBRL_RESERVOIR_WORDS) * slots * sizeof(uint64_t), LBRL_SHM_PAGE);
    plan.header.size = at + config->workers * plan.header.worker_stride;
    plan.header.fields_offset = sizeof(lbrl_shm_header_t);
    plan.header.byte_order = LBRL_SHM_BYTE_ORDER;
    plan.header.abi = full ? LBRL_SHM_ABI : LBRL_SHM_ABI_MIN;
    plan.header.slots = slots;
    plan.header.workers = config->workers;
    plan.header.level = (uint32_t)config->level;
    memcpy(plan.header.instance_id, config->instance_id, strlen(config->instance_id));
    return plan;
}

static void describe_channels(lbrl_shm_header_t *header, lbrl_shm_field_t *fields)
{
    const uint32_t slots = header->slots;
    const uint32_t channels = lbrl_level_channels((lbrl_level_t)header->level);
    const bool full = header->level == LBRL_LEVEL_FULL;
    const size_t counts = slots * (full ? lbrl_seen_step(full) : channels);
    const uint32_t word = sizeof(uint64_t);
    for (uint32_t i = 0; i < channels; i++) {
        const lbrl_channel_t channel = (lbrl_channel_t)i;
        const char *name = lbrl_channel_info(channel)->name;
        const size_t first = counts + lbrl_channel_first(channel, full, slots);
        char seen[sizeof(fields->name)];
        (void)lbrl_shm_seen_name(seen, name); /* a test keeps names short enough */
        lbrl_shm_add_strided(header, fields, seen, LBRL_SHM_IN_WORKER, LBRL_SHM_U64, slots,
                             lbrl_seen_first(channel, full, slots) * word,
                             (uint32_t)lbrl_seen_step(full) * word);
        lbrl_shm_add_strided(header, fields, name, LBRL_SHM_IN_WORKER, LBRL_SHM_SAMPLE,
                             slots * LBRL_RESERVOIR_WORDS, first * word,
                             (uint32_t)lbrl_channel_step(channel, full) * word);
    }
}

static void describe_fields(const layout_t *plan, lbrl_shm_header_t *header,
                            lbrl_shm_field_t *fields)
{
    const uint32_t slots = header->slots;
    const uint32_t bits = lbrl_bit_words(slots);
    lbrl_shm_add_field(header, fields, "active", LBRL_SHM_IN_HEADER, LBRL_SHM_BITS, bits,
                       plan->active);
    lbrl_shm_add_field(header, fields, "generation", LBRL_SHM_IN_HEADER, LBRL_SHM_U8, slots,
                       plan->generation);
    lbrl_shm_add_field(header, fields, "sequence", LBRL_SHM_IN_FRAME, LBRL_SHM_U64, 1,
                       offsetof(lbrl_frame_t, sequence));
    lbrl_shm_add_field(header, fields, "time_us", LBRL_SHM_IN_FRAME, LBRL_SHM_U64, 1,
                       offsetof(lbrl_frame_t, time_us));
    lbrl_shm_add_field(header, fields, "actions_sequence", LBRL_SHM_IN_FRAME, LBRL_SHM_U64, 1,
                       offsetof(lbrl_frame_t, actions_sequence));
    lbrl_shm_add_field(header, fields, "active", LBRL_SHM_IN_FRAME, LBRL_SHM_BITS, bits,
                       plan->frame_active);
    lbrl_shm_add_field(header, fields, "generation", LBRL_SHM_IN_FRAME, LBRL_SHM_U8, slots,
                       plan->frame_generation);
    lbrl_shm_add_field(header, fields, LBRL_SHM_PEERS, LBRL_SHM_IN_FRAME, LBRL_SHM_I64, slots,
                       plan->frame_peers);
    uint64_t column = plan->frame_counters;
    for (uint32_t i = 0; i < LBRL_COUNTER_COUNT; i++) {
        if (lbrl_level_counters((lbrl_level_t)header->level) >> i & 1) {
            lbrl_shm_add_field(header, fields, lbrl_counter_info((lbrl_counter_t)i)->name,
                               LBRL_SHM_IN_FRAME, LBRL_SHM_I64, slots, column);
            column += slots * sizeof(int64_t);
        }
    }
    describe_channels(header, fields);
}

size_t lbrl_frames_size(const lbrl_frames_config_t *config)
{
    return config_valid(config) ? (size_t)plan_layout(config).header.size : 0;
}

int lbrl_frames_format(lbrl_frames_t *frames, void *memory, size_t size,
                       const lbrl_frames_config_t *config, uint64_t now_us)
{
    if (!config_valid(config)) {
        return LBRL_SHM_ARGUMENT;
    }
    const layout_t plan = plan_layout(config);
    if (size < plan.header.size) {
        return LBRL_SHM_ARGUMENT;
    }
    uint8_t *base = memory;
    lbrl_shm_header_t *header = memory;
    *header = plan.header;
    header->heartbeat_us = now_us;
    describe_fields(&plan, header, (lbrl_shm_field_t *)(void *)(base + header->fields_offset));
    *frames = (lbrl_frames_t){
        .base = base,
        .header = header,
        .active = (uint64_t *)(void *)(base + plan.active),
        .generation = base + plan.generation,
        .slots = config->slots,
        .workers = config->workers,
        .channels = lbrl_level_channels(config->level),
        .full = config->level == LBRL_LEVEL_FULL,
        .recorded = lbrl_level_counters(config->level),
        .frame_active = plan.frame_active,
        .frame_generation = plan.frame_generation,
        .frame_counters = plan.frame_counters,
        .frame_peers = plan.frame_peers,
    };
    __atomic_store_n(&header->magic, LBRL_SHM_FRAMES_MAGIC, __ATOMIC_RELEASE);
    return LBRL_SHM_OK;
}

/* Where a channel lies in a worker's block, in words. */
typedef struct reservoir {
    size_t first, step;     /* of the elements */
    size_t seen, seen_step; /* of the counts */
} reservoir_t;

static reservoir_t reservoir(const lbrl_frames_t *frames, lbrl_channel_t channel)
{
    return (reservoir_t){lbrl_channel_first(channel, frames->full, frames->slots),
                         lbrl_channel_step(channel, frames->full),
                         lbrl_seen_first(channel, frames->full, frames->slots),
                         lbrl_seen_step(frames->full)};
}

static void clear_slot(lbrl_frames_t *frames, uint32_t slot)
{
    for (uint32_t worker = 0; worker < frames->workers; worker++) {
        uint64_t *seen = lbrl_frames_seen(frames, worker);
        uint64_t *words = lbrl_frames_words(frames, worker);
        for (uint32_t channel = 0; channel < frames->channels; channel++) {
            const reservoir_t is = reservoir(frames, (lbrl_channel_t)channel);
            __atomic_store_n(&seen[slot * is.seen_step + is.seen], 0, __ATOMIC_RELAXED);
            for (uint32_t i = 0; i < LBRL_RESERVOIR_WORDS; i++) {
                const size_t element = (size_t)slot * LBRL_RESERVOIR_WORDS + i;
                __atomic_store_n(&words[is.first + element * is.step], 0, __ATOMIC_RELAXED);
            }
        }
    }
}

void lbrl_frames_slot_open(lbrl_frames_t *frames, uint32_t slot, uint8_t generation)
{
    clear_slot(frames, slot);
    __atomic_store_n(&frames->generation[slot], generation, __ATOMIC_RELEASE);
    __atomic_or_fetch(&frames->active[slot / 64], UINT64_C(1) << slot % 64, __ATOMIC_RELEASE);
}

void lbrl_frames_slot_close(lbrl_frames_t *frames, uint32_t slot)
{
    __atomic_and_fetch(&frames->active[slot / 64], ~(UINT64_C(1) << slot % 64), __ATOMIC_RELEASE);
}

static int64_t sum_counter(const lbrl_sink_t *const *sinks, uint32_t n_sinks, uint32_t slot,
                           lbrl_counter_t counter)
{
    int64_t sum = 0;
    for (uint32_t i = 0; i < n_sinks; i++) {
        sum += lbrl_sink_value(sinks[i], slot, counter);
    }
    return sum;
}

/* What a frame is made from. */
typedef struct publication {
    const lbrl_sink_t *const *sinks;
    uint32_t n_sinks;
    const int64_t *peers; /* NULL: unknown */
    uint64_t now_us;
    const uint8_t *before; /* the last frame, whose integrals go on; NULL: none */
} publication_t;

/* Goes on with the integral of the frame before, which may have passed 2^54 or be a little larger. */
static int64_t integral_from(int64_t before, const publication_t *is, uint32_t slot,
                             lbrl_counter_t counter)
{
    const uint64_t modulus = UINT64_C(1) << LBRL_INTEGRAL_BITS;
    uint64_t sum = 0;
    for (uint32_t i = 0; i < is->n_sinks; i++) {
        sum += lbrl_sink_integral(is->sinks[i], slot, counter, is->now_us);
    }
    const uint64_t added = (sum - (uint64_t)before) & (modulus - 1);
    return added >= modulus - INTEGRAL_MAX_FALL ? before : before + (int64_t)added;
}

static int64_t value_of(const lbrl_frames_t *frames, const publication_t *is, uint32_t slot,
                        lbrl_counter_t counter, size_t place)
{
    if (!lbrl_counter_is_integral(counter)) {
        return sum_counter(is->sinks, is->n_sinks, slot, counter);
    }
    const bool goes_on =
        is->before && is->before[frames->frame_generation + slot] == frames->generation[slot];
    return integral_from(goes_on ? *(const int64_t *)(const void *)(is->before + place) : 0, is,
                         slot, counter);
}

static void fill_counters(const lbrl_frames_t *frames, uint8_t *frame, const publication_t *is,
                          uint32_t slot)
{
    size_t place = frames->frame_counters + slot * sizeof(int64_t);
    for (uint32_t left = frames->recorded; left != 0; left &= left - 1) {
        const lbrl_counter_t counter = (lbrl_counter_t)__builtin_ctz(left);
        __atomic_store_n((int64_t *)(void *)(frame + place),
                         value_of(frames, is, slot, counter, place), __ATOMIC_RELAXED);
        place += frames->slots * sizeof(int64_t);
    }
}

static void fill_frame(const lbrl_frames_t *frames, uint8_t *frame, const publication_t *is)
{
    uint64_t *active = (uint64_t *)(void *)(frame + frames->frame_active);
    int64_t *peers = (int64_t *)(void *)(frame + frames->frame_peers);
    for (uint32_t i = 0; i < lbrl_bit_words(frames->slots); i++) {
        __atomic_store_n(&active[i], frames->active[i], __ATOMIC_RELAXED);
    }
    for (uint32_t slot = 0; slot < frames->slots; slot++) {
        __atomic_store_n(&frame[frames->frame_generation + slot], frames->generation[slot],
                         __ATOMIC_RELAXED);
        __atomic_store_n(&peers[slot], is->peers ? is->peers[slot] : -1, __ATOMIC_RELAXED);
        fill_counters(frames, frame, is, slot);
    }
}

/* The last frame, if its sinks counted at the same level. */
static const uint8_t *frame_before(lbrl_frames_t *frames, const lbrl_sink_t *const *sinks,
                                   uint32_t n_sinks)
{
    const uint32_t era = n_sinks ? sinks[0]->era : 0;
    const bool goes_on = frames->sequence > 0 && era == frames->era;
    frames->era = era;
    return goes_on ? (const uint8_t *)lbrl_shm_frame(frames->base, frames->header,
                                                     frames->sequence % LBRL_SHM_FRAMES)
                   : NULL;
}

/* Clears one reservoir's old words. A worker may overwrite one meanwhile: then its sample stays. */
static void expire_words(uint64_t *words, uint32_t now_ticks)
{
    for (uint32_t i = 0; i < LBRL_RESERVOIR_WORDS; i++) {
        uint64_t word = __atomic_load_n(&words[i], __ATOMIC_RELAXED);
        if (word != 0 && lbrl_sample_age_ticks(word, now_ticks) >
                             LBRL_SAMPLE_MAX_AGE_SECONDS * LBRL_SAMPLE_TICKS_PER_SECOND) {
            __atomic_compare_exchange_n(&words[i], &word, 0, false, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED);
        }
    }
}

/* After so long every sample is old, though its 24 bits of time may say that it is young. */
static void expire_all(const lbrl_frames_t *frames)
{
    const size_t words = (size_t)frames->channels * frames->slots * LBRL_RESERVOIR_WORDS;
    for (uint32_t worker = 0; worker < frames->workers; worker++) {
        uint64_t *of_worker = lbrl_frames_words(frames, worker);
        for (size_t i = 0; i < words; i++) {
            __atomic_store_n(&of_worker[i], 0, __ATOMIC_RELAXED);
        }
    }
}

static void expire(lbrl_frames_t *frames, uint64_t now_us)
{
    const uint32_t per_worker = frames->channels * frames->slots;
    const uint32_t cells = per_worker * frames->workers;
    const uint32_t share = (cells + EXPIRE_PUBLICATIONS - 1) / EXPIRE_PUBLICATIONS;
    for (uint32_t i = 0; i < share; i++) {
        uint32_t cell = frames->expire_cursor;
        frames->expire_cursor = (cell + 1) % cells;
        expire_words(lbrl_frames_words(frames, cell / per_worker) +
                         (size_t)(cell % per_worker) * LBRL_RESERVOIR_WORDS,
                     lbrl_sample_ticks(now_us));
    }
}

void lbrl_frames_publish(lbrl_frames_t *frames, const lbrl_sink_t *const *sinks, uint32_t n_sinks,
                         const int64_t *peers, uint64_t actions_sequence, uint64_t now_us)
{
    const publication_t is = {sinks, n_sinks, peers, now_us, frame_before(frames, sinks, n_sinks)};
    const uint64_t sequence = ++frames->sequence;
    lbrl_frame_t *frame = lbrl_shm_frame(frames->base, frames->header, sequence % LBRL_SHM_FRAMES);
    lbrl_frame_begin(frame);
    __atomic_store_n(&frame->time_us, now_us, __ATOMIC_RELAXED);
    __atomic_store_n(&frame->actions_sequence, actions_sequence, __ATOMIC_RELAXED);
    fill_frame(frames, (uint8_t *)frame, &is);
    lbrl_frame_end(frame, sequence);
    const uint64_t before_us = frames->header->heartbeat_us;
    if (sequence > 1 && now_us > before_us && now_us - before_us > EXPIRE_ALL_AFTER_US) {
        expire_all(frames);
    }
    __atomic_store_n(&frames->header->heartbeat_us, now_us, __ATOMIC_RELAXED);
    expire(frames, now_us);
}

static void carry_worker(const lbrl_frames_t *to, const lbrl_frames_t *from, uint32_t worker,
                         lbrl_channel_t channel)
{
    const reservoir_t source = reservoir(from, channel), target = reservoir(to, channel);
    const uint64_t *seen = lbrl_frames_seen(from, worker) + source.seen;
    const uint64_t *words = lbrl_frames_words(from, worker) + source.first;
    uint64_t *to_seen = lbrl_frames_seen(to, worker) + target.seen;
    uint64_t *to_words = lbrl_frames_words(to, worker) + target.first;
    for (uint32_t slot = 0; slot < from->slots; slot++) {
        to_seen[slot * target.seen_step] =
            __atomic_load_n(&seen[slot * source.seen_step], __ATOMIC_RELAXED);
    }
    for (size_t i = 0; i < (size_t)from->slots * LBRL_RESERVOIR_WORDS; i++) {
        to_words[i * target.step] = __atomic_load_n(&words[i * source.step], __ATOMIC_RELAXED);
    }
}

int lbrl_frames_carry(lbrl_frames_t *to, const lbrl_frames_t *from)
{
    if (to->slots < from->slots || to->workers < from->workers) {
        return LBRL_SHM_ARGUMENT;
    }
    const uint32_t channels = to->channels < from->channels ? to->channels : from->channels;
    for (uint32_t worker = 0; worker < from->workers; worker++) {
        for (uint32_t channel = 0; channel < channels; channel++) {
            carry_worker(to, from, worker, (lbrl_channel_t)channel);
        }
    }
    memcpy(to->generation, from->generation, from->slots);
    memcpy(to->active, from->active, lbrl_bit_words(from->slots) * sizeof(uint64_t));
    return LBRL_SHM_OK;
}

void lbrl_frames_retire(lbrl_frames_t *frames)
{
    __atomic_store_n(&frames->header->retired, 1, __ATOMIC_RELEASE);
}
