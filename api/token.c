/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * token.c - token rows: look-up, use counts, creation.
 *
 * A row is JSON under the HMAC of the id; "sys/token/accessor/<hmac of accessor>" points to it, and
 * "sys/token/parent/<parent>/<child>" is the tree. Whoever changes a row after reading it holds the
 * token's latch until the change is applied, so a use count never brings a revoked row back.
 *
 * How a tree ends is in token_tree.c.
 */
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cidr.h"
#include "core_private.h"
#include "mounts.h"
#include "token_private.h"

#define CHAIN_MAX 100000u

/* ---- names and latches ---- */

int token_name(struct core *c, enum token_name kind, const char *text,
               char out[TOKEN_HMAC_CHARS + 1], struct err *err)
{
    uint8_t mac[32];

    if (barrier_mac(c->barrier, kind == TOKEN_NAME_ID ? BARRIER_MAC_TOKEN : BARRIER_MAC_ACCESSOR,
                    text, strlen(text), mac, err) != 0)
        return -1;
    hex_of(mac, sizeof(mac), out);
    return 0;
}

int token_hmac(struct request *rq, const char *id, const char **hmacp, struct err *err)
{
    char name[TOKEN_HMAC_CHARS + 1];

    *hmacp = NULL;
    if (token_name(rq->core, TOKEN_NAME_ID, id, name, err) != 0)
        return -1;
    *hmacp = arena_strdup(rq->arena, name);
    return *hmacp != NULL ? 0 : err_set(err, ERR_NOMEM, 0, "token name");
}

void token_latch(struct core *c, const char *hmac, struct token_latch *l)
{
    snprintf(l->key, sizeof(l->key), "token/%s", hmac);
    latch_acquire(c, l->key, &l->ref);
}

void token_unlatch(struct core *c, struct token_latch *l)
{
    latch_release(c, &l->ref);
}

/* ---- rows ---- */

const char *token_row_str(const json_t *row, const char *key)
{
    const char *s = json_string_value(json_object_get(row, key));

    return s != NULL ? s : "";
}

static int64_t row_int(const json_t *row, const char *key)
{
    return json_integer_value(json_object_get(row, key));
}

static struct token *row_decode(struct request *rq, const char *hmac, json_t *row)
{
    struct token *t = arena_alloc(rq->arena, sizeof(*t));

    if (t == NULL || (t->hmac = arena_strdup(rq->arena, hmac)) == NULL)
        return NULL;
    t->json = row;
    t->id = "";
    t->accessor = token_row_str(row, "accessor");
    t->display_name = token_row_str(row, "display_name");
    t->path = token_row_str(row, "path");
    t->parent_hmac = token_row_str(row, "parent");
    t->entity_id = token_row_str(row, "entity_id");
    t->role = token_row_str(row, "role");
    t->policies = json_object_get(row, "policies");
    t->meta = json_is_object(json_object_get(row, "meta")) ? json_object_get(row, "meta") : NULL;
    t->cidrs = json_object_get(row, "cidrs");
    t->created_ms = row_int(row, "created_ms");
    t->expire_ms = row_int(row, "expire_ms");
    t->creation_ttl_s = row_int(row, "creation_ttl");
    t->explicit_max_ttl_s = row_int(row, "explicit_max_ttl");
    t->period_s = row_int(row, "period");
    t->last_renewal_ms = row_int(row, "last_renewal_ms");
    t->chain_ms = row_int(row, "chain_ms");
    t->num_uses = row_int(row, "num_uses");
    t->orphan = json_is_true(json_object_get(row, "orphan"));
    t->renewable = json_is_true(json_object_get(row, "renewable"));
    t->wrapping = json_array_size(t->policies) == 1 && list_has(t->policies, "response-wrapping");
    return t;
}

int token_read(struct request *rq, const char *hmac, struct token **tp, struct err *err)
{
    char path[TOKEN_PATH_BYTES];
    json_t *row = NULL;

    *tp = NULL;
    snprintf(path, sizeof(path), TOKEN_ID_PREFIX "%s", hmac);
    if (storage_get(rq->core, path, &row, err) != 0)
        return -1;
    row = request_keep(rq, row);
    if (row == NULL)
        return err_set(err, ERR_NOMEM, 0, "token");
    if (!json_is_array(json_object_get(row, "policies")))
        return err_set(err, ERR_CORRUPT, 0, "token row without policies");
    *tp = row_decode(rq, hmac, row);
    return *tp != NULL ? 0 : err_set(err, ERR_NOMEM, 0, "token");
}

