/* Binary API, what only looks: the core's status into messages; and counters. */
#include <vlibmemory/api.h>
#include <vnet/format_fns.h>
#include <vnet/ip/ip_types_api.h>
#include <vnet/vnet.h>

#include "api.h"
#include "lb_rl.h"

#include "lb_rl.api_enum.h"

#define REPLY_MSG_ID_BASE lb_rl_main.message_base
#include <vlibapi/api_helper_macros.h>

static vl_api_address_t address_out(const lbrl_address_t *from)
{
    vl_api_address_t to;
    clib_memset(&to, 0, sizeof(to));
    to.af = lb_rl_is_ip4(from->bytes) ? ADDRESS_IP4 : ADDRESS_IP6;
    if (to.af == ADDRESS_IP4) {
        clib_memcpy(to.un.ip4, from->bytes + 12, 4);
    } else {
        clib_memcpy(to.un.ip6, from->bytes, 16);
    }
    return to;
}

void vl_api_lb_rl_get_t_handler(vl_api_lb_rl_get_t *mp)
{
    const lb_rl_main_t *lm = &lb_rl_main;
    vl_api_lb_rl_get_reply_t *rmp;
    int rv = 0;
    REPLY_MACRO2_ZERO_END(
        VL_API_LB_RL_GET_REPLY, ({
            rmp->enabled = lm->io != NULL;
            rmp->follows_agents = lm->settings.follows_agents;
            clib_memcpy(rmp->policy, lm->policy, sizeof(rmp->policy));
            clib_memcpy(rmp->directory, lm->settings.directory, sizeof(rmp->directory));
            clib_memcpy(rmp->instance_id, lm->instance_id, sizeof(rmp->instance_id));
            if (lm->io != NULL) {
                rmp->workers = vec_len(lm->threads);
                rmp->attached_vips = lm->attached.vips;
                rmp->attached_flows = lm->attached.flows;
            }
            rmp->interval_ms = lm->settings.interval_ms;
            rmp->grace_ms = lm->settings.grace_ms;
            rmp->client_table = lm->settings.client_table;
            rmp->server_table = lm->settings.server_table;
            rmp->group = (i32)lm->settings.group;
        }));
}

void vl_api_lb_rl_memory_get_t_handler(vl_api_lb_rl_memory_get_t *mp)
{
    const lb_rl_main_t *lm = &lb_rl_main;
    vl_api_lb_rl_memory_get_reply_t *rmp;
    lb_rl_memory_t memory = {0};
    int rv = lm->io != NULL ? 0 : VNET_API_ERROR_FEATURE_DISABLED;
    if (rv == 0) {
        memory = lb_rl_memory();
    }
    REPLY_MACRO2_ZERO_END(VL_API_LB_RL_MEMORY_GET_REPLY, ({
                              rmp->flows = lm->settings.flows;
                              rmp->vips = lm->settings.vips;
                              rmp->slots = lm->settings.slots;
                              rmp->vips_held = memory.vips;
                              rmp->arena_bytes = memory.arena;
                              rmp->frames_bytes = memory.frames;
                          }));
}

void vl_api_lb_rl_node_get_t_handler(vl_api_lb_rl_node_get_t *mp)
{
    vl_api_lb_rl_node_get_reply_t *rmp;
    u8 key[LB_RL_KEY_SIZE] = {0};
    int rv = lb_rl_main.io != NULL ? 0 : VNET_API_ERROR_FEATURE_DISABLED;
    u32 nodes = rv == 0 ? lbrl_node(lb_rl_main.core, key) : 0;
    REPLY_MACRO2_ZERO_END(VL_API_LB_RL_NODE_GET_REPLY, ({
                              clib_memcpy(rmp->scheduler_key, key, sizeof(key));
                              rmp->nodes = nodes;
                          }));
}

