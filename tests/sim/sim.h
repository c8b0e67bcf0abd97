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

#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine.h"

#define SIM_NODES_MAX 17 /* a primary and as many secondaries as there may be */
#define SIM_KEYS 400
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

/* What is known of a node, sim_watch.c. Places in the history of all logs. */
struct fold;
struct engine_snapshot;
struct engine_seed;
struct told_root { /* what another one said of its data */
    int from;
    uint64_t lsn;
    uint8_t root[20];
};
#define SIM_TOLD_ROOTS 256u
struct watched {
    unsigned opens;      /* of the node, at the last look; 0: look anew */
    uint32_t generation; /* of its data, at the last look */
    int durable;         /* its log was durable up to here: no power cut takes it back */
    int committed;       /* and known as committed up to here */
    int held;            /* acknowledged by its primary because it is durable here */
    uint32_t held_epoch; /* of who acknowledged it */
    int applied, before; /* before: a promotion */
    uint64_t end_lsn, durable_lsn, committed_lsn;
    bool half_cut; /* it ended itself when it cut its log: of its durable tail some may be gone */
    bool restored; /* its disk was replaced or damaged: nothing is promised of what was on it */
    bool older;    /* it is one of before: nothing is promised of what came after, until it has */
    int regain;    /* this, which was durable */
    struct told_root told[SIM_TOLD_ROOTS]; /* the newest of them */
    size_t n_told;
    uint64_t claimed[SIM_NODES_MAX]; /* it last said that it is equal to that one at this LSN */
    uint32_t told_epoch; /* as a primary it got a frame that tells of this newer epoch; 0: none */
    char told_by[64];    /* a member */
    uint32_t met_epoch;  /* and a step later: it has heard of it */
    uint64_t met_lsn;    /* what it had committed then */
    int64_t settled_ns;  /* it was where its primary had been, or had nobody to follow */
    uint64_t target_lsn;
    unsigned bound_opens; /* bounds of the log: what was applied before lsn_ns, and at it */
    uint32_t bound_generation;
    int64_t lsn_ns;
    uint64_t lsn_before, lsn_then;
    uint64_t states; /* compared with its log, row by row */
    struct fold *fold;
};

/* What is done to the nodes, counted. */
enum sim_fault {
    F_CUT,
    F_HALF_OPEN,
    F_PARTITION,
    F_DELAY,
    F_SLOW,
    F_CRASH,
    F_CRASH_IO,
    F_CRASH_OPEN,
    F_STOP,
    F_WRITE_ERROR,
    F_NO_SPACE,
    F_FLUSH_ERROR,
    F_READ_ERROR,
    F_NO_CREATE,
    F_SLOW_DISK,
    F_RESERVE,
    F_FLIP_LOG,
    F_FLIP_STORE,
    F_FLIP_OTHER,
    F_CLOCK,
    F_STALL,
    F_STILL,
    F_CHECKPOINT,
    F_PROMOTE,
    F_REJOIN,
    F_COPY,
    F_MODE,
    F_DEMOTE,
    F_SWITCHOVER,
    F_UPDATE,
    F_CASCADE,
    F_SNAPSHOT,
    F_SEED,
    F_REVOKE,
    F_RESTATE,
    F_LEAVE,
    F_SECEDE,
    F_OLDER,
    F_OLDER_PRIMARY,
    F_SEALED,
    F_SEALS,
    F_UNSEAL,
    F_STEPS_DOWN,
    F_SEALED_END,
    F_REORDER,
    SIM_FAULTS
};

/* May it serve? sim_serve.c */
struct serve {
    bool may;
    bool before;   /* it did, or was fenced, before the first copy that it takes */
    unsigned open; /* it was asked to so often, and not refused */
    unsigned term; /* counts how often it ceased to */
    bool fenced;   /* at the last look */
    bool down;     /* since it served it was asked to be a secondary, or may be one by itself */
};

/* An image of a node's disk. */
struct older {
    struct disk_image *image; /* NULL: none */
    char path[24];            /* in it */
    bool primary, named;      /* it was, then */
    unsigned open;            /* serve's, then */
};

