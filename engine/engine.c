/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * engine.c - opening, recovery, threads, closing, and the calls that any thread may make.
 *
 * On disk:
 *     <path>/lock            flock: one process
 *     <path>/local           local.h: role, generation, follow, copy, minor, epochs-<n>, promoting,
 * api/... <path>/gen-<n>/wal     the log <path>/gen-<n>/store   WiredTiger
 *
 * What a crash leaves: `local` names the generation that counts; any other one is a copy that was
 * not finished (named by `copy`) or waste, removed at the next open. A data directory without
 * `generation` in `local` is new, unless a log with records stands in it: then the local file was
 * lost, and that is an error, never a fresh start.
 *
 * Recovery: the store holds the fold up to its applied LSN (with its running hash, which must be
 * that of the log); segments up to the known commit LSN are applied on top, the rest of the tail
 * waits: on a primary for the commit rule, on a secondary for the primary's word. applied <=
 * min(committed, durable here) thus holds from the start.
 */
#include "engine_private.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include <openssl/crypto.h>

/* ---- small parts ---- */
void waker_wake(void *arg)
{
    struct waker *w = arg;

    pthread_mutex_lock(&w->mu);
    w->set = true;
    pthread_cond_signal(&w->cond);
    pthread_mutex_unlock(&w->mu);
}

void waker_wait(struct waker *w, int64_t timeout_ns)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    if (timeout_ns >= 0) {
        until.tv_sec += timeout_ns / NS_PER_S;
        until.tv_nsec += timeout_ns % NS_PER_S;
        if (until.tv_nsec >= NS_PER_S) {
            until.tv_sec++;
            until.tv_nsec -= NS_PER_S;
        }
    }
    pthread_mutex_lock(&w->mu);
    while (!w->set) {
        if (timeout_ns < 0)
            pthread_cond_wait(&w->cond, &w->mu);
        else if (pthread_cond_timedwait(&w->cond, &w->mu, &until) == ETIMEDOUT)
            break;
    }
    w->set = false;
    pthread_mutex_unlock(&w->mu);
}

static void waker_init(struct waker *w)
{
    pthread_condattr_t attr;

    pthread_mutex_init(&w->mu, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&w->cond, &attr);
    pthread_condattr_destroy(&attr);
}

static void waker_fini(struct waker *w)
{
    pthread_mutex_destroy(&w->mu);
    pthread_cond_destroy(&w->cond);
}

void sub_list_add(struct sub_list *l, struct sub *s)
{
    s->node.next = NULL;
    if (l->tail != NULL)
        l->tail->node.next = &s->node;
    else
        l->head = s;
    l->tail = s;
}

struct sub *sub_list_take(struct sub_list *l)
{
    struct sub *s = l->head;

    if (s == NULL)
        return NULL;
    l->head = (struct sub *)s->node.next;
    if (l->head == NULL)
        l->tail = NULL;
    return s;
}

_Noreturn static void fatal_returned(void)
{
    abort(); /* hooks.fatal must not return: going on could acknowledge what is not durable */
}

void engine_fatal(struct engine *e, const struct err *err)
{
    log_error(e->cfg.log, "storage", "final failure: %s", err->msg);
    e->cfg.hooks.fatal(e->cfg.hooks.arg, err);
    fatal_returned();
}

enum engine_role engine_role(const struct engine *e)
{
    return (enum engine_role)atomic_load(&e->role);
}

void engine_role_set(struct engine *e, enum engine_role role)
{
    atomic_store(&e->role, role);
    e->dirty = true;
    if (e->cfg.hooks.role != NULL)
        e->cfg.hooks.role(e->cfg.hooks.arg, role);
}

static void on_panic(void *arg, const char *why)
{
    struct err err;

    err_set(&err, ERR_IO, 0, "WiredTiger: %s", why);
    engine_fatal(arg, &err);
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

static int set_locked(struct engine *e, const char *name, const void *data, size_t len,
                      struct err *err)
{
    int rc;

    pthread_mutex_lock(&e->local_mu);
    rc = local_set(e->local, name, data, len, err);
    pthread_mutex_unlock(&e->local_mu);
    return rc;
}

static int get_locked(struct engine *e, const char *name, struct buf *out, struct err *err)
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
    *foundp = get_locked(e, name, &b, &err) == 0;
    if (*foundp)
        *vp = strtoull(buf_str(&b), NULL, 10);
    buf_free(&b);
}

