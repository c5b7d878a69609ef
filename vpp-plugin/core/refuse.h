/* Packets that cannot be served: refused as a host does, or dropped. */
#ifndef LBRL_REFUSE_H
#define LBRL_REFUSE_H

#include "reply.h"

/* Whether a client cannot be who it says: what it is sent would come back to us, and between two VIPs without end, or
 * reach no router. `port` 0: the packet has none. */
bool is_forged_client(const table_t *table, const ip_t *client, uint16_t port);

/* As a host answers for a port that is closed (RFC 9293, 3.10.7.1; RFC 1122, 4.1.3.1). */
lbrl_verdict_t refuse(lbrl_worker_t *worker, lbrl_packet_t *packet, const meta_t *meta,
                      uint8_t reason);

/* No backend takes a new flow of the VIP. One-way only what surely begins one is refused: others may be known elsewhere. */
lbrl_verdict_t refuse_no_backend(lbrl_worker_t *worker, lbrl_packet_t *packet, const meta_t *meta,
                                 const vip_t *vip);

/* TCP of a connection that has been forgotten, say for its silence. Where several nodes have the VIP, another may know it. */
lbrl_verdict_t refuse_no_flow(lbrl_worker_t *worker, lbrl_packet_t *packet, const meta_t *meta,
                              bool drops, uint8_t reason);

#endif
