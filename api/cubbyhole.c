/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cubbyhole.c - a private folder for each service token, gone when the token goes.
 *
 * A row is "cubbyhole/<token hmac>/<key>": nobody but the holder of the token reaches it, and
 * revoking removes the folder.
 */
#include <string.h>

#include "core.h"
#include "mounts.h"
#include "token.h"

static const char *const known_query[] = {"after", "limit", NULL};

static const char *row_key(struct request *rq)
{
    return arena_printf(rq->arena, CUBBYHOLE_PREFIX "%s/%s", rq->token->hmac, rq->path);
}

static void cubbyhole_read(struct request *rq, struct response *rs, const char *key)
{
    json_t *data = NULL;
    struct err err = {0};

    if (rq->path[0] == '\0')
        reply_no_errors(rs, 404);
    else if (storage_get(rq->core, key, &data, &err) == 0)
        reply_data(rs, data);
    else if (err.code == ERR_NOTFOUND)
        reply_no_errors(rs, 404);
    else
        reply_err(rs, &err);
}

static void cubbyhole_change(struct request *rq, struct response *rs, const char *key)
{
    struct batch *b;
    struct err err = {0};
    int rc;

    if (rq->op == OP_WRITE && rq->path[0] == '\0') {
        reply_router_error(rs, 500, "missing path");
        return;
    }
    if (rq->op == OP_WRITE && json_object_size(rq->data) == 0) {
        reply_router_error(rs, 500, "missing data fields");
        return;
    }
    b = batch_new(rq->core);
    if (b == NULL) {
        err_set(&err, ERR_NOMEM, 0, "cubbyhole");
        reply_err(rs, &err);
        return;
    }
    rc = rq->op == OP_WRITE ? batch_put(b, key, rq->data, &err) : batch_delete(b, key, &err);
    if (rc != 0)
        batch_free(b);
    else
        rc = batch_commit(b, &err);
    if (rc == 0)
        reply_empty(rs);
    else
        reply_err(rs, &err);
}

void cubbyhole_handle(struct request *rq, struct response *rs)
{
    const char *key;

    if (rq->token == NULL) {
        reply_error(rs, 403, "permission denied");
        return;
    }
    if (rq->token->batch) {
        reply_error(rs, 400, "cubbyhole operations are only supported by 'service' type tokens");
        return;
    }
    key = row_key(rq);
    if (key == NULL || strlen(key) > TXN_KEY_MAX_BYTES) {
        reply_error(rs, key == NULL ? 500 : 400,
                    key == NULL ? "out of memory" : "path is too long");
        return;
    }
    switch (rq->op) {
    case OP_READ:
        cubbyhole_read(rq, rs, key);
        break;
    case OP_WRITE:
    case OP_DELETE:
        cubbyhole_change(rq, rs, key);
        break;
    case OP_LIST:
        storage_answer_list(rq, rs, key);
        break;
    case OP_PATCH:
        reply_unsupported(rs);
        break;
    }
    if (rq->op != OP_WRITE)
        warn_unknown(rq, rs, true, known_query);
}

bool cubbyhole_exists(struct request *rq)
{
    const char *key = rq->token != NULL ? row_key(rq) : NULL;
    struct buf value = {.secret = true};
    struct err err = {0};
    bool yes = key != NULL && engine_get(rq->core->engine, key, &value, &err) == 0;

    buf_free(&value);
    return yes;
}
