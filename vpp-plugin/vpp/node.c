/*
 * Packet nodes: vectors of VPP's buffers become vectors of the core's packets, its verdicts next nodes.
 *
 * lb-rl-ip4, lb-rl-ip6: packets to VIPs, sent here by host routes. lb-rl-nat-return-ip4, lb-rl-nat-return-ip6: a
 * feature on every interface, which takes the packets to NAT sources out of the rest. Packets of a partition that
 * another thread owns go through a handoff node to the same node there. Whatever comes out of the core is routed by
 * its new destination, so that a change of a backend's route counts at once.
 *
 * Nothing here allocates, waits or logs; buffers for the segments of a super-packet come from VPP's pool.
 */
#include <time.h>
#include <vnet/buffer.h>
#include <vnet/feature/feature.h>
#include <vnet/fib/fib_entry.h>
#include <vnet/fib/fib_table.h>
#include <vnet/ip/ip.h>
#include <vnet/tcp/tcp_packet.h>
#include <vnet/udp/udp_packet.h>

#include "lb_rl.h"
#include "trace.h"

typedef enum next {
    NEXT_DROP,
    NEXT_IP4,
    NEXT_IP6,
    NEXT_HANDOFF,
    NEXT_LOCAL4,
    NEXT_LOCAL6,
    NEXT_BALANCE4,
    NEXT_BALANCE6,
    NEXTS,
    HELD = UINT16_MAX - 1, /* stays with the core until its first fragment has come */
    SPLIT = UINT16_MAX,    /* of a super-packet: its segments go in its place */
} next_t;

/* Errors of a node: the core's reasons, in their order, then ours. */
#define OUR_ERRORS(X)                                                                              \
    X(DISABLED, "disabled", "load balancer was disabled meanwhile")                                \
    X(CHAIN, "chain", "needed bytes past the first buffer")                                        \
    X(SUPER, "super", "no buffer for a segment of a super-packet in a tunnel")                     \
    X(ANSWERED, "answered", "turned round into an answer")

typedef enum node_error {
    ERROR_FIRST_OF_OURS = LBRL_DROP_COUNT - 1,
#define X(name, label, text) ERROR_##name,
    OUR_ERRORS(X)
#undef X
        ERROR_COUNT
} node_error_t;

/* Where the thread that a packet is for waits between the node that decides and the handoff node. */
#define HANDOFF_THREAD(b) (vnet_buffer2(b)->unused[0])

/* The node that a held packet goes through again. */
#define HELD_NODE(b) (vnet_buffer2(b)->unused[1])

static_always_inline u64 now_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_BOOTTIME, &now); /* vDSO: no system call */
    return (u64)now.tv_sec * 1000000 + (u64)now.tv_nsec / 1000;
}

/* ---- From buffers to packets ---- */

/* Offloads and chains, which few packets have. */
static __clib_noinline int import_rest(vlib_main_t *vm, vlib_buffer_t *b, lbrl_packet_t *packet)
{
    if ((b->flags & VLIB_BUFFER_NEXT_PRESENT) && lb_rl_chain_import(vm, b, packet) != 0) {
        return -1;
    }
    if ((b->flags & VNET_BUFFER_F_OFFLOAD) == 0) {
        return 0;
    }
    vnet_buffer_oflags_t offload = vnet_buffer(b)->oflags;
    if ((offload & VNET_BUFFER_OFFLOAD_F_IP_CKSUM) && b->current_length >= sizeof(ip4_header_t)) {
        ip4_header_t *ip = vlib_buffer_get_current(b);
        ip->checksum = ip4_header_checksum(ip);
        vnet_buffer_offload_flags_clear(b, VNET_BUFFER_OFFLOAD_F_IP_CKSUM);
    }
    bool tcp = offload & VNET_BUFFER_OFFLOAD_F_TCP_CKSUM;
    if (tcp || (offload & VNET_BUFFER_OFFLOAD_F_UDP_CKSUM)) {
        packet->flags = LBRL_PACKET_NEEDS_CSUM;
        packet->csum_start = (u16)(vnet_buffer(b)->l4_hdr_offset - b->current_data);
        packet->csum_offset =
            tcp ? offsetof(tcp_header_t, checksum) : offsetof(udp_header_t, checksum);
    }
    if (b->flags & VNET_BUFFER_F_GSO) {
        const u8 *ip = vlib_buffer_get_current(b);
        packet->gso_type = !tcp              ? LBRL_GSO_UDP_L4
                           : ip[0] >> 4 == 4 ? LBRL_GSO_TCPV4
                                             : LBRL_GSO_TCPV6;
        packet->gso_size = vnet_buffer2(b)->gso_size;
        packet->hdr_len = (u16)(packet->csum_start + vnet_buffer2(b)->gso_l4_hdr_sz);
    }
    return 0;
}