int token_put(struct batch *b, const struct token *t, struct err *err)
{
    char path[TOKEN_PATH_BYTES];

    snprintf(path, sizeof(path), TOKEN_ID_PREFIX "%s", t->hmac);
    return batch_put(b, path, t->json, err);
}

int token_delete_rows(struct core *c, struct batch *b, const char *hmac, const json_t *row,
                      struct err *err)
{
    char path[TOKEN_PATH_BYTES], name[TOKEN_HMAC_CHARS + 1];
    const char *parent = token_row_str(row, "parent");

    snprintf(path, sizeof(path), TOKEN_ID_PREFIX "%s", hmac);
    if (batch_delete(b, path, err) != 0)
        return -1;
    if (token_name(c, TOKEN_NAME_ACCESSOR, token_row_str(row, "accessor"), name, err) != 0)
        return -1;
    snprintf(path, sizeof(path), TOKEN_ACCESSOR_PREFIX "%s", name);
    if (batch_delete(b, path, err) != 0)
        return -1;
    if (*parent == '\0')
        return 0;
    snprintf(path, sizeof(path), TOKEN_PARENT_PREFIX "%s/%s", parent, hmac);
    return batch_delete(b, path, err);
}

/* ---- look-up ---- */

bool token_row_expired(const json_t *row, int64_t now_ms)
{
    int64_t at = row_int(row, "expire_ms");

    return at != 0 && now_ms >= at;
}

/* Every ancestor must stand: one that is gone or has expired takes its tree with it. */
static int chain_alive(struct request *rq, const struct token *t, struct err *err)
{
    char parent[TOKEN_HMAC_CHARS + 1], path[TOKEN_PATH_BYTES];

    snprintf(parent, sizeof(parent), "%s", t->parent_hmac);
    for (unsigned depth = 0; parent[0] != '\0'; depth++) {
        json_t *row = NULL;
        bool expired;

        if (depth >= CHAIN_MAX)
            return err_set(err, ERR_CORRUPT, 0, "token parents form a circle");
        snprintf(path, sizeof(path), TOKEN_ID_PREFIX "%s", parent);
        if (storage_get(rq->core, path, &row, err) != 0) {
            if (err->code != ERR_NOTFOUND)
                return -1;
            err_clear(err);
            return err_set(err, ERR_DENIED, 0, "bad token");
        }
        snprintf(parent, sizeof(parent), "%s", token_row_str(row, "parent"));
        expired = token_row_expired(row, rq->now_ms);
        json_decref(row);
        if (expired)
            return err_set(err, ERR_DENIED, 0, "bad token");
    }
    return 0;
}

int token_alive(struct request *rq, const struct token *t, struct err *err)
{
    bool dying;

    if (t->expire_ms != 0 && rq->now_ms >= t->expire_ms)
        return err_set(err, ERR_DENIED, 0, "bad token");
    if (*t->parent_hmac == '\0')
        return 0;
    if (tokens_dying(rq->core, &dying, err) != 0)
        return -1;
    /* The tree does not know batch tokens, so no sweep reaches them: their parents are always
     * looked at. */
    if (t->batch || dying || (t->chain_ms != 0 && rq->now_ms >= t->chain_ms))
        return chain_alive(rq, t, err);
    return 0;
}

/* The row of a service token, from the cache if it is there: not to be changed. */
static int read_shared(struct request *rq, const char *hmac, struct token **tp, struct err *err)
{
    struct token_cache *cache = tokens_cache(rq->core);
    struct token *t = arena_alloc(rq->arena, sizeof(*t));
    uint64_t seen;

    if (t == NULL)
        return err_set(err, ERR_NOMEM, 0, "token");
    if (token_cache_get(cache, hmac, t, &seen)) {
        t->hmac = hmac;
        *tp = t;
        return request_keep(rq, t->json) != NULL ? 0 : err_set(err, ERR_NOMEM, 0, "token");
    }
    if (token_read(rq, hmac, tp, err) == 0) {
        token_cache_put(cache, hmac, *tp, seen);
        return 0;
    }
    if (err->code == ERR_NOTFOUND) {
        err_clear(err);
        err_set(err, ERR_DENIED, 0, "bad token");
    }
    return -1;
}

static int read_batch(struct request *rq, const char *id, const char *hmac, struct token **tp,
                      struct err *err)
{
    json_t *row;

    if (token_batch_row(rq, id, &row, err) != 0)
        return -1;
    *tp = row_decode(rq, hmac, row);
    if (*tp == NULL)
        return err_set(err, ERR_NOMEM, 0, "token");
    (*tp)->batch = true;
    return 0;
}

