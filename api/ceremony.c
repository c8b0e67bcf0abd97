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
