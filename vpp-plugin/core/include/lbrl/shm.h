/* Shared memory between data plane and agent: the one definition of the frames and the actions
 * object.
 *
 * Frames (data plane -> agent): 3 counter frames, each guarded by a sequence number, and live
 * reservoirs per worker. Actions (agent -> data plane): 3 weight frames, guarded the same way. The
 * agent maps frames read-only; the data plane copies actions with pread and maps none of them.
 *
 *     lbrl_shm_header_t         a constant part, then on other cache lines the part that changes
 *     lbrl_shm_field_t[fields]  name -> place, type, offset, count
 *     active, generation        frames only, live: a bit and a byte per slot
 *     frame 0, 1, 2             lbrl_frame_t, then one column over slots per field
 *     worker 0 .. W-1           frames only, live: samples seen and reservoirs of each channel
 *
 * Objects are preallocated and never truncated. What is too small for its VIP is replaced by a new
 * object, and the old one is marked retired. Readers find everything by the field table; offsets
 * are from the start of the object (header), of the frame, or of the worker's block. Numbers are in
 * the writer's byte order.
 *
 * Nothing here allocates, maps or does I/O: callers hand in mapped memory. A reader trusts no byte
 * of it: lbrl_shm_open copies header and field table, checks the copy, and only the copy is used
 * afterwards. */
#ifndef LBRL_SHM_H
#define LBRL_SHM_H

#include "lbrl/features.h"
#include "lbrl/scheduler.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LBRL_SHM_FRAMES_MAGIC  0x314d524653504e50u /* "PNPSFRM1" in little-endian memory */
#define LBRL_SHM_ACTIONS_MAGIC 0x3154434153504e50u /* "PNPSACT1" */
#define LBRL_SHM_BYTE_ORDER    0x01020304u
#define LBRL_SHM_ABI           2u /* newest that readers accept: fields may have a stride */
#define LBRL_SHM_ABI_MIN       1u /* oldest; written where no field has a stride */
#define LBRL_SHM_FRAMES        3u
#define LBRL_SHM_PEERS         "n_peers" /* column of a frame that is no counter */
#define LBRL_SHM_MAX_FIELDS    64u
#define LBRL_SHM_MAX_SLOTS     4096u
#define LBRL_SHM_MAX_WORKERS   64u

typedef enum lbrl_shm_type {
    LBRL_SHM_U8 = 1,
    LBRL_SHM_U32 = 2,
    LBRL_SHM_U64 = 3,
    LBRL_SHM_I64 = 4,
    LBRL_SHM_F32 = 5,
    LBRL_SHM_SAMPLE = 6, /* 64-bit sample words (features.h) */
    LBRL_SHM_BITS = 7,   /* 64-bit words, bit i of word j stands for slot 64 j + i */
} lbrl_shm_type_t;

typedef enum lbrl_shm_place {
    LBRL_SHM_IN_HEADER = 1, /* offset from the start of the object */
    LBRL_SHM_IN_FRAME = 2,
    LBRL_SHM_IN_WORKER = 3,
} lbrl_shm_place_t;

typedef struct lbrl_shm_field {
    char name[20];   /* ends with NUL; unique within its place */
    uint32_t stride; /* bytes from an element to the next; 0: they are packed */
    uint32_t place;  /* lbrl_shm_place_t */
    uint32_t type;   /* lbrl_shm_type_t */
    uint32_t count;  /* elements */
    uint32_t offset; /* bytes, a multiple of the element's size */
} lbrl_shm_field_t;

typedef struct lbrl_shm_header {
    /* Constant. `magic` is stored last when an object is made. */
    uint64_t magic;
    uint32_t byte_order;
    uint32_t abi;
    uint64_t size;        /* of the object in bytes */
    char instance_id[40]; /* of the data plane's process (frames), ends with NUL; empty for actions
                           */
    uint32_t slots;
    uint32_t workers; /* 0 for actions */
    uint32_t level;   /* lbrl_level_t; 0 for actions */
    uint32_t fields;
    uint32_t fields_offset;
    uint32_t frames_offset;
    uint32_t frame_stride;   /* bytes from a frame to the next */
    uint32_t workers_offset; /* 0 for actions */
    uint64_t worker_stride;  /* 0 for actions */
    uint64_t reserved[3];    /* 0 */
    /* Changes while running; read with __atomic. */
    uint32_t retired; /* 1: made obsolete by another object of the same name */
    uint32_t reserved_live;
    uint64_t heartbeat_us; /* CLOCK_BOOTTIME of the writer's last sign of life */
    uint64_t reserved_line[6];
} lbrl_shm_header_t;

