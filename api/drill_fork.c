/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * drill_fork.c - a drill's folder, and the fork of this secondary's state that is built in it.
 *
 * A snapshot of this server is piped into a restore, so the fork has a cluster id and an epoch of
 * its own. The folder holds the file MARK from its first moment, and loses it last: only what has
 * the mark is ever removed.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core_private.h"
#include "drill_private.h"

#define MARK "lockstep-drill"

/* ---- the folder ---- */
/* The mark is durable before there is anything else in it. */
int drill_folder_make(const char *dir, struct err *err)
{
    int folder = -1, fd = -1, rc = -1;

    if (mkdir(dir, 0700) != 0)
        return err_set(err, errno == EEXIST ? ERR_EXISTS : ERR_IO, errno, "make %s", dir);
    folder = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder >= 0)
        fd = openat(folder, MARK, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    if (fd < 0) {
        err_set(err, ERR_IO, errno, "make %s/" MARK, dir);
        (void)rmdir(dir);
    } else {
        rc = fsync(folder) == 0 ? 0 : err_set(err, ERR_IO, errno, "sync %s", dir);
    }
    if (fd >= 0)
        close(fd);
    if (folder >= 0)
        close(folder);
    return rc;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag;
    /* The mark last, so that a removal that stops half way can be taken up again. */
    if (ftw->level == 1 && strcmp(path + ftw->base, MARK) == 0)
        return 0;
    if (ftw->level > 0 && remove(path) != 0)
        return -1;
    return 0;
}

/* Only what we have marked. */
static int remove_dir(const char *dir, struct err *err)
{
    char path[1100];

    snprintf(path, sizeof(path), "%s/" MARK, dir);
    if (access(path, F_OK) != 0)
        return errno == ENOENT ? 0 : err_set(err, ERR_IO, errno, "look at %s", path);
    if (nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0 || unlink(path) != 0 ||
        rmdir(dir) != 0)
        return err_set(err, ERR_IO, errno, "remove %s", dir);
    return 0;
}

void drill_folder_forget(struct drill *d, const char *dir)
{
    struct err err = {0};

    if (remove_dir(dir, &err) != 0 ||
        engine_local_put(d->core->engine, DRILL_LOCAL, NULL, 0, &err) != 0)
        log_error(d->core->log, "drill", "%s: it is tried again at the next start", err.msg);
}

/* ---- the fork ---- */
static int pipe_fork(struct drill *d, struct engine_snapshot *s, struct restore *r, struct err *err)
{
    struct buf b = {0};
    int rc = 1;

    while (rc == 1) {
        buf_clear(&b);
        if (drill_told_to_stop(d, 0)) {
            rc = err_set(err, ERR_CLOSED, 0, "ended before it ran");
            break;
        }
        rc = engine_snapshot_next(s, &b, err);
        if (rc >= 0 && restore_feed(r, b.data, b.len, err) != 0)
            rc = -1;
    }
    buf_free(&b);
    return rc == 0 ? restore_snapshot_end(r, err) : -1;
}

static int make_fork(struct drill *d, struct restore_report *rep, struct err *err)
{
    struct core *c = d->core;
    struct restore_config cfg = {
        .env = c->env, .log = c->log, .cache_bytes = c->config->cache_bytes};
    struct engine_snapshot *s = NULL;
    struct restore *r = NULL;
    char data[1100];
    int rc = -1;

    snprintf(data, sizeof(data), "%s/data", d->out.dir);
    if (disk_open_pair(64, &cfg.disk, &cfg.store_disk, err) != 0)
        return -1;
    if (engine_snapshot_begin(c->engine, &s, err) == 0 &&
        restore_directory_begin(&cfg, data, &r, err) == 0 && pipe_fork(d, s, r, err) == 0)
        rc = restore_finish(r, rep, err);
    engine_snapshot_end(s);
    restore_free(r);
    disk_free(cfg.store_disk);
    disk_free(cfg.disk);
    return rc;
}

/* What a promotion would have had to apply first: the secondary's own tail, at the speed at which
 * the fork's log was applied. */
static void note_tail(struct drill *d, const struct engine_status *st,
                      const struct restore_report *rep)
{
    d->out.tail = st->keeps_lsn > st->applied_lsn ? st->keeps_lsn - st->applied_lsn : 0;
    if (rep->transactions > 0)
        d->out.tail_ms =
            (double)rep->apply_ns / 1e6 / (double)rep->transactions * (double)d->out.tail;
}

int drill_fork_copy(struct drill *d, struct err *err)
{
    int64_t from = env_mono_ns(d->core->env);
    struct restore_report *rep = calloc(1, sizeof(*rep)); /* large */
    struct engine_status *st = calloc(1, sizeof(*st));
    int rc = -1;

    if (rep == NULL || st == NULL)
        err_set(err, ERR_NOMEM, 0, "drill");
    else {
        engine_status(d->core->engine, st);
        rc = make_fork(d, rep, err);
    }
    if (rc == 0) {
        pthread_mutex_lock(&d->mutex);
        d->out.fork = *rep;
        d->out.forked = true;
        d->out.copy_ms = (double)(env_mono_ns(d->core->env) - from) / 1e6;
        note_tail(d, st, rep);
        pthread_mutex_unlock(&d->mutex);
    }
    free(rep);
    free(st);
    return rc;
}
