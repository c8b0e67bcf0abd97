/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * userpass.c - the auth method of user names and passwords.
 *
 *     <mount prefix>user/<name>                  {salt, hash, token_...}
 *     <mount prefix>token/<expiry>/<token hmac>  {}: a token that a login gave out
 *
 * A password is kept as scrypt of it (N 2^14, r 8, p 1) under a salt of its own. The second kind of
 * row goes into the transaction that makes the token, so that disabling the mount can revoke each
 * of them (sweep.c); expiry is 16 hex digits of milliseconds, so that rows of tokens that have
 * expired come first and are dropped by the way.
 */
#include <ctype.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <string.h>

#include "core.h"
#include "mounts_private.h"
#include "token_private.h"

#define SALT_BYTES 16
#define HASH_BYTES 32
#define NAME_MAX_BYTES 256
#define DROPPED_AT_ONCE 16

static const char *const known_user[] = {"username",
                                         "password",
                                         "policies",
                                         "ttl",
                                         "max_ttl",
                                         "token_policies",
                                         "token_ttl",
                                         "token_max_ttl",
                                         "token_explicit_max_ttl",
                                         "token_period",
                                         "token_num_uses",
                                         "token_no_default_policy",
                                         "token_bound_cidrs",
                                         "token_type",
                                         NULL};
static const char *const known_login[] = {"username", "password", NULL};
static const char *const seconds_fields[] = {"token_ttl", "token_max_ttl", "token_explicit_max_ttl",
                                             "token_period"};

/* ---- passwords ---- */

struct hashing { /* for the helper thread */
    const char *password;
    uint8_t salt[SALT_BYTES], hash[HASH_BYTES];
    int ok;
};

static void hash_work(void *arg)
{
    struct hashing *h = arg;

    h->ok = EVP_PBE_scrypt(h->password, strlen(h->password), h->salt, SALT_BYTES, 1 << 14, 8, 1,
                           64 << 20, h->hash, HASH_BYTES);
}

static void to_hex(const uint8_t *in, size_t n, char *out)
{
    for (size_t i = 0; i < n; i++)
        snprintf(out + 2 * i, 3, "%02x", in[i]);
}

static bool from_hex(const char *in, uint8_t *out, size_t n)
{
    if (in == NULL || strlen(in) != 2 * n)
        return false;
    for (size_t i = 0; i < n; i++) {
        unsigned byte;

        if (sscanf(in + 2 * i, "%2x", &byte) != 1)
            return false;
        out[i] = (uint8_t)byte;
    }
    return true;
}

static int set_password(struct request *rq, json_t *user, const char *password, struct err *err)
{
    struct hashing h = {.password = password};
    char salt[2 * SALT_BYTES + 1], hash[2 * HASH_BYTES + 1];

    env_random(rq->core->env, h.salt, sizeof(h.salt));
    co_blocking(hash_work, &h);
    to_hex(h.salt, SALT_BYTES, salt);
    to_hex(h.hash, HASH_BYTES, hash);
    if (h.ok != 1 || json_object_set_new(user, "salt", json_string(salt)) != 0 ||
        json_object_set_new(user, "hash", json_string(hash)) != 0)
        return err_set(err, ERR_NOMEM, 0, "password");
    return 0;
}

/* user NULL costs the same time, so that nobody learns which names exist. */
static bool password_matches(const json_t *user, const char *password)
{
    struct hashing h = {.password = password};
    uint8_t want[HASH_BYTES] = {0};
    bool known = from_hex(json_string_value(json_object_get(user, "salt")), h.salt, SALT_BYTES) &&
                 from_hex(json_string_value(json_object_get(user, "hash")), want, HASH_BYTES);

    co_blocking(hash_work, &h);
    return CRYPTO_memcmp(want, h.hash, HASH_BYTES) == 0 && known && h.ok == 1;
}

/* ---- users ---- */

/* The row's key; names are in lower case. NULL: answered. */
static const char *user_key(struct request *rq, struct response *rs, const char *name)
{
    char *key = arena_printf(rq->arena, "%suser/%s", rq->mount->prefix, name);

    if (key == NULL || strlen(name) > NAME_MAX_BYTES) {
        if (key == NULL)
            reply_router_error(rs, 500, "out of memory");
        else
            reply_error(rs, 400, "user name is too long");
        return NULL;
    }
    for (char *p = key + strlen(rq->mount->prefix); *p != '\0'; p++)
        *p = (char)tolower((unsigned char)*p);
    return key;
}

