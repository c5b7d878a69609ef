/* What brings packets to us: host routes of our own DPO for VIPs and NAT sources, and the return feature on interfaces. */
#include <vnet/feature/feature.h>
#include <vnet/fib/fib_table.h>
#include <vnet/ip/ip.h>
#include <vnet/vnet.h>

#include "lb_rl.h"

static void nothing(dpo_id_t *dpo) {}

static u8 *format_dpo(u8 *s, va_list *arguments)
{
    index_t side = va_arg(*arguments, index_t);
    (void)va_arg(*arguments, u32); /* indentation */
    return format(s, "lb-rl: %s", side == LB_RL_TO_SERVER ? "VIP" : "NAT source");
}

void lb_rl_routes_init(void)
{
    static const char *const ip4[] = {"lb-rl-ip4", NULL};
    static const char *const ip6[] = {"lb-rl-ip6", NULL};
    static const char *const *const nodes[DPO_PROTO_NUM] = {
        [DPO_PROTO_IP4] = ip4, [DPO_PROTO_IP6] = ip6};
    static const dpo_vft_t vft = {
        .dv_lock = nothing, .dv_unlock = nothing, .dv_format = format_dpo};
    lb_rl_main.dpo = dpo_register_new_type(&vft, nodes);
    lb_rl_main.source = fib_source_allocate("lb-rl", FIB_SOURCE_PRIORITY_HI, FIB_SOURCE_BH_SIMPLE);
}

void lb_rl_tables_lock(void)
{
    lb_rl_main_t *lm = &lb_rl_main;
    for (u32 six = 0; six < 2; six++) {
        fib_protocol_t protocol = six ? FIB_PROTOCOL_IP6 : FIB_PROTOCOL_IP4;
        lm->fib[LB_RL_TO_CLIENT][six] =
            fib_table_find_or_create_and_lock(protocol, lm->settings.client_table, lm->source);
        lm->fib[LB_RL_TO_SERVER][six] =
            fib_table_find_or_create_and_lock(protocol, lm->settings.server_table, lm->source);
    }
}

void lb_rl_tables_unlock(void)
{
    lb_rl_main_t *lm = &lb_rl_main;
    for (u32 six = 0; six < 2; six++) {
        fib_protocol_t protocol = six ? FIB_PROTOCOL_IP6 : FIB_PROTOCOL_IP4;
        fib_table_unlock(lm->fib[LB_RL_TO_CLIENT][six], protocol, lm->source);
        fib_table_unlock(lm->fib[LB_RL_TO_SERVER][six], protocol, lm->source);
    }
}

/* ---- Routes ---- */

/* A VIP is a host route where clients are, a NAT source where servers are: packets of the way back that come
 * otherwise than over an interface, above all ICMP errors of VPP itself, find us by it. */
static lb_rl_route_t route_to(const lbrl_address_t *address, lb_rl_side_t side)
{
    bool four = lb_rl_is_ip4(address->bytes);
    lb_rl_side_t table = side == LB_RL_TO_SERVER ? LB_RL_TO_CLIENT : LB_RL_TO_SERVER;
    lb_rl_route_t route;
    clib_memset(&route, 0, sizeof(route)); /* routes are compared as bytes */
    route.side = side;
    route.fib_index = lb_rl_main.fib[table][!four];
    if (four) {
        route.prefix.fp_proto = FIB_PROTOCOL_IP4;
        route.prefix.fp_len = 32;
        clib_memcpy(&route.prefix.fp_addr.ip4, address->bytes + 12, 4);
    } else {
        route.prefix.fp_proto = FIB_PROTOCOL_IP6;
        route.prefix.fp_len = 128;
        clib_memcpy(&route.prefix.fp_addr.ip6, address->bytes, 16);
    }
    return route;
}

static int compare(const lb_rl_route_t *a, const lb_rl_route_t *b)
{
    if (a->fib_index != b->fib_index) {
        return a->fib_index < b->fib_index ? -1 : 1;
    }
    return clib_memcmp(&a->prefix, &b->prefix, sizeof(a->prefix));
}

static int compare_for_sort(void *a, void *b)
{
    int places = compare(a, b);
    return places != 0 ? places : (int)((lb_rl_route_t *)a)->side - (int)((lb_rl_route_t *)b)->side;
}

/* Sorted, every place once: several VIPs share an address, a NAT source may be a VIP's address too. */
static lb_rl_route_t *in_order(lb_rl_route_t *routes)
{
    u32 kept = 0;
    vec_sort_with_function(routes, compare_for_sort);
    for (u32 i = 0; i < vec_len(routes); i++) {
        if (kept == 0 || compare(&routes[kept - 1], &routes[i]) != 0) {
            routes[kept++] = routes[i];
        }
    }
    if (routes != NULL) {
        vec_set_len(routes, kept);
    }
    return routes;
}

/* The routes that the core's VIPs and NAT sources ask for: a new vector. */
static lb_rl_route_t *wanted_routes(void)
{
    const lbrl_t *core = lb_rl_main.core;
    lb_rl_route_t *routes = NULL;
    lbrl_nat_source_t sources[LB_RL_SOURCES_MAX];
    lbrl_vip_config_t config;
    u64 *ids = lb_rl_vip_ids();
    for (u32 i = 0; i < vec_len(ids); i++) {
        if (lbrl_vip_config(core, ids[i], &config, NULL, 0) == LBRL_OK) {
            for (u32 j = 0; j < config.address_count; j++) {
                vec_add1(routes, route_to(&config.addresses[j], LB_RL_TO_SERVER));
            }
        }
    }
    vec_free(ids);
    u32 count = clib_min(lbrl_sources(core, sources, LB_RL_SOURCES_MAX), LB_RL_SOURCES_MAX);
    for (u32 i = 0; i < count; i++) {
        vec_add1(routes, route_to(&sources[i].address, LB_RL_TO_CLIENT));
    }
    return in_order(routes);
}

