/* What a VIP can be: configurations before they are applied, records before they are trusted. */
#include <math.h>

#include "control.h"

static bool timeouts_valid(const lbrl_timeouts_t *t)
{
    uint32_t all[] = {t->tcp_handshake, t->tcp_established, t->tcp_closing,     t->udp_unreplied,
                      t->udp_exchange,  t->udp_stream,      t->udp_dns_answered};
    for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if (all[i] == 0 || all[i] > 604800000u) {
            return false;
        }
    }
    return true;
}

static bool addresses_valid(const lbrl_vip_config_t *config)
{
    if (config->address_count < 1 || config->address_count > LBRL_ADDRESSES_MAX) {
        return false;
    }
    ip_t first = ip_load(config->addresses[0].bytes);
    for (uint32_t i = 0; i < config->address_count; i++) {
        ip_t address = ip_load(config->addresses[i].bytes);
        if (ip_is_zero(&address) || ip_is_v4(&address) != ip_is_v4(&first)) {
            return false;
        }
        for (uint32_t j = 0; j < i; j++) {
            ip_t other = ip_load(config->addresses[j].bytes);
            if (ip_equal(&address, &other)) {
                return false;
            }
        }
    }
    return true;
}

static bool backends_valid(const lbrl_vip_config_t *config)
{
    if (config->backend_count > LBRL_BACKENDS_MAX || (config->backend_count && !config->backends)) {
        return false;
    }
    ip_t vip = ip_load(config->addresses[0].bytes);
    for (uint32_t i = 0; i < config->backend_count; i++) {
        const lbrl_backend_config_t *backend = &config->backends[i];
        ip_t address = ip_load(backend->address.bytes);
        if (backend->id == 0 || backend->port == 0 || ip_is_zero(&address) ||
            (config->forwarding != LBRL_FORWARD_GRE && ip_is_v4(&address) != ip_is_v4(&vip)) ||
            !isfinite(backend->weight) || backend->weight < 0 ||
            backend->weight > LBRL_WEIGHT_MAX || backend->state < LBRL_BACKEND_ACTIVE ||
            backend->state > LBRL_BACKEND_FAILED) {
            return false;
        }
        for (uint32_t j = 0; j < i; j++) {
            if (config->backends[j].id == backend->id) {
                return false;
            }
        }
    }
    return true;
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

static bool choices_valid(uint8_t protocol, uint8_t scheduler, uint8_t load, uint8_t level)
{
    return (protocol == PROTO_TCP || protocol == PROTO_UDP) && scheduler < LBRL_SCHEDULER_COUNT &&
           load < LBRL_LOAD_COUNT && level < LBRL_LEVEL_COUNT;
}

bool vip_config_valid(const lbrl_vip_config_t *config)
{
    return config->id != 0 && config->port != 0 &&
           choices_valid(config->protocol, config->scheduler, config->load,
                         config->feature_level) &&
           (config->table_size == 0 || lbrl_maglev_size_valid(config->table_size)) &&
           timeouts_valid(&config->timeouts) &&
           forwarding_valid(config->forwarding, config->dscp, config->mtu) &&
           addresses_valid(config) && backends_valid(config);
}

bool vip_record_valid(const arena_vip_t *record)
{
    return (record->state == VIP_LIVE || record->state == VIP_REMOVING) && record->id != 0 &&
           record->port != 0 && record->slots >= 1 && record->slots <= VIP_SLOTS_MAX &&
           choices_valid(record->protocol, record->scheduler, record->load,
                         record->feature_level) &&
           lbrl_maglev_size_valid(record->table_size) && timeouts_valid(&record->timeouts) &&
           forwarding_valid(record->forwarding, record->dscp, record->mtu);
}