static_always_inline int import(vlib_main_t *vm, vlib_buffer_t *b, u32 data_size,
                                lbrl_packet_t *packet)
{
    packet->data = vlib_buffer_get_current(b);
    packet->buffer = b;
    packet->length = b->current_length;
    packet->headroom = (u16)(b->current_data + VLIB_BUFFER_PRE_DATA_SIZE);
    packet->tailroom = (u16)(data_size - (u32)(b->current_data + b->current_length));
    clib_memset(&packet->gso_type, 0, sizeof(*packet) - offsetof(lbrl_packet_t, gso_type));
    if (PREDICT_TRUE((b->flags & (VLIB_BUFFER_NEXT_PRESENT | VNET_BUFFER_F_OFFLOAD |
                                  VNET_BUFFER_F_GSO)) == 0)) {
        return 0;
    }
    return import_rest(vm, b, packet);
}

/* ---- From packets to buffers ---- */

static __clib_noinline void export_rest(vlib_main_t *vm, vlib_buffer_t *b,
                                        const lbrl_packet_t *packet)
{
    if (b->flags & VLIB_BUFFER_NEXT_PRESENT) {
        if (packet->length <=
            b->current_length) { /* an answer, or trailing bytes that were no packet's */
            vlib_buffer_free_one(vm, b->next_buffer);
            b->flags &= ~(VLIB_BUFFER_NEXT_PRESENT | VLIB_BUFFER_TOTAL_LENGTH_VALID);
            b->current_length = (u16)packet->length;
        } else {
            b->total_length_not_including_first_buffer = packet->length - b->current_length;
        }
    } else {
        b->current_length = (u16)packet->length; /* an answer has its own */
    }
    if ((packet->flags & LBRL_PACKET_NEEDS_CSUM) == 0 && (b->flags & VNET_BUFFER_F_OFFLOAD)) {
        vnet_buffer_offload_flags_clear(b, VNET_BUFFER_OFFLOAD_F_TCP_CKSUM |
                                               VNET_BUFFER_OFFLOAD_F_UDP_CKSUM);
    }
    if (packet->gso_type == LBRL_GSO_NONE) {
        b->flags &= ~VNET_BUFFER_F_GSO;
    }
    vnet_buffer(b)->l3_hdr_offset = b->current_data;
    if (packet->flags & LBRL_PACKET_NEEDS_CSUM) {
        vnet_buffer(b)->l4_hdr_offset = (i16)(b->current_data + packet->csum_start);
    }
}

/* Host route of a packet's destination, in the table of servers. */
static fib_prefix_t host_prefix(const u8 *ip)
{
    fib_prefix_t prefix = {0};
    bool six = ip[0] >> 4 == 6;
    prefix.fp_proto = six ? FIB_PROTOCOL_IP6 : FIB_PROTOCOL_IP4;
    prefix.fp_len = six ? 128 : 32;
    if (six) {
        clib_memcpy_fast(&prefix.fp_addr.ip6, ip + 24, 16);
    } else {
        clib_memcpy_fast(&prefix.fp_addr.ip4, ip + 16, 4);
    }
    return prefix;
}

static_always_inline bool is_source(const u8 *destination, bool six)
{
    const lb_rl_main_t *lm = &lb_rl_main;
    for (u32 i = 0; i < lm->source_count; i++) {
        if (six ? clib_memcmp(&lm->sources[i].ip6, destination, 16) == 0
                : ip46_address_is_ip4(&lm->sources[i]) &&
                      clib_memcmp(&lm->sources[i].ip4, destination, 4) == 0) {
            return true;
        }
    }
    return false;
}

