/* Binary API, what changes something: messages into the core's configurations; and events. */
#include <vlibmemory/api.h>
#include <vnet/format_fns.h>
#include <vnet/ip/ip_types_api.h>
#include <vnet/vnet.h>

#include "api.h"
#include "lb_rl.h"

#include "lb_rl.api_enum.h"

#define REPLY_MSG_ID_BASE lb_rl_main.message_base
#include <vlibapi/api_helper_macros.h>

/* ---- Values ---- */

static i32 code_of(int failed, const lbio_problem_t *problem)
{
    if (failed == 0) {
        return 0;
    }
    switch (problem->core) {
    case LBRL_OK:
        return VNET_API_ERROR_SYSCALL_ERROR_1;
    case LBRL_ERR_NOT_FOUND:
        return VNET_API_ERROR_NO_SUCH_ENTRY;
    case LBRL_ERR_CONFLICT:
        return VNET_API_ERROR_VALUE_EXIST;
    case LBRL_ERR_EXHAUSTED:
        return VNET_API_ERROR_LIMIT_EXCEEDED;
    case LBRL_ERR_IMMUTABLE:
        return VNET_API_ERROR_UNSUPPORTED;
    default:
        return VNET_API_ERROR_INVALID_VALUE;
    }
}

static int address_in(const vl_api_address_t *from, lbrl_address_t *to, const char *field,
                      lbio_problem_t *problem)
{
    ip46_address_t address;
    if (from->af != ADDRESS_IP4 && from->af != ADDRESS_IP6) {
        return lb_rl_refuse(problem, "%s: address family %u is none; use 0 (IPv4) or 1 (IPv6)",
                            field, from->af);
    }
    (void)ip_address_decode(from, &address);
    *to = lb_rl_address_of(&address);
    if (from->af == ADDRESS_IP6 && ip46_address_is_ip4(&address)) {
        return lb_rl_refuse(
            problem, "%s: an IPv6 address that is only 32 bits long is none of a server or VIP",
            field);
    }
    return 0;
}

#define TEXT_REPLY(id, failed, problem)                                                            \
    do {                                                                                           \
        int rv = code_of(failed, &(problem));                                                      \
        REPLY_MACRO2_ZERO_END(id, ({                                                               \
                                  if (rv != 0) {                                                   \
                                      (void)snprintf((char *)rmp->message, sizeof(rmp->message),   \
                                                     "%s", (problem).text);                        \
                                  }                                                                \
                              }));                                                                 \
    } while (0)

/* ---- Life ---- */

static void vl_api_lb_rl_enable_t_handler(vl_api_lb_rl_enable_t *mp)
{
    vl_api_lb_rl_enable_reply_t *rmp;
    lbio_problem_t problem = {0};
    lb_rl_settings_t settings = {.flows = mp->flows,
                                 .vips = mp->vips,
                                 .slots = mp->slots,
                                 .interval_ms = mp->interval_ms,
                                 .grace_ms = mp->grace_ms,
                                 .client_table = mp->client_table,
                                 .server_table = mp->server_table,
                                 .group = mp->group,
                                 .follows_agents = true};
    int failed = 0;
    bool again = mp->directory[0] == '\0' && lb_rl_main.settings.directory[0] != '\0';
    if (again) {
        settings = lb_rl_main.settings;
        failed = lb_rl_enable(vlib_get_main(), &settings, &problem);
        TEXT_REPLY(VL_API_LB_RL_ENABLE_REPLY, failed, problem);
        return;
    }
    if (memchr(mp->directory, '\0', sizeof(mp->directory)) == NULL || mp->directory[0] != '/') {
        failed =
            lb_rl_refuse(&problem, "directory: must be an absolute path of at most 255 characters");
    }
    if (failed == 0) {
        (void)snprintf(settings.directory, sizeof(settings.directory), "%s", (char *)mp->directory);
        failed = lb_rl_enable(vlib_get_main(), &settings, &problem);
    }
    TEXT_REPLY(VL_API_LB_RL_ENABLE_REPLY, failed, problem);
}