static int user_load(struct request *rq, const char *key, json_t **userp, struct err *err)
{
    if (storage_get(rq->core, key, userp, err) == 0)
        return 0;
    if (err->code != ERR_NOTFOUND)
        return -1;
    err_clear(err);
    return 0;
}

static json_t *user_new(void)
{
    return json_pack("{s:[],s:i,s:[],s:i,s:b,s:i,s:i,s:i,s:s}", "token_bound_cidrs",
                     "token_explicit_max_ttl", 0, "token_policies", "token_max_ttl", 0,
                     "token_no_default_policy", 0, "token_num_uses", 0, "token_period", 0,
                     "token_ttl", 0, "token_type", "default");
}

/* Put what the request gives into user. -1: answered. */
static int user_fields(struct request *rq, struct response *rs, json_t *user)
{
    json_t *list = NULL, *cidrs = NULL;
    const char *type;
    int64_t n;
    bool yes;
    int bad = 0;

    if (field_list(rq, rs, "token_bound_cidrs", &cidrs) != 0)
        return -1;
    n = (int64_t)json_array_size(cidrs);
    json_decref(cidrs);
    if (n > 0) {
        reply_error(rs, 400, "token_bound_cidrs is not supported here; nothing was stored");
        return -1;
    }
    if (field_str(rq, rs, "token_type", "default", &type) != 0)
        return -1;
    if (strcmp(type, "default") != 0 && strcmp(type, "service") != 0 &&
        strcmp(type, "default-service") != 0) {
        reply_error(rs, 400, "invalid 'token_type' value");
        return -1;
    }
    for (size_t i = 0; i < sizeof(seconds_fields) / sizeof(seconds_fields[0]); i++) {
        if (field_seconds(rq, rs, seconds_fields[i], 0, &n) != 0)
            return -1;
        if (field_given(rq, seconds_fields[i]))
            bad |= json_object_set_new(user, seconds_fields[i], json_integer(n));
    }
    if (field_int(rq, rs, "token_num_uses", 0, &n) != 0 ||
        field_bool(rq, rs, "token_no_default_policy", false, &yes) != 0)
        return -1;
    if (n < 0) {
        reply_error(rs, 400, "'token_num_uses' cannot be negative");
        return -1;
    }
    if (field_given(rq, "token_num_uses"))
        bad |= json_object_set_new(user, "token_num_uses", json_integer(n));
    if (field_given(rq, "token_no_default_policy"))
        bad |= json_object_set_new(user, "token_no_default_policy", json_boolean(yes));
    if (field_list(rq, rs, field_given(rq, "token_policies") ? "token_policies" : "policies",
                   &list) != 0)
        return -1;
    if (list != NULL)
        bad |= json_object_set_new(user, "token_policies", list);
    if (bad != 0) {
        reply_router_error(rs, 500, "out of memory");
        return -1;
    }
    return 0;
}

/* What of a user a write may set. */
enum part { PART_ALL, PART_PASSWORD, PART_POLICIES };

static void user_write(struct request *rq, struct response *rs, const char *name, enum part part)
{
    const char *key = user_key(rq, rs, name), *password;
    struct batch *b = NULL;
    struct latch_ref latch;
    struct err err = {0};
    json_t *user = NULL;

    if (key == NULL || field_str(rq, rs, "password", "", &password) != 0)
        return;
    latch_acquire(rq->core, key, &latch);
    if (user_load(rq, key, &user, &err) != 0)
        goto failed;
    if (password[0] == '\0' && part != PART_POLICIES && (user == NULL || part == PART_PASSWORD)) {
        reply_error(rs, 400, "missing password");
        goto out;
    }
    if (user == NULL && part != PART_ALL) {
        reply_error(rs, 400, "username does not exist");
        goto out;
    }
    if (user == NULL && (user = user_new()) == NULL) {
        err_set(&err, ERR_NOMEM, 0, "user");
        goto failed;
    }
    if (part != PART_PASSWORD && user_fields(rq, rs, user) != 0)
        goto out;
    if (part != PART_POLICIES && password[0] != '\0' && set_password(rq, user, password, &err) != 0)
        goto failed;
    b = batch_new(rq->core);
    if (b == NULL) {
        err_set(&err, ERR_NOMEM, 0, "user");
        goto failed;
    }
    if (batch_put(b, key, user, &err) == 0) {
        struct batch *whole = b;

        b = NULL;
        if (batch_commit(whole, &err) == 0) {
            reply_empty(rs);
            goto out;
        }
    }
failed:
    reply_err(rs, &err);
out:
    latch_release(rq->core, &latch);
    batch_free(b);
    json_decref(user);
}