int local_set_number(struct engine *e, const char *name, uint64_t v, struct err *err)
{
    char text[24];

    snprintf(text, sizeof(text), "%" PRIu64, v);
    return set_locked(e, name, text, strlen(text), err);
}

int local_set_text(struct engine *e, const char *name, const char *text, struct err *err)
{
    return set_locked(e, name, text, text != NULL ? strlen(text) : 0, err);
}

int local_save_epochs(struct engine *e, struct gen *g, struct err *err)
{
    char name[32];
    struct buf b = {0};
    int rc = -1;

    snprintf(name, sizeof(name), "epochs-%" PRIu32, g->number);
    if (epochs_encode(&g->epochs, &b, err) == 0 && set_locked(e, name, b.data, b.len, err) == 0)
        rc = local_save(e, err);
    buf_free(&b);
    return rc;
}

/* ---- generations ---- */
static char *path_of(const char *a, const char *b)
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

int gen_new(struct engine *e, uint32_t number, struct gen **gp, struct err *err)
{
    if (gen_make(e, number, gp, err) != 0)
        return -1;
    (*gp)->serial = ++e->gen_serial;
    if (number > e->last_gen)
        e->last_gen = number;
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

    (void)seg;
    if (err != NULL)
        engine_fatal(g->e, err);
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
    struct store_config sc = {.dir = g->store_dir,
                              .disk = e->cfg.store_disk,
                              .deterministic = e->cfg.deterministic,
                              .cache_bytes = e->cfg.cache_bytes,
                              .log = e->cfg.log,
                              .panic = on_panic,
                              .arg = e};

    return store_open(&sc, &g->store, err);
}

struct names {
    char **v;
    size_t n, cap;
    bool failed;
};

static void add_name(void *arg, const char *name)
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
    for (size_t i = 0; i < l.n; i++)
        free(l.v[i]);
    free(l.v);
    return rc;
}

int gen_remove(struct engine *e, uint32_t number, struct err *err)
{
    struct disk *d = e->cfg.store_disk != NULL ? e->cfg.store_disk : e->cfg.disk;
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
    rc = d->ops->sync_dir(d, e->path, err);
out:
    gen_free(g);
    return rc;
}

/* ---- opening ---- */
static int lock_directory(struct engine *e, struct err *err)
{
    char *path;

    if (e->cfg.deterministic) /* the directory is inside the simulated disk: nobody else can open it
                               */
        return 0;
    path = path_of(e->path, "lock");
    if (path == NULL)
        return err_set(err, ERR_NOMEM, 0, "lock of %s", e->path);
    e->lock_fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    free(path);
    if (e->lock_fd < 0)
        return err_set(err, ERR_IO, errno, "open the lock of %s", e->path);
    if (flock(e->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK)
            return err_set(err, ERR_BUSY, 0, "data directory %s is in use by another process",
                           e->path);
        return err_set(err, ERR_IO, errno, "lock %s", e->path);
    }
    return 0;
}

/* No generation is named: begin a new history, unless a log says that there was one. */
static int found(struct engine *e, struct err *err)
{
    struct wal_config wc;
    struct wal_base base = {0};
    struct gen *g = NULL;
    struct err first;
    int rc = -1;

    if (gen_new(e, 1, &g, err) != 0 || gen_wal_config(g, &wc, err) != 0)
        goto out;
    if (wal_open(&wc, &g->wal, &first) == 0 && wal_end_lsn(g->wal) > 0) {
        err_set(err, ERR_CORRUPT, 0,
                "%s/local is missing, but gen-1 holds a log up to LSN %" PRIu64
                ": put the file back, or move the directory away to start anew",
                e->path, wal_end_lsn(g->wal));
        goto out;
    }
    if (g->wal == NULL && first.code != ERR_NOTFOUND) {
        *err = first;
        goto out;
    }
    wal_close(g->wal);
    g->wal = NULL;
    if (gen_remove(e, 1, err) != 0 || gen_wal_config(g, &wc, err) != 0 ||
        wal_create(&wc, &base, &g->wal, err) != 0 || gen_open_store(g, err) != 0 ||
        e->cfg.disk->ops->sync_dir(e->cfg.disk, g->dir, err) != 0 ||
        e->cfg.disk->ops->sync_dir(e->cfg.disk, e->path, err) != 0 ||
        local_set_number(e, "generation", 1, err) != 0 ||
        local_set_text(e, "role", "primary", err) != 0 || local_save(e, err) != 0)
        goto out;
    e->cur = g;
    g = NULL;
    rc = 0;
out:
    gen_free(g);
    return rc;
}

