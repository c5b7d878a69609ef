/*
 * The command line. What it changes goes the way of the binary API: the configuration in force is read from the core,
 * changed, checked, and set as a whole.
 */
#include <vnet/ip/ip.h>

#include "lb_rl.h"

/* A command's line of input; every command ends with free_line(). */
static int begin_line(unformat_input_t *input, unformat_input_t *line, lbio_problem_t *problem)
{
    if (!unformat_user(input, unformat_line_input, line)) {
        return lb_rl_refuse(problem, "nothing said: see `help` of this command");
    }
    return 0;
}

static clib_error_t *end_line(unformat_input_t *line, int failed, const lbio_problem_t *problem)
{
    unformat_free(line);
    return failed == 0 ? 0 : clib_error_return(0, "%s", problem->text);
}

static int unknown(unformat_input_t *line, lbio_problem_t *problem, const char *known)
{
    u8 *text = format(0, "%U%c", format_unformat_error, line, 0);
    int failed =
        lb_rl_refuse(problem, "unknown or unreadable: `%s`; known: %s", (char *)text, known);
    vec_free(text);
    return failed;
}

/* ---- enable, disable ---- */

static clib_error_t *enable_command(vlib_main_t *vm, unformat_input_t *input,
                                    vlib_cli_command_t *command)
{
    unformat_input_t lines, *line = &lines;
    lb_rl_settings_t settings = lb_rl_settings_default();
    lbio_problem_t problem;
    u8 *directory = NULL;
    int failed = 0;
    if (!unformat_user(input, unformat_line_input, line)) {
        unformat_init_vector(line, NULL);
    }
    while (failed == 0 && unformat_check_input(line) != UNFORMAT_END_OF_INPUT) {
        if (unformat(line, "directory %s", &directory)) {
            if (directory[0] != '/' || vec_len(directory) >= sizeof(settings.directory)) {
                failed = lb_rl_refuse(
                    &problem, "directory: must be an absolute path of at most 255 characters");
            } else {
                clib_memcpy(settings.directory, directory, vec_len(directory));
                settings.directory[vec_len(directory)] = '\0';
            }
            vec_free(directory);
        } else if (!unformat(line, "flows %u", &settings.flows) &&
                   !unformat(line, "vips %u", &settings.vips) &&
                   !unformat(line, "slots %u", &settings.slots) &&
                   !unformat(line, "client-table %u", &settings.client_table) &&
                   !unformat(line, "server-table %u", &settings.server_table)) {
            failed = unknown(line, &problem,
                             "directory, flows, vips, slots, client-table, server-table");
        }
    }
    if (failed == 0) {
        failed = lb_rl_enable(vm, &settings, &problem);
    }
    return end_line(line, failed, &problem);
}

VLIB_CLI_COMMAND(lb_rl_enable_command, static) = {
    .path = "lb rl enable",
    .short_help =
        "lb rl enable [directory <path>] [flows <n>] [vips <n>] [slots <n>] [client-table <id>] "
        "[server-table <id>]",
    .function = enable_command,
};

static clib_error_t *disable_command(vlib_main_t *vm, unformat_input_t *input,
                                     vlib_cli_command_t *command)
{
    unformat_input_t lines, *line = &lines;
    lbio_problem_t problem;
    int failed = 0;
    if (!unformat_user(input, unformat_line_input, line)) {
        unformat_init_vector(line, NULL);
    }
    bool withdraw = unformat(line, "withdraw");
    if (unformat_check_input(line) != UNFORMAT_END_OF_INPUT) {
        failed = unknown(line, &problem, "withdraw");
    } else {
        lb_rl_disable(vm, withdraw);
    }
    return end_line(line, failed, &problem);
}

VLIB_CLI_COMMAND(lb_rl_disable_command, static) = {
    .path = "lb rl disable",
    .short_help = "lb rl disable [withdraw]",
    .function = disable_command,
};

/* ---- lb rl agent ---- */

