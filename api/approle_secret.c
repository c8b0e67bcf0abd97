/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * approle_secret.c - the secret ids of AppRole's roles: made, looked up, destroyed, and tidied when
 * they have expired.
 *
 * Invariant: a secret id opens no more, no longer and no more often than its role says.
 */
#include <string.h>

#include "approle_private.h"
#include "cidr.h"

static const char *const known_secret[] = {"role_name", "secret_id",          "metadata",
                                           "cidr_list", "token_bound_cidrs",  "num_uses",
                                           "ttl",       "secret_id_accessor", NULL};

/* ---- secret ids ---- */

/* A secret id opens no more than its role does. */
static bool within_role(struct response *rs, const json_t *blocks, const json_t *role,
                        const char *field)
{
    if (cidrs_within(blocks, json_object_get(role, field)))
        return true;
    reply_error(rs, 400,
                "failed to verify subset relationship between CIDR blocks on the role and CIDR "
                "blocks on the secret ID");
    return false;
}

/* 0 is no bound. */
static bool exceeds(int64_t n, int64_t bound)
{
    return bound > 0 && (n == 0 || n > bound);
}

static void secret_make(struct request *rq, struct response *rs, const char *name, bool custom)
{
    json_t *role = approle_role_of(rq, rs, name), *row = NULL, *index = NULL, *there = NULL;
    json_t *blocks = NULL, *cidrs = NULL;
    const char *id, *meta, *hash, *key;
    char made[37], accessor[37];
    int64_t uses, ttl;
    struct batch *b = NULL;
    struct latch_ref latch;
    struct err err = {0};
    int rc = -1;

    if (role == NULL)
        return;
    if (!json_is_true(json_object_get(role, "bind_secret_id"))) {
        reply_error(rs, 400, "bind_secret_id is not set on the role");
        goto done;
    }
    if (approle_blocks(rq, rs, "cidr_list", &blocks) != 0 ||
        approle_blocks(rq, rs, "token_bound_cidrs", &cidrs) != 0 ||
        !within_role(rs, blocks, role, "secret_id_bound_cidrs") ||
        !within_role(rs, cidrs, role, "token_bound_cidrs") ||
        field_str(rq, rs, "secret_id", "", &id) != 0 ||
        field_str(rq, rs, "metadata", "{}", &meta) != 0 ||
        field_int(rq, rs, "num_uses", approle_int(role, "secret_id_num_uses"), &uses) != 0 ||
        field_seconds(rq, rs, "ttl", approle_int(role, "secret_id_ttl"), &ttl) != 0)
        goto done;
    if (custom && id[0] == '\0') {
        reply_error(rs, 400, "missing secret_id");
        goto done;
    }
    if (uses < 0 || ttl < 0 || strlen(id) > APPROLE_ID_MAX_BYTES) {
        reply_error(rs, 400, "num_uses, ttl or secret_id is out of bounds");
        goto done;
    }
    if (exceeds(uses, approle_int(role, "secret_id_num_uses"))) {
        reply_error(rs, 400, "num_uses cannot be higher than the role's secret_id_num_uses");
        goto done;
    }
    if (exceeds(ttl, approle_int(role, "secret_id_ttl"))) {
        reply_error(rs, 400, "ttl cannot be longer than the role's secret_id_ttl");
        goto done;
    }
    uuid_new(rq->core, made);
    uuid_new(rq->core, accessor);
    id = custom ? id : made;
    there = json_read((const uint8_t *)meta, strlen(meta), &err);
    if (!json_is_object(there)) {
        reply_error(rs, 400, "failed to parse metadata: it is not an object in JSON");
        goto done;
    }
    if (token_hmac(rq, id, &hash, &err) != 0) {
        reply_err(rs, &err);
        goto done;
    }
    key = approle_key3(rq, "secret", name, hash);
    row = json_pack("{s:s, s:I, s:I, s:I, s:I, s:O}", "accessor", accessor, "created_ms",
                    (json_int_t)rq->now_ms, "expire_ms",
                    (json_int_t)(ttl > 0 ? rq->now_ms + ttl * 1000 : 0), "num_uses",
                    (json_int_t)uses, "ttl", (json_int_t)ttl, "metadata", there);
    if (json_array_size(blocks) > 0)
        json_object_set(row, "cidr_list", blocks);
    if (json_array_size(cidrs) > 0)
        json_object_set(row, "token_bound_cidrs", cidrs);
    index = json_pack("{s:s}", "hash", hash);
    latch_acquire(rq->core, key != NULL ? key : rq->mount->prefix, &latch);
    json_decref(there);
    if (approle_row(rq, key, &there, &err) == 0 && there != NULL) {
        reply_error(rs, 400, "SecretID is already registered");
    } else if (err.code != 0) {
        reply_err(rs, &err);
    } else {
        b = batch_new(rq->core);
        if (b != NULL)
            rc = approle_put(b, key, row, &err) == 0
                     ? approle_put(b, approle_key3(rq, "accessor", name, accessor), index, &err)
                     : -1;
        reply_data(rs, json_pack("{s:s, s:s, s:I, s:I}", "secret_id", id, "secret_id_accessor",
                                 accessor, "secret_id_num_uses", (json_int_t)uses, "secret_id_ttl",
                                 (json_int_t)ttl));
        approle_finish(rq, rs, b, rc, &err);
    }
    latch_release(rq->core, &latch);
done:
    json_decref(blocks);
    json_decref(cidrs);
    json_decref(role);
    json_decref(row);
    json_decref(index);
    json_decref(there);
}