struct node {
    struct world *w;
    int index;
    struct sim_env env;
    struct disk_image *image;
    struct disk_image *stale; /* canary: an older image that a crash falls back to */
    struct disk *disk;
    struct engine *e; /* NULL: down */
    char path[24];
    bool cut;   /* the power went in the middle of a call: nobody hears of this node any more */
    bool falls; /* it goes down by itself at the end of that step */
    struct disk_image *left; /* of a crash under way: what the disk holds */
    bool fails;              /* its disk may refuse an operation */
    bool flush_failed;       /* since it was opened */
    unsigned flush_steps;    /* since then, */
    int64_t flush_ns;        /* which was at */
    enum sim_fault cut_as;   /* what a cut to come is counted as; SIM_FAULTS: as none */
    int64_t still_until_ns;  /* it gets no turn */
    int64_t slow_until_ns;   /* its disk is slow; 0: it is not */
    int64_t busy_until_ns;   /* and those of its threads that wait for it get none */
    bool damaged;            /* bits of it were changed */
    bool sealed; /* its engine has no key of the barrier: nobody is served, nobody operates it */
    bool closing;
    unsigned stalled; /* so many steps without its apply thread */
    bool checkpoint;  /* take one at the next step */
    struct watched watch;
    struct serve serve;
    struct older older;
    uint8_t key_hash[32];
    int role;
    int follows; /* the node that it was enabled at; -1: none */
    /* Its history was given up: until it has caught up its state is of no LSN of ours. */
    bool apart;
    bool named;   /* it has a member id of its own; else it founded the cluster */
    bool revoked; /* the operator asked for it, and has not admitted it again */
    unsigned crashes, opens, deaths;
    size_t did; /* in this step */
    bool in_log_step;
    struct engine_snapshot *snapshot; /* that is being made; NULL: none */
    struct buf snapshot_bytes;        /* of it so far */
};

/* One write of the workload. Values name their write, so that a state tells which writes it holds.
 */
struct op {
    uint32_t id;
    uint32_t key;
    uint64_t lsn; /* 0: not answered */
    bool acked, lost, deletes;
    int node;  /* that was asked */
    int place; /* in the history */
    int64_t issued_ns;
    struct world *w;
};

struct sim_msg;
struct sim_conn {
    int from, to;
    bool open;
    bool lost[2]; /* a frame of that direction (0: from the dialler) was lost: none follows */
    int64_t last_due[2];
    bool overtaken[2]; /* counted: a newer one between the same nodes was heard before it */
};

/* One direction between two nodes. */
struct sim_line {
    bool down;             /* what is sent is lost and nobody hears of it */
    int64_t delay_ns;      /* beside the world's */
    int64_t byte_ns_x1000; /* beside the world's */
};

/* Bugs that are planted so that a check must see them. */
struct plant {
    const char *name;
    const char *seen_by;  /* a part of what the check says */
    const char *scenario; /* in which it is planted */
};

struct events;
struct history;
struct asked;
struct serve_ask;
struct call { /* a question to an engine that may never be answered */
    struct call *next;
    struct node *node;
    bool done;
    uint64_t lsn;
    struct err err;
};

struct outcome { /* of a question that is answered while its asker waits, or goes down */
    bool done;
    struct err err;
};

struct world {
    uint64_t seed, rng;
    uint64_t look_rng; /* of the watch */
    bool canary, trace, full;
    const struct plant *plant; /* NULL: none */
    unsigned plant_struck;
    int victim; /* of a scenario */
    struct events *ev;
    struct history *hist;
    struct call *calls;
    struct asked *asked; /* modes, the newest first */
    struct serve_ask *serve_asks;
    uint64_t faults[SIM_FAULTS];
    jmp_buf fatal;
    int fatal_node; /* its engine is at work; -1: none */
    int64_t disturbed_ns;
    size_t segment_bytes_max;        /* the largest there was */
    int snapshot_fd;                 /* the newest whole one; 0: none */
    struct epoch_rec snapshot_epoch; /* the last one in it */
    uint32_t first_open;             /* write: the first that may be unanswered */
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
    uint64_t newest[SIM_NODES_MAX][SIM_NODES_MAX]; /* connection from which [to] heard [from] */
    int64_t delay_ns, byte_ns_x1000;               /* of every line */
    struct sim_line line[SIM_NODES_MAX][SIM_NODES_MAX]; /* [from][to] */
    uint64_t diff_bytes;                                /* of messages that compare and copy */
    unsigned seals;            /* of a hundred starts from here on so many leave a node sealed */
    uint32_t sealed_wait_ms;   /* of nodes opened from here on; 0: as ever */
    bool faults_in_data;       /* rows are changed behind the engine's back */
    bool partitioned, refused; /* everyone from everyone */
    /* workload */
    struct op ops[SIM_OPS_MAX];
    uint32_t n_ops;
    uint32_t n_acked, n_refused;
    uint32_t n_acked_in_log_step; /* of those acknowledged: applied by the log thread */
    uint32_t n_bulk;              /* transactions of many keys that were acknowledged */
    uint64_t n_promised;          /* acknowledged under a strict mode, once for each secondary */
    uint32_t keys;                /* so many of SIM_KEYS are used */
    uint64_t retain_bytes;        /* of nodes opened from here on */
    uint64_t retain_most;         /* the largest that a member has of its own; 0: none has */
    void (*tune)(struct world *w, int i, struct engine_config *cfg); /* so is what this changes */
    int64_t keep_old_ms; /* what is replaced when a cluster becomes a secondary is set aside */
    /* false: this message (enum link_msg_type) is swallowed, and what follows it is not. NULL: none
     * is. */
    bool (*passes)(struct world *w, int from, int to, unsigned type);
    size_t value_min;
    struct engine_wait wait; /* of writes from here on */
    uint64_t steps, events;
};

