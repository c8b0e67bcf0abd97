/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * engine_private.h - what the files of the engine share.
 *
 * Who owns what: everything in struct engine belongs to the log thread unless its comment names
 * another owner. Other threads reach it by events (queued) and the apply thread by jobs (queued, in
 * order). So the path of a write takes no lock but those of the bounded queues.
 */
#ifndef LOCKSTEP_ENGINE_PRIVATE_H
#define LOCKSTEP_ENGINE_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "engine.h"
#include "link_msg.h"
#include "local.h"
#include "queue.h"
#include "store.h"

#define LOG_REPLICATION "replication"
#define NS_PER_MS ((int64_t)1000000)
#define NS_PER_S ((int64_t)1000000000)
#define RING_BYTES_MAX (64u << 20) /* recent segments kept in memory for secondaries and apply */
#define APPLY_AHEAD_BYTES_MAX (16u << 20) /* handed to the apply thread and not yet applied */
#define UNAPPLIED_BYTES_MAX                                                                        \
    (256u << 20) /* appended and not applied: beyond it no new segment is built */
#define EVENTS_BYTES_MAX ((size_t)256 << 20) /* frames waiting for the log thread */
#define CHECKPOINT_NS (30 * NS_PER_S)
#define CHECKPOINT_LOG_BYTES ((uint64_t)256 << 20)
#define PING_NS NS_PER_S
#define SILENCE_NS (10 * NS_PER_S) /* a peer that says nothing for so long is gone */
#define DIAL_NS (30 * NS_PER_S)
#define BACKOFF_MIN_NS (200 * NS_PER_MS)
#define BACKOFF_MAX_NS (10 * NS_PER_S)
#define SPACE_CHECK_NS (100 * NS_PER_MS)
#define SPACE_CHECK_BYTES (16u << 20)
#define CONNS_MAX 64u
#define ACK_RECEIVED_NS                                                                            \
    (50 * NS_PER_MS)   /* a segment that is not durable so long after the last                     \
                            ack is acknowledged as received */
#define ROOTS_KEPT 64u /* at marks */
#define SCRUB_ASKS_MAX 16u
#define SCRUB_FIRST_MS ((int64_t)60000) /* after the start */
#define COPY_CHECKPOINT_PAGES 64u       /* a copy is made durable after so many pages */
#define COMMITS_KEPT 8192u
#define MARKS_KEPT 64u
#define DURABLES_KEPT 8192u
#define FIGURES_NS (250 * NS_PER_MS)       /* percentiles in status are at most so old */
#define MODES_MAX (ENGINE_PEERS_MAX + 1u)  /* one for each member, and the quorum */
#define LAG_PAUSE_MAX_NS (250 * NS_PER_MS) /* the lag guard's longest pause between segments */
#define LAG_SEGMENT_BYTES (64u << 10)      /* of a segment while it pauses */
#define STOP_WAIT_NS NS_PER_S              /* at a stop, for what waits for a secondary */
#define ASK_NS (2 * NS_PER_S)              /* between questions to a member that is not connected */
#define ASK_LIMIT_NS (5 * NS_PER_S)        /* for the dial and the answer */
#define STILL_NS (5 * NS_PER_S)            /* without a step for so long: stopped, or starved */
#define MEET_MAX (2u * ENGINE_PEERS_MAX)
#define REVOKED_MAX 32u
#define WATCHES_MAX 32u
#define RETAIN_SAVE_NS (10 * NS_PER_S)         /* between two writes of the cursors */
#define RETAIN_WORTH_BYTES ((uint64_t)1 << 20) /* kept for one that is away: worth freeing */
#define FOLD_NS (100 * NS_PER_MS)              /* applied and in memory for so long: it is folded */
#define FOLD_WAKE_BYTES ((size_t)4 << 20)      /* in memory: a table may be full */
#define UNFOLDED_BYTES_MAX ((size_t)64 << 20)  /* in memory: beyond it nothing more is applied */
#define APPLY_BATCH_SEGS 64u
#define APPLY_BATCH_BYTES (8u << 20)

/* ---- small parts ---- */
struct waker { /* for threads that wait for queues, not for the disk */
    pthread_mutex_t mu;
    pthread_cond_t cond;
    bool set;
};
void waker_init(struct waker *w);
void waker_fini(struct waker *w);
void waker_wake(void *w);
void waker_wait(struct waker *w, int64_t timeout_ns); /* -1: no limit */

struct seg_deque {
    struct seg **v; /* a ring of cap slots, references owned */
    size_t head, n, cap;
    size_t bytes;
};
CHECKED int seg_deque_push(struct seg_deque *d, struct seg *s,
                           struct err *err); /* takes a reference */
struct seg *seg_deque_at(const struct seg_deque *d, size_t i);
struct seg *seg_deque_pop(struct seg_deque *d); /* the reference moves to the caller; NULL: empty */
void seg_deque_drop_after(struct seg_deque *d, uint64_t lsn);
void seg_deque_clear(struct seg_deque *d);
void seg_deque_free(struct seg_deque *d);

