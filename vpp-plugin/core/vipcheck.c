/* What a VIP can be: configurations before they are applied, records before they are trusted. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "control.h"
#include "tunnel.h"

enum { IPV6_MTU_MIN = 1280 };

#define TIMEOUT_MAX_MS 604800000u /* a week */

/* Says why not; always LBRL_ERR_INVALID. */
__attribute__((format(printf, 2, 3))) static int refuse(lbrl_reason_t *reason, const char *format,
                                                        ...)
{
    if (reason) {
        va_list arguments;
        va_start(arguments, format);
        (void)vsnprintf(reason->text, sizeof(reason->text), format, arguments);
        va_end(arguments);
    }
    return LBRL_ERR_INVALID;
}

static bool timeouts_valid(const lbrl_timeouts_t *t)
{
    uint32_t all[] = {t->tcp_handshake, t->tcp_established, t->tcp_closing,     t->udp_unreplied,
                      t->udp_exchange,  t->udp_stream,      t->udp_dns_answered};
    for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if (all[i] == 0 || all[i] > TIMEOUT_MAX_MS) {
            return false;
        }
    }
    return true;
}

/* 0.0.0.0 or ::, nobody's address. */
static bool is_unspecified(const ip_t *ip)
{
    return ip_is_zero(ip) || (ip_is_v4(ip) && ip_v4(ip) == 0);
}

static int check_addresses(const lbrl_vip_config_t *config, lbrl_reason_t *reason)
{
    if (config->address_count < 1 || config->address_count > LBRL_ADDRESSES_MAX) {
        return refuse(reason, "addresses: %u; a VIP has 1 to %d", config->address_count,
                      LBRL_ADDRESSES_MAX);
    }
    ip_t first = ip_load(config->addresses[0].bytes);
    for (uint32_t i = 0; i < config->address_count; i++) {
        ip_t address = ip_load(config->addresses[i].bytes);
        if (is_unspecified(&address)) {
            return refuse(reason, "addresses[%u]: unspecified; give one that clients can reach", i);
        }
        if (ip_is_v4(&address) != ip_is_v4(&first)) {
            return refuse(
                reason, "addresses[%u]: of another family than the first; make one VIP per family",
                i);
        }
        for (uint32_t j = 0; j < i; j++) {
            ip_t other = ip_load(config->addresses[j].bytes);
            if (ip_equal(&address, &other)) {
                return refuse(reason, "addresses[%u]: that of addresses[%u]; send each once", i, j);
            }
        }
    }
    return LBRL_OK;
}

static int check_backend(const lbrl_vip_config_t *config, uint32_t i, lbrl_reason_t *reason)
{
    const lbrl_backend_config_t *backend = &config->backends[i];
    ip_t vip = ip_load(config->addresses[0].bytes), address = ip_load(backend->address.bytes);
    if (backend->id == 0) {
        return refuse(reason, "backends[%u].id: 0 is no id; give every backend a number of its own",
                      i);
    }
    if (backend->port == 0) {
        return refuse(reason, "backends[%u].port: must be 1 to 65535", i);
    }
    if (is_unspecified(&address)) {
        return refuse(reason, "backends[%u].address: unspecified; give the server's", i);
    }
    if (config->forwarding != LBRL_FORWARD_GRE && ip_is_v4(&address) != ip_is_v4(&vip)) {
        return refuse(
            reason, "backends[%u].address: of another family than the VIP; make one VIP per family",
            i);
    }
    if (!isfinite(backend->weight) || backend->weight < 0 || backend->weight > LBRL_WEIGHT_MAX) {
        return refuse(reason, "backends[%u].weight: must be 0 to %g", i, (double)LBRL_WEIGHT_MAX);
    }
    if (backend->state < LBRL_BACKEND_ACTIVE || backend->state > LBRL_BACKEND_UNREADY) {
        return refuse(reason,
                      "backends[%u].state: %u is none; use 1 (active), 2 (draining), 3 (failed) "
                      "or 4 (unready)",
                      i, backend->state);
    }
    for (uint32_t j = 0; j < i; j++) {
        if (config->backends[j].id == backend->id) {
            return refuse(reason, "backends[%u].id: that of backends[%u]; give each its own", i, j);
        }
    }
    return LBRL_OK;
}

