/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * userpass.c - the auth method of user names and passwords.
 *
 *     <mount prefix>user/<name>   {salt, hash, token_...}
 *
 * A password is kept as scrypt of it (N 2^14, r 8, p 1) under a salt of its own.
 */
#include <ctype.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <string.h>

#include "auth_login.h"
#include "core_private.h"
#include "mounts_private.h"
#include "token_private.h"

#define SALT_BYTES 16
#define HASH_BYTES 32
#define NAME_MAX_BYTES 256

static const char *const known_user[] = {"username",    "password",  "ttl", "max_ttl",
                                         "bound_cidrs", AUTH_FIELDS, NULL};
static const char *const known_login[] = {"username", "password", NULL};

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
    hex_of(h.salt, SALT_BYTES, salt);
    hex_of(h.hash, HASH_BYTES, hash);
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
    if (user == NULL && (user = auth_fields_new()) == NULL) {
        err_set(&err, ERR_NOMEM, 0, "user");
        goto failed;
    }
    if (part != PART_PASSWORD && auth_fields(rq, rs, user) != 0)
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

    if (key != NULL)
        storage_answer_delete(rq, rs, key);
}

static void user_list(struct request *rq, struct response *rs)
{
    storage_answer_list(rq, rs, arena_printf(rq->arena, "%suser/", rq->mount->prefix));
}

/* ---- login ---- */

static void login_as(struct request *rq, struct response *rs, const char *name, const json_t *user)
{
    json_t *meta = json_pack("{s:s}", "username", name);

    auth_login(rq, rs, user, &(struct auth_who){.name = name, .meta = meta}, batch_new(rq->core));
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
        login_as(rq, rs, strrchr(key, '/') + 1, user);
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
