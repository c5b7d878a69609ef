/* What the command line shows. */
#include "lb_rl.h"

/* Returns no error: VPP would then run `show lb` of its own plugin `lb`, which hides what is wrong. */
static clib_error_t *not_enabled(vlib_main_t *vm)
{
    lbio_problem_t problem;
    (void)lb_rl_ready(&problem);
    vlib_cli_output(vm, "%s", problem.text);
    return 0;
}

/* ---- show lb rl stats ---- */

static clib_error_t *show_stats(vlib_main_t *vm, unformat_input_t *input,
                                vlib_cli_command_t *command)
{
    const lb_rl_main_t *lm = &lb_rl_main;
    if (lm->io == NULL) {
        return not_enabled(vm);
    }
    lbrl_stats_t stats = lb_rl_stats(true);
    const struct {
        const char *name;
        u64 value;
    } rows[] = {{"packets", stats.packets},
                {"bytes", stats.bytes},
                {"forwarded", stats.forwarded},
                {"answered", stats.replied},
                {"not ours", stats.passed},
                {"handed over", stats.handed_over},
                {"flows created", stats.flows_created},
                {"half-open flows recycled", stats.flows_recycled},
                {"idle flows evicted", stats.flows_evicted},
                {"flows", stats.flows},
                {"half-open flows", stats.half_open},
                {"room for flows", stats.flow_capacity}};
    for (u32 i = 0; i < ARRAY_LEN(rows); i++) {
        vlib_cli_output(vm, "%-26s %llu", rows[i].name, rows[i].value);
    }
    for (u32 i = 1; i < LBRL_DROP_COUNT; i++) {
        if (stats.dropped[i] != 0) {
            vlib_cli_output(vm, "dropped %-18s %llu (%s)", lbrl_drop_name(i), stats.dropped[i],
                            lbrl_drop_text(i));
        }
    }
    return 0;
}

VLIB_CLI_COMMAND(lb_rl_show_stats_command, static) = {
    .path = "show lb rl stats",
    .short_help = "show lb rl stats",
    .function = show_stats,
    .is_mp_safe = 1,
};

static clib_error_t *clear_stats(vlib_main_t *vm, unformat_input_t *input,
                                 vlib_cli_command_t *command)
{
    lbio_problem_t problem;
    return lb_rl_stats_clear(&problem) == 0 ? 0 : clib_error_return(0, "%s", problem.text);
}

VLIB_CLI_COMMAND(lb_rl_clear_stats_command, static) = {
    .path = "clear lb rl stats",
    .short_help = "clear lb rl stats",
    .function = clear_stats,
    .is_mp_safe = 1,
};

/* ---- show lb rl vips, agent: a line per VIP ---- */

static void show_backends(vlib_main_t *vm, const lbrl_backend_status_t *backends, u32 count)
{
    for (u32 i = 0; i < count; i++) {
        const lbrl_backend_status_t *backend = &backends[i];
        vlib_cli_output(
            vm,
            "  slot %u: %U %U%s weight %.3f, %lld open flows, %llu flows, %llu packets, %llu bytes",
            backend->slot, format_lb_rl_endpoint, backend->address.bytes, backend->port,
            format_lb_rl_backend_state, backend->state, backend->removed ? " (removed)" : "",
            (f64)backend->weight, backend->open_flows, backend->flows, backend->packets,
            backend->bytes);
    }
}

static u8 *format_vip(u8 *s, va_list *arguments)
{
    const lbrl_vip_config_t *config = va_arg(*arguments, const lbrl_vip_config_t *);
    for (u32 i = 0; i < config->address_count; i++) {
        s = format(s, i == 0 ? "%U" : ", %U", format_lb_rl_endpoint, config->addresses[i].bytes,
                   config->port);
    }
    return format(s, "/%U", format_lb_rl_protocol, config->protocol);
}

