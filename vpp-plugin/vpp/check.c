/* Configurations from outside, checked before the core sees them: errors that name the field and what to do. */
#include <math.h>

#include <vnet/ip/ip.h>

#include "lb_rl.h"

static int check_backend(const lbrl_vip_config_t *config, u32 i, lbio_problem_t *problem)
{
    const lbrl_backend_config_t *backend = &config->backends[i];
    if (backend->id == 0) {
        return lb_rl_refuse(
            problem, "backends[%u].id: 0 is no id; give every backend a number of its own", i);
    }
    if (backend->port == 0) {
        return lb_rl_refuse(problem, "backends[%u].port: must be 1 to 65535", i);
    }
    if (!isfinite(backend->weight) || backend->weight < 0 || backend->weight > LBRL_WEIGHT_MAX) {
        return lb_rl_refuse(problem, "backends[%u].weight: must be 0 to %g", i,
                            (double)LBRL_WEIGHT_MAX);
    }
    if (backend->state < LBRL_BACKEND_ACTIVE || backend->state > LBRL_BACKEND_FAILED) {
        return lb_rl_refuse(problem,
                            "backends[%u].state: %u is none; use active, draining or failed", i,
                            backend->state);
    }
    if (config->forwarding != LBRL_FORWARD_GRE &&
        lb_rl_is_ip4(backend->address.bytes) != lb_rl_is_ip4(config->addresses[0].bytes)) {
        return lb_rl_refuse(
            problem,
            "backends[%u].address: of another family than the VIP; make one VIP per family", i);
    }
    return 0;
}

static int check_forwarding(const lbrl_vip_config_t *config, lbio_problem_t *problem)
{
    bool dsr = config->forwarding == LBRL_FORWARD_L3DSR;
    if (config->forwarding > LBRL_FORWARD_L3DSR) {
        return lb_rl_refuse(problem, "forwarding: %u is none; use nat, gre or l3dsr",
                            config->forwarding);
    }
    if (dsr ? config->dscp < 1 || config->dscp > 63 : config->dscp != 0) {
        return lb_rl_refuse(problem, "dscp: %u; must be 1 to 63 with l3dsr, and 0 without",
                            config->dscp);
    }
    if (config->mtu != 0 && (config->forwarding != LBRL_FORWARD_GRE || config->mtu < 1280)) {
        return lb_rl_refuse(problem, "mtu: %u; must be 1280 or more with gre, and 0 without",
                            config->mtu);
    }
    return 0;
}

static bool is_prime(u32 value)
{
    for (u32 i = 2; (u64)i * i <= value; i++) {
        if (value % i == 0) {
            return false;
        }
    }
    return value > 1;
}

int lb_rl_vip_check(const lbrl_vip_config_t *config, lbio_problem_t *problem)
{
    if (config->id == 0) {
        return lb_rl_refuse(problem, "id: 0 is no id; give every VIP a number of its own");
    }
    if (config->address_count < 1 || config->address_count > LBRL_ADDRESSES_MAX) {
        return lb_rl_refuse(problem, "addresses: %u; a VIP has 1 to %u", config->address_count,
                            LBRL_ADDRESSES_MAX);
    }
    for (u32 i = 1; i < config->address_count; i++) {
        if (lb_rl_is_ip4(config->addresses[i].bytes) != lb_rl_is_ip4(config->addresses[0].bytes)) {
            return lb_rl_refuse(
                problem, "addresses[%u]: of another family than the first; make one VIP per family",
                i);
        }
    }
    if (config->port == 0) {
        return lb_rl_refuse(problem, "port: must be 1 to 65535");
    }
    if (config->protocol != IP_PROTOCOL_TCP && config->protocol != IP_PROTOCOL_UDP) {
        return lb_rl_refuse(problem, "protocol: %u is not balanced; use 6 (tcp) or 17 (udp)",
                            config->protocol);
    }
    if (config->scheduler >= LBRL_SCHEDULER_COUNT) {
        return lb_rl_refuse(problem, "scheduler: %u is none; use maglev, sed, lsq, alias or p2c",
                            config->scheduler);
    }
    if (config->load >= LBRL_LOAD_COUNT) {
        return lb_rl_refuse(problem, "load: %u is none; use 0 (open flows) or 1 (active ones)",
                            config->load);
    }
    if (config->table_size != 0 && !is_prime(config->table_size)) {
        return lb_rl_refuse(problem, "table_size: %u is not a prime; 65537 is one",
                            config->table_size);
    }
    if (config->feature_level >= LBRL_LEVEL_COUNT) {
        return lb_rl_refuse(problem, "feature_level: %u is none; the highest is %u",
                            config->feature_level, LBRL_LEVEL_COUNT - 1);
    }
    if (config->backend_count > LBRL_BACKENDS_MAX) {
        return lb_rl_refuse(problem, "backends: %u; a VIP has at most %u", config->backend_count,
                            LBRL_BACKENDS_MAX);
    }
    if (check_forwarding(config, problem) != 0) {
        return -1;
    }
    for (u32 i = 0; i < config->backend_count; i++) {
        if (check_backend(config, i, problem) != 0) {
            return -1;
        }
    }
    return 0;
}

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

int lb_rl_tables_check(const lb_rl_settings_t *settings, lbio_problem_t *problem)
{
    const u32 none =
        ~0u; /* VPP's own word for no table, with which it makes one that nobody can find again */
    if (settings->client_table == none || settings->server_table == none) {
        return lb_rl_refuse(problem, "%s: %u is no table's number; 0 is the default table",
                            settings->client_table == none ? "client_table" : "server_table", none);
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
