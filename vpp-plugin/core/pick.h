/* Which backend takes a new flow: the schedulers of lbrl/scheduler.h over this worker's view of the counts. */
#ifndef LBRL_PICK_H
#define LBRL_PICK_H

#include "internal.h"

/* A slot that takes the flow of `meta`, or LBRL_NO_SLOT. */
uint32_t pick_slot(lbrl_worker_t *worker, const vip_t *vip, vip_worker_t *counts,
                   const meta_t *meta);

/* One-way VIPs: the slot that configured weights give a packet without a flow, on every node the same; or LBRL_NO_SLOT. */
uint32_t pick_fallback(const vip_t *vip, const meta_t *meta);

/* A flow becomes busy (see LBRL_LOAD_ACTIVE), or ends being it. `era`: of the sink. */
void pick_busy(const lbrl_worker_t *worker, const vip_t *vip, uint32_t slot, uint8_t era,
               int32_t change);

/* Adds this worker's changes to the shared totals and takes a fresh view of them. */
void pick_refresh(const vip_t *vip, vip_worker_t *counts);

#endif