static clib_error_t *agent_command(vlib_main_t *vm, unformat_input_t *input,
                                   vlib_cli_command_t *command)
{
    unformat_input_t lines, *line = &lines;
    lbio_problem_t problem;
    u8 *word = NULL;
    int failed;
    if (begin_line(input, line, &problem) != 0) {
        return clib_error_return(0, "%s", problem.text);
    }
    if (unformat(line, "%s", &word) && unformat_check_input(line) == UNFORMAT_END_OF_INPUT) {
        vec_add1(word, '\0');
        bool ignore = strcmp((char *)word, "ignore") == 0;
        bool plain = ignore || strcmp((char *)word, "follow") == 0;
        failed = lb_rl_agent_set(!ignore, plain ? "" : (char *)word, &problem);
    } else {
        failed = unknown(line, &problem, "follow, ignore, or the name of a policy");
    }
    vec_free(word);
    return end_line(line, failed, &problem);
}

VLIB_CLI_COMMAND(lb_rl_agent_command, static) = {
    .path = "lb rl agent",
    .short_help =
        "lb rl agent follow|ignore|<policy> (ignore: the configured weights are in force; "
        "a policy: in place of those that agents are told elsewhere)",
    .function = agent_command,
    .is_mp_safe = 1,
};

/* ---- Which VIP ---- */

typedef struct vip_name {
    lbrl_address_t address;
    u32 port;
    u8 protocol;
} vip_name_t;

/* <address> port <n> [udp] */
static uword unformat_vip_name(unformat_input_t *input, va_list *arguments)
{
    vip_name_t *name = va_arg(*arguments, vip_name_t *);
    if (!unformat(input, "%U port %u", unformat_lb_rl_address, &name->address, &name->port)) {
        return 0;
    }
    name->protocol = unformat(input, "udp") ? IP_PROTOCOL_UDP : IP_PROTOCOL_TCP;
    (void)unformat(input, "tcp");
    return 1;
}

static bool is_named(const lbrl_vip_config_t *config, const vip_name_t *name)
{
    for (u32 i = 0; i < config->address_count; i++) {
        if (clib_memcmp(&config->addresses[i], &name->address, sizeof(name->address)) == 0) {
            return config->port == name->port && config->protocol == name->protocol;
        }
    }
    return false;
}

/* The configuration in force of the VIP so named; `backends` has room for LBRL_BACKENDS_MAX. False if there is none. */
static bool find_vip(const vip_name_t *name, lbrl_vip_config_t *config,
                     lbrl_backend_config_t *backends)
{
    u64 *ids = lb_rl_vip_ids();
    bool found = false;
    for (u32 i = 0; !found && i < vec_len(ids); i++) {
        found = lbrl_vip_config(lb_rl_main.core, ids[i], config, backends, LBRL_BACKENDS_MAX) ==
                    LBRL_OK &&
                is_named(config, name);
    }
    vec_free(ids);
    return found;
}

/* A number for what is named on the command line and nowhere else; never 0. */
static u64 number_of(const vip_name_t *name)
{
    u64 hash = 0xcbf29ce484222325ull; /* FNV-1a, 64 bits */
    u8 bytes[19];
    clib_memcpy(bytes, name->address.bytes, 16);
    bytes[16] = (u8)(name->port >> 8);
    bytes[17] = (u8)name->port;
    bytes[18] = name->protocol;
    for (u32 i = 0; i < sizeof(bytes); i++) {
        hash = (hash ^ bytes[i]) * 0x100000001b3ull;
    }
    return hash != 0 ? hash : 1;
}

static int port_is_good(u32 port, lbio_problem_t *problem)
{
    return port >= 1 && port <= 65535 ? 0
                                      : lb_rl_refuse(problem, "port: %u; must be 1 to 65535", port);
}

/* ---- lb rl vip ---- */