static void add_route(const lb_rl_route_t *route)
{
    dpo_id_t dpo = DPO_INVALID;
    dpo_proto_t protocol = fib_proto_to_dpo(route->prefix.fp_proto);
    dpo_set(&dpo, lb_rl_main.dpo, protocol, route->side);
    (void)fib_table_entry_special_dpo_add(route->fib_index, &route->prefix, lb_rl_main.source,
                                          FIB_ENTRY_FLAG_EXCLUSIVE, &dpo);
    dpo_reset(&dpo);
}

static void remove_route(const lb_rl_route_t *route)
{
    fib_table_entry_special_remove(route->fib_index, &route->prefix, lb_rl_main.source);
}

/* What the return feature lets through to the core. */
static void set_filter(void)
{
    lb_rl_main_t *lm = &lb_rl_main;
    lbrl_nat_source_t sources[LB_RL_SOURCES_MAX];
    lm->source_count =
        clib_min(lbrl_sources(lm->core, sources, LB_RL_SOURCES_MAX), LB_RL_SOURCES_MAX);
    for (u32 i = 0; i < lm->source_count; i++) {
        const u8 *bytes = sources[i].address.bytes;
        if (lb_rl_is_ip4(bytes)) {
            ip46_address_reset(&lm->sources[i]);
            clib_memcpy(&lm->sources[i].ip4, bytes + 12, 4);
        } else {
            clib_memcpy(&lm->sources[i].ip6, bytes, 16);
        }
    }
}

bool lb_rl_filter_is_right(void)
{
    const lb_rl_main_t *lm = &lb_rl_main;
    lbrl_nat_source_t sources[LB_RL_SOURCES_MAX];
    u32 count = clib_min(lbrl_sources(lm->core, sources, LB_RL_SOURCES_MAX), LB_RL_SOURCES_MAX);
    bool right = count == lm->source_count;
    for (u32 i = 0; right && i < count; i++) {
        lbrl_address_t known = lb_rl_address_of(&lm->sources[i]);
        right = clib_memcmp(&known, &sources[i].address, sizeof(known)) == 0;
    }
    return right;
}

/* Stops the workers at the first change, so that a change of backends or weights never does. */
typedef struct change {
    vlib_main_t *vm;
    bool stopped;
} change_t;

static void stop_workers(change_t *change)
{
    if (!change->stopped) {
        vlib_worker_thread_barrier_sync(change->vm);
        change->stopped = true;
    }
}

void lb_rl_routes_update(vlib_main_t *vm)
{
    lb_rl_main_t *lm = &lb_rl_main;
    lb_rl_route_t *wanted = wanted_routes();
    change_t change = {.vm = vm};
    for (u32 old = 0, new = 0; old < vec_len(lm->routes) || new < vec_len(wanted);) {
        int order = old == vec_len(lm->routes) ? 1
                    : new == vec_len(wanted)   ? -1
                                               : compare(&lm->routes[old], &wanted[new]);
        if (order == 0 && lm->routes[old].side != wanted[new].side) {
            order = -1; /* another node's now: remove, then add */
        }
        if (order != 0) {
            stop_workers(&change);
        }
        if (order < 0) {
            remove_route(&lm->routes[old]);
        } else if (order > 0) {
            add_route(&wanted[new]);
        }
        old += order <= 0;
        new += order >= 0;
    }
    if (!lb_rl_filter_is_right()) {
        stop_workers(&change);
        set_filter();
    }
    if (change.stopped) {
        vlib_worker_thread_barrier_release(vm);
    }
    vec_free(lm->routes);
    lm->routes = wanted;
}

void lb_rl_routes_remove(vlib_main_t *vm)
{
    lb_rl_main_t *lm = &lb_rl_main;
    const lb_rl_route_t *each;
    vec_foreach(each, lm->routes)
    {
        remove_route(each);
    }
    vec_reset_length(lm->routes);
    lm->source_count = 0;
}

/* ---- Features ---- */

static void feature_set(u32 sw_if_index, bool on)
{
    lb_rl_main_t *lm = &lb_rl_main;
    vec_validate(lm->features, sw_if_index);
    if (lm->features[sw_if_index] == on) {
        return;
    }
    lm->features[sw_if_index] = on;
    (void)vnet_feature_enable_disable("ip4-unicast", "lb-rl-nat-return-ip4", sw_if_index, on, 0, 0);
    (void)vnet_feature_enable_disable("ip6-unicast", "lb-rl-nat-return-ip6", sw_if_index, on, 0, 0);
}

void lb_rl_features_set(bool on)
{
    const vnet_sw_interface_t *interface;
    pool_foreach(interface, vnet_get_main()->interface_main.sw_interfaces)
    {
        feature_set(interface->sw_if_index, on);
    }
}

static clib_error_t *lb_rl_interface_add_del(vnet_main_t *vnm, u32 sw_if_index, u32 is_add)
{
    if (lb_rl_main.enabled) {
        feature_set(sw_if_index, is_add != 0);
    }
    return 0;
}

VNET_SW_INTERFACE_ADD_DEL_FUNCTION(lb_rl_interface_add_del);