/* sim_events.c */
void events_init(struct world *w);
void events_fini(struct world *w);
void events_drain(struct world *w, int node); /* log lines, since the last call */
void events_show(struct world *w);
void note(struct world *w, int node, const char *fmt, ...) PRINTF_LIKE(3, 4); /* node -1: none */
void fault(struct world *w, enum sim_fault f, int node, const char *fmt, ...) PRINTF_LIKE(4, 5);
const char *sim_fault_name(enum sim_fault f);

/* sim_watch.c */
void watch_step(struct world *w, int i);
void watch_world(struct world *w);
void watch_opened(struct world *w, int i);
void watch_crashed(struct world *w, int i);   /* within a step, or between two */
void watch_forget(struct world *w, int i);    /* its disk is another one, or damaged */
void watch_older(struct world *w, int i);     /* or one of before */
void watch_given_up(struct world *w, int i);  /* it follows, and will have another's history */
void watch_promoting(struct world *w, int i); /* before and */
void watch_promoted(struct world *w, int i);  /* after */
void watch_acked(struct world *w, struct op *op);
void watch_bulk_acked(struct world *w, int i, uint64_t lsn);
bool watch_member(struct world *w, int p, int s); /* p, which is up, has s as a member */
void watch_frame(struct world *w, int from, int to, uint64_t conn, const void *frame, size_t len);
/* Before it follows another: what it was to keep for who is followed now it may give up, unless the
 * new one has it, too. */
void watch_repointed(struct world *w, int i, int p);
void watch_handed(struct world *w, int from, int to); /* a switchover was answered, and well */
bool watch_another(struct world *w, int i);           /* follows one that it may not follow */
void watch_state(struct world *w, int i);             /* row by row, now */
size_t watch_memory(const struct world *w);           /* its own */
bool watch_has(struct world *w, int i, const struct op *op);

/* sim_asked.c: engine_mode_set, and what it promises */
int mode_ask(struct world *w, int p, const char *id, const struct repl_mode *m, bool force,
             engine_done_fn *done, void *arg, struct err *err);
/* The strict mode of that name that holds for a write at p; NULL: none, or that is not known. */
const struct repl_mode *mode_promised(const struct world *w, int p, const char *id, uint64_t lsn);
/* Its mode ends at some time from now on, or has ended. */
void mode_unsure(struct world *w, int p, const char *id);
void modes_forget(struct world *w, int p); /* its disk is another one: what it knows is not known */
void modes_fini(struct world *w);

/* sim_serve.c: what makes a node a primary, or no primary, and that nothing else does */
int promote_ask(struct world *w, int i, bool force, engine_done_fn *done, void *arg,
                struct err *err);
int demote_ask(struct world *w, int i, engine_done_fn *done, void *arg, struct err *err);
int secede_ask(struct world *w, int i, engine_done_fn *done, void *arg, struct err *err);
int leave_ask(struct world *w, int i, engine_done_fn *done, void *arg, struct err *err);
int switchover_ask(struct world *w, int p, int s, uint32_t limit_ms, engine_done_fn *done,
                   void *arg, struct err *err); /* p hands over to s */
void serve_founded(struct world *w, int i);     /* it is a new machine */
void serve_restored(struct world *w, int i);    /* from an image of any role */
void serve_down(struct world *w, int i);        /* it may be a secondary from now on */
void serve_look(struct world *w, int i);
void serve_fini(struct world *w);

/* sim_plant.c */
extern const struct plant sim_plants[];
bool planted(const struct world *w, const char *name);
void plant_step(struct world *w, int i);
/* sim_plant_store.c: in the table or in the tree alone, behind the back of the other and the log */
struct store;
void plant_row(struct world *w, struct store *s, bool gone);
void plant_leaf(struct store *s);
void plant_unfolded(struct store *s); /* tables that are never folded */
void plant_disk(const struct world *w, struct disk *d);
void plant_promotion(struct world *w, int i);
bool plant_holds_apply(const struct world *w, int i);
/* false: the frame is swallowed. */
bool plant_frame(struct world *w, int from, int to, uint64_t conn, const uint8_t *frame,
                 size_t len);

