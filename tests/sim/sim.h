/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim.h - a pair of clusters in one thread, on a simulated disk, network and clock, from a seed.
 *
 * Nothing here reads the time, a random source or the order of threads: a seed and a scenario
 * replay exactly. Every check that fails ends the process with the seed printed.
 */
#ifndef LOCKSTEP_SIM_H
#define LOCKSTEP_SIM_H

#include <stdbool.h>
#include <stdint.h>

#include "engine.h"

#define SIM_KEYS 48
#define SIM_OPS_MAX 60000
#define SIM_MSG_CONNS 4096
#define MS ((int64_t)1000000)
#define SEC ((int64_t)1000000000)

struct world;

struct sim_env {
    struct env env;
    struct world *w;
    int64_t wall_offset_ms;
};

struct node {
    struct world *w;
    int index;
    struct sim_env env;
    struct disk_image *image;
    struct disk_image *stale; /* canary: an older image that a crash falls back to */
    struct disk *disk;
    struct engine *e; /* NULL: down */
    uint8_t key_hash[32];
    int role;
    uint64_t promise_lsn; /* what was seen applied here: no crash may take it back */
    unsigned crashes, opens;
};

/* One write of the workload. Values name their write, so that a state tells which writes it holds.
 */
struct op {
    uint32_t id;
    uint32_t key;
    uint64_t lsn; /* 0: not answered */
    bool acked, lost, deletes;
    struct world *w;
};

struct sim_msg;
struct sim_conn {
    int from, to;
    bool open;
    int64_t last_due[2];
};

struct world {
    uint64_t seed, rng;
    bool canary, verbose;
    const char *scenario;
    int64_t now_ns;
    struct node n[2];
    int primary; /* which node the workload writes to */
    struct logger *log;
    /* network */
    struct sim_msg *msgs; /* by due time */
    struct sim_conn conns[SIM_MSG_CONNS];
    uint64_t n_conns;
    int64_t delay_ns, byte_ns_x1000;
    bool partitioned, refused;
    /* workload */
    struct op ops[SIM_OPS_MAX];
    uint32_t n_ops;
    uint32_t n_acked, n_refused;
    uint64_t retain_bytes; /* of nodes opened from here on */
    size_t value_min;
    uint64_t steps, events;
};

/* sim_world.c */
uint64_t sim_rand(struct world *w, uint64_t below);
void sim_bytes(struct world *w, void *out, size_t len);
_Noreturn void sim_fail(struct world *w, const char *fmt, ...) PRINTF_LIKE(2, 3);
#define sim_check(w, cond, ...)                                                                    \
    do {                                                                                           \
        if (!(cond))                                                                               \
            sim_fail((w), __VA_ARGS__);                                                            \
    } while (0)
void world_init(struct world *w, uint64_t seed, const char *scenario);
void world_fini(struct world *w);
void node_open(struct world *w, int i);
int node_try_open(struct world *w, int i, struct err *err);
void node_stop(struct world *w, int i);                              /* closes in order */
void node_crash(struct world *w, int i);                             /* power cut; stays down */
void node_restore(struct world *w, int i, struct disk_image *image); /* an old image comes back */
bool world_step(struct world *w); /* false: nothing will ever happen again */
void world_run(struct world *w, int64_t ns);
bool world_until(struct world *w, bool (*cond)(struct world *w), int64_t limit_ns);
void write_one(struct world *w);
void write_many(struct world *w, unsigned n);
bool writes_settled(struct world *w);
void check_acked(struct world *w, int i);  /* every acknowledged write is there */
void check_prefix(struct world *w, int i); /* the state is that of one LSN of the history */
void check_equal(struct world *w);         /* quiesce, then equal LSN and equal root */
void enable(struct world *w, int p, int s);
void promote(struct world *w, int i);
void promote_keeping(struct world *w, int i, uint64_t had); /* it must keep all up to had */
bool secondary_streams(struct world *w);

/* sim_net.c */
extern const struct link_ops sim_link;
bool net_deliver(struct world *w);
int64_t net_next_due(const struct world *w);
void net_cut(struct world *w);           /* all connections, both ends told */
void net_forget(struct world *w, int i); /* a node went down without a word */
void net_free(struct world *w);

/* sim_scenarios.c */
struct scenario {
    const char *name;
    void (*run)(struct world *w);
    const char *promise;
};
extern const struct scenario scenarios[];

#endif