/* One generation of the data: a log and its store, gen-<number>/{wal,store}. */
struct gen {
    struct engine *e;
    uint32_t number;
    uint64_t serial; /* of this object: results of jobs for one that was given up are told by it */
    bool unreadable; /* a block of the store had a wrong checksum: it is read as little as can be */
    char *dir, *wal_dir, *store_dir;
    struct wal *wal;     /* log thread */
    struct store *store; /* see store.h; opened and closed with the generation */
    struct epochs epochs;
};

/* A place in the log from which segments are taken in order: out of the ring when it still has
 * them, else read. */
struct cursor {
    uint64_t next_lsn;
    struct seg *held;
    struct wal_reader *reader;
};

struct sub { /* one submitted transaction */
    struct queue_node node;
    struct txn *txn;
    const uint8_t *data;
    size_t len;
    engine_done_fn *done;
    void *arg;
    uint64_t lsn;
    int64_t mark_ms; /* a mark of ours; 0: a caller's transaction */
    bool alone;      /* a mode record: a segment of its own, so that a commit can end before it */
    struct engine_wait wait;
    int64_t deadline_ns; /* of wait, or, while held, of the strict modes; 0: none */
};
struct sub_list {
    struct sub *head, *tail;
};
void sub_list_add(struct sub_list *l, struct sub *s);
struct sub *sub_list_take(struct sub_list *l);
void sub_free(struct sub *s); /* takes NULL; not answered */

/* ---- lag.c ---- */
/* Microseconds in buckets of a sixteenth of a power of two; a slot for each part of a window. */
#define LAG_BUCKETS 544u
#define LAG_SLOTS (7u + 6u + 13u)
struct lag_slot {
    int64_t part; /* which part of time it holds, from 1; 0: empty */
    int64_t max_us;
    uint32_t n[LAG_BUCKETS];
};
struct lag {
    struct lag_slot slots[LAG_SLOTS];
};
void lag_add(struct lag *l, int64_t now_ns, int64_t us);
void lag_figures(const struct lag *l, int64_t now_ns, struct engine_lag out[LAG_WINDOWS]);

/* ---- verify.c ---- */
struct equal {          /* to one other cluster */
    uint64_t heard_lsn; /* its last root; 0: none on this connection */
    uint8_t heard_root[20];
    bool peer_damaged; /* as it says of itself */
    bool differs;      /* the last roots compared */
    uint64_t lsn;      /* equal there; 0: never seen */
    int64_t wall_ms, mono_ns;
};
struct scrub_report {
    uint32_t leaves[ENGINE_BAD_LEAVES]; /* the first bad ones */
    size_t named;
    uint64_t lsn, keys, bytes;
    uint32_t bad_leaves;
    int64_t wall_ms; /* 0: none since the start */
};
struct verify {
    struct {
        uint64_t lsn;
        uint8_t root[20];
    } roots[ROOTS_KEPT];
    uint64_t n_roots; /* ever */
    bool damaged;     /* rows are not what the tree says; the local file says so, too */
    struct scrub_report scrub;
    uint64_t scrubs, repairs; /* since the start */
    int64_t repair_ns, repair_pause_ns;
    int64_t reindex_ms;
    bool reindex_due;
    struct {
        engine_done_fn *done;
        void *arg;
    } asks[SCRUB_ASKS_MAX];
    size_t n_asks;
};

/* ---- connections and peers ---- */
struct peer;
enum conn_state { CONN_NEW, CONN_ENROL, CONN_PEER, CONN_FOLLOW, CONN_ASK };
struct conn {
    struct conn *next;
    uint64_t id;
    bool inbound;
    bool dead; /* closed by us: events for it are ignored, freed at the end of the step */
    enum conn_state state;
    uint8_t key_hash[32];
    char addr[256];
    int64_t opened_ns, heard_ns, pinged_ns;
    struct peer *peer;
    uint32_t version;                  /* of the protocol; set by hello and welcome */
    bool scan_wanted;                  /* something is being read for it */
    struct asked *asked;               /* diff_serve.c */
    uint64_t queued_bytes, sent_bytes; /* given to the link; by it to the kernel */
};

struct shipped {
    uint64_t last_lsn;
    size_t bytes;
    uint64_t end_bytes; /* queued_bytes of the connection behind it */
};
struct peer { /* one member, seen from the primary */
    bool used;
    struct member member;
    struct conn *conn; /* NULL: not connected */
    struct cursor cur;
    struct shipped *shipped; /* FIFO of what was sent and is not yet acknowledged as durable */
    size_t shipped_head, shipped_n, shipped_cap;
    size_t shipped_out; /* so many of the FIFO's first are with the kernel */
    size_t window_used; /* bytes of it */
    uint64_t sent_lsn;  /* given to the link */
    uint64_t out_lsn;   /* given to the kernel */
    uint64_t received_lsn, durable_lsn, applied_lsn;
    bool whole; /* no copy is under way there */
    bool ready; /* it says that it can be promoted */
    uint64_t confirmed_lsn,
        confirmed_applied_lsn; /* durable and applied there while it was whole */
    uint64_t commit_sent;
    struct equal equal;
    int64_t heartbeat_ms, skew_ms;
    int64_t mark_acked_ns; /* when the newest acknowledged mark was written */
    struct lag *lag;       /* LAG_STAGES of them; owned */
    uint64_t retain_lsn;   /* durable there as far as is known: the log is kept after it */
    uint64_t known_lsn;    /* in a whole copy there, as known from before this start */
    uint64_t retain_bytes, retain_age_ms;  /* of the log that is kept for it, as last looked */
    unsigned retain_percent, retain_level; /* of its limits; the last mark that was warned of */
    bool let_go;                           /* nothing is kept for it */
    uint64_t covered_seq[LAG_STAGES];      /* next entry of engine.commits to be covered */
    struct engine_lag figures[LAG_STAGES][LAG_WINDOWS]; /* of lag */
    int64_t figures_ns;
    char last_error[160];
    int64_t last_error_ms;
};

