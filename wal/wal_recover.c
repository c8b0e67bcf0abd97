/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * wal_recover.c - find the end of a log, tell a torn tail from a hole, and put right what a crash
 * left.
 *
 * The log goes on as long as the next segment is valid and continues the hash chain; a file goes on
 * in the next one when that one's head does. Where that ends, everything behind (the rest of the
 * file and the later files) is searched, block by block, for later segments of this log. Recycled
 * files hold old ones, whose LSN is at or below the end: they say nothing. A later one whose
 * durable LSN covers the place proves that it was durable once: a hole, which is an error. Else
 * what is behind was never acknowledged, and is cut: later files are removed and the rest of the
 * last one is overwritten with zeros, durably.
 *
 * A process that was killed leaves names and segments that read well and were never flushed. They
 * are made durable before anything is decided by them: else a power cut after the next append,
 * whose header calls them durable, would make a hole of them.
 *
 * A crash during that repair is harmless: whatever part of it was done, what is left still says
 * "not durable" about the place of the cut, so that the next recovery decides the same. wal_cut,
 * which drops durable segments, has no such luck: it first writes the file "cut", which says where
 * the log ends.
 *
 *     cut: 00-07 magic "LSWCUT1\n"  08-15 XXH3-64 of 16-31  16-23 end LSN  24-31 number of the file
 * then last
 */
#include "wal_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "seg_private.h"

#define CUT_NAME "cut"
#define CUT_TMP_NAME "cut.tmp"
#define CUT_BYTES 32u
#define RELEASED_TRIES 10u

static const char cut_magic[8] = {'L', 'S', 'W', 'C', 'U', 'T', '1', '\n'};

/* ---- small parts ---- */
static bool number_of(const char *name, uint64_t *numberp)
{
    char want[WAL_NAME_MAX];

    *numberp = strtoull(name, NULL, 10);
    file_name(*numberp, want);
    return *numberp > 0 && *numberp < UINT64_MAX / 2 && strcmp(name, want) == 0;
}

/* ---- the window ---- */
void window_open(struct window *w, struct disk *disk, struct disk_file *f, uint64_t size)
{
    *w = (struct window){.disk = disk, .f = f, .size = size, .buf = w->buf, .cap = w->cap};
}

void window_free(struct window *w)
{
    free(w->buf);
    *w = (struct window){0};
}

static int window_grow(struct window *w, size_t want, struct err *err)
{
    size_t cap = w->cap == 0 ? WAL_CHUNK_BYTES : w->cap;
    void *buf;

    if (want <= w->cap)
        return 0;
    while (cap < want)
        cap *= 2;
    buf = aligned_alloc(DISK_BLOCK_BYTES, cap);
    if (buf == NULL)
        return err_set(err, ERR_NOMEM, 0, "read buffer of %zu bytes", cap);
    free(w->buf);
    w->buf = buf;
    w->cap = cap;
    w->len = 0;
    return 0;
}

int window_need(struct window *w, uint64_t off, size_t want, const uint8_t **datap, struct err *err)
{
    *datap = NULL;
    if (off >= w->size || want > w->size - off)
        return 0;
    if (w->len == 0 || off < w->off || off - w->off > w->len || want > w->len - (off - w->off)) {
        if (window_grow(w, want, err) != 0)
            return -1;
        w->off = off; /* block aligned: segments and heads are */
        if (w->disk->ops->pread(w->f, w->buf, w->cap, off, &w->len, err) != 0) {
            w->len = 0;
            return -1;
        }
        if (w->len < want)
            return 0; /* it was cut off while we read */
    }
    *datap = w->buf + (off - w->off);
    return 0;
}

int window_seg(struct window *w, uint64_t off, struct seg **segp, bool *magicp, struct err *err)
{
    struct err bad = {0};
    const uint8_t *data;
    size_t frame, used;

    *segp = NULL;
    *magicp = false;
    if (window_need(w, off, SEG_HEADER_BYTES, &data, err) != 0)
        return -1;
    if (data == NULL || seg_peek(data, SEG_HEADER_BYTES, &frame) == SEG_PEEK_NONE)
        return 0;
    *magicp = true;
    if (window_need(w, off, frame, &data, err) != 0)
        return -1;
    if (data == NULL || seg_decode(data, frame, segp, &used, &bad) == 0 ||
        bad.code == ERR_CORRUPT || bad.code == ERR_AGAIN)
        return 0;
    if (err != NULL)
        *err = bad; /* no memory: nothing is known about the segment */
    return -1;
}

