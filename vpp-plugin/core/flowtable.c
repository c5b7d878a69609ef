#include "flowtable.h"

uint32_t index_buckets(uint32_t flows)
{
    /* two places per flow, at most half of them in use; random fill then overflows in 1 bucket of 50 */
    return flows * 4 / BUCKET_PLACES + 2;
}

void index_add(partition_t *partition, uint64_t hash, uint32_t entry)
{
    uint32_t at = index_home(partition, hash);
    for (;;) {
        bucket_t *bucket = &partition->buckets[at];
        uint32_t empty = bucket_matches(bucket, 0);
        if (empty) {
            uint32_t place = (uint32_t)__builtin_ctz(empty);
            bucket->entry[place] = entry;
            bucket->tag[place] = index_tag(hash);
            return;
        }
        bucket->tag[BUCKET_OVERFLOW]++;
        at = at + 1 == partition->bucket_count ? 0 : at + 1;
    }
}

void index_remove(partition_t *partition, uint64_t hash, uint32_t entry)
{
    uint32_t at = index_home(partition, hash);
    uint16_t tag = index_tag(hash);
    for (;;) {
        bucket_t *bucket = &partition->buckets[at];
        uint32_t matches = bucket_matches(bucket, tag);
        for (; matches; matches &= matches - 1) {
            uint32_t place = (uint32_t)__builtin_ctz(matches);
            if (bucket->entry[place] == entry) {
                bucket->tag[place] = 0;
                return;
            }
        }
        bucket->tag[BUCKET_OVERFLOW]--;
        at = at + 1 == partition->bucket_count ? 0 : at + 1;
    }
}

void list_append(partition_t *partition, flow_list_t *list, uint32_t entry)
{
    partition->links[entry] = (flow_link_t){list->tail, FLOW_NONE};
    if (list->tail == FLOW_NONE) {
        list->head = entry;
    } else {
        partition->links[list->tail].next = entry;
    }
    list->tail = entry;
    list->count++;
}

void list_unlink(partition_t *partition, flow_list_t *list, uint32_t entry)
{
    flow_link_t link = partition->links[entry];
    if (link.previous == FLOW_NONE) {
        list->head = link.next;
    } else {
        partition->links[link.previous].next = link.next;
    }
    if (link.next == FLOW_NONE) {
        list->tail = link.previous;
    } else {
        partition->links[link.next].previous = link.previous;
    }
    list->count--;
}

uint32_t entry_take(partition_t *partition)
{
    uint32_t entry = partition->free_head;
    if (entry != FLOW_NONE) {
        partition->free_head = partition->links[entry].next;
    } else if (partition->fresh < partition->flow_count) {
        entry = partition->fresh++;
    } else {
        return FLOW_NONE;
    }
    partition->used++;
    return entry;
}

void entry_release(partition_t *partition, uint32_t entry)
{
    partition->links[entry].next = partition->free_head;
    partition->free_head = entry;
    partition->used--;
}