/* A server may be where the NAT source's address is, on the node: our own host route would bring its packets back to us, so
 * they take the route below that one. */
static __clib_noinline u16 next_to_itself(vlib_buffer_t *b, const u8 *ip)
{
    bool six = ip[0] >> 4 == 6;
    if (!is_source(ip + (six ? 24 : 16), six)) {
        return six ? NEXT_IP6 : NEXT_IP4;
    }
    fib_prefix_t prefix = host_prefix(ip);
    fib_node_index_t below =
        fib_table_get_less_specific(lb_rl_main.fib[LB_RL_TO_SERVER][six], &prefix);
    vnet_buffer(b)->ip.adj_index[VLIB_TX] = fib_entry_contribute_ip_forwarding(below)->dpoi_index;
    return six ? NEXT_BALANCE6 : NEXT_BALANCE4;
}

static_always_inline bool is_to_itself(const u8 *ip, bool six)
{
    return six ? clib_memcmp(ip + 8, ip + 24, 16) == 0 : clib_memcmp(ip + 12, ip + 16, 4) == 0;
}

/* To the table of the side that a packet now goes to. `ours`: this host is its sender, by a tunnel or an answer. */
static_always_inline u16 forward(vlib_main_t *vm, const lbrl_packet_t *packet, lb_rl_side_t side,
                                 bool ours)
{
    vlib_buffer_t *b = packet->buffer;
    if (PREDICT_TRUE((b->flags & (VLIB_BUFFER_NEXT_PRESENT | VNET_BUFFER_F_OFFLOAD |
                                  VNET_BUFFER_F_GSO)) == 0)) {
        b->current_data = (i16)(packet->data - b->data);
        b->current_length = (u16)packet->length;
    } else {
        vlib_buffer_advance(b, packet->data - (u8 *)vlib_buffer_get_current(b));
        export_rest(vm, b, packet);
    }
    u32 six = packet->data[0] >> 4 == 6;
    if (six && !ours) {
        /* Its sender is to hear that it is too big: VPP would fragment one of our own. VPP then takes the hop that the
         * core has taken. */
        packet->data[7]++;
        b->flags &= ~VNET_BUFFER_F_LOCALLY_ORIGINATED;
    } else {
        b->flags |= VNET_BUFFER_F_LOCALLY_ORIGINATED; /* the core has counted the TTL down */
    }
    vnet_buffer(b)->sw_if_index[VLIB_TX] = lb_rl_main.fib[side][six];
    if (PREDICT_FALSE(side == LB_RL_TO_SERVER && is_to_itself(packet->data, six))) {
        return next_to_itself(b, packet->data);
    }
    return six ? NEXT_IP6 : NEXT_IP4;
}

/* Whether the packet's destination is an address of an interface of VPP, which a NAT source may be. */
static __clib_noinline bool is_to_interface(const vlib_buffer_t *b)
{
    const u8 *ip = vlib_buffer_get_current((vlib_buffer_t *)b);
    fib_prefix_t prefix = host_prefix(ip);
    fib_node_index_t entry =
        fib_table_lookup_exact_match(lb_rl_main.fib[LB_RL_TO_SERVER][ip[0] >> 4 == 6], &prefix);
    return entry != FIB_NODE_INDEX_INVALID &&
           (fib_entry_get_flags_for_source(entry, FIB_SOURCE_INTERFACE) & FIB_ENTRY_FLAG_LOCAL);
}

/* What is not ours goes where it would have gone without us. */
static u16 pass(vlib_buffer_t *b, lb_rl_side_t side, bool is_feature)
{
    u16 next = NEXT_DROP;
    if (is_feature) {
        vnet_feature_next_u16(&next, b);
    } else if (side == LB_RL_TO_CLIENT && is_to_interface(b)) {
        const u8 *ip = vlib_buffer_get_current(b);
        vnet_buffer(b)->ip.rx_sw_if_index = vnet_buffer(b)->sw_if_index[VLIB_RX];
        next = ip[0] >> 4 == 6 ? NEXT_LOCAL6 : NEXT_LOCAL4;
    }
    return next;
}

