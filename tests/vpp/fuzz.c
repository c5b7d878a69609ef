/* What the fuzz targets in VPP share: libFuzzer's place, the state before and after an input, what must hold always. */
#include "fuzz.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <vnet/fib/fib_entry.h>
#include <vnet/fib/fib_table.h>

#define ARGUMENTS_MAX 64
#define FILE_SIZE_MAX                                                                              \
    (16u << 20) /* of an arena or of frames: more is refused as by a full directory */
#define OURS           "/fuzz" /* the directory, to inputs */
#define STEP_SECONDS   2e-3
#define START_SECONDS  0.1
#define RUNS_PER_COUNT 4096u       /* inputs between two looks at the heap */
#define GROWTH_MAX     (16u << 20) /* of the heap, over all inputs */

/* Of libFuzzer. */
int LLVMFuzzerRunDriver(int *count, char ***arguments, int (*callback)(const uint8_t *, size_t));

static vlib_main_t *fuzz_vm;
static int (*target)(vlib_main_t *, const u8 *, size_t);
static char directory[200];

const char *fuzz_directory(void)
{
    return directory;
}

void fuzz_fail(const char *condition, const char *file, int line)
{
    (void)fprintf(stderr, "%s:%d: not so: %s\n", file, line, condition);
    abort();
}

/* ---- An input may name any directory: one name stands for ours, all others for one that cannot be made ---- */

int __real_lbio_open(lbio_t **out, const lbio_config_t *config, lbrl_attach_report_t *report,
                     lbio_problem_t *problem);
int __wrap_lbio_open(lbio_t **out, const lbio_config_t *config, lbrl_attach_report_t *report,
                     lbio_problem_t *problem);

int __wrap_lbio_open(lbio_t **out, const lbio_config_t *config, lbrl_attach_report_t *report,
                     lbio_problem_t *problem)
{
    lbio_config_t safe = *config;
    safe.directory = strcmp(config->directory, OURS) == 0 ? directory : "/proc/nowhere";
    return __real_lbio_open(out, &safe, report, problem);
}

/* ---- State ---- */

static int compare_ids(void *a, void *b)
{
    u64 left = *(u64 *)a;
    u64 right = *(u64 *)b;
    return left < right ? -1 : left > right;
}

static u8 *format_backends(u8 *s, const lbrl_backend_config_t *backends, u32 count)
{
    for (u32 i = 0; i < count; i++) {
        u32 weight;
        clib_memcpy(&weight, &backends[i].weight, sizeof(weight));
        s = format(s, "  %llx %U state %u weight %08x\n", backends[i].id, format_lb_rl_endpoint,
                   backends[i].address.bytes, backends[i].port, backends[i].state, weight);
    }
    return s;
}

static u8 *format_vip(u8 *s, u64 id)
{
    static lbrl_backend_config_t backends[LBRL_BACKENDS_MAX];
    lbrl_vip_config_t config;
    lbrl_vip_status_t status;
    FUZZ_CHECK(lbrl_vip_config(lb_rl_main.core, id, &config, backends, LBRL_BACKENDS_MAX) ==
               LBRL_OK);
    FUZZ_CHECK(lbrl_vip_status(lb_rl_main.core, id, &status, NULL, 0) == LBRL_OK);
    s = format(s, "VIP %llx protocol %u affinity %u scheduler %u load %u level %u forwarding %u",
               id, config.protocol, config.client_affinity, config.scheduler, config.load,
               config.feature_level, config.forwarding);
    s = format(s, " dscp %u mtu %u table %u drain %u removing %u", config.dscp, config.mtu,
               config.table_size, config.drain_timeout, status.removing);
    s = format(s, " refusals %u %u", config.when_no_backends, config.when_no_flow);
    s = format(s, " timeouts %U", format_hex_bytes, &config.timeouts, sizeof(config.timeouts));
    for (u32 i = 0; i < config.address_count; i++) {
        s = format(s, " %U", format_lb_rl_endpoint, config.addresses[i].bytes, config.port);
    }
    return format_backends(format(s, "\n"), backends, config.backend_count);
}

