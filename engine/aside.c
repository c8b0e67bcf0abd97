/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * aside.c - what a cluster held before it became a secondary, kept for a set time.
 *
 * The generation that the first copy replaces stays where it is. The row "aside" of the local file
 * names it, until when, and what a start from it needs; it is written in the one write that names
 * the new generation, so that no crash leaves data that counts nowhere. Nothing opens it again in
 * this directory: engine_aside_restore makes a data directory of it, which a server can be started
 * on. When its time is over the row goes first, then the files; a crash between the two leaves a
 * generation that no row names, which the next start removes.
 */
#include "engine_private.h"
#include "follow_private.h"
#include "log_private.h"
#include "retain_private.h"
#include "roles_private.h"
#include "threads_private.h"
#include "time_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROW "aside"
#define ROW_VERSION 1u
#define COPY_BYTES ((size_t)1 << 20)

static int encode(const struct engine_aside *v, size_t n, struct buf *out, struct err *err)
{
    mp_put_array(out, 2);
    mp_put_uint(out, ROW_VERSION);
    mp_put_array(out, n);
    for (size_t i = 0; i < n; i++) {
        mp_put_array(out, 7);
        mp_put_uint(out, v[i].generation);
        mp_put_int(out, v[i].since_ms);
        mp_put_int(out, v[i].until_ms);
        mp_put_uint(out, v[i].end_lsn);
        mp_put_uint(out, v[i].minor);
        mp_put_str(out, v[i].name, strlen(v[i].name));
        mp_put_str(out, v[i].member, strlen(v[i].member));
    }
    return buf_check(out, err);
}

static int decode(const struct buf *b, struct engine_aside *v, size_t *np, struct err *err)
{
    struct mp m = {.p = b->data, .end = b->data + b->len};
    size_t n;

    *np = 0;
    if (mp_array(&m, 2) != 2 || mp_uint(&m, ROW_VERSION) != ROW_VERSION)
        m.bad = true;
    n = mp_array(&m, ENGINE_ASIDE_MAX);
    for (size_t i = 0; i < n && !m.bad; i++) {
        if (mp_array(&m, 7) != 7)
            m.bad = true;
        v[i].generation = (uint32_t)mp_uint(&m, UINT32_MAX);
        v[i].since_ms = mp_int(&m);
        v[i].until_ms = mp_int(&m);
        v[i].end_lsn = mp_uint(&m, UINT64_MAX);
        v[i].minor = (uint32_t)mp_uint(&m, UINT32_MAX);
        mp_text(&m, v[i].name, sizeof(v[i].name));
        mp_text(&m, v[i].member, sizeof(v[i].member));
    }
    if (m.bad || m.p != m.end)
        return err_set(err, ERR_CORRUPT, 0, "the local row \"" ROW "\" is not readable");
    *np = n;
    return 0;
}

static int set_row(struct engine *e, struct err *err)
{
    struct buf b = {0};
    int rc = -1;

    if (e->n_aside == 0)
        rc = local_set_text(e, ROW, NULL, err);
    else if (encode(e->aside, e->n_aside, &b, err) == 0)
        rc = local_set_locked(e, ROW, b.data, b.len, err);
    buf_free(&b);
    return rc;
}

int aside_load(struct engine *e, struct err *err)
{
    struct buf b = {0};
    struct err missing;
    int rc = 0;

    if (local_get_locked(e, ROW, &b, &missing) == 0)
        rc = decode(&b, e->aside, &e->n_aside, err);
    else if (missing.code != ERR_NOTFOUND) {
        *err = missing;
        rc = -1;
    }
    for (size_t i = 0; i < e->n_aside; i++) {
        if (e->aside[i].generation > e->last_gen)
            e->last_gen = e->aside[i].generation;
    }
    buf_free(&b);
    return rc;
}

bool aside_holds(const struct engine *e, uint32_t generation)
{
    for (size_t i = 0; i < e->n_aside; i++) {
        if (e->aside[i].generation == generation)
            return true;
    }
    return false;
}

/* What else a generation was comes back with it: LOCAL_APART; fenced, and how far what it holds may
 * have been answered; alone. In rows of their own, NAME-GENERATION: an older program reads a row
 * "aside" of its own form only. */
