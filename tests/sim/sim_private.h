/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim_private.h - what the watch over the nodes shares: it looks into the engine.
 */
#ifndef LOCKSTEP_SIM_PRIVATE_H
#define LOCKSTEP_SIM_PRIVATE_H

#include "engine_private.h"
#include "sim.h"

/* ---- sim_history.c: places in the tree of all segments are numbers; 0 is the root ---- */
void hist_init(struct world *w);
void hist_fini(struct world *w);
size_t hist_memory(const struct world *w);
int hist_find(struct world *w, const uint8_t hash[WAL_HASH_BYTES]); /* -1: nobody wrote it */
int hist_add(struct world *w, const struct seg *s);
uint64_t hist_lsn(const struct world *w, int at);
int hist_at(const struct world *w, int tip, uint64_t lsn); /* -1: tip does not reach it */
bool hist_holds(const struct world *w, int tip, int at);
bool hist_root(struct world *w, int at, const uint8_t root[MERKLE_HASH_BYTES]); /* false: another */

struct fold; /* the state that a history gives */
struct fold *fold_new(void);
void fold_free(struct fold *f);
void fold_to(struct world *w, struct fold *f, int at);
void fold_compare_begin(struct fold *f);
void fold_compare(struct world *w, struct fold *f, int node, const char *key, const uint8_t *value,
                  size_t len, uint64_t lsn);
void fold_compare_end(struct world *w, struct fold *f, int node);

/* ---- sim_storm.c and sim_faults.c ---- */
static inline bool chance(struct world *w, unsigned percent)
{
    return sim_rand(w, 100) < percent;
}

static inline int any_node(struct world *w)
{
    return (int)sim_rand(w, w->n_nodes);
}

static inline int64_t some_ms(struct world *w, int64_t most)
{
    return (int64_t)sim_rand(w, (uint64_t)most) * MS;
}

void storm_fault(struct world *w); /* one of any kind, or none */
/* Some operation of the disk within so many of its kind will fail. */
void storm_disk_fails(struct world *w, int i, uint64_t within);
void fault_met(void *arg, enum disk_fault f, int sys); /* arg: the node */
void fault_look(struct world *w, int i);               /* after a step that it came out of */

#endif