struct commit_time {
    uint64_t lsn;
    int64_t mono_ns;
};
struct mark {
    uint64_t lsn;
    int64_t mono_ns;
};

/* ---- modes.c ---- */
struct durable_time {    /* when an LSN became durable here */
    uint64_t lsn, bytes; /* bytes appended up to then */
    int64_t mono_ns;
};
struct mode_slot {
    char id[64]; /* empty: the quorum */
    bool used;
    struct repl_mode cur, next; /* next: its record is in the log and not applied yet */
    uint64_t cur_lsn, next_lsn; /* of the records; 0: none */
    bool queued;                /* a record is on its way into the log */
    bool forced;                /* cur has ended, and what came before `force` */
    bool noted;                 /* the local file says so, until a checkpoint holds the row */
    uint64_t forced_lsn;        /* of the record of force; 0: not in the log yet */
    struct repl_mode force;
    bool seen; /* scratch of modes_read */
    bool waiting, fallen;
    int64_t fallen_ms;
};

/* ---- meet.c ---- */
struct met { /* a member that is asked for its epoch */
    struct member member;
    uint64_t conn_id; /* 0: none */
    int64_t next_ns;  /* ask then; while asking: give up then */
    bool heard;       /* it knows of no newer epoch, since the key came */
};
struct meet {
    size_t n;
    bool ready;       /* open is over */
    bool stepped;     /* a step was made, so the time between two means something */
    bool unconfirmed; /* one is not heard */
    int64_t until_ns; /* confirming ends; 0: the key is not here */
    struct met m[MEET_MAX];
};

/* ---- gather.c ---- */
struct gathered { /* a member that is asked to yield */
    struct member member;
    uint64_t conn_id; /* 0: none */
    bool heard;       /* it yields, and its log ends at lsn, in this start of the primary: */
    bool behind;      /* in an older epoch: nothing of its tail counts */
    bool failed;
    uint32_t newer; /* an epoch that we do not have; 0: none */
    uint32_t minor;
    uint64_t lsn;
};
struct gather {
    enum { GATHER_IDLE, GATHER_ASKING, GATHER_FETCHING } state;
    int64_t until_ns;
    uint64_t at_lsn; /* of our log, when until_ns was set */
    size_t n, best;
    struct gathered m[2 * REPL_NAMES_MAX];
};
struct yield {       /* no primary of an epoch before `number` is followed */
    uint32_t number; /* 0: it does not yield */
    char to[64];
    uint64_t conn_id;
    int64_t next_ns; /* ask it then */
};

/* ---- the secondary's side ---- */
enum follow_state {
    FOLLOW_OFF,
    FOLLOW_WAIT,
    FOLLOW_DIAL,
    FOLLOW_READY,
    FOLLOW_HELLO,
    FOLLOW_STREAM
};
enum copy_phase {
    COPY_NONE,
    COPY_CLONE,
    COPY_TREE,
    COPY_RANGES,
    COPY_LOG,
    COPY_FINISH,
    COPY_SWITCH
};
/* A range of keys that is compared, or waits for entries. */
struct diff_range {
    char after[TXN_KEY_MAX_BYTES + 1], last[TXN_KEY_MAX_BYTES + 1]; /* (after, last] */
    char next[TXN_KEY_MAX_BYTES + 1]; /* entries up to here are taken */
    bool done;                        /* nothing lies behind last */
    bool told;                        /* the primary knows what is missing */
    uint64_t low_lsn, high_lsn;       /* of the answers */
    uint64_t looked, deleted;
    struct buf hashes, missing;
    uint8_t leaves[STORE_LEAVES_BYTES];
};
void diff_range_free(struct diff_range *r); /* takes NULL */
struct follow {
    enum follow_state state;
    struct follow_config cfg;
    size_t addr_next; /* of cfg.addrs: the one to dial */
    bool give_up;     /* what is here beyond the primary's history; until a copy is in place */
    uint64_t conn_id;
    int64_t retry_ns, backoff_ns;
    struct seg_deque rx; /* received, checked, not yet appended */
    uint64_t rx_lsn;     /* end of the log with rx */
    uint32_t rx_epoch;
    uint8_t rx_hash[WAL_HASH_BYTES];
    uint64_t commit_told; /* by the primary, for the log that is streamed */
    int64_t echo_ms, heartbeat_ms, skew_ms, started_ms;
    uint64_t acked_durable, acked_applied, acked_received;
    int64_t rx_ns, acked_ns;                   /* when rx_lsn came; when the last ack went */
    struct engine_lag_stage stage[LAG_STAGES]; /* as the primary measured it, */
    int64_t stage_ns;                          /* heard then; 0: never */
    char last_error[160];
    int64_t last_error_ms;
    enum copy_phase phase;
    struct equal equal;
    bool want_copy;            /* the next hello asks for a copy */
    bool asked, job_out;       /* one question and one job at a time (folding: one kind of job) */
    struct store_copy at;      /* as of the last job */
    bool leaves_told;          /* on this connection */
    uint32_t level;            /* of the tree that is compared */
    struct buf nodes;          /* of that level, that differ; numbers of 2 bytes, big endian */
    struct diff_range *range;  /* waits for entries; NULL: the next is asked for */
    uint64_t keys_there;       /* at the primary, as it counted last; 0: not known */
    uint64_t moved_bytes;      /* of questions and answers, this time */
    int64_t copy_started_ms;   /* wall; of this process */
    int64_t phase_ns, said_ns; /* when the phase began; when the log last told of it */
    uint64_t phase_done;       /* when it began */
    bool keys_asked;           /* on this connection */
    struct cursor fold;
    size_t fold_bytes_out;
    uint64_t folded_lsn;
    bool consistent;
};

