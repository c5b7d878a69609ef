/*
 * What the kernel runs on each frame of a card of type AfXdp: it goes to VPP's socket of its queue, or on to the
 * kernel while there is none. VPP attaches it (option `prog`), which needs CAP_BPF and CAP_NET_ADMIN; the program
 * that libxdp brings along needs CAP_SYS_ADMIN, because libxdp looks it up by its id.
 */
#include <linux/bpf.h>

enum { QUEUES_MAX = 64 };

/* The name is VPP's. What the fields point to is never used: libbpf reads their types. */
struct {
    int (*type)[BPF_MAP_TYPE_XSKMAP];
    int (*key_size)[sizeof(__u32)];
    int (*value_size)[sizeof(__u32)];
    int (*max_entries)[QUEUES_MAX];
} xsks_map __attribute__((section(".maps"), used));

static long (*const redirect_map)(void *map, __u64 key,
                                  __u64 flags) = (void *)BPF_FUNC_redirect_map;

__attribute__((section("xdp"), used)) int to_vpp(struct xdp_md *frame)
{
    return (int)redirect_map(&xsks_map, frame->rx_queue_index, XDP_PASS);
}
