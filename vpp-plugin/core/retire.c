#define _DEFAULT_SOURCE /* madvise */
#include <stdlib.h>

#include "control.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

enum {
    ALIGNMENT = 64,
    HUGE_PAGE = 2 << 20,
    HUGE_FROM = 1 << 20, /* smaller blocks are not worth it */
};

/* Lies before each block, so that a block can be retired where memory has ended. */
typedef struct retired {
    struct retired *next; /* of those that wait */
    uint64_t epoch;
    void *raw; /* as the allocator gave it */
} retired_t;

static retired_t *head_of(void *memory)
{
    return (retired_t *)(void *)((uint8_t *)memory - sizeof(retired_t));
}

/* Asks for huge pages: indexes are read at random, and with small pages each packet waits for address translation. */
static void ask_for_huge_pages(void *memory, size_t size)
{
#ifdef MADV_HUGEPAGE
    (void)madvise(memory, size, MADV_HUGEPAGE); /* without them it only takes longer */
#else
    (void)memory;
    (void)size;
#endif
}

static void *take(size_t size, bool huge)
{
    const size_t alignment = huge ? HUGE_PAGE : ALIGNMENT;
    const size_t whole = huge ? (size + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE : size;
    uint8_t *raw = calloc(1, whole + alignment + sizeof(retired_t));
    if (!raw) {
        return NULL;
    }
    uintptr_t at =
        ((uintptr_t)raw + sizeof(retired_t) + alignment - 1) & ~(uintptr_t)(alignment - 1);
    void *memory = raw + (at - (uintptr_t)raw);
    head_of(memory)->raw = raw;
    if (huge) {
        ask_for_huge_pages(memory, whole);
    }
    return memory;
}

void *memory_take(size_t size)
{
    return take(size, size >= HUGE_FROM);
}

void *memory_take_sparse(size_t size)
{
    return take(size, false);
}

void memory_free(void *memory)
{
    if (memory) {
        free(head_of(memory)->raw);
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
    if (memory) {
        retired_t *head = head_of((void *)(uintptr_t)memory);
        head->next = lb->retired;
        head->epoch = epoch_next(lb);
        lb->retired = head;
    }
}

void retire_collect(lbrl_t *lb, bool all)
{
    retired_t **at = &lb->retired;
    while (*at) {
        retired_t *head = *at;
        if (all || epoch_passed(lb, head->epoch)) {
            *at = head->next;
            free(head->raw);
        } else {
            at = &head->next;
        }
    }
}