static const char *const kept[] = {LOCAL_APART, "fence", "commit", "alone"};
#define KEPT (sizeof(kept) / sizeof(kept[0]))

static void kept_row(const char *name, uint32_t generation, char out[32])
{
    snprintf(out, 32, "%s-%" PRIu32, name, generation);
}

/* Before the switch says what the new generation is. One whose history goes on in the copy is kept
 * as fenced, whether it met the other primary or not: else both would serve. */
static int keep_rows(struct engine *e, const struct gen *old, struct err *err)
{
    uint32_t generation = old->number;
    struct epochs newest = {.n = 1};
    struct buf met = {0};
    int rc = 0;

    if (strcmp(e->repl.cluster_id, e->follow.cfg.cluster_id) ==
            0 && /* one restored of it is another */
        epochs_share(&old->epochs, &e->copy->epochs)) {
        newest.e[0] = *epochs_last(&e->copy->epochs);
        if (epochs_encode(&newest, &met, err) != 0 ||
            local_set_locked(e, "fence", met.data, met.len, err) != 0 ||
            local_set_number(e, "commit", e->committed_lsn, err) != 0)
            rc = -1;
        buf_free(&met);
    }

    for (size_t i = 0; i < KEPT && rc == 0; i++) {
        struct buf b = {0};
        struct err none;
        char row[32];

        kept_row(kept[i], generation, row);
        if (local_get_locked(e, kept[i], &b, &none) == 0)
            rc = local_set_locked(e, row, b.data, b.len, err);
        buf_free(&b);
    }
    return rc;
}

static int drop_rows(struct engine *e, uint32_t generation, struct err *err)
{
    char row[32];

    for (size_t i = 0; i < KEPT; i++) {
        kept_row(kept[i], generation, row);
        if (local_set_text(e, row, NULL, err) != 0)
            return -1;
    }
    return 0;
}

/* The rows are in memory only: the caller's next local_save makes them durable, with the switch. */
bool aside_keep(struct engine *e, const struct gen *old)
{
    struct follow_config *f = &e->follow.cfg;
    struct engine_aside *a = &e->aside[e->n_aside];
    struct buf b = {0};
    struct err err;
    uint64_t minor;
    bool found;

    if (f->keep_old_ms <= 0 || e->n_aside == ENGINE_ASIDE_MAX)
        return false;
    memset(a, 0, sizeof(*a));
    a->generation = old->number;
    a->since_ms = env_wall_ms(e->cfg.env);
    a->until_ms = a->since_ms + f->keep_old_ms;
    a->end_lsn = wal_end_lsn(old->wal);
    local_number(e, "minor", &minor, &found);
    a->minor = (uint32_t)minor;
    memcpy(a->name, f->old_name, sizeof(a->name));
    memcpy(a->member, e->member_id, sizeof(a->member));
    e->n_aside++;
    f->keep_old_ms = 0; /* what later copies replace is this primary's own data */
    f->old_name[0] = '\0';
    if (keep_rows(e, old, &err) != 0 || follow_encode(f, &b, &err) != 0 ||
        local_set_locked(e, "follow", b.data, b.len, &err) != 0 || set_row(e, &err) != 0)
        engine_fatal(e, &err);
    buf_free(&b);
    return true;
}

static int drop(struct engine *e, size_t i, const char *why, struct err *err)
{
    struct job *j;
    struct gen *g;
    struct err bad;

    if (gen_new(e, e->aside[i].generation, &g, err) != 0)
        return -1;
    memmove(&e->aside[i], &e->aside[i + 1], (e->n_aside - i - 1) * sizeof(e->aside[0]));
    e->n_aside--;
    if (drop_rows(e, g->number, &bad) != 0 || set_row(e, &bad) != 0 || local_save(e, &bad) != 0)
        engine_fatal(e, &bad);
    log_info(e->cfg.log, LOG_REPLICATION, "removing %s, which was set aside: %s", g->dir, why);
    j = job_new(e, JOB_DROP);
    j->gen = g;
    job_post(e, j);
    e->dirty = true;
    return 0;
}