static void vl_api_lb_rl_disable_t_handler(vl_api_lb_rl_disable_t *mp)
{
    vl_api_lb_rl_disable_reply_t *rmp;
    int rv = 0;
    lb_rl_disable(vlib_get_main(), lb_rl_truth(&mp->withdraw));
    REPLY_MACRO_END(VL_API_LB_RL_DISABLE_REPLY);
}

static void vl_api_lb_rl_agent_set_t_handler(vl_api_lb_rl_agent_set_t *mp)
{
    vl_api_lb_rl_agent_set_reply_t *rmp;
    lbio_problem_t problem = {0};
    int failed =
        memchr(mp->policy, '\0', sizeof(mp->policy)) == NULL
            ? lb_rl_refuse(&problem, "policy: longer than %u characters", LB_RL_POLICY_SIZE - 1)
            : lb_rl_agent_set(lb_rl_truth(&mp->follow), (const char *)mp->policy, &problem);
    TEXT_REPLY(VL_API_LB_RL_AGENT_SET_REPLY, failed, problem);
}

/* ---- Node ---- */

static void vl_api_lb_rl_node_set_t_handler(vl_api_lb_rl_node_set_t *mp)
{
    vl_api_lb_rl_node_set_reply_t *rmp;
    lbio_problem_t problem = {0};
    int failed = lb_rl_node_set(mp->scheduler_key, mp->nodes, &problem);
    TEXT_REPLY(VL_API_LB_RL_NODE_SET_REPLY, failed, problem);
}

static void vl_api_lb_rl_sources_set_t_handler(vl_api_lb_rl_sources_set_t *mp)
{
    vl_api_lb_rl_sources_set_reply_t *rmp;
    lbio_problem_t problem = {0};
    lbrl_nat_source_t sources[LBRL_SOURCES_MAX];
    int failed = lb_rl_ready(&problem);
    u32 count = mp->count;
    if (failed == 0 && count > LBRL_SOURCES_MAX) {
        failed =
            lb_rl_refuse(&problem, "sources: %u; there are at most %u", count, LBRL_SOURCES_MAX);
    }
    for (u32 i = 0; failed == 0 && i < count; i++) {
        failed =
            address_in(&mp->sources[i].address, &sources[i].address, "sources.address", &problem);
        sources[i].port_first = mp->sources[i].port_first;
        sources[i].port_last = mp->sources[i].port_last;
    }
    if (failed == 0) {
        failed = lb_rl_sources_set(vlib_get_main(), sources, count, &problem);
    }
    TEXT_REPLY(VL_API_LB_RL_SOURCES_SET_REPLY, failed, problem);
}

/* ---- VIPs ---- */

static lbrl_timeouts_t timeouts_in(const vl_api_lb_rl_timeouts_t *from)
{
    return (lbrl_timeouts_t){.tcp_handshake = from->tcp_handshake,
                             .tcp_established = from->tcp_established,
                             .tcp_closing = from->tcp_closing,
                             .udp_unreplied = from->udp_unreplied,
                             .udp_exchange = from->udp_exchange,
                             .udp_stream = from->udp_stream,
                             .udp_dns_answered = from->udp_dns_answered};
}