static void user_read(struct request *rq, struct response *rs, const char *name)
{
    const char *key = user_key(rq, rs, name);
    struct err err = {0};
    json_t *user = NULL;

    if (key == NULL)
        return;
    if (user_load(rq, key, &user, &err) != 0) {
        reply_err(rs, &err);
        return;
    }
    if (user == NULL) {
        reply_no_errors(rs, 404);
        return;
    }
    json_object_del(user, "salt");
    json_object_del(user, "hash");
    reply_data(rs, user);
}

static void user_delete(struct request *rq, struct response *rs, const char *name)
{
    const char *key = user_key(rq, rs, name);
    struct batch *b;
    struct err err = {0};

    if (key == NULL)
        return;
    b = batch_new(rq->core);
    if (b == NULL)
        err_set(&err, ERR_NOMEM, 0, "user");
    else if (batch_delete(b, key, &err) != 0)
        batch_free(b);
    else if (batch_commit(b, &err) == 0) {
        reply_empty(rs);
        return;
    }
    reply_err(rs, &err);
}

static void user_list(struct request *rq, struct response *rs)
{
    const char *folder = arena_printf(rq->arena, "%suser/", rq->mount->prefix);
    json_t *keys = NULL;
    struct err err = {0};

    if (folder == NULL)
        err_set(&err, ERR_NOMEM, 0, "users");
    if (folder == NULL || storage_list(rq->core, folder, &keys, &err) != 0)
        reply_err(rs, &err);
    else if (json_array_size(keys) == 0)
        reply_no_errors(rs, 404);
    else
        reply_data(rs, json_pack("{s:O}", "keys", keys));
    json_decref(keys);
}

/* ---- login ---- */

static int64_t least(int64_t ttl, int64_t bound)
{
    return bound > 0 && ttl > bound ? bound : ttl;
}

static int64_t user_int(const json_t *user, const char *name)
{
    return json_integer_value(json_object_get(user, name));
}

static int drop_key(void *arg, const char *key, const uint8_t *value, size_t len, uint64_t lsn,
                    struct err *err)
{
    void **args = arg;

    (void)value;
    (void)len;
    (void)lsn;
    /* Keys are in the order of their times, so the first that is to come ends it. */
    if (strcmp(key, args[1]) >= 0)
        return 1;
    return batch_delete(args[0], key, err);
}

/* The row that leads from the mount to a token of it; and some of those whose tokens have expired
 * go. */
static int link_token(struct request *rq, struct batch *b, const struct token *t, int64_t max_ms,
                      struct err *err)
{
    const char *folder = arena_printf(rq->arena, "%stoken/", rq->mount->prefix);
    const char *now = arena_printf(rq->arena, "%stoken/%016llx", rq->mount->prefix,
                                   (unsigned long long)rq->now_ms);
    const char *key = arena_printf(rq->arena, "%stoken/%016llx/%s", rq->mount->prefix,
                                   (unsigned long long)max_ms, t->hmac);
    void *args[] = {b, (void *)now};
    json_t *empty = json_object();
    int rc = -1;

    if (folder == NULL || now == NULL || key == NULL || empty == NULL)
        err_set(err, ERR_NOMEM, 0, "login");
    else if (engine_scan(rq->core->engine, folder, NULL, DROPPED_AT_ONCE, true, drop_key, args,
                         err) == 0)
        rc = batch_put(b, key, empty, err);
    json_decref(empty);
    return rc;
}