static int check_backends(const lbrl_vip_config_t *config, lbrl_reason_t *reason)
{
    if (config->backend_count > LBRL_BACKENDS_MAX || (config->backend_count && !config->backends)) {
        return refuse(reason, "backends: %u; a VIP has at most %d", config->backend_count,
                      LBRL_BACKENDS_MAX);
    }
    int error = LBRL_OK;
    for (uint32_t i = 0; !error && i < config->backend_count; i++) {
        error = check_backend(config, i, reason);
    }
    return error;
}

static bool forwarding_valid(uint8_t forwarding, uint8_t dscp, uint16_t mtu)
{
    switch (forwarding) {
    case LBRL_FORWARD_NAT:
        return dscp == 0 && mtu == 0;
    case LBRL_FORWARD_GRE:
        return dscp == 0 && (mtu == 0 || mtu >= 1280);
    case LBRL_FORWARD_L3DSR:
        return dscp >= 1 && dscp <= 63 && mtu == 0;
    default:
        return false;
    }
}

static int check_forwarding(const lbrl_vip_config_t *config, lbrl_reason_t *reason)
{
    if (config->forwarding > LBRL_FORWARD_L3DSR) {
        return refuse(reason, "forwarding: %u is none; use nat, gre or l3dsr", config->forwarding);
    }
    if (!forwarding_valid(config->forwarding, config->dscp, 0)) {
        return refuse(reason, "dscp: %u; must be 1 to 63 with l3dsr, and 0 without", config->dscp);
    }
    if (!forwarding_valid(config->forwarding, config->dscp, config->mtu)) {
        return refuse(reason, "mtu: %u; must be 1280 or more with gre, and 0 without", config->mtu);
    }
    return LBRL_OK;
}

/* What is left within the tunnel is told to clients, who ignore an IPv6 MTU below the least there is (RFC 8201, 4). */
static int check_mtu(const lbrl_vip_config_t *config, lbrl_reason_t *reason)
{
    ip_t vip = ip_load(config->addresses[0].bytes);
    if (config->mtu == 0 || ip_is_v4(&vip)) {
        return LBRL_OK;
    }
    uint32_t least = IPV6_MTU_MIN + tunnel_overhead(false);
    for (uint32_t i = 0; config->backends && i < config->backend_count; i++) {
        ip_t backend = ip_load(config->backends[i].address.bytes);
        if (!ip_is_v4(&backend)) {
            least = IPV6_MTU_MIN + tunnel_overhead(true);
        }
    }
    return config->mtu < least
               ? refuse(reason, "mtu: %u; must be %u or more, for 1280 bytes of IPv6 in the tunnel",
                        config->mtu, least)
               : LBRL_OK;
}

static bool choices_valid(uint8_t protocol, uint8_t scheduler, uint8_t load, uint8_t level)
{
    return (protocol == PROTO_TCP || protocol == PROTO_UDP) && scheduler < LBRL_SCHEDULER_COUNT &&
           load < LBRL_LOAD_COUNT && level < LBRL_LEVEL_COUNT;
}

