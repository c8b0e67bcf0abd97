/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * turtle.c - see turtle.h.
 *
 * Invariant: the entry is the last of the file and covers every byte before it.
 */
#include "turtle.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#define NAME "WiredTiger.turtle"
#define KEY "Lockstep checksum\n"
#define ENTRY_BYTES (sizeof(KEY) - 1 + 17)
#define BYTES_MAX (1u << 20) /* it has one or two KiB */

bool turtle_is_new(const char *path)
{
    const char *slash = strrchr(path, '/');

    return strcmp(slash != NULL ? slash + 1 : path, NAME ".set") == 0;
}

static void entry_of(const uint8_t *data, size_t len, char entry[ENTRY_BYTES + 1])
{
    snprintf(entry, ENTRY_BYTES + 1, KEY "%016" PRIx64 "\n", (uint64_t)XXH3_64bits(data, len));
}

/* All of it, into memory of the caller's. */
static int read_all(struct disk *d, struct disk_file *f, uint8_t **datap, size_t *lenp,
                    struct err *err)
{
    uint64_t bytes;
    size_t got = 0;

    *datap = NULL;
    if (d->ops->size(f, &bytes, err) != 0)
        return -1;
    if (bytes > BYTES_MAX)
        return err_set(err, ERR_CORRUPT, 0, NAME " has %" PRIu64 " bytes", bytes);
    *datap = malloc((size_t)bytes + 1);
    if (*datap == NULL)
        return err_set(err, ERR_NOMEM, 0, NAME);
    if (d->ops->pread(f, *datap, (size_t)bytes, 0, &got, err) == 0) {
        *lenp = got;
        if (got == bytes)
            return 0;
        err_set(err, ERR_IO, 0, NAME " ends early");
    }
    free(*datap);
    *datap = NULL;
    return -1;
}

int turtle_seal(struct disk *d, struct disk_file *f, struct err *err)
{
    char entry[ENTRY_BYTES + 1];
    uint8_t *data;
    size_t len;
    int rc;

    if (read_all(d, f, &data, &len, err) != 0)
        return -1;
    entry_of(data, len, entry);
    rc = d->ops->pwrite(f, entry, ENTRY_BYTES, len, err);
    free(data);
    return rc;
}

static int check(const uint8_t *data, size_t len, struct err *err)
{
    char entry[ENTRY_BYTES + 1];
    const uint8_t *last;

    if (len < ENTRY_BYTES)
        return 0;
    last = data + len - ENTRY_BYTES;
    if (memcmp(last, KEY, sizeof(KEY) - 1) != 0)
        return 0;
    entry_of(data, len - ENTRY_BYTES, entry);
    if (memcmp(last, entry, ENTRY_BYTES) != 0)
        return err_set(err, ERR_CORRUPT, 0, NAME " is not what was written there");
    return 0;
}

int turtle_check(struct disk *d, const char *dir, struct err *err)
{
    struct disk_file *f = NULL;
    uint8_t *data = NULL;
    bool there = false;
    size_t len = 0;
    char *path;
    int rc;

    if (asprintf(&path, "%s/" NAME, dir) < 0)
        return err_set(err, ERR_NOMEM, 0, NAME);
    rc = d->ops->exists(d, path, &there, err);
    if (rc == 0 && there && (rc = d->ops->open(d, path, DISK_READ, &f, err)) == 0) {
        rc = read_all(d, f, &data, &len, err);
        d->ops->close(f);
        if (rc == 0)
            rc = check(data, len, err);
        free(data);
    }
    free(path);
    return rc;
}