/* Which secret id a request means, by itself or by its accessor; NULL: answered. */
static const char *secret_named(struct request *rq, struct response *rs, const char *name,
                                bool by_accessor)
{
    const char *field = by_accessor ? "secret_id_accessor" : "secret_id", *text, *hash = NULL;
    json_t *index;
    struct err err = {0};

    if (field_str(rq, rs, field, "", &text) != 0)
        return NULL;
    if (text[0] == '\0') {
        reply_error(rs, 400, "missing %s", field);
        return NULL;
    }
    if (!by_accessor) {
        if (token_hmac(rq, text, &hash, &err) != 0)
            reply_err(rs, &err);
        return hash;
    }
    if (strchr(text, '/') != NULL || strlen(text) > 64)
        text = "-";
    if (approle_row(rq, approle_key3(rq, "accessor", name, text), &index, &err) != 0) {
        reply_err(rs, &err);
    } else if (index == NULL) {
        reply_error(rs, 404, "failed to find accessor entry for secret_id_accessor: \"%s\"", text);
    } else {
        hash = arena_strdup(rq->arena, json_string_value(json_object_get(index, "hash")));
        json_decref(index);
    }
    return hash;
}

bool approle_expired(const struct request *rq, const json_t *row)
{
    return approle_int(row, "expire_ms") > 0 && approle_int(row, "expire_ms") <= rq->now_ms;
}

/* New reference. */
static json_t *list_of(const json_t *row, const char *name)
{
    json_t *list = json_object_get(row, name);

    return list != NULL ? json_incref(list) : json_array();
}

static void secret_lookup(struct request *rq, struct response *rs, const char *name,
                          const char *hash)
{
    json_t *row;
    struct err err = {0};
    int64_t expire;

    if (approle_row(rq, approle_key3(rq, "secret", name, hash), &row, &err) != 0) {
        reply_err(rs, &err);
    } else if (row == NULL || approle_expired(rq, row)) {
        reply_empty(rs); /* as Vault answers it */
    } else {
        expire = approle_int(row, "expire_ms");
        reply_data(
            rs,
            json_pack("{s:o, s:o, s:s, s:s, s:s, s:O, s:O, s:I, s:I}", "cidr_list",
                      list_of(row, "cidr_list"), "token_bound_cidrs",
                      list_of(row, "token_bound_cidrs"), "creation_time",
                      time_rfc3339(rq->arena, approle_int(row, "created_ms")), "last_updated_time",
                      time_rfc3339(rq->arena, approle_int(row, "created_ms")), "expiration_time",
                      expire > 0 ? time_rfc3339(rq->arena, expire) : "0001-01-01T00:00:00Z",
                      "metadata", json_object_get(row, "metadata"), "secret_id_accessor",
                      json_object_get(row, "accessor"), "secret_id_num_uses",
                      (json_int_t)approle_int(row, "num_uses"), "secret_id_ttl",
                      (json_int_t)approle_int(row, "ttl")));
    }
    json_decref(row);
}

int approle_secret_drop(struct request *rq, struct batch *b, const char *name, const char *hash,
                        const json_t *row, struct err *err)
{
    batch_takes_away(b);
    if (approle_drop(b, approle_key3(rq, "secret", name, hash), err) != 0)
        return -1;
    return row == NULL
               ? 0
               : approle_drop(b,
                              approle_key3(rq, "accessor", name,
                                           json_string_value(json_object_get(row, "accessor"))),
                              err);
}

static void secret_destroy(struct request *rq, struct response *rs, const char *name,
                           const char *hash)
{
    const char *key = approle_key3(rq, "secret", name, hash);
    struct batch *b = batch_new(rq->core);
    struct latch_ref latch;
    json_t *row = NULL;
    struct err err = {0};
    int rc = -1;

    latch_acquire(rq->core, key != NULL ? key : rq->mount->prefix, &latch);
    if (b != NULL && approle_row(rq, key, &row, &err) == 0)
        rc = approle_secret_drop(rq, b, name, hash, row, &err);
    approle_finish(rq, rs, b, rc, &err);
    latch_release(rq->core, &latch);
    json_decref(row);
}