/* ---- index.c ---- */
struct epoch_ends {
    size_t n;
    uint32_t number[EPOCHS_MAX];
    uint8_t id[EPOCHS_MAX][16];
    uint64_t begin_lsn[EPOCHS_MAX]; /* where the one before it ended */
};

/* ---- events for the log thread ---- */
enum event_kind {
    EV_OPENED,
    EV_FRAME,
    EV_SENT,
    EV_CLOSED,
    EV_FOLLOW,
    EV_PROMOTE,
    EV_MODE,
    EV_MEMBERS,
    EV_KEY,
    EV_SWITCHOVER,
    EV_ASIDE_DROP,
    EV_LOST_DELETE,
    EV_DEMOTE,
    EV_REVOKE,
    EV_RETARGET,
    EV_ANSWER,
    EV_FOUND,
    EV_ROOT,
    EV_SCRUBBED,
    EV_SCRUB,
    EV_COPY_STEP,
    EV_COPY_FOLD,
    EV_COPY_FINISHED,
    EV_SWITCHED,
    EV_SNAPSHOT
};
struct event {
    struct queue_node node;
    enum event_kind kind;
    uint64_t conn;
    bool inbound, flag;
    uint8_t key_hash[32];
    char text[256]; /* address or reason */
    uint64_t number, serial;
    engine_done_fn *done;
    void *arg;
    struct follow_config *follow; /* owned */
    struct sub *sub;              /* owned: EV_MODE */
    struct engine_seed *seed;     /* owned: EV_FOLLOW, may be NULL */
    struct buf buf;               /* owned */
    struct diff_range *range;     /* owned */
    struct store_copy *copy;      /* owned */
    struct scrub_report scrub;
    size_t len;
    uint8_t data[];
};
struct event *event_new(struct engine *e, enum event_kind kind, const void *data, size_t len);
void event_post(struct engine *e, struct event *ev);
void event_free(struct event *ev);

/* ---- jobs for the apply thread, done in order ---- */
enum job_kind {
    JOB_APPLY,
    JOB_REFUSE,
    JOB_RELEASE,
    JOB_CALL,
    JOB_REINDEX,
    JOB_COPY_CLONE,
    JOB_COPY_LEAVES,
    JOB_COPY_PAGE,
    JOB_COPY_COMPARE,
    JOB_COPY_PUT,
    JOB_COPY_FOLD,
    JOB_COPY_FINISH,
    JOB_SWITCH,
    JOB_SAY_WIPE,
    JOB_DROP
};
struct job {
    struct queue_node node;
    enum job_kind kind;
    struct gen *gen;
    struct seg *seg;
    struct sub_list subs;
    uint64_t conn;
    struct buf buf;
    struct diff_range *range; /* owned */
    bool mark;                /* the segment is one: its root is told */
    bool keep;                /* switch: the old generation stays, set aside */
    engine_done_fn *done;
    void *arg;
    uint64_t lsn;
    struct err err;
};
struct job *job_new(struct engine *e, enum job_kind kind);
void job_post(struct engine *e, struct job *j);
void job_free(struct job *j);

/* ---- questions for the scan thread ---- */
struct scan_job {
    struct queue_node node;
    enum link_msg_type type; /* of the question */
    uint64_t conn;
    struct buf after, last; /* keys, as text */
    bool to_end;
    uint32_t bytes_max, level;
    struct buf nodes, hashes;
    uint8_t *leaves; /* owned; bitmap */
};
void scan_job_free(struct scan_job *j);

struct watch {
    char prefix[128];
    void (*fn)(void *arg, const char *key, uint64_t lsn);
    void *arg;
};

