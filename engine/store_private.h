/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * store_private.h - what the files of the store share: sessions, transactions, rows, pages, scrub.
 *
 * Rows of "meta" (key -> bytes, integers little endian):
 *     "point"      applied LSN 8, epoch 4, running hash 32, stamp 8
 *     "root"       stamp 8, root of the tree 20; up to date as the rows of "leaf" are
 *     "keys"       stamp 8, number of rows of "kv" 8; the same
 *     "catch-up"   only while a copy is built: struct copy_row
 *     "copy-counts" only while a copy is built: what it took so far (store_copy.c)
 *     "leaves"     only while a copy is built: bitmap of the leaves that differ
 * The stamp counts write transactions. The row MERKLE_LEAVES of "leaf" holds it too: a checkpoint
 * whose leaves and state come from different transactions is found at open, and by the root one
 * whose leaves are not those that were written.
 */
#ifndef LOCKSTEP_STORE_PRIVATE_H
#define LOCKSTEP_STORE_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <wiredtiger.h>

#include "memtable.h"
#include "merkle.h"
#include "mp_read.h"
#include "rows.h"
#include "store.h"
#include "txn.h"
#include "wtfs.h"

#define ROOT_ROW "root"
#define KEYS_ROW "keys"
#define KV_LSN_BYTES 8u /* before the value */

/* A session and its cursors. One thread at a time; between uses no cursor is positioned. */
struct store_session {
    WT_SESSION *wt;
    WT_CURSOR *kv, *leaf, *meta; /* leaf: NULL unless the store is opened as a whole */
    struct store_session *next;  /* in the pool */
    bool rollback;               /* WiredTiger asked for the transaction to be run again */
    bool in_txn;                 /* a transaction is open */
};

/* store_scrub.c; under state_lock. */
struct store_scrub {
    bool on;
    bool open;   /* a chunk is being read: changes beyond pos are kept until it is closed */
    bool broken; /* a change was lost for want of memory: it begins again */
    uint8_t (*sums)[MERKLE_HASH_BYTES];
    char pos[TXN_KEY_MAX_BYTES + 1]; /* last key of the last closed chunk */
    struct buf kept;
    uint64_t keys, bytes;
};

/* store_mem.c: what is applied and not in WiredTiger yet, the newest first. */
struct store_mem {
    struct memtable *table;
    struct store_point end; /* of a closed table */
    bool mark;
};
struct store_view {
    _Atomic uint32_t refs;
    size_t n; /* at least 1; the first is the one that grows */
    struct store_mem mem[];
};

struct store {
    WT_EVENT_HANDLER events; /* first: WiredTiger hands it back */
    struct store_config cfg;
    char *dir;
    struct wtfs wtfs;
    WT_CONNECTION *conn;
    _Atomic bool failed;     /* final; panic was called, or is being, under fail_lock */
    _Atomic bool unreadable; /* what its files hold is not what was written there */

    pthread_mutex_t
        fail_lock; /* recursive; nothing else is waited for under it but what panic does */
    pthread_mutex_t pool_lock;
    struct store_session *pool;

    pthread_mutex_t state_lock; /* tree (not its pending part), point, keys, checkpoint_lsn */
    struct merkle *tree;
    struct store_point point;
    uint64_t keys;   /* rows of "kv" */
    bool keys_known; /* not in a store of an older program, until a scrub has counted */
    uint64_t checkpoint_lsn;
    bool writing; /* a write transaction is under way */
    struct store_scrub scrub;

    pthread_mutex_t fold_lock, take_lock; /* see store_mem.c */
    pthread_mutex_t view_lock;            /* view, applied, drops */
    struct store_view *view;              /* changed under take_lock */
    struct store_point applied;
    uint64_t drops;       /* tables that left the view */
    uint64_t cache_bytes; /* WiredTiger's */
    struct rows *rows;    /* of "kv"; not of a copy. A fold tells it what changed */
    _Atomic size_t mem_bytes;

