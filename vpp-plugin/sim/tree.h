/* Tournament tree over the next event of each server: the earliest is at the root, a change costs one
 * comparison per level. Of equal times the lower number wins. */
#ifndef SIM_TREE_H
#define SIM_TREE_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

typedef struct sim_tree {
    double *times;    /* of `leaves`; infinite: no event */
    uint32_t *winner; /* [1]: root; [leaves + i] = i */
    uint32_t leaves;  /* power of two */
} sim_tree_t;

static inline void sim_tree_close(sim_tree_t *tree)
{
    free(tree->times);
    free(tree->winner);
    tree->times = NULL;
    tree->winner = NULL;
}

/* False: no memory. */
static inline bool sim_tree_open(sim_tree_t *tree, uint32_t count)
{
    tree->leaves = 2;
    while (tree->leaves < count) {
        tree->leaves *= 2;
    }
    tree->times = malloc(tree->leaves * sizeof(*tree->times));
    tree->winner = malloc(2 * (size_t)tree->leaves * sizeof(*tree->winner));
    if (tree->times == NULL || tree->winner == NULL) {
        sim_tree_close(tree);
        return false;
    }
    for (uint32_t i = 0; i < tree->leaves; i++) {
        tree->times[i] = INFINITY;
        tree->winner[tree->leaves + i] = i;
    }
    for (uint32_t node = tree->leaves - 1; node > 0; node--) {
        tree->winner[node] = tree->winner[2 * node];
    }
    return true;
}

static inline void sim_tree_set(sim_tree_t *tree, uint32_t leaf, double time)
{
    const double *times = tree->times;
    uint32_t *winner = tree->winner;
    tree->times[leaf] = time;
    for (uint32_t node = (tree->leaves + leaf) / 2; node > 0; node /= 2) {
        uint32_t left = winner[2 * node], right = winner[2 * node + 1];
        uint32_t later = 0u - (uint32_t)(times[right] < times[left]);
        winner[node] = left ^ ((left ^ right) & later);
    }
}

static inline uint32_t sim_tree_first(const sim_tree_t *tree)
{
    return tree->winner[1];
}

static inline double sim_tree_time(const sim_tree_t *tree)
{
    return tree->times[tree->winner[1]];
}

#endif