static int check_choices(const lbrl_vip_config_t *config, lbrl_reason_t *reason)
{
    if (config->protocol != PROTO_TCP && config->protocol != PROTO_UDP) {
        return refuse(reason, "protocol: %u is not balanced; use 6 (tcp) or 17 (udp)",
                      config->protocol);
    }
    if (config->scheduler >= LBRL_SCHEDULER_COUNT) {
        return refuse(reason, "scheduler: %u is none; use maglev, sed, lsq, alias or p2c",
                      config->scheduler);
    }
    if (config->load >= LBRL_LOAD_COUNT) {
        return refuse(reason, "load: %u is none; use 0 (open flows) or 1 (active ones)",
                      config->load);
    }
    if (config->feature_level >= LBRL_LEVEL_COUNT) {
        return refuse(reason, "feature_level: %u is none; the highest is %d", config->feature_level,
                      LBRL_LEVEL_COUNT - 1);
    }
    if (config->when_no_backends >= LBRL_REFUSE_COUNT ||
        config->when_no_flow >= LBRL_REFUSE_COUNT) {
        return refuse(reason, "%s: %u is none; use 0 (reject) or 1 (drop)",
                      config->when_no_backends >= LBRL_REFUSE_COUNT ? "when_no_backends"
                                                                    : "when_no_flow",
                      config->when_no_backends >= LBRL_REFUSE_COUNT ? config->when_no_backends
                                                                    : config->when_no_flow);
    }
    if (config->table_size != 0 && !lbrl_maglev_size_valid(config->table_size)) {
        return refuse(reason, "table_size: %u is not a prime of 3 to %u; 65537 is one",
                      config->table_size, LBRL_MAGLEV_SIZE_MAX);
    }
    return LBRL_OK;
}

int lbrl_vip_check(const lbrl_vip_config_t *config, lbrl_reason_t *reason)
{
    if (config->id == 0) {
        return refuse(reason, "id: 0 is no id; give every VIP a number of its own");
    }
    if (config->port == 0) {
        return refuse(reason, "port: must be 1 to 65535");
    }
    if (!timeouts_valid(&config->timeouts)) {
        return refuse(reason, "timeouts: each must be 1 to %u ms", TIMEOUT_MAX_MS);
    }
    int error = check_choices(config, reason);
    error = error ? error : check_forwarding(config, reason);
    error = error ? error : check_addresses(config, reason);
    error = error ? error : check_backends(config, reason);
    return error ? error : check_mtu(config, reason);
}

bool vip_record_valid(const arena_vip_t *record)
{
    return (record->state == VIP_LIVE || record->state == VIP_REMOVING) && record->id != 0 &&
           record->port != 0 && record->slots >= 1 && record->slots <= VIP_SLOTS_MAX &&
           choices_valid(record->protocol, record->scheduler, record->load,
                         record->feature_level) &&
           record->flags <= VIP_FLAGS && lbrl_maglev_size_valid(record->table_size) &&
           timeouts_valid(&record->timeouts) &&
           forwarding_valid(record->forwarding, record->dscp, record->mtu);
}

/* Whether an address and port are a NAT source's: of one that is held, or waits until another one has gone. */
static bool is_sources(const lbrl_t *lb, const ip_t *address, uint16_t port)
{
    for (uint32_t i = 0; i < SOURCES_HELD; i++) {
        const arena_source_t *held = &lb->node.sources[i];
        if (held->state != SOURCE_FREE && ip_equal(&held->address, address) &&
            port >= held->port_first && port <= held->port_last) {
            return true;
        }
    }
    for (uint32_t i = 0; i < lb->wanted_count; i++) {
        const lbrl_nat_source_t *wanted = &lb->wanted[i];
        ip_t source = ip_load(wanted->address.bytes);
        if (ip_equal(&source, address) && port >= wanted->port_first && port <= wanted->port_last) {
            return true;
        }
    }
    return false;
}

bool vip_address_taken(const lbrl_t *lb, uint32_t index, const arena_vip_t *record,
                       const ip_t *address)
{
    for (uint32_t v = 0; v < lb->arena.vip_count; v++) {
        const arena_vip_t *other = &lb->records[v];
        if (v == index || other->state != VIP_LIVE || other->port != record->port ||
            other->protocol != record->protocol) {
            continue;
        }
        for (uint32_t i = 0; i < LBRL_ADDRESSES_MAX; i++) {
            if (ip_equal(&other->addresses[i], address) && !(other->retired_addresses >> i & 1)) {
                return true;
            }
        }
    }
    return is_sources(lb, address, swap16(record->port));
}