    /* of whoever writes */
    pthread_mutex_t write_lock;
    bool collecting; /* its changes are noted for the scrub; written under state_lock */
    struct buf noted;
    struct store_session *writer;
    struct buf row; /* LSN and value, put together */
    uint64_t stamp;
    uint64_t keys_more;              /* of the transaction that is under way, modulo 2^64 */
    unsigned leaves_held;            /* under write_lock, as what follows: store_leaves.c */
    bool leaves_behind;              /* the stamp in the rows is not that of the point */
    bool leaf_behind[MERKLE_LEAVES]; /* its row is */

    WT_SESSION *backup; /* of the thread that makes a backup; NULL: none */

    _Atomic bool copying; /* there is a COPY_ROW; set by the writing thread */
};

/**
 * 0 when ret is 0. WT_ROLLBACK marks the session and gives ERR_AGAIN; anything else is final: the
 * store has failed and panic is called.
 */
CHECKED int store_wt(struct store *s, struct store_session *ss, int ret, const char *what,
                     struct err *err);
void store_fail(struct store *s, const char *why); /* final: panic is called, once */
/* Our own bytes are wrong: final as well. */
int store_corrupt(struct store *s, struct err *err, const char *what);
CHECKED int store_usable(struct store *s, struct err *err);
CHECKED int store_writable(struct store *s, struct err *err); /* and opened as a whole */

CHECKED int store_session_open(struct store *s, struct store_session **ssp, struct err *err);
void store_session_close(struct store_session *ss); /* takes NULL */
void store_session_rest(struct store_session *ss);  /* no snapshot of it stays */
CHECKED int store_session_get(struct store *s, struct store_session **ssp, struct err *err);
void store_session_put(struct store *s,
                       struct store_session *ss); /* takes NULL; ends its snapshot */
CHECKED int store_begin_snapshot(struct store *s, struct store_session *ss, struct err *err);

/**
 * Run work in one write transaction (one at a time), as often as WiredTiger asks. work fills *next,
 * the point after it (it holds the present one at first). Stamp and point are written by this
 * function, and the leaves while they are held.
 */
typedef int (*store_work)(struct store *s, void *arg, struct store_point *next, struct err *err);
CHECKED int store_write(struct store *s, store_work work, void *arg, struct err *err);
CHECKED int store_write_locked(struct store *s, store_work work, void *arg,
                               struct err *err); /* by who has write_lock */

/* Inside store_write; both keep the tree up. */
CHECKED int store_put(struct store *s, const struct store_page_entry *e, struct err *err);
CHECKED int store_delete(struct store *s, const char *key, size_t len, struct err *err);
/* The entry at the writer's kv cursor leaves table and tree. */
CHECKED int store_delete_here(struct store *s, struct err *err);

/* Meta rows. len is exact; ERR_NOTFOUND when there is no row. */
CHECKED int store_meta_get(struct store *s, struct store_session *ss, const char *key, void *out,
                           size_t len, struct err *err);
CHECKED int store_meta_set(struct store *s, struct store_session *ss, const char *key,
                           const void *data, size_t len, struct err *err);
/* Inside store_write; missing is fine. */
CHECKED int store_meta_remove(struct store *s, const char *key, struct err *err);

/* The entry that the kv cursor stands on; pointers live until it moves. */
CHECKED int store_entry_here(struct store *s, struct store_session *ss, struct store_page_entry *e,
                             struct err *err);
/**
 * Stand on the first key at or after key (beyond: strictly after it). Returns 1, 0 when there is
 * none, -1.
 */
CHECKED int store_seek(struct store *s, struct store_session *ss, const char *key, bool beyond,
                       struct err *err);
CHECKED int store_next(struct store *s, struct store_session *ss, struct err *err); /* 1, 0, -1 */

/* Zeros when there is no point yet. */
CHECKED int store_load_point(struct store *s, struct store_session *ss, struct store_point *p,
                             uint64_t *stampp, struct err *err);

