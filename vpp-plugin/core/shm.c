/* Checking and reading shared objects. */
#include "lbrl/shm.h"
#include "shm_layout.h"

/* A reader gives up after this many overtaken copies; the writer publishes every 200 ms, a copy takes
 * microseconds, so even one retry is rare. */
#define READ_ATTEMPTS 256

void lbrl_shm_add_field(lbrl_shm_header_t *header, lbrl_shm_field_t *fields, const char *name,
                        lbrl_shm_place_t place, lbrl_shm_type_t type, uint32_t count,
                        uint64_t offset)
{
    lbrl_shm_field_t *field = &fields[header->fields++];
    size_t length = strlen(name);
    memcpy(field->name, name, length < sizeof(field->name) ? length : sizeof(field->name) - 1);
    field->place = place;
    field->type = type;
    field->count = count;
    field->offset = (uint32_t)offset;
}

void lbrl_shm_add_strided(lbrl_shm_header_t *header, lbrl_shm_field_t *fields, const char *name,
                          lbrl_shm_place_t place, lbrl_shm_type_t type, uint32_t count,
                          uint64_t offset, uint32_t stride)
{
    lbrl_shm_field_t *field = &fields[header->fields];
    lbrl_shm_add_field(header, fields, name, place, type, count, offset);
    field->stride = stride == lbrl_shm_type_size(type) ? 0 : stride;
}

uint32_t lbrl_shm_type_size(uint32_t type)
{
    switch (type) {
    case LBRL_SHM_U8:
        return 1;
    case LBRL_SHM_U32:
    case LBRL_SHM_F32:
        return 4;
    case LBRL_SHM_U64:
    case LBRL_SHM_I64:
    case LBRL_SHM_SAMPLE:
    case LBRL_SHM_BITS:
        return 8;
    default:
        return 0;
    }
}

const char *lbrl_shm_error_text(int code)
{
    switch (code) {
    case LBRL_SHM_OK:
        return "the object is valid";
    case LBRL_SHM_TRUNCATED:
        return "the object is shorter than it must be; have its writer make it anew";
    case LBRL_SHM_FOREIGN:
        return "this is not such an object, or it is still being made; check the path";
    case LBRL_SHM_WRONG_ORDER:
        return "the object comes from a machine of the other byte order; read it on the node that "
               "wrote it";
    case LBRL_SHM_OLDER:
        return "the writer is too old for this reader; upgrade the writer";
    case LBRL_SHM_NEWER:
        return "the writer is newer than this reader; upgrade the reader";
    case LBRL_SHM_CORRUPT:
        return "the header contradicts itself; have the writer make the object anew";
    case LBRL_SHM_GONE:
        return "the object is retired; open the one that has its name now";
    case LBRL_SHM_EMPTY:
        return "no frame has been published yet; try again after an interval";
    case LBRL_SHM_BUSY:
        return "the writer overtook every attempt to copy a frame; try again";
    case LBRL_SHM_ARGUMENT:
        return "the arguments do not fit the object; use its own slots and fields";
    case LBRL_SHM_BAD_WEIGHT:
        return "a weight is not a number from 0 to 1e6; have the agent send valid weights";
    case LBRL_SHM_NO_WEIGHT:
        return "no active slot would have a positive weight; give at least one of them a weight";
    case LBRL_SHM_BAD_BASE:
        return "a base is not a number from 0 to 1e6; have the agent send valid bases";
    default:
        return "unknown code";
    }
}

static int fail(lbrl_shm_problem_t *problem, int code, const char *field, uint64_t found,
                uint64_t expected)
{
    if (problem) {
        *problem = (lbrl_shm_problem_t){code, field, found, expected};
    }
    return code;
}

/* What identifies the object and whether this reader may interpret the rest. */
static int check_identity(const lbrl_shm_header_t *header, uint64_t magic,
                          lbrl_shm_problem_t *problem)
{
    if (header->magic == __builtin_bswap64(magic)) {
        return fail(problem, LBRL_SHM_WRONG_ORDER, "magic", header->magic, magic);
    }
    if (header->magic != magic) {
        return fail(problem, LBRL_SHM_FOREIGN, "magic", header->magic, magic);
    }
    if (header->byte_order != LBRL_SHM_BYTE_ORDER) {
        return fail(problem, LBRL_SHM_WRONG_ORDER, "byte_order", header->byte_order,
                    LBRL_SHM_BYTE_ORDER);
    }
    if (header->abi < LBRL_SHM_ABI_MIN) {
        return fail(problem, LBRL_SHM_OLDER, "abi", header->abi, LBRL_SHM_ABI_MIN);
    }
    if (header->abi > LBRL_SHM_ABI) {
        return fail(problem, LBRL_SHM_NEWER, "abi", header->abi, LBRL_SHM_ABI);
    }
    return LBRL_SHM_OK;
}

bool lbrl_shm_text_valid(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (text[i] == 0) {
            return true;
        }
        if (text[i] <= ' ' || text[i] > '~') {
            return false;
        }
    }
    return false;
}

