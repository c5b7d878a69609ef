/* What is measured of flows, and how the packet path records it.
 *
 * The two tables below are the one definition of every counter and channel. The shared-memory field
 * table, penstock_core.COUNTERS and CHANNELS, and docs/features.md are made from them. Names of the
 * feature set follow "Aquarius: Enable Fast, Scalable, Data-Driven Service Management in the Cloud"
 * (IEEE TNSM 2022).
 *
 * The packet path decides when something happened (it has the TCP state); a sink knows how it is
 * recorded. */
#ifndef LBRL_FEATURES_H
#define LBRL_FEATURES_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

/* How much is measured of each flow of a VIP. A counter or channel has two of them: from which
 * level on it is recorded, and from which level on it is a feature that policies observe: 0, 11 (1
 * counter, 2 channels) and 73 (8 counters, 13 channels) features. */
typedef enum lbrl_level {
    LBRL_LEVEL_OFF = 0,
    LBRL_LEVEL_BASIC = 1,
    LBRL_LEVEL_FULL = 2,
    LBRL_LEVEL_COUNT = 3,
    LBRL_LEVEL_NEVER = 255, /* observed never: of our own, outside the 73 */
} lbrl_level_t;

/* Counters, one 64-bit integer per slot and worker. In the order of lbrl_slot_counters_t: first those that every
 * packet changes, then those of flows and requests, then rare ones.
 *
 * X(symbol, name, recorded from, observed from, kind, unit, event, condition, one-way, two-way,
 *   offload, UDP)
 *   kind      "total" counts since the slot was taken, "gauge" rises and falls
 *   one-way   how it is measured where only client to server is seen (GRE, L3DSR)
 *   two-way   the same where both directions are seen (NAT)
 *   offload   what a super-packet (GRO, TSO, USO) counts for */