/* Start of each frame; columns follow. `sequence` is 0 while the frame is written or was never
 * written. */
typedef struct lbrl_frame {
    uint64_t sequence; /* 1, 2, 3 ... over all frames of the object; the highest is the newest */
    uint64_t time_us;  /* CLOCK_BOOTTIME when it was taken */
    uint64_t actions_sequence; /* frames: of the weights in force, 0 for none; actions: 0 */
    uint64_t
        base_sequence; /* actions: `sequence` if the frame has bases, its complement if they are
                                  on the flows of all balancers; else 0, or an earlier one where the
                                  writer does not have bases; frames: 0 */
} lbrl_frame_t;

static_assert(sizeof(lbrl_shm_field_t) == 40, "ABI");
static_assert(sizeof(lbrl_shm_header_t) == 192, "ABI");
static_assert(offsetof(lbrl_shm_header_t, retired) == 128, "ABI");
static_assert(sizeof(lbrl_frame_t) == 32, "ABI");

/* ---- Problems ---- */

typedef enum lbrl_shm_error {
    LBRL_SHM_OK = 0,
    LBRL_SHM_TRUNCATED = -1,   /* shorter than the header, or than the header says */
    LBRL_SHM_FOREIGN = -2,     /* another magic: not such an object, or not finished being made */
    LBRL_SHM_WRONG_ORDER = -3, /* written by a machine of the other byte order */
    LBRL_SHM_OLDER = -4,       /* ABI older than LBRL_SHM_ABI_MIN */
    LBRL_SHM_NEWER = -5,       /* ABI newer than LBRL_SHM_ABI */
    LBRL_SHM_CORRUPT = -6,     /* a header field contradicts the others */
    LBRL_SHM_GONE = -7,        /* retired: open the object of that name again */
    LBRL_SHM_EMPTY = -8,       /* no frame has been published yet */
    LBRL_SHM_BUSY = -9,        /* the writer overtook every attempt */
    LBRL_SHM_ARGUMENT = -10,   /* the caller's arguments do not fit the object */
    LBRL_SHM_BAD_WEIGHT = -11, /* not finite, negative, or above LBRL_WEIGHT_MAX */
    LBRL_SHM_NO_WEIGHT = -12,  /* no active slot would have a positive weight */
    LBRL_SHM_BAD_BASE = -13,   /* not finite, negative, or above LBRL_BASE_MAX */
} lbrl_shm_error_t;

/* Details of a failure, for messages; `field` is a static name, never from the object. */
typedef struct lbrl_shm_problem {
    int code;
    const char *field;
    uint64_t found, expected;
} lbrl_shm_problem_t;

const char *lbrl_shm_error_text(int code); /* what is wrong and what to do; a static sentence */

/* ---- Readers ---- */

/* A checked object. Plain memory of the caller; valid while the mapping is. Any number of readers,
 * any thread. */
typedef struct lbrl_shm_view {
    const uint8_t *base;
    lbrl_shm_header_t header; /* checked copy; `retired` and `heartbeat_us` as they were */
    lbrl_shm_field_t fields[LBRL_SHM_MAX_FIELDS];
} lbrl_shm_view_t;

/* Checks the `size` mapped bytes at `memory` (8-byte aligned) and fills `view`. `magic` is
 * LBRL_SHM_FRAMES_MAGIC or LBRL_SHM_ACTIONS_MAGIC. Returns LBRL_SHM_OK or a negative code;
 * `problem` may be NULL. A retired object opens with LBRL_SHM_GONE. */
int lbrl_shm_open(lbrl_shm_view_t *view, const void *memory, size_t size, uint64_t magic,
                  lbrl_shm_problem_t *problem);

bool lbrl_shm_retired(const lbrl_shm_view_t *view);
uint64_t lbrl_shm_heartbeat(const lbrl_shm_view_t *view);