/* A part of the object: `count` elements of `stride` bytes from `offset`, aligned to `alignment`. */
static bool part_fits(uint64_t offset, uint64_t stride, uint64_t count, uint64_t alignment,
                      uint64_t size)
{
    return offset % alignment == 0 && stride % alignment == 0 && offset <= size &&
           (count == 0 || stride <= (size - offset) / count);
}

static int check_parts(const lbrl_shm_header_t *header, uint64_t magic, lbrl_shm_problem_t *problem)
{
    const uint64_t size = header->size;
    const bool frames = magic == LBRL_SHM_FRAMES_MAGIC;
    const struct {
        const char *field;
        bool valid;
        uint64_t found, limit;
    } checks[] = {
        {"instance_id", lbrl_shm_text_valid(header->instance_id, sizeof(header->instance_id)),
         sizeof(header->instance_id), sizeof(header->instance_id) - 1},
        {"slots", header->slots >= 1 && header->slots <= LBRL_SHM_MAX_SLOTS, header->slots,
         LBRL_SHM_MAX_SLOTS},
        {"workers",
         frames ? header->workers >= 1 && header->workers <= LBRL_SHM_MAX_WORKERS
                : header->workers == 0,
         header->workers, frames ? LBRL_SHM_MAX_WORKERS : 0},
        {"level", header->level < LBRL_LEVEL_COUNT, header->level, LBRL_LEVEL_COUNT - 1},
        {"fields", header->fields <= LBRL_SHM_MAX_FIELDS, header->fields, LBRL_SHM_MAX_FIELDS},
        {"fields_offset",
         header->fields_offset >= sizeof(lbrl_shm_header_t) &&
             part_fits(header->fields_offset, sizeof(lbrl_shm_field_t), header->fields, 8, size),
         header->fields_offset, size},
        {"frames_offset", header->frames_offset >= sizeof(lbrl_shm_header_t), header->frames_offset,
         size},
        {"frame_stride",
         header->frame_stride >= sizeof(lbrl_frame_t) &&
             part_fits(header->frames_offset, header->frame_stride, LBRL_SHM_FRAMES, 8, size),
         header->frame_stride, size},
        {"worker_stride",
         part_fits(header->workers_offset, header->worker_stride, header->workers, 8, size),
         header->worker_stride, size},
    };
    for (size_t i = 0; i < sizeof(checks) / sizeof(*checks); i++) {
        if (!checks[i].valid) {
            return fail(problem, LBRL_SHM_CORRUPT, checks[i].field, checks[i].found,
                        checks[i].limit);
        }
    }
    return LBRL_SHM_OK;
}

/* The last of strided elements may end before its stride does. */
static bool stretch_fits(const lbrl_shm_field_t *field, uint32_t element, uint64_t limit)
{
    if (!field->stride) {
        return part_fits(field->offset, element, field->count, element, limit);
    }
    return part_fits(field->offset, field->stride, field->count - 1, element, limit) &&
           field->offset + (uint64_t)field->stride * (field->count - 1) + element <= limit;
}

static bool field_fits(const lbrl_shm_header_t *header, const lbrl_shm_field_t *field)
{
    uint32_t element = lbrl_shm_type_size(field->type);
    uint64_t limit;
    switch (field->place) {
    case LBRL_SHM_IN_HEADER:
        limit = header->size;
        break;
    case LBRL_SHM_IN_FRAME:
        limit = header->frame_stride;
        break;
    case LBRL_SHM_IN_WORKER:
        limit = header->worker_stride;
        break;
    default:
        return false;
    }
    return element != 0 && field->name[0] != 0 &&
           lbrl_shm_text_valid(field->name, sizeof(field->name)) &&
           (field->stride == 0 || (header->abi > LBRL_SHM_ABI_MIN && element == 8 &&
                                   field->stride >= element && field->count > 0)) &&
           stretch_fits(field, element, limit);
}

/* Whole 64-bit words, so that no counter is ever half old and half new even in a copy that is discarded. */
static void copy_words(uint64_t *to, const uint64_t *from, size_t words)
{
    for (size_t i = 0; i < words; i++) {
        to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
    }
}

int lbrl_shm_open(lbrl_shm_view_t *view, const void *memory, size_t size, uint64_t magic,
                  lbrl_shm_problem_t *problem)
{
    *view = (lbrl_shm_view_t){.base = memory};
    if (size < sizeof(view->header)) {
        return fail(problem, LBRL_SHM_TRUNCATED, "size", size, sizeof(view->header));
    }
    const lbrl_shm_header_t *shared = memory;
    uint64_t seen = __atomic_load_n(&shared->magic, __ATOMIC_ACQUIRE);
    copy_words((uint64_t *)(void *)&view->header, memory, sizeof(view->header) / sizeof(uint64_t));
    view->header.magic = seen;

    int code = check_identity(&view->header, magic, problem);
    if (code) {
        return code;
    }
    if (view->header.size > size) {
        return fail(problem, LBRL_SHM_TRUNCATED, "size", size, view->header.size);
    }
    code = check_parts(&view->header, magic, problem);
    if (code) {
        return code;
    }
    memcpy(view->fields, view->base + view->header.fields_offset,
           view->header.fields * sizeof(*view->fields));
    for (uint32_t i = 0; i < view->header.fields; i++) {
        if (!field_fits(&view->header, &view->fields[i])) {
            return fail(problem, LBRL_SHM_CORRUPT, "field table", i, view->header.fields);
        }
    }
    if (view->header.retired) {
        return fail(problem, LBRL_SHM_GONE, "retired", view->header.retired, 0);
    }
    return LBRL_SHM_OK;
}

