/* A load balancer on memory of its own, with one call per thing that tests do to it. */
#ifndef RIG_H
#define RIG_H

#include "packets.h"

typedef struct rig {
    lbrl_t *lb;
    void *arena;
    size_t arena_size;
    lbrl_config_t config;
    lbrl_attach_report_t report;
    uint64_t now_us;
    uint32_t entry; /* worker that packets come in at */
} rig_t;

/* Small by default: 4096 flows, 16 VIPs, 512 slots, 1 worker; NAT sources 192.0.2.1 and fd00::9:1, ports 16384 to 28671;
 * VIP 1 is 203.0.113.10:80/TCP, VIP 2 is fd00::1:10 port 80, VIP 3 is 203.0.113.10:53/UDP, each with `backends` backends
 * 10.0.0.1.., fd00::2:1.., port 8080. */
rig_t rig_make(uint32_t workers, uint32_t backends);
rig_t rig_sized(uint32_t flows, uint32_t workers);
rig_t rig_seeded(uint32_t flows, uint32_t workers, uint8_t seed);
rig_t rig_tiny(void);                       /* 64 flows, 4 VIPs, 32 slots: little to copy */
rig_t rig_configured(lbrl_config_t config); /* empty; of the boot that all rigs are of */
void rig_free(rig_t *rig);

/* As after a restart: closes and opens on the same arena. */
void rig_restart(rig_t *rig);

/* The defaults, but 900 s for established connections: tests wait until they age out. */
lbrl_timeouts_t rig_timeouts(void);

/* A VIP's configuration with defaults; `backends` is filled with ids id * 1000 + 1.. */
lbrl_vip_config_t rig_vip(uint64_t id, const char *address, uint16_t port, uint8_t protocol,
                          lbrl_backend_config_t *backends, uint32_t count);
void rig_set_standard_vips(rig_t *rig, uint32_t backends);
void rig_set_sources(rig_t *rig);

/* One packet through the worker that packets come in at, or the one that it is handed to. Returns the verdict. */
lbrl_verdict_t rig_send(rig_t *rig, test_packet_t *packet);

/* Restarts with callers that keep fragments before their first; rig_release() processes those that are given back, in the
 * test_packet_t that each was sent in, which must still be there. */
void rig_hold(rig_t *rig);
void rig_release(const rig_t *rig);

/* Lets time pass with ticks of workers and control, 100 ms at a time. */
void rig_pass(rig_t *rig, uint64_t milliseconds);

/* A client's TCP connection to a VIP, for scripts of packets. */
typedef struct connection {
    rig_t *rig;
    const char *client;
    uint16_t client_port;
    const char *vip;
    uint16_t vip_port;
    lbrl_address_t backend, source; /* as seen by the server */
    uint16_t backend_port, nat_port;
    uint32_t client_next, server_next;
    test_packet_t packet; /* the last one */
} connection_t;

connection_t connection_make(rig_t *rig, const char *client, uint16_t port, const char *vip);
/* SYN: fills backend, source and ports if it is forwarded. */
lbrl_verdict_t connection_syn(connection_t *c);
/* Whole handshake, which must succeed. */
void connection_open(connection_t *c);
/* Segments with flags | ACK; sequence numbers move on. They must come out translated unless a verdict other than
 * FORWARD is returned. */
lbrl_verdict_t connection_client(connection_t *c, uint8_t flags, size_t payload);
lbrl_verdict_t connection_server(connection_t *c, uint8_t flags, size_t payload);
/* The flow's state in the table, LBRL_FLOW_FREE if it has none. */
lbrl_flow_info_t connection_flow(const connection_t *c);

/* Text of an address of the last server-side packet; 4 static buffers. */
const char *text_of(const lbrl_address_t *address);

/* Frames of a VIP, bound to it: with them its level takes effect. `memory` is the caller's to free after rig_free(). */
typedef struct rig_frames {
    lbrl_frames_t frames;
    void *memory;
    size_t size;
} rig_frames_t;

void rig_bind_frames(const rig_t *rig, rig_frames_t *made, uint64_t vip);

/* Entries and open flows of each backend of a VIP, if there is one of that id with at most 512 slots, are those that the table
 * holds. Workers stand still and have ticked since. */
void rig_recount(const rig_t *rig, uint64_t vip);

uint64_t rig_dropped(const rig_t *rig, lbrl_drop_t reason);
lbrl_backend_status_t rig_backend(const rig_t *rig, uint64_t vip, uint64_t backend);

#endif
