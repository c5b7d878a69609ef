/* Life of the plugin: settings, enabled, disabled, changed. */
#include "lb_rl.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/random.h>
#include <vlib/unix/unix.h>
#include <vnet/plugin/plugin.h>
#include <vpp/app/version.h>

lb_rl_main_t lb_rl_main;

VLIB_PLUGIN_REGISTER() = {
    .version = VPP_BUILD_VER,
    .version_required = LB_RL_VPP_RELEASE, /* what VPP's version begins with */
    .description = "Learning layer-4 load balancer",
};

VLIB_REGISTER_LOG_CLASS(lb_rl_log, static) = {
    .class_name = "lb-rl",
};

#define BOOT_ID "/proc/sys/kernel/random/boot_id"

lb_rl_settings_t lb_rl_settings_default(void)
{
    return (lb_rl_settings_t){.directory = "/dev/shm",
                              .flows = 65536,
                              .vips = 1024,
                              .slots = 65536,
                              .interval_ms = 200,
                              .grace_ms = LBRL_ORPHAN_GRACE_MS,
                              .group = -1,
                              .follows_agents = true};
}

int lb_rl_refuse(lbio_problem_t *problem, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(problem->text, sizeof(problem->text), format, arguments);
    va_end(arguments);
    problem->core = LBRL_ERR_INVALID;
    problem->system = 0;
    return -1;
}

int lb_rl_ready(lbio_problem_t *problem)
{
    return lb_rl_main.io != NULL
               ? 0
               : lb_rl_refuse(problem,
                              "the load balancer is not enabled: use `lb rl enable`, or an `lb-rl` "
                              "section in startup.conf");
}

/* The kernel's id of this boot: 32 hexadecimal digits with hyphens between them. */
static int read_boot_id(u8 out[16], lbio_problem_t *problem)
{
    char text[64] = {0};
    FILE *file = fopen(BOOT_ID, "re");
    size_t size = file != NULL ? fread(text, 1, sizeof(text) - 1, file) : 0;
    if (file != NULL) {
        (void)fclose(file);
    }
    u32 digits = 0;
    for (size_t i = 0; i < size && digits < 32; i++) {
        unsigned value;
        char digit[2] = {text[i], '\0'};
        if (sscanf(digit, "%x", &value) == 1) {
            out[digits / 2] = (u8)(out[digits / 2] << 4 | value);
            digits++;
        }
    }
    return digits == 32 ? 0 : lb_rl_refuse(problem, BOOT_ID ": no boot id; mount /proc");
}

/* Which thread works for which worker of the core: VPP's workers, or the main thread where there are none. */
static void assign_threads(void)
{
    lb_rl_main_t *lm = &lb_rl_main;
    u32 threads = vlib_get_n_threads();
    vec_validate(lm->workers, threads - 1);
    vec_zero(lm->workers);
    vec_reset_length(lm->threads);
    for (u32 thread = threads > 1 ? 1 : 0; thread < threads; thread++) {
        lm->workers[thread] = lbrl_worker(lm->core, vec_len(lm->threads));
        vec_add1(lm->threads, (u16)thread);
    }
}

static int open_core(const lb_rl_settings_t *settings, lbio_problem_t *problem)
{
    lb_rl_main_t *lm = &lb_rl_main;
    u8 random[16];
    char instance_id[sizeof(lm->instance_id)];
    u32 workers = clib_max(1, vlib_get_n_threads() - 1);
    lbio_config_t config = {.directory = settings->directory,
                            .instance_id = instance_id,
                            .flows = settings->flows,
                            .vips = settings->vips,
                            .slots = settings->slots,
                            .workers = workers,
                            .interval_ms = settings->interval_ms,
                            .grace_ms = settings->grace_ms,
                            .group = settings->group};
    if (workers > LBIO_QUEUES_MAX) {
        return lb_rl_refuse(
            problem,
            "workers: %u are more than the %u that can share an arena; lower `cpu { workers }`",
            workers, LBIO_QUEUES_MAX);
    }
    if (read_boot_id(config.boot_id, problem) != 0) {
        return -1;
    }
    if (getrandom(random, sizeof(random), 0) != sizeof(random)) {
        return lb_rl_refuse(problem, "no randomness from the kernel; try again");
    }
    for (u32 i = 0; i < sizeof(random); i++) {
        (void)snprintf(instance_id + 2 * i, 3, "%02x", random[i]);
    }
    if (lbio_open(&lm->io, &config, &lm->attached, problem) != 0) {
        return -1;
    }
    (void)snprintf(lm->instance_id, sizeof(lm->instance_id), "%s", instance_id);
    return 0;
}