static const lbrl_shm_header_t *shared_header(const lbrl_shm_view_t *view)
{
    return (const lbrl_shm_header_t *)(const void *)view->base;
}

bool lbrl_shm_retired(const lbrl_shm_view_t *view)
{
    return __atomic_load_n(&shared_header(view)->retired, __ATOMIC_ACQUIRE) != 0;
}

uint64_t lbrl_shm_heartbeat(const lbrl_shm_view_t *view)
{
    return __atomic_load_n(&shared_header(view)->heartbeat_us, __ATOMIC_RELAXED);
}

const lbrl_shm_field_t *lbrl_shm_find(const lbrl_shm_view_t *view, lbrl_shm_place_t place,
                                      const char *name)
{
    for (uint32_t i = 0; i < view->header.fields; i++) {
        const lbrl_shm_field_t *field = &view->fields[i];
        if (field->place == (uint32_t)place && strcmp(field->name, name) == 0) {
            return field;
        }
    }
    return NULL;
}

static void copy_strided(uint64_t *to, const uint64_t *from, size_t words, size_t step)
{
    for (size_t i = 0; i < words; i++) {
        to[i] = __atomic_load_n(&from[i * step], __ATOMIC_RELAXED);
    }
}

static const uint64_t *newest_frame(const lbrl_shm_view_t *view, uint64_t *sequence)
{
    const uint64_t *newest = NULL;
    *sequence = 0;
    for (uint32_t i = 0; i < LBRL_SHM_FRAMES; i++) {
        const uint64_t *frame =
            (const uint64_t *)(const void *)(view->base + view->header.frames_offset +
                                             (size_t)i * view->header.frame_stride);
        uint64_t found = __atomic_load_n(frame, __ATOMIC_ACQUIRE);
        if (found > *sequence) {
            *sequence = found;
            newest = frame;
        }
    }
    return newest;
}

int lbrl_read(const lbrl_shm_view_t *view, void *copy, size_t size)
{
    if (size < view->header.frame_stride) {
        return LBRL_SHM_ARGUMENT;
    }
    for (int attempt = 0; attempt < READ_ATTEMPTS; attempt++) {
        uint64_t sequence;
        const uint64_t *frame = newest_frame(view, &sequence);
        if (!frame) {
            return LBRL_SHM_EMPTY;
        }
        copy_words(copy, frame, view->header.frame_stride / sizeof(uint64_t));
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (__atomic_load_n(frame, __ATOMIC_RELAXED) == sequence) {
            *(uint64_t *)copy = sequence;
            return LBRL_SHM_OK;
        }
    }
    return LBRL_SHM_BUSY;
}

int lbrl_read_live(const lbrl_shm_view_t *view, const lbrl_shm_field_t *field, uint32_t worker,
                   uint32_t first, uint32_t count, void *copy)
{
    bool known = field >= view->fields && field < view->fields + view->header.fields;
    if (!known || first > field->count || count > field->count - first) {
        return LBRL_SHM_ARGUMENT;
    }
    const uint8_t *from = view->base + field->offset;
    if (field->place == LBRL_SHM_IN_WORKER && worker < view->header.workers) {
        from += view->header.workers_offset + worker * view->header.worker_stride;
    } else if (field->place != LBRL_SHM_IN_HEADER) {
        return LBRL_SHM_ARGUMENT;
    }
    uint32_t element = lbrl_shm_type_size(field->type);
    from += (size_t)first * (field->stride ? field->stride : element);
    if (field->stride) {
        copy_strided(copy, (const uint64_t *)(const void *)from, count, field->stride / 8);
    } else if (element == 8) {
        copy_words(copy, (const uint64_t *)(const void *)from, count);
    } else {
        memcpy(copy, from, (size_t)count * element);
    }
    return LBRL_SHM_OK;
}

int lbrl_shm_retire(void *memory, size_t size, uint64_t magic)
{
    lbrl_shm_view_t view;
    int code = lbrl_shm_open(&view, memory, size, magic, NULL);
    if (code == LBRL_SHM_OK) {
        __atomic_store_n(&((lbrl_shm_header_t *)memory)->retired, 1, __ATOMIC_RELEASE);
    }
    return code == LBRL_SHM_GONE ? LBRL_SHM_OK : code;
}