size_t aside_step(struct engine *e, int64_t now)
{
    int64_t wall = e->n_aside > 0 ? env_wall_ms(e->cfg.env) : 0;
    size_t n = 0;
    struct err err;

    for (size_t i = e->n_aside; i > 0; i--) {
        int64_t left = e->aside[i - 1].until_ms - wall;

        if (left <= 0 && drop(e, i - 1, "its time is over", &err) == 0)
            n++;
        else /* the wall clock may be set: look again at least every minute */
            log_deadline(e, now + (left > 0 && left < 60000 ? left : 60000) * NS_PER_MS);
    }
    return n;
}

void aside_drop(struct engine *e, struct event *ev)
{
    struct err err = {0};
    size_t i = 0;

    while (i < e->n_aside && e->aside[i].generation != ev->number)
        i++;
    if (i == e->n_aside)
        err_set(&err, ERR_NOTFOUND, 0, "generation %" PRIu64 " is not set aside", ev->number);
    else if (drop(e, i, "asked for", &err) != 0)
        err_wrap(&err, "generation %" PRIu64, ev->number);
    if (ev->done != NULL)
        ev->done(ev->arg, 0, err.code != ERR_OK ? &err : NULL);
    ev->done = NULL;
}

int engine_aside_drop(struct engine *e, uint32_t generation, engine_done_fn *done, void *arg,
                      struct err *err)
{
    struct event *ev = event_new(e, EV_ASIDE_DROP, NULL, 0);

    (void)err;
    ev->number = generation;
    ev->done = done;
    ev->arg = arg;
    event_post(e, ev);
    return 0;
}

/* ---- getting it back: offline ---- */
static int copy_file(struct disk *d, const char *from, const char *to, uint8_t *room,
                     struct err *err)
{
    struct disk_file *in = NULL, *out = NULL;
    uint64_t size, at = 0;
    size_t got;
    int rc = -1;

    if (d->ops->open(d, from, DISK_READ, &in, err) != 0 || d->ops->size(in, &size, err) != 0 ||
        d->ops->open(d, to, DISK_WRITE | DISK_CREATE | DISK_EXCLUSIVE, &out, err) != 0)
        goto done;
    while (at < size) {
        size_t want = size - at < COPY_BYTES ? (size_t)(size - at) : COPY_BYTES;

        if (d->ops->pread(in, room, want, at, &got, err) != 0)
            goto done;
        if (got == 0) {
            err_set(err, ERR_IO, 0, "%s got shorter while it was read", from);
            goto done;
        }
        if (d->ops->pwrite(out, room, got, at, err) != 0)
            goto done;
        at += got;
    }
    rc = d->ops->sync(out, err);
done:
    if (out != NULL)
        d->ops->close(out);
    if (in != NULL)
        d->ops->close(in);
    return rc;
}

static int copy_folder(struct disk *d, const char *from, const char *to, struct err *err)
{
    uint8_t *room = malloc(COPY_BYTES);
    struct names l = {0};
    int rc = -1;

    if (room == NULL || d->ops->list(d, from, add_name, &l, err) != 0 || l.failed) {
        if (room == NULL || l.failed)
            err_set(err, ERR_NOMEM, 0, "copy %s", from);
        goto out;
    }
    if (d->ops->mkdir(d, to, err) != 0)
        goto out;
    for (size_t i = 0; i < l.n; i++) {
        char *a = path_of(from, l.v[i]), *b = path_of(to, l.v[i]);
        int copied = a != NULL && b != NULL ? copy_file(d, a, b, room, err)
                                            : err_set(err, ERR_NOMEM, 0, "copy %s", from);

        free(a);
        free(b);
        if (copied != 0)
            goto out;
    }
    rc = d->ops->sync_dir(d, to, err);
out:
    free(room);
    names_free(&l);
    return rc;
}

static int read_aside(struct local *l, uint32_t generation, struct engine_aside *ap,
                      struct err *err)
{
    struct engine_aside v[ENGINE_ASIDE_MAX];
    struct buf b = {0};
    struct err missing;
    size_t n = 0;
    int rc = 0;

