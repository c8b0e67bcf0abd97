/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * fuzz_snapshot.c - any bytes as a snapshot, whole and in small pieces. Checksums would stop nearly
 * all inputs at the first chunk, so they are also put right and the chunks tried again.
 */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "snapshot.h"

#define MAGIC_BYTES 8u
#define CHUNK_BYTES 16u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
    uint64_t said, got, segs;
};

static int on_file(void *arg, const char *name, uint64_t size, struct err *err)
{
    struct seen *s = arg;

    (void)err;
    if (name[0] == '\0' || name[0] == '.' || strchr(name, '/') != NULL || s->said != s->got)
        abort();
    s->said += size;
    return 0;
}

static int on_data(void *arg, const uint8_t *data, size_t len, struct err *err)
{
    struct seen *s = arg;

    (void)data, (void)err;
    s->got += len;
    if (s->got > s->said)
        abort();
    return 0;
}

static int on_seg(void *arg, struct seg *seg, struct err *err)
{
    struct seen *s = arg;

    (void)err;
    if (s->got != s->said || seg->count == 0)
        abort();
    s->segs++;
    return 0;
}

/* Returns whether it was accepted. */
static bool try(const uint8_t *data, size_t size, size_t step)
{
    struct seen seen = {0};
    const struct snapshot_visitor v = {
        .file = on_file, .data = on_data, .seg = on_seg, .arg = &seen};
    struct snapshot_info *info = calloc(1, sizeof(*info));
    struct snapshot_reader *r;
    struct err err = {0};
    int rc = 0;

    if (info == NULL || snapshot_reader_new(&v, &r, &err) != 0)
        abort();
    for (size_t at = 0; rc == 0 && at < size; at += step)
        rc = snapshot_reader_feed(r, data + at, size - at < step ? size - at : step, &err);
    if (rc == 0)
        rc = snapshot_reader_end(r, info, &err);
    if (rc == 0 && (info->bytes != size || info->file_bytes != seen.got ||
                    info->segments != seen.segs || info->lsn == 0))
        abort();
    snapshot_reader_free(r);
    free(info);
    return rc == 0;
}

static void put_right(uint8_t *data, size_t size)
{
    for (size_t at = MAGIC_BYTES; at + CHUNK_BYTES <= size;) {
        uint8_t *p = data + at;
        size_t body = p[4] | (size_t)p[5] << 8 | (size_t)p[6] << 16 | (size_t)p[7] << 24;
        XXH3_state_t *state = XXH3_createState();
        uint64_t sum;

        if (state == NULL)
            abort();
        memcpy(p, "LSC1", 4);
        if (body > size - at - CHUNK_BYTES) { /* then the last one is what is left */
            body = size - at - CHUNK_BYTES;
            for (int i = 0; i < 4; i++)
                p[4 + i] = (uint8_t)(body >> (8 * i));
        }
        XXH3_64bits_reset(state);
        XXH3_64bits_update(state, p, 8);
        XXH3_64bits_update(state, p + CHUNK_BYTES, body);
        sum = XXH3_64bits_digest(state);
        for (int i = 0; i < 8; i++)
            p[8 + i] = (uint8_t)(sum >> (8 * i));
        XXH3_freeState(state);
        at += CHUNK_BYTES + body;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy;

    if (try(data, size, size > 0 ? size : 1) != try(data, size, 7))
        abort();
    if (size <= MAGIC_BYTES || size > (1u << 20))
        return 0;
    copy = malloc(size);
    if (copy == NULL)
        abort();
    memcpy(copy, data, size);
    memcpy(copy, "LSSNAP1\n", MAGIC_BYTES);
    put_right(copy, size);
    (void)try(copy, size, size);
    free(copy);
    return 0;
}
