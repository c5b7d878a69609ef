/* The command line, but for VIPs and their servers: life, agents, node, NAT sources. */
#include "lb_rl.h"

/* ---- parents: VPP lists nothing of a command that only has sub-commands, unless it has help ---- */

VLIB_CLI_COMMAND(lb_rl_command, static) = {
    .path = "lb rl",
    .short_help = "Penstock's load balancer",
    .long_help = "Penstock's load balancer; `help lb rl <command>` shows the options of one:\n"
                 "  enable    open flow arena and shared memory, and forward\n"
                 "  disable   stop forwarding; `withdraw` removes the VIPs as well\n"
                 "  sources   set the addresses and ports that servers see\n"
                 "  vip       make, change or remove a VIP\n"
                 "  as        make, change or remove a server of a VIP\n"
                 "  agent     follow agents' weights, ignore them, or name a policy\n"
                 "  node      set the key of the Maglev tables and the number of nodes\n"
                 "`help show lb rl` lists what can be shown.",
};

#define SHOW_HELP                                                                                  \
    "Show Penstock's load balancer:\n"                                                             \
    "  vips      VIPs, servers, flows and weights; `verbose` for all that was set\n"               \
    "  node      key and number of nodes, NAT sources\n"                                           \
    "  agent     whose weights are in force\n"                                                     \
    "  flows     the flow table\n"                                                                 \
    "  stats     counters\n"                                                                       \
    "  memory    sizes"

/* Returns no error: VPP would then run `show lb` of its own plugin `lb`, which hides what is wrong. */
static clib_error_t *show_help(vlib_main_t *vm, unformat_input_t *input,
                               vlib_cli_command_t *command)
{
    if (unformat_check_input(input) != UNFORMAT_END_OF_INPUT) {
        vlib_cli_output(vm, "show lb rl: unknown: `%U`", format_unformat_error, input);
    }
    vlib_cli_output(vm, "%s", SHOW_HELP);
    return 0;
}

VLIB_CLI_COMMAND(lb_rl_show_command, static) = {
    .path = "show lb rl",
    .short_help = "Show Penstock's load balancer",
    .long_help = SHOW_HELP,
    .function = show_help,
    .is_mp_safe = 1,
};

/* ---- enable, disable ---- */

/* What `again` enables with: the settings of the last time, or of startup.conf. */
static int settings_again(lb_rl_settings_t *settings, lbio_problem_t *problem)
{
    if (lb_rl_main.settings.directory[0] == '\0') {
        return lb_rl_refuse(problem, "again: there was no time before; say `lb rl enable`");
    }
    *settings = lb_rl_main.settings;
    return 0;
}

static clib_error_t *enable_command(vlib_main_t *vm, unformat_input_t *input,
                                    vlib_cli_command_t *command)
{
    unformat_input_t lines, *line = &lines;
    lb_rl_settings_t settings = lb_rl_settings_default();
    lbio_problem_t problem;
    int failed = 0;
    if (!unformat_user(input, unformat_line_input, line)) {
        unformat_init_vector(line, NULL);
    }
    if (unformat(line, "again")) {
        failed = settings_again(&settings, &problem);
    }
    while (failed == 0 && unformat_check_input(line) != UNFORMAT_END_OF_INPUT) {
        failed = lb_rl_setting_read(line, &settings, &problem);
    }
    if (failed == 0) {
        failed = lb_rl_enable(vm, &settings, &problem);
    }
    return lb_rl_line_end(line, failed, &problem);
}

VLIB_CLI_COMMAND(lb_rl_enable_command, static) = {
    .path = "lb rl enable",
    .short_help =
        "lb rl enable [again] [directory <path>] [flows <n>] [vips <n>] [slots <n>] "
        "[interval-ms <n>] [grace <seconds>] [group <number>] [agent follow|ignore] "
        "[client-table <id>] [server-table <id>] (again: with the settings of the last time)",
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
        failed = lb_rl_unknown(line, &problem, "withdraw");
    } else {
        lb_rl_disable(vm, withdraw);
    }
    return lb_rl_line_end(line, failed, &problem);
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
    if (lb_rl_line_begin(input, line, &problem) != 0) {
        return clib_error_return(0, "%s", problem.text);
    }
    if (unformat(line, "%s", &word) && unformat_check_input(line) == UNFORMAT_END_OF_INPUT) {
        vec_add1(word, '\0');
        bool ignore = strcmp((char *)word, "ignore") == 0;
        bool plain = ignore || strcmp((char *)word, "follow") == 0;
        failed = lb_rl_agent_set(!ignore, plain ? "" : (char *)word, &problem);
    } else {
        failed = lb_rl_unknown(line, &problem, "follow, ignore, or the name of a policy");
    }
    vec_free(word);
    return lb_rl_line_end(line, failed, &problem);
}

VLIB_CLI_COMMAND(lb_rl_agent_command, static) = {
    .path = "lb rl agent",
    .short_help =
        "lb rl agent follow|ignore|<policy> (ignore: the configured weights are in force; "
        "a policy: in place of those that agents are told elsewhere)",
    .function = agent_command,
    .is_mp_safe = 1,
};

/* ---- lb rl node ---- */

static int node_line(unformat_input_t *line, lbio_problem_t *problem)
{
    u8 key[LB_RL_KEY_SIZE];
    u8 *digits = NULL;
    int failed = lb_rl_ready(problem);
    u32 nodes = failed == 0 ? clib_max(1, lbrl_node(lb_rl_main.core, key)) : 0;
    while (failed == 0 && unformat_check_input(line) != UNFORMAT_END_OF_INPUT) {
        if (unformat(line, "key %U", unformat_hex_string, &digits)) {
            if (vec_len(digits) == sizeof(key)) {
                clib_memcpy(key, digits, sizeof(key));
            } else {
                failed = lb_rl_refuse(problem, "key: %u bytes; must be %u, two digits each",
                                      vec_len(digits), LB_RL_KEY_SIZE);
            }
            vec_free(digits);
        } else if (!unformat(line, "nodes %U", unformat_lb_rl_number, &nodes)) {
            failed = lb_rl_unknown(line, problem, "key <32 hex digits>, nodes <n>");
        }
    }
    return failed == 0 ? lb_rl_node_set(key, nodes, problem) : failed;
}

static clib_error_t *node_command(vlib_main_t *vm, unformat_input_t *input,
                                  vlib_cli_command_t *command)
{
    unformat_input_t lines, *line = &lines;
    lbio_problem_t problem;
    if (lb_rl_line_begin(input, line, &problem) != 0) {
        return clib_error_return(0, "%s", problem.text);
    }
    int failed = node_line(line, &problem);
    return lb_rl_line_end(line, failed, &problem);
}

VLIB_CLI_COMMAND(lb_rl_node_command, static) = {
    .path = "lb rl node",
    .short_help = "lb rl node [key <32 hex digits>] [nodes <n>] (of the Maglev tables, the same on "
                  "all nodes; and how many of them there are)",
    .function = node_command,
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
        if (!unformat(line, "%U ports %U-%U", unformat_lb_rl_address, &address,
                      unformat_lb_rl_number, &first, unformat_lb_rl_number, &last)) {
            return lb_rl_unknown(
                line, problem,
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
    return lb_rl_line_end(line, failed, &problem);
}

VLIB_CLI_COMMAND(lb_rl_sources_command, static) = {
    .path = "lb rl sources",
    .short_help = "lb rl sources [<address> ports <first>-<last>]... (the complete set)",
    .function = sources_command,
    .is_mp_safe = 1,
};
