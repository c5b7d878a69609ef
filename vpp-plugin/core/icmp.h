/* ICMP errors follow their flow: outer addresses, quoted addresses and ports are translated alike. */
#ifndef LBRL_ICMP_H
#define LBRL_ICMP_H

#include "rewrite.h"

void icmp_translate(lbrl_worker_t *worker, lbrl_packet_t *packet, const meta_t *meta,
                    const flow_ref_t *ref);

#endif
