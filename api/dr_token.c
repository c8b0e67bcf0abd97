/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * dr_token.c - DR operation tokens of this cluster: kept as SHA-256 in the engine's local space.
 *
 * A token has 24 random base62 characters, so a plain hash does not give it away. They are local:
 * never shipped, and void after a promotion. The newest DR_TOKENS_MAX are kept; the log says when
 * one more voids the oldest.
 *
 * While a first copy is not whole, shares are those of the cluster that it is to replace. Tokens of
 * those are a list of their own, which counts only then: else holders of keys that the copy makes
 * worthless could make a token before the switch, and promote the primary's data with it after.
 */
#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <string.h>

#include "cluster_private.h"

#define LATCH "local/dr_tokens"
#define LIST "dr_tokens" /* hashes one after the other, oldest first */
#define LIST_FIRST_COPY "dr_tokens_first_copy"
#define HASH_BYTES 32u
#define DR_TOKENS_MAX 16u

struct put {
    struct core *core;
    const char *list;
    const struct buf *data;
    struct err *err;
    int rc;
};

static void put_blocking(void *arg)
{
    struct put *p = arg;

    p->rc = engine_local_put(p->core->engine, p->list, p->data->data, p->data->len, p->err);
}

static int store(struct core *c, const char *list, const struct buf *hashes, struct err *err)
{
    struct put p = {.core = c, .list = list, .data = hashes, .err = err};

    run_blocking(put_blocking, &p);
    return p.rc;
}

static const char *list_now(const struct core *c)
{
    return c->role == ENGINE_BOOTSTRAPPING ? LIST_FIRST_COPY : LIST;
}

static int load(struct core *c, const char *list, struct buf *out, struct err *err)
{
    struct err why = {0};

    if (engine_local_get(c->engine, list, out, &why) == 0) {
        if (out->len % HASH_BYTES != 0)
            return err_set(err, ERR_CORRUPT, 0, "the list of DR operation tokens is damaged");
        return 0;
    }
    if (why.code == ERR_NOTFOUND)
        return 0;
    return err_set(err, why.code, 0, "%s", why.msg);
}

static void hash_token(const char *token, uint8_t out[HASH_BYTES])
{
    SHA256((const uint8_t *)token, strlen(token), out);
}

/* Looks at all, so that time tells nothing. Index, or -1. */
static int find(const struct buf *hashes, const uint8_t hash[HASH_BYTES])
{
    int at = -1;

    for (size_t i = 0; i < hashes->len / HASH_BYTES; i++)
        if (CRYPTO_memcmp(hashes->data + i * HASH_BYTES, hash, HASH_BYTES) == 0)
            at = (int)i;
    return at;
}

bool dr_token_valid(struct core *c, const char *token)
{
    const char *list = list_now(c);
    struct buf hashes = {0};
    uint8_t hash[HASH_BYTES];
    struct err err = {0};
    bool valid = false;

    if (token == NULL || token[0] == '\0')
        return false;
    hash_token(token, hash);
    if (load(c, list, &hashes, &err) != 0)
        log_error(c->log, "replication", "cannot read the DR operation tokens: %s", err.msg);
    else
        valid = find(&hashes, hash) >= 0;
    buf_free(&hashes);
    return valid;
}

int dr_token_store(struct core *c, const char *token, bool first_copy, struct err *err)
{
    const char *list = first_copy ? LIST_FIRST_COPY : LIST;
    struct buf hashes = {0}, next = {0};
    uint8_t hash[HASH_BYTES];
    struct latch_ref latch;
    size_t from = 0;
    int rc = -1;

    hash_token(token, hash);
    if (latch_take(c, LATCH, &latch, err) != 0)
        return -1;
    if (load(c, list, &hashes, err) != 0)
        goto out;
    if (hashes.len >= DR_TOKENS_MAX * HASH_BYTES)
        from = hashes.len - (DR_TOKENS_MAX - 1) * HASH_BYTES;
    buf_add(&next, hashes.data + from, hashes.len - from);
    buf_add(&next, hash, HASH_BYTES);
    if (buf_check(&next, err) == 0)
        rc = store(c, list, &next, err);
    if (rc == 0 && from > 0)
        log_warn(c->log, "replication",
                 "the oldest DR operation token is void: the newest %u are kept", DR_TOKENS_MAX);
out:
    latch_release(c, &latch);
    buf_free(&hashes);
    buf_free(&next);
    return rc;
}

int dr_token_delete(struct core *c, const char *token, struct err *err)
{
    const char *list = list_now(c);
    struct buf hashes = {0};
    uint8_t hash[HASH_BYTES];
    struct latch_ref latch;
    int rc = -1, at;

    hash_token(token, hash);
    if (latch_take(c, LATCH, &latch, err) != 0)
        return -1;
    if (load(c, list, &hashes, err) != 0)
        goto out;
    at = find(&hashes, hash);
    if (at < 0) {
        err_set(err, ERR_NOTFOUND, 0, "not a DR operation token of the key holders");
        goto out;
    }
    hashes.len -= HASH_BYTES;
    memmove(hashes.data + (size_t)at * HASH_BYTES, hashes.data + ((size_t)at + 1) * HASH_BYTES,
            hashes.len - (size_t)at * HASH_BYTES);
    rc = store(c, list, &hashes, err);
out:
    latch_release(c, &latch);
    buf_free(&hashes);
    return rc;
}

static int clear(struct core *c, const char *list, struct err *err)
{
    struct buf hashes = {0}, none = {0};
    int rc = load(c, list, &hashes, err);

    if (rc != 0 || hashes.len > 0) /* a damaged list ends too */
        rc = store(c, list, &none, err);
    buf_free(&hashes);
    return rc;
}

int dr_token_clear(struct core *c, struct err *err)
{
    struct latch_ref latch;
    int rc;

    if (latch_take(c, LATCH, &latch, err) != 0)
        return -1;
    rc = clear(c, LIST, err);
    if (clear(c, LIST_FIRST_COPY, err) != 0)
        rc = -1;
    latch_release(c, &latch);
    return rc;
}
