/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * engine_private.h - struct engine, and what all its files share. Each part of it has a header of
 * its own: threads_, log_, ship_, follow_, roles_, modes_, lag_, verify_ and retain_private.h.
 *
 * Who owns what: everything in struct engine belongs to the log thread unless its comment names
 * another owner. Other threads reach it by events (queued) and the apply thread by jobs (queued, in
 * order); what belongs to who applies is the log thread's while no job is out (apply_fed). So the
 * path of a write takes no lock but those of the bounded queues.
 */
#ifndef LOCKSTEP_ENGINE_PRIVATE_H
#define LOCKSTEP_ENGINE_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "engine.h"
#include "follow_private.h"
#include "link_msg.h"
#include "local.h"
#include "log_private.h"
#include "modes_private.h"
#include "queue.h"
#include "roles_private.h"
#include "ship_private.h"
#include "store.h"
#include "threads_private.h"
#include "time_private.h"
#include "verify_private.h"

#define LOG_REPLICATION "replication"
#define WATCHES_MAX 32u

/* One generation of the data: a log and its store, gen-<number>/{wal,store}. */
struct gen {
    struct engine *e;
    uint32_t number;
    uint64_t serial; /* of this object: results of jobs for one that was given up are told by it */
    bool unreadable; /* a block of the store had a wrong checksum: it is read as little as can be */
    bool opening;    /* the store is being opened, or recovered */
    enum store_access access; /* how much of the store is opened; damage.c */
    char *dir, *wal_dir, *store_dir;
    struct wal *wal;     /* log thread */
    struct store *store; /* see store.h; opened and closed with the generation */
    struct epochs epochs;
};

/* ---- index.c ---- */
struct epoch_ends {
    size_t n;
    uint32_t number[EPOCHS_MAX];
    uint8_t id[EPOCHS_MAX][16];
    uint64_t begin_lsn[EPOCHS_MAX]; /* where the one before it ended */
};

struct watch {
    char prefix[128];
    void (*fn)(void *arg, const char *key, uint64_t lsn);
    void *arg;
};

struct engine {
    struct engine_config cfg;
    char *path;
    int lock_fd;

    /* any thread */
    struct queue *submit_q;
    struct queue *event_q;
    struct queue *job_q;
    struct queue *scan_q;
    struct waker apply_waker, checkpoint_waker, scan_waker, fold_waker;
    _Atomic int role;   /* enum engine_role; written by the log thread */
    _Atomic bool unfit; /* see engine_fit */
    _Atomic bool reserve;
    _Atomic bool stopping, apply_stop, checkpoint_stop, scan_stop, fold_stop;
    _Atomic bool rows_changed;    /* a replication row was applied */
    _Atomic bool retain_due;      /* a checkpoint was taken */
    _Atomic uint64_t applied_lsn; /* written by who applies (and at open) */
    _Atomic uint64_t applied_bytes, appended_bytes;
    _Atomic uint64_t apply_out_bytes; /* fed, not applied */
    _Atomic uint32_t jobs_out;        /* given to the apply thread, not done */
    _Atomic bool feed_waits;          /* the log thread has more for it, and waits for room */
    _Atomic int fold_hurry;           /* so many wait until all is folded */
    _Atomic int64_t fold_due_ns;      /* then all of it is folded; INT64_MAX: nothing waits */
    _Atomic uint64_t checkpoint_lsn;
    _Atomic uint64_t checkpoint_at_bytes;
    _Atomic int64_t checkpoint_ns;
    _Atomic int64_t leaves_us, checkpoint_us; /* that the last one took; 0: counted already */
    _Atomic uint32_t leaves_saved;            /* rows that it brought up to date */
    _Atomic int64_t deadline_ns;
    _Atomic int64_t mark_applied_ms;
    int64_t canary_ms, canary_ns;           /* of the log thread: see_canary */
    _Atomic uint64_t copy_keys, copy_bytes; /* entries taken from the primary */
    _Atomic bool catching_up, scrub_now, store_unreadable;
    _Atomic uint64_t copy_deleted; /* own entries */
    /* Gates of answers, written by the log thread (modes.c); UINT64_MAX: open. */
    _Atomic uint64_t apply_gate; /* modes: applied where one says apply */
    _Atomic uint64_t near_gate;  /* durable on the connected secondaries that are whole */
    _Atomic uint64_t flush_gate, all_applied_gate; /* on every secondary that follows this cluster
                                                      itself; 0: there is none */
    _Atomic uint32_t strict_wait_ms;
    _Atomic bool unsettled;
    _Atomic int64_t held_ns; /* the earliest deadline of a held answer; INT64_MAX: none */
    _Atomic bool holding;    /* answers are held. Both written by who applies */
    /* Written by the log thread (meet.c). */
    _Atomic bool confirming;    /* nothing is served: the members are being asked */
    _Atomic bool meeting;       /* there are members to ask */
    _Atomic int64_t stepped_ns; /* the last step */

    pthread_mutex_t local_mu;
    struct local *local;

