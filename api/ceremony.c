/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * ceremony.c - a token from key shares: sys/generate-root, and generate-operation-token on a DR
 * secondary.
 *
 * The rule for strangers is in ceremony.h. Starting twice from one address is Vault's 400; DELETE
 * ends the caller's own, or the one whose nonce it names.
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

/* ---- networks ---- */

/* An IPv4 /24; of an IPv6 /64, its /48. */
static size_t network_len(const char *address)
{
    const char *dot = strrchr(address, '.');
    size_t colons = 0, i = 0;

    if (dot != NULL)
        return (size_t)(dot - address);
    for (; address[i] != '\0'; i++)
        if (address[i] == ':' && ++colons == 3)
            break;
    return i;
}

static bool same_network(const char *a, const char *b)
{
    size_t n = network_len(a);

    return n == network_len(b) && memcmp(a, b, n) == 0;
}

/* How many attempts of the network there are; each of them has `change` more neighbours. */
static unsigned neighbours_changed(struct ceremonies *cs, const char *address, int change)
{
    unsigned n = 0;

    for (size_t i = 0; i < ATTEMPTS_MAX; i++) {
        struct attempt *a = cs->attempts[i];

        if (a == NULL || !same_network(a->address, address))
            continue;
        a->neighbours += (unsigned)change;
        n++;
    }
    return n;
}

