/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * gen.c - generations of the data (a log and its store), and the engine's rows in the local file.
 *
 * A generation lies in <path>/gen-<n>/{wal,store}. Numbers are not used twice while a process
 * lives, so a copy that is being made never meets one that is being removed.
 */
#include "engine_private.h"
#include "lag_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void on_room(void *arg)
{
    struct engine *e = ((struct gen *)arg)->e;

    if (atomic_load(&e->feed_waits))
        disk_wake(e->cfg.disk);
}

/* ---- the local file ---- */
int local_save(struct engine *e, struct err *err)
{
    int rc;

    pthread_mutex_lock(&e->local_mu);
    rc = local_commit(e->local, err);
    pthread_mutex_unlock(&e->local_mu);
    return rc;
}

int local_set_locked(struct engine *e, const char *name, const void *data, size_t len,
                     struct err *err)
{
    int rc;

    pthread_mutex_lock(&e->local_mu);
    rc = local_set(e->local, name, data, len, err);
    pthread_mutex_unlock(&e->local_mu);
    return rc;
}

int local_get_locked(struct engine *e, const char *name, struct buf *out, struct err *err)
{
    int rc;

    pthread_mutex_lock(&e->local_mu);
    rc = local_get(e->local, name, out, err);
    pthread_mutex_unlock(&e->local_mu);
    return rc;
}

void local_number(struct engine *e, const char *name, uint64_t *vp, bool *foundp)
{
    struct buf b = {0};
    struct err err;

    *vp = 0;
    *foundp = local_get_locked(e, name, &b, &err) == 0;
    if (*foundp)
        *vp = strtoull(buf_str(&b), NULL, 10);
    buf_free(&b);
}

void local_begin(struct engine *e)
{
    pthread_mutex_lock(&e->local_mu);
}

void local_end(struct engine *e)
{
    pthread_mutex_unlock(&e->local_mu);
}

int local_set_number(struct engine *e, const char *name, uint64_t v, struct err *err)
{
    char text[24];

    snprintf(text, sizeof(text), "%" PRIu64, v);
    return local_set_locked(e, name, text, strlen(text), err);
}

int local_set_text(struct engine *e, const char *name, const char *text, struct err *err)
{
    return local_set_locked(e, name, text, text != NULL ? strlen(text) : 0, err);
}

int local_save_epochs(struct engine *e, struct gen *g, struct err *err)
{
    char name[32];
    struct buf b = {0};
    int rc = -1;

    snprintf(name, sizeof(name), "epochs-%" PRIu32, g->number);
    if (epochs_encode(&g->epochs, &b, err) == 0 &&
        local_set_locked(e, name, b.data, b.len, err) == 0)
        rc = local_save(e, err);
    buf_free(&b);
    return rc;
}

/* ---- generations ---- */
char *path_of(const char *a, const char *b)
{
    size_t len = strlen(a) + strlen(b) + 2;
    char *s = malloc(len);

    if (s != NULL)
        snprintf(s, len, "%s/%s", a, b);
    return s;
}

static int gen_make(struct engine *e, uint32_t number, struct gen **gp, struct err *err)
{
    struct gen *g = calloc(1, sizeof(*g));
    char name[32];

    *gp = NULL;
    snprintf(name, sizeof(name), "gen-%" PRIu32, number);
    if (g != NULL) {
        g->e = e;
        g->number = number;
        g->dir = path_of(e->path, name);
        if (g->dir != NULL) {
            g->wal_dir = path_of(g->dir, "wal");
            g->store_dir = path_of(g->dir, "store");
        }
    }
    if (g == NULL || g->dir == NULL || g->wal_dir == NULL || g->store_dir == NULL) {
        gen_free(g);
        return err_set(err, ERR_NOMEM, 0, "generation %" PRIu32, number);
    }
    *gp = g;
    return 0;
}

uint32_t gen_number(struct engine *e)
{
    return atomic_fetch_add(&e->last_gen, 1) + 1;
}

