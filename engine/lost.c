/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * lost.c - what only this cluster has is written to a file before it follows a primary that never
 * got it.
 *
 * A promotion elsewhere forks the history, and so does a primary that lost the end of its log, in a
 * power cut or by an older image of it: what the log holds after the fork is in no other cluster,
 * and may have been acknowledged (an async primary waits for nobody). Following the primary cuts or
 * replaces it, so first it goes, segment by segment and
 * byte for byte, into <path>/lost/<id>; values in it are ciphertext, as in the log. The log after
 * the fork is not released meanwhile (retain.c).
 *
 * Happy path: welcome tells of the fork; the connection is closed; each log step writes some
 * segments to "lost/saving"; then the head, a sync, the rename, a sync of the folder, and the row
 * "lost_saved" of the local file, which says up to where (LSN and running hash) all is saved; then
 * this secondary dials again. A crash before the row is durable saves it again, under the same
 * name: the id follows from epoch and LSNs.
 *
 * Ciphertext is opened by the keyring, and the new primary's lacks terms that were made here after
 * the fork. If there are such, the file also has this keyring, sealed under its oldest term, which
 * both have: that needs the barrier open, so a sealed cluster waits for its unseal keys, the old
 * ones, with reason lost_writes_sealed.
 *
 *     0-7     magic "LSLOST1\n"
 *     8-15    XXH3-64 of bytes 16-4095
 *     16-19   length of the head (LE)
 *     20-     head: msgpack [version, id, cluster id, member, fork LSN, first LSN, last LSN, hash
 * at last (bin 32), wall ms, epoch that forked, whole (bool), transactions with writes, puts,
 * deletes, bytes of segments, bytes of the keyring, XXH3-64 of the keyring] 4096-   segments as on
 * the wire, one after the other; then the sealed keyring
 */
#include "engine_private.h"
#include "follow_private.h"
#include "log_private.h"
#include "retain_private.h"
#include "roles_private.h"
#include "time_private.h"

#include <endian.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#define SAVED_ROW "lost_saved"           /* msgpack [first LSN, last LSN, hash at last] */
#define COPY_SAVED_ROW "lost_saved_copy" /* the same, of the log that a copy streams into */
#define KEYRING "core/keyring"
#define SEALED_REASON "lost_writes_sealed"
#define STEP_BYTES ((size_t)1 << 20)
#define OWN_ROWS "core/replication/" /* what the old primary noted of itself and its members */

struct lost {
    struct gen *g; /* whose log is saved; no copy goes on meanwhile (copy_step) */
    struct engine_lost head;
    struct cursor cur;
    struct disk_file *file;
    uint64_t off;
    bool needs_keyring;
    struct buf keyring;
};

/* ---- is it saved? ---- */
static const char *saved_row(const struct engine *e, const struct gen *g)
{
    return g == e->copy ? COPY_SAVED_ROW : SAVED_ROW;
}

static bool is_saved(struct engine *e, struct gen *g, uint64_t first)
{
    uint8_t end[WAL_HASH_BYTES], hash[WAL_HASH_BYTES] = {0};
    struct buf b = {0};
    struct err err;
    struct mp m;
    uint64_t from, to;
    bool saved = false;

    if (local_get_locked(e, saved_row(e, g), &b, &err) == 0) {
        m = (struct mp){.p = b.data, .end = b.data + b.len};
        if (mp_array(&m, 3) != 3)
            m.bad = true;
        from = mp_uint(&m, UINT64_MAX);
        to = mp_uint(&m, UINT64_MAX);
        mp_fixed(&m, hash, sizeof(hash));
        wal_end_hash(g->wal, end);
        saved = !m.bad && from <= first && to == wal_end_lsn(g->wal) &&
                memcmp(hash, end, sizeof(end)) == 0;
    }
    buf_free(&b);
    return saved;
}