static_always_inline u16 next_of(vlib_main_t *vm, vlib_node_runtime_t *node,
                                 const lbrl_packet_t *packet, bool is_feature)
{
    vlib_buffer_t *b = packet->buffer;
    /* Routes carry the side in their DPO's index; the feature sees only the way back. */
    lb_rl_side_t side = is_feature ? LB_RL_TO_CLIENT : vnet_buffer(b)->ip.adj_index[VLIB_TX];
    u16 next;
    switch (packet->verdict) {
    case LBRL_VERDICT_FORWARD:
        return PREDICT_FALSE(packet->tunnel != 0)
                   ? SPLIT
                   : forward(vm, packet, side, packet->data != vlib_buffer_get_current(b));
    case LBRL_VERDICT_REPLY:
        vlib_node_increment_counter(vm, node->node_index, ERROR_ANSWERED, 1);
        if (packet->reason != LBRL_DROP_NONE) {
            vlib_node_increment_counter(vm, node->node_index, packet->reason, 1);
        }
        return forward(vm, packet, side == LB_RL_TO_SERVER ? LB_RL_TO_CLIENT : LB_RL_TO_SERVER,
                       true);
    case LBRL_VERDICT_HANDOVER:
        HANDOFF_THREAD(b) = lb_rl_main.threads[packet->worker];
        return NEXT_HANDOFF;
    case LBRL_VERDICT_HOLD:
        HELD_NODE(b) = node->node_index;
        return HELD;
    case LBRL_VERDICT_PASS:
        next = pass(b, side, is_feature);
        if (next != NEXT_DROP || is_feature) {
            return next;
        }
        break;
    default:
        break;
    }
    b->error = node->errors[packet->reason];
    return NEXT_DROP;
}

/* ---- Super-packets in tunnels ---- */

/* Buffers on their way to the next nodes, in their order. */
typedef struct batch {
    u32 buffers[VLIB_FRAME_SIZE];
    u16 nexts[VLIB_FRAME_SIZE];
    u32 count;
} batch_t;

static void batch_flush(vlib_main_t *vm, vlib_node_runtime_t *node, batch_t *batch)
{
    vlib_buffer_enqueue_to_next(vm, node, batch->buffers, batch->nexts, batch->count);
    batch->count = 0;
}

static void batch_add(vlib_main_t *vm, vlib_node_runtime_t *node, batch_t *batch, u32 bi, u16 next)
{
    batch->buffers[batch->count] = bi;
    batch->nexts[batch->count++] = next;
    if (batch->count == VLIB_FRAME_SIZE) {
        batch_flush(vm, node, batch);
    }
}

static void split(vlib_main_t *vm, vlib_node_runtime_t *node, batch_t *batch,
                  const lbrl_packet_t *packet)
{
    lbrl_packet_t whole;
    bool failed = lb_rl_super_gather(vm, packet, &whole) != 0;
    for (u32 i = 0; !failed; i++) {
        u32 bi = lb_rl_super_segment(vm, &whole, i, &failed);
        if (bi == LB_RL_NO_BUFFER) {
            break;
        }
        vlib_buffer_t *b = vlib_get_buffer(vm, bi);
        lbrl_packet_t segment = {.data = b->data, .buffer = b, .length = b->current_length};
        batch_add(vm, node, batch, bi, forward(vm, &segment, LB_RL_TO_SERVER, true));
    }
    if (failed) {
        vlib_node_increment_counter(vm, node->node_index, ERROR_SUPER, 1);
    }
}

/* As vlib_buffer_enqueue_to_next(), where some buffers are HELD or SPLIT: `supers` are the latter, in the order of the frame. */
static __clib_noinline void enqueue_rest(vlib_main_t *vm, vlib_node_runtime_t *node,
                                         const u32 *from, const u16 *nexts, u32 n,
                                         const lbrl_packet_t *supers)
{
    batch_t batch = {.count = 0};
    for (u32 i = 0; i < n; i++) {
        if (nexts[i] == HELD) {
            continue;
        }
        if (nexts[i] != SPLIT) {
            batch_add(vm, node, &batch, from[i], nexts[i]);
            continue;
        }
        split(vm, node, &batch, supers++);
        vlib_buffer_free_one(vm, from[i]);
    }
    batch_flush(vm, node, &batch);
}