static int load_epochs(struct engine *e, struct gen *g, struct err *err)
{
    char name[32];
    struct buf b = {0};
    struct err missing;
    int rc = 0;

    snprintf(name, sizeof(name), "epochs-%" PRIu32, g->number);
    if (get_locked(e, name, &b, &missing) == 0)
        rc = epochs_decode(b.data, b.len, &g->epochs, err);
    else if (missing.code != ERR_NOTFOUND) {
        *err = missing;
        rc = -1;
    }
    buf_free(&b);
    return rc;
}

static int scan_epochs(void *arg, struct seg *s, struct err *err)
{
    struct gen *g = arg;
    const struct epoch_rec *last = epochs_last(&g->epochs);

    (void)err;
    if (last == NULL || s->epoch != last->number)
        epochs_of_seg(g->e, g, s);
    return 0;
}

static int open_gen(struct engine *e, uint32_t number, struct gen **gp, struct err *err)
{
    struct wal_config wc;
    struct gen *g = NULL;
    const struct epoch_rec *last;

    *gp = NULL;
    if (gen_new(e, number, &g, err) != 0)
        return -1;
    if (gen_wal_config(g, &wc, err) != 0 || wal_open(&wc, &g->wal, err) != 0 ||
        gen_open_store(g, err) != 0 || load_epochs(e, g, err) != 0)
        goto fail;
    /* The saved history may be ahead of the log (saved, then the record was lost) or behind (the
     * reverse). */
    epochs_prune(&g->epochs, wal_end_lsn(g->wal));
    last = epochs_last(&g->epochs);
    if (wal_end_lsn(g->wal) > 0 && (last == NULL || last->number != wal_end_epoch(g->wal)) &&
        wal_each(g->wal, 0, scan_epochs, g, err) != 0)
        goto fail;
    *gp = g;
    return 0;
fail:
    err_wrap(err, "generation %" PRIu32, number);
    gen_free(g);
    return -1;
}

/* Remove what a crash left: generations that no row names. */
static int sweep_generations(struct engine *e, uint64_t keep, uint64_t keep_too, struct err *err)
{
    struct disk *d = e->cfg.disk;
    struct names l = {0};
    int rc = -1;

    if (d->ops->list(d, e->path, add_name, &l, err) != 0)
        goto out;
    for (size_t i = 0; i < l.n; i++) {
        unsigned n;
        char end;

        if (sscanf(l.v[i], "gen-%u%c", &n, &end) != 1 || n == keep || n == keep_too)
            continue;
        log_warn(e->cfg.log, LOG_REPLICATION, "removing %s/%s: left by an unfinished switch",
                 e->path, l.v[i]);
        if (gen_remove(e, n, err) != 0)
            goto out;
    }
    rc = 0;
out:
    for (size_t i = 0; i < l.n; i++)
        free(l.v[i]);
    free(l.v);
    return rc;
}

/* The promotion is the epoch record: its id was noted before it was written, so only our own can
 * match. */
static bool own_promotion(struct engine *e)
{
    const struct epoch_rec *last = epochs_last(&e->cur->epochs);
    struct buf b = {0};
    struct err err;
    bool own;

    own = last != NULL && get_locked(e, "promoting", &b, &err) == 0 && b.len == sizeof(last->id) &&
          memcmp(b.data, last->id, b.len) == 0;
    buf_free(&b);
    return own;
}

