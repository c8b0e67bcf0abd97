/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * epoch.c - the history of epochs, and promotion.
 *
 * Promotion, and what a crash leaves after each step:
 *   0. under a quorum the other members are heard, and the longest tail is here (gather.c)
 *   1. the link is closed, writes in flight become durable: a secondary, as before
 *   2. the id of the new epoch is noted in the local file: a secondary, the log lacks the id
 *   3. the epoch record is durable: a primary, the log's last epoch has the noted id
 *   4. the whole tail and the record are applied, the role is noted: a primary
 * Nothing of the tail is applied before 3: until then the old primary may still disown it.
 */
#include "engine_private.h"
#include "follow_private.h"
#include "log_private.h"
#include "modes_private.h"
#include "retain_private.h"
#include "roles_private.h"
#include "ship_private.h"
#include "threads_private.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

/* ---- history ---- */
const struct epoch_rec *epochs_last(const struct epochs *ep)
{
    return ep->n > 0 ? &ep->e[ep->n - 1] : NULL;
}

const struct epoch_rec *epochs_find(const struct epochs *ep, const uint8_t id[16], size_t *ip)
{
    for (size_t i = 0; i < ep->n; i++) {
        if (memcmp(ep->e[i].id, id, 16) == 0) {
            if (ip != NULL)
                *ip = i;
            return &ep->e[i];
        }
    }
    return NULL;
}

bool epochs_share(const struct epochs *a, const struct epochs *b)
{
    for (size_t i = 0; i < a->n; i++) {
        if (epochs_find(b, a->e[i].id, NULL) != NULL)
            return true;
    }
    return false;
}

/* An epoch's record stands right after the end of the one before: it is in a log that ends at
 * end_lsn or not. */
void epochs_prune(struct epochs *ep, uint64_t end_lsn)
{
    while (ep->n > 0 && ep->e[ep->n - 1].end_lsn >= end_lsn)
        ep->n--;
}

static int each_rec(void *arg, const struct rec *r, struct err *err)
{
    struct gen *g = arg;
    const struct epoch_rec *last = epochs_last(&g->epochs);

    (void)err;
    if (r->kind == REC_EPOCH && (last == NULL || r->epoch.number > last->number))
        epochs_add(&g->epochs, &r->epoch);
    return 0;
}

static int each_txn(void *arg, uint64_t lsn, const uint8_t *data, size_t len, struct err *err)
{
    (void)lsn;
    return txn_each(data, len, each_rec, arg, err);
}

void epochs_of_seg(struct engine *e, struct gen *g, const struct seg *s)
{
    struct err err;

    if (seg_each_txn(s, each_txn, g, &err) != 0)
        log_error(e->cfg.log, "storage", "epoch of segment %" PRIu64 ": %s", s->first_lsn, err.msg);
}

/* ---- proof ---- */
bool epoch_has_key(struct engine *e)
{
    bool have;

    pthread_mutex_lock(&e->key_mu);
    have = e->have_epoch_key;
    pthread_mutex_unlock(&e->key_mu);
    return have;
}

static void put_rec(struct buf *b, const char *purpose, const struct epoch_rec *r)
{
    buf_adds(b, purpose);
    mp_put_uint(b, r->number);
    mp_put_bin(b, r->id, sizeof(r->id));
    mp_put_uint(b, r->end_lsn);
    mp_put_bin(b, r->hash, sizeof(r->hash));
    mp_put_str(b, r->member, strnlen(r->member, sizeof(r->member)));
}

static int proof_of(struct engine *e, const struct epoch_rec *r, uint8_t proof[32], struct err *err)
{
    struct buf b = {0};
    unsigned len = 0;
    int rc = -1;

    put_rec(&b, "lockstep epoch 1", r);
    if (buf_check(&b, err) != 0)
        goto out;
    pthread_mutex_lock(&e->key_mu);
    if (!e->have_epoch_key)
        err_set(err, ERR_SEALED, 0, "promotion needs the barrier open");
    else if (HMAC(EVP_sha256(), e->epoch_key, sizeof(e->epoch_key), b.data, b.len, proof, &len) ==
                 NULL ||
             len != 32)
        err_set(err, ERR_NOMEM, 0, "HMAC of the epoch record");
    else
        rc = 0;
    pthread_mutex_unlock(&e->key_mu);
out:
    buf_free(&b);
    return rc;
}

