/* Loaded before a program's libraries: where it pins threads to processors, also to such that do not exist, they stay
 * free to run on any that it was started with. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>

int pthread_setaffinity_np(pthread_t thread, size_t size, const cpu_set_t *wanted)
{
    (void)thread;
    (void)size;
    (void)wanted;
    return 0;
}