/* The field of that place and name, or NULL. The field lies within its place: no further bounds
 * check is needed. */
const lbrl_shm_field_t *lbrl_shm_find(const lbrl_shm_view_t *view, lbrl_shm_place_t place,
                                      const char *name);

/* Copies the newest consistent frame (header.frame_stride bytes, starting with lbrl_frame_t) to
 * `copy`. LBRL_SHM_OK, LBRL_SHM_EMPTY, LBRL_SHM_BUSY, or LBRL_SHM_ARGUMENT when `size` is too
 * small. */
int lbrl_read(const lbrl_shm_view_t *view, void *copy, size_t size);

/* Copies elements of a live field (header or worker) of 1, 4 or 8 bytes each, every element
 * undivided. `worker` is ignored for the header. LBRL_SHM_OK, or LBRL_SHM_ARGUMENT when field,
 * worker or range are not of this view. */
int lbrl_read_live(const lbrl_shm_view_t *view, const lbrl_shm_field_t *field, uint32_t worker,
                   uint32_t first, uint32_t count, void *copy);

/* ---- Frames: writer, the data plane's control thread ---- */

typedef struct lbrl_frames_config {
    uint32_t slots;     /* 1 .. LBRL_SHM_MAX_SLOTS; >= 2 x backends leaves room for replacement */
    uint32_t workers;   /* 1 .. LBRL_SHM_MAX_WORKERS */
    lbrl_level_t level; /* reservoirs are laid out for its channels */
    const char *instance_id; /* at most 39 printable ASCII characters without spaces */
} lbrl_frames_config_t;

/* Writer's handle: private memory of the control thread; sinks keep pointers into the mapping, not
 * to the handle. */
typedef struct lbrl_frames {
    uint8_t *base;
    lbrl_shm_header_t *header;
    uint64_t *active;
    uint8_t *generation;
    uint64_t sequence; /* of the last frame published */
    uint32_t slots, workers, channels;
    bool full;              /* channels in rows, see lbrl_channel_first */
    uint32_t recorded;      /* bit per counter that has a column: those of the object's level */
    uint32_t expire_cursor; /* next reservoir to be searched for old samples */
    uint32_t frame_active, frame_generation, frame_counters, frame_peers; /* offsets in a frame */
    uint32_t era; /* of the sinks that were last published */
} lbrl_frames_t;

/* Bytes for the object; 0 when the configuration is out of range. */
size_t lbrl_frames_size(const lbrl_frames_config_t *config);

/* Makes an object in `size` zeroed bytes (a new file) at `memory`, 64-byte aligned. LBRL_SHM_OK or
 * LBRL_SHM_ARGUMENT. Readers that open it earlier find LBRL_SHM_FOREIGN. There is no attach: a
 * restarted data plane makes a new file and retires the old. */
int lbrl_frames_format(lbrl_frames_t *frames, void *memory, size_t size,
                       const lbrl_frames_config_t *config, uint64_t now_us);

/* Takes a slot into use: clears its reservoirs, then sets generation (1 .. 255, other than the
 * slot's last) and active bit. Only when no worker records for the slot. */
void lbrl_frames_slot_open(lbrl_frames_t *frames, uint32_t slot, uint8_t generation);

/* The slot's backend is gone. Generation and samples stay until the slot is opened again. */
void lbrl_frames_slot_close(lbrl_frames_t *frames, uint32_t slot);

/* Publishes a frame: the sum over `sinks` (all of them over the slots of `frames`) of each counter,
 * generations, active bits and `peers`, the flows of other balancers per slot (NULL: unknown, -1); sets
 * the heartbeat; clears samples above LBRL_SAMPLE_MAX_AGE_SECONDS in 1/256 of the reservoirs. Workers go
 * on meanwhile. `actions_sequence` is that of the weights in force, 0 for none.
 *
 * Integrals are up to `now_us`. A worker whose clock differs from that may make one fall by what its last
 * vector changed; then the frame before's is published again, so that none falls from frame to frame of a
 * generation. The first frame after a change of the level begins anew. */
void lbrl_frames_publish(lbrl_frames_t *frames, const lbrl_sink_t *const *sinks, uint32_t n_sinks,
                         const int64_t *peers, uint64_t actions_sequence, uint64_t now_us);

