/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * drill.c - the secondary's side of a drill: its states, and the one thread that goes through them.
 *
 *     NONE -> COPYING -> STARTING -> RUNNING -> ENDING -> NONE
 *
 * and from each to ENDING. One thread does it all, so a request never waits for it: it makes the
 * fork (drill_fork.c), starts and ends the process that serves it (drill_process.c), and removes
 * everything. Replication goes on meanwhile.
 *
 * The folder is named in the local space before it is made: what a crash leaves is removed at the
 * next start. The other process's lock on the data tells when it is gone.
 */
#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <unistd.h>

#include "core_private.h"
#include "drill_private.h"

struct drill *drill_new(struct core *c)
{
    struct drill *d = calloc(1, sizeof(*d));

    if (d == NULL)
        return NULL;
    d->core = c;
    d->fd = -1;
    d->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (d->stop_fd < 0) {
        free(d);
        return NULL;
    }
    pthread_mutex_init(&d->mutex, NULL);
    return d;
}

void drill_free(struct drill *d)
{
    if (d == NULL)
        return;
    json_decref(d->out.child);
    close(d->stop_fd);
    pthread_mutex_destroy(&d->mutex);
    free(d);
}

static void move(struct drill *d, enum drill_state s)
{
    pthread_mutex_lock(&d->mutex);
    d->state = s;
    pthread_mutex_unlock(&d->mutex);
}

bool drill_told_to_stop(struct drill *d, int timeout_ms)
{
    struct pollfd p = {.fd = d->stop_fd, .events = POLLIN};

    return poll(&p, 1, timeout_ms) > 0;
}

static void drop_root(struct drill *d)
{
    if (d->root != NULL)
        OPENSSL_secure_clear_free(d->root, BARRIER_KEY_BYTES);
    d->root = NULL;
}

/* ---- the thread ---- */
static int run(struct drill *d, struct err *err)
{
    int64_t until_ns = env_mono_ns(d->core->env) + d->ttl_s * 1000000000LL;
    int rc;

    if (access(d->out.dir, F_OK) == 0) /* even another drill's: before it is noted as ours */
        return err_set(err, ERR_EXISTS, EEXIST, "make %s", d->out.dir);
    if (engine_local_put(d->core->engine, DRILL_LOCAL, d->out.dir, strlen(d->out.dir), err) != 0)
        return -1;
    d->noted = true;
    if (drill_folder_make(d->out.dir, err) != 0 || drill_fork_copy(d, err) != 0)
        return -1;
    move(d, DRILL_STARTING);
    rc = drill_process_start(d, err);
    drop_root(d);
    if (rc != 0)
        return -1;
    rc = drill_process_report(d, until_ns, err);
    if (rc <= 0)
        return rc;
    log_info(d->core->log, "drill", "running: address=%s cluster_id=%s lsn=%llu", d->out.address,
             d->out.fork.cluster_id, (unsigned long long)d->out.fork.lsn);
    move(d, DRILL_RUNNING);
    return drill_process_watch(d, until_ns, err);
}

static void *drill_main(void *arg)
{
    struct drill *d = arg;
    struct err err = {0};

    log_info(d->core->log, "drill", "begun: id=%s directory=%s", d->out.id, d->out.dir);
    if (run(d, &err) != 0) {
        log_warn(d->core->log, "drill", "%s", err.msg);
        pthread_mutex_lock(&d->mutex);
        snprintf(d->out.error, sizeof(d->out.error), "%s", err.msg);
        pthread_mutex_unlock(&d->mutex);
    }
    move(d, DRILL_ENDING);
    drop_root(d);
    drill_process_end(d);
    if (d->noted)
        drill_folder_forget(d, d->out.dir);
    d->noted = false;
    pthread_mutex_lock(&d->mutex);
    d->out.ended_ms = env_wall_ms(d->core->env);
    d->state = DRILL_NONE;
    pthread_mutex_unlock(&d->mutex);
    log_info(d->core->log, "drill", "ended: id=%s", d->out.id);
    return NULL;
}