static int take_role(struct engine *e, struct err *err)
{
    struct buf role = {0}, follow = {0}, member = {0};
    struct err missing;
    uint64_t v;
    bool found_it;
    int rc = -1;

    if (get_locked(e, "role", &role, err) != 0)
        goto out;
    if (get_locked(e, "member", &member, &missing) == 0)
        snprintf(e->member_id, sizeof(e->member_id), "%s", buf_str(&member));
    if (strcmp(buf_str(&role), "secondary") == 0 && own_promotion(e)) {
        log_info(e->cfg.log, LOG_REPLICATION, "this cluster was promoted: the log says so");
        if (local_set_text(e, "follow", NULL, err) != 0 ||
            local_set_text(e, "copy", NULL, err) != 0 ||
            local_set_text(e, "role", "primary", err) != 0 || local_save(e, err) != 0)
            goto out;
        buf_clear(&role);
        buf_adds(&role, "primary");
    }
    if (strcmp(buf_str(&role), "primary") == 0) {
        atomic_store(&e->role, ENGINE_PRIMARY);
        /* Another start of a primary: the same (epoch, minor, LSN) is never written twice. */
        local_number(e, "minor", &v, &found_it);
        e->minor = (uint32_t)v + 1;
        if (local_set_number(e, "minor", e->minor, err) != 0 || local_save(e, err) != 0)
            goto out;
        rc = 0;
        goto out;
    }
    if (strcmp(buf_str(&role), "secondary") == 0)
        atomic_store(&e->role, ENGINE_SECONDARY);
    else if (strcmp(buf_str(&role), "bootstrapping") == 0)
        atomic_store(&e->role, ENGINE_BOOTSTRAPPING);
    else {
        err_set(err, ERR_CORRUPT, 0, "%s/local: unknown role", e->path);
        goto out;
    }
    if (get_locked(e, "follow", &follow, err) != 0 ||
        follow_decode(follow.data, follow.len, &e->follow.cfg, err) != 0)
        goto out;
    rc = 0;
out:
    buf_free(&role);
    buf_free(&follow);
    buf_free(&member);
    return rc;
}

static int open_generations(struct engine *e, struct err *err)
{
    uint64_t number, copy;
    bool there, copying;

    local_number(e, "generation", &number, &there);
    if (!there)
        return found(e, err);
    local_number(e, "copy", &copy, &copying);
    if (sweep_generations(e, number, copying ? copy : 0, err) != 0 ||
        open_gen(e, (uint32_t)number, &e->cur, err) != 0 || apply_recover(e, e->cur, err) != 0)
        return -1;
    if (copying && open_gen(e, (uint32_t)copy, &e->copy, err) != 0)
        return -1;
    return 0;
}

static int open_parts(struct engine *e, struct err *err)
{
    struct store_point p;

    if (e->cfg.disk->ops->mkdir(e->cfg.disk, e->path, err) != 0 || lock_directory(e, err) != 0 ||
        local_open(e->cfg.disk, e->path, &e->local, err) != 0 || open_generations(e, err) != 0 ||
        take_role(e, err) != 0)
        return -1;
    e->store = e->cur->store;
    store_applied(e->store, &p);
    atomic_store(&e->applied_lsn, p.lsn);
    atomic_store(&e->checkpoint_lsn, store_checkpoint_lsn(e->store));
    e->committed_lsn = p.lsn;
    cursor_set(&e->feed, p.lsn + 1);
    e->want_epoch = engine_role(e) == ENGINE_PRIMARY && wal_end_lsn(e->cur->wal) == 0;
    e->promotable = engine_role(e) == ENGINE_SECONDARY;
    if (e->copy != NULL && copy_resume(e, err) != 0)
        return -1;
    if (engine_role(e) != ENGINE_PRIMARY)
        follow_resume(e);
    log_read_rows(e);
    log_publish(e);
    return 0;
}

static void wake_log(void *arg)
{
    struct engine *e = arg;

    disk_wake(e->cfg.disk);
}

static void defaults(struct engine_config *c)
{
    if (c->reserve_bytes == 0)
        c->reserve_bytes = (uint64_t)256 << 20;
    if (c->window_bytes == 0)
        c->window_bytes = 16u << 20;
    if (c->retain_bytes == 0)
        c->retain_bytes = (uint64_t)1 << 30;
    if (c->queue_bytes == 0)
        c->queue_bytes = 64u << 20;
    if (c->mark_interval_ms == 0)
        c->mark_interval_ms = 1000;
}

int engine_open(const struct engine_config *cfg, struct engine **ep, struct err *err)
{
    struct engine *e = calloc(1, sizeof(*e));

    *ep = NULL;
    if (e == NULL)
        return err_set(err, ERR_NOMEM, 0, "engine");
    e->cfg = *cfg;
    defaults(&e->cfg);
    e->lock_fd = -1;
    atomic_store(&e->deadline_ns, INT64_MAX);
    atomic_store(&e->checkpoint_ns, env_mono_ns(cfg->env));
    waker_init(&e->apply_waker);
    waker_init(&e->checkpoint_waker);
    pthread_mutex_init(&e->local_mu, NULL);
    pthread_mutex_init(&e->key_mu, NULL);
    pthread_mutex_init(&e->status_mu, NULL);
    pthread_rwlock_init(&e->store_lock, NULL);
    e->path = strdup(cfg->path);
    e->submit_q = queue_new(e->cfg.queue_bytes, wake_log, e);
    e->event_q = queue_new(SIZE_MAX, wake_log, e);
    e->job_q = queue_new(SIZE_MAX, waker_wake, &e->apply_waker);
    if (e->path == NULL || e->submit_q == NULL || e->event_q == NULL || e->job_q == NULL)
        err_set(err, ERR_NOMEM, 0, "engine");
    else if (open_parts(e, err) == 0) {
        *ep = e;
        return 0;
    }
    engine_close(e);
    return -1;
}

