/* Configurations from outside, checked before the core sees them: errors that name the field and what to do. */
#include <vnet/ip/ip.h>

#include "lb_rl.h"

int lb_rl_sources_check(const lbrl_nat_source_t *sources, u32 count, lbio_problem_t *problem)
{
    if (count > LBRL_SOURCES_MAX) {
        return lb_rl_refuse(problem, "sources: %u; there are at most %u", count, LBRL_SOURCES_MAX);
    }
    for (u32 i = 0; i < count; i++) {
        u16 first = sources[i].port_first;
        u16 last = sources[i].port_last;
        if (first < 1024 || first % LBRL_PARTITIONS != 0) {
            return lb_rl_refuse(
                problem, "sources[%u].port_first: %u; must be 1024 or above and a multiple of %u",
                i, first, LBRL_PARTITIONS);
        }
        if (last <= first || (last + 1u) % LBRL_PARTITIONS != 0) {
            return lb_rl_refuse(problem,
                                "sources[%u].port_last: %u; must be above port_first and one less "
                                "than a multiple of %u",
                                i, last, LBRL_PARTITIONS);
        }
    }
    return 0;
}

int lb_rl_settings_check(const lb_rl_settings_t *settings, lbio_problem_t *problem)
{
    const u32 none =
        ~0u; /* VPP's own word for no table, with which it makes one that nobody can find again */
    if (settings->client_table == none || settings->server_table == none) {
        return lb_rl_refuse(problem, "%s: %u is no table's number; 0 is the default table",
                            settings->client_table == none ? "client_table" : "server_table", none);
    }
    if (settings->flows < LBRL_FLOWS_MIN || settings->flows > LBRL_FLOWS_MAX) {
        return lb_rl_refuse(problem, "flows: %u; must be %u to %u", settings->flows, LBRL_FLOWS_MIN,
                            LBRL_FLOWS_MAX);
    }
    if (settings->vips < 1 || settings->vips > LBRL_VIPS_MAX) {
        return lb_rl_refuse(problem, "vips: %u; must be 1 to %u", settings->vips, LBRL_VIPS_MAX);
    }
    if (settings->slots < LBRL_SLOTS_MIN || settings->slots > LBRL_SLOTS_MAX) {
        return lb_rl_refuse(problem, "slots: %u; must be %u to %u", settings->slots, LBRL_SLOTS_MIN,
                            LBRL_SLOTS_MAX);
    }
    if (settings->interval_ms < 1 || settings->interval_ms > LB_RL_INTERVAL_MAX_MS) {
        return lb_rl_refuse(problem, "interval_ms: %u; must be 1 to %u", settings->interval_ms,
                            LB_RL_INTERVAL_MAX_MS);
    }
    return 0;
}

int lb_rl_policy_check(const char *name, lbio_problem_t *problem)
{
    size_t size = strlen(name);
    bool good = size < LB_RL_POLICY_SIZE && name[0] != '-' && name[size - 1] != '-';
    for (size_t i = 0; good && i < size; i++) {
        good = (name[i] >= 'a' && name[i] <= 'z') || (name[i] >= '0' && name[i] <= '9') ||
               name[i] == '-';
    }
    return good ? 0
                : lb_rl_refuse(
                      problem,
                      "policy: `%.80s` is no name of one; it has lower-case letters, digits "
                      "and hyphens between them, at most %u",
                      name, LB_RL_POLICY_SIZE - 1);
}
