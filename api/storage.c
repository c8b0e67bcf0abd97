/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * storage.c - values under paths, through the barrier, and changes that commit as one transaction.
 *
 * Everything but batch_put_clear is ciphertext bound to its path before it leaves here.
 * batch_commit returns when the transaction is applied, so the next read sees it.
 *
 * A strict mode may hold a commit back for long. Then the waiter gives up, the request answers that
 * its outcome is unknown, and the commit stays behind with the latches that the request held: the
 * next writer of a key must not decide on what it reads before this one is applied or refused.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core.h"
#include "core_private.h"
#include "handler.h"

#define ENGINE_WORD_MS 100u /* it comes at its limit */

struct batch {
    struct core *core;
    struct txn *txn;
    bool takes_away;
};

enum commit_state {
    COMMIT_WAITS,
    COMMIT_KEEPS, /* the waiter is giving up */
    COMMIT_LEFT,  /* it has: who finds this frees the commit */
    COMMIT_DONE
};
struct commit {
    struct core *core;
    struct co *co;
    _Atomic int state; /* enum commit_state */
    uint64_t lsn;
    struct err err;
    struct latch_kept kept;
};

int storage_get_bytes(struct core *c, const char *path, struct buf *out, struct err *err)
{
    struct buf sealed = {0};
    int rc = engine_get(c->engine, path, &sealed, err);

    if (rc == 0)
        rc = barrier_decrypt(c->barrier, path, sealed.data, sealed.len, out, err);
    buf_free(&sealed);
    return rc;
}

int storage_get(struct core *c, const char *path, json_t **outp, struct err *err)
{
    struct buf text = {.secret = true};
    int rc = -1;

    *outp = NULL;
    if (storage_get_bytes(c, path, &text, err) != 0)
        goto out;
    *outp = json_read_own(text.data, text.len, err);
    if (*outp == NULL) {
        if (err != NULL && err->code != ERR_NOMEM)
            err->code = ERR_CORRUPT;
        err_wrap(err, "%s", path);
        goto out;
    }
    rc = 0;
out:
    buf_free(&text);
    return rc;
}

static int list_child(void *arg, const char *child, struct err *err)
{
    json_t *keys = arg;

    if (json_array_append_new(keys, json_string_nocheck(child)) != 0)
        return err_set(err, ERR_NOMEM, 0, "list");
    return 0;
}

int storage_list(struct core *c, const char *folder, json_t **keysp, struct err *err)
{
    json_t *keys = json_array();

    *keysp = NULL;
    if (keys == NULL)
        return err_set(err, ERR_NOMEM, 0, "list");
    if (!barrier_is_open(c->barrier)) {
        json_decref(keys);
        return err_set(err, ERR_SEALED, 0, "Vault is sealed");
    }
    if (engine_list(c->engine, folder, list_child, keys, err) != 0) {
        json_decref(keys);
        return -1;
    }
    *keysp = keys;
    return 0;
}

/* What a list of all keys is cut to: those behind `after`, at most `limit` of them (0: all). */
static json_t *cut_page(const json_t *all, const char *after, int64_t limit)
{
    json_t *page = json_array(), *v;
    size_t i;

    json_array_foreach((json_t *)all, i, v)
    {
        if (*after != '\0' && strcmp(json_string_value(v), after) <= 0)
            continue;
        if (json_array_append(page, v) != 0) {
            json_decref(page);
            return NULL;
        }
        if ((int64_t)json_array_size(page) == limit)
            break;
    }
    return page;
}

void storage_answer_list(struct request *rq, struct response *rs, const char *folder)
{
    json_t *keys = NULL, *page;
    const char *after;
    int64_t limit;
    struct err err = {0};

    if (field_str(rq, rs, "after", "", &after) != 0 || field_int(rq, rs, "limit", 0, &limit) != 0)
        return;
    if (folder == NULL)
        err_set(&err, ERR_NOMEM, 0, "list");
    if (folder == NULL || storage_list(rq->core, folder, &keys, &err) != 0) {
        reply_err(rs, &err);
        return;
    }
    page = cut_page(keys, after, limit);
    if (page != NULL && json_array_size(page) == 0)
        reply_no_errors(rs, 404);
    else
        reply_data(rs, json_pack("{s:O}", "keys", page));
    json_decref(page);
    json_decref(keys);
}

struct batch *batch_new(struct core *c)
{
    struct batch *b = calloc(1, sizeof(*b));

    if (b == NULL)
        return NULL;
    b->core = c;
    b->txn = txn_new();
    if (b->txn == NULL) {
        free(b);
        return NULL;
    }
    return b;
}

void batch_free(struct batch *b)
{
    if (b == NULL)
        return;
    txn_free(b->txn);
    free(b);
}

int batch_put_bytes(struct batch *b, const char *path, const void *data, size_t len,
                    struct err *err)
{
    struct buf sealed = {0};
    int rc = barrier_encrypt(b->core->barrier, path, data, len, &sealed, err);

    if (rc == 0)
        rc = txn_put(b->txn, path, sealed.data, sealed.len, err);
    buf_free(&sealed);
    return rc;
}

int batch_put(struct batch *b, const char *path, const json_t *value, struct err *err)
{
    struct buf text = {.secret = true};
    int rc;

    json_write(&text, value);
    rc = buf_check(&text, err);
    if (rc == 0)
        rc = batch_put_bytes(b, path, text.data, text.len, err);
    buf_free(&text);
    return rc;
}

int batch_put_clear(struct batch *b, const char *path, const void *data, size_t len,
                    struct err *err)
{
    return txn_put(b->txn, path, data, len, err);
}

int batch_delete(struct batch *b, const char *path, struct err *err)
{
    return txn_delete(b->txn, path, err);
}

