/* When a watched thread counts as stalled, by looks at made-up threads. */
#include "check.h"
#include "watchdog.h"

#define TICK_US (LBIO_WATCH_TICK_MS * 1000u)
#define LOOKS   100u

/* Returns for how long a thread counts as stalled after LOOKS looks at it, of which each finds it in `state`, with
 * `progress` more rounds and `ran_us` more of processor time. */
static uint64_t stalled_us(char state, uint64_t progress, uint64_t ran_us, uint64_t tick_us,
                           bool excused)
{
    lbio_patience_t patience = {0};
    lbio_watched_t seen = {.tid = 7, .progress = 1, .excused = excused, .limit_ms = 5000};
    uint64_t ran = 1000;
    lbio_patience_look(&patience, &seen, state, ran, tick_us); /* the first look says nothing */
    CHECK_EQUAL(patience.stalled_us, 0);
    for (uint32_t i = 0; i < LOOKS; i++) {
        seen.progress += progress;
        ran += ran_us;
        lbio_patience_look(&patience, &seen, state, ran, tick_us);
    }
    return patience.stalled_us;
}

static void threads_that_go_on_are_not_stalled(void)
{
    const char states[] = {'R', 'S', 'D', 'T', 't'};
    for (uint32_t i = 0; i < sizeof(states); i++) {
        CHECK_EQUAL(stalled_us(states[i], 1, TICK_US, TICK_US, false), 0);
        CHECK_EQUAL(stalled_us(states[i], 1, 0, TICK_US, false), 0);
    }
}

static void a_thread_that_waits_for_a_processor_is_not_stalled(void)
{
    CHECK_EQUAL(stalled_us('R', 0, 0, TICK_US, false), 0);
}

static void a_thread_that_runs_in_circles_is_stalled_for_as_long_as_it_runs(void)
{
    CHECK_EQUAL(stalled_us('R', 0, TICK_US, TICK_US, false), LOOKS * TICK_US);
    CHECK_EQUAL(stalled_us('R', 0, TICK_US / 10, TICK_US, false), LOOKS * (TICK_US / 10));
    /* never longer than it was looked at, whatever the kernel's clock says */
    CHECK_EQUAL(stalled_us('R', 0, 5 * TICK_US, TICK_US, false), LOOKS * TICK_US);
}

static void a_thread_that_does_not_run_at_all_is_stalled(void)
{
    CHECK_EQUAL(stalled_us('S', 0, 0, TICK_US, false), LOOKS * TICK_US);
    CHECK_EQUAL(stalled_us('t', 0, 0, TICK_US, false), LOOKS * TICK_US);
}

static void times_in_which_nobody_looked_do_not_count(void)
{
    CHECK_EQUAL(stalled_us('S', 0, 0, 10 * TICK_US, false), 0);
    CHECK_EQUAL(stalled_us('R', 0, TICK_US, 10 * TICK_US, false), 0);
}

static void a_thread_that_waits_for_another_is_excused(void)
{
    CHECK_EQUAL(stalled_us('S', 0, 0, TICK_US, true), 0);
}

static void another_thread_and_none_begin_anew(void)
{
    lbio_patience_t patience = {.tid = 7, .progress = 1, .stalled_us = 3 * TICK_US};
    lbio_watched_t other = {.tid = 8, .progress = 1};
    lbio_patience_look(&patience, &other, 'S', 0, TICK_US);
    CHECK_EQUAL(patience.stalled_us, 0);
    lbio_watched_t none = {.tid = 0, .progress = 1};
    lbio_patience_look(&patience, &none, 'R', 0, TICK_US);
    lbio_patience_look(&patience, &none, 'R', 0, TICK_US);
    CHECK_EQUAL(patience.stalled_us, 0);
}

int main(void)
{
    threads_that_go_on_are_not_stalled();
    a_thread_that_waits_for_a_processor_is_not_stalled();
    a_thread_that_runs_in_circles_is_stalled_for_as_long_as_it_runs();
    a_thread_that_does_not_run_at_all_is_stalled();
    times_in_which_nobody_looked_do_not_count();
    a_thread_that_waits_for_another_is_excused();
    another_thread_and_none_begin_anew();
    return 0;
}