/* `backends` has room for LBRL_BACKENDS_MAX. */
static int vip_in(const vl_api_lb_rl_vip_set_t *mp, lbrl_vip_config_t *config,
                  lbrl_backend_config_t *backends, lbio_problem_t *problem)
{
    *config = (lbrl_vip_config_t){.id = mp->id,
                                  .address_count = mp->address_count,
                                  .port = mp->port,
                                  .protocol = mp->protocol,
                                  .client_affinity = lb_rl_truth(&mp->client_affinity),
                                  .when_no_backends = mp->when_no_backends,
                                  .when_no_flow = mp->when_no_flow,
                                  .scheduler = mp->scheduler,
                                  .load = mp->load,
                                  .feature_level = mp->feature_level,
                                  .forwarding = mp->forwarding,
                                  .dscp = mp->dscp,
                                  .mtu = mp->mtu,
                                  .table_size = mp->table_size,
                                  .timeouts = timeouts_in(&mp->timeouts),
                                  .drain_timeout = mp->drain_timeout,
                                  .backends = backends,
                                  .backend_count = mp->count};
    if (mp->count > LBRL_BACKENDS_MAX) {
        return lb_rl_refuse(problem, "backends: %u; a VIP has at most %u", mp->count,
                            LBRL_BACKENDS_MAX);
    }
    for (u32 i = 0; i < clib_min(mp->address_count, LBRL_ADDRESSES_MAX); i++) {
        if (address_in(&mp->addresses[i], &config->addresses[i], "addresses", problem) != 0) {
            return -1;
        }
    }
    for (u32 i = 0; i < mp->count; i++) {
        const vl_api_lb_rl_backend_t *from = &mp->backends[i];
        backends[i] = (lbrl_backend_config_t){.id = from->id,
                                              .port = from->port,
                                              .state = from->state,
                                              .weight = (float)from->weight};
        if (address_in(&from->address, &backends[i].address, "backends.address", problem) != 0) {
            return -1;
        }
    }
    return 0;
}

static void vl_api_lb_rl_vip_set_t_handler(vl_api_lb_rl_vip_set_t *mp)
{
    vl_api_lb_rl_vip_set_reply_t *rmp;
    lbio_problem_t problem = {0};
    lbrl_vip_config_t config;
    lbrl_backend_config_t *backends = NULL;
    vec_validate(backends, LBRL_BACKENDS_MAX - 1);
    int failed = vip_in(mp, &config, backends, &problem);
    if (failed == 0) {
        failed = lb_rl_vip_set(vlib_get_main(), &config, &problem);
    }
    vec_free(backends);
    TEXT_REPLY(VL_API_LB_RL_VIP_SET_REPLY, failed, problem);
}

static void vl_api_lb_rl_vip_remove_t_handler(vl_api_lb_rl_vip_remove_t *mp)
{
    vl_api_lb_rl_vip_remove_reply_t *rmp;
    lbio_problem_t problem = {0};
    int failed = lb_rl_vip_remove(vlib_get_main(), mp->id, &problem);
    TEXT_REPLY(VL_API_LB_RL_VIP_REMOVE_REPLY, failed, problem);
}

static void vl_api_lb_rl_publish_t_handler(vl_api_lb_rl_publish_t *mp)
{
    vl_api_lb_rl_publish_reply_t *rmp;
    int rv = lb_rl_main.io != NULL ? 0 : VNET_API_ERROR_FEATURE_DISABLED;
    if (rv == 0) {
        lbio_publish(lb_rl_main.io);
    }
    REPLY_MACRO_END(VL_API_LB_RL_PUBLISH_REPLY);
}

/* ---- Events ---- */

static void unsubscribe(u32 client_index)
{
    lb_rl_main_t *lm = &lb_rl_main;
    for (u32 i = vec_len(lm->subscribers); i-- > 0;) {
        if (lm->subscribers[i].client_index == client_index) {
            vec_del1(lm->subscribers, i);
        }
    }
}

static void vl_api_want_lb_rl_events_t_handler(vl_api_want_lb_rl_events_t *mp)
{
    vl_api_want_lb_rl_events_reply_t *rmp;
    int rv = 0;
    unsubscribe(mp->client_index);
    if (vl_api_client_index_to_registration(mp->client_index) == NULL) {
        return; /* nobody who could read them, nor be seen to leave */
    }
    if (lb_rl_truth(&mp->enable)) {
        lb_rl_subscriber_t subscriber = {.client_index = mp->client_index, .client_pid = mp->pid};
        vec_add1(lb_rl_main.subscribers, subscriber);
    }
    REPLY_MACRO_END(VL_API_WANT_LB_RL_EVENTS_REPLY);
}

static clib_error_t *lb_rl_client_gone(u32 client_index)
{
    unsubscribe(client_index);
    return 0;
}

VL_MSG_API_REAPER_FUNCTION(lb_rl_client_gone);

/* ---- What needs the generated functions ---- */

#include "lb_rl.api.c"