#define LBRL_COUNTERS(X)                                                                           \
    X(N_PACKET, "n_packet", LBRL_LEVEL_OFF, LBRL_LEVEL_FULL, "total", "packets",                   \
      "packet from a client", "its flow is tracked", "as defined",                                 \
      "as defined; packets from servers are not counted", "each segment counts", "as defined")     \
    X(PACKETS, "packets", LBRL_LEVEL_OFF, LBRL_LEVEL_NEVER, "total", "packets",                    \
      "packet in either direction", "its flow is tracked", "client to server only", "as defined",  \
      "each segment counts", "as defined")                                                         \
    X(BYTES, "bytes", LBRL_LEVEL_OFF, LBRL_LEVEL_NEVER, "total", "bytes",                          \
      "packet in either direction adds its IP length", "its flow is tracked",                      \
      "client to server only", "as defined",                                                       \
      "length of the super-packet, its one header counted once", "as defined")                     \
    X(N_ANSWER, "n_answer", LBRL_LEVEL_OFF, LBRL_LEVEL_NEVER, "total", "packets",                  \
      "packet with payload from the server", "its flow is tracked; no later fragment", "never",    \
      "as defined", "each segment counts", "as defined")                                           \
    X(N_TURN, "n_turn", LBRL_LEVEL_FULL, LBRL_LEVEL_NEVER, "total", "requests",                    \
      "answer: first new payload of the server after new payload of the client",                   \
      "the answer acknowledges all of that; requests sent before it count once; also where "       \
      "pt_gen has no sample because payload was sent again",                                       \
      "answer: next packet of the client that acknowledges more", "as defined",                    \
      "one answer per super-packet",                                                               \
      "two-way only: first datagram of the server after one of the client")                        \
    X(N_FLOW_ON, "n_flow_on", LBRL_LEVEL_OFF, LBRL_LEVEL_BASIC, "gauge", "flows",                  \
      "flow opened: +1; flow closed, reset, expired or silent: -1",                                \
      "a closing flow that sends in-window data counts again",                                     \
      "also leaves after T seconds of silence, counts again with its next packet", "as defined",   \
      "none", "closes by timeout, port 53 with its last answer")                                   \
    X(OPEN_US, "open_us", LBRL_LEVEL_OFF, LBRL_LEVEL_NEVER, "total", "flow microseconds",          \
      "a microsecond passes: + n_flow_on",                                                         \
      "flows begin and end when the vector with the packet was taken in", "as defined",            \
      "as defined", "none", "as defined")                                                          \
    X(N_FLOW, "n_flow", LBRL_LEVEL_OFF, LBRL_LEVEL_FULL, "total", "flows",                         \
      "new flow assigned to the backend", "an entry in the flow table was made", "as defined",     \
      "as defined", "none", "first datagram of a 5-tuple")                                         \
    X(L_ASSIGN, "l_assign", LBRL_LEVEL_OFF, LBRL_LEVEL_NEVER, "total", "flows",                    \
      "new flow adds the local count of open flows just before it", "with n_flow", "as defined",   \
      "as defined", "none", "as defined")                                                          \
    X(N_FCT, "n_fct", LBRL_LEVEL_OFF, LBRL_LEVEL_FULL, "total", "flows",                           \
      "flow completed (the event of channel fct)", "its start was seen", "FIN of the client",      \
      "FIN of both sides", "none", "port 53: the last answer; others never")                       \
    X(N_ACTIVE, "n_active", LBRL_LEVEL_FULL, LBRL_LEVEL_NEVER, "gauge", "flows",                   \
      "new payload of the client: +1; the client has acknowledged all of the server's answer: -1", \
      "once per flow; an answer (see pt_gen) ends with PSH, FIN or a segment below the MSS; also " \
      "-1 when the flow leaves n_flow_on, and 30 s after the client's last payload",               \
      "-1 with the flow's end, or 30 s after the client's last payload", "as defined",             \
      "the last segment of a super-packet decides", "never")                                       \
    X(ACTIVE_US, "active_us", LBRL_LEVEL_FULL, LBRL_LEVEL_NEVER, "total", "flow microseconds",     \
      "a microsecond passes: + n_active", "as open_us; 0 again after a change of the level",       \
      "as defined", "as defined", "none", "never")                                                 \
    X(N_CLS, "n_cls", LBRL_LEVEL_OFF, LBRL_LEVEL_FULL, "total", "flows",                           \
      "new flow for which the backend was picked stays untracked",                                 \
      "flow table full, no NAT port free, or under pressure", "forwarded by the Maglev table",     \
      "dropped, for it cannot be translated", "a super-packet counts once", "as defined")          \
    X(N_OOO, "n_ooo", LBRL_LEVEL_BASIC, LBRL_LEVEL_FULL, "total", "packets",                       \
      "data segment of the client that begins beyond the highest sequence number so far",          \
      "TCP, established, within the window", "as defined",                                         \
      "as defined; segments of servers are not counted",                                           \
      "a super-packet counts once: it was in order within", "never")                               \
    X(N_RTR, "n_rtr", LBRL_LEVEL_BASIC, LBRL_LEVEL_FULL, "total", "packets",                       \
      "data segment or SYN of the client that ends at or before the highest sequence number so "   \
      "far: sent again, or overtaken",                                                             \
      "TCP, established (SYN: half open), within the window; not a keep-alive (one byte, just "    \
      "before the next)",                                                                          \
      "as defined", "as defined; segments of servers are not counted",                             \
      "a super-packet counts once", "never")                                                       \
    X(N_DPK, "n_dpk", LBRL_LEVEL_BASIC, LBRL_LEVEL_FULL, "total", "packets",                       \
      "ACK of the client that repeats the last one",                                               \
      "TCP, established; no payload, no FIN, next sequence number, highest acknowledgement and "   \
      "last window again",                                                                         \
      "as defined", "as defined; ACKs of servers are not counted",                                 \
      "none: pure ACKs are never merged", "never")

/* Channels, one reservoir of samples per slot and worker. Those of level basic come first, so that
 * the channels of a level are the first lbrl_level_channels(level) of the table. Of the others, those
 * that most packets sample come first (see lbrl_channel_place).
 *
 * The client's bytes are IP lengths, a super-packet's one header counted once. Times are those at
 * which the vector with the packet was taken in. Channels of level full are sampled of flows whose
 * first packet was seen while the level was full; a later fragment counts as a packet and is not
 * sampled. On port 53 a flow has had its last answer with as many as
 * it has had questions; a question after that begins it anew.
 *
 * X(symbol, name, level, unit, event, value, condition, one-way, two-way, offload, UDP) */
