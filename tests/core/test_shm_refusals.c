/* Every way in which an object can be wrong has its own code and names the field; none crashes. */
#include <stddef.h>

#include "objects.h"

typedef struct refusal {
    const char *what;
    size_t offset, bytes; /* of the header to overwrite */
    uint64_t value;
    int code;
    const char *field;
} refusal_t;

#define AT(member) offsetof(lbrl_shm_header_t, member), sizeof(((lbrl_shm_header_t *)0)->member)

static const refusal_t refusals[] = {
    {"zeros", AT(magic), 0, LBRL_SHM_FOREIGN, "magic"},
    {"an actions object", AT(magic), LBRL_SHM_ACTIONS_MAGIC, LBRL_SHM_FOREIGN, "magic"},
    {"other byte order, whole", AT(magic), 0x504e505346524d31u, LBRL_SHM_WRONG_ORDER, "magic"},
    {"other byte order mark", AT(byte_order), 0x04030201u, LBRL_SHM_WRONG_ORDER, "byte_order"},
    {"older", AT(abi), 0, LBRL_SHM_OLDER, "abi"},
    {"newer", AT(abi), LBRL_SHM_ABI + 1, LBRL_SHM_NEWER, "abi"},
    {"larger than the mapping", AT(size), UINT64_C(1) << 40, LBRL_SHM_TRUNCATED, "size"},
    {"smaller than its parts", AT(size), 256, LBRL_SHM_CORRUPT, "fields_offset"},
    {"no slots", AT(slots), 0, LBRL_SHM_CORRUPT, "slots"},
    {"too many slots", AT(slots), LBRL_SHM_MAX_SLOTS + 1, LBRL_SHM_CORRUPT, "slots"},
    {"no workers", AT(workers), 0, LBRL_SHM_CORRUPT, "workers"},
    {"too many workers", AT(workers), 65, LBRL_SHM_CORRUPT, "workers"},
    {"workers beyond the end", AT(workers), 3, LBRL_SHM_CORRUPT, "worker_stride"},
    {"unknown level", AT(level), 3, LBRL_SHM_CORRUPT, "level"},
    {"too many fields", AT(fields), 65, LBRL_SHM_CORRUPT, "fields"},
    {"field table in the header", AT(fields_offset), 8, LBRL_SHM_CORRUPT, "fields_offset"},
    {"field table at the end", AT(fields_offset), 0xfffffff8u, LBRL_SHM_CORRUPT, "fields_offset"},
    {"field table misaligned", AT(fields_offset), 196, LBRL_SHM_CORRUPT, "fields_offset"},
    {"field table of zeros", AT(fields_offset), 8192, LBRL_SHM_CORRUPT, "field table"},
    {"frames in the header", AT(frames_offset), 0, LBRL_SHM_CORRUPT, "frames_offset"},
    {"frames at the end", AT(frames_offset), 0xfffffff8u, LBRL_SHM_CORRUPT, "frame_stride"},
    {"frames too short", AT(frame_stride), 24, LBRL_SHM_CORRUPT, "frame_stride"},
    {"frames too long", AT(frame_stride), 0xfffffff8u, LBRL_SHM_CORRUPT, "frame_stride"},
    {"frame columns cut off", AT(frame_stride), 64, LBRL_SHM_CORRUPT, "field table"},
    {"workers misaligned", AT(workers_offset), 4097, LBRL_SHM_CORRUPT, "worker_stride"},
    {"workers at the end", AT(workers_offset), 0xfffffff8u, LBRL_SHM_CORRUPT, "worker_stride"},
    {"worker block too long", AT(worker_stride), UINT64_MAX - 7, LBRL_SHM_CORRUPT, "worker_stride"},
    {"reservoirs cut off", AT(worker_stride), 64, LBRL_SHM_CORRUPT, "field table"},
    {"retired", AT(retired), 1, LBRL_SHM_GONE, "retired"},
};

static int open_frames(const void *memory, size_t size, lbrl_shm_problem_t *problem)
{
    lbrl_shm_view_t view;
    return lbrl_shm_open(&view, memory, size, LBRL_SHM_FRAMES_MAGIC, problem);
}