static int note_saved(struct engine *e, const struct lost *l, struct err *err)
{
    const struct engine_lost *h = &l->head;
    struct buf b = {0};
    int rc = -1;

    mp_put_array(&b, 3);
    mp_put_uint(&b, h->fork_lsn + 1);
    mp_put_uint(&b, h->last_lsn);
    mp_put_bin(&b, h->hash, sizeof(h->hash));
    if (buf_check(&b, err) == 0 && local_set_locked(e, saved_row(e, l->g), b.data, b.len, err) == 0)
        rc = local_save(e, err);
    buf_free(&b);
    return rc;
}

/* ---- begin ---- */
static char *lost_path(struct engine *e, const char *name)
{
    char *dir = path_of(e->path, ENGINE_LOST_DIR), *path = NULL;

    if (dir != NULL)
        path = path_of(dir, name);
    free(dir);
    return path;
}

static int open_file(struct engine *e, struct lost *l, struct err *err)
{
    struct disk *d = e->cfg.disk;
    char *dir = path_of(e->path, ENGINE_LOST_DIR), *path = lost_path(e, ENGINE_LOST_SAVING);
    int rc = -1;

    if (dir == NULL || path == NULL)
        err_set(err, ERR_NOMEM, 0, "lost writes");
    else if (d->ops->mkdir(d, dir, err) == 0) {
        if (d->ops->sync_dir(d, e->path, err) != 0)
            engine_fatal(e, err); /* as any flush that failed */
        if (d->ops->open(d, path, DISK_WRITE | DISK_CREATE, &l->file, err) == 0)
            rc = d->ops->truncate(l->file, 0, err);
    }
    free(dir);
    free(path);
    return rc;
}

static int begin(struct engine *e, struct gen *g, uint64_t fork, uint32_t epoch, struct err *err)
{
    struct wal *w = g->wal;
    struct lost *l = calloc(1, sizeof(*l));
    struct engine_lost *h;

    if (l == NULL)
        return err_set(err, ERR_NOMEM, 0, "lost writes");
    h = &l->head;
    h->fork_lsn = fork;
    h->first_lsn = fork + 1 > wal_first_lsn(w) ? fork + 1 : wal_first_lsn(w);
    h->whole = h->first_lsn == fork + 1;
    h->last_lsn = wal_end_lsn(w);
    wal_end_hash(w, h->hash);
    h->epoch = epoch;
    h->saved_ms = env_wall_ms(e->cfg.env);
    memcpy(h->cluster_id, e->follow.cfg.cluster_id, sizeof(h->cluster_id));
    memcpy(h->member, e->follow.cfg.member_id, sizeof(h->member));
    /* In one epoch the same LSNs may be lost again, with other writes. */
    snprintf(h->id, sizeof(h->id), "e%" PRIu32 "-%" PRIu64 "-%" PRIu64 "-%02x%02x%02x%02x", epoch,
             h->first_lsn, h->last_lsn, h->hash[0], h->hash[1], h->hash[2], h->hash[3]);
    if (open_file(e, l, err) != 0) {
        free(l);
        return -1;
    }
    l->off = DISK_BLOCK_BYTES;
    cursor_set(&l->cur, h->first_lsn);
    l->g = g;
    e->lost = l;
    log_warn(e->cfg.log, LOG_REPLICATION,
             "non-matching guard: LSN %" PRIu64 " to %" PRIu64
             " are in this cluster only: saving them before it follows epoch %" PRIu32 "%s",
             h->first_lsn, h->last_lsn, epoch,
             h->whole ? "" : "; the log before that was released already and is not saved");
    return 0;
}

bool lost_saves(const struct engine *e)
{
    return e->lost != NULL;
}

static bool saves_of(struct engine *e, struct gen *g, const struct link_welcome *w)
{
    uint64_t fork;
    uint32_t epoch;
    struct err err;

    lost_fork(e, g, w, &fork, &epoch);
    if (fork >= wal_end_lsn(g->wal) || is_saved(e, g, fork + 1))
        return false;
    if (begin(e, g, fork, epoch, &err) != 0) /* nothing is given up: the next welcome tries again */
        log_error(e->cfg.log, LOG_REPLICATION, "cannot save what only this cluster has: %s",
                  err.msg);
    return true;
}

