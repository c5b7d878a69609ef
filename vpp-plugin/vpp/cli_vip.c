/*
 * The command line, VIPs and their servers. What it changes goes the way of the binary API: the configuration in force is
 * read from the core, changed, checked, and set as a whole.
 */
#include <vnet/ip/ip.h>

#include "lb_rl.h"

/* ---- Which VIP ---- */

/* The place of an address in the configuration, address_count if it has none. */
static u32 address_place(const lbrl_vip_config_t *config, const lbrl_address_t *address)
{
    u32 i = 0;
    while (i < config->address_count &&
           clib_memcmp(&config->addresses[i], address, sizeof(*address)) != 0) {
        i++;
    }
    return i;
}

static bool is_named(const lbrl_vip_config_t *config, const lb_rl_vip_name_t *name)
{
    return config->port == name->port && config->protocol == name->protocol &&
           address_place(config, &name->address) < config->address_count;
}

/* The configuration in force of the VIP so named; `backends` has room for LBRL_BACKENDS_MAX. False if there is none. */
static bool find_vip(const lb_rl_vip_name_t *name, lbrl_vip_config_t *config,
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
static u64 number_of(const lb_rl_vip_name_t *name)
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

static int port_is_good(u32 port, const char *owner, lbio_problem_t *problem)
{
    if (port == LB_RL_NO_PORT) {
        return lb_rl_refuse(problem, "port: missing or not a number; say `%s<address> port <n>`",
                            owner);
    }
    return port >= 1 && port <= 65535 ? 0
                                      : lb_rl_refuse(problem, "port: %u; must be 1 to 65535", port);
}

/* ---- lb rl vip ---- */

static int add_address(lbrl_vip_config_t *config, const lbrl_address_t *address,
                       lbio_problem_t *problem)
{
    if (config->address_count == LBRL_ADDRESSES_MAX) {
        return lb_rl_refuse(problem, "also: a VIP has at most %u addresses", LBRL_ADDRESSES_MAX);
    }
    config->addresses[config->address_count++] = *address;
    return 0;
}

static int drop_address(lbrl_vip_config_t *config, const lbrl_address_t *address,
                        lbio_problem_t *problem)
{
    u32 place = address_place(config, address);
    if (place == config->address_count) {
        return lb_rl_refuse(problem, "without: the VIP has no such address: see `show lb rl vips`");
    }
    if (config->address_count == 1) {
        return lb_rl_refuse(problem, "without: a VIP has an address: `del` removes all of it");
    }
    config->address_count--;
    for (u32 i = place; i < config->address_count; i++) {
        config->addresses[i] = config->addresses[i + 1];
    }
    return 0;
}

#define TIMEOUTS                                                                                   \
    "tcp-handshake|tcp-established|tcp-closing|udp-unreplied|udp-exchange|udp-stream|"             \
    "udp-dns-answered <seconds>"

/* Short enough for an error. */
#define VIP_KNOWN                                                                                  \
    "also|without <address>, id <hex>, forwarding nat|gre|l3dsr, dscp <1-63>, mtu <n>, scheduler " \
    "maglev|sed|lsq|alias|p2c, load open|active, features off|basic|full, table-size <prime>, "    \
    "[no] client-affinity, no-backends|no-flow reject|drop, drain <seconds>, "                     \
    "timeout <which> <seconds>, del"

/* A word and its value, which the core checks. 0 if it is none of these. */
static uword unformat_vip_field(unformat_input_t *line, va_list *arguments)
{
    lbrl_vip_config_t *config = va_arg(*arguments, lbrl_vip_config_t *);
    return unformat(line, "id %llx", &config->id) ||
           unformat(line, "forwarding %U", unformat_lb_rl_forwarding, &config->forwarding) ||
           unformat(line, "scheduler %U", unformat_lb_rl_scheduler, &config->scheduler) ||
           unformat(line, "load %U", unformat_lb_rl_load, &config->load) ||
           unformat(line, "no-backends %U", unformat_lb_rl_refusal, &config->when_no_backends) ||
           unformat(line, "no-flow %U", unformat_lb_rl_refusal, &config->when_no_flow) ||
           unformat(line, "features %U", unformat_lb_rl_level, &config->feature_level) ||
           unformat(line, "table-size %U", unformat_lb_rl_number, &config->table_size) ||
           unformat(line, "timeout %U", unformat_lb_rl_timeout, &config->timeouts) ||
           unformat(line, "drain %U", unformat_lb_rl_milliseconds, &config->drain_timeout);
}

static int check_at_most(u32 number, u32 max, const char *field, lbio_problem_t *problem)
{
    return number <= max ? 0 : lb_rl_refuse(problem, "%s: %u; must be 0 to %u", field, number, max);
}

static int read_vip(unformat_input_t *line, lbrl_vip_config_t *config, bool *remove,
                    lbio_problem_t *problem)
{
    int failed = 0;
    while (failed == 0 && unformat_check_input(line) != UNFORMAT_END_OF_INPUT) {
        lbrl_address_t address;
        u32 number;
        if (unformat(line, "del")) {
            *remove = true;
        } else if (unformat(line, "also %U", unformat_lb_rl_address, &address)) {
            failed = add_address(config, &address, problem);
        } else if (unformat(line, "without %U", unformat_lb_rl_address, &address)) {
            failed = drop_address(config, &address, problem);
        } else if (unformat(line, "dscp %U", unformat_lb_rl_number, &number)) {
            failed = check_at_most(number, 63, "dscp", problem);
            config->dscp = (u8)number;
        } else if (unformat(line, "mtu %U", unformat_lb_rl_number, &number)) {
            failed = check_at_most(number, 65535, "mtu", problem);
            config->mtu = (u16)number;
        } else if (unformat(line, "no client-affinity")) {
            config->client_affinity = 0;
        } else if (unformat(line, "client-affinity")) {
            config->client_affinity = 1;
        } else if (!unformat(line, "%U", unformat_vip_field, config)) {
            bool timeout = unformat(line, "timeout");
            failed = lb_rl_unknown(line, problem, timeout ? "timeout " TIMEOUTS : VIP_KNOWN);
        }
    }
    return failed;
}

static int vip_line(vlib_main_t *vm, unformat_input_t *line, lbrl_backend_config_t *backends,
                    lbio_problem_t *problem)
{
    lb_rl_vip_name_t name;
    lbrl_vip_config_t config;
    bool remove = false;
    if (lb_rl_ready(problem) != 0) {
        return -1;
    }
    if (!unformat(line, "%U", unformat_lb_rl_vip_name, &name)) {
        return lb_rl_unknown(line, problem, "<address> port <n> [tcp|udp] first");
    }
    if (port_is_good(name.port, "", problem) != 0) {
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
    if (lb_rl_line_begin(input, line, &problem) != 0) {
        return clib_error_return(0, "%s", problem.text);
    }
    vec_validate(backends, LBRL_BACKENDS_MAX - 1);
    int failed = function(vm, line, backends, &problem);
    vec_free(backends);
    return lb_rl_line_end(line, failed, &problem);
}

static clib_error_t *vip_command(vlib_main_t *vm, unformat_input_t *input,
                                 vlib_cli_command_t *command)
{
    return with_backends(vm, input, vip_line);
}

VLIB_CLI_COMMAND(lb_rl_vip_command, static) = {
    .path = "lb rl vip",
    .short_help =
        "lb rl vip <address> port <n> [tcp|udp] [also <address>]... [without <address>]... "
        "[id <hex>] [forwarding nat|gre|l3dsr] [dscp <1-63>] [mtu <n>] "
        "[scheduler maglev|sed|lsq|alias|p2c] [load open|active] [features off|basic|full] "
        "[table-size <prime>] [[no] client-affinity] [no-backends|no-flow reject|drop] [drain "
        "<seconds>] [timeout " TIMEOUTS "]... [del]",
    .function = vip_command,
    .is_mp_safe = 1,
};

/* ---- lb rl as ---- */

#define AS_KNOWN "<VIP> port <n> [tcp|udp] server <address> port <n> first"

/* The place of a backend in the configuration, backend_count if it is new. */
static u32 place_of(const lbrl_vip_config_t *config, const lb_rl_vip_name_t *server)
{
    u32 i = 0;
    while (i < config->backend_count && (clib_memcmp(&config->backends[i].address, &server->address,
                                                     sizeof(server->address)) != 0 ||
                                         config->backends[i].port != server->port)) {
        i++;
    }
    return i;
}

/* Refuses a server at the address of a VIP: its packets would return to this data plane and be dropped. */
static int server_is_no_vip(const lb_rl_vip_name_t *server, lbio_problem_t *problem)
{
    u64 *ids = lb_rl_vip_ids();
    lbrl_vip_config_t config;
    bool taken = false;
    for (u32 i = 0; !taken && i < vec_len(ids); i++) {
        taken = lbrl_vip_config(lb_rl_main.core, ids[i], &config, NULL, 0) == LBRL_OK &&
                address_place(&config, &server->address) < config.address_count;
    }
    vec_free(ids);
    return taken ? lb_rl_refuse(problem, "server: its address is a VIP's, which would be a loop; "
                                         "give the server's own")
                 : 0;
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
        } else if (!unformat(line, "id %llx", &backend->id) &&
                   !unformat(line, "%U", unformat_lb_rl_backend_state, &backend->state)) {
            return lb_rl_unknown(line, problem,
                                 "id <hex>, weight <w>, active, draining, failed, unready, del");
        }
    }
    return 0;
}

