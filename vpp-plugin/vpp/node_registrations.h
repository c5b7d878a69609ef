/* The nodes' places in the graph. Part of node.c, once. */

static vlib_error_desc_t error_counters[ERROR_COUNT];

/* The core's reasons get their names from the core: one list for metrics, VPP and the embedded data plane. */
static void __attribute__((constructor)) name_errors(void)
{
    for (unsigned i = 0; i < LBRL_DROP_COUNT; i++) {
        error_counters[i] = (vlib_error_desc_t){.name = (char *)lbrl_drop_name(i),
                                                .desc = (char *)lbrl_drop_text(i),
                                                .severity = VL_COUNTER_SEVERITY_ERROR};
    }
#define X(id, label, text)                                                                         \
    error_counters[ERROR_##id] =                                                                   \
        (vlib_error_desc_t){.name = label, .desc = text, .severity = VL_COUNTER_SEVERITY_ERROR};
    OUR_ERRORS(X)
#undef X
    error_counters[ERROR_ANSWERED].severity = VL_COUNTER_SEVERITY_INFO;
}

#define NODE(variable, text, handoff)                                                              \
    VLIB_REGISTER_NODE(variable) = {                                                               \
        .name = text,                                                                              \
        .vector_size = sizeof(u32),                                                                \
        .format_trace = format_lb_rl_trace,                                                        \
        .type = VLIB_NODE_TYPE_INTERNAL,                                                           \
        .n_errors = ERROR_COUNT,                                                                   \
        .error_counters = error_counters,                                                          \
        .n_next_nodes = NEXTS,                                                                     \
        .next_nodes = {[NEXT_DROP] = "error-drop",                                                 \
                       [NEXT_IP4] = "ip4-lookup",                                                  \
                       [NEXT_IP6] = "ip6-lookup",                                                  \
                       [NEXT_HANDOFF] = handoff,                                                   \
                       [NEXT_LOCAL4] = "ip4-local",                                                \
                       [NEXT_LOCAL6] = "ip6-local",                                                \
                       [NEXT_BALANCE4] = "ip4-load-balance",                                       \
                       [NEXT_BALANCE6] = "ip6-load-balance"},                                      \
    }

NODE(lb_rl_ip4_node, "lb-rl-ip4", "lb-rl-ip4-handoff");
NODE(lb_rl_ip6_node, "lb-rl-ip6", "lb-rl-ip6-handoff");
NODE(lb_rl_nat_return_ip4_node, "lb-rl-nat-return-ip4", "lb-rl-nat-return-ip4-handoff");
NODE(lb_rl_nat_return_ip6_node, "lb-rl-nat-return-ip6", "lb-rl-nat-return-ip6-handoff");

static char *handoff_errors[] = {"queue to the owner's thread is full"};

#define HANDOFF_NODE(variable, text)                                                               \
    VLIB_REGISTER_NODE(variable) = {                                                               \
        .name = text,                                                                              \
        .vector_size = sizeof(u32),                                                                \
        .format_trace = format_lb_rl_handoff_trace,                                                \
        .type = VLIB_NODE_TYPE_INTERNAL,                                                           \
        .n_errors = ARRAY_LEN(handoff_errors),                                                     \
        .error_strings = handoff_errors,                                                           \
        .n_next_nodes = 1,                                                                         \
        .next_nodes = {[0] = "error-drop"},                                                        \
    }

HANDOFF_NODE(lb_rl_ip4_handoff_node, "lb-rl-ip4-handoff");
HANDOFF_NODE(lb_rl_ip6_handoff_node, "lb-rl-ip6-handoff");
HANDOFF_NODE(lb_rl_nat_return_ip4_handoff_node, "lb-rl-nat-return-ip4-handoff");
HANDOFF_NODE(lb_rl_nat_return_ip6_handoff_node, "lb-rl-nat-return-ip6-handoff");

VLIB_REGISTER_NODE(lb_rl_tick_node) = {
    .name = "lb-rl-tick",
    .type = VLIB_NODE_TYPE_INPUT,
    .state = VLIB_NODE_STATE_INTERRUPT,
};

VNET_FEATURE_INIT(lb_rl_nat_return_ip4_feature, static) = {
    .arc_name = "ip4-unicast",
    .node_name = "lb-rl-nat-return-ip4",
    .runs_after = VNET_FEATURES("ip4-not-enabled", "acl-plugin-in-ip4-fa"),
    .runs_before = VNET_FEATURES("ip4-lookup"),
};

VNET_FEATURE_INIT(lb_rl_nat_return_ip6_feature, static) = {
    .arc_name = "ip6-unicast",
    .node_name = "lb-rl-nat-return-ip6",
    .runs_after = VNET_FEATURES("ip6-not-enabled", "acl-plugin-in-ip6-fa"),
    .runs_before = VNET_FEATURES("ip6-lookup"),
};
