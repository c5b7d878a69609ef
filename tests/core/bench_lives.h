/* Parts of bench_core: what new flows cost in time and in memory. */
#ifndef BENCH_LIVES_H
#define BENCH_LIVES_H

void bench_lives(void);
void bench_arena(void);

#endif
