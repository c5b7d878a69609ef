/*
 * The statistics segment: /lb-rl/backends/{traffic,flows,open}, indexed by row, and for people
 * /lb-rl/vips/<VIP's id>/<address:port of the backend>/{traffic,flows,open}. Written by the main thread from the core's
 * sums, so that the packet path keeps only one set of counters.
 */
#include "lb_rl.h"

#include <vlib/stats/stats.h>
#include <vppinfra/mhash.h>

static vlib_combined_counter_main_t traffic = {.name = "traffic",
                                               .stat_segment_name = "/lb-rl/backends/traffic"};
static vlib_simple_counter_main_t flows = {.name = "flows",
                                           .stat_segment_name = "/lb-rl/backends/flows"};
static vlib_simple_counter_main_t open_flows = {.name = "open",
                                                .stat_segment_name = "/lb-rl/backends/open"};

static mhash_t row_by_key;  /* index in the pool */
static bool names_are_free; /* since the pass before: rows have gone */

static lb_rl_row_key_t key_of(u64 vip, const lbrl_backend_status_t *backend)
{
    return (lb_rl_row_key_t){.vip = vip,
                             .backend = backend->id,
                             .slot = backend->slot,
                             .generation = backend->generation};
}

static lb_rl_row_t *find(const lb_rl_row_key_t *key)
{
    const uword *index = row_by_key.hash != NULL ? mhash_get(&row_by_key, key) : NULL;
    return index != NULL ? pool_elt_at_index(lb_rl_main.rows, *index) : NULL;
}

/* Names a row, as far as the row of an earlier backend of this address has not the name yet. */
static void name_row(lb_rl_row_t *row, const lbrl_backend_status_t *backend)
{
    const u32 entries[] = {traffic.stats_entry_index, flows.stats_entry_index,
                           open_flows.stats_entry_index};
    const char *const kinds[] = {"traffic", "flows", "open"};
    u32 index = (u32)(row - lb_rl_main.rows);
    vlib_stats_segment_lock(); /* its end tells readers to look for new names */
    for (u32 i = 0; i < ARRAY_LEN(entries); i++) {
        if (row->links[i] == ~0u) {
            row->links[i] = vlib_stats_add_symlink(entries[i], index, "/lb-rl/vips/%016llx/%U/%s",
                                                   row->key.vip, format_lb_rl_endpoint,
                                                   backend->address.bytes, backend->port, kinds[i]);
        }
    }
    vlib_stats_segment_unlock();
}

static lb_rl_row_t *add(lb_rl_row_key_t *key, const lbrl_backend_status_t *backend)
{
    lb_rl_row_t *row;
    pool_get_zero(lb_rl_main.rows, row);
    u32 index = (u32)(row - lb_rl_main.rows);
    *row = (lb_rl_row_t){.key = *key, .links = {~0u, ~0u, ~0u}};
    if (row_by_key.hash == NULL) {
        mhash_init(&row_by_key, sizeof(uword), sizeof(*key));
    }
    (void)mhash_set(&row_by_key, key, index, NULL);
    vlib_validate_combined_counter(&traffic, index);
    vlib_validate_simple_counter(&flows, index);
    vlib_validate_simple_counter(&open_flows, index);
    name_row(row, backend);
    return row;
}

static void write_row(const lb_rl_row_t *row, const lbrl_backend_status_t *backend)
{
    u32 index = (u32)(row - lb_rl_main.rows);
    traffic.counters[0][index].packets = backend->packets;
    traffic.counters[0][index].bytes = backend->bytes;
    vlib_set_simple_counter(&flows, 0, index, backend->flows);
    vlib_set_simple_counter(&open_flows, 0, index, (u64)clib_max(0, backend->open_flows));
}

static void drop(lb_rl_row_t *row)
{
    lbrl_backend_status_t nothing = {0};
    for (u32 i = 0; i < ARRAY_LEN(row->links); i++) {
        if (row->links[i] != ~0u) {
            vlib_stats_remove_entry(row->links[i]);
        }
    }
    write_row(row, &nothing);
    (void)mhash_unset(&row_by_key, &row->key, NULL);
    pool_put(lb_rl_main.rows, row);
}

/* Removes the rows that the pass has not seen, or all. */
static void sweep(bool all)
{
    u32 *gone = NULL;
    lb_rl_row_t *row;
    pool_foreach(row, lb_rl_main.rows)
    {
        if (all || !row->seen) {
            vec_add1(gone, (u32)(row - lb_rl_main.rows));
        }
        row->seen = false;
    }
    names_are_free = vec_len(gone) > 0;
    const u32 *index;
    vec_foreach(index, gone)
    {
        drop(pool_elt_at_index(lb_rl_main.rows, *index));
    }
    vec_free(gone);
}

void lb_rl_rows_update(void)
{
    lb_rl_main_t *lm = &lb_rl_main;
    lbrl_backend_status_t *backends = NULL;
    lbrl_vip_status_t status;
    u64 *ids = lb_rl_vip_ids();
    const u64 *id;
    vec_validate(backends, 2 * LBRL_BACKENDS_MAX - 1);
    vec_foreach(id, ids)
    {
        if (lbrl_vip_status(lm->core, *id, &status, backends, vec_len(backends)) != LBRL_OK) {
            continue;
        }
        for (u32 i = 0; i < status.backend_count; i++) {
            lb_rl_row_key_t key = key_of(*id, &backends[i]);
            lb_rl_row_t *row = find(&key);
            if (row == NULL) {
                row = add(&key, &backends[i]);
            } else if (names_are_free && row->links[0] == ~0u) {
                name_row(row, &backends[i]);
            }
            row->seen = true;
            write_row(row, &backends[i]);
        }
    }
    sweep(false);
    vec_free(backends);
    vec_free(ids);
}

void lb_rl_rows_remove(void)
{
    sweep(true);
}