static uword unformat_scheduler(unformat_input_t *input, va_list *arguments)
{
    u8 *scheduler = va_arg(*arguments, u8 *);
    if (unformat(input, "maglev")) {
        *scheduler = LBRL_SCHEDULER_MAGLEV;
    } else if (unformat(input, "sed")) {
        *scheduler = LBRL_SCHEDULER_SED;
    } else if (unformat(input, "lsq")) {
        *scheduler = LBRL_SCHEDULER_LSQ;
    } else if (unformat(input, "alias")) {
        *scheduler = LBRL_SCHEDULER_ALIAS;
    } else if (unformat(input, "p2c")) {
        *scheduler = LBRL_SCHEDULER_P2C;
    } else {
        return 0;
    }
    return 1;
}

static uword unformat_forwarding(unformat_input_t *input, va_list *arguments)
{
    u8 *forwarding = va_arg(*arguments, u8 *);
    if (unformat(input, "nat")) {
        *forwarding = LBRL_FORWARD_NAT;
    } else if (unformat(input, "gre")) {
        *forwarding = LBRL_FORWARD_GRE;
    } else if (unformat(input, "l3dsr")) {
        *forwarding = LBRL_FORWARD_L3DSR;
    } else {
        return 0;
    }
    return 1;
}

static uword unformat_level(unformat_input_t *input, va_list *arguments)
{
    u8 *level = va_arg(*arguments, u8 *);
    if (unformat(input, "off")) {
        *level = LBRL_LEVEL_OFF;
    } else if (unformat(input, "basic")) {
        *level = LBRL_LEVEL_BASIC;
    } else if (unformat(input, "full")) {
        *level = LBRL_LEVEL_FULL;
    } else {
        return 0;
    }
    return 1;
}

static uword unformat_load(unformat_input_t *input, va_list *arguments)
{
    u8 *load = va_arg(*arguments, u8 *);
    if (unformat(input, "open")) {
        *load = LBRL_LOAD_OPEN;
    } else if (unformat(input, "active")) {
        *load = LBRL_LOAD_ACTIVE;
    } else {
        return 0;
    }
    return 1;
}

static int read_vip(unformat_input_t *line, lbrl_vip_config_t *config, bool *remove,
                    lbio_problem_t *problem)
{
    f64 seconds;
    u32 number;
    while (unformat_check_input(line) != UNFORMAT_END_OF_INPUT) {
        if (unformat(line, "del")) {
            *remove = true;
        } else if (unformat(line, "id %llx", &config->id) ||
                   unformat(line, "forwarding %U", unformat_forwarding, &config->forwarding) ||
                   unformat(line, "scheduler %U", unformat_scheduler, &config->scheduler) ||
                   unformat(line, "load %U", unformat_load, &config->load) ||
                   unformat(line, "features %U", unformat_level, &config->feature_level) ||
                   unformat(line, "table-size %u", &config->table_size)) {
            continue;
        } else if (unformat(line, "dscp %u", &number) && number <= 63) {
            config->dscp = (u8)number;
        } else if (unformat(line, "mtu %u", &number) && number <= 65535) {
            config->mtu = (u16)number;
        } else if (unformat(line, "client-affinity")) {
            config->client_affinity = 1;
        } else if (unformat(line, "drain %f", &seconds) && seconds >= 0 && seconds <= 86400) {
            config->drain_timeout = (u32)(seconds * 1000);
        } else {
            return unknown(line, problem,
                           "id <hex>, forwarding nat|gre|l3dsr, dscp <1-63>, mtu <n>, scheduler "
                           "maglev|sed|lsq|alias|p2c, load open|active, features off|basic|full, "
                           "table-size <prime>, client-affinity, drain <seconds>, del");
        }
    }
    return 0;
}