/* ---- The way through a node ---- */

/* Whether VPP would look the packet up where servers are: in another table the same address is another host's. */
static_always_inline bool is_on_server_side(const vlib_buffer_t *b, bool six)
{
    u32 fib = vnet_buffer(b)->sw_if_index[VLIB_TX]; /* where an earlier feature has chosen one */
    if (PREDICT_TRUE(fib == ~0u)) {
        fib = vec_elt(six ? ip6_main.fib_index_by_sw_if_index : ip4_main.fib_index_by_sw_if_index,
                      vnet_buffer(b)->sw_if_index[VLIB_RX]);
    }
    return fib == lb_rl_main.fib[LB_RL_TO_SERVER][six];
}

static_always_inline bool is_to_source(vlib_buffer_t *b, bool six)
{
    const lb_rl_main_t *lm = &lb_rl_main;
    if (six) {
        const ip6_header_t *ip = vlib_buffer_get_current(b);
        for (u32 i = 0; i < lm->source_count; i++) {
            if (ip6_address_is_equal(&lm->sources[i].ip6, &ip->dst_address)) {
                return is_on_server_side(b, true);
            }
        }
        return false;
    }
    const ip4_header_t *ip = vlib_buffer_get_current(b);
    for (u32 i = 0; i < lm->source_count; i++) {
        if (lm->sources[i].ip4.as_u32 == ip->dst_address.as_u32 &&
            ip46_address_is_ip4(&lm->sources[i])) {
            return is_on_server_side(b, false);
        }
    }
    return false;
}

static_always_inline u16 without_worker(vlib_node_runtime_t *node, vlib_buffer_t *b)
{
    if (!lb_rl_main.enabled) {
        b->error = node->errors[ERROR_DISABLED];
        return NEXT_DROP;
    }
    HANDOFF_THREAD(b) = lb_rl_main.threads[0]; /* who finds the owner */
    return NEXT_HANDOFF;
}

/* A frame on its way through the core. */
typedef struct frame {
    u32 *from;
    u32 n;
    vlib_buffer_t *buffers[VLIB_FRAME_SIZE];
    u16 nexts[VLIB_FRAME_SIZE];
    lbrl_packet_t supers[VLIB_FRAME_SIZE]; /* packets that are SPLIT, in their order */
    u32 super_count;
    u32 held_count;
} frame_t;

/* Packets that are imported, processed and exported before the next ones: their headers stay in the first cache. */
#define PORTION 64u

/* One portion, from buffer `first` on; the nodes that its buffers go to are in `nexts` then. */
static_always_inline void take_portion(vlib_main_t *vm, vlib_node_runtime_t *node,
                                       lbrl_worker_t *worker, frame_t *f, u32 first, u64 now,
                                       bool is_feature, bool six)
{
    lbrl_packet_t packets[PORTION];
    lb_rl_trace_t *traces[PORTION];
    u16 places[PORTION];
    u32 data_size = vlib_buffer_get_default_data_size(vm);
    u32 end = clib_min(first + PORTION, f->n);
    u32 count = 0;
    for (u32 i = first; i < end; i++) {
        vlib_buffer_t *b = f->buffers[i];
        if (i + 8 < f->n) {
            vlib_prefetch_buffer_header(f->buffers[i + 8], LOAD);
            clib_prefetch_load(vlib_buffer_get_current(f->buffers[i + 4]));
        }
        if (is_feature && !is_to_source(b, six)) {
            vnet_feature_next_u16(&f->nexts[i], b);
            continue;
        }
        if (PREDICT_FALSE(worker == NULL)) {
            f->nexts[i] = without_worker(node, b);
            continue;
        }
        if (PREDICT_FALSE(import(vm, b, data_size, &packets[count]) != 0)) {
            b->error = node->errors[ERROR_CHAIN];
            f->nexts[i] = NEXT_DROP;
            continue;
        }
        places[count++] = (u16)i;
    }
    if (count == 0) {
        return;
    }
    if (PREDICT_FALSE(node->flags & VLIB_NODE_FLAG_TRACE)) {
        lb_rl_trace_before(vm, node, packets, traces, count);
    }
    lbrl_process(worker, packets, count, now);
    for (u32 i = 0; i < count; i++) {
        u16 next = next_of(vm, node, &packets[i], is_feature);
        f->nexts[places[i]] = next;
        if (PREDICT_FALSE(next == SPLIT)) {
            f->supers[f->super_count++] = packets[i];
        } else if (PREDICT_FALSE(next == HELD)) {
            f->held_count++;
        }
    }
    if (PREDICT_FALSE(node->flags & VLIB_NODE_FLAG_TRACE)) {
        lb_rl_trace_after(packets, traces, count);
    }
}

