/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * ceremony.c - a token from key shares: sys/generate-root, and generate-operation-token on a DR
 * secondary.
 *
 * Anybody may start an attempt, so a stranger must not be able to stand in the way of the key
 * holders (CVE-2026-5807): each client address has an attempt of its own, at most ATTEMPTS_MAX
 * live, each for ATTEMPT_MS. Starting twice from one address is Vault's 400; DELETE ends the
 * caller's own, or the one whose nonce it names. Update finds the attempt by its nonce, from any
 * address. A full table gives up the oldest attempt that has no share yet; those with shares stay.
 *
 * Shares and the one-time pad live in secure memory and go with the attempt. Nothing is stored: a
 * restart ends all attempts.
 */
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "ceremony.h"
#include "core.h"
#include "core_private.h"
#include "token.h"

struct ceremonies {
    pthread_mutex_t mutex;
    struct attempt *attempts[ATTEMPTS_MAX]; /* NULL: free */
};

struct ceremonies *ceremonies_new(void)
{
    struct ceremonies *cs = calloc(1, sizeof(*cs));

    if (cs != NULL)
        pthread_mutex_init(&cs->mutex, NULL);
    return cs;
}

static void attempt_end(struct ceremonies *cs, size_t i)
{
    struct attempt *a = cs->attempts[i];

    cs->attempts[i] = NULL;
    if (a == NULL)
        return;
    shares_clear(&a->shares);
    OPENSSL_secure_clear_free(a, sizeof(*a));
}

void ceremonies_drop(struct ceremonies *cs)
{
    pthread_mutex_lock(&cs->mutex);
    for (size_t i = 0; i < ATTEMPTS_MAX; i++)
        attempt_end(cs, i);
    pthread_mutex_unlock(&cs->mutex);
}

void ceremonies_free(struct ceremonies *cs)
{
    if (cs == NULL)
        return;
    ceremonies_drop(cs);
    pthread_mutex_destroy(&cs->mutex);
    free(cs);
}

void ceremony_address(const char *ip, char out[ADDRESS_BYTES])
{
    size_t colons = 0;

    snprintf(out, ADDRESS_BYTES, "%s", ip);
    if (strncmp(ip, "::ffff:", 7) == 0 && strchr(ip, '.') != NULL) {
        snprintf(out, ADDRESS_BYTES, "%s", ip + 7);
        return;
    }
    /* One host owns a whole /64: its addresses count as one. A compressed form within the prefix
     * stays as it is. */
    for (char *p = out; *p != '\0'; p++)
        if (*p == ':' && (p[1] == ':' || ++colons == 4)) {
            *p = '\0';
            return;
        }
}

static void expire(struct ceremonies *cs, int64_t now_ms)
{
    for (size_t i = 0; i < ATTEMPTS_MAX; i++)
        if (cs->attempts[i] != NULL &&
            (now_ms >= cs->attempts[i]->end_ms || now_ms < cs->attempts[i]->end_ms - ATTEMPT_MS))
            attempt_end(cs, i);
}

/* Slot of the caller's own attempt, -1: none. */
static int find_own(struct ceremonies *cs, enum ceremony_kind kind, const char *address)
{
    for (int i = 0; i < ATTEMPTS_MAX; i++)
        if (cs->attempts[i] != NULL && cs->attempts[i]->kind == kind &&
            strcmp(cs->attempts[i]->address, address) == 0)
            return i;
    return -1;
}

static int find_nonce(struct ceremonies *cs, enum ceremony_kind kind, const char *nonce)
{
    for (int i = 0; i < ATTEMPTS_MAX; i++)
        if (cs->attempts[i] != NULL && cs->attempts[i]->kind == kind &&
            strcmp(cs->attempts[i]->nonce, nonce) == 0)
            return i;
    return -1;
}

static int free_slot(struct ceremonies *cs)
{
    int oldest = -1;

    for (int i = 0; i < ATTEMPTS_MAX; i++) {
        const struct attempt *a = cs->attempts[i];
        if (a == NULL)
            return i;
        if (a->shares.n == 0 && (oldest < 0 || a->end_ms < cs->attempts[oldest]->end_ms))
            oldest = i;
    }
    if (oldest >= 0)
        attempt_end(cs, (size_t)oldest);
    return oldest;
}