/* ---- threads ---- */
static void *log_main(void *arg)
{
    struct engine *e = arg;
    struct disk *d = e->cfg.disk;

    for (;;) {
        while (engine_log_step(e) > 0)
            (void)disk_wait(d, 0);
        if (atomic_load(&e->stopping) && e->pending.head == NULL && e->waiting.head == NULL &&
            wal_in_flight(engine_log_gen(e)->wal) == 0 && atomic_load(&e->apply_out_bytes) == 0 &&
            !e->promote.on)
            break;
        int64_t now = env_mono_ns(e->cfg.env), due = atomic_load(&e->deadline_ns);
        int64_t wait = due == INT64_MAX ? -1 : due > now ? due - now : 0;

        (void)disk_wait(d, wait);
    }
    follow_off(e, "this secondary is stopping");
    peers_clear(e, "this server is stopping");
    return NULL;
}

static void *apply_main(void *arg)
{
    struct engine *e = arg;

    for (;;) {
        if (engine_apply_step(e) > 0)
            continue;
        if (atomic_load(&e->apply_stop))
            break;
        waker_wait(&e->apply_waker, -1);
    }
    return NULL;
}

static void *checkpoint_main(void *arg)
{
    struct engine *e = arg;

    while (!atomic_load(&e->checkpoint_stop)) {
        (void)engine_checkpoint_step(e, false);
        waker_wait(&e->checkpoint_waker, NS_PER_S);
    }
    (void)engine_checkpoint_step(e, true);
    return NULL;
}

int engine_start(struct engine *e, struct err *err)
{
    int sys;

    assert(!e->started);
    sys = pthread_create(&e->log_thread, NULL, log_main, e);
    if (sys != 0)
        return err_set(err, ERR_NOMEM, sys, "log thread");
    sys = pthread_create(&e->apply_thread, NULL, apply_main, e);
    if (sys == 0) {
        sys = pthread_create(&e->checkpoint_thread, NULL, checkpoint_main, e);
        if (sys == 0) {
            e->started = true;
            return 0;
        }
        atomic_store(&e->apply_stop, true);
        waker_wake(&e->apply_waker);
        pthread_join(e->apply_thread, NULL);
    }
    atomic_store(&e->stopping, true);
    disk_wake(e->cfg.disk);
    pthread_join(e->log_thread, NULL);
    return err_set(err, ERR_NOMEM, sys, "engine threads");
}

void engine_stop(struct engine *e)
{
    if (!e->started || e->stopped)
        return;
    e->stopped = true;
    queue_close(e->submit_q);
    atomic_store(&e->stopping, true);
    disk_wake(e->cfg.disk);
    pthread_join(e->log_thread, NULL);
    atomic_store(&e->apply_stop, true);
    waker_wake(&e->apply_waker);
    pthread_join(e->apply_thread, NULL);
    atomic_store(&e->checkpoint_stop, true);
    waker_wake(&e->checkpoint_waker);
    pthread_join(e->checkpoint_thread, NULL);
}

/* What was accepted and never became an applied transaction is answered, not dropped. */
static void answer_rest(struct sub_list *l, const struct err *err)
{
    struct sub *s;

    while ((s = sub_list_take(l)) != NULL) {
        if (s->done != NULL)
            s->done(s->arg, s->lsn, err);
        txn_free(s->txn);
        free(s);
    }
}