u8 *fuzz_state(void)
{
    const lb_rl_main_t *lm = &lb_rl_main;
    const lb_rl_settings_t *settings = &lm->settings;
    lbrl_nat_source_t sources[LB_RL_SOURCES_MAX];
    u8 key[LB_RL_KEY_SIZE];
    u8 *s = format(NULL, "%s instance %s policy %s in %s follows %u tables %u %u\n",
                   lm->io != NULL ? "enabled" : "disabled", lm->instance_id, lm->policy,
                   settings->directory, settings->follows_agents, settings->client_table,
                   settings->server_table);
    if (lm->io == NULL) {
        return s;
    }
    u32 nodes = lbrl_node(lm->core, key);
    s = format(s, "nodes %u key %U\n", nodes, format_hex_bytes_no_wrap, key, (int)sizeof(key));
    u32 count = clib_min(lbrl_sources(lm->core, sources, LB_RL_SOURCES_MAX), LB_RL_SOURCES_MAX);
    for (u32 i = 0; i < count; i++) {
        s = format(s, "source %U-%u\n", format_lb_rl_endpoint, sources[i].address.bytes,
                   sources[i].port_first, sources[i].port_last);
    }
    u64 *ids = lb_rl_vip_ids();
    vec_sort_with_function(ids, compare_ids);
    for (u32 i = 0; i < vec_len(ids); i++) {
        s = format_vip(s, ids[i]);
    }
    vec_free(ids);
    return s;
}

void fuzz_check_unchanged(u8 *before)
{
    u8 *now = fuzz_state();
    if (!vec_is_equal(before, now)) {
        fformat(stderr, "before:\n%v\nnow:\n%v\n", before, now);
        FUZZ_CHECK(!"what is refused changes nothing");
    }
    vec_free(before);
    vec_free(now);
}

/* ---- What holds always ---- */

/* Entries of ours in the tables in use; the same table may be in use on both sides. */
static u32 count_entries(void)
{
    const lb_rl_main_t *lm = &lb_rl_main;
    u32 count = 0;
    for (u32 six = 0; six < 2; six++) {
        fib_protocol_t protocol = six ? FIB_PROTOCOL_IP6 : FIB_PROTOCOL_IP4;
        u32 clients = lm->fib[LB_RL_TO_CLIENT][six];
        u32 servers = lm->fib[LB_RL_TO_SERVER][six];
        count += fib_table_get_num_entries(clients, protocol, lm->source);
        if (servers != clients) {
            count += fib_table_get_num_entries(servers, protocol, lm->source);
        }
    }
    return count;
}

static bool leads_to_us(const lbrl_address_t *address)
{
    const lb_rl_main_t *lm = &lb_rl_main;
    bool four = lb_rl_is_ip4(address->bytes);
    fib_prefix_t prefix = {.fp_proto = four ? FIB_PROTOCOL_IP4 : FIB_PROTOCOL_IP6,
                           .fp_len = four ? 32 : 128};
    if (four) {
        clib_memcpy(&prefix.fp_addr.ip4, address->bytes + 12, 4);
    } else {
        clib_memcpy(&prefix.fp_addr.ip6, address->bytes, 16);
    }
    fib_node_index_t entry = fib_table_lookup_exact_match(lm->fib[LB_RL_TO_CLIENT][!four], &prefix);
    return entry != FIB_NODE_INDEX_INVALID && fib_entry_is_sourced(entry, lm->source);
}

/* VIPs of the core are in the FIB, and nothing else of ours is. */
static void check_routes(void)
{
    const lb_rl_main_t *lm = &lb_rl_main;
    if (lm->io == NULL) {
        FUZZ_CHECK(vec_len(lm->routes) == 0);
        return;
    }
    u64 *ids = lb_rl_vip_ids();
    for (u32 i = 0; i < vec_len(ids); i++) {
        lbrl_vip_config_t config;
        FUZZ_CHECK(lbrl_vip_config(lm->core, ids[i], &config, NULL, 0) == LBRL_OK);
        for (u32 j = 0; j < config.address_count; j++) {
            FUZZ_CHECK(leads_to_us(&config.addresses[j]));
        }
    }
    vec_free(ids);
    FUZZ_CHECK(count_entries() == vec_len(lm->routes));
}

/* What inputs leave behind in VPP's heap, which no sanitizer watches. */
static void check_heap(void)
{
    static u32 runs;
    static uword first;
    clib_mem_usage_t usage;
    if (++runs % RUNS_PER_COUNT != 0) {
        return;
    }
    clib_mem_get_heap_usage(clib_mem_get_heap(), &usage);
    if (runs == 2 * RUNS_PER_COUNT) {
        first = usage.bytes_used; /* pools have their size by now */
    }
    FUZZ_CHECK(first == 0 || usage.bytes_used < first + GROWTH_MAX);
}