static void secret_path(struct request *rq, struct response *rs, const char *name, const char *rest)
{
    bool by_accessor = strncmp(rest, "secret-id-accessor/", 19) == 0;
    const char *verb = strchr(rest, '/'), *hash;

    if (strcmp(rest, "secret-id/") == 0 && rq->op == OP_LIST) {
        storage_answer_list(rq, rs, approle_key3(rq, "accessor", name, ""));
        return;
    }
    if (rq->op != OP_WRITE && rq->op != OP_DELETE) {
        reply_unsupported(rs);
        return;
    }
    if (verb == NULL || verb[1] == '\0') {
        if (rq->op == OP_WRITE)
            secret_make(rq, rs, name, strncmp(rest, "custom-", 7) == 0);
        else
            reply_unsupported(rs);
        return;
    }
    hash = secret_named(rq, rs, name, by_accessor);
    if (hash == NULL)
        return;
    if (strcmp(verb, "/lookup") == 0 && rq->op == OP_WRITE)
        secret_lookup(rq, rs, name, hash);
    else if (strcmp(verb, "/destroy") == 0)
        secret_destroy(rq, rs, name, hash);
    else
        reply_unsupported_path(rs);
}

void approle_secret_handle(struct request *rq, struct response *rs, const char *name,
                           const char *rest)
{
    secret_path(rq, rs, name, rest);
    warn_unknown(rq, rs, false, known_secret);
}

/* ---- tidy ---- */

#define TIDY_AT_ONCE 64

struct page { /* rows of secret ids, in the order of their keys */
    struct arena *arena;
    const char *keys[TIDY_AT_ONCE];
    struct latch_ref latches[TIDY_AT_ONCE];
    size_t n;
};

static int note_key(void *arg, const char *key, const uint8_t *value, size_t len, uint64_t lsn,
                    struct err *err)
{
    struct page *p = arg;

    (void)value;
    (void)len;
    (void)lsn;
    p->keys[p->n] = arena_strdup(p->arena, key);
    return p->keys[p->n++] != NULL ? 0 : err_set(err, ERR_NOMEM, 0, "tidy");
}

/* Put the removal of the row into b, when it has expired. name: where that begins in key. */
static int tidy_row(struct request *rq, struct batch *b, const char *key, const char *name,
                    struct err *err)
{
    const char *slash = strchr(name, '/'), *role;
    json_t *row;
    int rc = 0;

    if (slash == NULL)
        return err_set(err, ERR_CORRUPT, 0, "a secret id without role");
    role = arena_strndup(rq->arena, name, (size_t)(slash - name));
    if (role == NULL)
        return err_set(err, ERR_NOMEM, 0, "tidy");
    if (approle_row(rq, key, &row, err) != 0)
        return -1;
    if (row != NULL && approle_expired(rq, row))
        rc = approle_secret_drop(rq, b, role, slash + 1, row, err);
    json_decref(row);
    return rc;
}

/* A login that takes a use of one of them waits until they are gone, or they for it. */
static int tidy_page(struct request *rq, struct page *p, size_t folder_len, struct err *err)
{
    struct batch *b = batch_new(rq->core);
    int rc = b != NULL ? 0 : err_set(err, ERR_NOMEM, 0, "tidy");

    for (size_t i = 0; i < p->n; i++)
        latch_acquire(rq->core, p->keys[i], &p->latches[i]);
    for (size_t i = 0; rc == 0 && i < p->n; i++)
        rc = tidy_row(rq, b, p->keys[i], p->keys[i] + folder_len, err);
    if (rc == 0 && batch_count(b) > 0) {
        rc = batch_commit(b, err);
        b = NULL;
    }
    for (size_t i = 0; i < p->n; i++)
        latch_release(rq->core, &p->latches[i]);
    batch_free(b);
    return rc;
}

void approle_tidy(struct request *rq, struct response *rs)
{
    struct page *p = arena_alloc(rq->arena, sizeof(*p)); /* large: not on a coroutine's stack */
    const char *folder = approle_key2(rq, "secret", ""), *after = NULL;
    struct err err = {0};
    int rc = p != NULL && folder != NULL ? 0 : err_set(&err, ERR_NOMEM, 0, "tidy");

    while (rc == 0) {
        *p = (struct page){.arena = rq->arena};
        rc = engine_scan(rq->core->engine, folder, after, TIDY_AT_ONCE, true, note_key, p, &err);
        if (rc == 0)
            rc = tidy_page(rq, p, strlen(folder), &err);
        if (p->n < TIDY_AT_ONCE)
            break;
        after = p->keys[p->n - 1];
    }
    if (rc != 0) {
        reply_err(rs, &err);
        return;
    }
    rs->status = 202;
    rs->data_null = true;
    reply_warning(rs, "Tidy operation successfully started. Any information from the operation "
                      "will be printed to Vault's server logs.");
}
