/* 4-ary heap of (key, order, reference): entries of equal key leave in the order in which they came.
 * Four children of an entry lie in one or two cache lines, and the tree is half as deep as a binary
 * one. */
#ifndef SIM_HEAP_H
#define SIM_HEAP_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

typedef struct sim_entry {
    double key;
    uint32_t
        order; /* wraps; 2^32 entries later a tie may be broken otherwise, but always the same */
    uint32_t reference;
} sim_entry_t;

typedef struct sim_heap {
    sim_entry_t *entries;
    uint32_t count, capacity;
    uint32_t order; /* of the next entry */
} sim_heap_t;

static inline bool sim_entry_before(const sim_entry_t *a, const sim_entry_t *b)
{
    return a->key < b->key || (a->key == b->key && (int32_t)(a->order - b->order) < 0);
}

static inline bool sim_heap_grow(sim_heap_t *heap)
{
    uint32_t capacity = heap->capacity ? heap->capacity * 2 : 16;
    sim_entry_t *entries = realloc(heap->entries, capacity * sizeof(*entries));
    if (entries == NULL) {
        return false;
    }
    heap->entries = entries;
    heap->capacity = capacity;
    return true;
}

/* False: no memory, and nothing has changed. */
static inline bool sim_heap_push(sim_heap_t *heap, double key, uint32_t reference)
{
    if (heap->count == heap->capacity && !sim_heap_grow(heap)) {
        return false;
    }
    sim_entry_t entry = {key, heap->order++, reference};
    sim_entry_t *entries = heap->entries;
    uint32_t at = heap->count++;
    while (at > 0) {
        uint32_t parent = (at - 1) / 4;
        if (!sim_entry_before(&entry, &entries[parent])) {
            break;
        }
        entries[at] = entries[parent];
        at = parent;
    }
    entries[at] = entry;
    return true;
}

static inline uint32_t sim_heap_first_child(const sim_heap_t *heap, uint32_t at)
{
    uint32_t first = 4 * at + 1, best = first;
    uint32_t end = first + 4 < heap->count ? first + 4 : heap->count;
    for (uint32_t child = first + 1; child < end; child++) {
        if (sim_entry_before(&heap->entries[child], &heap->entries[best])) {
            best = child;
        }
    }
    return best;
}

/* The heap is not empty. */
static inline sim_entry_t sim_heap_pop(sim_heap_t *heap)
{
    sim_entry_t *entries = heap->entries;
    sim_entry_t top = entries[0], last = entries[--heap->count];
    uint32_t at = 0;
    while (4 * at + 1 < heap->count) {
        uint32_t child = sim_heap_first_child(heap, at);
        if (!sim_entry_before(&entries[child], &last)) {
            break;
        }
        entries[at] = entries[child];
        at = child;
    }
    entries[at] = last;
    return top;
}

static inline void sim_heap_clear(sim_heap_t *heap)
{
    heap->count = 0;
}

static inline void sim_heap_free(sim_heap_t *heap)
{
    free(heap->entries);
    heap->entries = NULL;
    heap->count = heap->capacity = 0;
}

#endif
