#include "flowtable.h"

uint32_t index_buckets(uint32_t flows)
{
    /* 10 of 15 places in use: with a random fill 1 bucket in 15 overflows, by one or two entries */
    return flows / 10 + 2;
}

void index_add(const flow_index_t *index, uint64_t hash, uint32_t entry)
{
    bucket_t *bucket = index_home(index, hash);
    uint32_t empty;
    while (!(empty = bucket_matches(bucket, 0))) {
        bucket->tag[BUCKET_OVERFLOW]++;
        bucket = index_after(index, bucket);
    }
    uint32_t place = (uint32_t)__builtin_ctz(empty);
    bucket->entry[place] = (uint16_t)entry;
    bucket->tag[place] = index_tag(hash);
}

/* The entry's place in a bucket, or BUCKET_PLACES. */
static uint32_t place_of(const bucket_t *bucket, uint16_t tag, uint32_t entry)
{
    for (uint32_t matches = bucket_matches(bucket, tag); matches; matches &= matches - 1) {
        uint32_t place = (uint32_t)__builtin_ctz(matches);
        if (bucket->entry[place] == entry) {
            return place;
        }
    }
    return BUCKET_PLACES;
}

void index_remove(const flow_index_t *index, uint64_t hash, uint32_t entry)
{
    bucket_t *bucket = index_home(index, hash);
    uint16_t tag = index_tag(hash);
    uint32_t place;
    while ((place = place_of(bucket, tag, entry)) == BUCKET_PLACES) {
        bucket->tag[BUCKET_OVERFLOW]--;
        bucket = index_after(index, bucket);
    }
    bucket->tag[place] = 0;
}

/* One writer; atomic only for those who read how many there are. */
static void change_count(uint32_t *count, int change)
{
    __atomic_store_n(count, *count + (uint32_t)change, __ATOMIC_RELAXED);
}

void list_append(partition_t *partition, flow_list_t *list, uint32_t entry)
{
    partition->keeps[entry].link = (flow_link_t){list->tail, FLOW_NONE};
    if (list->tail == FLOW_NONE) {
        list->head = entry;
    } else {
        partition->keeps[list->tail].link.next = entry;
    }
    list->tail = entry;
    change_count(&list->count, 1);
}

void list_unlink(partition_t *partition, flow_list_t *list, uint32_t entry)
{
    flow_link_t link = partition->keeps[entry].link;
    if (link.previous == FLOW_NONE) {
        list->head = link.next;
    } else {
        partition->keeps[link.previous].link.next = link.next;
    }
    if (link.next == FLOW_NONE) {
        list->tail = link.previous;
    } else {
        partition->keeps[link.next].link.previous = link.previous;
    }
    change_count(&list->count, -1);
}

uint32_t entry_take(partition_t *partition)
{
    uint32_t entry = partition->free_head;
    if (entry != FLOW_NONE) {
        partition->free_head = partition->keeps[entry].link.next;
    } else if (partition->fresh < partition->flow_count) {
        entry = partition->fresh++;
    } else {
        return FLOW_NONE;
    }
    change_count(&partition->used, 1);
    return entry;
}

void entry_release(partition_t *partition, uint32_t entry)
{
    partition->keeps[entry].link.next = partition->free_head;
    partition->free_head = entry;
    change_count(&partition->used, -1);
}
