/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * lost_read.c - files of lost writes, read: their heads for status, their transactions for who
 * applies them. lost.c has the bytes.
 */
#include "engine_private.h"
#include "retain_private.h"
#include "threads_private.h"

#include <endian.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#define KEYRING_BYTES_MAX ((uint64_t)1 << 20)

struct source { /* an open file */
    struct disk *disk;
    struct disk_file *file;
    uint64_t size, keyring_bytes, keyring_sum;
    struct engine_lost head;
};

static int corrupt(const char *path, const char *what, struct err *err)
{
    return err_set(err, ERR_CORRUPT, 0, "%s: %s", path, what);
}

static int read_at(struct source *s, void *data, size_t len, uint64_t off, const char *path,
                   struct err *err)
{
    size_t got = 0;

    if (s->disk->ops->pread(s->file, data, len, off, &got, err) != 0)
        return -1;
    return got == len ? 0 : corrupt(path, "the file is too short", err);
}

static int read_head(struct source *s, const char *path, struct err *err)
{
    uint8_t block[DISK_BLOCK_BYTES];
    struct engine_lost *h = &s->head;
    struct mp m;
    uint32_t len;
    uint64_t sum;

    if (read_at(s, block, sizeof(block), 0, path, err) != 0)
        return -1;
    memcpy(&sum, block + 8, sizeof(sum));
    memcpy(&len, block + 16, sizeof(len));
    len = le32toh(len);
    if (memcmp(block, "LSLOST1\n", 8) != 0 || len > sizeof(block) - 20 ||
        XXH3_64bits(block + 16, sizeof(block) - 16) != le64toh(sum))
        return corrupt(path, "not a file of lost writes, or damaged", err);
    m = (struct mp){.p = block + 20, .end = block + 20 + len};
    if (mp_array(&m, 64) < 17 || mp_uint(&m, UINT32_MAX) != 1)
        m.bad = true;
    mp_text(&m, h->id, sizeof(h->id));
    mp_text(&m, h->cluster_id, sizeof(h->cluster_id));
    mp_text(&m, h->member, sizeof(h->member));
    h->fork_lsn = mp_uint(&m, UINT64_MAX);
    h->first_lsn = mp_uint(&m, UINT64_MAX);
    h->last_lsn = mp_uint(&m, UINT64_MAX);
    mp_fixed(&m, h->hash, sizeof(h->hash));
    h->saved_ms = mp_int(&m);
    h->epoch = (uint32_t)mp_uint(&m, UINT32_MAX);
    h->whole = mp_bool(&m);
    h->transactions = mp_uint(&m, UINT64_MAX);
    h->puts = mp_uint(&m, UINT64_MAX);
    h->deletes = mp_uint(&m, UINT64_MAX);
    h->bytes = mp_uint(&m, UINT64_MAX);
    s->keyring_bytes = mp_uint(&m, KEYRING_BYTES_MAX);
    s->keyring_sum = mp_uint(&m, UINT64_MAX);
    if (m.bad)
        return corrupt(path, "its head is not readable", err);
    if (s->size < DISK_BLOCK_BYTES || s->size - DISK_BLOCK_BYTES < s->keyring_bytes ||
        s->size - DISK_BLOCK_BYTES - s->keyring_bytes != h->bytes)
        return corrupt(path, "it has the wrong length", err);
    return 0;
}

static void source_close(struct source *s)
{
    if (s->file != NULL)
        s->disk->ops->close(s->file);
}

static int source_open(struct engine *e, const char *id, struct source *s, struct err *err)
{
    char *dir = path_of(e->path, ENGINE_LOST_DIR), *path = dir != NULL ? path_of(dir, id) : NULL;
    int rc = -1;

    *s = (struct source){.disk = e->cfg.disk};
    if (path == NULL)
        err_set(err, ERR_NOMEM, 0, "lost writes");
    else if (strchr(id, '/') != NULL || id[0] == '.' || id[0] == '\0' ||
             strcmp(id, ENGINE_LOST_SAVING) == 0)
        err_set(err, ERR_NOTFOUND, 0, "no lost writes are saved as \"%.63s\"", id);
    else if (s->disk->ops->open(s->disk, path, DISK_READ, &s->file, err) != 0) {
        if (err->code == ERR_NOTFOUND)
            err_set(err, ERR_NOTFOUND, 0, "no lost writes are saved as \"%.63s\"", id);
    } else if (s->disk->ops->size(s->file, &s->size, err) == 0)
        rc = read_head(s, path, err);
    free(dir);
    free(path);
    return rc;
}

/* ---- status ---- */
/* Those that were saved last, when there are more than status has room for. */
static void list_one(struct engine *e, const struct engine_lost *h)
{
    struct engine_lost *oldest = &e->lost_files[0];

    if (e->n_lost < ENGINE_LOST_MAX) {
        e->lost_files[e->n_lost++] = *h;
        return;
    }
    e->lost_unshown++;
    for (size_t i = 1; i < ENGINE_LOST_MAX; i++)
        if (e->lost_files[i].saved_ms < oldest->saved_ms)
            oldest = &e->lost_files[i];
    if (oldest->saved_ms < h->saved_ms)
        *oldest = *h;
}