/* NULL where it is gone, or has no room for more. */
static vl_api_registration_t *client_of(const lb_rl_subscriber_t *subscriber)
{
    vl_api_registration_t *client = vl_api_client_index_to_registration(subscriber->client_index);
    return client != NULL && vl_api_can_send_msg(client) ? client : NULL;
}

static void send_event(u64 id, bool added)
{
    const lb_rl_subscriber_t *subscriber;
    vec_foreach(subscriber, lb_rl_main.subscribers)
    {
        vl_api_registration_t *client = client_of(subscriber);
        if (client == NULL) {
            continue;
        }
        vl_api_lb_rl_vip_event_t *event = vl_msg_api_alloc_zero(sizeof(*event));
        event->_vl_msg_id = VL_API_LB_RL_VIP_EVENT + REPLY_MSG_ID_BASE;
        event->client_index = subscriber->client_index;
        event->pid = subscriber->client_pid;
        event->id = id;
        event->added = added;
        vl_api_lb_rl_vip_event_t_endian(event, true);
        vl_api_send_msg(client, (u8 *)event);
    }
}

void lb_rl_agent_event_send(void)
{
    const lb_rl_main_t *lm = &lb_rl_main;
    const lb_rl_subscriber_t *subscriber;
    vec_foreach(subscriber, lm->subscribers)
    {
        vl_api_registration_t *client = client_of(subscriber);
        if (client == NULL) {
            continue;
        }
        vl_api_lb_rl_agent_event_t *event = vl_msg_api_alloc_zero(sizeof(*event));
        event->_vl_msg_id = VL_API_LB_RL_AGENT_EVENT + REPLY_MSG_ID_BASE;
        event->client_index = subscriber->client_index;
        event->pid = subscriber->client_pid;
        event->follow = lm->settings.follows_agents;
        clib_memcpy(event->policy, lm->policy, sizeof(event->policy));
        vl_api_lb_rl_agent_event_t_endian(event, true);
        vl_api_send_msg(client, (u8 *)event);
    }
}

static int compare_ids(void *a, void *b)
{
    u64 left = *(u64 *)a;
    u64 right = *(u64 *)b;
    return left < right ? -1 : left > right;
}

void lb_rl_events_send(void)
{
    lb_rl_main_t *lm = &lb_rl_main;
    u64 *ids = lm->io != NULL ? lb_rl_vip_ids() : NULL;
    vec_sort_with_function(ids, compare_ids);
    for (u32 old = 0, new = 0; old < vec_len(lm->known_vips) || new < vec_len(ids);) {
        int order = old == vec_len(lm->known_vips) ? 1
                    : new == vec_len(ids)          ? -1
                                                   : compare_ids(&lm->known_vips[old], &ids[new]);
        if (order != 0) {
            send_event(order < 0 ? lm->known_vips[old] : ids[new], order > 0);
        }
        old += order <= 0;
        new += order >= 0;
    }
    vec_free(lm->known_vips);
    lm->known_vips = ids;
}

clib_error_t *lb_rl_api_init(vlib_main_t *vm)
{
    u16 base = setup_message_id_table();
    lb_rl_main.message_base = base;
    /* These never stop the workers but for new routes: the core publishes what it changes. */
    static const u16 unstopped[] = {
        VL_API_LB_RL_VIP_SET,      VL_API_LB_RL_VIP_REMOVE,  VL_API_LB_RL_NODE_SET,
        VL_API_LB_RL_NODE_GET,     VL_API_LB_RL_SOURCES_SET, VL_API_LB_RL_SOURCE_DUMP,
        VL_API_LB_RL_PUBLISH,      VL_API_LB_RL_AGENT_SET,   VL_API_LB_RL_VIP_DUMP,
        VL_API_LB_RL_BACKEND_DUMP, VL_API_LB_RL_FLOW_GET,    VL_API_LB_RL_STATS_GET,
        VL_API_LB_RL_STATS_CLEAR,  VL_API_LB_RL_MEMORY_GET,  VL_API_LB_RL_GET};
    for (u32 i = 0; i < ARRAY_LEN(unstopped); i++) {
        vl_api_set_msg_thread_safe(vlibapi_get_main(), base + unstopped[i], 1);
    }
    return 0;
}