static int as_line(vlib_main_t *vm, unformat_input_t *line, lbrl_backend_config_t *backends,
                   lbio_problem_t *problem)
{
    lb_rl_vip_name_t name;
    lb_rl_vip_name_t server = {.protocol = IP_PROTOCOL_TCP};
    lbrl_vip_config_t config;
    bool remove = false;
    if (lb_rl_ready(problem) != 0) {
        return -1;
    }
    if (!unformat(line, "%U", unformat_lb_rl_vip_name, &name)) {
        return lb_rl_unknown(line, problem, AS_KNOWN);
    }
    if (port_is_good(name.port, "", problem) != 0) {
        return -1;
    }
    if (!unformat(line, "server %U", unformat_lb_rl_address, &server.address)) {
        return lb_rl_unknown(line, problem, AS_KNOWN);
    }
    if (!unformat(line, "port %U", unformat_lb_rl_number, &server.port)) {
        server.port = LB_RL_NO_PORT;
    }
    if (!find_vip(&name, &config, backends)) {
        return lb_rl_refuse(
            problem, "there is no such VIP: make it with `lb rl vip`, see `show lb rl vips`");
    }
    if (port_is_good(server.port, "server ", problem) != 0) {
        return -1;
    }
    u32 place = place_of(&config, &server);
    if (place == LBRL_BACKENDS_MAX) {
        return lb_rl_refuse(problem, "the VIP has %u backends and takes no more",
                            LBRL_BACKENDS_MAX);
    }
    bool exists = place < config.backend_count;
    if (!exists && server_is_no_vip(&server, problem) != 0) {
        return -1;
    }
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
    .short_help = "lb rl as <VIP> port <n> [tcp|udp] server <address> port <n> [id <hex>] "
                  "[weight <w>] [active|draining|failed|unready] [del]",
    .function = as_command,
    .is_mp_safe = 1,
};
