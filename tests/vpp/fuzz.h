/*
 * Fuzz targets inside of VPP: what people type, and what clients of the binary API send. libFuzzer runs in a process node
 * on VPP's main thread, so that an input meets the plugin's own functions as VPP calls them, with VPP's FIB and heap
 * behind them; nothing else of VPP is told anything. An input finds the load balancer enabled and empty.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include "lb_rl.h"

/* Ends the process with what was not so: a finding. */
#define FUZZ_CHECK(condition)                                                                      \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fuzz_fail(#condition, __FILE__, __LINE__);                                             \
        }                                                                                          \
    } while (0)

void fuzz_fail(const char *condition, const char *file, int line) __attribute__((noreturn));

/* The targets, by the names that they are asked for: 0, or -1 for an input that says nothing. */
int fuzz_cli(vlib_main_t *vm, const u8 *data, size_t size);
int fuzz_api(vlib_main_t *vm, const u8 *data, size_t size);

/* Of VPP's sockets and of the shared-memory objects, which inputs know as /fuzz. */
const char *fuzz_directory(void);

/* All that is configured, as text: a new vector. */
u8 *fuzz_state(void);

/* Frees `before`, which must be what fuzz_state() says now. */
void fuzz_check_unchanged(u8 *before);

/* Lets VPP run until the load balancer's process has had its turn. */
void fuzz_step(vlib_main_t *vm);

#endif