int token_lookup(struct request *rq, const char *id, struct token **tp, struct err *err)
{
    const char *hmac;
    struct token *t;

    *tp = NULL;
    if (id == NULL || *id == '\0')
        return err_set(err, ERR_DENIED, 0, "bad token");
    if (token_hmac(rq, id, &hmac, err) != 0)
        return -1;
    if (token_is_batch(id) ? read_batch(rq, id, hmac, &t, err) != 0
                           : read_shared(rq, hmac, &t, err) != 0)
        return -1;
    if (token_alive(rq, t, err) != 0)
        return -1;
    t->id = arena_strdup(rq->arena, id);
    if (t->id == NULL)
        return err_set(err, ERR_NOMEM, 0, "token");
    *tp = t;
    return 0;
}

int token_lookup_accessor(struct request *rq, const char *accessor, struct token **tp,
                          struct err *err)
{
    char path[TOKEN_PATH_BYTES], name[TOKEN_HMAC_CHARS + 1];
    json_t *row = NULL;
    int rc;

    *tp = NULL;
    if (token_name(rq->core, TOKEN_NAME_ACCESSOR, accessor, name, err) != 0)
        return -1;
    snprintf(path, sizeof(path), TOKEN_ACCESSOR_PREFIX "%s", name);
    if (storage_get(rq->core, path, &row, err) != 0)
        return -1;
    rc = token_read(rq, token_row_str(row, "token"), tp, err);
    json_decref(row);
    if (rc != 0)
        return -1;
    rc = token_alive(rq, *tp, err);
    if (rc == 0)
        return 0;
    *tp = NULL;
    if (err->code == ERR_DENIED) {
        err_clear(err);
        err_set(err, ERR_NOTFOUND, 0, "no such accessor");
    }
    return -1;
}

bool token_from_here(const struct request *rq, const struct token *t)
{
    return t->cidrs == NULL || (rq->http != NULL && cidrs_hold(t->cidrs, rq->http->peer_ip));
}

int token_use(struct request *rq, struct token *t, bool *lastp, struct err *err)
{
    struct token_latch latch;
    struct batch *b = NULL;
    struct token *now = NULL;
    int64_t left;
    int rc = -1;

    *lastp = false;
    if (t->num_uses == 0)
        return 0;
    token_latch(rq->core, t->hmac, &latch);
    if (token_read(rq, t->hmac, &now, err) != 0) {
        if (err->code == ERR_NOTFOUND) {
            err_clear(err);
            err_set(err, ERR_DENIED, 0, "bad token");
        }
        goto out;
    }
    if (now->num_uses < 0) {
        err_set(err, ERR_DENIED, 0, "bad token");
        goto out;
    }
    left = now->num_uses == 1 ? -1 : now->num_uses - 1;
    b = batch_new(rq->core);
    if (b == NULL || json_object_set_new(now->json, "num_uses", json_integer(left)) != 0) {
        err_set(err, ERR_NOMEM, 0, "token use");
        goto out;
    }
    if (token_put(b, now, err) != 0)
        goto out;
    batch_takes_away(b);
    rc = batch_commit(b, err);
    b = NULL;
    if (rc == 0) {
        t->num_uses = left;
        *lastp = left < 0;
    }
out:
    batch_free(b);
    token_unlatch(rq->core, &latch);
    return rc;
}

/* ---- creation ---- */

static json_t *row_new(const struct request *rq, const struct token_new *n, const char *accessor)
{
    int64_t expire = n->ttl_s > 0 ? rq->now_ms + n->ttl_s * 1000 : 0;
    json_t *row = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:s, s:O, s:O?, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b, "
        "s:b}",
        "accessor", accessor, "display_name", n->display_name ? n->display_name : "", "path",
        n->path ? n->path : "", "parent", n->parent_hmac && !n->orphan ? n->parent_hmac : "",
        "entity_id", n->entity_id ? n->entity_id : "", "role", n->role ? n->role : "", "policies",
        n->policies, "meta", n->meta, "created_ms", (json_int_t)rq->now_ms, "expire_ms",
        (json_int_t)expire, "creation_ttl", (json_int_t)n->ttl_s, "explicit_max_ttl",
        (json_int_t)n->explicit_max_ttl_s, "period", (json_int_t)n->period_s, "last_renewal_ms",
        (json_int_t)0, "chain_ms", (json_int_t)n->chain_ms, "num_uses", (json_int_t)n->num_uses,
        "orphan", (int)n->orphan, "renewable", (int)n->renewable);

    if (row != NULL && expire != 0 && json_array_size(n->cidrs) > 0 &&
        json_object_set(row, "cidrs", (json_t *)n->cidrs) != 0) {
        json_decref(row);
        return NULL;
    }
    return row;
}