int epoch_prove(struct engine *e, struct epoch_rec *r, struct err *err)
{
    return proof_of(e, r, r->proof, err);
}

bool epoch_proof_good(struct engine *e, const struct epoch_rec *r)
{
    uint8_t proof[32];
    struct err err;

    return proof_of(e, r, proof, &err) == 0 && CRYPTO_memcmp(proof, r->proof, sizeof(proof)) == 0;
}

/* ---- signatures: for one that is sealed, and has no key to check a proof with ---- */
#define SIGNED "lockstep epoch signed 1"
#define PUBLIC "epoch-public" /* of the local file */

/* NULL: sealed. The pair follows from the key, so that every cluster that has one has the other. */
static EVP_PKEY *signing_key(struct engine *e)
{
    static const char label[] = "lockstep epoch signing key 1";
    uint8_t seed[32];
    unsigned len = 0;
    EVP_PKEY *key = NULL;

    pthread_mutex_lock(&e->key_mu);
    if (e->have_epoch_key && HMAC(EVP_sha256(), e->epoch_key, sizeof(e->epoch_key),
                                  (const uint8_t *)label, sizeof(label) - 1, seed, &len) != NULL)
        key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed, sizeof(seed));
    pthread_mutex_unlock(&e->key_mu);
    OPENSSL_cleanse(seed, sizeof(seed));
    return key;
}

bool epoch_sign(struct engine *e, const struct epoch_rec *r, uint8_t sig[LINK_SIGNATURE_BYTES])
{
    EVP_PKEY *key = signing_key(e);
    EVP_MD_CTX *ctx = key != NULL ? EVP_MD_CTX_new() : NULL;
    struct buf b = {0};
    size_t len = LINK_SIGNATURE_BYTES;
    bool good;

    put_rec(&b, SIGNED, r);
    good = ctx != NULL && !b.failed && EVP_DigestSignInit(ctx, NULL, NULL, NULL, key) == 1 &&
           EVP_DigestSign(ctx, sig, &len, b.data, b.len) == 1;
    buf_free(&b);
    EVP_MD_CTX_free(ctx);
    EVP_PKEY_free(key);
    return good;
}

bool epoch_signature_good(const struct engine *e, const struct epoch_rec *r, const uint8_t *sig)
{
    EVP_PKEY *key = e->have_epoch_public
                        ? EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, e->epoch_public,
                                                      sizeof(e->epoch_public))
                        : NULL;
    EVP_MD_CTX *ctx = key != NULL ? EVP_MD_CTX_new() : NULL;
    struct buf b = {0};
    bool good;

    put_rec(&b, SIGNED, r);
    good = ctx != NULL && !b.failed && EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, key) == 1 &&
           EVP_DigestVerify(ctx, sig, LINK_SIGNATURE_BYTES, b.data, b.len) == 1;
    buf_free(&b);
    EVP_MD_CTX_free(ctx);
    EVP_PKEY_free(key);
    return good;
}

void epoch_public_load(struct engine *e)
{
    struct buf b = {0};
    struct err err;

    if (local_get_locked(e, PUBLIC, &b, &err) == 0 && b.len == sizeof(e->epoch_public)) {
        memcpy(e->epoch_public, b.data, b.len);
        e->have_epoch_public = true;
    }
    buf_free(&b);
}

void epoch_public_note(struct engine *e)
{
    EVP_PKEY *key = signing_key(e);
    uint8_t public[32];
    size_t len = sizeof(public);
    struct err err;

    if (key != NULL && EVP_PKEY_get_raw_public_key(key, public, &len) == 1 &&
        (!e->have_epoch_public || memcmp(public, e->epoch_public, sizeof(public)) != 0)) {
        memcpy(e->epoch_public, public, sizeof(public));
        e->have_epoch_public = true;
        if (local_set_locked(e, PUBLIC, public, sizeof(public), &err) != 0 ||
            local_save(e, &err) != 0)
            engine_fatal(e, &err);
    }
    EVP_PKEY_free(key);
}

/* ---- the record ---- */
static int prepare_rec(struct engine *e, struct epoch_rec *r, struct err *err)
{
    r->end_lsn = wal_end_lsn(e->cur->wal);
    wal_end_hash(e->cur->wal, r->hash);
    if (r->number == 1) /* founding: there is no barrier yet, and nobody to convince */
        return 0;
    return epoch_prove(e, r, err);
}