/* Copies the reservoirs, generations and active bits that both objects have, for growth or another
 * level: then bind sinks to `to`, wait an epoch, retire `from`. `to` is fresh from
 * lbrl_frames_format and has no fewer slots and workers than `from` (else LBRL_SHM_ARGUMENT). */
int lbrl_frames_carry(lbrl_frames_t *to, const lbrl_frames_t *from);

/* Marks the object as replaced; it stays readable for those who mapped it. */
void lbrl_frames_retire(lbrl_frames_t *frames);

/* The same for an object of an earlier process: retires it if it is a valid one of this kind (else
 * a negative code, nothing written). */
int lbrl_shm_retire(void *memory, size_t size, uint64_t magic);

/* ---- Actions ---- */

#define LBRL_WEIGHT_MAX 1e6f

/* Writer's handle: private memory of the agent. */
typedef struct lbrl_actions {
    uint8_t *base;
    lbrl_shm_header_t *header;
    uint64_t sequence;
    uint32_t slots;
    uint32_t frame_weight, frame_generation, frame_base; /* offsets in a frame */
} lbrl_actions_t;

size_t lbrl_actions_size(uint32_t slots); /* 0 when out of range */

/* Makes an object in zeroed memory, as lbrl_frames_format. */
int lbrl_actions_format(lbrl_actions_t *actions, void *memory, size_t size, uint32_t slots,
                        uint64_t now_us);

/* Goes on with an object that an earlier agent made: sequences continue. Codes of lbrl_shm_open;
 * LBRL_SHM_ARGUMENT when the object's slots differ; LBRL_SHM_OLDER when it has no column `base`:
 * then make another one in its place. */
int lbrl_actions_attach(lbrl_actions_t *actions, void *memory, size_t size, uint32_t slots,
                        lbrl_shm_problem_t *problem);

/* Publishes weights and bases, with the slot generations that they were computed for; returns the
 * sequence. A base of 0 stands for the data plane's own, 1 / (nodes x workers); `base` may be NULL:
 * 0 for all. Nothing is checked here: the data plane does not trust that it was. */
uint64_t lbrl_actions_write(lbrl_actions_t *actions, const float *weight, const float *base,
                            const uint8_t *generation, uint64_t now_us);

/* The same with bases that are added to the flows of all balancers. They are used while the VIP has a shared view
 * (lbrl_peers_set()); without one the data plane's own base is. */
uint64_t lbrl_actions_write_shared(lbrl_actions_t *actions, const float *weight, const float *base,
                                   const uint8_t *generation, uint64_t now_us);

void lbrl_actions_retire(lbrl_actions_t *actions);

/* What the data plane's control thread knows of a VIP when it looks for new weights. */
typedef struct lbrl_actions_target {
    uint32_t slots;
    const uint64_t *active;    /* bit per slot that has a backend */
    const uint8_t *generation; /* per slot */
    float *weight;             /* per slot, in force; replaced when new ones are accepted */
    float *base;               /* likewise; 0: the data plane's own */
    bool *shared; /* whether bases are on the flows of all balancers; NULL: not wanted */
} lbrl_actions_target_t;

/* Control thread of the data plane. Looks for weights newer than `*sequence` (0 at first), copies
 * and checks them. If each weight is finite and 0 .. LBRL_WEIGHT_MAX, and each base finite and
 * 0 .. LBRL_BASE_MAX, those of active slots with the same generation replace the target's; others
 * keep what they have (the agent has not seen the slot's new backend yet, or the object is shorter
 * than the target). Without bases in the frame they are 0. `scratch` has lbrl_shm_view
 * frame_stride bytes. Returns 1 when weights were replaced, 0 when there is nothing new, a negative
 * code when weights were refused or the object is gone: then the target is unchanged. `*sequence`
 * moves on in every case but BUSY, so that a refused frame is reported once; `*time_us` becomes the
 * time of the newest frame seen. */
int lbrl_actions_apply(const lbrl_shm_view_t *view, const lbrl_actions_target_t *target,
                       void *scratch, size_t scratch_size, uint64_t *sequence, uint64_t *time_us);

#ifdef __cplusplus
}
#endif
#endif