/* ---- the scan ---- */
struct listing {
    struct scan *scan;
    size_t cap;
    bool failed;
};

static void list_one(void *arg, const char *name)
{
    struct listing *l = arg;
    struct scan *s = l->scan;
    uint64_t number;

    if (!number_of(name, &number) || l->failed)
        return;
    if (s->n == l->cap) {
        size_t cap = l->cap == 0 ? 64 : l->cap * 2;
        uint64_t *numbers = realloc(s->numbers, cap * sizeof(*numbers));
        if (numbers == NULL) {
            l->failed = true;
            return;
        }
        s->numbers = numbers;
        l->cap = cap;
    }
    s->numbers[s->n++] = number;
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static int scan_list(struct disk *disk, const char *dir, struct scan *s, struct err *err)
{
    struct listing l = {.scan = s};

    if (disk->ops->list(disk, dir, list_one, &l, err) != 0)
        return -1;
    if (!l.failed)
        s->live = calloc(s->n + 1, sizeof(*s->live));
    if (l.failed || s->live == NULL)
        return err_set(err, ERR_NOMEM, 0, "list of log files");
    if (s->n == 0)
        return err_set(err, ERR_NOTFOUND, 0, "no log in %s", dir);
    qsort(s->numbers, s->n, sizeof(*s->numbers), by_number);
    return 0;
}

/* The state of one scan over the files. */
struct scanner {
    struct disk *disk;
    const char *dir;
    const struct scan_visitor *v;
    struct scan *s;
    struct window w;
    struct disk_file *f; /* the file that is open */
    uint64_t number;
    struct file_head head;
    bool has_head;
    bool has_cut;
    uint64_t cut_lsn;
    bool bad_magic;  /* a damaged segment stands at the end */
    bool found;      /* a later segment of this log */
    bool found_hole; /* and one that proves a hole */
    uint64_t later_lsn, later_number;
    bool only_in_next; /* the first later segment is in the next file, right behind its head */
};

static void scan_close_file(struct scanner *c)
{
    if (c->f != NULL)
        c->disk->ops->close(c->f);
    c->f = NULL;
}

static int scan_open_file(struct scanner *c, uint64_t number, struct err *err)
{
    char path[WAL_PATH_MAX];
    const uint8_t *block;
    uint64_t size;

    scan_close_file(c);
    if (file_path(c->dir, number, path, err) != 0 ||
        c->disk->ops->open(c->disk, path, DISK_READ | DISK_DIRECT, &c->f, err) != 0 ||
        c->disk->ops->size(c->f, &size, err) != 0)
        return -1;
    c->number = number;
    window_open(&c->w, c->disk, c->f, size);
    if (window_need(&c->w, 0, WAL_FILE_HEAD_BYTES, &block, err) != 0)
        return -1;
    c->has_head = block != NULL && file_head_decode(block, WAL_FILE_HEAD_BYTES, number, &c->head);
    return 0;
}

static uint64_t padded(const struct seg *s)
{
    return s->padded_len;
}

/* A file is made at its full length before it holds anything: no crash shortens it. */
static int check_length(const struct scanner *c, struct err *err)
{
    char name[WAL_NAME_MAX];

    if (c->w.size >= c->head.bytes)
        return 0;
    file_name(c->number, name);
    return err_set(err, ERR_CORRUPT, 0,
                   "%s: offset %" PRIu64 ": the file was cut, it had %" PRIu64
                   " bytes; it begins at LSN %" PRIu64,
                   name, c->w.size, c->head.bytes, c->head.base.lsn + 1);
}

/* Follow the chain through the open file, from off on. */
static int scan_segs(struct scanner *c, uint64_t off, struct err *err)
{
    struct scan *s = c->s;
    int rc = 0;

    for (;;) {
        struct seg *seg;
        if (window_seg(&c->w, off, &seg, &c->bad_magic, err) != 0)
            return -1;
        if (seg == NULL)
            break;
        c->bad_magic = false;
        if (!chain_continues(&s->end, seg) || (c->has_cut && seg_last_lsn(seg) > c->cut_lsn)) {
            seg_unref(seg);
            break;
        }
        chain_advance(&s->end, seg);
        rc = c->v->seg(c->v->arg, seg, c->number, off, err);
        off += padded(seg);
        seg_unref(seg);
        if (rc != 0)
            return -1;
    }
    s->end_off = off;
    return 0;
}

static int scan_file(struct scanner *c, struct err *err)
{
    if (check_length(c, err) != 0)
        return -1;
    c->s->bytes += c->w.size;
    if (c->v->file != NULL && c->v->file(c->v->arg, &c->head, c->w.size, err) != 0)
        return -1;
    return scan_segs(c, WAL_FILE_HEAD_BYTES, err);
}

/* Does the open file go on where the log ends now? */
static bool head_continues(const struct scanner *c)
{
    return c->has_head && c->head.base.lsn == c->s->end.lsn &&
           memcmp(c->head.base.hash, c->s->end.hash, WAL_HASH_BYTES) == 0;
}

/* A later word about the place where the log ends: a header of LSN lsn that calls durable durable.
 */
static void later(struct scanner *c, uint64_t lsn, uint64_t durable)
{
    c->found = true;
    if (durable > c->s->end.lsn && !c->found_hole) {
        c->found_hole = true;
        c->later_lsn = lsn;
        c->later_number = c->number;
    }
}

/* Search the open file from off for later segments of this log. */
static int search_file(struct scanner *c, uint64_t off, bool *anyp, struct err *err)
{
    uint64_t end = c->s->end.lsn;

    *anyp = false;
    while (off < c->w.size) {
        const uint8_t *data;
        struct seg *seg;
        bool magic;
        if (window_seg(&c->w, off, &seg, &magic, err) != 0)
            return -1;
        if (seg == NULL) {
            off += DISK_BLOCK_BYTES;
            continue;
        }
        /* At or below the end: left from before the file was recycled. */
        if (seg->first_lsn > end && seg->epoch >= c->s->end.epoch) {
            if (window_need(&c->w, off, padded(seg), &data, err) != 0) {
                seg_unref(seg);
                return -1;
            }
            if (!c->found)
                c->only_in_next = off == WAL_FILE_HEAD_BYTES;
            later(c, seg->first_lsn, data != NULL ? trailer_durable(data, seg) : seg->durable_lsn);
            *anyp = true;
        }
        off += padded(seg);
        seg_unref(seg);
    }
    return 0;
}

static int say_hole(struct scanner *c, struct err *err)
{
    struct scan *s = c->s;
    size_t at = s->last;
    uint64_t off = s->end_off;
    char name[WAL_NAME_MAX], other[WAL_NAME_MAX];

    if (!c->bad_magic && c->only_in_next && s->last + 1 < s->n) {
        at++; /* the file before ends as it should: it is this one's head that is damaged */
        off = 0;
    }
    file_name(s->numbers[at], name);
    file_name(c->later_number, other);
    return err_set(err, ERR_CORRUPT, 0,
                   "%s: offset %" PRIu64 ": the segment of LSN %" PRIu64
                   " is damaged or missing, and it was durable: LSN %" PRIu64 " in %s says so",
                   name, off, s->end.lsn + 1, c->later_lsn, other);
}

/* Behind the end: hole or tail? */
static int search_rest(struct scanner *c, struct err *err)
{
    struct scan *s = c->s;
    bool any;

    if (scan_open_file(c, s->numbers[s->last], err) != 0 ||
        search_file(c, s->end_off, &any, err) != 0)
        return -1;
    for (size_t i = s->last + 1; i < s->n; i++) {
        if (scan_open_file(c, s->numbers[i], err) != 0)
            return -1;
        if (c->has_head && c->head.base.lsn >= s->end.lsn) {
            s->live[i] = true;
            later(c, c->head.base.lsn + 1, c->head.durable_lsn);
        }
        if (search_file(c, WAL_FILE_HEAD_BYTES, &any, err) != 0)
            return -1;
        s->live[i] = s->live[i] || any;
    }
    s->torn = c->found || c->bad_magic;
    if (!c->found_hole && c->has_cut && s->end.lsn < c->cut_lsn) {
        c->later_lsn = c->cut_lsn; /* only what was durable is ever cut to */
        c->later_number = c->number;
        c->found_hole = true;
    }
    return 0;
}

static int read_cut(struct scanner *c, uint64_t *numberp, struct err *err)
{
    char path[WAL_PATH_MAX];
    uint8_t bytes[CUT_BYTES];
    struct disk_file *f;
    size_t got;
    bool there;
    int rc;

    if (path_join(c->dir, CUT_NAME, path, err) != 0 ||
        c->disk->ops->exists(c->disk, path, &there, err) != 0)
        return -1;
    c->s->has_cut = there;
    if (!there)
        return 0;
    if (c->disk->ops->open(c->disk, path, DISK_READ, &f, err) != 0)
        return -1;
    rc = c->disk->ops->pread(f, bytes, sizeof(bytes), 0, &got, err);
    c->disk->ops->close(f);
    if (rc != 0)
        return -1;
    /* It was written aside, synced and renamed: a bad one is damage, and must not be ignored. */
    if (got != CUT_BYTES || memcmp(bytes, cut_magic, 8) != 0 ||
        get64(bytes + 8) != XXH3_64bits(bytes + 16, 16))
        return err_set(err, ERR_CORRUPT, 0, "%s is damaged", path);
    c->has_cut = true;
    c->cut_lsn = get64(bytes + 16);
    *numberp = get64(bytes + 24);
    return 0;
}

/* The oldest file of the log: the last one at which a log begins, else the one with the lowest
 * number. */
static int find_first(struct scanner *c, struct err *err)
{
    struct scan *s = c->s;

    for (size_t i = s->n; i-- > 0;) {
        if (scan_open_file(c, s->numbers[i], err) != 0)
            return -1;
        if (i == 0 || (c->has_head && c->head.start)) {
            s->first = i;
            break;
        }
    }
    if (!c->has_head) {
        char name[WAL_NAME_MAX];
        file_name(s->numbers[s->first], name);
        return err_set(
            err, ERR_CORRUPT, 0,
            "%s: offset 0: the head of the oldest file is damaged; its first LSN is unknown", name);
    }
    s->base = c->head.base;
    chain_start(&s->end, &s->base);
    return 0;
}

/* Into the files behind the last one, as far as the chain goes on. */
static int scan_on(struct scanner *c, struct err *err)
{
    struct scan *s = c->s;

    while (s->last + 1 < s->n && s->numbers[s->last + 1] == s->numbers[s->last] + 1 &&
           !(c->has_cut && s->end.lsn == c->cut_lsn)) {
        if (scan_open_file(c, s->numbers[s->last + 1], err) != 0)
            return -1;
        if (!head_continues(c))
            break;
        s->last++;
        if (scan_file(c, err) != 0)
            return -1;
    }
    return 0;
}

/* A server may write on while we read: where the log ended, it may go on by now. What lies behind
 * its new end is being written and says nothing. */
static int look_again(struct scanner *c, struct err *err)
{
    struct scan *s = c->s;
    uint64_t end = s->end.lsn;

    if (scan_open_file(c, s->numbers[s->last], err) != 0 || scan_segs(c, s->end_off, err) != 0 ||
        scan_on(c, err) != 0)
        return -1;
    if (s->end.lsn > end) {
        c->found_hole = false;
        s->torn = false;
    }
    return 0;
}

static int scan_all(struct scanner *c, struct err *err)
{
    struct scan *s = c->s;
    uint64_t cut_number = 0;

    if (scan_list(c->disk, c->dir, s, err) != 0 || read_cut(c, &cut_number, err) != 0 ||
        find_first(c, err) != 0)
        return -1;
    if (cut_number < s->numbers[s->first])
        c->has_cut = false; /* of the log that was here before */
    s->last = s->first;
    if (scan_file(c, err) != 0 || scan_on(c, err) != 0)
        return -1;
    if (c->has_cut && s->end.lsn == c->cut_lsn) {
        for (size_t i = s->last + 1; i < s->n; i++)
            s->live[i] = true;
        return 0;
    }
    if (search_rest(c, err) != 0 || (s->torn && c->v->grows && look_again(c, err) != 0))
        return -1;
    return c->found_hole ? say_hole(c, err) : 0;
}

/* Has a server released files that were read, or were to be? A recycled one reads like damage. */
static bool released(struct scanner *c)
{
    struct scan now = {0};
    struct err err;
    bool yes = c->s->n > 0 && scan_list(c->disk, c->dir, &now, &err) == 0 &&
               now.numbers[0] > c->s->numbers[c->s->first];

    scan_free(&now);
    return yes;
}

int scan_dir(struct disk *disk, const char *dir, const struct scan_visitor *v, struct scan *s,
             struct err *err)
{
    struct window w = {0};
    int rc;

    for (unsigned tries = 0;; tries++) {
        struct scanner c = {.disk = disk, .dir = dir, .v = v, .s = s, .w = w};

        *s = (struct scan){0};
        rc = scan_all(&c, err);
        scan_close_file(&c);
        w = c.w;
        if (rc == 0 || !v->grows || !released(&c))
            break;
        if (tries == RELEASED_TRIES || (s->bytes > 0 && v->again == NULL)) {
            err_set(err, ERR_AGAIN, 0,
                    "log files were released while they were read: read the log again");
            break;
        }
        scan_free(s);
        if (v->again != NULL)
            v->again(v->arg);
    }
    window_free(&w);
    return rc;
}

void scan_free(struct scan *s)
{
    free(s->numbers);
    free(s->live);
    *s = (struct scan){0};
}

/* ---- putting it right ---- */
static int load_file(void *arg, const struct file_head *h, uint64_t bytes, struct err *err)
{
    struct wal *w = arg;
    char path[WAL_PATH_MAX];
    struct disk_file *f;

    if (file_path(w->dir, h->number, path, err) != 0 ||
        w->cfg.disk->ops->open(w->cfg.disk, path, DISK_WRITE | DISK_DIRECT, &f, err) != 0)
        return -1;
    return wal_file_add(w, h, f, bytes, err);
}

static int load_seg(void *arg, struct seg *s, uint64_t number, uint64_t off, struct err *err)
{
    struct wal *w = arg;

    (void)number;
    wal_see_start(w, s);
    return wal_file_index(wal_last_file(w), s, off, err);
}

static bool all_zero(const uint8_t *p, size_t len)
{
    return len == 0 || (p[0] == 0 && memcmp(p, p + 1, len - 1) == 0);
}

int wal_zero_rest(struct wal *w, struct disk_file *f, uint64_t off, uint64_t size, struct err *err)
{
    const struct disk_ops *ops = w->cfg.disk->ops;
    struct window win = {0};
    bool wrote = false;
    int rc = -1;

    window_open(&win, w->cfg.disk, f, size);
    while (off < size) {
        size_t n = size - off < WAL_CHUNK_BYTES ? (size_t)(size - off) : WAL_CHUNK_BYTES;
        const uint8_t *data;
        if (window_need(&win, off, n, &data, err) != 0)
            goto out;
        if (data == NULL || !all_zero(data, n)) {
            /* Whole blocks: direct I/O, and a file that was cut off is made even again. */
            size_t whole = (n + DISK_BLOCK_BYTES - 1) / DISK_BLOCK_BYTES * DISK_BLOCK_BYTES;
            if (ops->pwrite(f, w->zeros, whole, off, err) != 0)
                goto out;
            wrote = true;
        }
        off += n;
    }
    rc = wrote ? ops->sync(f, err) : 0;
out:
    window_free(&win);
    return rc;
}

static int remove_name(struct wal *w, const char *name, struct err *err)
{
    char path[WAL_PATH_MAX];
    bool there;

    if (path_join(w->dir, name, path, err) != 0 ||
        w->cfg.disk->ops->exists(w->cfg.disk, path, &there, err) != 0)
        return -1;
    return there ? w->cfg.disk->ops->remove(w->cfg.disk, path, err) : 0;
}

/* Durable: a killed process may have left it so. */
static int spare_size(struct wal *w, uint64_t number, uint64_t *sizep, struct err *err)
{
    const struct disk_ops *ops = w->cfg.disk->ops;
    char path[WAL_PATH_MAX];
    struct disk_file *f;
    int rc;

    if (file_path(w->dir, number, path, err) != 0 ||
        ops->open(w->cfg.disk, path, DISK_WRITE | DISK_DIRECT, &f, err) != 0)
        return -1;
    rc = ops->size(f, sizep, err);
    if (rc == 0 && *sizep == w->cfg.file_bytes)
        rc = ops->sync(f, err);
    ops->close(f);
    return rc;
}

/* Files outside the log: leftovers go; whole spares stay, as long as their numbers go on. */
static int sort_others(struct wal *w, const struct scan *s, struct err *err)
{
    uint64_t next = s->numbers[s->last] + 1;
    char name[WAL_NAME_MAX];

    for (size_t i = 0; i < s->n; i++) {
        uint64_t size = 0;
        if (i >= s->first && i <= s->last)
            continue;
        if (i > s->last && spare_size(w, s->numbers[i], &size, err) != 0)
            return -1;
        if (i > s->last && !s->live[i] && s->numbers[i] == next && size == w->cfg.file_bytes &&
            w->spares < WAL_SPARES_MAX) {
            w->spares++;
            next++;
            continue;
        }
        file_name(s->numbers[i], name);
        if (remove_name(w, name, err) != 0)
            return -1;
    }
    return 0;
}

static int repair(struct wal *w, const struct scan *s, struct err *err)
{
    struct wal_file *last = wal_last_file(w);

    last->end_off = s->end_off;
    if (s->torn)
        log_warn(w->cfg.log, "storage.wal",
                 "the last write did not finish: the log is cut after LSN %" PRIu64, s->end.lsn);
    if (sort_others(w, s, err) != 0 ||
        wal_zero_rest(w, last->f, last->end_off, last->bytes, err) != 0 ||
        w->cfg.disk->ops->sync_dir(w->cfg.disk, w->dir, err) != 0)
        return -1;
    last->bytes = (last->bytes + DISK_BLOCK_BYTES - 1) / DISK_BLOCK_BYTES * DISK_BLOCK_BYTES;
    /* Only now: what it cut off is gone for good. */
    if (remove_name(w, CUT_NAME, err) != 0 || remove_name(w, CUT_TMP_NAME, err) != 0 ||
        remove_name(w, CREATE_TMP_NAME, err) != 0)
        return -1;
    return s->has_cut ? w->cfg.disk->ops->sync_dir(w->cfg.disk, w->dir, err) : 0;
}

/* What was in flight when the process ended: no more than the last files can hold it. */
static int sync_tail(struct wal *w, struct err *err)
{
    size_t i = w->n_files > WAL_IN_FLIGHT_MAX ? w->n_files - WAL_IN_FLIGHT_MAX : 0;

    for (; i < w->n_files; i++)
        if (w->cfg.disk->ops->sync(w->files[i]->f, err) != 0)
            return -1;
    return 0;
}

int wal_load(struct wal *w, struct err *err)
{
    struct scan_visitor v = {.file = load_file, .seg = load_seg, .arg = w};
    struct scan s = {0};
    int rc = -1;

    /* The names first: what is removed below may be all that a rename that is lost leaves. */
    if (w->cfg.disk->ops->sync_dir(w->cfg.disk, w->dir, err) != 0 ||
        scan_dir(w->cfg.disk, w->dir, &v, &s, err) != 0 || sync_tail(w, err) != 0 ||
        repair(w, &s, err) != 0)
        goto out;
    w->end = s.end;
    w->durable_lsn = s.end.lsn;
    wal_fill_start(w);
    rc = wal_check(w, err);
out:
    scan_free(&s);
    return rc;
}

int wal_mark_cut(struct wal *w, uint64_t lsn, struct err *err)
{
    const struct disk_ops *ops = w->cfg.disk->ops;
    char path[WAL_PATH_MAX], tmp[WAL_PATH_MAX];
    uint8_t bytes[CUT_BYTES];
    struct disk_file *f;
    int rc = -1;

    memcpy(bytes, cut_magic, 8);
    put64(bytes + 16, lsn);
    put64(bytes + 24, wal_last_file(w)->number);
    put64(bytes + 8, XXH3_64bits(bytes + 16, 16));
    if (path_join(w->dir, CUT_NAME, path, err) != 0 ||
        path_join(w->dir, CUT_TMP_NAME, tmp, err) != 0 ||
        ops->open(w->cfg.disk, tmp, DISK_WRITE | DISK_CREATE, &f, err) != 0)
        return -1;
    if (ops->truncate(f, 0, err) == 0 && ops->pwrite(f, bytes, sizeof(bytes), 0, err) == 0 &&
        ops->sync(f, err) == 0)
        rc = 0;
    ops->close(f);
    if (rc != 0 || ops->rename(w->cfg.disk, tmp, path, err) != 0)
        return -1;
    return ops->sync_dir(w->cfg.disk, w->dir, err);
}