static void show_vip(vlib_main_t *vm, const lbrl_vip_config_t *config,
                     const lbrl_backend_status_t *backends, const lbio_vip_status_t *status)
{
    vlib_cli_output(vm, "%U id %016llx, scheduler %U, load %U, features %U%s%s, %u slots",
                    format_vip, config, config->id, format_lb_rl_scheduler, config->scheduler,
                    format_lb_rl_load, config->load, format_lb_rl_level, config->feature_level,
                    config->client_affinity ? ", client affinity" : "",
                    status->core.removing ? ", being removed" : "", status->core.slots);
    show_backends(vm, backends, status->core.backend_count);
}

static u8 *format_forwarding(u8 *s, va_list *arguments)
{
    const lbrl_vip_config_t *config = va_arg(*arguments, const lbrl_vip_config_t *);
    s = format(s, "%U", format_lb_rl_forwarding, config->forwarding);
    s = config->forwarding == LBRL_FORWARD_L3DSR ? format(s, ", dscp %u", config->dscp) : s;
    return config->forwarding == LBRL_FORWARD_GRE && config->mtu != 0
               ? format(s, ", mtu %u", config->mtu)
               : s;
}

/* As show_vip, and all else that was configured. */
static void show_vip_verbose(vlib_main_t *vm, const lbrl_vip_config_t *config,
                             const lbrl_backend_status_t *backends, const lbio_vip_status_t *status)
{
    show_vip(vm, config, backends, status);
    vlib_cli_output(vm, "  forwarding %U, table-size %u, drain %.3f s", format_forwarding, config,
                    config->table_size, config->drain_timeout / 1e3);
    vlib_cli_output(vm, "  no-backends %U, no-flow %U", format_lb_rl_refusal,
                    config->when_no_backends, format_lb_rl_refusal, config->when_no_flow);
    vlib_cli_output(vm, "  timeouts %U", format_lb_rl_timeouts, &config->timeouts);
    vlib_cli_output(vm, "  objects %s, %s", status->frames, status->actions);
    for (u32 i = 0; i < config->backend_count; i++) {
        const lbrl_backend_config_t *backend = &config->backends[i];
        vlib_cli_output(vm, "  configured: %U id %016llx %U weight %.3f", format_lb_rl_endpoint,
                        backend->address.bytes, backend->port, backend->id,
                        format_lb_rl_backend_state, backend->state, (f64)backend->weight);
    }
}

static void show_agent(vlib_main_t *vm, const lbrl_vip_config_t *config,
                       const lbrl_backend_status_t *backends, const lbio_vip_status_t *status)
{
    if (status->core.actions_sequence == 0) {
        vlib_cli_output(vm, "%U: no weights of an agent; those configured are in force", format_vip,
                        config);
    } else {
        vlib_cli_output(vm, "%U: weights number %llu of its agent", format_vip, config,
                        status->core.actions_sequence);
    }
    if (status->actions_refused != 0) {
        vlib_cli_output(vm, "  %llu looks at %s failed%s%s", status->actions_refused,
                        status->actions, status->actions_error != 0 ? "; the last: " : "",
                        status->actions_error != 0 ? lbrl_shm_error_text(status->actions_error)
                                                   : "");
    }
    for (u32 i = 0; i < status->core.backend_count; i++) {
        vlib_cli_output(vm, "  slot %u: %U weight %.3f, base %.3f", backends[i].slot,
                        format_lb_rl_endpoint, backends[i].address.bytes, backends[i].port,
                        (f64)backends[i].weight, (f64)backends[i].base);
    }
}

typedef void (*show_one_t)(vlib_main_t *, const lbrl_vip_config_t *, const lbrl_backend_status_t *,
                           const lbio_vip_status_t *);

