/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * fuzz_wal_dir.c - a log directory with any bytes in it: opening decides, changes nothing it should
 * not, and decides the same the second time.
 *
 * The input is cut into files at their numbers' turn: each file is as long as FILE_BYTES, the rest
 * is the last one. What verify accepts opens; what it refuses does not.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wal.h"

#define FILE_BYTES (32u << 10)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int64_t still(struct env *e)
{
    (void)e;
    return 0;
}

static void put_files(struct disk *d, const uint8_t *data, size_t size)
{
    struct err err;

    for (unsigned i = 0; i < 8 && (size > 0 || i == 0); i++) {
        size_t n = size < FILE_BYTES ? size : FILE_BYTES;
        struct disk_file *f;
        char path[64];
        snprintf(path, sizeof(path), "w/%016u.log", i + 1);
        if (d->ops->open(d, path, DISK_WRITE | DISK_CREATE, &f, &err) != 0 ||
            d->ops->pwrite(f, data, n, 0, &err) != 0 || d->ops->sync(f, &err) != 0)
            abort();
        d->ops->close(f);
        data += n;
        size -= n;
    }
}

static int each(void *arg, struct seg *s, struct err *err)
{
    uint64_t *next = arg;

    (void)err;
    if (*next != 0 && s->first_lsn != *next)
        abort();
    *next = seg_last_lsn(s) + 1;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct env_ops ops = {.mono_ns = still};
    struct env env = {&ops};
    struct disk_image *im = disk_image_new(1);
    struct disk *d = disk_sim_new(im, &env);
    struct wal_config cfg = {.dir = "w", .disk = d, .env = &env, .file_bytes = FILE_BYTES};
    struct wal_report rep;
    struct wal *w;
    struct err err, why;
    uint64_t next = 0, end;
    int verified;

    if (d->ops->mkdir(d, "w", &err) != 0)
        abort();
    put_files(d, data, size);
    verified = wal_verify(d, "w", &rep, NULL, NULL, &why);
    if (wal_open(&cfg, &w, &err) != 0) {
        if (verified == 0 || err.code != why.code)
            abort();
    } else {
        end = wal_end_lsn(w);
        if (verified != 0 || end != rep.last_lsn || wal_each(w, 0, each, &next, &err) != 0)
            abort();
        wal_close(w);
        if (wal_open(&cfg, &w, &err) != 0 || wal_end_lsn(w) != end)
            abort();
        wal_close(w);
        if (wal_verify(d, "w", &rep, NULL, NULL, &err) != 0 || rep.torn_tail)
            abort();
    }
    disk_free(d);
    disk_image_free(im);
    return 0;
}