    pthread_mutex_t fold_mu;     /* one fold at a time; before store_lock */
    pthread_rwlock_t store_lock; /* write: the apply thread, for the switch of generations */
    struct store *store;
    uint64_t store_serial; /* of its generation */

    pthread_mutex_t key_mu;
    bool have_epoch_key, have_link_key;
    uint8_t epoch_key[32];
    uint8_t link_key_hash[32]; /* of our own */
    bool have_epoch_public;    /* log thread: what checks signatures without the key */
    uint8_t epoch_public[32];

    pthread_mutex_t status_mu;
    struct engine_status status; /* as of the last step */
    struct reach reach;          /* as of the gates */
    struct epoch_ends ends;
    struct status_ages { /* of its peers: monotonic times, from which ages are told; 0: none */
        int64_t behind_ns[LAG_STAGES];
        int64_t
            told_until_ns; /* a secondary: until then the figures are as its primary told them */
        int64_t canary_ns, verified_ns, heard_ns;
    } ages[ENGINE_PEERS_MAX];

    /* One snapshot at a time (snapshot.c); the log after the pin is kept for it. UINT64_MAX: none
     */
    _Atomic bool snapshot_busy;
    _Atomic uint64_t snapshot_pin;

    struct watch watches[WATCHES_MAX]; /* fixed before start */
    size_t n_watches;

    pthread_t log_thread, apply_thread, checkpoint_thread, scan_thread, fold_thread;
    bool started, stopped;

    /* Who applies (see apply_fed in apply_step.c): applied, and the answer waits */
    struct sub_list held;     /* for the modes alone; in LSN order */
    struct sub_list held_ask; /* for more than the modes */
    uint64_t copy_unsaved;    /* bytes of a copy since its last checkpoint */

    /* scan thread */
    int64_t opened_ns;
    int64_t scrub_ns; /* no chunk of the scrub before */

    /* log thread */
    struct verify verify;
    struct gen *cur;  /* served, promotable (unless bootstrapping) */
    struct gen *copy; /* being filled; NULL as a rule */
    bool promotable;
    struct sub_list pending; /* taken from the queue, not in a segment yet */
    struct sub_list waiting; /* in a segment, not given to apply yet */
    struct seg_deque ring;   /* recent segments of the log that grows */
    struct cursor feed;      /* next to apply */
    struct job_list fed;     /* in this step, to be applied at its end: here, or by apply */
    uint64_t committed_lsn;  /* of cur */
    uint32_t minor;
    _Atomic uint32_t
        last_gen; /* highest number ever used: a new copy never meets one that is being removed */
    uint64_t gen_serial;
    struct handover handover;
    size_t n_aside;
    struct engine_aside aside[ENGINE_ASIDE_MAX];
    struct lost *lost; /* being saved; NULL: nothing */
    size_t n_lost, lost_unshown;
    struct engine_lost lost_files[ENGINE_LOST_MAX];
    char member_id[64]; /* ours, since we were promoted */
    struct {
        bool on, written;
        bool alone; /* to leave the others */
        bool force;
        uint64_t lsn;
        uint8_t id[16];
        engine_done_fn *done;
        void *arg;
    } promote;
    struct {
        bool on;
        int64_t until_ns;
        engine_done_fn *done;
        void *arg;
    } demote;
    struct { /* leave.c */
        bool on;
        engine_done_fn *done;
        void *arg;
    } leave;
    struct repl_config repl;
    struct conn *conns;
    size_t n_conns;
    struct peer peers[ENGINE_PEERS_MAX];
    struct commit_time commits[COMMITS_KEPT];
    uint64_t commit_seq; /* entries ever made */
    struct mode_slot modes[MODES_MAX];
    struct durable_time durables[DURABLES_KEPT];
    uint64_t durable_seq;           /* entries ever made */
    uint64_t settle_lsn;            /* end of the log when it was opened */
    int64_t pace_ns, pace_pause_ns; /* lag guard: no segment before, and its pause now */
    int64_t stop_ns;                /* when it was first seen that we stop */
    struct mark marks[MARKS_KEPT];
    uint64_t mark_seq;
    int64_t mark_ns;
    int64_t waiting_ns; /* when lags of what waits were last counted */
    struct follow follow;
    struct meet meet;
    struct {                    /* fence.c */
        struct epoch_rec newer; /* what it met */
        uint64_t conn_id;       /* a question to who began that; 0: none */
        int64_t since_ns;       /* it is sealed, and was superseded; 0: it is not */
        int64_t next_ns;
    } fence;
    struct gather gather;
    struct yield yield;
    size_t n_revoked; /* noted here, and not in the rows yet (revoke.c) */
    char revoked[REVOKED_MAX][64];
    uint64_t revoked_until; /* applied up to here, the rows have it all; 0: they have not */
    uint32_t seen_epoch;    /* the highest number met */
    bool alone;             /* promoted to stand alone: it meets nobody until replication is off */
    char reason[64];
    int64_t built_ns; /* when the newest segment was */
    int64_t space_ns;
    uint64_t space_bytes, free_bytes; /* free_bytes: at the last look; 0: not looked yet */
    struct snapshot_feed *snapshot;   /* NULL: none is being made */
    uint64_t n_segments, n_transactions;
    uint64_t n_streams, n_copies; /* welcomes */
    struct retain_saved {         /* cursors as the local file had them at the start */
        char id[64];
        uint64_t lsn, flushed_lsn;
        bool let_go;
    } retain_saved[2 * ENGINE_PEERS_MAX];
    size_t n_fallen;
    struct fallen { /* a primary of before, that has not come back */
        struct member member;
        uint64_t lsn; /* it may need the log after it */
        bool let_go;
        bool seen; /* its row, in this look at them */
    } fallen[ENGINE_PEERS_MAX];
    uint64_t fork_lsn;      /* of our promotion: the primary of before knew this as committed */
    struct buf retain_blob; /* as it is in the local file */
    bool retain_unknown;    /* the members of before have no slots yet */
    uint64_t retain_told; /* secondary: the other members may need the log after it; 0: not told */
    int64_t retain_ns;    /* when the limits were last looked at */
    int64_t retain_more_ns;  /* when the next log file goes; 0: none may */
    int64_t retain_saved_ns; /* when the cursors last went to the local file */
    struct appended {        /* what is being flushed */
        uint64_t last_lsn;
        int64_t ns;
    } appended[2 * WAL_QUEUE_MAX];
    uint64_t append_seq, append_first; /* of appended: the next, the oldest */
    struct timing {
        uint64_t n;
        int64_t sum_us;
        struct engine_lag figures[LAG_WINDOWS];
        struct lag *lag; /* owned; NULL without memory: then it is not measured */
    } timings[ENGINE_TIMINGS];
    int64_t timings_ns;
    uint64_t rpc_asked[ENGINE_RPCS], rpc_served[ENGINE_RPCS];
    struct seg_txn *txns; /* scratch of the segment builder */
    size_t txns_cap;
    bool dirty;     /* the status is to be published */
    int64_t due_ns; /* earliest deadline met in this step */
    struct buf out; /* scratch of the message encoder */
};