void lost_list(struct engine *e)
{
    struct disk *d = e->cfg.disk;
    char *dir = path_of(e->path, ENGINE_LOST_DIR);
    struct names l = {0};
    struct err err;
    bool there = false;

    e->n_lost = e->lost_unshown = 0;
    if (dir == NULL || d->ops->exists(d, dir, &there, &err) != 0 || !there)
        goto out;
    if (d->ops->list(d, dir, add_name, &l, &err) != 0) {
        log_warn(e->cfg.log, LOG_REPLICATION, "%s: %s", dir, err.msg);
        goto out;
    }
    for (size_t i = 0; i < l.n; i++) {
        struct source s;

        if (strcmp(l.v[i], ENGINE_LOST_SAVING) == 0)
            continue;
        if (source_open(e, l.v[i], &s, &err) == 0)
            list_one(e, &s.head);
        else
            log_warn(e->cfg.log, LOG_REPLICATION, "lost writes: %s", err.msg);
        source_close(&s);
    }
    e->dirty = true;
out:
    names_free(&l);
    free(dir);
}

/* ---- reading ---- */
struct walk {
    uint64_t from_lsn;
    int64_t commit_ms;
    engine_lost_fn *fn;
    void *arg;
};

static int walk_txn(void *arg, uint64_t lsn, const uint8_t *data, size_t len, struct err *err)
{
    struct walk *w = arg;

    return lsn < w->from_lsn ? 0 : w->fn(w->arg, lsn, w->commit_ms, data, len, err);
}

/* One segment at off; *lenp its bytes. */
static int walk_one(struct source *s, uint64_t off, struct walk *w, size_t *lenp, struct err *err)
{
    uint8_t head[SEG_HEADER_BYTES], *bytes;
    uint64_t left = DISK_BLOCK_BYTES + s->head.bytes - off;
    struct seg *seg = NULL;
    uint32_t body;
    int rc = -1;

    if (left < sizeof(head))
        return corrupt(s->head.id, "a segment is cut short", err);
    if (read_at(s, head, sizeof(head), off, s->head.id, err) != 0)
        return -1;
    memcpy(&body, head + 4, sizeof(body));
    body = le32toh(body);
    if (body > SEG_BODY_MAX_BYTES || sizeof(head) + body > left)
        return corrupt(s->head.id, "a segment has a wrong length", err);
    bytes = malloc(sizeof(head) + body);
    if (bytes == NULL)
        return err_set(err, ERR_NOMEM, 0, "lost writes");
    if (read_at(s, bytes, sizeof(head) + body, off, s->head.id, err) == 0 &&
        seg_decode(bytes, sizeof(head) + body, &seg, lenp, err) == 0) {
        w->commit_ms = seg->commit_ms;
        rc = seg_last_lsn(seg) < w->from_lsn ? 0 : seg_each_txn(seg, walk_txn, w, err);
    }
    seg_unref(seg);
    free(bytes);
    return rc;
}

int engine_lost_each(struct engine *e, const char *id, uint64_t from_lsn, struct engine_lost *head,
                     engine_lost_fn *fn, void *arg, struct err *err)
{
    struct walk w = {.from_lsn = from_lsn, .fn = fn, .arg = arg};
    uint64_t off = DISK_BLOCK_BYTES;
    struct source s;
    int rc = source_open(e, id, &s, err);

    if (rc == 0)
        *head = s.head;
    while (rc == 0 && off < DISK_BLOCK_BYTES + s.head.bytes) {
        size_t len = 0;

        rc = walk_one(&s, off, &w, &len, err);
        off += len;
    }
    source_close(&s);
    return rc < 0 ? -1 : 0;
}

int engine_lost_keyring(struct engine *e, const char *id, struct buf *out, struct err *err)
{
    struct source s;
    uint8_t *p;
    int rc = -1;

    if (source_open(e, id, &s, err) != 0)
        goto out;
    if (s.keyring_bytes == 0) {
        rc = 0;
        goto out;
    }
    p = buf_reserve(out, (size_t)s.keyring_bytes);
    if (p == NULL) {
        err_set(err, ERR_NOMEM, 0, "keyring of lost writes");
        goto out;
    }
    if (read_at(&s, p, (size_t)s.keyring_bytes, s.size - s.keyring_bytes, id, err) != 0)
        goto out;
    if (XXH3_64bits(p, (size_t)s.keyring_bytes) != s.keyring_sum) {
        corrupt(id, "its keyring is damaged", err);
        goto out;
    }
    out->len += (size_t)s.keyring_bytes;
    rc = 0;
out:
    source_close(&s);
    return rc;
}

int engine_lost_delete(struct engine *e, const char *id, engine_done_fn *done, void *arg,
                       struct err *err)
{
    struct event *ev;

    if (strlen(id) >= sizeof(ev->text))
        return err_set(err, ERR_NOTFOUND, 0, "no lost writes are saved as \"%.63s\"", id);
    ev = event_new(e, EV_LOST_DELETE, NULL, 0);
    snprintf(ev->text, sizeof(ev->text), "%s", id);
    ev->done = done;
    ev->arg = arg;
    event_post(e, ev);
    return 0;
}

void lost_delete(struct engine *e, struct event *ev)
{
    struct disk *d = e->cfg.disk;
    char *dir = path_of(e->path, ENGINE_LOST_DIR),
         *path = dir != NULL ? path_of(dir, ev->text) : NULL;
    struct source s;
    struct err err = {0};
    int rc = source_open(e, ev->text, &s, &err);

    source_close(&s);
    if (rc == 0 && path == NULL)
        rc = err_set(&err, ERR_NOMEM, 0, "lost writes");
    if (rc == 0)
        rc = d->ops->remove(d, path, &err);
    if (rc == 0 && d->ops->sync_dir(d, dir, &err) != 0)
        engine_fatal(e, &err); /* as any flush that failed */
    if (rc == 0)
        log_warn(e->cfg.log, LOG_REPLICATION, "lost writes %s are removed, as asked", ev->text);
    lost_list(e);
    if (ev->done != NULL)
        ev->done(ev->arg, 0, rc == 0 ? NULL : &err);
    ev->done = NULL;
    free(dir);
    free(path);
}