static void close_queues(struct engine *e)
{
    struct queue_node *n, *next;
    struct err closed, unknown;

    err_set(&closed, ERR_CLOSED, 0, "the server is stopping");
    err_set(&unknown, ERR_UNKNOWN_OUTCOME, 0, "the server is stopping: the write may be durable");
    for (n = e->submit_q != NULL ? queue_take_all(e->submit_q) : NULL; n != NULL; n = next) {
        next = n->next;
        sub_list_add(&e->pending, (struct sub *)n);
    }
    for (n = e->job_q != NULL ? queue_take_all(e->job_q) : NULL; n != NULL; n = next) {
        struct job *j = (struct job *)n;

        next = n->next;
        answer_rest(&j->subs, j->kind == JOB_REFUSE ? &j->err : &unknown);
        if (j->done != NULL)
            j->done(j->arg, j->lsn, &unknown);
        job_free(j);
    }
    if (e->promote.on && e->promote.done != NULL)
        e->promote.done(e->promote.arg, 0, &unknown);
    answer_rest(&e->waiting, &unknown);
    answer_rest(&e->pending, &closed);
    for (n = e->event_q != NULL ? queue_take_all(e->event_q) : NULL; n != NULL; n = next) {
        struct event *ev = (struct event *)n;

        next = n->next;
        if (ev->done != NULL)
            ev->done(ev->arg, 0, &closed);
        event_free(ev);
    }
}

static void free_connections(struct engine *e)
{
    while (e->conns != NULL) {
        struct conn *c = e->conns;

        e->conns = c->next;
        free(c);
    }
    for (size_t i = 0; i < ENGINE_PEERS_MAX; i++) {
        cursor_set(&e->peers[i].cur, 0);
        free(e->peers[i].shipped);
    }
}

void engine_close(struct engine *e)
{
    if (e == NULL)
        return;
    engine_stop(e);
    /* The disk owns the memory of writes in flight. */
    while ((e->cur != NULL && e->cur->wal != NULL && wal_in_flight(e->cur->wal) > 0) ||
           (e->copy != NULL && e->copy->wal != NULL && wal_in_flight(e->copy->wal) > 0))
        (void)disk_wait(e->cfg.disk, -1);
    close_queues(e);
    free_connections(e);
    cursor_set(&e->feed, 0);
    cursor_set(&e->follow.fold, 0);
    seg_deque_free(&e->ring);
    seg_deque_free(&e->follow.rx);
    buf_free(&e->follow.last_key);
    buf_free(&e->out);
    free(e->txns);
    gen_free(e->copy);
    gen_free(e->cur);
    if (e->local != NULL)
        local_close(e->local);
    queue_free(e->submit_q);
    queue_free(e->event_q);
    queue_free(e->job_q);
    pthread_rwlock_destroy(&e->store_lock);
    pthread_mutex_destroy(&e->status_mu);
    pthread_mutex_destroy(&e->key_mu);
    pthread_mutex_destroy(&e->local_mu);
    waker_fini(&e->apply_waker);
    waker_fini(&e->checkpoint_waker);
    if (e->lock_fd >= 0)
        close(e->lock_fd);
    OPENSSL_cleanse(e->epoch_key, sizeof(e->epoch_key));
    free(e->path);
    free(e);
}

int64_t engine_next_deadline_ns(struct engine *e)
{
    return atomic_load(&e->deadline_ns);
}

/* ---- writes and reads ---- */
int engine_submit(struct engine *e, struct txn *t, engine_done_fn *done, void *arg, struct err *err)
{
    struct sub *s = NULL;

    if (engine_role(e) != ENGINE_PRIMARY) {
        err_set(err, ERR_ROLE, 0, "this cluster is not a primary");
        goto fail;
    }
    if (atomic_load(&e->reserve)) {
        err_set(err, ERR_NOSPC, 0, "disk_reserve: less than %" PRIu64 " MiB are free for %s",
                e->cfg.reserve_bytes >> 20, e->path);
        goto fail;
    }
    s = calloc(1, sizeof(*s));
    if (s == NULL) {
        err_set(err, ERR_NOMEM, 0, "transaction");
        goto fail;
    }
    if (txn_count(t) == 0) {
        err_set(err, ERR_INVAL, 0, "empty transaction");
        goto fail;
    }
    if (txn_bytes(t, &s->data, &s->len, err) != 0)
        goto fail;
    if (s->len > SEG_BODY_MAX_BYTES - DISK_BLOCK_BYTES) {
        err_set(err, ERR_INVAL, 0, "transaction of %zu bytes is too large", s->len);
        goto fail;
    }
    s->txn = t;
    s->done = done;
    s->arg = arg;
    s->node.weight = s->len + sizeof(*s);
    if (queue_push(e->submit_q, &s->node, err) == 0)
        return 0;
fail:
    free(s);
    txn_free(t);
    return -1;
}