/* The rows that lead to the token's: from its accessor and, in the tree, from its parent. */
static int put_links(struct request *rq, struct batch *b, const struct token *t, struct err *err)
{
    char path[TOKEN_PATH_BYTES], name[TOKEN_HMAC_CHARS + 1];
    json_t *row = json_pack("{s:s, s:s}", "token", t->hmac, "accessor", t->accessor);
    json_t *empty = json_object();
    int rc = -1;

    if (row == NULL || empty == NULL) {
        err_set(err, ERR_NOMEM, 0, "new token");
        goto out;
    }
    if (token_name(rq->core, TOKEN_NAME_ACCESSOR, t->accessor, name, err) != 0)
        goto out;
    snprintf(path, sizeof(path), TOKEN_ACCESSOR_PREFIX "%s", name);
    if (batch_put(b, path, row, err) != 0)
        goto out;
    if (*t->parent_hmac != '\0') {
        snprintf(path, sizeof(path), TOKEN_PARENT_PREFIX "%s/%s", t->parent_hmac, t->hmac);
        if (batch_put(b, path, empty, err) != 0)
            goto out;
    }
    rc = 0;
out:
    json_decref(row);
    json_decref(empty);
    return rc;
}

/* A token that is all in its id. */
static int create_batch(struct request *rq, const struct token_new *n, struct token **tp,
                        struct err *err)
{
    json_t *row = request_keep(rq, row_new(rq, n, ""));
    const char *id, *hmac;

    if (row == NULL)
        return err_set(err, ERR_NOMEM, 0, "new token");
    if (token_batch_new(rq, row, &id, err) != 0 || token_hmac(rq, id, &hmac, err) != 0)
        return -1;
    *tp = row_decode(rq, hmac, row);
    if (*tp == NULL)
        return err_set(err, ERR_NOMEM, 0, "new token");
    (*tp)->id = id;
    (*tp)->batch = true;
    return 0;
}

int token_create(struct request *rq, struct batch *b, const struct token_new *n, struct token **tp,
                 struct err *err)
{
    char id[TOKEN_TEXT_CHARS + 3] = "s.", accessor[TOKEN_TEXT_CHARS + 1];
    const char *hmac;
    struct token *t;
    json_t *row;
    int rc = -1;

    *tp = NULL;
    if (n->batch)
        return create_batch(rq, n, tp, err);
    base62(rq->core, id + 2, TOKEN_TEXT_CHARS);
    base62(rq->core, accessor, TOKEN_TEXT_CHARS);
    if (token_hmac(rq, n->id != NULL ? n->id : id, &hmac, err) != 0)
        goto out;
    row = request_keep(rq, row_new(rq, n, accessor));
    t = row != NULL ? row_decode(rq, hmac, row) : NULL;
    if (t == NULL || (t->id = arena_strdup(rq->arena, n->id != NULL ? n->id : id)) == NULL) {
        err_set(err, ERR_NOMEM, 0, "new token");
        goto out;
    }
    if (token_put(b, t, err) != 0 || put_links(rq, b, t, err) != 0)
        goto out;
    *tp = t;
    rc = 0;
out:
    OPENSSL_cleanse(id, sizeof(id));
    return rc;
}

int token_create_root(struct request *rq, struct batch *b, const char *id, struct token **tp,
                      struct err *err)
{
    struct token_new n = {.id = id,
                          .display_name = "root",
                          .path = "auth/token/root",
                          .policies = json_pack("[s]", "root"),
                          .orphan = true};
    int rc;

    *tp = NULL;
    if (n.policies == NULL)
        return err_set(err, ERR_NOMEM, 0, "root token");
    rc = token_create(rq, b, &n, tp, err);
    json_decref(n.policies);
    return rc;
}

json_t *token_auth_block(const struct token *t, int64_t lease_duration_s)
{
    return json_pack("{s:s, s:s, s:O, s:O, s:O?, s:I, s:b, s:s, s:s, s:b, s:n, s:I}",
                     "client_token", t->id, "accessor", t->accessor, "policies", t->policies,
                     "token_policies", t->policies, "metadata", t->meta, "lease_duration",
                     (json_int_t)lease_duration_s, "renewable", (int)t->renewable, "entity_id",
                     t->entity_id, "token_type", t->batch ? "batch" : "service", "orphan",
                     (int)t->orphan, "mfa_requirement", "num_uses", (json_int_t)t->num_uses);
}