bool lost_first(struct engine *e, const struct link_welcome *w)
{
    return saves_of(e, e->cur, w) ||
           (e->copy != NULL && w->decision == LINK_STREAM && saves_of(e, e->copy, w));
}

void lost_abort(struct engine *e)
{
    struct lost *l = e->lost;

    if (l == NULL)
        return;
    cursor_set(&l->cur, 0);
    if (l->file != NULL)
        e->cfg.disk->ops->close(l->file);
    buf_free(&l->keyring);
    free(l);
    e->lost = NULL;
}

/* ---- segments ---- */
struct tally {
    struct lost *l;
    bool wrote;
};

static bool starts(const struct rec *r, const char *prefix)
{
    size_t n = strlen(prefix);

    return r->key_len >= n && memcmp(r->key, prefix, n) == 0;
}

static int count_rec(void *arg, const struct rec *r, struct err *err)
{
    struct tally *t = arg;
    struct engine_lost *h = &t->l->head;

    (void)err;
    if ((r->kind != REC_PUT && r->kind != REC_DELETE) || starts(r, OWN_ROWS))
        return 0;
    if (r->kind == REC_PUT && r->key_len == strlen(KEYRING) && starts(r, KEYRING))
        t->l->needs_keyring = true;
    h->puts += r->kind == REC_PUT;
    h->deletes += r->kind == REC_DELETE;
    t->wrote = true;
    return 0;
}

static int count_txn(void *arg, uint64_t lsn, const uint8_t *data, size_t len, struct err *err)
{
    struct tally t = {.l = arg};

    (void)lsn;
    if (txn_each(data, len, count_rec, &t, err) != 0)
        return -1;
    t.l->head.transactions += t.wrote;
    return 0;
}

/* 1: some written; 0: a read is under way; 2: all are. */
static int write_some(struct engine *e, struct lost *l, struct err *err)
{
    size_t written = 0;

    while (written < STEP_BYTES && l->cur.next_lsn <= l->head.last_lsn) {
        struct seg *s;
        int rc = cursor_peek(e, l->g, &l->cur, &s, err);

        if (rc < 0)
            return -1;
        if (rc == 0)
            return written > 0;
        if (seg_each_txn(s, count_txn, l, err) != 0 ||
            e->cfg.disk->ops->pwrite(l->file, s->bytes, s->len, l->off, err) != 0)
            return -1;
        l->off += s->len;
        written += s->len;
        cursor_pop(&l->cur);
    }
    return l->cur.next_lsn > l->head.last_lsn ? 2 : 1;
}

/* ---- finish ---- */
static int write_head(struct engine *e, struct lost *l, struct err *err)
{
    uint8_t block[DISK_BLOCK_BYTES] = "LSLOST1\n";
    struct engine_lost *h = &l->head;
    struct buf b = {0};
    uint32_t len;
    uint64_t sum;
    int rc = -1;

    h->bytes = l->off - DISK_BLOCK_BYTES;
    mp_put_array(&b, 17);
    mp_put_uint(&b, 1);
    mp_put_str(&b, h->id, strlen(h->id));
    mp_put_str(&b, h->cluster_id, strlen(h->cluster_id));
    mp_put_str(&b, h->member, strlen(h->member));
    mp_put_uint(&b, h->fork_lsn);
    mp_put_uint(&b, h->first_lsn);
    mp_put_uint(&b, h->last_lsn);
    mp_put_bin(&b, h->hash, sizeof(h->hash));
    mp_put_int(&b, h->saved_ms);
    mp_put_uint(&b, h->epoch);
    mp_put_bool(&b, h->whole);
    mp_put_uint(&b, h->transactions);
    mp_put_uint(&b, h->puts);
    mp_put_uint(&b, h->deletes);
    mp_put_uint(&b, h->bytes);
    mp_put_uint(&b, l->keyring.len);
    mp_put_uint(&b, l->keyring.len > 0 ? XXH3_64bits(l->keyring.data, l->keyring.len) : 0);
    if (buf_check(&b, err) != 0)
        goto out;
    len = htole32((uint32_t)b.len);
    memcpy(block + 16, &len, sizeof(len));
    memcpy(block + 20, b.data, b.len); /* some 500 bytes at most */
    sum = htole64(XXH3_64bits(block + 16, sizeof(block) - 16));
    memcpy(block + 8, &sum, sizeof(sum));
    if (l->keyring.len > 0 &&
        e->cfg.disk->ops->pwrite(l->file, l->keyring.data, l->keyring.len, l->off, err) != 0)
        goto out;
    rc = e->cfg.disk->ops->pwrite(l->file, block, sizeof(block), 0, err);
out:
    buf_free(&b);
    return rc;
}