/* ---- switchover.c ---- */
struct handover {
    enum { HANDOVER_NONE, HANDOVER_DRAIN, HANDOVER_LOGGED, HANDOVER_HANDED } state;
    char to[64];
    uint64_t lsn; /* of the record */
    uint32_t epoch;
    struct follow_config follow; /* then */
    int64_t deadline_ns;
    engine_done_fn *done;
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
    _Atomic int role; /* enum engine_role; written by the log thread */
    _Atomic bool reserve;
    _Atomic bool stopping, apply_stop, checkpoint_stop, scan_stop, fold_stop;
    _Atomic bool rows_changed;    /* a replication row was applied */
    _Atomic bool retain_due;      /* a checkpoint was taken */
    _Atomic uint64_t applied_lsn; /* written by the apply thread (and at open) */
    _Atomic uint64_t applied_bytes, appended_bytes;
    _Atomic uint64_t apply_out_bytes; /* given to the apply thread, not applied */
    _Atomic int64_t fold_due_ns;      /* then all of it is folded; INT64_MAX: nothing waits */
    _Atomic uint64_t checkpoint_lsn;
    _Atomic uint64_t checkpoint_at_bytes;
    _Atomic int64_t checkpoint_ns;
    _Atomic int64_t deadline_ns;
    _Atomic int64_t mark_applied_ms;
    _Atomic uint64_t copy_keys, copy_bytes; /* entries taken from the primary */
    _Atomic bool catching_up, scrub_now, store_unreadable;
    _Atomic uint64_t scrub_keys;   /* in the store, as counted last; 0: not yet */
    _Atomic uint64_t copy_deleted; /* own entries */
    /* Gates of answers, written by the log thread (modes.c); UINT64_MAX: open. */
    _Atomic uint64_t apply_gate; /* modes: applied where one says apply */
    _Atomic uint64_t near_gate;  /* durable on the connected secondaries that are whole */
    _Atomic uint64_t flush_gate, all_applied_gate; /* on every secondary; 0: there is none */
    _Atomic uint32_t strict_wait_ms;
    _Atomic bool unsettled;
    _Atomic int64_t held_ns; /* the earliest deadline of a held answer; INT64_MAX: none */
    _Atomic bool holding;    /* answers are held. Both written by the apply thread */
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
    struct epoch_ends ends;
    struct status_ages { /* of its peers: monotonic times, from which ages are told; 0: none */
        int64_t behind_ns[LAG_STAGES];
        int64_t canary_ns, verified_ns;
    } ages[ENGINE_PEERS_MAX];

    /* One snapshot at a time (snapshot.c); the log after the pin is kept for it. UINT64_MAX: none
     */
    _Atomic bool snapshot_busy;
    _Atomic uint64_t snapshot_pin;

    struct watch watches[WATCHES_MAX]; /* fixed before start */
    size_t n_watches;

    pthread_t log_thread, apply_thread, checkpoint_thread, scan_thread, fold_thread;
    bool started, stopped;

    /* apply thread: applied, and the answer waits */
    struct sub_list held;     /* for the modes alone; in LSN order */
    struct sub_list held_ask; /* for more than the modes */
    uint64_t copy_unsaved;    /* bytes of a copy since its last checkpoint */

    /* scan thread */
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
    uint64_t committed_lsn;  /* of cur */
    uint32_t minor;
    _Atomic uint32_t
        last_gen; /* highest number ever used: a new copy never meets one that is being removed */
    uint64_t gen_serial;
    struct handover handover;
    size_t n_aside;
    struct engine_aside aside[ENGINE_ASIDE_MAX];
    struct lost *lost; /* being saved; NULL: nothing */
    size_t n_lost;
    struct engine_lost lost_files[ENGINE_LOST_MAX];
    char member_id[64]; /* ours, since we were promoted */
    bool want_epoch;    /* founding: the first record is to be written */
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
    uint32_t seen_epoch; /* the highest number met */
    bool alone;          /* promoted to stand alone: it meets nobody until replication is off */
    char reason[64];
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
    int64_t retain_saved_ns; /* when the cursors last went to the local file */
    struct appended {        /* what is being flushed */
        uint64_t last_lsn;
        int64_t ns;
    } appended[2 * WAL_IN_FLIGHT_MAX];
    uint64_t append_seq, n_flushes;
    int64_t flushes_us;
    struct lag *flush_lag; /* owned */
    struct engine_lag flush_figures[LAG_WINDOWS];
    int64_t flush_figures_ns;
    struct seg_txn *txns; /* scratch of the segment builder */
    size_t txns_cap;
    bool dirty;     /* the status is to be published */
    int64_t due_ns; /* earliest deadline met in this step */
    struct buf out; /* scratch of the message encoder */
};

/* engine.c, gen.c */
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
CHECKED int gen_open(struct engine *e, uint32_t number, struct gen **gp, struct err *err);
void gen_free(struct gen *g); /* closes both */
CHECKED int gen_open_store(struct gen *g, struct err *err);
CHECKED int gen_wal_config(struct gen *g, struct wal_config *wc, struct err *err);
CHECKED int gen_remove(struct engine *e, uint32_t number, struct err *err);
enum engine_role engine_role(const struct engine *e);
void engine_role_set(struct engine *e, enum engine_role role); /* and tells the hook */
CHECKED int local_save(struct engine *e,
                       struct err *err); /* commit under the lock; failure is final */
