/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim.h - clusters in one thread, on a simulated disk, network and clock, from a seed.
 *
 * A scenario says how many nodes it has; node 0 is the first primary. What a new file of scenarios
 * needs: a table of struct scenario, its name in sim.c's list, and its names in meson.build.
 *
 * Nothing here reads the time, a random source or the order of threads: a seed and a scenario
 * replay exactly. Every check that fails ends the process with the seed printed.
 */
#ifndef LOCKSTEP_SIM_H
#define LOCKSTEP_SIM_H

#include <stdbool.h>
#include <stdint.h>

#include "engine.h"

#define SIM_NODES_MAX 17 /* a primary and as many secondaries as there may be */
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
    int follows; /* the node that it was enabled at; -1: none */
    bool
        apart; /* its history was given up: until it has caught up its state is of no LSN of ours */
    bool named; /* it has a member id of its own; else it founded the cluster */
    unsigned crashes, opens;
    bool cut; /* the power went in the middle of a call: nobody hears of this node any more */
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
    bool lost[2]; /* a frame of that direction (0: from the dialler) was lost: none follows */
    int64_t last_due[2];
};

/* One direction between two nodes. */
struct sim_line {
    bool down;             /* what is sent is lost and nobody hears of it */
    int64_t delay_ns;      /* beside the world's */
    int64_t byte_ns_x1000; /* beside the world's */
};

struct world {
    uint64_t seed, rng;
    bool canary, verbose;
    const char *scenario;
    int64_t now_ns;
    unsigned n_nodes;
    struct node n[SIM_NODES_MAX];
    int primary; /* which node the workload writes to */
    struct logger *log;
    /* network */
    struct sim_msg *msgs; /* by due time */
    struct sim_conn conns[SIM_MSG_CONNS];
    uint64_t n_conns;
    int64_t delay_ns, byte_ns_x1000;                    /* of every line */
    struct sim_line line[SIM_NODES_MAX][SIM_NODES_MAX]; /* [from][to] */
    uint64_t diff_bytes;                                /* of messages that compare and copy */
    bool faults_in_data;       /* rows are changed behind the engine's back */
    bool partitioned, refused; /* everyone from everyone */
    /* workload */
    struct op ops[SIM_OPS_MAX];
    uint32_t n_ops;
    uint32_t n_acked, n_refused;
    uint64_t retain_bytes; /* of nodes opened from here on */
    void (*tune)(struct world *w, int i, struct engine_config *cfg); /* so is what this changes */
    size_t value_min;
    struct engine_wait wait; /* of writes from here on */
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
void world_init(struct world *w, uint64_t seed, const char *scenario, unsigned nodes);
void world_fini(struct world *w);
void node_open(struct world *w, int i);
int node_try_open(struct world *w, int i, struct err *err);
void node_stop(struct world *w, int i);  /* closes in order */
void node_crash(struct world *w, int i); /* stays down */
/* The power goes at the ops-th change of the disk from now on (0: it does not): from then on the
 * node is `cut`, until node_crash gives it the disk of that moment. */
void node_cut_in(struct world *w, int i, uint64_t ops);
void node_restore(struct world *w, int i, struct disk_image *image); /* an old image comes back */
bool world_step(struct world *w); /* false: nothing will ever happen again */
void world_run(struct world *w, int64_t ns);
bool world_until(struct world *w, bool (*cond)(struct world *w), int64_t limit_ns);
void write_one(struct world *w);
void write_many(struct world *w, unsigned n);
bool writes_settled(struct world *w);
void check_acked(struct world *w, int i);  /* every acknowledged write is there */
void check_prefix(struct world *w, int i); /* the state is that of one LSN of the history */
void check_equal(struct world *w);         /* quiesce, then equal LSN and root at all that follow */
void enable(struct world *w, int p, int s);                   /* s becomes a secondary of p */
void put_member(struct world *w, int p, int i, bool revoked); /* at primary p: the row of node i */
void promote(struct world *w, int i); /* it must keep all that it had durable */
void promote_keeping(struct world *w, int i, uint64_t had); /* it must keep all up to had */
bool node_follows(const struct world *w, int i, int p);     /* directly or through others */
bool node_streams(struct world *w, int i);
bool secondary_streams(struct world *w); /* all that follow the primary */

/* sim_net.c */
extern const struct link_ops sim_link;
bool net_deliver(struct world *w);
int64_t net_next_due(const struct world *w);
void net_cut(struct world *w);                              /* all connections, both ends told */
void net_cut_pair(struct world *w, int a, int b);           /* those between two nodes */
void net_half_open(struct world *w, int a, int b);          /* only a hears that they are cut */
void net_partition(struct world *w, int a, int b, bool on); /* both directions of the line */
void net_heal(struct world *w);                             /* every line is up, and quick */
void net_forget(struct world *w, int i);                    /* a node went down without a word */
void net_free(struct world *w);

/* A table for each file of scenarios, ended by an entry without a name. */
struct scenario {
    const char *name;
    void (*run)(struct world *w);
    const char *promise;
    unsigned nodes; /* 0: two */
};
extern const struct scenario scenarios_basic[];  /* sim_scenarios.c */
extern const struct scenario scenarios_diff[];   /* sim_diff.c */
extern const struct scenario scenarios_verify[]; /* sim_verify.c */
extern const struct scenario scenarios_many[];   /* sim_many.c */
extern const struct scenario scenarios_modes[];  /* sim_modes.c */
extern const struct scenario scenarios_know[];   /* sim_know.c */
extern const struct scenario scenarios_cut[];    /* sim_cut.c */
extern const struct scenario scenarios_roles[];  /* sim_roles.c */
extern const struct scenario scenarios_act[];    /* sim_act.c */
void leave_behind(struct world *w); /* node 0 keeps nothing that node 1, which is down, needs */
void pair(struct world *w);         /* node 1 follows node 0, which holds a hundred writes */

#endif
