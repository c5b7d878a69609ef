/* The arena's object: locked, re-attached, or replaced by one that it is imported into. */
#include "internal.h"

#include <stdio.h>
#include <string.h>

#define ARENA_NAME "penstock.arena"

int lbio_core_problem(lbio_problem_t *problem, int error, const char *what)
{
    problem->core = error;
    problem->system = 0;
    (void)snprintf(problem->text, sizeof(problem->text), "%s: %s", what, lbrl_error_text(error));
    return -1;
}

/* A new arena, not yet in the old one's place; with the core on it. */
static int make_new(lbio_t *io, const lbrl_config_t *config, lbio_object_t *arena, lbrl_t **core,
                    lbrl_attach_report_t *report, lbio_problem_t *problem)
{
    size_t size = lbrl_arena_size(config);
    if (size == 0) {
        return lbio_core_problem(problem, LBRL_ERR_INVALID, "size of the flow table");
    }
    if (lbio_object_create(arena, &io->directory, ARENA_NAME, size, false, true, problem) != 0) {
        return -1;
    }
    int error = lbrl_open(core, config, arena->memory, arena->size, report);
    if (error != LBRL_OK) {
        lbio_object_release(arena);
        lbio_object_unlink(&io->directory, ARENA_NAME ".new");
        return lbio_core_problem(problem, error, "new arena");
    }
    return 0;
}

/* Puts a new arena in the place of `io->arena`, whose flows and VIPs it takes over where it can. */
static int replace(lbio_t *io, const lbrl_config_t *config, lbrl_attach_report_t *report,
                   lbio_problem_t *problem)
{
    lbio_object_t arena = LBIO_OBJECT_NONE;
    lbrl_t *core = NULL;
    if (make_new(io, config, &arena, &core, report, problem) != 0) {
        return -1;
    }
    if (io->arena.memory != NULL) {
        /* An arena that cannot be imported is not one to go on with: start afresh, and say so. */
        lbrl_attach_report_t imported;
        int error = lbrl_import(core, io->arena.memory, io->arena.size, config->now_us, &imported);
        *report = error == LBRL_OK ? imported
                                   : (lbrl_attach_report_t){.status = LBRL_ARENA_REPLACED,
                                                            .version = imported.version};
    }
    if (lbio_object_publish(&io->directory, ARENA_NAME, problem) != 0) {
        lbrl_close(core);
        lbio_object_release(&arena);
        return -1;
    }
    lbio_object_release(&io->arena);
    io->arena = arena;
    io->core = core;
    return 0;
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
            return 0;
        }
        if (error != LBRL_ERR_GEOMETRY) {
            return lbio_core_problem(problem, error, "arena");
        }
    }
    return replace(io, config, report, problem);
}

void lbio_arena_unlink(const lbio_t *io)
{
    lbio_object_unlink(&io->directory, ARENA_NAME);
}
