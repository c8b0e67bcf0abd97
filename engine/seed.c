/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * seed.c - a secondary that begins with a snapshot instead of a copy over the link.
 *
 * The snapshot becomes a generation beside the data at hand, made and proven by restore.c on the
 * caller's thread. engine_follow_seed then makes one durable change: the role bootstrapping, whom
 * to follow, and that generation as the copy. It is whole, so the switch follows at once, and the
 * link goes on from the snapshot's LSN: with the log when the primary still has it, by difference
 * else. A crash before the change leaves a generation that no row names, which the next start
 * removes; after it the copy is found finished and put in place.
 */
#include "engine_private.h"
#include "follow_private.h"
#include "log_private.h"
#include "restore.h"
#include "snapshot.h"
#include "threads_private.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_BYTES (1u << 20)

struct engine_seed {
    struct engine *e;
    uint32_t number;
    bool taken; /* a row names the generation */
    struct restore_report report;
};

static int feed_file(struct engine *e, struct restore *r, const char *path, struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), rc = 0; /* a FIFO would wait */
    uint8_t *data = malloc(READ_BYTES);
    struct stat st;
    ssize_t n = 0;

    if (fd < 0)
        rc = err_set(err, errno == ENOENT ? ERR_NOTFOUND : ERR_IO, errno, "open %s", path);
    else if (data == NULL)
        rc = err_set(err, ERR_NOMEM, 0, "read %s", path);
    else if (fstat(fd, &st) != 0)
        rc = err_set(err, ERR_IO, errno, "stat %s", path);
    else if (!S_ISREG(st.st_mode))
        rc = err_set(err, ERR_INVAL, 0, "%s is not a regular file", path);
    while (rc == 0 && (n = read(fd, data, READ_BYTES)) != 0) {
        if (atomic_load(&e->stopping))
            rc = err_set(err, ERR_CLOSED, 0, "the server is stopping");
        else if (n < 0 && errno != EINTR)
            rc = err_set(err, ERR_IO, errno, "read %s", path);
        else if (n > 0)
            rc = restore_feed(r, data, (size_t)n, err);
    }
    if (fd >= 0)
        close(fd);
    free(data);
    return rc;
}

static int make(struct engine_seed *s, struct disk *disk, const char *gen_dir, const char *path,
                struct err *err)
{
    struct engine *e = s->e;
    struct restore_config cfg = {.disk = disk,
                                 .store_disk = e->cfg.store_disk,
                                 .env = e->cfg.env,
                                 .log = e->cfg.log,
                                 .cache_bytes = e->cfg.cache_bytes,
                                 .wal_file_bytes = e->cfg.wal_file_bytes,
                                 .deterministic = e->cfg.deterministic};
    struct restore *r;
    int rc = -1;

    if (restore_generation_begin(&cfg, gen_dir, &r, err) != 0)
        return -1;
    if (feed_file(e, r, path, err) == 0 && restore_snapshot_end(r, err) == 0)
        rc = restore_finish(r, &s->report, err);
    restore_free(r);
    return rc;
}

int engine_seed_new(struct engine *e, struct disk *disk, const char *path, struct engine_seed **sp,
                    struct err *err)
{
    struct engine_seed *s = calloc(1, sizeof(*s));
    char name[32], *dir;
    int rc;

    *sp = NULL;
    if (s == NULL)
        return err_set(err, ERR_NOMEM, 0, "seed");
    s->e = e;
    s->number = gen_number(e);
    snprintf(name, sizeof(name), "gen-%" PRIu32, s->number);
    dir = path_of(e->path, name);
    log_info(e->cfg.log, LOG_REPLICATION, "making %s of the snapshot %s", name, path);
    rc = dir != NULL ? make(s, disk, dir, path, err) : err_set(err, ERR_NOMEM, 0, "seed");
    free(dir);
    if (rc == 0 && e->cfg.disk->ops->sync_dir(e->cfg.disk, e->path, err) != 0)
        engine_fatal(e, err); /* see gen_remove */
    if (rc != 0) {
        engine_seed_free(s);
        return -1;
    }
    log_info(e->cfg.log, LOG_REPLICATION,
             "the snapshot is whole: LSN %" PRIu64 ", Merkle root as it says", s->report.lsn);
    *sp = s;
    return 0;
}

const struct snapshot_info *engine_seed_info(const struct engine_seed *s)
{
    return &s->report.snapshot;
}

void engine_seed_free(struct engine_seed *s)
{
    struct err err;

    if (s == NULL)
        return;
    if (!s->taken && gen_remove(s->e, s->number, &err) != 0) /* the next start tries again */
        log_warn(s->e->cfg.log, LOG_REPLICATION, "%s", err.msg);
    free(s);
}

int engine_follow_seed(struct engine *e, const struct follow_config *cfg, struct engine_seed *s,
                       engine_done_fn *done, void *arg, struct err *err)
{
    struct event *ev;

    if (cfg->member_id[0] == '\0' || cfg->primary_addr[0] == '\0') {
        engine_seed_free(s);
        return err_set(err, ERR_INVAL, 0, "follow needs a member id and the primary's address");
    }
    ev = event_new(e, EV_FOLLOW, NULL, 0);
    ev->seed = s;
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

/* ---- log thread ---- */
int seed_open(struct engine *e, struct engine_seed *s, struct gen **gp, struct err *err)
{
    if (gen_open(e, s->number, gp, err) != 0)
        return -1;
    (*gp)->epochs = s->report.snapshot.epochs;
    return 0;
}

int seed_note(struct engine *e, struct engine_seed *s, const struct gen *g, struct err *err)
{
    char name[32], number[24], seed[48];
    struct buf b = {0};
    int rc = -1;

    snprintf(name, sizeof(name), "epochs-%" PRIu32, s->number);
    snprintf(number, sizeof(number), "%" PRIu32, s->number);
    snprintf(seed, sizeof(seed), "%" PRIu32 " %" PRIu64, s->number, s->report.lsn);
    if (epochs_encode(&g->epochs, &b, err) == 0 &&
        local_set(e->local, name, b.data, b.len, err) == 0 &&
        local_set(e->local, "seed", seed, strlen(seed), err) == 0)
        rc = local_set(e->local, "copy", number, strlen(number), err);
    buf_free(&b);
    s->taken = rc == 0;
    return rc;
}

uint64_t seed_lsn(struct engine *e)
{
    struct buf b = {0};
    uint64_t lsn = 0;
    struct err err;
    char *end;

    if (local_get_locked(e, "seed", &b, &err) == 0 &&
        strtoul(buf_str(&b), &end, 10) == e->cur->number)
        lsn = strtoull(end, NULL, 10);
    buf_free(&b);
    return lsn;
}

void seed_begin(struct engine *e, struct gen *g)
{
    struct err err;

    seg_deque_clear(&e->ring); /* of the log before */
    cursor_set(&e->feed, e->feed.next_lsn);
    atomic_store(&e->copy_keys, 0);
    atomic_store(&e->copy_bytes, 0);
    atomic_store(&e->copy_deleted, 0);
    e->follow.moved_bytes = 0;
    e->follow.copy_started_ms = env_wall_ms(e->cfg.env);
    e->copy = g;
    if (copy_resume(e, &err) != 0)
        engine_fatal(e, &err);
}