static clib_error_t *for_each_vip(vlib_main_t *vm, show_one_t show)
{
    const lb_rl_main_t *lm = &lb_rl_main;
    lbrl_backend_status_t *backends = NULL;
    lbrl_backend_config_t *configured = NULL;
    if (lm->io == NULL) {
        return not_enabled(vm);
    }
    u64 *ids = lb_rl_vip_ids();
    vec_validate(backends, 2 * LBRL_BACKENDS_MAX - 1);
    vec_validate(configured, LBRL_BACKENDS_MAX - 1);
    for (u32 i = 0; i < vec_len(ids); i++) {
        lbrl_vip_config_t config;
        lbio_vip_status_t status;
        lbio_problem_t problem;
        if (lbrl_vip_config(lm->core, ids[i], &config, configured, LBRL_BACKENDS_MAX) == LBRL_OK &&
            lbio_vip_status(lm->io, ids[i], &status, backends, vec_len(backends), &problem) == 0) {
            show(vm, &config, backends, &status);
        }
    }
    vec_free(configured);
    vec_free(backends);
    vec_free(ids);
    return 0;
}

static clib_error_t *show_vips(vlib_main_t *vm, unformat_input_t *input,
                               vlib_cli_command_t *command)
{
    return for_each_vip(vm, unformat(input, "verbose") ? show_vip_verbose : show_vip);
}

VLIB_CLI_COMMAND(lb_rl_show_vips_command, static) = {
    .path = "show lb rl vips",
    .short_help = "show lb rl vips [verbose]",
    .function = show_vips,
    .is_mp_safe = 1,
};

static clib_error_t *show_agents(vlib_main_t *vm, unformat_input_t *input,
                                 vlib_cli_command_t *command)
{
    if (lb_rl_main.io != NULL && !lb_rl_main.settings.follows_agents) {
        vlib_cli_output(vm, "agents are ignored: `lb rl agent follow` for their weights");
    }
    if (lb_rl_main.io != NULL && lb_rl_main.policy[0] != '\0') {
        vlib_cli_output(vm, "agents are to use the policy %s: `lb rl agent follow` for their own",
                        lb_rl_main.policy);
    }
    return for_each_vip(vm, show_agent);
}

VLIB_CLI_COMMAND(lb_rl_show_agent_command, static) = {
    .path = "show lb rl agent",
    .short_help = "show lb rl agent",
    .function = show_agents,
    .is_mp_safe = 1,
};

/* ---- show lb rl node, flows, memory ---- */

static clib_error_t *show_node(vlib_main_t *vm, unformat_input_t *input,
                               vlib_cli_command_t *command)
{
    const lb_rl_main_t *lm = &lb_rl_main;
    lbrl_nat_source_t sources[LB_RL_SOURCES_MAX];
    u8 key[LB_RL_KEY_SIZE];
    if (lm->io == NULL) {
        return not_enabled(vm);
    }
    u32 nodes = lbrl_node(lm->core, key);
    vlib_cli_output(vm, "key %U, nodes %u", format_hex_bytes_no_wrap, key, (int)sizeof(key), nodes);
    u32 count = clib_min(lbrl_sources(lm->core, sources, LB_RL_SOURCES_MAX), LB_RL_SOURCES_MAX);
    for (u32 i = 0; i < count; i++) {
        vlib_cli_output(vm, "NAT source %U ports %u-%u", format_lb_rl_address,
                        sources[i].address.bytes, sources[i].port_first, sources[i].port_last);
    }
    return 0;
}

VLIB_CLI_COMMAND(lb_rl_show_node_command, static) = {
    .path = "show lb rl node",
    .short_help = "show lb rl node",
    .function = show_node,
    .is_mp_safe = 1,
};

#define FLOWS_SHOWN     50u
#define SUSPEND_SECONDS 1e-5
#define FLOWS_SHOWN_MAX 4096u /* the lines of a command are in VPP's main heap until it has ended */
#define FLOWS_AT_ONCE   128u  /* lines until the main thread goes on with other work */