static_always_inline bool all_equal(const u16 *nexts, u32 n)
{
    u16 others = 0;
    for (u32 i = 1; i < n; i++) {
        others |= nexts[i] ^ nexts[0];
    }
    return others == 0;
}

/* ---- Fragments before their first ---- */

/* One more time through the node that it came from. */
static void send_again(vlib_main_t *vm, vlib_buffer_t *b)
{
    vlib_frame_t *frame = vlib_get_frame_to_node(vm, HELD_NODE(b));
    u32 *to = vlib_frame_vector_args(frame);
    to[0] = vlib_get_buffer_index(vm, b);
    frame->n_vectors = 1;
    vlib_put_frame_to_node(vm, HELD_NODE(b), frame);
}

/* Gives up on one: the core counts it. */
static void give_up(vlib_main_t *vm, lbrl_worker_t *worker, lbrl_packet_t *packet, u64 now)
{
    vlib_buffer_t *b = packet->buffer;
    lbrl_process(worker, packet, 1, now);
    vlib_node_increment_counter(vm, HELD_NODE(b), packet->reason, 1);
    vlib_buffer_free_one(vm, vlib_get_buffer_index(vm, b));
}

static __clib_noinline void release_held(vlib_main_t *vm, lbrl_worker_t *worker, u64 now)
{
    lbrl_packet_t packets[PORTION];
    u32 count;
    while ((count = lbrl_held_take(worker, packets, PORTION, now)) > 0) {
        for (u32 i = 0; i < count; i++) {
            if (packets[i].flags & LBRL_PACKET_EXPIRED) {
                give_up(vm, worker, &packets[i], now);
            } else {
                send_again(vm, packets[i].buffer);
            }
        }
    }
}

static_always_inline uword lb_rl_inline(vlib_main_t *vm, vlib_node_runtime_t *node,
                                        vlib_frame_t *frame, bool is_feature, bool six)
{
    const lb_rl_main_t *lm = &lb_rl_main;
    lbrl_worker_t *worker =
        vm->thread_index < vec_len(lm->workers) ? lm->workers[vm->thread_index] : NULL;
    frame_t f; /* not set to 0: it is large */
    f.from = vlib_frame_vector_args(frame);
    f.n = frame->n_vectors;
    f.super_count = 0;
    f.held_count = 0;

    STATIC_ASSERT(PORTION <= LBRL_VECTOR_MAX, "a portion is at most one vector");
    vlib_get_buffers(vm, f.from, f.buffers, f.n);
    u64 now = now_us();
    for (u32 first = 0; first < f.n; first += PORTION) {
        take_portion(vm, node, worker, &f, first, now, is_feature, six);
    }
    if (PREDICT_FALSE(f.super_count + f.held_count > 0)) {
        enqueue_rest(vm, node, f.from, f.nexts, f.n, f.supers);
    } else if (PREDICT_TRUE(all_equal(f.nexts, f.n))) {
        vlib_buffer_enqueue_to_single_next(vm, node, f.from, f.nexts[0], f.n);
    } else {
        vlib_buffer_enqueue_to_next(vm, node, f.from, f.nexts, f.n);
    }
    if (PREDICT_TRUE(worker != NULL)) {
        release_held(vm, worker, now);
    }
    return f.n;
}

VLIB_NODE_FN(lb_rl_ip4_node)(vlib_main_t *vm, vlib_node_runtime_t *node, vlib_frame_t *frame)
{
    return lb_rl_inline(vm, node, frame, false, false);
}

