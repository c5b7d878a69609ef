#define _GNU_SOURCE
#include "image.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#include <sanitizer/asan_interface.h>
#endif
#endif
#ifndef ASAN_POISON_MEMORY_REGION
#define ASAN_POISON_MEMORY_REGION(at, size)   ((void)(at), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(at, size) ((void)(at), (void)(size))
#endif

enum {
    REGION = 128 << 20,
    GAP = 64,         /* between blocks; also their alignment */
    FREED_MAX = 4096, /* blocks of the image that one input may free */
};

static uint8_t *region;
static int file;          /* what the region shows */
static size_t used, kept; /* bytes of the region */

/* Blocks of the image that were freed since: their poison must go when they come back. */
static struct {
    void *at;
    size_t size;
} freed[FREED_MAX];
static size_t freed_count;

void *__real_calloc(size_t count, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
void __real_free(void *memory);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
void __wrap_free(void *memory);

/* A block's size stands in the gap before it. */
static size_t *size_of(void *memory)
{
    return (size_t *)(void *)((uint8_t *)memory - sizeof(size_t));
}

static void *take(size_t size)
{
    uint8_t *memory = region + used + GAP;
    size_t next = used + GAP + (size + GAP - 1) / GAP * GAP;
    CHECK(next <= REGION);
    used = next;
    ASAN_UNPOISON_MEMORY_REGION(size_of(memory), sizeof(size_t));
    *size_of(memory) = size;
    ASAN_POISON_MEMORY_REGION(size_of(memory), sizeof(size_t));
    ASAN_UNPOISON_MEMORY_REGION(memory, size);
    return memory;
}

void *__wrap_calloc(size_t count, size_t size)
{
    if (!region || (size && count > REGION / size)) {
        return __real_calloc(count, size);
    }
    return take(count * size); /* what is beyond `used` was never written to, or forgotten */
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    return region && alignment <= GAP ? take(size) : __real_aligned_alloc(alignment, size);
}

void __wrap_free(void *memory)
{
    uint8_t *at = memory;
    if (!region || at < region || at >= region + REGION) {
        __real_free(memory);
        return;
    }
    ASAN_UNPOISON_MEMORY_REGION(size_of(memory), sizeof(size_t));
    size_t size = *size_of(memory);
    ASAN_POISON_MEMORY_REGION(size_of(memory), sizeof(size_t));
    if (kept && at < region + kept) {
        CHECK(freed_count < FREED_MAX);
        freed[freed_count].at = memory;
        freed[freed_count++].size = size;
    }
    ASAN_POISON_MEMORY_REGION(memory, size);
}

void image_begin(void)
{
    file = memfd_create("image", MFD_CLOEXEC);
    CHECK(file >= 0 && ftruncate(file, REGION) == 0);
    region = mmap(NULL, REGION, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    CHECK(region != MAP_FAILED);
    ASAN_POISON_MEMORY_REGION(region, REGION);
}

/* The region becomes a private view of the file that it was: what is written to it from now on goes into pages of our
 * own, which image_restore() throws away. */
void image_keep(void)
{
    void *view = mmap(region, REGION, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, file, 0);
    CHECK(view == region && close(file) == 0);
    kept = used;
}

void image_restore(void)
{
    CHECK(madvise(region, used, MADV_DONTNEED) == 0);
    for (size_t i = 0; i < freed_count; i++) {
        ASAN_UNPOISON_MEMORY_REGION(freed[i].at, freed[i].size);
    }
    freed_count = 0;
    ASAN_POISON_MEMORY_REGION(region + kept, used - kept);
    used = kept;
}