/* ---- An input's life ---- */

void fuzz_step(vlib_main_t *vm)
{
    lb_rl_main.rows_us = 0; /* rows of the statistics segment, too */
    vlib_process_signal_event(vm, lb_rl_process_node.index, 0, 0);
    (void)vlib_process_suspend(vm, STEP_SECONDS);
}

static void begin(vlib_main_t *vm)
{
    lbio_problem_t problem;
    lb_rl_settings_t settings = lb_rl_settings_default();
    (void)snprintf(settings.directory, sizeof(settings.directory), OURS);
    settings.flows = 1024;
    settings.vips = 16;
    settings.slots = 256;
    settings.interval_ms = 1;
    FUZZ_CHECK(lb_rl_enable(vm, &settings, &problem) == 0);
    FUZZ_CHECK(lb_rl_agent_set(true, "", &problem) == 0);
}

static void end(vlib_main_t *vm)
{
    lb_rl_main_t *lm = &lb_rl_main;
    check_routes();
    lb_rl_disable(vm, true);
    FUZZ_CHECK(vec_len(lm->routes) == 0 && pool_elts(lm->rows) == 0);
    FUZZ_CHECK(vec_len(lm->known_vips) == 0);
    vec_reset_length(lm->subscribers);
    check_heap();
}

static int run_input(const uint8_t *data, size_t size)
{
    begin(fuzz_vm);
    int said = target(fuzz_vm, data, size);
    end(fuzz_vm);
    return said;
}

/* ---- libFuzzer's place ---- */

/* What VPP catches libFuzzer would leave to it; a file that grows too large is an error like others. */
static void arrange_signals(void)
{
    static const int theirs[] = {SIGCHLD, SIGSEGV, SIGBUS,  SIGABRT, SIGILL, SIGFPE,
                                 SIGINT,  SIGTERM, SIGALRM, SIGUSR1, SIGUSR2};
    struct rlimit limit;
    for (u32 i = 0; i < ARRAY_LEN(theirs); i++) {
        (void)signal(theirs[i], SIG_DFL);
    }
    (void)signal(SIGXFSZ, SIG_IGN);
    FUZZ_CHECK(getrlimit(RLIMIT_FSIZE, &limit) == 0);
    limit.rlim_cur = FILE_SIZE_MAX; /* VPPs that libFuzzer starts take it back */
    FUZZ_CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
}

/* PENSTOCK_FUZZ has the target's name, its directory, that to which paths are relative, and libFuzzer's arguments, a line
 * each. */
static int read_arguments(char *text, char *arguments[ARGUMENTS_MAX])
{
    int count = 0;
    for (char *line = strtok(text, "\n"); line != NULL && count < ARGUMENTS_MAX;
         line = strtok(NULL, "\n")) {
        arguments[count++] = line;
    }
    return count;
}

static uword fuzz_process(vlib_main_t *vm, vlib_node_runtime_t *node, vlib_frame_t *frame)
{
    char *arguments[ARGUMENTS_MAX];
    char **rest = arguments + 3;
    const char *said = getenv("PENSTOCK_FUZZ");
    char *text = strdup(said != NULL ? said : "");
    int count = read_arguments(text, arguments) - 3;
    if (count < 1 || chdir(arguments[2]) != 0) {
        (void)fprintf(stderr, "PENSTOCK_FUZZ: a target, two directories and a program's name\n");
        exit(2);
    }
    fuzz_vm = vm;
    target = strcmp(arguments[0], "fuzz_api") == 0 ? fuzz_api : fuzz_cli;
    (void)snprintf(directory, sizeof(directory), "%s", arguments[1]);
    (void)vlib_process_suspend(vm, START_SECONDS); /* the rest of VPP comes up */
    arrange_signals();
    exit(LLVMFuzzerRunDriver(&count, &rest, run_input));
}

VLIB_REGISTER_NODE(lb_rl_fuzz_node) = {
    .function = fuzz_process,
    .type = VLIB_NODE_TYPE_PROCESS,
    .name = "lb-rl-fuzz",
    .process_log2_n_stack_bytes = 21,
};
