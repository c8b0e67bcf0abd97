/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * wal_format.c - what the log writes beside its segments: names, heads of files, trailers; and the
 * chain that a segment must continue.
 *
 * A trailer stands in the padding of a segment, in the last 16 bytes of the sector that holds the
 * segment's last byte: a device writes a sector whole, so a segment that is there has its trailer.
 *     00-07  durable LSN of this log when the segment was written
 *     08-15  XXH3-64 of 00-07, seeded with the checksum of the segment: no other one's can pass
 */
#include "wal_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define SECTOR_BYTES 512u
#define TRAILER_BYTES 16u

static const char head_magic[8] = {'L', 'S', 'W', 'A', 'L', 'F', '1', '\n'};

/* ---- the chain ---- */
void chain_start(struct chain *c, const struct wal_base *base)
{
    *c = (struct chain){.lsn = base->lsn, .epoch = base->epoch, .minor = WAL_MINOR_UNKNOWN};
    memcpy(c->hash, base->hash, WAL_HASH_BYTES);
}

bool chain_continues(const struct chain *c, const struct seg *s)
{
    return s->first_lsn == c->lsn + 1 && memcmp(s->prev_hash, c->hash, WAL_HASH_BYTES) == 0;
}

void chain_advance(struct chain *c, const struct seg *s)
{
    c->lsn = seg_last_lsn(s);
    c->epoch = s->epoch;
    c->minor = s->minor;
    c->commit_ms = s->commit_ms;
    if (s->commit_lsn > c->known_commit)
        c->known_commit = s->commit_lsn;
    memcpy(c->hash, s->hash, WAL_HASH_BYTES);
}

/* ---- numbers ---- */
void put64(uint8_t *p, uint64_t v)
{
    for (int i = 0; i < 8; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

uint64_t get64(const uint8_t *p)
{
    uint64_t v = 0;

    for (int i = 7; i >= 0; i--)
        v = v << 8 | p[i];
    return v;
}

/* ---- the head of a file ---- */
void file_head_encode(uint8_t block[WAL_FILE_HEAD_BYTES], const struct file_head *h)
{
    memset(block, 0, WAL_FILE_HEAD_BYTES);
    memcpy(block, head_magic, sizeof(head_magic));
    put64(block + 16, h->number);
    put64(block + 24, h->start ? 1 : 0);
    put64(block + 32, h->base.lsn);
    put64(block + 40, h->base.epoch);
    memcpy(block + 48, h->base.hash, WAL_HASH_BYTES);
    put64(block + 80, h->durable_lsn);
    put64(block + 8, XXH3_64bits(block + 16, 72));
    put64(block + 88, h->bytes);
    put64(block + 96, XXH3_64bits(block + 88, 8));
}

bool file_head_decode(const uint8_t *block, size_t len, uint64_t number, struct file_head *h)
{
    if (len < 104 || memcmp(block, head_magic, sizeof(head_magic)) != 0 ||
        get64(block + 8) != XXH3_64bits(block + 16, 72) || get64(block + 16) != number ||
        get64(block + 24) > 1 || get64(block + 40) > UINT32_MAX)
        return false;
    *h = (struct file_head){.number = number,
                            .start = get64(block + 24) == 1,
                            .base.lsn = get64(block + 32),
                            .base.epoch = (uint32_t)get64(block + 40),
                            .durable_lsn = get64(block + 80)};
    memcpy(h->base.hash, block + 48, WAL_HASH_BYTES);
    if (get64(block + 96) == XXH3_64bits(block + 88, 8))
        h->bytes = get64(block + 88);
    return true;
}

/* ---- trailers ---- */
static size_t trailer_at(const struct seg *s)
{
    return (s->len + SECTOR_BYTES - 1) / SECTOR_BYTES * SECTOR_BYTES - TRAILER_BYTES;
}

bool trailer_fits(const struct seg *s)
{
    return trailer_at(s) >= s->len;
}

void trailer_encode(uint8_t *block, const struct seg *s, uint64_t durable_lsn)
{
    uint8_t *p = block + trailer_at(s);

    put64(p, durable_lsn);
    put64(p + 8, XXH3_64bits_withSeed(p, 8, get64(s->bytes + 8)));
}

uint64_t trailer_durable(const uint8_t *block, const struct seg *s)
{
    const uint8_t *p = block + trailer_at(s);

    if (!trailer_fits(s) || get64(p + 8) != XXH3_64bits_withSeed(p, 8, get64(s->bytes + 8)))
        return s->durable_lsn;
    return get64(p);
}

/* ---- names ---- */
void file_name(uint64_t number, char name[WAL_NAME_MAX])
{
    snprintf(name, WAL_NAME_MAX, "%016" PRIu64 ".log", number);
}

int path_join(const char *dir, const char *name, char path[WAL_PATH_MAX], struct err *err)
{
    int n = snprintf(path, WAL_PATH_MAX, "%s/%s", dir, name);

    if (n < 0 || n >= (int)WAL_PATH_MAX)
        return err_set(err, ERR_INVAL, 0, "the log's path is too long");
    return 0;
}

int file_path(const char *dir, uint64_t number, char path[WAL_PATH_MAX], struct err *err)
{
    char name[WAL_NAME_MAX];

    file_name(number, name);
    return path_join(dir, name, path, err);
}