int epoch_append(struct engine *e, struct epoch_rec *r, struct err *err)
{
    struct wal *w = e->cur->wal;
    struct seg_head head = {.epoch = r->number, .first_lsn = wal_end_lsn(w) + 1};
    int64_t now = env_wall_ms(e->cfg.env), before = wal_end_commit_ms(w);
    struct seg_txn one;
    const struct epoch_rec *last = epochs_last(&e->cur->epochs);
    struct txn *t = NULL;
    struct seg *seg = NULL;
    int rc = -1;

    assert(last == NULL || r->number > last->number); /* nobody follows a log that goes back */
    if (prepare_rec(e, r, err) != 0)
        goto out;
    t = txn_new();
    if (t == NULL) {
        err_set(err, ERR_NOMEM, 0, "epoch record");
        goto out;
    }
    head.minor = e->minor;
    head.commit_ms = now > before ? now : before;
    head.durable_lsn = wal_durable_lsn(w);
    head.commit_lsn = e->committed_lsn;
    wal_end_hash(w, head.prev_hash);
    if (txn_epoch(t, r, err) != 0 || txn_bytes(t, &one.data, &one.len, err) != 0 ||
        seg_build(&head, &one, 1, &seg, err) != 0)
        goto out;
    if (log_append(e, e->cur, seg, err) != 0)
        engine_fatal(e, err);
    rc = 0;
out:
    seg_unref(seg);
    txn_free(t);
    return rc;
}

/* ---- promotion ---- */
/* Of an epoch that is not here neither the writes are known, nor the mode under which they were
 * acknowledged. */
int epoch_newer_check(const struct engine *e, uint32_t known, struct err *err)
{
    const struct epoch_rec *last = epochs_last(&e->cur->epochs);

    if (last == NULL || known <= last->number)
        return 0;
    return err_set(err, ERR_DENIED, 0,
                   "newer_epoch: epoch %" PRIu32
                   " was begun elsewhere: follow its primary (update-primary), or promote who has "
                   "it. force gives up what was acknowledged in it",
                   known);
}

static void promote_answer(struct engine *e, uint64_t lsn, const struct err *err)
{
    struct job *j = job_new(e, JOB_CALL);

    j->done = e->promote.done;
    j->arg = e->promote.arg;
    j->lsn = lsn;
    if (err != NULL)
        j->err = *err;
    job_post(e, j);
    memset(&e->promote, 0, sizeof(e->promote));
}

void promote_refuse(struct engine *e, const struct err *err)
{
    promote_answer(e, 0, err);
    follow_resume(e);
}

uint32_t promotion_epoch(const struct engine *e)
{
    const struct epoch_rec *last = epochs_last(&e->cur->epochs);
    uint32_t ours = last != NULL ? last->number : wal_end_epoch(e->cur->wal);

    return (ours > e->seen_epoch ? ours : e->seen_epoch) + 1;
}

int promotion_check(struct engine *e, struct err *err)
{
    if (engine_role(e) == ENGINE_FENCED)
        return err_set(err, ERR_DENIED, 0,
                       "%s: force makes this cluster the primary again, and gives up what the "
                       "other one wrote since",
                       e->reason);
    if (switchover_promotion_check(e, err) != 0)
        return -1;
    return epoch_newer_check(e, e->seen_epoch, err);
}

void promote_begin(struct engine *e, struct event *ev)
{
    struct err err = {0};
    bool fenced = ev->flag && engine_role(e) == ENGINE_FENCED;
    bool alone = ev->number != 0;

    if (e->promote.on || e->demote.on ||
        (!fenced && (engine_role(e) != ENGINE_SECONDARY || !e->promotable)))
        err_set(&err, ERR_ROLE, 0, "%s",
                e->promote.on ? "a promotion is under way"
                : gen_applies(e->cur)
                    ? "not a secondary with a whole copy"
                    : "part of the data here cannot be read, and the log not be "
                      "applied to it: promote another secondary, or restore a snapshot");
    else if (!alone && promotion_check(e, &err) != 0 && ev->flag) {
        log_warn(e->cfg.log, LOG_REPLICATION, "promotion by force: %s", err.msg);
        err_clear(&err);
    }
    if (err.code != ERR_OK) {
        struct job *j = job_new(e, JOB_CALL);

        j->done = ev->done;
        j->arg = ev->arg;
        j->err = err;
        ev->done = NULL;
        job_post(e, j);
        return;
    }
    e->promote.on = true;
    e->promote.alone = alone;
    e->promote.force = ev->flag;
    e->promote.done = ev->done;
    e->promote.arg = ev->arg;
    ev->done = NULL;
    (void)follow_append(e); /* what came in this step */
    follow_off(e, alone ? "this cluster leaves replication" : "this cluster is being promoted");
    /* A fenced one was the primary: all that was acknowledged is here. One that stands alone
     * supersedes nobody. */
    if (!fenced && !alone && modes_promotion_check(e, &err) != 0)
        gather_begin(e, env_mono_ns(e->cfg.env));
    log_info(e->cfg.log, LOG_REPLICATION, "%s: keeping the whole tail up to LSN %" PRIu64,
             alone ? "leaving replication" : "promotion", wal_end_lsn(e->cur->wal));
}