/* A thread of an earlier one is joined; it has nothing more to do. */
static int begin_thread(struct drill *d, void *(*fn)(void *), struct err *err)
{
    uint64_t old;
    int sys;

    if (d->joinable)
        pthread_join(d->thread, NULL);
    if (read(d->stop_fd, &old, sizeof(old)) < 0 && errno != EAGAIN)
        return err_set(err, ERR_IO, errno, "drill");
    sys = pthread_create(&d->thread, NULL, fn, d);
    d->joinable = sys == 0;
    return sys == 0 ? 0 : err_set(err, ERR_NOMEM, sys, "drill");
}

/* ---- after a crash ---- */
/* The other process ends when it sees that we did; the lock on its data is free then. */
static void await_gone(struct drill *d)
{
    char path[1100];
    int fd;

    snprintf(path, sizeof(path), "%s/data/lock", d->out.dir);
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    for (int i = 0; i < DRILL_STOP_MS / 100 && flock(fd, LOCK_EX | LOCK_NB) != 0; i++)
        if (drill_told_to_stop(d, 100))
            break;
    close(fd);
}

static void *recover_main(void *arg)
{
    struct drill *d = arg;

    log_info(d->core->log, "drill", "removing %s: left by a drill that a crash ended", d->out.dir);
    await_gone(d);
    /* A crash right behind the making of the folder, or right before the end of its removal, leaves
     * it empty and without the mark. With something in it, it is drill_folder_forget's to decide.
     */
    (void)rmdir(d->out.dir);
    drill_folder_forget(d, d->out.dir);
    move(d, DRILL_NONE);
    return NULL;
}

void drill_recover(struct core *c)
{
    struct drill *d = c->drill;
    struct buf dir = {0};
    struct err err = {0};

    if (engine_local_get(c->engine, DRILL_LOCAL, &dir, &err) == 0) {
        snprintf(d->out.dir, sizeof(d->out.dir), "%s", buf_str(&dir));
        d->state = DRILL_ENDING;
        err_clear(&err);
        if (begin_thread(d, recover_main, &err) != 0)
            d->state = DRILL_NONE;
    }
    if (err.code != ERR_OK && err.code != ERR_NOTFOUND)
        log_error(c->log, "drill", "%s", err.msg);
    buf_free(&dir);
}

void drill_end_soon(struct core *c)
{
    uint64_t one = 1;

    if (c->drill != NULL && write(c->drill->stop_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
        log_error(c->log, "drill", "cannot end it: %s", strerror(errno));
}

void drill_stop(struct core *c)
{
    struct drill *d = c->drill;

    if (d == NULL)
        return;
    drill_end_soon(c);
    if (d->joinable)
        pthread_join(d->thread, NULL);
    d->joinable = false;
}

/* ---- begin ---- */
static int take_root(struct drill *d, struct err *err)
{
    struct buf root = {.secret = true};
    int rc = barrier_root(d->core->barrier, &root, err);

    if (rc == 0) {
        d->root = OPENSSL_secure_malloc(BARRIER_KEY_BYTES);
        rc = d->root != NULL ? 0 : err_set(err, ERR_NOMEM, 0, "no guarded memory for the root key");
    }
    if (rc == 0)
        memcpy(d->root, root.data, BARRIER_KEY_BYTES);
    buf_free(&root);
    return rc;
}

int drill_begin(struct drill *d, int64_t now_ms, const char *address, const char *dir,
                int64_t ttl_s, struct err *err)
{
    json_decref(d->out.child);
    memset(&d->out, 0, sizeof(d->out));
    uuid_new(d->core, d->out.id);
    snprintf(d->out.address, sizeof(d->out.address), "%s", address);
    snprintf(d->out.dir, sizeof(d->out.dir), "%s", dir);
    d->out.started_ms = now_ms;
    d->out.ends_ms = now_ms + ttl_s * 1000;
    d->ttl_s = ttl_s;
    if (take_root(d, err) != 0)
        return -1;
    if (begin_thread(d, drill_main, err) != 0) {
        drop_root(d);
        return -1;
    }
    d->state = DRILL_COPYING;
    return 0;
}
