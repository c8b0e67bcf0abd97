/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * kv1.c - the kv engine without versions: an object a key, replaced as a whole.
 *
 * A row is "<mount prefix>1/<key>": the folder keeps it apart from version 2's rows, into which an
 * upgrade rewrites it.
 */
#include <string.h>

#include "core.h"
#include "mounts.h"

static const char *const known_query[] = {"after", "limit", NULL};

static const char *row_key(struct request *rq)
{
    return arena_printf(rq->arena, "%s1/%s", rq->mount->prefix, rq->path);
}

/* The row's key; NULL: answered. */
static const char *checked_key(struct request *rq, struct response *rs)
{
    const char *key = row_key(rq);

    if (key == NULL)
        reply_error(rs, 500, "out of memory");
    else if (strlen(key) > TXN_KEY_MAX_BYTES) {
        reply_error(rs, 400, "path is too long");
        key = NULL;
    }
    return key;
}

/* The stored ttl, else lease, where it is a duration. */
static void stored_ttl(const json_t *data, int64_t *secondsp)
{
    const json_t *v = json_object_get(data, "ttl");
    struct err err = {0};
    int64_t s;

    if (v == NULL)
        v = json_object_get(data, "lease");
    if (json_is_integer(v))
        *secondsp = json_integer_value(v);
    else if (json_is_null(v))
        *secondsp = 0;
    else if (json_is_string(v) && parse_seconds(json_string_value(v), &s, &err) == 0)
        *secondsp = s;
}

/* Whether the object may have a field that stored_ttl looks for. */
static bool names_ttl(const struct buf *text)
{
    const char *at = buf_str(text);

    while ((at = strchr(at, '"')) != NULL) {
        at++;
        if (strncmp(at, "ttl\"", 4) == 0 || strncmp(at, "lease\"", 6) == 0)
            return true;
    }
    return false;
}

/* A row is the object as json_write wrote it, which is how it is answered: it is looked into only
 * for its ttl. */
static void kv1_read(struct request *rq, struct response *rs)
{
    const char *key = checked_key(rq, rs);
    struct buf text = {.secret = true};
    struct err err = {0};
    json_t *data = NULL;
    int64_t ttl;

    if (key == NULL)
        return;
    if (rq->path[0] == '\0') {
        reply_no_errors(rs, 404);
        return;
    }
    if (storage_get_bytes(rq->core, key, &text, &err) != 0) {
        if (err.code == ERR_NOTFOUND)
            reply_no_errors(rs, 404);
        else
            reply_err(rs, &err);
        goto out;
    }
    ttl = mount_default_ttl(rq->core, rq->mount);
    if (names_ttl(&text)) {
        data = json_read_own(text.data, text.len, &err);
        if (data == NULL) {
            reply_err(rs, &err);
            goto out;
        }
        stored_ttl(data, &ttl);
    }
    reply_data_text(rq, rs, text.data, text.len);
    rs->lease_duration = ttl;
out:
    json_decref(data);
    buf_free(&text);
}

static void kv1_write(struct request *rq, struct response *rs)
{
    const char *key = checked_key(rq, rs);
    struct batch *b;
    struct err err = {0};

    if (key == NULL)
        return;
    if (rq->path[0] == '\0') {
        reply_error(rs, 400, "missing path");
        return;
    }
    if (json_object_size(rq->data) == 0) {
        reply_error(rs, 400, "missing data fields");
        return;
    }
    b = batch_new(rq->core);
    if (b == NULL)
        err_set(&err, ERR_NOMEM, 0, "kv write");
    else if (batch_put(b, key, rq->data, &err) != 0)
        batch_free(b);
    else if (batch_commit(b, &err) == 0) {
        reply_empty(rs);
        return;
    }
    reply_err(rs, &err);
}

static void kv1_delete(struct request *rq, struct response *rs)
{
    const char *key = checked_key(rq, rs);

    if (key != NULL)
        storage_answer_delete(rq, rs, key);
}

static void kv1_list(struct request *rq, struct response *rs)
{
    const char *folder = checked_key(rq, rs);

    if (folder != NULL)
        storage_answer_list(rq, rs, folder);
}

void kv1_handle(struct request *rq, struct response *rs)
{
    switch (rq->op) {
    case OP_READ:
        kv1_read(rq, rs);
        break;
    case OP_WRITE:
        kv1_write(rq, rs);
        break;
    case OP_DELETE:
        kv1_delete(rq, rs);
        break;
    case OP_LIST:
        kv1_list(rq, rs);
        break;
    case OP_PATCH:
        reply_unsupported(rs);
        break;
    }
    if (rq->op != OP_WRITE) /* any name may be a field of the secret */
        warn_unknown(rq, rs, true, known_query);
}

bool kv1_exists(struct request *rq)
{
    const char *key = row_key(rq);
    struct buf value = {.secret = true};
    struct err err = {0};
    bool yes = key != NULL && engine_get(rq->core->engine, key, &value, &err) == 0;

    buf_free(&value);
    return yes;
}