void local_number(struct engine *e, const char *name, uint64_t *vp, bool *foundp);
CHECKED int local_set_number(struct engine *e, const char *name, uint64_t v, struct err *err);
CHECKED int local_set_text(struct engine *e, const char *name, const char *text, struct err *err);
CHECKED int local_save_epochs(struct engine *e, struct gen *g, struct err *err);

/* log_step.c */
struct gen *engine_log_gen(struct engine *e); /* whose log grows now */
/* 1 and *segp (borrowed until pop or set); 0: nothing now; -1. g is the log that the cursor walks.
 */
CHECKED int cursor_peek(struct engine *e, struct gen *g, struct cursor *c, struct seg **segp,
                        struct err *err);
void cursor_pop(struct cursor *c);
void cursor_set(struct cursor *c, uint64_t next_lsn);
CHECKED int log_append(struct engine *e, struct gen *g, struct seg *seg, struct err *err);
void log_cut(struct engine *e, struct gen *g,
             uint64_t lsn); /* nothing in flight; failure is final */
void log_refuse(struct engine *e, struct sub_list *l, enum err_code code, const char *why);
void log_deadline(struct engine *e, int64_t ns);
void log_read_rows(struct engine *e);

/* index.c */
void index_publish(struct engine *e);

/* status.c */
void log_publish(struct engine *e); /* the status, as it is now */

/* retain.c */
void retain_load(struct engine *e); /* at open */
void retain_member(struct engine *e, struct peer *p);
void retain_fallen_begin(struct engine *e);                   /* the rows are looked at; */
void retain_fallen(struct engine *e, const struct member *m); /* one is of a primary of before */
void retain_fallen_end(struct engine *e);                     /* that was all of them */
void retain_members_known(struct engine *e);
void retain_forked(struct engine *e); /* our epoch's record is appended */
uint64_t retain_needed_lsn(struct engine *e, const struct peer *except);
size_t retain_step(struct engine *e, int64_t now);

/* lag.c */
int64_t lag_since_ns(struct engine *e, uint64_t lsn);
uint64_t peer_stage_lsn(const struct peer *p, enum lag_stage s);
int64_t peer_behind_ns(struct engine *e, const struct peer *p, enum lag_stage s);
void peer_stages(struct engine *e, const struct peer *p, struct engine_lag_stage out[LAG_STAGES]);
void peers_covered(struct engine *e, struct peer *p, int64_t held_us);
void lag_count_waiting(struct engine *e, int64_t now);
void flush_begun(struct engine *e, const struct seg *s);
void flush_done(struct engine *e, const struct seg *s);

/* modes.c */
void modes_read(struct engine *e);                        /* the rows, as applied */
void modes_of_seg(struct engine *e, const struct seg *s); /* appended: a mode record? */
void modes_cut(struct engine *e, uint64_t lsn);           /* the log ends there now */
void modes_begin(struct engine *e, struct event *ev);     /* EV_MODE */
CHECKED int modes_forced_load(struct engine *e, struct err *err);
void modes_force_configured(struct engine *e);
uint64_t modes_commit_lsn(struct engine *e, uint64_t durable); /* at most durable */
void modes_note_durable(struct engine *e, uint64_t durable, int64_t now);
size_t modes_step(struct engine *e, int64_t now);          /* gates, releases, defaults */
void modes_release_all(struct engine *e, const char *why); /* outcome unknown */
void modes_status(struct engine *e, struct engine_status *st);
void modes_status_of(struct engine *e, const struct peer *p, struct engine_peer *out);
void modes_reset(struct engine *e); /* all end, with the epoch or the role */
CHECKED int modes_promotion_check(struct engine *e, struct err *err);
bool lag_guard_waits(struct engine *e, int64_t now);
void lag_guard_built(struct engine *e, int64_t now);

/* epoch.c */
void epochs_of_seg(struct engine *e, struct gen *g, const struct seg *s); /* learns what it holds */
void epochs_prune(struct epochs *ep, uint64_t end_lsn);
const struct epoch_rec *epochs_last(const struct epochs *ep); /* NULL: none */
const struct epoch_rec *epochs_find(const struct epochs *ep, const uint8_t id[16], size_t *ip);
CHECKED int epoch_prove(struct engine *e, struct epoch_rec *r, struct err *err);
bool epoch_proof_good(struct engine *e,
                      const struct epoch_rec *r); /* false also when there is no key */
bool epoch_has_key(struct engine *e);
void epoch_public_load(struct engine *e); /* at open */
void epoch_public_note(struct engine *e); /* the key came */
bool epoch_sign(struct engine *e, const struct epoch_rec *r, uint8_t sig[LINK_SIGNATURE_BYTES]);
/* By a key that this cluster had when it was last unsealed. */
bool epoch_signature_good(const struct engine *e, const struct epoch_rec *r, const uint8_t *sig);
CHECKED int epoch_append(struct engine *e, struct epoch_rec *r,
                         struct err *err); /* fills end_lsn and hash */
size_t promote_step(struct engine *e);
void promote_begin(struct engine *e, struct event *ev);
void promote_refuse(struct engine *e, const struct err *err); /* it goes on as a secondary */