size_t batch_count(const struct batch *b)
{
    return txn_count(b->txn);
}

void batch_takes_away(struct batch *b)
{
    b->takes_away = true;
}

/* ---- commit ---- */

struct commit *commit_new(struct core *c)
{
    struct commit *w = calloc(1, sizeof(*w));

    if (w == NULL)
        return NULL;
    w->core = c;
    w->co = co_current();
    return w;
}

/* The thread that applies: must not block. After the wake the waiter and the commit may be gone. */
void commit_done(void *arg, uint64_t lsn, const struct err *err)
{
    struct commit *w = arg;
    struct co *co = w->co;
    int was;

    w->lsn = lsn;
    if (err != NULL)
        w->err = *err;
    was = atomic_exchange(&w->state, COMMIT_DONE);
    if (was == COMMIT_WAITS) {
        co_wake(co);
    } else if (was == COMMIT_LEFT) {
        latches_drop(w->core, &w->kept);
        free(w);
    }
}

/* True: the commit is somebody else's now. False: it is done, or there was no memory to leave it.
 */
static bool give_up(struct commit *w, struct err *err)
{
    int was = COMMIT_WAITS;
    char names[160];

    if (!atomic_compare_exchange_strong(&w->state, &was, COMMIT_KEEPS)) {
        co_wait(); /* done just now: its wake is on its way */
        return false;
    }
    if (!latches_keep(w->core, &w->kept)) {
        was = COMMIT_KEEPS;
        if (atomic_compare_exchange_strong(&w->state, &was, COMMIT_WAITS))
            co_wait();
        return false;
    }
    engine_unconfirmed(w->core->engine, 0, names, sizeof(names));
    err_set(err, ERR_UNKNOWN_OUTCOME, 0, "durable here, not confirmed by %s",
            names[0] != '\0' ? names : "a secondary");
    was = COMMIT_KEEPS;
    if (!atomic_compare_exchange_strong(&w->state, &was, COMMIT_LEFT)) {
        latches_drop(w->core, &w->kept); /* done meanwhile; it has been said otherwise */
        free(w);
    }
    return true;
}

int commit_wait(struct commit *w, bool started, uint32_t limit_ms, struct err *err)
{
    struct ack *ack = co_local();
    struct core *c = w->core;
    bool left = false;
    int rc = 0;

    if (!started) {
        free(w);
        return -1;
    }
    atomic_fetch_add(&c->commits_waiting, 1);
    if (limit_ms == 0)
        co_wait();
    else
        left = !co_wait_for(limit_ms * 1000000LL) && give_up(w, err);
    atomic_fetch_sub(&c->commits_waiting, 1);
    if (left)
        return -1;
    assert(atomic_load(&w->state) == COMMIT_DONE);
    if (ack != NULL && w->lsn > ack->lsn)
        ack->lsn = w->lsn;
    if (w->err.code != ERR_OK) {
        if (err != NULL)
            *err = w->err;
        rc = -1;
    }
    free(w);
    return rc;
}

/* How long this coroutine waits for a commit that a mode holds back; 0: as long as it takes. The
 * engine's own word on the wait of this request comes first: it knows what was reached. */
static uint32_t hold_limit(struct core *c, const struct ack *ack, const struct engine_wait *wait)
{
    uint32_t ms = ack != NULL ? engine_strict_wait_ms(c->engine) : 0,
             own = wait->level != REPL_ASYNC ? wait->limit_ms + ENGINE_WORD_MS : 0;

    if (ms > 0 && ack->limit_ms > 0)
        ms = ack->limit_ms;
    return ms > 0 && ms < own ? own : ms;
}

int batch_commit(struct batch *b, struct err *err)
{
    struct ack *ack = co_local();
    struct core *c = b->core;
    struct engine_wait wait = {0};
    struct txn *t = b->txn;
    struct commit *w;

    if (txn_count(t) == 0) {
        batch_free(b);
        return 0;
    }
    if (b->takes_away && c->config->best_effort_wait_ms > 0)
        wait = (struct engine_wait){.level = REPL_FLUSH,
                                    .best_effort = true,
                                    .limit_ms = (uint32_t)c->config->best_effort_wait_ms};
    if (ack != NULL && ack->limit_ms > 0 && wait.limit_ms > ack->limit_ms)
        wait.limit_ms = ack->limit_ms;
    if (ack != NULL && ack->level != REPL_ASYNC)
        wait = (struct engine_wait){.level = ack->level,
                                    .limit_ms =
                                        ack->limit_ms > 0 ? ack->limit_ms : REPL_WAIT_MS_DEFAULT};
    w = ack != NULL && ack->late ? NULL : commit_new(c);
    if (w == NULL) {
        batch_free(b);
        return ack != NULL && ack->late
                   ? err_set(err, ERR_TIMEOUT, 0,
                             "not written: an earlier write of the same key is not confirmed yet")
                   : err_set(err, ERR_NOMEM, 0, "commit");
    }
    b->txn = NULL;
    batch_free(b);
    return commit_wait(w, engine_submit_wait(c->engine, t, &wait, commit_done, w, err) == 0,
                       hold_limit(c, ack, &wait), err);
}

void storage_answer_delete(struct request *rq, struct response *rs, const char *key)
{
    struct batch *b = key != NULL ? batch_new(rq->core) : NULL;
    struct err err = {0};

    if (b == NULL)
        err_set(&err, ERR_NOMEM, 0, "delete");
    else if (batch_delete(b, key, &err) != 0)
        batch_free(b);
    else if (batch_commit(b, &err) == 0) {
        reply_empty(rs);
        return;
    }
    reply_err(rs, &err);
}