VLIB_NODE_FN(lb_rl_ip6_node)(vlib_main_t *vm, vlib_node_runtime_t *node, vlib_frame_t *frame)
{
    return lb_rl_inline(vm, node, frame, false, true);
}

VLIB_NODE_FN(lb_rl_nat_return_ip4_node)(vlib_main_t *vm, vlib_node_runtime_t *node,
                                        vlib_frame_t *frame)
{
    return lb_rl_inline(vm, node, frame, true, false);
}

VLIB_NODE_FN(lb_rl_nat_return_ip6_node)(vlib_main_t *vm, vlib_node_runtime_t *node,
                                        vlib_frame_t *frame)
{
    return lb_rl_inline(vm, node, frame, true, true);
}

/* ---- Handoff ---- */

static_always_inline uword handoff_inline(vlib_main_t *vm, vlib_node_runtime_t *node,
                                          vlib_frame_t *frame, lb_rl_side_t side, bool six)
{
    u32 *from = vlib_frame_vector_args(frame);
    u32 n = frame->n_vectors;
    vlib_buffer_t *buffers[VLIB_FRAME_SIZE];
    u16 threads[VLIB_FRAME_SIZE];
    vlib_get_buffers(vm, from, buffers, n);
    for (u32 i = 0; i < n; i++) {
        threads[i] = (u16)HANDOFF_THREAD(buffers[i]);
        if (PREDICT_FALSE(buffers[i]->flags & VLIB_BUFFER_IS_TRACED)) {
            lb_rl_handoff_trace_t *trace = vlib_add_trace(vm, node, buffers[i], sizeof(*trace));
            trace->thread = threads[i];
        }
    }
    u32 sent =
        vlib_buffer_enqueue_to_thread(vm, node, lb_rl_main.handoff[side][six], from, threads, n, 1);
    if (sent < n) {
        vlib_node_increment_counter(vm, node->node_index, 0, n - sent);
    }
    return n;
}

VLIB_NODE_FN(lb_rl_ip4_handoff_node)(vlib_main_t *vm, vlib_node_runtime_t *node,
                                     vlib_frame_t *frame)
{
    return handoff_inline(vm, node, frame, LB_RL_TO_SERVER, false);
}

VLIB_NODE_FN(lb_rl_ip6_handoff_node)(vlib_main_t *vm, vlib_node_runtime_t *node,
                                     vlib_frame_t *frame)
{
    return handoff_inline(vm, node, frame, LB_RL_TO_SERVER, true);
}

VLIB_NODE_FN(lb_rl_nat_return_ip4_handoff_node)(vlib_main_t *vm, vlib_node_runtime_t *node,
                                                vlib_frame_t *frame)
{
    return handoff_inline(vm, node, frame, LB_RL_TO_CLIENT, false);
}

VLIB_NODE_FN(lb_rl_nat_return_ip6_handoff_node)(vlib_main_t *vm, vlib_node_runtime_t *node,
                                                vlib_frame_t *frame)
{
    return handoff_inline(vm, node, frame, LB_RL_TO_CLIENT, true);
}

/* ---- Ageing: each worker its own flows, when the process node says that it is time ---- */

VLIB_NODE_FN(lb_rl_tick_node)(vlib_main_t *vm, vlib_node_runtime_t *node, vlib_frame_t *frame)
{
    const lb_rl_main_t *lm = &lb_rl_main;
    lbrl_worker_t *worker =
        vm->thread_index < vec_len(lm->workers) ? lm->workers[vm->thread_index] : NULL;
    if (worker != NULL) {
        u64 now = now_us();
        lbrl_worker_tick(worker, now);
        release_held(vm, worker, now);
    }
    return 0;
}

#ifndef CLIB_MARCH_VARIANT

void lb_rl_held_free(vlib_main_t *vm)
{
    lbrl_packet_t packet;
    lbrl_worker_t **worker;
    vec_foreach(worker, lb_rl_main.workers)
    {
        while (*worker != NULL && lbrl_held_take(*worker, &packet, 1, ~0ull) > 0) {
            vlib_buffer_free_one(vm, vlib_get_buffer_index(vm, packet.buffer));
        }
    }
}

#include "node_registrations.h"

#endif