static int vip_line(vlib_main_t *vm, unformat_input_t *line, lbrl_backend_config_t *backends,
                    lbio_problem_t *problem)
{
    vip_name_t name;
    lbrl_vip_config_t config;
    bool remove = false;
    if (lb_rl_ready(problem) != 0) {
        return -1;
    }
    if (!unformat(line, "%U", unformat_vip_name, &name)) {
        return unknown(line, problem, "<address> port <n> [tcp|udp] first");
    }
    if (port_is_good(name.port, problem) != 0) {
        return -1;
    }
    bool exists = find_vip(&name, &config, backends);
    if (!exists) {
        config = (lbrl_vip_config_t){.id = number_of(&name),
                                     .addresses = {name.address},
                                     .address_count = 1,
                                     .port = (u16)name.port,
                                     .protocol = name.protocol,
                                     .scheduler = LBRL_SCHEDULER_LSQ,
                                     .feature_level = LBRL_LEVEL_BASIC,
                                     .timeouts = lbrl_timeouts_default(),
                                     .drain_timeout = 300000,
                                     .backends = backends};
    }
    if (read_vip(line, &config, &remove, problem) != 0) {
        return -1;
    }
    if (remove && !exists) {
        return lb_rl_refuse(problem, "there is no such VIP: see `show lb rl vips`");
    }
    return remove ? lb_rl_vip_remove(vm, config.id, problem) : lb_rl_vip_set(vm, &config, problem);
}

static clib_error_t *with_backends(vlib_main_t *vm, unformat_input_t *input,
                                   int (*function)(vlib_main_t *, unformat_input_t *,
                                                   lbrl_backend_config_t *, lbio_problem_t *))
{
    unformat_input_t lines, *line = &lines;
    lbio_problem_t problem;
    lbrl_backend_config_t *backends = NULL;
    if (begin_line(input, line, &problem) != 0) {
        return clib_error_return(0, "%s", problem.text);
    }
    vec_validate(backends, LBRL_BACKENDS_MAX - 1);
    int failed = function(vm, line, backends, &problem);
    vec_free(backends);
    return end_line(line, failed, &problem);
}

static clib_error_t *vip_command(vlib_main_t *vm, unformat_input_t *input,
                                 vlib_cli_command_t *command)
{
    return with_backends(vm, input, vip_line);
}

VLIB_CLI_COMMAND(lb_rl_vip_command, static) = {
    .path = "lb rl vip",
    .short_help = "lb rl vip <address> port <n> [tcp|udp] [id <hex>] [forwarding nat|gre|l3dsr] "
                  "[dscp <1-63>] [mtu <n>] [scheduler maglev|sed|lsq|alias|p2c] "
                  "[load open|active] [features off|basic|full] "
                  "[table-size <prime>] [client-affinity] [drain <seconds>] [del]",
    .function = vip_command,
    .is_mp_safe = 1,
};

/* ---- lb rl as ---- */

static uword unformat_state(unformat_input_t *input, va_list *arguments)
{
    u8 *state = va_arg(*arguments, u8 *);
    if (unformat(input, "active")) {
        *state = LBRL_BACKEND_ACTIVE;
    } else if (unformat(input, "draining")) {
        *state = LBRL_BACKEND_DRAINING;
    } else if (unformat(input, "failed")) {
        *state = LBRL_BACKEND_FAILED;
    } else {
        return 0;
    }
    return 1;
}

/* The place of a backend in the configuration, backend_count if it is new. */
static u32 place_of(const lbrl_vip_config_t *config, const vip_name_t *server)
{
    u32 i = 0;
    while (i < config->backend_count && (clib_memcmp(&config->backends[i].address, &server->address,
                                                     sizeof(server->address)) != 0 ||
                                         config->backends[i].port != server->port)) {
        i++;
    }
    return i;
}

static int read_backend(unformat_input_t *line, lbrl_backend_config_t *backend, bool *remove,
                        lbio_problem_t *problem)
{
    f64 weight;
    while (unformat_check_input(line) != UNFORMAT_END_OF_INPUT) {
        if (unformat(line, "del")) {
            *remove = true;
        } else if (unformat(line, "weight %f", &weight)) {
            backend->weight = (float)weight;
        } else if (!unformat(line, "%U", unformat_state, &backend->state)) {
            return unknown(line, problem, "weight <w>, active, draining, failed, del");
        }
    }
    return 0;
}

