/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * token_batch.c - batch tokens: "b." and the base64url of their row, sealed by the barrier. Nothing
 * is stored.
 *
 * So they work on a secondary that shares the barrier's keys, cannot be renewed or revoked, and end
 * with their time to live, or with their parent unless they are orphans.
 *
 * The seal is bound to the cluster's id, which a pair shares: a restored or drilled copy of the
 * data has the same keys but another id, so a token that was made there opens nothing here.
 */
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "policy_private.h"
#include "token_private.h"

#define BATCH_PATH "sys/token/batch/" /* + cluster id; no row lies there */
#define BATCH_TEXT_MAX 65536

bool token_is_batch(const char *id)
{
    return strncmp(id, "b.", 2) == 0 || strncmp(id, "hvb.", 4) == 0;
}

static void base64url(struct buf *out, const uint8_t *in, size_t len)
{
    static const char set[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    uint32_t bits = 0;
    unsigned n = 0;

    for (size_t i = 0; i < len; i++) {
        bits = bits << 8 | in[i];
        for (n += 8; n >= 6; n -= 6)
            buf_addc(out, set[bits >> (n - 6) & 63]);
    }
    if (n > 0)
        buf_addc(out, set[bits << (6 - n) & 63]);
}

static int digit(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (c == '-')
        return 62;
    return c == '_' ? 63 : -1;
}

static int unbase64url(struct buf *out, const char *in)
{
    uint32_t bits = 0;
    unsigned n = 0;

    for (; *in != '\0'; in++) {
        int d = digit(*in);

        if (d < 0)
            return -1;
        bits = bits << 6 | (uint32_t)d;
        n += 6;
        if (n >= 8) {
            n -= 8;
            buf_addc(out, (char)(uint8_t)(bits >> n));
        }
    }
    return (bits & ((1u << n) - 1)) != 0 || n >= 6 ? -1 : 0;
}

static int batch_path(struct core *c, char out[64], struct err *err)
{
    char id[40], name[128];

    if (core_cluster(c, id, name, err) != 0)
        return -1;
    snprintf(out, 64, BATCH_PATH "%s", id);
    return 0;
}

int token_batch_new(struct request *rq, json_t *row, const char **idp, struct err *err)
{
    struct buf text = {.secret = true}, sealed = {0}, id = {.secret = true};
    char path[64];
    int rc = -1;

    *idp = NULL;
    json_write(&text, row);
    if (buf_check(&text, err) != 0 || batch_path(rq->core, path, err) != 0 ||
        barrier_encrypt(rq->core->barrier, path, text.data, text.len, &sealed, err) != 0)
        goto out;
    buf_adds(&id, "b.");
    base64url(&id, sealed.data, sealed.len);
    if (buf_check(&id, err) != 0)
        goto out;
    if (id.len > BATCH_TEXT_MAX) {
        err_set(err, ERR_INVAL, 0, "a batch token with so many policies or metadata is too long");
        goto out;
    }
    *idp = arena_strdup(rq->arena, buf_str(&id));
    rc = *idp != NULL ? 0 : err_set(err, ERR_NOMEM, 0, "batch token");
out:
    buf_free(&text);
    buf_free(&sealed);
    buf_free(&id);
    return rc;
}

int token_batch_row(struct request *rq, const char *id, json_t **rowp, struct err *err)
{
    struct buf sealed = {0}, text = {.secret = true};
    struct err why = {0};
    char path[64];
    int rc = -1;

    *rowp = NULL;
    if (strlen(id) > BATCH_TEXT_MAX || unbase64url(&sealed, strchr(id, '.') + 1) != 0) {
        err_set(err, ERR_DENIED, 0, "bad token");
        goto out;
    }
    if (buf_check(&sealed, err) != 0 || batch_path(rq->core, path, err) != 0)
        goto out;
    if (barrier_decrypt(rq->core->barrier, path, sealed.data, sealed.len, &text, &why) != 0) {
        if (why.code == ERR_SEALED || why.code == ERR_NOMEM)
            *err = why;
        else
            err_set(err, ERR_DENIED, 0, "bad token");
        goto out;
    }
    *rowp = request_keep(rq, json_read(text.data, text.len, &why));
    rc = *rowp != NULL ? 0 : err_set(err, ERR_NOMEM, 0, "batch token");
out:
    buf_free(&sealed);
    buf_free(&text);
    return rc;
}

bool token_batch_allows(const struct request *from, const char *id, const char *path)
{
    struct request rq = {.core = from->core, .http = from->http, .now_ms = from->now_ms};
    struct err err = {0};
    struct token *t;
    unsigned caps = 0;
    bool ok;

    if (!token_is_batch(id))
        return false;
    rq.arena = arena_new(4096);
    if (rq.arena == NULL)
        return false;
    ok = token_lookup(&rq, id, &t, &err) == 0 && t->batch && t->orphan && token_from_here(&rq, t) &&
         policy_capabilities(&rq, t, path, &caps, &err) == 0 &&
         (caps & (CAP_UPDATE | CAP_ROOT)) != 0;
    json_decref(rq.keep);
    arena_free(rq.arena);
    return ok;
}