int ceremony_start(struct ceremonies *cs, const struct attempt_new *n, struct attempt_view *view,
                   struct err *err)
{
    struct attempt *a;
    int slot, rc = -1;

    if (strlen(n->otp) != TOKEN_ID_BYTES)
        return err_set(err, ERR_INVAL, 0, "OTP string is wrong length");
    pthread_mutex_lock(&cs->mutex);
    expire(cs, n->now_ms);
    if (find_own(cs, n->kind, n->address) >= 0) {
        err_set(err, ERR_INVAL, 0, "root generation already in progress");
        goto out;
    }
    slot = free_slot(cs);
    if (slot < 0) {
        err_set(err, ERR_INVAL, 0, "%d attempts are in progress; each ends after %d minutes",
                ATTEMPTS_MAX, ATTEMPT_MS / 60000);
        goto out;
    }
    a = OPENSSL_secure_zalloc(sizeof(*a));
    if (a == NULL) {
        err_set(err, ERR_NOMEM, 0, "root generation");
        goto out;
    }
    a->kind = n->kind;
    a->end_ms = n->now_ms + ATTEMPT_MS;
    snprintf(a->address, sizeof(a->address), "%s", n->address);
    snprintf(a->nonce, sizeof(a->nonce), "%s", n->nonce);
    memcpy(a->otp, n->otp, TOKEN_ID_BYTES);
    cs->attempts[slot] = a;
    *view = (struct attempt_view){.started = true};
    snprintf(view->nonce, sizeof(view->nonce), "%s", a->nonce);
    rc = 0;
out:
    pthread_mutex_unlock(&cs->mutex);
    return rc;
}

void ceremony_status(struct ceremonies *cs, enum ceremony_kind kind, const char *address,
                     int64_t now_ms, struct attempt_view *view)
{
    int slot;

    *view = (struct attempt_view){0};
    pthread_mutex_lock(&cs->mutex);
    expire(cs, now_ms);
    slot = find_own(cs, kind, address);
    if (slot >= 0) {
        view->started = true;
        view->progress = cs->attempts[slot]->shares.n;
        snprintf(view->nonce, sizeof(view->nonce), "%s", cs->attempts[slot]->nonce);
    }
    pthread_mutex_unlock(&cs->mutex);
}

void ceremony_cancel(struct ceremonies *cs, enum ceremony_kind kind, const char *address,
                     const char *nonce, int64_t now_ms)
{
    int slot;

    pthread_mutex_lock(&cs->mutex);
    expire(cs, now_ms);
    slot = nonce[0] != '\0' ? find_nonce(cs, kind, nonce) : find_own(cs, kind, address);
    if (slot >= 0)
        attempt_end(cs, (size_t)slot);
    pthread_mutex_unlock(&cs->mutex);
}

int ceremony_share(struct ceremonies *cs, const struct share_given *g, struct attempt_view *view,
                   struct shares *whole, uint8_t otp[TOKEN_ID_BYTES], struct err *err)
{
    struct attempt *a;
    int slot, added, rc = -1;

    pthread_mutex_lock(&cs->mutex);
    expire(cs, g->now_ms);
    slot = find_nonce(cs, g->kind, g->nonce);
    if (slot < 0) {
        int own = find_own(cs, g->kind, g->address);
        if (own < 0)
            err_set(err, ERR_INVAL, 0, "no root generation in progress");
        else
            err_set(err, ERR_INVAL, 0,
                    "incorrect nonce supplied; nonce for this root generation operation is \"%s\"",
                    cs->attempts[own]->nonce);
        goto out;
    }
    a = cs->attempts[slot];
    added = shares_add(&a->shares, g->part, g->len);
    if (added <= 0) {
        err_set(err, added == 0 ? ERR_INVAL : ERR_NOMEM, 0,
                "given key has already been provided during this generation operation");
        goto out;
    }
    *view = (struct attempt_view){.started = true, .progress = a->shares.n};
    snprintf(view->nonce, sizeof(view->nonce), "%s", a->nonce);
    if (a->shares.n >=
        g->threshold) { /* the caller tries them; the attempt starts again from none */
        *whole = a->shares;
        memset(&a->shares, 0, sizeof(a->shares));
        memcpy(otp, a->otp, TOKEN_ID_BYTES);
    }
    rc = 0;
out:
    pthread_mutex_unlock(&cs->mutex);
    return rc;
}