static int as_line(vlib_main_t *vm, unformat_input_t *line, lbrl_backend_config_t *backends,
                   lbio_problem_t *problem)
{
    vip_name_t name;
    vip_name_t server = {.protocol = IP_PROTOCOL_TCP};
    lbrl_vip_config_t config;
    bool remove = false;
    if (lb_rl_ready(problem) != 0) {
        return -1;
    }
    if (!unformat(line, "%U server %U port %u", unformat_vip_name, &name, unformat_lb_rl_address,
                  &server.address, &server.port)) {
        return unknown(line, problem, "<VIP> port <n> [tcp|udp] server <address> port <n> first");
    }
    if (!find_vip(&name, &config, backends)) {
        return lb_rl_refuse(
            problem, "there is no such VIP: make it with `lb rl vip`, see `show lb rl vips`");
    }
    if (port_is_good(server.port, problem) != 0) {
        return -1;
    }
    u32 place = place_of(&config, &server);
    if (place == LBRL_BACKENDS_MAX) {
        return lb_rl_refuse(problem, "the VIP has %u backends and takes no more",
                            LBRL_BACKENDS_MAX);
    }
    bool exists = place < config.backend_count;
    if (!exists) {
        backends[place] = (lbrl_backend_config_t){.id = number_of(&server),
                                                  .address = server.address,
                                                  .port = (u16)server.port,
                                                  .state = LBRL_BACKEND_ACTIVE,
                                                  .weight = 1};
    }
    if (read_backend(line, &backends[place], &remove, problem) != 0) {
        return -1;
    }
    if (remove && !exists) {
        return lb_rl_refuse(problem, "the VIP has no such server: see `show lb rl vips`");
    }
    if (remove) {
        backends[place] = backends[--config.backend_count];
    } else if (!exists) {
        config.backend_count++;
    }
    return lb_rl_vip_set(vm, &config, problem);
}

static clib_error_t *as_command(vlib_main_t *vm, unformat_input_t *input,
                                vlib_cli_command_t *command)
{
    return with_backends(vm, input, as_line);
}

VLIB_CLI_COMMAND(lb_rl_as_command, static) = {
    .path = "lb rl as",
    .short_help = "lb rl as <VIP> port <n> [tcp|udp] server <address> port <n> [weight <w>] "
                  "[active|draining|failed] "
                  "[del]",
    .function = as_command,
    .is_mp_safe = 1,
};

/* ---- lb rl source ---- */

static int source_line(vlib_main_t *vm, unformat_input_t *line, lbio_problem_t *problem)
{
    lbrl_nat_source_t sources[LBRL_SOURCES_MAX];
    u32 count = 0;
    while (unformat_check_input(line) != UNFORMAT_END_OF_INPUT) {
        lbrl_address_t address;
        u32 first;
        u32 last;
        if (!unformat(line, "%U ports %u-%u", unformat_lb_rl_address, &address, &first, &last)) {
            return unknown(line, problem,
                           "<address> ports <first>-<last>, any number of times; none removes all");
        }
        if (count == LBRL_SOURCES_MAX || first > 65535 || last > 65535) {
            return lb_rl_refuse(problem, "at most %u sources, of ports up to 65535",
                                LBRL_SOURCES_MAX);
        }
        sources[count++] = (lbrl_nat_source_t){address, (u16)first, (u16)last};
    }
    return lb_rl_sources_set(vm, sources, count, problem);
}

static clib_error_t *sources_command(vlib_main_t *vm, unformat_input_t *input,
                                     vlib_cli_command_t *command)
{
    unformat_input_t lines, *line = &lines;
    lbio_problem_t problem;
    if (!unformat_user(input, unformat_line_input, line)) {
        unformat_init_vector(line, NULL);
    }
    int failed = source_line(vm, line, &problem);
    return end_line(line, failed, &problem);
}

VLIB_CLI_COMMAND(lb_rl_sources_command, static) = {
    .path = "lb rl sources",
    .short_help = "lb rl sources [<address> ports <first>-<last>]... (the complete set)",
    .function = sources_command,
    .is_mp_safe = 1,
};