#define LBRL_CHANNELS(X)                                                                           \
    X(FLOW_DURATION, "flow_duration", LBRL_LEVEL_BASIC, "seconds", "packet with payload",          \
      "time since the flow's first packet",                                                        \
      "start of the flow was seen; long flows are sampled more often, as in the paper",            \
      "packets of the client", "packets of either side", "one sample per super-packet",            \
      "each datagram")                                                                             \
    X(FCT, "fct", LBRL_LEVEL_BASIC, "seconds", "flow completed", "time since its first packet",    \
      "start of the flow was seen; never after a reset or a timeout", "FIN of the client",         \
      "FIN of the second side", "none", "port 53: the last answer; others never")                  \
    X(BYTE_P, "byte_p", LBRL_LEVEL_FULL, "bytes", "packet of the client", "its IP length",         \
      "its flow is tracked", "as defined", "as defined",                                           \
      "one sample per super-packet: headers and one segment", "as defined")                        \
    X(BYTE_F_ON, "byte_f_on", LBRL_LEVEL_FULL, "bytes", "packet of the client with payload",       \
      "the client's bytes so far, this packet included", "its flow is tracked", "as defined",      \
      "as defined", "one sample per super-packet", "as defined")                                   \
    X(IAT_P, "iat_p", LBRL_LEVEL_FULL, "seconds", "packet of a client",                            \
      "time since the previous packet of a client to the same backend on the same worker",         \
      "not the first", "as defined", "as defined",                                                 \
      "one sample per super-packet, divided by its segments", "as defined")                        \
    X(IAT_PPF, "iat_ppf", LBRL_LEVEL_FULL, "seconds", "packet of the client",                      \
      "time since the client's previous packet of the same flow", "not the first of its flow",     \
      "as defined", "as defined", "one sample per super-packet, divided by its segments",          \
      "as defined")                                                                                \
    X(WIN, "win", LBRL_LEVEL_FULL, "bytes", "packet of the client", "its receive window",          \
      "TCP, no RST; scaled as the handshake said, in a SYN never", "as defined", "as defined",     \
      "one sample per super-packet", "never")                                                      \
    X(D_WIN, "d_win", LBRL_LEVEL_FULL, "bytes", "packet of the client",                            \
      "receive window less that of the previous packet", "with win, not the first of its flow",    \
      "as defined", "as defined", "one sample per super-packet", "never")                          \
    X(PT_GEN, "pt_gen", LBRL_LEVEL_FULL, "seconds",                                                \
      "answer: first new payload of the server after new payload of the client",                   \
      "time since the client's last new payload before it",                                        \
      "the answer acknowledges all of that; no payload was sent again in between",                 \
      "answer: next packet of the client that acknowledges more", "as defined",                    \
      "one question or answer per super-packet",                                                   \
      "two-way only: first datagram of the server after one of the client")                        \
    X(BYTE_F, "byte_f", LBRL_LEVEL_FULL, "bytes", "flow completed", "the client's bytes",          \
      "with fct", "as defined", "as defined", "none", "with fct")                                  \
    X(IAT_F, "iat_f", LBRL_LEVEL_FULL, "seconds", "new flow",                                      \
      "time since the previous new flow to the same backend on the same worker",                   \
      "with n_flow, not the first", "as defined", "as defined", "none", "as defined")              \
    X(LAT_SYNACK, "lat_synack", LBRL_LEVEL_FULL, "seconds", "handshake answered",                  \
      "time since the SYN", "once per flow; the SYN was sent once",                                \
      "first ACK of the client: server and both ways", "first SYN-ACK of the server: its part",    \
      "none", "never")                                                                             \
    X(PT_1ST, "pt_1st", LBRL_LEVEL_FULL, "seconds", "first answer of the flow (see pt_gen)",       \
      "time since the first payload of the client", "with pt_gen", "as defined", "as defined",     \
      "as pt_gen", "as pt_gen")