/* The next flow. After each piece of the table the main thread does other work, which may disable the load balancer. */
static bool next_flow(vlib_main_t *vm, u64 *cursor, u64 now_us, lbrl_flow_info_t *flow)
{
    while (lb_rl_main.io != NULL) {
        const u64 end = *cursor + LB_RL_ENTRIES_AT_ONCE;
        if (lbrl_flow_next_before(lb_rl_main.core, cursor, end, now_us, flow)) {
            return true;
        }
        if (*cursor != end) {
            return false;
        }
        (void)vlib_process_suspend(vm, SUSPEND_SECONDS);
    }
    return false;
}

static void show_flow(vlib_main_t *vm, const lbrl_flow_info_t *flow)
{
    vlib_cli_output(vm, "%U %U -> %U as %U -> %U, %U%s, idle %.1f s", format_lb_rl_protocol,
                    flow->protocol, format_lb_rl_endpoint, flow->client.bytes, flow->client_port,
                    format_lb_rl_endpoint, flow->vip.bytes, flow->vip_port, format_lb_rl_endpoint,
                    flow->source.bytes, flow->nat_port, format_lb_rl_endpoint, flow->backend.bytes,
                    flow->backend_port, format_lb_rl_flow_state, flow->state,
                    flow->open ? ", open" : "", flow->idle_ms / 1e3);
}

static clib_error_t *show_flows(vlib_main_t *vm, unformat_input_t *input,
                                vlib_cli_command_t *command)
{
    u32 max = FLOWS_SHOWN;
    u32 shown = 0;
    u64 cursor = 0;
    lbrl_flow_info_t flow;
    if (lb_rl_main.io == NULL) {
        return not_enabled(vm);
    }
    if (unformat(input, "max %U", unformat_lb_rl_number, &max)) {
        max = clib_min(max, FLOWS_SHOWN_MAX);
    }
    u64 now_us = lb_rl_now_us();
    for (; shown < max && next_flow(vm, &cursor, now_us, &flow); shown++) {
        show_flow(vm, &flow);
        if (shown % FLOWS_AT_ONCE == FLOWS_AT_ONCE - 1) {
            (void)vlib_process_suspend(vm, SUSPEND_SECONDS);
        }
    }
    if (shown == max) {
        vlib_cli_output(vm, "(at most %u: `show lb rl flows max <n>` for up to %u)", max,
                        FLOWS_SHOWN_MAX);
    }
    return 0;
}

VLIB_CLI_COMMAND(lb_rl_show_flows_command, static) = {
    .path = "show lb rl flows",
    .short_help = "show lb rl flows [max <n>]",
    .function = show_flows,
    .is_mp_safe = 1,
};

static clib_error_t *show_memory(vlib_main_t *vm, unformat_input_t *input,
                                 vlib_cli_command_t *command)
{
    const lb_rl_main_t *lm = &lb_rl_main;
    if (lm->io == NULL) {
        return not_enabled(vm);
    }
    const lb_rl_settings_t *settings = &lm->settings;
    lb_rl_memory_t memory = lb_rl_memory();
    vlib_cli_output(vm, "%s, instance %s, %u workers", settings->directory, lm->instance_id,
                    vec_len(lm->threads));
    vlib_cli_output(vm, "frames every %u ms, weights of a silent agent for %.3f s",
                    settings->interval_ms, settings->grace_ms / 1e3);
    vlib_cli_output(vm, "arena: %U for %u flows, %u VIPs, %u slots; taken over: %u VIPs, %u flows",
                    format_memory_size, (uword)memory.arena, settings->flows, settings->vips,
                    settings->slots, lm->attached.vips, lm->attached.flows);
    vlib_cli_output(vm, "frames: %U of %u VIPs", format_memory_size, (uword)memory.frames,
                    memory.vips);
    return 0;
}

VLIB_CLI_COMMAND(lb_rl_show_memory_command, static) = {
    .path = "show lb rl memory",
    .short_help = "show lb rl memory",
    .function = show_memory,
    .is_mp_safe = 1,
};