/* engine.c, gen.c */
#define LOCAL_APART "apart" /* this row is there: engine_apart */
CHECKED int local_get_locked(struct engine *e, const char *name, struct buf *out, struct err *err);
CHECKED int local_set_locked(struct engine *e, const char *name, const void *data, size_t len,
                             struct err *err);
char *path_of(const char *a, const char *b); /* a/b, or NULL */
struct names {
    char **v;
    size_t n, cap;
    bool failed;
};
void add_name(void *arg, const char *name); /* for disk list; arg: struct names */
void names_free(struct names *l);
void engine_fatal(struct engine *e, const struct err *err); /* does not return */
CHECKED int gen_new(struct engine *e, uint32_t number, struct gen **gp, struct err *err);
uint32_t gen_number(struct engine *e); /* one that was never used; any thread */
CHECKED int gen_open_log(struct engine *e, uint32_t number, struct gen **gp, struct err *err);
/* Log and store. */
CHECKED int gen_open(struct engine *e, uint32_t number, struct gen **gp, struct err *err);
void gen_free(struct gen *g); /* closes both */
CHECKED int gen_open_store(struct gen *g, struct err *err);
CHECKED int gen_wal_config(struct gen *g, struct wal_config *wc, struct err *err);
/* ---- damage.c ---- */
void damage_panic(void *arg, const char *why, bool unreadable); /* of a store; arg: its gen */
/* At open: a copy that is noted as unreadable is forgotten, durably. */
CHECKED int damage_drop_copy(struct engine *e, uint64_t copy, bool *copyingp, struct err *err);
void damage_load(struct engine *e, struct gen *g); /* what is noted of it; once the role is known */
/* Known as committed in the log of what is not applied: the primary is told. */
uint64_t damage_commit_lsn(struct engine *e, uint64_t applied_lsn);
bool gen_applies(const struct gen *g); /* false: no segment is brought into its store */

CHECKED int gen_remove(struct engine *e, uint32_t number, struct err *err);
enum engine_role engine_role(const struct engine *e);
void engine_role_set(struct engine *e, enum engine_role role); /* and tells the hook */
CHECKED int local_save(struct engine *e,
                       struct err *err); /* commit under the lock; failure is final */
/* What is set in between is committed as a whole: another thread's commit (engine_local_put) waits.
 */
void local_begin(struct engine *e);
void local_end(struct engine *e);
void local_number(struct engine *e, const char *name, uint64_t *vp, bool *foundp);
CHECKED int local_set_number(struct engine *e, const char *name, uint64_t v, struct err *err);
CHECKED int local_set_text(struct engine *e, const char *name, const char *text, struct err *err);
CHECKED int local_save_epochs(struct engine *e, struct gen *g, struct err *err);

/* index.c */
void index_publish(struct engine *e);

/* status.c */
void log_publish(struct engine *e); /* the status, as it is now */

#endif