/* sim_world.c */
uint64_t sim_rand(struct world *w, uint64_t below);
uint64_t sim_look(struct world *w, uint64_t below); /* for checks: changes no run */
void sim_bytes(struct world *w, void *out, size_t len);
_Noreturn void sim_fail(struct world *w, const char *fmt, ...) PRINTF_LIKE(2, 3);
#define sim_check(w, cond, ...)                                                                    \
    do {                                                                                           \
        if (!(cond))                                                                               \
            sim_fail((w), __VA_ARGS__);                                                            \
    } while (0)
void world_init(struct world *w, uint64_t seed, const char *scenario, unsigned nodes);
struct call *call_new(struct world *w, int i);
void on_call(void *arg, uint64_t lsn, const struct err *err); /* arg: a call */
bool call_wait(struct world *w, struct call *c, int64_t limit_ns);
void on_outcome(void *arg, uint64_t lsn, const struct err *err); /* arg: an outcome */
void world_fini(struct world *w);
void node_open(struct world *w, int i);
/* 0; -1: it does not open; 1: it opened and lost its power at once. */
int node_try_open(struct world *w, int i, struct err *err);
bool node_up(const struct world *w, int i);
void node_seal(struct world *w, int i);   /* its keys are gone */
void node_unseal(struct world *w, int i); /* whoever is to do what needs a token, if it is up */
bool node_still(const struct world *w, int i); /* it gets no turn now */
/* Runs fn, within which the engine may end itself: then false, and it is down. */
bool node_does(struct world *w, int i, void (*fn)(struct node *n));
bool node_looks(struct world *w, int i, void (*fn)(struct node *n)); /* so; its disk works */
/* The power goes at the ops-th change of the disk from now on (0: it does not): from then on the
 * node is `cut`, until node_crash gives it the disk of that moment. */
void node_cut_in(struct world *w, int i, uint64_t ops);
/* So, and it goes down at the end of the step in which that happens. */
void node_crash_in(struct world *w, int i, uint64_t ops);
void node_replace(struct world *w, int i); /* a new machine, with an empty disk */
void node_stop(struct world *w, int i);    /* closes in order */
void pair_again(struct world *w);          /* nodes 0 and 1: stopped and opened, with w->tune */
void node_crash(struct world *w, int i);   /* power cut; stays down */
void node_take(struct world *w, int i, struct disk_image *image);    /* stops, has another disk */
void node_restore(struct world *w, int i, struct disk_image *image); /* an old image comes back */
bool world_step(struct world *w); /* false: nothing will ever happen again */
void world_run(struct world *w, int64_t ns);
bool world_until(struct world *w, bool (*cond)(struct world *w), int64_t limit_ns);
void write_one(struct world *w);
void write_to(struct world *w, int i);
void write_many(struct world *w, unsigned n);
bool writes_settled(struct world *w);
void check_acked(struct world *w, int i);  /* every acknowledged write is there */
void check_prefix(struct world *w, int i); /* the state is that of one LSN of the history */
void check_equal(struct world *w);         /* quiesce, then equal LSN and root at all that follow */
void enable(struct world *w, int p, int s); /* s becomes a secondary of p */
void put_member(struct world *w, int p, int i, bool revoked);
bool try_put_member(struct world *w, int p, int i, bool revoked, int64_t limit_ns);
bool put_row(struct world *w, int i, const char *key, const struct buf *b,
             int64_t limit_ns); /* at primary p: the row of node i */
bool try_enable(struct world *w, int p, int s, int64_t limit_ns);
/* seed is taken in every case; NULL: none. */
bool try_enable_seed(struct world *w, int p, int s, struct engine_seed *seed, int64_t limit_ns);
bool try_promote(struct world *w, int i, bool force, int64_t limit_ns);
bool try_demote(struct world *w, int i, int64_t limit_ns);
/* p -1: nobody. by_addrs: without its key, a dead address before the right one. */
bool try_retarget(struct world *w, int i, int p, bool by_addrs, bool give_up, int64_t limit_ns);
void member_id(const struct world *w, int i, char id[64]);
int node_target(const struct world *w, int i); /* whom its engine follows; -1: nobody */
void mark_lost(struct world *w, int i);        /* what the promoted node i does not have */
bool all_equal(struct world *w, int64_t limit_ns);
void show_nodes(struct world *w);
void promote(struct world *w, int i); /* it must keep all that it had durable */
void promote_keeping(struct world *w, int i, uint64_t had); /* it must keep all up to had */
bool node_follows(const struct world *w, int i, int p);     /* directly or through others */
bool node_streams(struct world *w, int i);
bool secondary_streams(struct world *w); /* all that follow the primary */

