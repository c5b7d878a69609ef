#include <stdlib.h>

#include "control.h"

enum { ALIGNMENT = 64 };

typedef struct retired {
    struct retired *next;
    void *memory;
    uint64_t epoch;
} retired_t;

void *memory_take(size_t size)
{
    uint8_t *raw = calloc(1, size + ALIGNMENT + sizeof(void *));
    if (!raw) {
        return NULL;
    }
    uintptr_t at = ((uintptr_t)raw + sizeof(void *) + ALIGNMENT - 1) & ~(uintptr_t)(ALIGNMENT - 1);
    uint8_t *memory = raw + (at - (uintptr_t)raw);
    memcpy(memory - sizeof(raw), &raw, sizeof(raw));
    return memory;
}

void memory_free(void *memory)
{
    if (memory) {
        void *raw;
        memcpy(&raw, (uint8_t *)memory - sizeof(raw), sizeof(raw));
        free(raw);
    }
}

uint64_t epoch_next(lbrl_t *lb)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return __atomic_add_fetch(&lb->epoch, 1, __ATOMIC_SEQ_CST);
}

bool epoch_passed(const lbrl_t *lb, uint64_t epoch)
{
    for (uint32_t i = 0; i < lb->worker_count; i++) {
        uint64_t entered = __atomic_load_n(&lb->workers[i].epoch, __ATOMIC_SEQ_CST);
        if (entered && entered < epoch) {
            return false;
        }
    }
    return true;
}

void retire(lbrl_t *lb, const void *memory)
{
    if (!memory) {
        return;
    }
    retired_t *entry = memory_take(sizeof(*entry));
    if (entry) {
        *entry = (retired_t){lb->retired, (void *)(uintptr_t)memory, epoch_next(lb)};
        lb->retired = entry;
    }
}

void retire_collect(lbrl_t *lb, bool all)
{
    retired_t **at = &lb->retired;
    while (*at) {
        retired_t *entry = *at;
        if (all || epoch_passed(lb, entry->epoch)) {
            *at = entry->next;
            memory_free(entry->memory);
            memory_free(entry);
        } else {
            at = &entry->next;
        }
    }
}