void vl_api_lb_rl_source_dump_t_handler(vl_api_lb_rl_source_dump_t *mp)
{
    vl_api_registration_t *client = vl_api_client_index_to_registration(mp->client_index);
    vl_api_lb_rl_source_details_t *rmp;
    lbrl_nat_source_t sources[LB_RL_SOURCES_MAX];
    if (client == NULL || lb_rl_main.io == NULL) {
        return;
    }
    u32 context = mp->context;
    u32 count =
        clib_min(lbrl_sources(lb_rl_main.core, sources, LB_RL_SOURCES_MAX), LB_RL_SOURCES_MAX);
    for (u32 i = 0; i < count; i++) {
        REPLY_MACRO_DETAILS4_END(VL_API_LB_RL_SOURCE_DETAILS, client, context, ({
                                     rmp->source.address = address_out(&sources[i].address);
                                     rmp->source.port_first = sources[i].port_first;
                                     rmp->source.port_last = sources[i].port_last;
                                 }));
    }
}

static vl_api_lb_rl_timeouts_t timeouts_out(const lbrl_timeouts_t *from)
{
    return (vl_api_lb_rl_timeouts_t){.tcp_handshake = from->tcp_handshake,
                                     .tcp_established = from->tcp_established,
                                     .tcp_closing = from->tcp_closing,
                                     .udp_unreplied = from->udp_unreplied,
                                     .udp_exchange = from->udp_exchange,
                                     .udp_stream = from->udp_stream,
                                     .udp_dns_answered = from->udp_dns_answered};
}

static void send_vip(vl_api_registration_t *client, u32 context, u64 id)
{
    vl_api_lb_rl_vip_details_t *rmp;
    lbrl_vip_config_t config;
    lbio_vip_status_t status;
    lbio_problem_t problem;
    if (lbrl_vip_config(lb_rl_main.core, id, &config, NULL, 0) != LBRL_OK ||
        lbio_vip_status(lb_rl_main.io, id, &status, NULL, 0, &problem) != 0) {
        return;
    }
    REPLY_MACRO_DETAILS5_END(VL_API_LB_RL_VIP_DETAILS, 0, client, context, ({
                                 clib_memset(&rmp->id, 0,
                                             sizeof(*rmp) - STRUCT_OFFSET_OF(typeof(*rmp), id));
                                 rmp->id = id;
                                 rmp->protocol = config.protocol;
                                 rmp->port = config.port;
                                 rmp->client_affinity = config.client_affinity;
                                 rmp->when_no_backends = config.when_no_backends;
                                 rmp->when_no_flow = config.when_no_flow;
                                 rmp->scheduler = config.scheduler;
                                 rmp->load = config.load;
                                 rmp->feature_level = config.feature_level;
                                 rmp->forwarding = config.forwarding;
                                 rmp->dscp = config.dscp;
                                 rmp->mtu = config.mtu;
                                 rmp->removing = status.core.removing;
                                 rmp->table_size = config.table_size;
                                 rmp->slots = status.core.slots;
                                 rmp->backend_count = status.core.backend_count;
                                 rmp->actions_sequence = status.core.actions_sequence;
                                 rmp->actions_refused = status.actions_refused;
                                 clib_memcpy(rmp->frames, status.frames, sizeof(rmp->frames));
                                 clib_memcpy(rmp->actions, status.actions, sizeof(rmp->actions));
                                 rmp->drain_timeout = config.drain_timeout;
                                 rmp->timeouts = timeouts_out(&config.timeouts);
                                 rmp->address_count = (u8)config.address_count;
                                 for (u32 i = 0; i < config.address_count; i++) {
                                     rmp->addresses[i] = address_out(&config.addresses[i]);
                                 }
                             }));
}