typedef enum lbrl_counter {
#define LBRL_ENUM(symbol, ...) LBRL_COUNTER_##symbol,
    LBRL_COUNTERS(LBRL_ENUM)
#undef LBRL_ENUM
        LBRL_COUNTER_COUNT
} lbrl_counter_t;

typedef enum lbrl_channel {
#define LBRL_ENUM(symbol, ...) LBRL_CHANNEL_##symbol,
    LBRL_CHANNELS(LBRL_ENUM)
#undef LBRL_ENUM
        LBRL_CHANNEL_COUNT
} lbrl_channel_t;

typedef struct lbrl_counter_row {
    const char *name;
    lbrl_level_t recorded, observed;
    const char *kind, *unit, *event, *condition, *one_way, *two_way, *offload, *udp;
} lbrl_counter_row_t;

typedef struct lbrl_channel_row {
    const char *name;
    lbrl_level_t level;
    const char *unit, *event, *value, *condition, *one_way, *two_way, *offload, *udp;
} lbrl_channel_row_t;

/* Rows of the tables; NULL for an index outside. */
const lbrl_counter_row_t *lbrl_counter_info(lbrl_counter_t counter);
const lbrl_channel_row_t *lbrl_channel_info(lbrl_channel_t channel);
const char *lbrl_level_name(lbrl_level_t level); /* "off", "basic", "full"; NULL for others */

/* Number of channels that are sampled at a level: 0, 2, 13. */
uint32_t lbrl_level_channels(lbrl_level_t level);

/* Counters that are recorded at a level, a bit per lbrl_counter_t. */
uint32_t lbrl_level_counters(lbrl_level_t level);

/* ---- Samples ---- */

/* A reservoir is 128 words. A sample overwrites a random one, without rejection, so that the
 * reservoir forgets old samples exponentially: after 128 x k samples a word is still there with
 * probability e^-k. */
#define LBRL_RESERVOIR_WORDS      128u
#define LBRL_RESERVOIR_INDEX_BITS 7

/* Age beyond which a sample is cleared by the writer and dropped by readers. Far below the 18 hours
 * after which the 24-bit time of a word repeats. */
#define LBRL_SAMPLE_MAX_AGE_SECONDS  3600u
#define LBRL_SAMPLE_TICKS_PER_SECOND 256u

/* So much later than a reader's clock a sample may have been taken: by a thread that read the clock after it, or where the
 * reader's is the time of an older frame. What seems to be from further ahead is from long before. */
#define LBRL_SAMPLE_MAX_AHEAD_SECONDS 60u

/* One sample: bits 0-31 the value as IEEE 754 binary32, bits 32-55 CLOCK_BOOTTIME in 1/256 s, bits
 * 56-63 the generation of the slot. Generations run from 1 to 255, so that 0 is never a sample and
 * means empty. */
static inline uint64_t lbrl_sample_word(float value, uint32_t ticks, uint8_t generation)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return (uint64_t)bits | (uint64_t)(ticks & 0xffffffu) << 32 | (uint64_t)generation << 56;
}