int lb_rl_enable(vlib_main_t *vm, const lb_rl_settings_t *settings, lbio_problem_t *problem)
{
    lb_rl_main_t *lm = &lb_rl_main;
    if (lm->io != NULL) {
        return lb_rl_refuse(problem, "already enabled on %s: use `lb rl disable` first",
                            lm->settings.directory);
    }
    if (lb_rl_settings_check(settings, problem) != 0 || open_core(settings, problem) != 0) {
        return -1;
    }
    vlib_worker_thread_barrier_sync(vm);
    lm->settings = *settings;
    lm->core = lbio_core(lm->io);
    lm->cleared = (lbrl_stats_t){0};
    lbio_agents_follow(lm->io, settings->follows_agents);
    assign_threads();
    lb_rl_scratch_reserve();
    lb_rl_tables_lock();
    lm->enabled = true;
    lb_rl_features_set(true);
    vlib_worker_thread_barrier_release(vm);
    lb_rl_routes_update(vm);
    vlib_process_signal_event(vm, lb_rl_process_node.index, 0, 0);
    lb_rl_watch_start();
    vlib_log_notice(lb_rl_log.class, "enabled on %s: %u VIPs and %u flows taken over",
                    settings->directory, lm->attached.vips, lm->attached.flows);
    return 0;
}

void lb_rl_disable(vlib_main_t *vm, bool withdraw)
{
    lb_rl_main_t *lm = &lb_rl_main;
    if (lm->io == NULL) {
        return;
    }
    lb_rl_watch_stop();
    /* Packets that wait in frames and handoff queues find no worker afterwards, and are dropped. */
    vlib_worker_thread_barrier_sync(vm);
    lb_rl_features_set(false);
    lb_rl_routes_remove(vm);
    lb_rl_tables_unlock();
    lm->enabled = false;
    lb_rl_held_free(vm);
    lm->core = NULL;
    vec_zero(lm->workers);
    vlib_worker_thread_barrier_release(vm);
    lb_rl_rows_remove();
    if (withdraw) {
        lbio_withdraw(lm->io);
    } else {
        lbio_close(lm->io);
    }
    lm->io = NULL;
    lb_rl_events_send();
    vlib_log_notice(lb_rl_log.class, withdraw ? "disabled and withdrawn" : "disabled");
}

u64 *lb_rl_vip_ids(void)
{
    u64 *ids = NULL;
    u32 count = lbrl_vip_ids(lb_rl_main.core, NULL, 0);
    if (count > 0) {
        vec_validate(ids, count - 1);
        (void)lbrl_vip_ids(lb_rl_main.core, ids, count);
    }
    return ids;
}

int lb_rl_vip_set(vlib_main_t *vm, const lbrl_vip_config_t *config, lbio_problem_t *problem)
{
    if (lb_rl_ready(problem) != 0) {
        return -1;
    }
    int done = lbio_vip_set(lb_rl_main.io, config, problem);
    lb_rl_routes_update(vm); /* what the core has counts, even if something failed */
    lb_rl_events_send();
    return done;
}

int lb_rl_vip_remove(vlib_main_t *vm, u64 id, lbio_problem_t *problem)
{
    /* The routes stay until the core has finished: established flows drain. */
    return lb_rl_ready(problem) != 0 ? -1 : lbio_vip_remove(lb_rl_main.io, id, problem);
}

