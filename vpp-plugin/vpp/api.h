/* Handlers of the binary API that are not in api.c, where the generated code that calls them is. */
#ifndef LB_RL_API_H
#define LB_RL_API_H

#include "lb_rl.api_types.h"

void vl_api_lb_rl_get_t_handler(vl_api_lb_rl_get_t *mp);
void vl_api_lb_rl_memory_get_t_handler(vl_api_lb_rl_memory_get_t *mp);
void vl_api_lb_rl_node_get_t_handler(vl_api_lb_rl_node_get_t *mp);
void vl_api_lb_rl_source_dump_t_handler(vl_api_lb_rl_source_dump_t *mp);
void vl_api_lb_rl_vip_dump_t_handler(vl_api_lb_rl_vip_dump_t *mp);
void vl_api_lb_rl_backend_dump_t_handler(vl_api_lb_rl_backend_dump_t *mp);
void vl_api_lb_rl_flow_get_t_handler(vl_api_lb_rl_flow_get_t *mp);
void vl_api_lb_rl_stats_get_t_handler(vl_api_lb_rl_stats_get_t *mp);
void vl_api_lb_rl_stats_clear_t_handler(vl_api_lb_rl_stats_clear_t *mp);

/* A client may send any byte where a message says bool. */
static inline bool lb_rl_truth(const bool *byte)
{
    u8 value;
    clib_memcpy(&value, byte, sizeof(value));
    return value != 0;
}

#endif
