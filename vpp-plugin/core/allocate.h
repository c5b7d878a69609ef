/* What a new flow needs: an entry and a NAT port. Where none is free, flows are evicted. */
#ifndef LBRL_ALLOCATE_H
#define LBRL_ALLOCATE_H

#include "flow.h"

/* An entry for a new half-open flow, or FLOW_NONE. Half-open flows are evicted when they are many; when the partition is full,
 * closed ones, open ones that have been silent for long or are of a VIP above its share, and half-open ones. */
uint32_t allocate_entry(lbrl_worker_t *worker, partition_t *partition, const vip_t *vip);

/* A port of any source of the family, beginning with one that depends on the flow: its number within the partition, or
 * PORT_NONE. */
uint16_t allocate_port(lbrl_worker_t *worker, partition_t *partition, const slot_t *slot,
                       const flow_birth_t *birth, uint8_t *source);

/* One-way: no entry is free, or half-open flows are too many. */
bool allocate_pressure(const partition_t *partition);

#endif