int lb_rl_agent_set(bool follow, const char *policy, lbio_problem_t *problem)
{
    lb_rl_main_t *lm = &lb_rl_main;
    if (lb_rl_ready(problem) != 0) {
        return -1;
    }
    if (policy[0] != '\0') {
        if (!follow) {
            return lb_rl_refuse(
                problem, "policy: `%s` would set no weights while agents are ignored", policy);
        }
        if (lb_rl_policy_check(policy, problem) != 0) {
            return -1;
        }
    }
    lbio_agents_follow(lm->io, follow);
    lm->settings.follows_agents = follow;
    (void)snprintf(lm->policy, sizeof(lm->policy), "%s", policy);
    lb_rl_agent_event_send();
    return 0;
}

int lb_rl_sources_set(vlib_main_t *vm, const lbrl_nat_source_t *sources, u32 count,
                      lbio_problem_t *problem)
{
    if (lb_rl_ready(problem) != 0 || lb_rl_sources_check(sources, count, problem) != 0 ||
        lbio_sources_set(lb_rl_main.io, sources, count, problem) != 0) {
        return -1;
    }
    lb_rl_routes_update(vm);
    return 0;
}

int lb_rl_node_set(const u8 key[LB_RL_KEY_SIZE], u32 nodes, lbio_problem_t *problem)
{
    if (lb_rl_ready(problem) != 0) {
        return -1;
    }
    if (nodes == 0) {
        return lb_rl_refuse(problem, "nodes: 0; count this node too");
    }
    return lbio_node_set(lb_rl_main.io, key, nodes, problem);
}

/* ---- startup.conf ---- */

/* VPP calls this without a section, too: then nothing is to be read. */
static clib_error_t *lb_rl_config(vlib_main_t *vm, unformat_input_t *input)
{
    lb_rl_main_t *lm = &lb_rl_main;
    lb_rl_settings_t settings = lb_rl_settings_default();
    lbio_problem_t problem;
    if (unformat_check_input(input) == UNFORMAT_END_OF_INPUT) {
        return 0;
    }
    while (unformat_check_input(input) != UNFORMAT_END_OF_INPUT) {
        if (lb_rl_setting_read(input, &settings, &problem) != 0) {
            return clib_error_return(0, "lb-rl: %s", problem.text);
        }
    }
    lm->settings = settings;
    lm->at_start = true;
    return 0;
}

VLIB_CONFIG_FUNCTION(lb_rl_config, "lb-rl");

/* Once the workers are there: an arena is shared out among them. */
static clib_error_t *lb_rl_main_loop_enter(vlib_main_t *vm)
{
    lb_rl_main_t *lm = &lb_rl_main;
    lbio_problem_t problem;
    if (lm->at_start) {
        lb_rl_settings_t settings = lm->settings;
        if (lb_rl_enable(vm, &settings, &problem) != 0) {
            return clib_error_return(0, "lb-rl: %s", problem.text);
        }
    }
    return 0;
}

VLIB_MAIN_LOOP_ENTER_FUNCTION(lb_rl_main_loop_enter);

static clib_error_t *lb_rl_main_loop_exit(vlib_main_t *vm)
{
    lb_rl_disable(vm, false);
    return 0;
}

VLIB_MAIN_LOOP_EXIT_FUNCTION(lb_rl_main_loop_exit);

static clib_error_t *lb_rl_init(vlib_main_t *vm)
{
    lb_rl_main_t *lm = &lb_rl_main;
    lm->handoff[LB_RL_TO_SERVER][0] = vlib_frame_queue_main_init(lb_rl_ip4_node.index, 0);
    lm->handoff[LB_RL_TO_SERVER][1] = vlib_frame_queue_main_init(lb_rl_ip6_node.index, 0);
    lm->handoff[LB_RL_TO_CLIENT][0] =
        vlib_frame_queue_main_init(lb_rl_nat_return_ip4_node.index, 0);
    lm->handoff[LB_RL_TO_CLIENT][1] =
        vlib_frame_queue_main_init(lb_rl_nat_return_ip6_node.index, 0);
    lb_rl_routes_init();
    return lb_rl_api_init(vm);
}

VLIB_INIT_FUNCTION(lb_rl_init);