int engine_get(struct engine *e, const char *key, struct buf *out, struct err *err)
{
    int rc;

    pthread_rwlock_rdlock(&e->store_lock);
    rc = store_get(e->store, key, out, NULL, err);
    pthread_rwlock_unlock(&e->store_lock);
    return rc;
}

int engine_scan(struct engine *e, const char *prefix, const char *after, size_t limit,
                bool keys_only,
                int (*each)(void *arg, const char *key, const uint8_t *value, size_t len,
                            uint64_t lsn, struct err *err),
                void *arg, struct err *err)
{
    int rc;

    pthread_rwlock_rdlock(&e->store_lock);
    rc = store_scan(e->store, prefix, after, limit, keys_only, each, arg, err);
    pthread_rwlock_unlock(&e->store_lock);
    return rc;
}

int engine_list(struct engine *e, const char *prefix,
                int (*each)(void *arg, const char *child, struct err *err), void *arg,
                struct err *err)
{
    int rc;

    pthread_rwlock_rdlock(&e->store_lock);
    rc = store_list(e->store, prefix, each, arg, err);
    pthread_rwlock_unlock(&e->store_lock);
    return rc;
}

int engine_watch(struct engine *e, const char *prefix,
                 void (*fn)(void *arg, const char *key, uint64_t lsn), void *arg, struct err *err)
{
    struct watch *w = &e->watches[e->n_watches];

    assert(!e->started);
    if (e->n_watches == WATCHES_MAX)
        return err_set(err, ERR_AGAIN, 0, "more than %u watches", WATCHES_MAX);
    if (strlen(prefix) >= sizeof(w->prefix))
        return err_set(err, ERR_INVAL, 0, "watch prefix is too long");
    snprintf(w->prefix, sizeof(w->prefix), "%s", prefix);
    w->fn = fn;
    w->arg = arg;
    e->n_watches++;
    return 0;
}

/* The caller's names live under a prefix of their own, so that none meets one of the engine's. */
static int local_name(const char *name, char *out, size_t size, struct err *err)
{
    if (name[0] == '\0' || (size_t)snprintf(out, size, "api/%s", name) >= size)
        return err_set(err, ERR_INVAL, 0, "local name is empty or too long");
    return 0;
}

int engine_local_get(struct engine *e, const char *name, struct buf *out, struct err *err)
{
    char full[256];

    if (local_name(name, full, sizeof(full), err) != 0)
        return -1;
    return get_locked(e, full, out, err);
}

int engine_local_put(struct engine *e, const char *name, const void *data, size_t len,
                     struct err *err)
{
    char full[256];
    int rc;

    if (local_name(name, full, sizeof(full), err) != 0)
        return -1;
    pthread_mutex_lock(&e->local_mu);
    rc = local_set(e->local, full, data, len, err);
    if (rc == 0 && local_commit(e->local, err) != 0) {
        pthread_mutex_unlock(&e->local_mu);
        engine_fatal(e, err);
    }
    pthread_mutex_unlock(&e->local_mu);
    return rc;
}

void engine_epoch_key(struct engine *e, const uint8_t key[32])
{
    pthread_mutex_lock(&e->key_mu);
    e->have_epoch_key = key != NULL;
    if (key != NULL)
        memcpy(e->epoch_key, key, sizeof(e->epoch_key));
    else
        OPENSSL_cleanse(e->epoch_key, sizeof(e->epoch_key));
    pthread_mutex_unlock(&e->key_mu);
}

/* ---- events: any thread to the log thread ---- */
struct event *event_new(struct engine *e, enum event_kind kind, const void *data, size_t len)
{
    struct event *ev = calloc(1, sizeof(*ev) + len);

    if (ev == NULL) {
        struct err err;

        /* A lost event would leave a connection or a promotion hanging for ever. */
        err_set(&err, ERR_NOMEM, 0, "event of %zu bytes for the log thread", len);
        engine_fatal(e, &err);
    }
    ev->kind = kind;
    ev->len = len;
    if (len > 0)
        memcpy(ev->data, data, len);
    ev->node.weight = len + sizeof(*ev);
    return ev;
}

void event_post(struct engine *e, struct event *ev)
{
    queue_push_always(e->event_q, &ev->node);
}

void event_free(struct event *ev)
{
    free(ev->follow);
    buf_free(&ev->buf);
    free(ev);
}

