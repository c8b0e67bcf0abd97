/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * store_private.h - what store.c and store_copy.c share: sessions, transactions, rows.
 *
 * Rows of "meta" (key -> bytes, integers little endian):
 *     "point"      applied LSN 8, epoch 4, running hash 32, stamp 8
 *     "copy"       only while a copy is built, store_copy.c
 *     "r" + key    only while a copy is built: page LSN 8 of the page whose last key this is
 *     "s"          the same of the last page, which has no end
 * The stamp counts write transactions. The row MERKLE_LEAVES of "leaf" holds it too: leaves and
 * state that come from different transactions are found at open.
 */
#ifndef LOCKSTEP_STORE_PRIVATE_H
#define LOCKSTEP_STORE_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <wiredtiger.h>

#include "merkle.h"
#include "store.h"
#include "txn.h"
#include "wtfs.h"

#define KV_LSN_BYTES 8u /* before the value */

/* A session and its cursors. One thread at a time; between uses no cursor is positioned. */
struct store_session {
    WT_SESSION *wt;
    WT_CURSOR *kv, *leaf, *meta;
    struct store_session *next; /* in the pool */
    bool rollback;              /* WiredTiger asked for the transaction to be run again */
    bool in_txn;                /* a transaction is open */
};

struct store {
    WT_EVENT_HANDLER events; /* first: WiredTiger hands it back */
    struct store_config cfg;
    char *dir;
    struct wtfs wtfs;
    WT_CONNECTION *conn;
    _Atomic bool failed; /* final; panic was called */

    pthread_mutex_t pool_lock;
    struct store_session *pool;

    pthread_mutex_t state_lock; /* tree (not its pending part), point, checkpoint_lsn */
    struct merkle *tree;
    struct store_point point;
    uint64_t checkpoint_lsn;

    /* of the writing thread */
    struct store_session *writer;
    struct buf row; /* LSN and value, put together */
    uint64_t stamp;

    _Atomic bool copying; /* there is a "copy" row; set by the writing thread */
};

/**
 * 0 when ret is 0. WT_ROLLBACK marks the session and gives ERR_AGAIN; anything else is final: the
 * store has failed and panic is called.
 */
CHECKED int store_wt(struct store *s, struct store_session *ss, int ret, const char *what,
                     struct err *err);
/* Our own bytes are wrong: final as well. */
int store_corrupt(struct store *s, struct err *err, const char *what);
CHECKED int store_usable(struct store *s, struct err *err);

CHECKED int store_session_get(struct store *s, struct store_session **ssp, struct err *err);
void store_session_put(struct store *s,
                       struct store_session *ss); /* takes NULL; ends its snapshot */
CHECKED int store_begin_snapshot(struct store *s, struct store_session *ss, struct err *err);

/**
 * Run work in one write transaction, as often as WiredTiger asks. work fills *next, the point after
 * it (it holds the present one at first). Leaves, stamp and point are written by this function.
 */
typedef int (*store_work)(struct store *s, void *arg, struct store_point *next, struct err *err);
CHECKED int store_write(struct store *s, store_work work, void *arg, struct err *err);

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

/* Every row of "leaf" into tree; *stampp is 0 when there is none. */
CHECKED int store_load_leaves(struct store *s, struct store_session *ss, struct merkle *tree,
                              uint64_t *stampp, struct err *err);
/* Zeros when there is no point yet. */
CHECKED int store_load_point(struct store *s, struct store_session *ss, struct store_point *p,
                             uint64_t *stampp, struct err *err);

/* The key of a record as text; out has TXN_KEY_MAX_BYTES + 1 bytes. */
CHECKED int store_key_text(const char *key, size_t len, char *out, struct err *err);
CHECKED int store_is_empty(struct store *s, bool *emptyp, struct err *err);

#endif
