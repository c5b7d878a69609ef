/* The arena's object: locked, re-attached, or replaced by one that it is imported into. */
#include "internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define ARENA_NAME "penstock.arena"
#define FIX        "make the file system writable, then restart the data plane"

int lbio_core_problem(lbio_problem_t *problem, int error, const char *what)
{
    problem->core = error;
    problem->system = 0;
    (void)snprintf(problem->text, sizeof(problem->text), "%s: %s", what, lbrl_error_text(error));
    return -1;
}

/* An arena with the core on it. */
typedef struct home {
    lbio_object_t arena;
    lbrl_t *core;
} home_t;

static int open_core(home_t *home, const lbrl_config_t *config, lbrl_attach_report_t *report,
                     lbio_problem_t *problem)
{
    int error = lbrl_open(&home->core, config, home->arena.memory, home->arena.size, report);
    if (error != LBRL_OK) {
        lbio_object_release(&home->arena);
        return lbio_core_problem(problem, error, "new arena");
    }
    return 0;
}

/* A new arena in the directory, not yet in the old one's place. */
static int make_shared(const lbio_t *io, home_t *home, const lbrl_config_t *config,
                       lbrl_attach_report_t *report, lbio_problem_t *problem)
{
    size_t size = lbrl_arena_size(config);
    *home = (home_t){.arena = LBIO_OBJECT_NONE};
    if (size == 0) {
        return lbio_core_problem(problem, LBRL_ERR_INVALID, "size of the flow table");
    }
    if (lbio_object_create(&home->arena, &io->directory, ARENA_NAME, size, false, true, problem) !=
        0) {
        return -1;
    }
    if (open_core(home, config, report, problem) != 0) {
        lbio_object_unlink(&io->directory, ARENA_NAME ".new");
        return -1;
    }
    return 0;
}

/* A new arena in this process's memory: it forwards, and its flows end with the process. */
static int make_private(home_t *home, const lbrl_config_t *config, lbrl_attach_report_t *report,
                        lbio_problem_t *problem)
{
    if (lbio_object_create_private(&home->arena, lbrl_arena_size(config)) != 0) {
        return -1;
    }
    return open_core(home, config, report, problem);
}

/* Takes over flows and VIPs of an older arena. One that cannot be imported is not one to go on with. */
static void import(lbrl_t *core, const lbio_object_t *from, uint64_t now_us,
                   lbrl_attach_report_t *report)
{
    if (from->memory == NULL) {
        return;
    }
    lbrl_attach_report_t imported;
    int error = lbrl_import(core, from->memory, from->size, now_us, &imported);
    *report = error == LBRL_OK ? imported
                               : (lbrl_attach_report_t){.status = LBRL_ARENA_REPLACED,
                                                        .version = imported.version};
}

static void settle(lbio_t *io, const home_t *home)
{
    if (io->core != NULL) {
        lbrl_close(io->core);
    }
    lbio_object_release(&io->arena);
    io->arena = home->arena;
    io->core = home->core;
}

/* Puts a new arena in the directory in the place of `io->arena`, whose flows and VIPs it takes over where it can. */
static int replace(lbio_t *io, const lbrl_config_t *config, lbrl_attach_report_t *report,
                   lbio_problem_t *problem)
{
    home_t home;
    if (make_shared(io, &home, config, report, problem) != 0) {
        return -1;
    }
    import(home.core, &io->arena, config->now_us, report);
    if (lbio_object_publish(&io->directory, ARENA_NAME, problem) != 0) {
        lbrl_close(home.core);
        lbio_object_release(&home.arena);
        return -1;
    }
    settle(io, &home);
    return 0;
}

/* Goes on without shared memory. What the old arena had is taken over; then it may not come back with flows of long ago,
 * and its memory may be what a new one needs. */
static int go_private(lbio_t *io, const lbrl_config_t *config, lbrl_attach_report_t *report,
                      lbio_problem_t *problem)
{
    home_t home;
    lbrl_attach_report_t again;
    io->private_problem = *problem;
    if (make_private(&home, config, report, problem) != 0) {
        return -1;
    }
    import(home.core, &io->arena, config->now_us, report);
    settle(io, &home);
    lbio_arena_unlink(io);
    (void)replace(io, config, &again, problem);
    return 0;
}

void lbio_arena_forget(lbio_t *io)
{
    lbio_arena_unlink(io);
    io->arena.is_private = false;
}

void lbio_arena_sweep(const lbio_t *io)
{
    if (io->arena.is_private) {
        lbio_arena_unlink(io);
    }
}

void lbio_arena_leave(const lbio_t *io)
{
    lbio_object_t kept;
    lbio_problem_t problem;
    if (io->arena.is_private && io->arena.memory != NULL &&
        lbio_object_create(&kept, &io->directory, ARENA_NAME, io->arena.size, false, false,
                           &problem) == 0) {
        memcpy(kept.memory, io->arena.memory, kept.size);
        (void)lbio_object_publish(&io->directory, ARENA_NAME, &problem);
        lbio_object_release(&kept);
    }
}

int lbio_arena_open(lbio_t *io, const lbrl_config_t *config, lbrl_attach_report_t *report,
                    lbio_problem_t *problem)
{
    if (lbio_object_lock(&io->arena, &io->directory, ARENA_NAME, problem) != 0) {
        return -1;
    }
    if (io->arena.memory != NULL && io->arena.size == lbrl_arena_size(config)) {
        int error = lbrl_open(&io->core, config, io->arena.memory, io->arena.size, report);
        if (error == LBRL_OK) {
            if (io->arena.is_private) {
                errno = EROFS;
                (void)lbio_object_problem(&io->private_problem, &io->directory, ARENA_NAME,
                                          "cannot be written", FIX);
            }
            return 0;
        }
        if (error != LBRL_ERR_GEOMETRY) {
            return lbio_core_problem(problem, error, "arena");
        }
    }
    if (replace(io, config, report, problem) == 0) {
        return 0;
    }
    return lbio_is_shortage(problem) ? go_private(io, config, report, problem) : -1;
}

void lbio_arena_unlink(const lbio_t *io)
{
    lbio_object_unlink(&io->directory, ARENA_NAME);
}