static int put_in_place(struct engine *e, struct lost *l, struct err *err)
{
    struct disk *d = e->cfg.disk;
    char *dir = path_of(e->path, ENGINE_LOST_DIR), *from = lost_path(e, ENGINE_LOST_SAVING),
         *to = lost_path(e, l->head.id);
    int rc = -1;

    if (dir == NULL || from == NULL || to == NULL) {
        err_set(err, ERR_NOMEM, 0, "lost writes");
        goto out;
    }
    if (l->head.transactions == 0 && l->head.whole) /* marks and the like: nobody misses them */
        rc = d->ops->remove(d, from, err);
    else if (write_head(e, l, err) == 0 && d->ops->sync(l->file, err) == 0 &&
             d->ops->rename(d, from, to, err) == 0)
        rc = d->ops->sync_dir(d, dir, err);
out:
    free(dir);
    free(from);
    free(to);
    return rc;
}

/* Without the keys to open it the file would be of no use. false: they are not there. */
static bool take_keyring(struct engine *e, struct lost *l)
{
    struct err err;

    if (!l->needs_keyring || l->keyring.len > 0)
        return true;
    if (e->cfg.hooks.lost_keyring != NULL &&
        e->cfg.hooks.lost_keyring(e->cfg.hooks.arg, l->head.id, &l->keyring, &err) == 0)
        return true;
    buf_clear(&l->keyring);
    if (strcmp(e->reason, SEALED_REASON) != 0) {
        /* A sealed server shows no status: the log is where this is seen. */
        log_warn(e->cfg.log, LOG_REPLICATION,
                 SEALED_REASON ": what only this cluster has was sealed by a key that was made "
                               "after the fork: unseal it with the keys that it had then, and it "
                               "is saved and goes on");
        snprintf(e->reason, sizeof(e->reason), "%s", SEALED_REASON);
        e->dirty = true;
    }
    log_deadline(e, env_mono_ns(e->cfg.env) + NS_PER_S);
    return false;
}

static void finish(struct engine *e, struct lost *l)
{
    const struct engine_lost *h = &l->head;

    if (strcmp(e->reason, SEALED_REASON) == 0)
        e->reason[0] = '\0';
    if (h->transactions == 0)
        log_info(e->cfg.log, LOG_REPLICATION,
                 "LSN %" PRIu64 " to %" PRIu64 " hold no write of a client: nothing is saved",
                 h->first_lsn, h->last_lsn);
    else
        log_warn(e->cfg.log, LOG_REPLICATION,
                 "lost_writes: %" PRIu64 " transactions (%" PRIu64 " puts, %" PRIu64
                 " deletes) that only this cluster has are saved as %s/" ENGINE_LOST_DIR "/%s",
                 h->transactions, h->puts, h->deletes, e->path, h->id);
    lost_abort(e);
    lost_list(e);
    follow_resume(e);
}

size_t lost_step(struct engine *e)
{
    struct lost *l = e->lost;
    struct err err;
    int rc;

    if (l == NULL)
        return 0;
    rc = write_some(e, l, &err);
    if (rc == 2 && !take_keyring(e, l))
        return 0;
    if (rc < 0 || (rc == 2 && (put_in_place(e, l, &err) != 0 || note_saved(e, l, &err) != 0)))
        engine_fatal(e, &err); /* a failed write or sync is final; nothing was given up */
    if (rc == 2)
        finish(e, l);
    return rc > 0;
}