void vl_api_lb_rl_vip_dump_t_handler(vl_api_lb_rl_vip_dump_t *mp)
{
    vl_api_registration_t *client = vl_api_client_index_to_registration(mp->client_index);
    if (client == NULL || lb_rl_main.io == NULL) {
        return;
    }
    u64 *ids = lb_rl_vip_ids();
    const u64 *id;
    vec_foreach(id, ids)
    {
        if (mp->id == 0 || mp->id == *id) {
            send_vip(client, mp->context, *id);
        }
    }
    vec_free(ids);
}

/* As configured; all zero for one that is no longer. */
static lbrl_backend_config_t configured_of(const lbrl_vip_config_t *config,
                                           const lbrl_backend_status_t *backend)
{
    for (u32 i = 0; !backend->removed && i < config->backend_count; i++) {
        if (config->backends[i].id == backend->id) {
            return config->backends[i];
        }
    }
    return (lbrl_backend_config_t){0};
}

static void send_backend(vl_api_registration_t *client, u32 context, const lbrl_vip_config_t *vip,
                         const lbrl_backend_status_t *backend)
{
    vl_api_lb_rl_backend_details_t *rmp;
    const lbrl_backend_config_t configured = configured_of(vip, backend);
    REPLY_MACRO_DETAILS4_END(VL_API_LB_RL_BACKEND_DETAILS, client, context, ({
                                 rmp->vip = vip->id;
                                 rmp->configured_state = configured.state;
                                 rmp->configured_weight = (f64)configured.weight;
                                 rmp->backend.id = backend->id;
                                 rmp->backend.address = address_out(&backend->address);
                                 rmp->backend.port = backend->port;
                                 rmp->backend.state = backend->state;
                                 rmp->backend.weight = backend->weight;
                                 rmp->base = (f64)backend->base;
                                 rmp->slot = backend->slot;
                                 rmp->generation = backend->generation;
                                 rmp->removed = backend->removed;
                                 rmp->open_flows = (u64)clib_max(0, backend->open_flows);
                                 rmp->flows = backend->flows;
                                 rmp->packets = backend->packets;
                                 rmp->bytes = backend->bytes;
                             }));
}

void vl_api_lb_rl_backend_dump_t_handler(vl_api_lb_rl_backend_dump_t *mp)
{
    vl_api_registration_t *client = vl_api_client_index_to_registration(mp->client_index);
    const lbrl_t *core = lb_rl_main.core;
    lbrl_backend_status_t *backends = NULL;
    lbrl_backend_config_t *configured = NULL;
    lbrl_vip_status_t status;
    lbrl_vip_config_t config;
    if (client == NULL || lb_rl_main.io == NULL) {
        return;
    }
    vec_validate(backends, 2 * LBRL_BACKENDS_MAX - 1);
    vec_validate(configured, LBRL_BACKENDS_MAX - 1);
    if (lbrl_vip_config(core, mp->vip, &config, configured, LBRL_BACKENDS_MAX) == LBRL_OK &&
        lbrl_vip_status(core, mp->vip, &status, backends, vec_len(backends)) == LBRL_OK) {
        for (u32 i = 0; i < status.backend_count; i++) {
            send_backend(client, mp->context, &config, &backends[i]);
        }
    }
    vec_free(configured);
    vec_free(backends);
}

/* ---- Flows and counters ---- */

/* One request holds the main thread for less than a millisecond. VPP keeps what a client has not read in its main heap,
 * without a limit, and moves all of it with every answer. */
#define FLOWS_PER_REQUEST 512u

static void send_flow(vl_api_registration_t *client, u32 context, const lbrl_flow_info_t *flow)
{
    vl_api_lb_rl_flow_details_t *rmp;
    REPLY_MACRO_DETAILS4_END(VL_API_LB_RL_FLOW_DETAILS, client, context, ({
                                 rmp->vip = flow->vip_id;
                                 rmp->client = address_out(&flow->client);
                                 rmp->client_port = flow->client_port;
                                 rmp->backend = address_out(&flow->backend);
                                 rmp->backend_port = flow->backend_port;
                                 rmp->source = address_out(&flow->source);
                                 rmp->nat_port = flow->nat_port;
                                 rmp->state = flow->state;
                                 rmp->open = flow->open;
                                 rmp->idle_ms = flow->idle_ms;
                             }));
}