/* ---- HTTP ---- */

static void reply_view(struct response *rs, const struct attempt_view *v, unsigned required,
                       const char *encoded, const char *otp, int otp_length)
{
    rs->raw =
        json_pack("{s:s, s:b, s:i, s:i, s:b, s:s, s:s, s:s, s:s, s:i}", "nonce", v->nonce,
                  "started", v->started, "progress", (int)v->progress, "required", (int)required,
                  "complete", encoded[0] != '\0', "encoded_token", encoded, "encoded_root_token",
                  encoded, "pgp_fingerprint", "", "otp", otp, "otp_length", otp_length);
    if (rs->raw == NULL)
        reply_router_error(rs, 500, "out of memory");
}

static void start(struct request *rq, struct response *rs, enum ceremony_kind kind,
                  const char *address, unsigned required)
{
    char made[TOKEN_ID_BYTES + 1] = "", nonce[37];
    const char *otp, *pgp;
    struct attempt_view view;
    struct err err = {0};

    if (raw_str(rq, rs, "otp", &otp) != 0 || raw_str(rq, rs, "pgp_key", &pgp) != 0)
        return;
    if (otp[0] == '\0' && pgp[0] != '\0') {
        uint8_t scratch[8];
        size_t len, bad;
        if (base64_read(pgp, true, scratch, sizeof(scratch), &len, &bad) != 0)
            reply_error(rs, 400,
                        "error parsing PGP key: error decoding given PGP key: illegal base64 data "
                        "at input byte %zu",
                        bad);
        else
            reply_error(rs, 400,
                        "error parsing PGP key: PGP keys are not supported by this server: use a "
                        "one-time pad");
        return;
    }
    if (otp[0] == '\0')
        otp = base62(rq->core, made, TOKEN_ID_BYTES);
    uuid_new(rq->core, nonce);
    const struct attempt_new n = {kind, address, otp, nonce, rq->now_ms};
    if (ceremony_start(rq->core->ceremonies, &n, &view, &err) != 0) {
        if (err.code == ERR_INVAL)
            reply_error(rs, 400, "%s", err.msg);
        else
            reply_err(rs, &err);
    } else {
        log_info(rq->core->log, "core", "root generation initialized: nonce=%s", view.nonce);
        reply_view(rs, &view, required, "", made, TOKEN_ID_BYTES);
    }
    OPENSSL_cleanse(made, sizeof(made));
}

/* Make the token and store it. id has room for TOKEN_ID_BYTES and NUL. */
static int make_token(struct request *rq, enum ceremony_kind kind, char *id, struct err *err)
{
    struct core *c = rq->core;
    struct token *t;
    struct batch *b;

    id[0] = 's';
    id[1] = '.';
    base62(c, id + 2, TOKEN_ID_BYTES - 2);
    if (kind == CEREMONY_DR_OPERATION)
        return dr_token_store(c, id, err);
    b = batch_new(c);
    if (b == NULL)
        return err_set(err, ERR_NOMEM, 0, "token");
    if (token_create_root(rq, b, id, &t, err) != 0) {
        batch_free(b);
        return -1;
    }
    return batch_commit(b, err);
}

