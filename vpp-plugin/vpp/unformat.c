/* What people type, on the command line and in startup.conf: addresses, names of VIPs, times, settings. */
#include <vnet/ip/ip.h>

#include "lb_rl.h"

#define SECONDS_MAX 1e6 /* what is too long for the core is refused by the core */

uword unformat_lb_rl_address(unformat_input_t *input, va_list *arguments)
{
    lbrl_address_t *out = va_arg(*arguments, lbrl_address_t *);
    ip46_address_t address;
    if (!unformat(input, "%U", unformat_ip46_address, &address, IP46_TYPE_ANY)) {
        return 0;
    }
    *out = lb_rl_address_of(&address);
    return 1;
}

/* `%u` takes 4294967376 for 80. */
uword unformat_lb_rl_number(unformat_input_t *input, va_list *arguments)
{
    u32 *out = va_arg(*arguments, u32 *);
    u64 number = 0;
    u32 digits = 0;
    for (uword c; (c = unformat_peek_input(input)) >= '0' && c <= '9'; digits++) {
        number = clib_min(number * 10 + (c - '0'), (u64)UINT32_MAX + 1);
        (void)unformat_get_input(input);
    }
    if (digits == 0 || number > UINT32_MAX) {
        return 0;
    }
    *out = (u32)number;
    return 1;
}

uword unformat_lb_rl_agents(unformat_input_t *input, va_list *arguments)
{
    bool *follow = va_arg(*arguments, bool *);
    if (unformat(input, "follow")) {
        *follow = true;
    } else if (unformat(input, "ignore")) {
        *follow = false;
    } else {
        return 0;
    }
    return 1;
}

uword unformat_lb_rl_milliseconds(unformat_input_t *input, va_list *arguments)
{
    u32 *milliseconds = va_arg(*arguments, u32 *);
    f64 seconds;
    if (!unformat(input, "%f", &seconds) || !(seconds >= 0 && seconds <= SECONDS_MAX)) {
        return 0;
    }
    *milliseconds = (u32)(seconds * 1000 + 0.5);
    return 1;
}

uword unformat_lb_rl_vip_name(unformat_input_t *input, va_list *arguments)
{
    lb_rl_vip_name_t *name = va_arg(*arguments, lb_rl_vip_name_t *);
    if (!unformat(input, "%U", unformat_lb_rl_address, &name->address)) {
        return 0;
    }
    if (!unformat(input, "port %U", unformat_lb_rl_number, &name->port)) {
        name->port = LB_RL_NO_PORT;
    }
    name->protocol = IP_PROTOCOL_TCP;
    (void)unformat(input, "%U", unformat_lb_rl_protocol, &name->protocol);
    return 1;
}

/* ---- Lines ---- */

int lb_rl_line_begin(unformat_input_t *input, unformat_input_t *line, lbio_problem_t *problem)
{
    if (!unformat_user(input, unformat_line_input, line)) {
        return lb_rl_refuse(problem, "nothing said: see `help` of this command");
    }
    return 0;
}

clib_error_t *lb_rl_line_end(unformat_input_t *line, int failed, const lbio_problem_t *problem)
{
    unformat_free(line);
    return failed == 0 ? 0 : clib_error_return(0, "%s", problem->text);
}

int lb_rl_unknown(unformat_input_t *input, lbio_problem_t *problem, const char *known)
{
    u8 *text = format(0, "%U%c", format_unformat_error, input, 0);
    int failed =
        lb_rl_refuse(problem, "unknown or unreadable: `%.40s`; known: %s", (char *)text, known);
    vec_free(text);
    return failed;
}

/* ---- Settings ---- */

static int directory_in(u8 *directory, lb_rl_settings_t *settings, lbio_problem_t *problem)
{
    u32 size = vec_len(directory);
    int failed = 0;
    if (directory[0] != '/' || size >= sizeof(settings->directory)) {
        failed =
            lb_rl_refuse(problem, "directory: must be an absolute path of at most 255 characters");
    } else {
        (void)snprintf(settings->directory, sizeof(settings->directory), "%.*s", (int)size,
                       (const char *)directory);
    }
    vec_free(directory);
    return failed;
}

int lb_rl_setting_read(unformat_input_t *input, lb_rl_settings_t *settings, lbio_problem_t *problem)
{
    u8 *directory = NULL;
    u32 milliseconds;
    i64 group;
    if (unformat(input, "directory %s", &directory)) {
        return directory_in(directory, settings, problem);
    }
    if (unformat(input, "flows %U", unformat_lb_rl_number, &settings->flows) ||
        unformat(input, "vips %U", unformat_lb_rl_number, &settings->vips) ||
        unformat(input, "slots %U", unformat_lb_rl_number, &settings->slots) ||
        unformat(input, "interval-ms %U", unformat_lb_rl_number, &settings->interval_ms) ||
        unformat(input, "client-table %U", unformat_lb_rl_number, &settings->client_table) ||
        unformat(input, "server-table %U", unformat_lb_rl_number, &settings->server_table) ||
        unformat(input, "agent %U", unformat_lb_rl_agents, &settings->follows_agents)) {
        return 0;
    }
    if (unformat(input, "group %lld", &group)) {
        settings->group = group;
        return group >= -1 && group < UINT32_MAX
                   ? 0
                   : lb_rl_refuse(problem, "group: %lld is no group's number", (long long)group);
    }
    if (unformat(input, "grace %U", unformat_lb_rl_milliseconds, &milliseconds)) {
        settings->grace_ms = clib_max(1, milliseconds);
        return milliseconds <= LB_RL_GRACE_MAX_MS
                   ? 0
                   : lb_rl_refuse(problem, "grace: %.3f s; must be 0 to %.0f", milliseconds / 1e3,
                                  LB_RL_GRACE_MAX_MS / 1e3);
    }
    return lb_rl_unknown(input, problem,
                         "directory <path>, flows <n>, vips <n>, slots <n>, interval-ms <n>, "
                         "grace <seconds>, group <number>, agent follow|ignore, client-table <id>, "
                         "server-table <id>");
}
