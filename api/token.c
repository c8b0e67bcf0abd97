/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * token.c - token rows: look-up, use counts, creation, revocation of trees.
 *
 * A row is JSON under the HMAC of the id; "sys/token/accessor/<hmac of accessor>" points to it, and
 * "sys/token/parent/<parent>/<child>" is the tree. Whoever changes a row after reading it holds the
 * token's latch until the change is applied, so a use count never brings a revoked row back.
 *
 * Revoking is one small transaction: the row goes (the token is dead) and, when there is more to
 * remove, a tombstone "sys/token/revoke/<hmac>" takes its place. Each pass over a tombstone removes
 * cubbyhole rows and children, in transactions of at most SWEEP_ROWS_MAX rows; a child that has
 * more below it becomes a tombstone itself. A crash leaves tombstones, which tokens_sweep takes up.
 * While any tombstone stands, a look-up walks up the parents and refuses a token with an ancestor
 * that is gone.
 */
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mounts.h"
#include "token_private.h"

#define SWEEP_ROWS_MAX 128u
#define CHILD_ROWS 4u /* id, accessor, link, tombstone */
#define CHAIN_MAX 100000u
#define EXPIRED_GRACE_MS 60000 /* a renewal that read the row just in time is applied by then */
#define SWEEP_PAUSE_NS 1000000

struct tokens {
    _Atomic uint64_t changes;  /* of the tombstones */
    _Atomic uint64_t empty_at; /* value of changes at which there was none */
};

static void tombstone_changed(void *arg, const char *key, uint64_t lsn)
{
    struct tokens *ts = arg;

    (void)key;
    (void)lsn;
    atomic_fetch_add(&ts->changes, 1);
}

int tokens_new(struct core *c, struct err *err)
{
    struct tokens *ts = calloc(1, sizeof(*ts));

    if (ts == NULL)
        return err_set(err, ERR_NOMEM, 0, "token state");
    atomic_store(&ts->changes, 1);
    if (engine_watch(c->engine, TOKEN_REVOKE_PREFIX, tombstone_changed, ts, err) != 0) {
        free(ts);
        return -1;
    }
    c->tokens = ts;
    return 0;
}

void tokens_free(struct core *c)
{
    free(c->tokens);
    c->tokens = NULL;
}

void tokens_forget(struct core *c)
{
    atomic_fetch_add(&c->tokens->changes, 1);
}

/* ---- names and latches ---- */

int token_name(struct core *c, enum token_name kind, const char *text,
               char out[TOKEN_HMAC_CHARS + 1], struct err *err)
{
    static const char hex[] = "0123456789abcdef";
    uint8_t key[32], mac[32];
    unsigned len = 0;
    int rc = -1;

    if (barrier_derive(c->barrier, kind == TOKEN_NAME_ID ? "token" : "accessor", key, err) != 0)
        return -1;
    if (HMAC(EVP_sha256(), key, sizeof(key), (const uint8_t *)text, strlen(text), mac, &len) ==
            NULL ||
        len != sizeof(mac)) {
        err_set(err, ERR_NOMEM, 0, "HMAC of a token");
        goto out;
    }
    for (size_t i = 0; i < sizeof(mac); i++) {
        out[2 * i] = hex[mac[i] >> 4];
        out[2 * i + 1] = hex[mac[i] & 15];
    }
    out[TOKEN_HMAC_CHARS] = '\0';
    rc = 0;
out:
    OPENSSL_cleanse(key, sizeof(key));
    return rc;
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

static const char *row_str(const json_t *row, const char *key)
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
    t->accessor = row_str(row, "accessor");
    t->display_name = row_str(row, "display_name");
    t->path = row_str(row, "path");
    t->parent_hmac = row_str(row, "parent");
    t->entity_id = row_str(row, "entity_id");
    t->role = row_str(row, "role");
    t->policies = json_object_get(row, "policies");
    t->meta = json_is_object(json_object_get(row, "meta")) ? json_object_get(row, "meta") : NULL;
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
    const char *parent = row_str(row, "parent");

    snprintf(path, sizeof(path), TOKEN_ID_PREFIX "%s", hmac);
    if (batch_delete(b, path, err) != 0)
        return -1;
    if (token_name(c, TOKEN_NAME_ACCESSOR, row_str(row, "accessor"), name, err) != 0)
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

static int trees_dying(struct core *c, bool *dyingp, struct err *err)
{
    uint64_t seen = atomic_load(&c->tokens->changes);
    json_t *keys = NULL;

    *dyingp = false;
    if (atomic_load(&c->tokens->empty_at) == seen)
        return 0;
    if (storage_list(c, TOKEN_REVOKE_PREFIX, &keys, err) != 0)
        return -1;
    *dyingp = json_array_size(keys) > 0;
    json_decref(keys);
    if (!*dyingp)
        atomic_store(&c->tokens->empty_at, seen);
    return 0;
}

static bool row_expired(const json_t *row, int64_t now_ms)
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
        snprintf(parent, sizeof(parent), "%s", row_str(row, "parent"));
        expired = row_expired(row, rq->now_ms);
        json_decref(row);
        if (expired)
            return err_set(err, ERR_DENIED, 0, "bad token");
    }
    return 0;
}