static int send_flows(vl_api_registration_t *client, const vl_api_lb_rl_flow_get_t *mp, u64 *cursor)
{
    const u64 end = *cursor + LB_RL_ENTRIES_AT_ONCE;
    const u32 max = mp->max != 0 ? clib_min(mp->max, FLOWS_PER_REQUEST) : FLOWS_PER_REQUEST;
    const u64 now_us = lb_rl_now_us();
    lbrl_flow_info_t flow;
    for (u32 sent = 0; sent < max;) {
        if (!lbrl_flow_next_before(lb_rl_main.core, cursor, end, now_us, &flow)) {
            return *cursor == end ? VNET_API_ERROR_EAGAIN : 0;
        }
        if (mp->vip == 0 || mp->vip == flow.vip_id) {
            send_flow(client, mp->context, &flow);
            sent++;
        }
    }
    return VNET_API_ERROR_EAGAIN;
}

void vl_api_lb_rl_flow_get_t_handler(vl_api_lb_rl_flow_get_t *mp)
{
    vl_api_registration_t *client = vl_api_client_index_to_registration(mp->client_index);
    vl_api_lb_rl_flow_get_reply_t *rmp;
    u64 cursor = mp->cursor;
    int rv = VNET_API_ERROR_FEATURE_DISABLED;
    if (client == NULL) {
        return;
    }
    if (lb_rl_main.io != NULL) {
        rv = send_flows(client, mp, &cursor);
    }
    REPLY_MACRO2_END(VL_API_LB_RL_FLOW_GET_REPLY, ({ rmp->cursor = cursor; }));
}

void vl_api_lb_rl_stats_get_t_handler(vl_api_lb_rl_stats_get_t *mp)
{
    vl_api_lb_rl_stats_get_reply_t *rmp;
    lbrl_stats_t stats = {0};
    int rv = lb_rl_main.io != NULL ? 0 : VNET_API_ERROR_FEATURE_DISABLED;
    if (rv == 0) {
        stats = lb_rl_stats(lb_rl_truth(&mp->since_clear));
    }
    REPLY_MACRO3_ZERO_END(
        VL_API_LB_RL_STATS_GET_REPLY, LBRL_DROP_COUNT * sizeof(rmp->dropped[0]), ({
            rmp->packets = stats.packets;
            rmp->bytes = stats.bytes;
            rmp->forwarded = stats.forwarded;
            rmp->replied = stats.replied;
            rmp->passed = stats.passed;
            rmp->handed_over = stats.handed_over;
            rmp->flows_created = stats.flows_created;
            rmp->flows_recycled = stats.flows_recycled;
            rmp->flows_evicted = stats.flows_evicted;
            rmp->flows = stats.flows;
            rmp->flow_capacity = stats.flow_capacity;
            rmp->half_open = stats.half_open;
            rmp->count = LBRL_DROP_COUNT;
            for (u32 i = 0; i < LBRL_DROP_COUNT; i++) {
                (void)snprintf((char *)rmp->dropped[i].reason, sizeof(rmp->dropped[i].reason), "%s",
                               lbrl_drop_name(i));
                rmp->dropped[i].packets = stats.dropped[i];
            }
        }));
}

void vl_api_lb_rl_stats_clear_t_handler(vl_api_lb_rl_stats_clear_t *mp)
{
    vl_api_lb_rl_stats_clear_reply_t *rmp;
    lbio_problem_t problem;
    int rv = lb_rl_stats_clear(&problem) == 0 ? 0 : VNET_API_ERROR_FEATURE_DISABLED;
    REPLY_MACRO_END(VL_API_LB_RL_STATS_CLEAR_REPLY);
}