/* Make the token of a login that was right. */
static void login_token(struct request *rq, struct response *rs, const char *name,
                        const json_t *user)
{
    const struct mount *m = rq->mount;
    int64_t period = user_int(user, "token_period"), ttl = user_int(user, "token_ttl"),
            longest = INT64_MAX / 2000;
    int64_t explicit_max = user_int(user, "token_explicit_max_ttl"),
            max = user_int(user, "token_max_ttl");
    json_t *policies =
        policies_sanitize(json_object_get(user, "token_policies"),
                          !json_is_true(json_object_get(user, "token_no_default_policy")));
    json_t *meta = json_pack("{s:s}", "username", name);
    struct batch *b = batch_new(rq->core);
    struct token *t = NULL;
    struct err err = {0};
    struct token_new n = {.policies = policies,
                          .meta = meta,
                          .path = rq->full_path,
                          .period_s = period,
                          .num_uses = user_int(user, "token_num_uses"),
                          .orphan = true,
                          .renewable = true};

    /* A token's row knows one bound on its whole life: the least of those that the user has. */
    n.explicit_max_ttl_s = explicit_max > 0 ? least(explicit_max, max) : max;
    n.ttl_s = period > 0 ? period
                         : least(ttl > 0 ? ttl : mount_default_ttl(rq->core, m),
                                 mount_max_ttl(rq->core, m));
    n.ttl_s = least(n.ttl_s, n.explicit_max_ttl_s);
    /* Renewed for ever, the token lives at most so long. */
    if (n.explicit_max_ttl_s > 0)
        longest = n.explicit_max_ttl_s;
    else if (period == 0)
        longest = mount_max_ttl(rq->core, m) + rq->core->config->max_lease_ttl_s;
    n.display_name =
        arena_printf(rq->arena, "%.*s-%s", (int)strlen(m->path) - 6, m->path + 5, name);
    if (policies == NULL || meta == NULL || b == NULL || n.display_name == NULL)
        err_set(&err, ERR_NOMEM, 0, "login");
    else if (token_create(rq, b, &n, &t, &err) == 0 &&
             link_token(rq, b, t, rq->now_ms + longest * 1000, &err) == 0) {
        struct batch *whole = b;

        b = NULL;
        if (batch_commit(whole, &err) == 0)
            rs->auth = token_auth_block(t, n.ttl_s);
        if (err.code == ERR_OK && rs->auth == NULL)
            err_set(&err, ERR_NOMEM, 0, "login");
    }
    if (err.code != ERR_OK)
        reply_err(rs, &err);
    batch_free(b);
    json_decref(policies);
    json_decref(meta);
}

static void login(struct request *rq, struct response *rs, const char *name)
{
    const char *key, *password;
    struct err err = {0};
    json_t *user = NULL;

    if (rq->op != OP_WRITE) {
        reply_unsupported(rs);
        return;
    }
    key = user_key(rq, rs, name);
    if (key == NULL || field_str(rq, rs, "password", "", &password) != 0)
        return;
    if (password[0] == '\0') {
        reply_router_error(rs, 500, "missing password");
        return;
    }
    if (user_load(rq, key, &user, &err) != 0) {
        reply_err(rs, &err);
        return;
    }
    if (!password_matches(user, password))
        reply_error(rs, 400, "invalid username or password");
    else
        login_token(rq, rs, strrchr(key, '/') + 1, user);
    json_decref(user);
    warn_unknown(rq, rs, false, known_login);
}

/* ---- which path ---- */

static void user_handle(struct request *rq, struct response *rs, const char *name)
{
    const char *slash = strchr(name, '/');
    enum part part = PART_ALL;

    if (slash != NULL && strcmp(slash, "/password") == 0)
        part = PART_PASSWORD;
    else if (slash != NULL && strcmp(slash, "/policies") == 0)
        part = PART_POLICIES;
    else if (slash != NULL) {
        reply_unsupported_path(rs);
        return;
    }
    if (slash != NULL)
        name = arena_strndup(rq->arena, name, (size_t)(slash - name));
    if (name == NULL)
        reply_router_error(rs, 500, "out of memory");
    else if (rq->op == OP_WRITE)
        user_write(rq, rs, name, part);
    else if (rq->op == OP_READ && part == PART_ALL)
        user_read(rq, rs, name);
    else if (rq->op == OP_DELETE && part == PART_ALL)
        user_delete(rq, rs, name);
    else
        reply_unsupported(rs);
    warn_unknown(rq, rs, false, known_user);
}

/* What follows prefix in the path, when there is something; else NULL. */
static const char *after(const char *path, const char *prefix)
{
    size_t len = strlen(prefix);

    return strncmp(path, prefix, len) == 0 && path[len] != '\0' ? path + len : NULL;
}

void userpass_handle(struct request *rq, struct response *rs)
{
    const char *user = after(rq->path, "users/"), *who = after(rq->path, "login/");

    if (who != NULL && strchr(who, '/') == NULL)
        login(rq, rs, who);
    else if (strcmp(rq->path, "users/") == 0 && rq->op == OP_LIST)
        user_list(rq, rs);
    else if (user != NULL)
        user_handle(rq, rs, user);
    else
        reply_unsupported_path(rs);
}

bool userpass_exists(struct request *rq)
{
    const char *user = after(rq->path, "users/"), *key;
    struct buf value = {.secret = true};
    struct response ignored = {0};
    struct err err = {0};
    bool yes;

    if (user == NULL || strchr(user, '/') != NULL)
        return true; /* these writes are updates */
    key = user_key(rq, &ignored, user);
    json_decref(ignored.errors);
    yes = key == NULL || engine_get(rq->core->engine, key, &value, &err) == 0;
    buf_free(&value);
    return yes;
}