int token_alive(struct request *rq, const struct token *t, struct err *err)
{
    bool dying;

    if (row_expired(t->json, rq->now_ms))
        return err_set(err, ERR_DENIED, 0, "bad token");
    if (*t->parent_hmac == '\0')
        return 0;
    if (trees_dying(rq->core, &dying, err) != 0)
        return -1;
    /* The tree does not know batch tokens, so no sweep reaches them: their parents are always
     * looked at. */
    if (t->batch || dying || (t->chain_ms != 0 && rq->now_ms >= t->chain_ms))
        return chain_alive(rq, t, err);
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
    if (token_is_batch(id)) {
        json_t *row;

        if (token_batch_row(rq, id, &row, err) != 0)
            return -1;
        t = row_decode(rq, hmac, row);
        if (t == NULL)
            return err_set(err, ERR_NOMEM, 0, "token");
        t->batch = true;
    } else if (token_read(rq, hmac, &t, err) != 0) {
        if (err->code == ERR_NOTFOUND) {
            err_clear(err);
            err_set(err, ERR_DENIED, 0, "bad token");
        }
        return -1;
    }
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
    rc = token_read(rq, row_str(row, "token"), tp, err);
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

    return json_pack(
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

/* ---- revocation ---- */

struct names { /* keys of a scan, copied out of it */
    char (*list)[TOKEN_HMAC_CHARS + 1];
    size_t n, cap;
    size_t prefix_len;
};

static int name_each(void *arg, const char *key, const uint8_t *value, size_t len, uint64_t lsn,
                     struct err *err)
{
    struct names *ns = arg;

    (void)value;
    (void)len;
    (void)lsn;
    if (strlen(key) != ns->prefix_len + TOKEN_HMAC_CHARS || ns->n == ns->cap)
        return err_set(err, ERR_CORRUPT, 0, "row %s is not named as tokens are", key);
    memcpy(ns->list[ns->n++], key + ns->prefix_len, TOKEN_HMAC_CHARS + 1);
    return 0;
}

/* Up to cap token names under a prefix, after a name ("" : from the first). */
static int names_scan(struct core *c, const char *prefix, const char *after, size_t cap,
                      struct names *ns, struct err *err)
{
    char from[2 * TOKEN_PATH_BYTES];

    *ns = (struct names){.cap = cap, .prefix_len = strlen(prefix)};
    ns->list = calloc(cap, sizeof(*ns->list));
    if (ns->list == NULL)
        return err_set(err, ERR_NOMEM, 0, "token names");
    snprintf(from, sizeof(from), "%s%s", prefix, after);
    return engine_scan(c->engine, prefix, *after != '\0' ? from : NULL, cap, true, name_each, ns,
                       err);
}

struct deletes {
    struct batch *b;
};

static int delete_each(void *arg, const char *key, const uint8_t *value, size_t len, uint64_t lsn,
                       struct err *err)
{
    struct deletes *d = arg;

    (void)value;
    (void)len;
    (void)lsn;
    return batch_delete(d->b, key, err);
}

static int seen_each(void *arg, const char *key, const uint8_t *value, size_t len, uint64_t lsn,
                     struct err *err)
{
    (void)key;
    (void)value;
    (void)len;
    (void)lsn;
    (void)err;
    *(bool *)arg = true;
    return 0;
}

/* Whether rows hang on a token besides its own: then a tombstone keeps the rest of the work. */
static int has_more(struct core *c, const char *hmac, bool *morep, struct err *err)
{
    char prefix[TOKEN_PATH_BYTES];

    *morep = false;
    snprintf(prefix, sizeof(prefix), TOKEN_PARENT_PREFIX "%s/", hmac);
    if (engine_scan(c->engine, prefix, NULL, 1, true, seen_each, morep, err) != 0)
        return -1;
    snprintf(prefix, sizeof(prefix), CUBBYHOLE_PREFIX "%s/", hmac);
    return engine_scan(c->engine, prefix, NULL, 1, true, seen_each, morep, err);
}

static int put_tombstone(struct batch *b, const char *hmac, struct err *err)
{
    char path[TOKEN_PATH_BYTES];
    json_t *empty = json_object();
    int rc;

    snprintf(path, sizeof(path), TOKEN_REVOKE_PREFIX "%s", hmac);
    if (empty == NULL)
        return err_set(err, ERR_NOMEM, 0, "tombstone");
    rc = batch_put(b, path, empty, err);
    json_decref(empty);
    return rc;
}

/* Records that end one token; its latch is held. Unknown: nothing but the link. */
static int add_kill(struct core *c, struct batch *b, const char *hmac, const char *parent,
                    bool *morep, struct err *err)
{
    char path[TOKEN_PATH_BYTES];
    json_t *row = NULL;
    int rc;

    *morep = false;
    snprintf(path, sizeof(path), TOKEN_ID_PREFIX "%s", hmac);
    if (storage_get(c, path, &row, err) != 0) {
        if (err->code != ERR_NOTFOUND)
            return -1;
        err_clear(err);
        if (parent == NULL)
            return 0;
        snprintf(path, sizeof(path), TOKEN_PARENT_PREFIX "%s/%s", parent, hmac);
        return batch_delete(b, path, err);
    }
    rc = token_delete_rows(c, b, hmac, row, err);
    json_decref(row);
    if (rc != 0 || has_more(c, hmac, morep, err) != 0)
        return -1;
    return *morep ? put_tombstone(b, hmac, err) : 0;
}

/* One transaction of work on a tombstone. */
static int tree_step(struct core *c, const char *hmac, bool *donep, struct err *err)
{
    char prefix[TOKEN_PATH_BYTES];
    struct token_latch latches[SWEEP_ROWS_MAX / CHILD_ROWS];
    struct batch *b = batch_new(c);
    struct deletes d = {.b = b};
    struct names ns = {0};
    size_t held = 0;
    int rc = -1;

    *donep = false;
    if (b == NULL)
        return err_set(err, ERR_NOMEM, 0, "revoke");
    snprintf(prefix, sizeof(prefix), CUBBYHOLE_PREFIX "%s/", hmac);
    if (engine_scan(c->engine, prefix, NULL, SWEEP_ROWS_MAX, true, delete_each, &d, err) != 0)
        goto out;
    if (batch_count(b) == 0) {
        snprintf(prefix, sizeof(prefix), TOKEN_PARENT_PREFIX "%s/", hmac);
        if (names_scan(c, prefix, "", SWEEP_ROWS_MAX / CHILD_ROWS, &ns, err) != 0)
            goto out;
        for (size_t i = 0; i < ns.n; i++) { /* the scan is sorted, so latches are taken in order */
            bool more;

            token_latch(c, ns.list[i], &latches[held++]);
            if (add_kill(c, b, ns.list[i], hmac, &more, err) != 0)
                goto out;
        }
        if (ns.n == 0) {
            snprintf(prefix, sizeof(prefix), TOKEN_REVOKE_PREFIX "%s", hmac);
            if (batch_delete(b, prefix, err) != 0)
                goto out;
            *donep = true;
        }
    }
    rc = batch_commit(b, err);
    b = NULL;
out:
    while (held > 0)
        token_unlatch(c, &latches[--held]);
    batch_free(b);
    free(ns.list);
    return rc;
}

/* Work off every tombstone. Two at once only do the same work twice. */
static int trees_sweep(struct core *c, struct err *err)
{
    for (;;) {
        struct names ns;
        int rc = names_scan(c, TOKEN_REVOKE_PREFIX, "", SWEEP_ROWS_MAX, &ns, err);

        for (size_t i = 0; rc == 0 && i < ns.n; i++) {
            bool done = false;

            while (rc == 0 && !done)
                rc = tree_step(c, ns.list[i], &done, err);
        }
        free(ns.list);
        if (rc != 0 || ns.n == 0)
            return rc;
    }
}

int token_revoke(struct core *c, const char *hmac, struct err *err)
{
    struct token_latch latch;
    struct err sweep_err = {0};
    struct batch *b = batch_new(c);
    bool more = false;
    int rc;

    if (b == NULL)
        return err_set(err, ERR_NOMEM, 0, "revoke");
    token_latch(c, hmac, &latch);
    rc = add_kill(c, b, hmac, NULL, &more, err);
    if (rc == 0 && batch_count(b) > 0)
        rc = batch_commit(b, err);
    else
        batch_free(b);
    token_unlatch(c, &latch);
    if (rc != 0 || !more)
        return rc;
    /* The tree is dead now; what is left is cleaning up, which tokens_sweep takes up again when it
     * fails here. */
    if (trees_sweep(c, &sweep_err) != 0)
        log_warn(c->log, "token", "clean-up after a revocation is put off: %s", sweep_err.msg);
    return 0;
}

/* Cut up to a batch of children loose. */
static int orphan_step(struct core *c, const char *hmac, size_t *np, struct err *err)
{
    char path[TOKEN_PATH_BYTES];
    struct token_latch latches[SWEEP_ROWS_MAX / CHILD_ROWS];
    struct batch *b = batch_new(c);
    struct names ns = {0};
    json_t *row = NULL;
    size_t held = 0;
    int rc = -1;

    *np = 0;
    if (b == NULL)
        return err_set(err, ERR_NOMEM, 0, "revoke");
    snprintf(path, sizeof(path), TOKEN_PARENT_PREFIX "%s/", hmac);
    if (names_scan(c, path, "", SWEEP_ROWS_MAX / CHILD_ROWS, &ns, err) != 0)
        goto out;
    for (size_t i = 0; i < ns.n; i++) {
        token_latch(c, ns.list[i], &latches[held++]);
        snprintf(path, sizeof(path), TOKEN_PARENT_PREFIX "%s/%s", hmac, ns.list[i]);
        if (batch_delete(b, path, err) != 0)
            goto out;
        snprintf(path, sizeof(path), TOKEN_ID_PREFIX "%s", ns.list[i]);
        if (storage_get(c, path, &row, err) != 0) {
            if (err->code != ERR_NOTFOUND)
                goto out;
            err_clear(err);
            continue; /* a child that is gone leaves only its link */
        }
        if (json_object_set_new(row, "parent", json_string("")) != 0 ||
            json_object_set_new(row, "chain_ms", json_integer(0)) != 0 ||
            json_object_set_new(row, "orphan", json_true()) != 0) {
            err_set(err, ERR_NOMEM, 0, "orphan");
            goto out;
        }
        if (batch_put(b, path, row, err) != 0)
            goto out;
        json_decref(row);
        row = NULL;
    }
    *np = ns.n;
    rc = 0;
    if (ns.n > 0) {
        rc = batch_commit(b, err);
        b = NULL;
    }
out:
    while (held > 0)
        token_unlatch(c, &latches[--held]);
    json_decref(row);
    batch_free(b);
    free(ns.list);
    return rc;
}

static int orphan_all(struct core *c, const char *hmac, struct err *err)
{
    size_t n;

    do {
        if (orphan_step(c, hmac, &n, err) != 0)
            return -1;
    } while (n > 0);
    return 0;
}

int token_revoke_orphan(struct core *c, const char *hmac, struct err *err)
{
    struct token_latch latch;
    char path[TOKEN_PATH_BYTES];
    struct batch *b = NULL;
    json_t *row = NULL;
    int rc = -1;

    snprintf(path, sizeof(path), TOKEN_ID_PREFIX "%s", hmac);
    if (storage_get(c, path, &row, err) != 0)
        return -1;
    json_decref(row);
    row = NULL;
    if (orphan_all(c, hmac, err) != 0)
        return -1;
    token_latch(c, hmac, &latch);
    if (storage_get(c, path, &row, err) != 0)
        goto out;
    b = batch_new(c);
    if (b == NULL) {
        err_set(err, ERR_NOMEM, 0, "revoke");
        goto out;
    }
    if (token_delete_rows(c, b, hmac, row, err) != 0)
        goto out;
    rc = batch_commit(b, err);
    b = NULL;
out:
    token_unlatch(c, &latch);
    batch_free(b);
    json_decref(row);
    /* A child that was made after the first pass: it was answered as living, so it stays as an
     * orphan. */
    if (rc == 0)
        rc = orphan_all(c, hmac, err);
    if (rc == 0) { /* no children: this removes the cubbyhole */
        bool done = false;

        while (rc == 0 && !done)
            rc = tree_step(c, hmac, &done, err);
    }
    return rc;
}

static int sweep_expired(struct core *c, struct err *err)
{
    char after[TOKEN_HMAC_CHARS + 1] = "", path[TOKEN_PATH_BYTES];

    for (;;) {
        int64_t before = env_wall_ms(c->env) - EXPIRED_GRACE_MS;
        struct names ns;
        int rc = names_scan(c, TOKEN_ID_PREFIX, after, SWEEP_ROWS_MAX, &ns, err);

        for (size_t i = 0; rc == 0 && i < ns.n; i++) {
            json_t *row = NULL;
            bool expired;

            memcpy(after, ns.list[i], sizeof(after));
            snprintf(path, sizeof(path), TOKEN_ID_PREFIX "%s", ns.list[i]);
            rc = storage_get(c, path, &row, err);
            if (rc != 0 && err->code == ERR_NOTFOUND) {
                err_clear(err);
                rc = 0;
                continue;
            }
            expired = rc == 0 && row_expired(row, before);
            json_decref(row);
            if (expired)
                rc = token_revoke(c, ns.list[i], err);
        }
        free(ns.list);
        if (rc != 0 || ns.n < SWEEP_ROWS_MAX)
            return rc;
        if (co_current() != NULL)
            (void)co_wait_for(SWEEP_PAUSE_NS); /* others first */
        if (atomic_load(&c->stopping))
            return 0;
    }
}

void tokens_sweep(struct core *c)
{
    struct err err = {0};

    if (trees_sweep(c, &err) != 0 || sweep_expired(c, &err) != 0)
        log_warn(c->log, "token", "sweep of tokens stopped, the next one goes on: %s", err.msg);
}