/* gather.c */
void gather_begin(struct engine *e, int64_t now);
size_t gather_step(struct engine *e, int64_t now);
bool gather_heard(struct engine *e, const char *id);
const struct member *gather_source(const struct engine *e); /* its tail is fetched; NULL: none */
void gather_asked(struct engine *e, const struct link_epoch *a, const struct member *who,
                  struct link_epoch *tell);
/* These three as meet_opened, meet_told, meet_closed; false: not one of these connections. */
bool gather_opened(struct engine *e, struct conn *c);
bool gather_told(struct engine *e, struct conn *c, const struct link_msg *m);
bool gather_closed(struct engine *e, uint64_t conn);
bool gather_ships_to(const struct engine *e, const char *id); /* all that is durable here */
void yield_load(struct engine *e);                            /* at open */
void yield_end(struct engine *e);
bool yield_refuses(struct engine *e, const struct epoch_rec *theirs); /* a primary's newest */

/* fence.c */
void engine_fence(struct engine *e, const struct epoch_rec *newer, const char *who);
CHECKED int fence_load(struct engine *e, struct err *err);
CHECKED int fence_note_commit(struct engine *e, struct err *err); /* not saved yet */
uint64_t fence_noted_commit(struct engine *e);
/* A sealed one asks who superseded it. The rest as meet_opened, meet_told, meet_closed. */
size_t fence_step(struct engine *e, int64_t now);
bool fence_opened(struct engine *e, struct conn *c);
bool fence_told(struct engine *e, struct conn *c, const struct link_msg *m);
bool fence_closed(struct engine *e, uint64_t conn);

/* demote.c */
void demote_begin(struct engine *e, struct event *ev);
size_t demote_step(struct engine *e, int64_t now);
void demote_and_follow(struct engine *e, const char *addr); /* in one durable step */
void retarget_begin(struct engine *e, struct event *ev);

/* revoke.c */
bool revoked_here(const struct engine *e, const char *id);
void revoked_load(struct engine *e);
void revoked_settle(struct engine *e);
void revoke_begin(struct engine *e, struct event *ev);

/* meet.c */
const char *own_member_id(const struct engine *e);
void meet_fill(struct engine *e, struct link_msg *m, enum link_msg_type type);
void meet_rows(struct engine *e);          /* the member table, as applied; or the role changed */
void meet_opened_engine(struct engine *e); /* at the end of open */
void meet_again(struct engine *e, int64_t now);
void meet_seen(struct engine *e, uint32_t number);
/* true: this cluster is fenced now, and all connections are closed. */
bool meet_epochs(struct engine *e, const struct epochs *history, enum engine_role role,
                 const uint8_t *sig /* NULL: none */, const char *who);
void meet_heard(struct engine *e, const uint8_t key_hash[32]);
void meet_asked(struct engine *e, struct conn *c, const struct link_msg *m);
bool meet_opened(struct engine *e, struct conn *c); /* false: not one of these */
void meet_told(struct engine *e, struct conn *c, const struct link_msg *m);
bool meet_closed(struct engine *e, uint64_t conn);
size_t meet_step(struct engine *e, int64_t now);

/* ship.c */
struct conn *conn_find(struct engine *e, uint64_t id);
struct conn *conn_add(struct engine *e, struct event *ev);
void conn_close(struct engine *e, struct conn *c, const char *reason); /* with a goodbye */
void conn_drop(struct engine *e, struct conn *c, const char *reason);  /* the link closed it */
/* One that we dialled: open or not yet, it is closed, and *idp 0. 0: nothing. */
void conn_give_up(struct engine *e, uint64_t *idp, const char *reason);
void conns_sweep(struct engine *e);
void conn_send(struct engine *e, struct conn *c, const struct link_msg *m, struct seg *seg);
void conn_send_bytes(struct engine *e, struct conn *c, const void *msg, size_t len);
void conn_goodbye(struct engine *e, struct conn *c, const char *reason);
void peer_hello(struct engine *e, struct conn *c, const struct link_hello *h);
void peer_frame(struct engine *e, struct conn *c, const struct link_msg *m);
size_t peers_ship(struct engine *e);
void peers_cut(struct engine *e, uint64_t lsn); /* the log is cut there: log_cut */
size_t conns_tick(struct engine *e, int64_t now);
void peer_sent(struct engine *e, struct event *ev);
bool peers_known(const struct engine *e);
void peers_check(struct engine *e);
void peers_clear(struct engine *e, const char *reason);
void peers_clear_followers(struct engine *e, const char *reason); /* not what we follow */
void peers_free(struct engine *e);
CHECKED int member_read(struct engine *e, const char *id, struct member *m, struct err *err);
/* The unrevoked member with this key. ERR_DENIED: none. */
CHECKED int member_by_key(struct engine *e, const uint8_t key_hash[32], struct member *m,
                          struct err *err);

/* diff_serve.c */
void diff_question(struct engine *e, struct conn *c, const struct link_msg *m);
void diff_found(struct engine *e, struct event *ev);
void diff_conn_free(struct conn *c);