    if (local_get(l, ROW, &b, &missing) == 0)
        rc = decode(&b, v, &n, err);
    buf_free(&b);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        if (v[i].generation == generation) {
            *ap = v[i];
            return 0;
        }
    }
    return rc != 0 ? -1
                   : err_set(err, ERR_NOTFOUND, 0, "generation %" PRIu32 " is not set aside there",
                             generation);
}

static int copy_row(struct local *from, const char *row, struct local *to, const char *name,
                    bool *therep, struct err *err)
{
    struct buf b = {0};
    struct err missing;
    int rc = 0;

    *therep = local_get(from, row, &b, &missing) == 0;
    if (*therep)
        rc = local_set(to, name, b.data, b.len, err);
    buf_free(&b);
    return rc;
}

/* The local file of the new directory: what the cluster was, a primary or fenced. Written last:
 * without it the directory is no data directory, and the restore is given again. */
static int write_local(struct disk *d, const char *to, struct local *from,
                       const struct engine_aside *a, struct err *err)
{
    char number[24], minor[24], row[32];
    const char *role = "primary";
    struct local *l = NULL;
    bool there;
    int rc = -1;

    snprintf(number, sizeof(number), "%" PRIu32, a->generation);
    snprintf(minor, sizeof(minor), "%" PRIu32, a->minor);
    if (local_open(d, to, &l, err) != 0)
        return -1;
    kept_row("epochs", a->generation, row);
    if (copy_row(from, row, l, row, &there, err) != 0)
        goto out;
    for (size_t i = 0; i < KEPT; i++) {
        kept_row(kept[i], a->generation, row);
        if (copy_row(from, row, l, kept[i], &there, err) != 0)
            goto out;
        if (there && strcmp(kept[i], "fence") == 0)
            role = "fenced";
    }
    if (a->member[0] != '\0' && local_set(l, "member", a->member, strlen(a->member), err) != 0)
        goto out;
    if (local_set(l, "generation", number, strlen(number), err) != 0 ||
        local_set(l, "minor", minor, strlen(minor), err) != 0 ||
        local_set(l, "role", role, strlen(role), err) != 0)
        goto out;
    rc = local_commit(l, err);
out:
    local_close(l);
    return rc;
}

static int restore_into(struct disk *d, const char *from, const char *to, struct local *l,
                        const struct engine_aside *a, struct err *err)
{
    static const char *const parts[] = {"wal", "store"};
    char name[32];
    char *in, *out;
    int rc = -1;

    snprintf(name, sizeof(name), "gen-%" PRIu32, a->generation);
    in = path_of(from, name);
    out = path_of(to, name);
    if (in == NULL || out == NULL) {
        err_set(err, ERR_NOMEM, 0, "restore");
        goto done;
    }
    if (d->ops->mkdir(d, to, err) != 0 || d->ops->mkdir(d, out, err) != 0)
        goto done;
    for (size_t i = 0; i < 2; i++) {
        char *x = path_of(in, parts[i]), *y = path_of(out, parts[i]);
        int copied = x != NULL && y != NULL ? copy_folder(d, x, y, err)
                                            : err_set(err, ERR_NOMEM, 0, "restore");

        free(x);
        free(y);
        if (copied != 0)
            goto done;
    }
    if (d->ops->sync_dir(d, out, err) != 0 || d->ops->sync_dir(d, to, err) != 0 ||
        disk_sync_parent(d, to, err) != 0)
        goto done;
    rc = write_local(d, to, l, a, err);
done:
    free(in);
    free(out);
    return rc;
}

int engine_aside_restore(struct disk *d, const char *path, uint32_t generation, const char *to,
                         struct err *err)
{
    struct engine_aside a;
    struct local *l = NULL;
    bool there = false;
    int rc = -1;

    if (d->ops->exists(d, to, &there, err) != 0)
        return -1;
    if (there)
        return err_set(err, ERR_EXISTS, 0, "%s is there already: name a new directory", to);
    if (local_open(d, path, &l, err) != 0)
        return -1;
    if (read_aside(l, generation, &a, err) == 0)
        rc = restore_into(d, path, to, l, &a, err);
    local_close(l);
    return rc;
}