static size_t promote_write(struct engine *e)
{
    struct epoch_rec r = {0};
    struct err err;

    if (wal_in_flight(e->cur->wal) > 0 || (e->copy != NULL && wal_in_flight(e->copy->wal) > 0))
        return 0;
    copy_abandon(e);
    r.number = promotion_epoch(e);
    env_random(e->cfg.env, r.id, sizeof(r.id));
    snprintf(r.member, sizeof(r.member), "%s",
             engine_role(e) == ENGINE_FENCED ? own_member_id(e) : e->follow.cfg.member_id);
    pthread_mutex_lock(&e->local_mu);
    if (local_set(e->local, "promoting", r.id, sizeof(r.id), &err) != 0 ||
        local_set(e->local, "member", r.member, strlen(r.member), &err) != 0 ||
        local_set(e->local, "alone", e->promote.alone ? "1" : NULL, e->promote.alone, &err) != 0 ||
        local_commit(e->local, &err) != 0) {
        pthread_mutex_unlock(&e->local_mu);
        engine_fatal(e, &err);
    }
    pthread_mutex_unlock(&e->local_mu);
    e->minor = 0;
    if (epoch_append(e, &r, &err) != 0) {
        /* Sealed meanwhile, or out of memory: nothing was written, so it goes on as a secondary. */
        promote_refuse(e, &err);
        return 1;
    }
    retain_forked(e);
    modes_reset(e);
    e->promote.written = true;
    e->alone = e->promote.alone;
    e->promote.lsn = wal_end_lsn(e->cur->wal);
    return 1;
}

static void promote_finish(struct engine *e)
{
    const struct epoch_rec *last = epochs_last(&e->cur->epochs);
    struct err err;

    local_begin(e);
    if (local_set_text(e, "role", "primary", &err) != 0 ||
        local_set_text(e, "follow", NULL, &err) != 0 ||
        local_set_text(e, "fence", NULL, &err) != 0 || local_set_number(e, "minor", 0, &err) != 0 ||
        local_save(e, &err) != 0)
        engine_fatal(e, &err);
    local_end(e);
    e->promotable = false;
    e->reason[0] = '\0';
    memcpy(e->member_id, last->member, sizeof(e->member_id));
    /* All is applied: what a copy appended and folded does not count as a backlog of this primary.
     */
    atomic_store(&e->applied_bytes, atomic_load(&e->appended_bytes));
    log_info(e->cfg.log, LOG_REPLICATION, "%s: epoch %" PRIu32 " begins at LSN %" PRIu64,
             e->promote.alone ? "stands alone" : "promoted", last->number, e->promote.lsn);
    e->retain_unknown = true; /* the members' slots are made when the rows are read as a primary */
    switchover_over(e);
    yield_end(e);
    log_read_rows(e);
    engine_role_set(e, ENGINE_PRIMARY);
    peers_check(e);
    meet_rows(e);
    promote_answer(e, e->promote.lsn, NULL);
}

size_t promote_step(struct engine *e)
{
    if (!e->promote.on || e->gather.state != GATHER_IDLE)
        return 0;
    if (!e->promote.written)
        return promote_write(e);
    if (wal_durable_lsn(e->cur->wal) < e->promote.lsn)
        return 0;
    if (e->committed_lsn < e->promote.lsn) {
        e->dirty = true;
        e->committed_lsn = e->promote.lsn; /* the record is durable: the tail is ours */
        return 1;
    }
    if (atomic_load(&e->applied_lsn) < e->promote.lsn)
        return 0;
    promote_finish(e);
    return 1;
}