/* All shares are here: check them, make the token, answer it under the pad. */
static void finish(struct request *rq, struct response *rs, enum ceremony_kind kind,
                   struct attempt_view *view, struct shares *whole, const uint8_t *otp,
                   unsigned required)
{
    struct buf root = {.secret = true}, encoded = {.secret = true};
    char id[TOKEN_ID_BYTES + 1];
    uint8_t padded[TOKEN_ID_BYTES];
    struct err err = {0};

    if (seal_check_shares(rq->core, (const uint8_t *const *)whole->part, whole->len, whole->n,
                          &root, &err) != 0) {
        if (err.code == ERR_DENIED)
            reply_error(rs, 400, "root generation aborted: unable to authenticate: %s", err.msg);
        else
            reply_err(rs, &err);
        goto out;
    }
    if (make_token(rq, kind, id, &err) != 0) {
        reply_err(rs, &err);
        goto out;
    }
    for (size_t i = 0; i < TOKEN_ID_BYTES; i++)
        padded[i] = (uint8_t)id[i] ^ otp[i];
    base64_write(&encoded, padded, sizeof(padded), false);
    ceremony_cancel(rq->core->ceremonies, kind, "", view->nonce, rq->now_ms);
    log_info(rq->core->log, "core", "root generation finished: nonce=%s", view->nonce);
    reply_view(rs, view, required, buf_str(&encoded), "", 0);
out:
    OPENSSL_cleanse(id, sizeof(id));
    buf_free(&root);
    buf_free(&encoded);
}

static void update(struct request *rq, struct response *rs, enum ceremony_kind kind,
                   const char *address, unsigned required)
{
    uint8_t part[SHARE_MAX_BYTES], otp[TOKEN_ID_BYTES];
    struct share_given g = {.kind = kind,
                            .address = address,
                            .part = part,
                            .threshold = required,
                            .now_ms = rq->now_ms};
    struct shares whole = {0};
    struct attempt_view view = {0};
    struct err err = {0};
    const char *key;

    if (raw_str(rq, rs, "key", &key) != 0 || raw_str(rq, rs, "nonce", &g.nonce) != 0)
        return;
    if (key[0] == '\0') {
        reply_error(rs, 400, "'key' must be specified in request body as JSON");
        return;
    }
    if (seal_parse_key(key, part, sizeof(part), &g.len, &err) != 0 ||
        ceremony_share(rq->core->ceremonies, &g, &view, &whole, otp, &err) != 0) {
        if (err.code == ERR_INVAL)
            reply_error(rs, 400, "%s", err.msg);
        else
            reply_err(rs, &err);
    } else if (whole.n > 0) {
        finish(rq, rs, kind, &view, &whole, otp, required);
    } else {
        reply_view(rs, &view, required, "", "", 0);
    }
    shares_clear(&whole);
    OPENSSL_cleanse(part, sizeof(part));
    OPENSSL_cleanse(otp, sizeof(otp));
}

void generate_root_handle(struct request *rq, struct response *rs)
{
    bool dr = strncmp(rq->full_path, "sys/replication/", 16) == 0;
    enum ceremony_kind kind = dr ? CEREMONY_DR_OPERATION : CEREMONY_ROOT;
    const char *last = strrchr(rq->full_path, '/');
    char address[ADDRESS_BYTES];
    unsigned shares, required;
    struct err err = {0};

    if (dr && rq->core->role != ENGINE_SECONDARY) {
        reply_error(rs, 400,
                    "Not a DR secondary. A DR operation token is made on the secondary that is to "
                    "be promoted; on this "
                    "cluster use sys/generate-root (without -dr-token).");
        return;
    }
    if (seal_threshold(rq->core, &shares, &required, &err) != 0) {
        reply_err(rs, &err);
        return;
    }
    ceremony_address(rq->http->peer_ip, address);
    if (strcmp(last, "/update") == 0) {
        if (rq->op == OP_WRITE)
            update(rq, rs, kind, address, required);
        else
            reply_no_errors(rs, 405);
    } else if (rq->op == OP_READ) {
        struct attempt_view view;
        ceremony_status(rq->core->ceremonies, kind, address, rq->now_ms, &view);
        reply_view(rs, &view, required, "", "", TOKEN_ID_BYTES);
    } else if (rq->op == OP_WRITE) {
        start(rq, rs, kind, address, required);
    } else if (rq->op == OP_DELETE) {
        const char *nonce;
        if (raw_str(rq, rs, "nonce", &nonce) != 0)
            return;
        ceremony_cancel(rq->core->ceremonies, kind, address, nonce, rq->now_ms);
        reply_empty(rs);
    } else {
        reply_no_errors(rs, 405);
    }
}