static inline float lbrl_sample_value(uint64_t word)
{
    uint32_t bits = (uint32_t)word;
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static inline uint8_t lbrl_sample_generation(uint64_t word)
{
    return (uint8_t)(word >> 56);
}

/* Microseconds of CLOCK_BOOTTIME in 1/256 s, modulo 2^24. */
static inline uint32_t lbrl_sample_ticks(uint64_t now_us)
{
    return (uint32_t)(now_us * LBRL_SAMPLE_TICKS_PER_SECOND / 1000000u) & 0xffffffu;
}

/* Age of a sample in 1/256 s; one that was taken just after `now_ticks` has age 0. */
static inline uint32_t lbrl_sample_age_ticks(uint64_t word, uint32_t now_ticks)
{
    const uint32_t ahead = LBRL_SAMPLE_MAX_AHEAD_SECONDS * LBRL_SAMPLE_TICKS_PER_SECOND;
    uint32_t age = (now_ticks - (uint32_t)(word >> 32)) & 0xffffffu;
    return age <= 0xffffffu - ahead ? age : 0;
}

/* Whether a reader uses the word: a sample of this generation of the slot, at most an hour old, finite. */
static inline bool lbrl_sample_valid(uint64_t word, uint8_t generation, uint32_t now_ticks)
{
    const bool finite = (word & 0x7f800000u) != 0x7f800000u;
    return word != 0 && lbrl_sample_generation(word) == generation && finite &&
           lbrl_sample_age_ticks(word, now_ticks) <=
               LBRL_SAMPLE_MAX_AGE_SECONDS * LBRL_SAMPLE_TICKS_PER_SECOND;
}

/* ---- Where samples lie ---- */

/* At level full the channels that most packets sample lie side by side: a packet's samples share a
 * random index, and with it a cache line. */
#define LBRL_ROW_CHANNELS 8u

/* Place of a channel among those of an object: the first LBRL_ROW_CHANNELS of a full one lie in rows. */
static inline uint32_t lbrl_channel_place(lbrl_channel_t channel, bool full)
{
    const uint32_t first =
        LBRL_ROW_CHANNELS; /* that is not in the row: fct, and then as in the table */
    if (!full || channel == LBRL_CHANNEL_FLOW_DURATION || (uint32_t)channel > first) {
        return (uint32_t)channel;
    }
    return channel == LBRL_CHANNEL_FCT ? first : (uint32_t)channel - 1;
}

/* Words of a worker's block from one element of a channel to the next. */
static inline size_t lbrl_channel_step(lbrl_channel_t channel, bool full)
{
    return full && lbrl_channel_place(channel, full) < LBRL_ROW_CHANNELS ? LBRL_ROW_CHANNELS : 1;
}

/* Word of a channel's element 0; element slot x 128 + index is that many steps behind. */
static inline size_t lbrl_channel_first(lbrl_channel_t channel, bool full, uint32_t slots)
{
    const uint32_t place = lbrl_channel_place(channel, full);
    return full && place < LBRL_ROW_CHANNELS ? place : (size_t)place * slots * LBRL_RESERVOIR_WORDS;
}

/* Counts of samples seen come before the reservoirs: at level full a row of all channels per slot, else a
 * column per channel. Words from a slot's count to the next one's, and word of slot 0's. */
static inline size_t lbrl_seen_step(bool full)
{
    return full ? 2 * LBRL_ROW_CHANNELS : 1;
}

static inline size_t lbrl_seen_first(lbrl_channel_t channel, bool full, uint32_t slots)
{
    return full ? lbrl_channel_place(channel, full) : (size_t)channel * slots;
}

/* ---- Sinks ---- */

/* A slot's counters of one worker, in three cache lines: of all packets, of flows and requests, of rare events. */
typedef struct lbrl_slot_counters {
    uint64_t packet_us;   /* of the last packet of a client, 0: none; level full, as the next two */
    uint64_t new_flow_us; /* of the last new flow */
    uint64_t era;         /* of the sink that last counted n_active; another sink begins at 0 */
    int64_t value[21];    /* a gauge's integral as lbrl_gauge_add() writes it */
} lbrl_slot_counters_t;

static_assert((int)LBRL_COUNTER_COUNT <= 21, "a slot's counters fill three cache lines");
static_assert(sizeof(lbrl_slot_counters_t) == 192, "a slot's counters fill three cache lines");
static_assert((int)LBRL_COUNTER_N_FLOW_ON == 5 && (int)LBRL_COUNTER_N_OOO == 13,
              "a cache line has 8 of a slot's counters, the first 5");

/* Where one worker records what it sees of one VIP. Made by the control thread (lbrl_sink_init),
 * then written by exactly one worker; the control thread only reads counters. To bind other frames
 * or another level while the worker runs, init a second sink over the same counters, publish its
 * pointer, and free the first after the worker has passed an epoch. The struct is plain data: it
 * may be copied before a worker has it. */
typedef struct lbrl_sink {
    lbrl_slot_counters_t *counters; /* a row per slot; the caller's memory, 64-byte aligned */
    uint64_t *words; /* reservoirs of this worker in the frames object, see lbrl_channel_first */
    uint64_t *seen;  /* samples ever taken there too, see lbrl_seen_first */
    const uint8_t *generation; /* per slot, there too */
    uint64_t random;           /* state of the generator of reservoir indexes */
    uint32_t slots;
    uint32_t channels; /* sampled channels: the first ones of the table; 0 without frames */
    uint32_t recorded; /* bit per counter: recorded at this level */
    uint8_t level;     /* lbrl_level_t in force */
    uint8_t one_way;   /* only client to server is seen */
    uint8_t era;       /* 1 .. 255, another one after each change of the level */
    uint8_t full;      /* layout of the frames object: all channels, some of them in rows */
} lbrl_sink_t;

struct lbrl_frames;

/* Control thread. `counters` has `slots` rows and outlives the sink; its values are kept (zeroed
 * memory for a new VIP). `frames` is where samples go, NULL for none; its slots must equal `slots`.
 * The level in force is the lower of `level` and that of the frames. The sink is two-way and of era
 * 1; set one_way and era before a worker has it. Returns 0, or -1 when slots differ or `worker` is
 * not in the frames. */
int lbrl_sink_init(lbrl_sink_t *sink, lbrl_slot_counters_t *counters, uint32_t slots,
                   lbrl_level_t level, const struct lbrl_frames *frames, uint32_t worker,
                   uint64_t seed);

/* Control thread, when no worker can record for the slot any more (an epoch after its last flow):
 * all counters of the slot become 0, ready for the next backend. */
void lbrl_sink_slot_reset(lbrl_sink_t *sink, uint32_t slot);

/* ---- Recorders: the worker that owns the sink; `slot` is below sink->slots ---- */

/* Pulls in what the recorders of a packet write; between lookup and action of a batch. */
static inline void lbrl_sink_prefetch(const lbrl_sink_t *sink, uint32_t slot)
{
    __builtin_prefetch(&sink->counters[slot], 1, 3);
}

/* The same of a packet with which a flow begins, ends or changes its state. */
static inline void lbrl_sink_prefetch_flow(const lbrl_sink_t *sink, uint32_t slot)
{
    lbrl_sink_prefetch(sink, slot);
    __builtin_prefetch(&sink->counters[slot].value[LBRL_COUNTER_N_FLOW_ON], 1, 3);
}

static inline lbrl_level_t lbrl_sink_level(const lbrl_sink_t *sink)
{
    return (lbrl_level_t)sink->level;
}

/* One writer; atomic only so that the control thread never reads half a value. */
static inline void lbrl_counter_add(int64_t *cell, int64_t amount)
{
    __atomic_store_n(cell, *cell + amount, __ATOMIC_RELAXED);
}

/* Adds to a counter, if it is recorded at the sink's level. For n_ooo, n_rtr and n_dpk. */
static inline void lbrl_sink_count(lbrl_sink_t *sink, uint32_t slot, lbrl_counter_t counter,
                                   int64_t amount)
{
    if (sink->recorded >> counter & 1) {
        lbrl_counter_add(&sink->counters[slot].value[counter], amount);
    }
}

static inline size_t lbrl_sink_random_index(lbrl_sink_t *sink)
{
    /* linear congruential generator: only its high bits are random enough */
    sink->random = sink->random * 6364136223846793005u + 1442695040888963407u;
    return (size_t)(sink->random >> (64 - LBRL_RESERVOIR_INDEX_BITS));
}

/* What the samples of one packet have in common. */
typedef struct lbrl_sampling {
    uint64_t *words; /* the sink's */
    uint64_t *seen;  /* of the slot */
    uint64_t stamp;  /* time and generation of the words */
    size_t element;  /* slot x 128 + a random index */
} lbrl_sampling_t;

/* Begins the samples of a packet, which go to a random index below LBRL_RESERVOIR_WORDS; `now_us` is
 * CLOCK_BOOTTIME in microseconds. Only where channels are sampled. */
static inline lbrl_sampling_t lbrl_sink_begin(const lbrl_sink_t *sink, uint32_t slot, size_t index,
                                              uint64_t now_us)
{
    lbrl_sampling_t sampling;
    sampling.words = sink->words;
    sampling.stamp = lbrl_sample_word(0, lbrl_sample_ticks(now_us), sink->generation[slot]);
    sampling.seen = &sink->seen[slot * lbrl_seen_step(sink->full)];
    sampling.element = (size_t)slot * LBRL_RESERVOIR_WORDS + index;
    return sampling;
}

/* Puts a sample into the channel's reservoir, which must be one that is sampled, at most once per
 * channel and lbrl_sink_begin. `value` is in the channel's unit (times in seconds). `full` is
 * sink->full: where that and the channel are constants little is left to do. */
static inline void lbrl_sink_put(const lbrl_sink_t *sink, const lbrl_sampling_t *sampling,
                                 bool full, lbrl_channel_t channel, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    uint64_t *word = &sampling->words[lbrl_channel_first(channel, full, sink->slots) +
                                      sampling->element * lbrl_channel_step(channel, full)];
    uint64_t *seen = &sampling->seen[lbrl_seen_first(channel, full, sink->slots)];
    __atomic_store_n(word, sampling->stamp | bits, __ATOMIC_RELAXED);
    /* after the word: who sees the count sees the sample, and knows a reservoir that did not change */
    __atomic_store_n(seen, *seen + 1, __ATOMIC_RELEASE);
}

/* A packet's only sample, if the channel is sampled at the sink's level. */
static inline void lbrl_sink_sample(lbrl_sink_t *sink, uint32_t slot, lbrl_channel_t channel,
                                    float value, uint64_t now_us)
{
    if ((uint32_t)channel < sink->channels) {
        lbrl_sampling_t sampling =
            lbrl_sink_begin(sink, slot, lbrl_sink_random_index(sink), now_us);
        lbrl_sink_put(sink, &sampling, sink->full, channel, value);
    }
}

/* ---- Gauges and their integrals ---- */

/* An integral is stored as gauge + 2^10 x (sum of the times at which the gauge fell - sum of those at which it rose), modulo
 * 2^64. So a change is one addition, and the low bits tell a reader for which value of the gauge the word is. */
#define LBRL_INTEGRAL_SHIFT 10
#define LBRL_INTEGRAL_BITS  54 /* integrals of a sink are modulo 2^54 */

/* Whether a counter is the integral of a gauge over time. */
static inline bool lbrl_counter_is_integral(lbrl_counter_t counter)
{
    return counter == LBRL_COUNTER_OPEN_US || counter == LBRL_COUNTER_ACTIVE_US;
}

static inline lbrl_counter_t lbrl_gauge_of(lbrl_counter_t integral)
{
    return integral == LBRL_COUNTER_ACTIVE_US ? LBRL_COUNTER_N_ACTIVE : LBRL_COUNTER_N_FLOW_ON;
}

/* Changes the gauge of an integral. */
static inline void lbrl_gauge_add(lbrl_slot_counters_t *row, lbrl_counter_t integral,
                                  int64_t change, uint64_t now_us)
{
    int64_t *word = &row->value[integral];
    const uint64_t unit = UINT64_C(1) - (now_us << LBRL_INTEGRAL_SHIFT);
    lbrl_counter_add(&row->value[lbrl_gauge_of(integral)], change);
    __atomic_store_n(word, (int64_t)((uint64_t)*word + (uint64_t)change * unit), __ATOMIC_RELAXED);
}

/* A new flow is tracked. `local_count` is the count of open flows that the scheduler saw for the
 * slot when it picked it, this flow not included. */
static inline void lbrl_sink_flow_open(lbrl_sink_t *sink, uint32_t slot, int64_t local_count,
                                       uint64_t now_us)
{
    lbrl_sink_count(sink, slot, LBRL_COUNTER_N_FLOW, 1);
    lbrl_sink_count(sink, slot, LBRL_COUNTER_L_ASSIGN, local_count);
    lbrl_gauge_add(&sink->counters[slot], LBRL_COUNTER_OPEN_US, 1, now_us);
}

/* A flow leaves the counts without having completed: reset, timeout, failure, silence in one-way
 * modes. */
static inline void lbrl_sink_flow_close(lbrl_sink_t *sink, uint32_t slot, uint64_t now_us)
{
    lbrl_gauge_add(&sink->counters[slot], LBRL_COUNTER_OPEN_US, -1, now_us);
}

/* A flow that had left the counts is back in them (in-window data after FIN or RST, a packet after
 * silence; the flow table of an earlier process). */
static inline void lbrl_sink_flow_reopen(lbrl_sink_t *sink, uint32_t slot, uint64_t now_us)
{
    lbrl_gauge_add(&sink->counters[slot], LBRL_COUNTER_OPEN_US, 1, now_us);
}

/* A flow completed: n_fct and a sample of fct. It says nothing about the counts: where completion
 * is also the moment at which the flow leaves them, call lbrl_sink_flow_close as well. */
static inline void lbrl_sink_flow_completed(lbrl_sink_t *sink, uint32_t slot, float fct_seconds,
                                            uint64_t now_us)
{
    lbrl_sink_count(sink, slot, LBRL_COUNTER_N_FCT, 1);
    lbrl_sink_sample(sink, slot, LBRL_CHANNEL_FCT, fct_seconds, now_us);
}

/* A packet of a tracked flow was forwarded: `segments` as the wire would carry them (1 without
 * offload), `bytes` the IP length of the whole. */
static inline void lbrl_sink_packet(lbrl_sink_t *sink, uint32_t slot, uint32_t segments,
                                    uint32_t bytes, bool payload, bool from_client)
{
    /* recorded at every level, so that nothing is to be asked */
    int64_t *value = sink->counters[slot].value;
    lbrl_counter_add(&value[LBRL_COUNTER_PACKETS], segments);
    lbrl_counter_add(&value[LBRL_COUNTER_BYTES], bytes);
    lbrl_counter_add(&value[LBRL_COUNTER_N_PACKET], from_client ? segments : 0);
    lbrl_counter_add(&value[LBRL_COUNTER_N_ANSWER], payload && !from_client ? segments : 0);
}

/* A flow becomes active (+1) or ends being it (-1), at level full. */
static inline void lbrl_sink_active(const lbrl_sink_t *sink, uint32_t slot, int64_t change,
                                    uint64_t now_us)
{
    lbrl_slot_counters_t *row = &sink->counters[slot];
    if (row->era != sink->era) {
        /* what flows of an earlier era have left */
        __atomic_store_n(&row->value[LBRL_COUNTER_N_ACTIVE], 0, __ATOMIC_RELAXED);
        __atomic_store_n(&row->value[LBRL_COUNTER_ACTIVE_US], 0, __ATOMIC_RELAXED);
        __atomic_store_n(&row->era, sink->era, __ATOMIC_RELEASE);
    }
    lbrl_gauge_add(row, LBRL_COUNTER_ACTIVE_US, change, now_us);
}

/* A request was answered, at level full. */
static inline void lbrl_sink_answered(const lbrl_sink_t *sink, uint32_t slot)
{
    lbrl_counter_add(&sink->counters[slot].value[LBRL_COUNTER_N_TURN], 1);
}

/* Whether the row of counters has what the sink counts as active. */
static inline bool lbrl_sink_counts_active(const lbrl_sink_t *sink, uint32_t slot)
{
    return __atomic_load_n(&sink->counters[slot].era, __ATOMIC_ACQUIRE) == sink->era;
}

/* Value of a counter that is no integral; any thread. */
static inline int64_t lbrl_sink_value(const lbrl_sink_t *sink, uint32_t slot,
                                      lbrl_counter_t counter)
{
    if (counter == LBRL_COUNTER_N_ACTIVE && !lbrl_sink_counts_active(sink, slot)) {
        return 0;
    }
    return __atomic_load_n(&sink->counters[slot].value[counter], __ATOMIC_RELAXED);
}

/* An integral up to `now_us`, modulo 2^54; any thread. */
uint64_t lbrl_sink_integral(const lbrl_sink_t *sink, uint32_t slot, lbrl_counter_t integral,
                            uint64_t now_us);

/* A new flow for which the slot was picked stays untracked: no entry or no NAT port was free. */
static inline void lbrl_sink_untracked(lbrl_sink_t *sink, uint32_t slot)
{
    lbrl_sink_count(sink, slot, LBRL_COUNTER_N_CLS, 1);
}

#ifdef __cplusplus
}
#endif
#endif