/* follow.c */
void follow_begin(struct engine *e, struct event *ev);
void follow_resume(struct engine *e);       /* at start */
bool follow_wanted(const struct follow *f); /* it has somebody to follow */
void follow_off(struct engine *e, const char *reason);
void follow_opened(struct engine *e, struct conn *c);
void follow_closed(struct engine *e, const char *reason);
void follow_frame(struct engine *e, struct conn *c, const struct link_msg *m);
size_t follow_step(struct engine *e, int64_t now);

/* copy.c */
CHECKED int copy_resume(struct engine *e, struct err *err); /* at open: a copy that was under way */
void copy_start(struct engine *e, const struct link_welcome *w);
void copy_abandon(struct engine *e);
void copy_event(struct engine *e, struct event *ev);
void copy_phase_of(struct engine *e);
bool copy_outlived(const struct engine *e, const struct link_welcome *w);
size_t copy_step(struct engine *e);

/* progress.c */
void progress_status(struct engine *e, struct engine_status *st);
void progress_begin(struct engine *e); /* of a phase */
void progress_log(struct engine *e);

/* copy_jobs.c */
void copy_do(struct engine *e, struct job *j);

/* diff.c */
struct job *copy_job(struct engine *e, enum job_kind kind);
void diff_answer(struct engine *e, const struct link_msg *m);
void diff_done(struct engine *e, struct event *ev);
void diff_forget(struct follow *f); /* what belongs to a connection */
size_t diff_step(struct engine *e);

/* scrub.c */
size_t scrub_step(struct engine *e);
int64_t scrub_wait_ns(struct engine *e);

/* verify.c */
bool seg_is_mark(const struct seg *s);
void verify_load(struct engine *e);
void verify_replaced(struct engine *e);
void verify_mark(struct engine *e, const struct event *ev);
void verify_heard(struct engine *e, struct conn *c, const struct link_msg *m);
void verify_scrubbed(struct engine *e, struct event *ev);
void verify_begin(struct engine *e, struct event *ev);
void verify_status(const struct engine *e, struct engine_status *st);
void verify_status_of(const struct engine *e, const struct equal *q, bool whole,
                      struct engine_peer *out);

/* switchover.c */
void switchover_begin(struct engine *e, struct event *ev); /* EV_SWITCHOVER */
size_t switchover_step(struct engine *e, int64_t now);
bool switchover_pauses(const struct engine *e); /* no segment is built */
bool switchover_handed(const struct engine *e);
bool switchover_ships_to(const struct engine *e, const char *id); /* though no primary */
void switchover_followed(struct engine *e, uint32_t epoch);
void switchover_over(struct engine *e);
CHECKED int switchover_promotion_check(struct engine *e, struct err *err);
CHECKED int switchover_load(struct engine *e, const char *role, bool *handedp, struct err *err);
bool switchover_ready(struct engine *e);
void switchover_row(struct engine *e);

/* lost.c, lost_read.c */
/** What only we have is not saved yet: true, and it has begun; do not follow now. */
bool lost_first(struct engine *e, const struct link_welcome *w);
bool lost_saves(const struct engine *e);
void lost_abort(struct engine *e); /* nothing was given up: the next welcome begins again */
size_t lost_step(struct engine *e);
void lost_list(struct engine *e);                     /* look at the folder again */
void lost_delete(struct engine *e, struct event *ev); /* EV_LOST_DELETE */

/* aside.c */
CHECKED int aside_load(struct engine *e, struct err *err); /* at open */
bool aside_holds(const struct engine *e, uint32_t generation);
bool aside_keep(struct engine *e, const struct gen *old); /* false: it is to be removed */
size_t aside_step(struct engine *e, int64_t now);
void aside_drop(struct engine *e, struct event *ev); /* EV_ASIDE_DROP */

/* apply_step.c */
/* Fold the oldest table (all: also what does not fill one). 1, or 0: nothing to fold. Any thread
 * that holds no lock. */
size_t engine_fold(struct engine *e, bool all);
void engine_fold_to(struct engine *e, uint64_t lsn); /* and a little more; returns when it is */
size_t engine_unfolded_bytes(struct engine *e); /* memory of what is applied and not folded yet */
CHECKED int apply_recover(struct engine *e, struct gen *g, uint64_t commit_lsn, struct err *err);

/* seed.c */
CHECKED int seed_open(struct engine *e, struct engine_seed *s, struct gen **gp, struct err *err);
/* Into the local file, not committed, under local_mu: it is the copy. */
CHECKED int seed_note(struct engine *e, struct engine_seed *s, const struct gen *g,
                      struct err *err);
void seed_begin(struct engine *e, struct gen *g); /* that is durable: the copy is whole */

/* snapshot.c */
#define SNAPSHOT_REPLACED "the data was replaced by the primary's while the snapshot was made"
void snapshot_attach(struct engine *e, struct event *ev); /* EV_SNAPSHOT */
size_t snapshot_step(struct engine *e);
void snapshot_stop(struct engine *e, const char *why); /* before the log that it reads is closed */
void snapshot_feed_unref(struct snapshot_feed *f);     /* takes NULL */

/* member.c */
CHECKED int follow_encode(const struct follow_config *f, struct buf *out, struct err *err);
CHECKED int follow_decode(const uint8_t *data, size_t len, struct follow_config *f,
                          struct err *err);

#endif