static void wrong_headers_are_refused(void)
{
    for (uint32_t i = 0; i < sizeof(refusals) / sizeof(*refusals); i++) {
        const refusal_t *r = &refusals[i];
        test_frames_t t;
        test_frames_make(&t, 8, 2, LBRL_LEVEL_BASIC);
        memcpy((uint8_t *)t.memory + r->offset, &r->value, r->bytes); /* little-endian */
        lbrl_shm_problem_t problem = {0};
        int code = open_frames(t.memory, t.size, &problem);
        if (code != r->code || problem.code != code || strcmp(problem.field, r->field) != 0) {
            fprintf(stderr, "%s: %d %s, expected %d %s\n", r->what, code, problem.field, r->code,
                    r->field);
            exit(1);
        }
        CHECK_EQUAL(open_frames(t.memory, t.size, NULL), code);
        test_frames_free(&t);
    }
}

static void wrong_fields_are_refused(void)
{
    test_frames_t t;
    test_frames_make(&t, 8, 2, LBRL_LEVEL_BASIC);
    lbrl_shm_field_t *field =
        (lbrl_shm_field_t *)(void *)((uint8_t *)t.memory + sizeof(lbrl_shm_header_t)) + 7;
    const lbrl_shm_field_t good = *field;
    lbrl_shm_problem_t problem;
    for (int i = 0; i < 8; i++) {
        *field = good;
        switch (i) {
        case 0:
            field->place = 0;
            break;
        case 1:
            field->place = 4;
            break;
        case 2:
            field->type = 0;
            break;
        case 3:
            field->type = 99;
            break;
        case 4:
            field->count = UINT32_MAX;
            break;
        case 5:
            field->offset += 4;
            break;
        case 6:
            memset(field->name, 'x', sizeof(field->name));
            break;
        default:
            memset(field->name, 0, sizeof(field->name));
        }
        CHECK_EQUAL(open_frames(t.memory, t.size, &problem), LBRL_SHM_CORRUPT);
        CHECK(strcmp(problem.field, "field table") == 0);
        CHECK_EQUAL(problem.found, 7);
    }
    *field = good;
    CHECK_EQUAL(open_frames(t.memory, t.size, &problem), LBRL_SHM_OK);
    memset(t.frames.header->instance_id, 'x', sizeof(t.frames.header->instance_id));
    CHECK_EQUAL(open_frames(t.memory, t.size, &problem), LBRL_SHM_CORRUPT);
    CHECK(strcmp(problem.field, "instance_id") == 0);
    test_frames_free(&t);
}

/* Whatever the length, the answer is an error, not a read beyond it (AddressSanitizer watches). */
static void truncated_objects_are_refused(void)
{
    test_frames_t t;
    test_frames_make(&t, 4, 1, LBRL_LEVEL_OFF);
    for (size_t size = 0; size < t.size; size += size < 512 ? 1 : 97) {
        void *copy = zeroed(size + 1);
        memcpy(copy, t.memory, size);
        lbrl_shm_problem_t problem;
        CHECK_EQUAL(open_frames(copy, size, &problem), LBRL_SHM_TRUNCATED);
        CHECK(strcmp(problem.field, "size") == 0);
        CHECK_EQUAL(problem.found, size);
        free(copy);
    }
    test_frames_free(&t);
}

static void objects_of_earlier_processes_are_retired(void)
{
    test_frames_t t;
    test_frames_make(&t, 4, 1, LBRL_LEVEL_OFF);
    CHECK_EQUAL(lbrl_shm_retire(t.memory, t.size, LBRL_SHM_ACTIONS_MAGIC), LBRL_SHM_FOREIGN);
    CHECK_EQUAL(t.frames.header->retired, 0);
    CHECK_EQUAL(lbrl_shm_retire(t.memory, t.size, LBRL_SHM_FRAMES_MAGIC), LBRL_SHM_OK);
    CHECK_EQUAL(t.frames.header->retired, 1);
    CHECK_EQUAL(lbrl_shm_retire(t.memory, t.size, LBRL_SHM_FRAMES_MAGIC), LBRL_SHM_OK);
    test_frames_free(&t);
}

static void every_code_has_a_text(void)
{
    for (int code = LBRL_SHM_BAD_BASE; code <= LBRL_SHM_OK; code++) {
        CHECK(strcmp(lbrl_shm_error_text(code), "unknown code") != 0);
    }
    CHECK(strcmp(lbrl_shm_error_text(1), "unknown code") == 0);
}

int main(void)
{
    wrong_headers_are_refused();
    wrong_fields_are_refused();
    truncated_objects_are_refused();
    objects_of_earlier_processes_are_retired();
    every_code_has_a_text();
    return 0;
}