/* sim_operator.c */
void op_look(struct world *w); /* w->primary: the newest that serves */
void op_demote(struct world *w);
void op_switchover(struct world *w);
void op_update(struct world *w);
void op_cascade(struct world *w);

bool op_serves(const struct world *w, int i);
bool only_one_whole(struct world *w); /* node 0 has one secondary, which follows, whole */
/* Of node i alone. */
struct repl_mode mode_of(int i, enum repl_level level, enum repl_on_limit on_limit,
                         uint32_t wait_ms);

/* sim_member.c */
void op_revoke(struct world *w);
void op_restate(struct world *w);
void op_leave(struct world *w);
void op_leave_copy(struct world *w, int i);   /* if it takes one */
bool op_admit(struct world *w, int p, int s); /* as a secondary of p, revoked before or not */

/* sim_image.c */
void op_image(struct world *w);
void op_older(struct world *w);
void image_drop(struct node *n);

/* sim_snapshot.c */
void op_snapshot(struct world *w);
void op_seed(struct world *w);
void snapshot_end(struct node *n); /* the one that is being made, if any */

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
uint64_t net_bytes(const struct world *w); /* under way */

/* sim_fence.c: roles, and what is asked behind the workload's back */
struct probe { /* a write, or another question, to a node that is not the workload's */
    bool done, acked;
};
void on_probe(void *arg, uint64_t lsn, const struct err *err);
void probe(struct world *w, int i, struct probe *p); /* a write */
void await_probe(struct world *w, struct probe *p, const char *what);
enum engine_role role_of(struct world *w, int i);
void check_fenced(struct world *w, int i, const char *reason);
bool first_fenced(struct world *w);
void promote_aside(struct world *w, int i);
/* Nodes 1 to n follow node 0 and hold what it has. */
void followers(struct world *w, unsigned writes, int n);
void split(struct world *w); /* nodes 1 and 2 were promoted from one epoch, and have met */

/* A table for each file of scenarios, ended by an entry without a name. */
struct scenario {
    const char *name;
    void (*run)(struct world *w);
    const char *promise;
    unsigned nodes; /* 0: two */
};
#define SIM_NODES_SEED 99u                          /* two to five, as the seed has it */
extern const struct scenario scenarios_basic[];     /* sim_scenarios.c */
extern const struct scenario scenarios_verify[];    /* sim_verify.c */
extern const struct scenario scenarios_diff[];      /* sim_diff.c */
extern const struct scenario scenarios_many[];      /* sim_many.c */
extern const struct scenario scenarios_modes[];     /* sim_modes.c */
extern const struct scenario scenarios_know[];      /* sim_know.c */
extern const struct scenario scenarios_fed[];       /* sim_fed.c */
extern const struct scenario scenarios_fence[];     /* sim_fence.c */
extern const struct scenario scenarios_roles[];     /* sim_roles.c */
extern const struct scenario scenarios_fork[];      /* sim_fork.c */
extern const struct scenario scenarios_quorum[];    /* sim_quorum.c */
extern const struct scenario scenarios_starts[];    /* sim_starts.c */
extern const struct scenario scenarios_news[];      /* sim_news.c */
extern const struct scenario scenarios_stranger[];  /* sim_stranger.c */
extern const struct scenario scenarios_act[];       /* sim_act.c */
extern const struct scenario scenarios_cut[];       /* sim_cut.c */
extern const struct scenario scenarios_sequences[]; /* sim_sequences.c */
extern const struct scenario scenarios_snapshot[];  /* sim_snapshot.c */
extern const struct scenario scenarios_bounds[];    /* sim_bounds.c */
extern const struct scenario scenarios_storm[];     /* sim_storm.c */
/* Several files of log, checkpointed: what nobody needs is gone then. */
void write_files(struct world *w, unsigned rounds);
void leave_behind(struct world *w); /* node 0 keeps nothing that node 1, which is down, needs */
void pair(struct world *w);         /* node 1 follows node 0, which holds a hundred writes */
/* Each write that was acknowledged and is in no cluster any more is in node i's files. */
void check_lost_saved(struct world *w, int i);
/* A pair whose primary came back from an older image, and is refused. What node 1 had applied;
 * the workload looks at it from here on. */
/* The image of node 0 lacks the last 200 of 250 writes. */
struct disk_image *pair_and_old_image(struct world *w);
uint64_t pair_of_old_image(struct world *w);

#endif
