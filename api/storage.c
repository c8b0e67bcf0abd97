/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * storage.c - values under paths, through the barrier, and changes that commit as one transaction.
 *
 * Everything but batch_put_clear is ciphertext bound to its path before it leaves here.
 * batch_commit returns when the transaction is applied, so the next read sees it.
 */
#include <stdlib.h>
#include <string.h>

#include "core.h"
#include "handler.h"

struct batch {
    struct core *core;
    struct txn *txn;
};

/* The waiter of one commit. Lives on the coroutine's stack until done has woken it. */
struct commit {
    struct co *co;
    struct err err;
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

/* Apply thread. After the wake the waiter may be gone. */
static void committed(void *arg, uint64_t lsn, const struct err *err)
{
    struct commit *w = arg;

    (void)lsn;
    if (err != NULL)
        w->err = *err;
    co_wake(w->co);
}

int batch_commit(struct batch *b, struct err *err)
{
    struct commit w = {.co = co_current()};
    struct txn *t = b->txn;
    struct core *c = b->core;

    b->txn = NULL;
    free(b);
    if (txn_count(t) == 0) {
        txn_free(t);
        return 0;
    }
    if (engine_submit(c->engine, t, committed, &w, err) != 0)
        return -1;
    co_wait();
    if (w.err.code == ERR_OK)
        return 0;
    if (err != NULL)
        *err = w.err;
    return -1;
}