/* The key of a record as text; out has TXN_KEY_MAX_BYTES + 1 bytes. */
CHECKED int store_key_text(const char *key, size_t len, char *out, struct err *err);
CHECKED int store_is_empty(struct store *s, bool *emptyp, struct err *err);

/* ---- store_leaves.c ---- */
/* The transaction that is about to commit: what it changed and its stamp, while leaves are held. */
CHECKED int store_leaves_write(struct store *s, uint64_t stamp, struct err *err);
void store_leaves_written(struct store *s); /* it has committed, and is not published yet */
/* Every row of "leaf" into tree; *stampp is 0 when there is none. */
CHECKED int store_load_leaves(struct store *s, struct store_session *ss, struct merkle *tree,
                              uint64_t *stampp, struct err *err);
/* At open: the tree as the rows of "leaf" have it, if they are of the point and give its root. */
CHECKED int store_load_tree(struct store *s, struct store_session *ss, struct err *err);

/* ---- store_mem.c ---- */
CHECKED int store_mem_init(struct store *s, struct err *err);
void store_mem_fini(struct store *s);
void store_mem_begin(struct store *s, const struct store_point *p); /* it is the applied one */
/** The tables and the applied LSN of one moment; give it back with store_view_put. Any thread. */
struct store_view *store_view_get(struct store *s, uint64_t *lsnp);
void store_view_put(struct store_view *v); /* takes NULL */
uint64_t store_mem_drops(struct store *s);
CHECKED int store_check_chain(const struct store_point *from, struct seg *const *segs, size_t n,
                              struct err *err); /* they continue the log that ends at from */

/* ---- store_page.c ---- */
int store_key_compare(const char *a, size_t a_len, const char *b, size_t b_len);
bool store_leaf_wanted(const uint8_t *leaves, const struct store_page_entry *e);
CHECKED int store_hash16(struct merkle_hasher *h, const struct store_page_entry *e,
                         uint8_t out[STORE_HASH_BYTES], struct err *err);
bool store_page_next(struct mp_cursor *c, struct store_page_entry *e);

/* ---- store_copy.c ---- */
#define COPY_ROW "catch-up"
struct copy_row {
    uint8_t phase;              /* enum store_copy_phase */
    uint64_t keys;              /* of the clone */
    uint64_t looked;            /* keys of the ranges that are whole */
    uint64_t low_lsn, high_lsn; /* of the answers */
    uint64_t folded_lsn; /* the log counts as folded up to here; low_lsn before the first fold */
    uint32_t folded_epoch;
    uint8_t folded_hash[WAL_HASH_BYTES];
    uint8_t folded_any;
    uint16_t last_len;
    char last[TXN_KEY_MAX_BYTES + 1]; /* padded with zeros */
} __attribute__((packed));
CHECKED int store_copy_load(struct store *s, struct store_session *ss, struct copy_row *r,
                            struct err *err);
/* Inside store_write. */
CHECKED int store_copy_save(struct store *s, const struct copy_row *r, struct err *err);
void copy_row_last(struct copy_row *r, const char *last, size_t len);
void copy_row_answer(struct copy_row *r, uint64_t low_lsn, uint64_t high_lsn);
/* Inside store_write: the entries behind after. */
CHECKED int store_page_put(struct store *s, const struct store_page *p, const char *after,
                           struct err *err);

/* ---- store_scrub.c: the writer's side ---- */
void scrub_note(struct store *s, const char *key, size_t key_len, const uint8_t *minus,
                const uint8_t *plus);
void scrub_commit(struct store *s, uint64_t lsn); /* under state_lock */

/* ---- store_backup.c ---- */
#define STORE_TURTLE "WiredTiger.turtle" /* names the checkpoint of a store that lives */
#define STORE_BACKUP "WiredTiger.backup" /* the same of a backup that was not opened yet */
/**
 * Before WiredTiger opens dir: a store that lives (it has a turtle file) drops the backup file that
 * a crash in the middle of a backup left. WiredTiger would go back to the backup's checkpoint.
 */
CHECKED int store_backup_forget(struct store *s, struct err *err);

#endif