int gen_new(struct engine *e, uint32_t number, struct gen **gp, struct err *err)
{
    uint32_t seen = atomic_load(&e->last_gen);

    if (gen_make(e, number, gp, err) != 0)
        return -1;
    (*gp)->serial = ++e->gen_serial;
    while (number > seen && !atomic_compare_exchange_weak(&e->last_gen, &seen, number))
        ;
    return 0;
}

void gen_free(struct gen *g)
{
    if (g == NULL)
        return;
    wal_close(g->wal);
    store_close(g->store);
    free(g->store_dir);
    free(g->wal_dir);
    free(g->dir);
    free(g);
}

static void on_durable(void *arg, struct seg *seg, const struct err *err)
{
    struct gen *g = arg;

    if (err != NULL)
        engine_fatal(g->e, err);
    flush_done(g->e, seg);
    g->e->dirty = true;
}

int gen_wal_config(struct gen *g, struct wal_config *wc, struct err *err)
{
    struct engine *e = g->e;

    *wc = (struct wal_config){.dir = g->wal_dir,
                              .disk = e->cfg.disk,
                              .env = e->cfg.env,
                              .log = e->cfg.log,
                              .file_bytes = e->cfg.wal_file_bytes,
                              .durable = on_durable,
                              .arg = g};
    return e->cfg.disk->ops->mkdir(e->cfg.disk, g->dir, err);
}

int gen_open_store(struct gen *g, struct err *err)
{
    struct engine *e = g->e;
    struct store_config sc = {.access = g->access,
                              .dir = g->store_dir,
                              .disk = e->cfg.store_disk,
                              .deterministic = e->cfg.deterministic,
                              .cache_bytes = e->cfg.cache_bytes,
                              .dirty_bytes = e->cfg.reserve_bytes / 2,
                              .log = e->cfg.log,
                              .panic = damage_panic,
                              .room = on_room,
                              .arg = g};

    return store_open(&sc, &g->store, err);
}

void add_name(void *arg, const char *name)
{
    struct names *l = arg;

    if (l->failed || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return;
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 16;
        char **v = realloc(l->v, cap * sizeof(*v));

        if (v == NULL) {
            l->failed = true;
            return;
        }
        l->v = v;
        l->cap = cap;
    }
    l->v[l->n] = strdup(name);
    if (l->v[l->n] == NULL)
        l->failed = true;
    else
        l->n++;
}

void names_free(struct names *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->v[i]);
    free(l->v);
}

/* Remove a directory of plain files; missing is fine. */
static int remove_flat(struct disk *d, const char *dir, struct err *err)
{
    struct names l = {0};
    bool there = false;
    int rc = -1;

    if (d->ops->exists(d, dir, &there, err) != 0)
        return -1;
    if (!there)
        return 0;
    if (d->ops->list(d, dir, add_name, &l, err) != 0)
        goto out;
    if (l.failed) {
        err_set(err, ERR_NOMEM, 0, "list %s", dir);
        goto out;
    }
    for (size_t i = 0; i < l.n; i++) {
        char *path = path_of(dir, l.v[i]);
        int removed = path != NULL ? d->ops->remove(d, path, err)
                                   : err_set(err, ERR_NOMEM, 0, "remove %s", dir);

        free(path);
        if (removed != 0)
            goto out;
    }
    rc = d->ops->remove(d, dir, err);
out:
    names_free(&l);
    return rc;
}

int gen_remove(struct engine *e, uint32_t number, struct err *err)
{
    struct disk *d = e->cfg.store_disk;
    struct gen *g;
    bool there = false;
    int rc = -1;

    if (gen_make(e, number, &g, err) != 0)
        return -1;
    if (d->ops->exists(d, g->dir, &there, err) != 0)
        goto out;
    if (!there) {
        rc = 0;
        goto out;
    }
    if (remove_flat(d, g->wal_dir, err) != 0 || remove_flat(d, g->store_dir, err) != 0 ||
        d->ops->remove(d, g->dir, err) != 0)
        goto out;
    if (d->ops->sync_dir(d, e->path, err) != 0)
        engine_fatal(e, err); /* the local file is renamed in there, and might hear of no failure */
    rc = 0;
out:
    gen_free(g);
    return rc;
}