static void attempt_end(struct ceremonies *cs, size_t i)
{
    struct attempt *a = cs->attempts[i];

    cs->attempts[i] = NULL;
    if (a == NULL)
        return;
    (void)neighbours_changed(cs, a->address, -1);
    shares_clear(&a->shares);
    shares_clear(&a->open);
    OPENSSL_secure_clear_free(a->otp, TOKEN_ID_BYTES);
    free(a->pgp_key);
    free(a);
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

/* A request that waited is older than attempts that began meanwhile: only a clock that was set back
 * far ends those. */
static void expire(struct ceremonies *cs, int64_t now_ms)
{
    for (size_t i = 0; i < ATTEMPTS_MAX; i++)
        if (cs->attempts[i] != NULL && (now_ms >= cs->attempts[i]->end_ms ||
                                        now_ms < cs->attempts[i]->end_ms - 2 * ATTEMPT_MS))
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

/* By the nonce that anybody sees. */
static int find_open(struct ceremonies *cs, enum ceremony_kind kind, const char *nonce)
{
    for (int i = 0; i < ATTEMPTS_MAX; i++)
        if (cs->attempts[i] != NULL && cs->attempts[i]->kind == kind &&
            strcmp(cs->attempts[i]->open_nonce, nonce) == 0)
            return i;
    return -1;
}

/* ---- room ---- */

static bool idle(const struct attempt *a)
{
    return a->shares.n == 0 && a->open.n == 0;
}

/* One that makes room for an attempt of a network with `own` of them: of one that has more, the
 * most at best, without a share at best, the oldest; or without a share of its own network. */
static int find_victim(const struct ceremonies *cs, const char *address, unsigned own)
{
    unsigned most = 0;
    int found = -1;

    for (int i = 0; i < ATTEMPTS_MAX; i++) {
        const struct attempt *a = cs->attempts[i], *f = found >= 0 ? cs->attempts[found] : NULL;
        unsigned n;

        if (a == NULL || (own >= NETWORK_MAX && !same_network(a->address, address)))
            continue;
        n = a->neighbours;
        if (idle(a) ? n <= own && !same_network(a->address, address) : n <= own + 1)
            continue;
        if (f == NULL || n > most ||
            (n == most && (idle(a) == idle(f) ? a->end_ms < f->end_ms : idle(a)))) {
            most = n;
            found = i;
        }
    }
    return found;
}

static int make_room(struct ceremonies *cs, const char *address)
{
    unsigned own = neighbours_changed(cs, address, 0);
    int slot;

    for (int i = 0; i < ATTEMPTS_MAX && own < NETWORK_MAX; i++)
        if (cs->attempts[i] == NULL)
            return i;
    slot = find_victim(cs, address, own);
    if (slot >= 0)
        attempt_end(cs, (size_t)slot);
    return slot;
}

static struct attempt *attempt_new(const struct attempt_new *n)
{
    struct attempt *a = calloc(1, sizeof(*a));

    if (a == NULL)
        return NULL;
    a->otp = OPENSSL_secure_malloc(TOKEN_ID_BYTES);
    if (a->otp == NULL) {
        free(a);
        return NULL;
    }
    if (n->pgp_key != NULL && n->pgp_key[0] != '\0') {
        a->pgp_key = strdup(n->pgp_key);
        snprintf(a->fingerprint, sizeof(a->fingerprint), "%s", n->fingerprint);
        if (a->pgp_key == NULL) {
            OPENSSL_secure_free(a->otp);
            free(a);
            return NULL;
        }
    }
    memcpy(a->otp, n->otp, TOKEN_ID_BYTES);
    a->kind = n->kind;
    a->end_ms = n->now_ms + ATTEMPT_MS;
    snprintf(a->address, sizeof(a->address), "%s", n->address);
    snprintf(a->nonce, sizeof(a->nonce), "%s", n->nonce);
    snprintf(a->open_nonce, sizeof(a->open_nonce), "%s", n->open_nonce);
    return a;
}

static unsigned given(const struct attempt *a)
{
    return a->shares.n + a->open.n;
}

/* What the caller sees of it, under this nonce. */
static void view_of(const struct attempt *a, const char *nonce, struct attempt_view *view)
{
    *view = (struct attempt_view){.started = true, .progress = given(a)};
    snprintf(view->nonce, sizeof(view->nonce), "%s", nonce);
    memcpy(view->fingerprint, a->fingerprint, sizeof(view->fingerprint));
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
    slot = make_room(cs, n->address);
    if (slot < 0) {
        err_set(err, ERR_INVAL, 0,
                "too many attempts that have shares are in progress; each ends after %d minutes",
                ATTEMPT_MS / 60000);
        goto out;
    }
    a = attempt_new(n);
    if (a == NULL) {
        err_set(err, ERR_NOMEM, 0, "root generation");
        goto out;
    }
    a->neighbours = neighbours_changed(cs, a->address, 1) + 1;
    cs->attempts[slot] = a;
    view_of(a, a->nonce, view);
    rc = 0;
out:
    pthread_mutex_unlock(&cs->mutex);
    return rc;
}

/* The only one of its kind; -1: none, or several. */
static int find_only(const struct ceremonies *cs, enum ceremony_kind kind, bool *anyp)
{
    int found = -1;

    *anyp = false;
    for (int i = 0; i < ATTEMPTS_MAX; i++) {
        if (cs->attempts[i] == NULL || cs->attempts[i]->kind != kind)
            continue;
        found = *anyp ? -1 : i;
        if (*anyp)
            break;
        *anyp = true;
    }
    return found;
}

void ceremony_status(struct ceremonies *cs, enum ceremony_kind kind, const char *address,
                     int64_t now_ms, struct attempt_view *view)
{
    bool own;
    int slot;

    *view = (struct attempt_view){0};
    pthread_mutex_lock(&cs->mutex);
    expire(cs, now_ms);
    slot = find_own(cs, kind, address);
    own = slot >= 0;
    view->started = own;
    if (!own)
        slot = find_only(cs, kind, &view->started);
    if (slot >= 0)
        view_of(cs->attempts[slot],
                own ? cs->attempts[slot]->nonce : cs->attempts[slot]->open_nonce, view);
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

/* ---- shares ---- */

static bool has(const struct shares *s, const uint8_t *part, size_t len)
{
    for (unsigned i = 0; i < s->n; i++)
        if (s->len[i] == len && CRYPTO_memcmp(s->part[i], part, len) == 0)
            return true;
    return false;
}

static unsigned open_of(const struct attempt *a, const char *address)
{
    unsigned n = 0;

    for (unsigned i = 0; i < a->open.n; i++)
        n += strcmp(a->open_by[i], address) == 0;
    return n;
}

/* The oldest of the address that has given the most. */
static void open_drop(struct attempt *a)
{
    unsigned at = 0, most = 0;

    for (unsigned i = 0; i < a->open.n; i++) {
        unsigned n = open_of(a, a->open_by[i]);

        if (n > most) {
            most = n;
            at = i;
        }
    }
    OPENSSL_secure_clear_free(a->open.part[at], a->open.len[at]);
    a->open.n--;
    for (unsigned i = at; i < a->open.n; i++) {
        a->open.part[i] = a->open.part[i + 1];
        a->open.len[i] = a->open.len[i + 1];
        memcpy(a->open_by[i], a->open_by[i + 1], ADDRESS_BYTES);
    }
}

/* As shares_add. */
static int open_add(struct attempt *a, const struct share_given *g)
{
    int added;

    if (has(&a->open, g->part, g->len))
        return 0;
    if (a->open.n == OPEN_SHARES_MAX)
        open_drop(a);
    added = shares_add(&a->open, g->part, g->len);
    if (added > 0)
        snprintf(a->open_by[a->open.n - 1], ADDRESS_BYTES, "%s", g->address);
    return added;
}

/* Enough are here? */
static int collect(struct attempt *a, unsigned threshold, struct shares *whole, unsigned *surep,
                   struct err *err)
{
    if (a->shares.n >= threshold) { /* the caller tries them; the attempt starts again from none */
        *whole = a->shares;
        *surep = whole->n;
        memset(&a->shares, 0, sizeof(a->shares));
        return 0;
    }
    if (given(a) < threshold)
        return 0;
    *surep = a->shares.n;
    for (unsigned i = 0; i < given(a); i++) {
        const struct shares *s = i < a->shares.n ? &a->shares : &a->open;
        unsigned k = i < a->shares.n ? i : i - a->shares.n;

        if (shares_add(whole, s->part[k], s->len[k]) < 0) {
            shares_clear(whole);
            return err_set(err, ERR_NOMEM, 0, "root generation");
        }
    }
    return 0;
}

static int wrong_nonce(struct ceremonies *cs, const struct share_given *g, struct err *err)
{
    int own = find_own(cs, g->kind, g->address);

    if (own < 0)
        return err_set(err, ERR_INVAL, 0, "no root generation in progress");
    return err_set(err, ERR_INVAL, 0,
                   "incorrect nonce supplied; nonce for this root generation operation is \"%s\"",
                   cs->attempts[own]->nonce);
}

int ceremony_share(struct ceremonies *cs, const struct share_given *g, struct attempt_view *view,
                   struct shares *whole, unsigned *surep, struct err *err)
{
    struct attempt *a;
    int slot, added, rc = -1;
    bool open;

    pthread_mutex_lock(&cs->mutex);
    expire(cs, g->now_ms);
    slot = find_nonce(cs, g->kind, g->nonce);
    open = slot < 0;
    if (open)
        slot = find_open(cs, g->kind, g->nonce);
    if (slot < 0) {
        (void)!wrong_nonce(cs, g, err);
        goto out;
    }
    a = cs->attempts[slot];
    if (open)
        added = has(&a->shares, g->part, g->len) ? 0 : open_add(a, g);
    else
        added = shares_add(&a->shares, g->part, g->len);
    if (added <= 0) {
        err_set(err, added == 0 ? ERR_INVAL : ERR_NOMEM, 0,
                "given key has already been provided during this generation operation");
        goto out;
    }
    view_of(a, g->nonce, view);
    rc = collect(a, g->threshold, whole, surep, err);
out:
    pthread_mutex_unlock(&cs->mutex);
    return rc;
}

int ceremony_finish(struct ceremonies *cs, enum ceremony_kind kind, const char *nonce,
                    uint8_t otp[TOKEN_ID_BYTES], char **pgp_keyp, int64_t now_ms, struct err *err)
{
    int slot, rc = -1;

    *pgp_keyp = NULL;
    pthread_mutex_lock(&cs->mutex);
    expire(cs, now_ms);
    slot = find_nonce(cs, kind, nonce);
    if (slot < 0)
        slot = find_open(cs, kind, nonce);
    if (slot < 0) {
        err_set(err, ERR_INVAL, 0, "no root generation in progress");
    } else {
        memcpy(otp, cs->attempts[slot]->otp, TOKEN_ID_BYTES);
        *pgp_keyp = cs->attempts[slot]->pgp_key;
        cs->attempts[slot]->pgp_key = NULL;
        attempt_end(cs, (size_t)slot);
        rc = 0;
    }
    pthread_mutex_unlock(&cs->mutex);
    return rc;
}
