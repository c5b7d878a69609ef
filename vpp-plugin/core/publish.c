/* Workers are told what has become of a VIP. What there is no memory for stays due, and is tried again with every tick. */
#include "control.h"

/* The VIP itself, within the table. */
static int publish_in_table(lbrl_t *lb, uint32_t index)
{
    vip_t *vip = vip_make(lb, index);
    const vip_t *old = lb->vips[index];
    if (!vip) {
        return LBRL_ERR_MEMORY;
    }
    lb->vips[index] = vip;
    int error = table_publish(lb, true);
    if (error) {
        lb->vips[index] = old;
        memory_free(vip);
        return error;
    }
    retire(lb, old);
    lb->stores[index]->address_epoch = epoch_next(lb);
    return LBRL_OK;
}

int vip_publish(lbrl_t *lb, uint32_t index, unsigned parts)
{
    static int (*const steps[])(lbrl_t *, uint32_t) = {sinks_publish, schedule_publish,
                                                       publish_in_table};
    vip_store_t *store = lb->stores[index];
    store->due |= (uint8_t)parts;
    for (unsigned i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        if (store->due >> i & 1) {
            int error = steps[i](lb, index);
            if (error) {
                return error;
            }
            store->due &= (uint8_t)~(1u << i);
        }
    }
    return LBRL_OK;
}