void engine_link_opened(struct engine *e, uint64_t conn, bool inbound, const char *peer_addr,
                        const uint8_t peer_key_hash[32])
{
    struct event *ev = event_new(e, EV_OPENED, NULL, 0);

    ev->conn = conn;
    ev->inbound = inbound;
    memcpy(ev->key_hash, peer_key_hash, sizeof(ev->key_hash));
    snprintf(ev->text, sizeof(ev->text), "%s", peer_addr != NULL ? peer_addr : "");
    event_post(e, ev);
}

void engine_link_frame(struct engine *e, uint64_t conn, const void *frame, size_t len)
{
    /* A peer that sends more than its window is not waited for: the marker closes its connection.
     */
    bool flood = queue_weight(e->event_q) > EVENTS_BYTES_MAX;
    struct event *ev = event_new(e, EV_FRAME, frame, flood ? 0 : len);

    ev->conn = conn;
    ev->flag = flood;
    event_post(e, ev);
}

void engine_link_sent(struct engine *e, uint64_t conn, size_t bytes)
{
    struct event *ev = event_new(e, EV_SENT, NULL, 0);

    ev->conn = conn;
    ev->number = bytes;
    event_post(e, ev);
}

void engine_link_closed(struct engine *e, uint64_t conn, const char *reason)
{
    struct event *ev = event_new(e, EV_CLOSED, NULL, 0);

    ev->conn = conn;
    snprintf(ev->text, sizeof(ev->text), "%s", reason != NULL ? reason : "closed");
    event_post(e, ev);
}

void engine_link_answer(struct engine *e, uint64_t conn, const void *body, size_t len,
                        const char *reason)
{
    struct event *ev = event_new(e, EV_ANSWER, body, body != NULL ? len : 0);

    ev->conn = conn;
    ev->flag = body != NULL;
    snprintf(ev->text, sizeof(ev->text), "%s", reason != NULL ? reason : "");
    event_post(e, ev);
}

int engine_follow(struct engine *e, const struct follow_config *cfg, engine_done_fn *done,
                  void *arg, struct err *err)
{
    struct event *ev;

    if (cfg->member_id[0] == '\0' || cfg->primary_addr[0] == '\0')
        return err_set(err, ERR_INVAL, 0, "follow needs a member id and the primary's address");
    ev = event_new(e, EV_FOLLOW, NULL, 0);
    ev->follow = malloc(sizeof(*ev->follow));
    if (ev->follow == NULL) {
        event_free(ev);
        return err_set(err, ERR_NOMEM, 0, "follow");
    }
    *ev->follow = *cfg;
    ev->done = done;
    ev->arg = arg;
    event_post(e, ev);
    return 0;
}

int engine_promote(struct engine *e, engine_done_fn *done, void *arg, struct err *err)
{
    struct event *ev;
    enum engine_role role = engine_role(e);

    if (role == ENGINE_BOOTSTRAPPING)
        return err_set(err, ERR_ROLE, 0, "the first copy is not whole: nothing to promote");
    if (role != ENGINE_SECONDARY)
        return err_set(err, ERR_ROLE, 0, "not a secondary");
    if (!epoch_has_key(e))
        return err_set(err, ERR_SEALED, 0, "promotion needs the barrier open");
    ev = event_new(e, EV_PROMOTE, NULL, 0);
    ev->done = done;
    ev->arg = arg;
    event_post(e, ev);
    return 0;
}

void engine_members_changed(struct engine *e)
{
    event_post(e, event_new(e, EV_MEMBERS, NULL, 0));
}

/* ---- status ---- */
void engine_status(struct engine *e, struct engine_status *st)
{
    struct err err;
    uint64_t lsn;

    pthread_mutex_lock(&e->status_mu);
    *st = e->status;
    pthread_mutex_unlock(&e->status_mu);
    st->role = engine_role(e);
    st->applied_lsn = atomic_load(&e->applied_lsn);
    st->checkpoint_lsn = atomic_load(&e->checkpoint_lsn);
    st->disk_reserve = atomic_load(&e->reserve);
    st->copy_keys = atomic_load(&e->copy_keys);
    st->copy_bytes = atomic_load(&e->copy_bytes);
    pthread_rwlock_rdlock(&e->store_lock);
    if (store_merkle_root(e->store, st->merkle_root, &lsn, &err) != 0)
        memset(st->merkle_root, 0, sizeof(st->merkle_root));
    pthread_rwlock_unlock(&e->store_lock);
}
