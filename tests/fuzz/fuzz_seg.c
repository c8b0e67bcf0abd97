/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * fuzz_seg.c - any bytes as a segment, as they come from a disk or a peer. Checksums would stop
 * nearly all inputs at the door, so the frame is also put right and the body tried again.
 */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "txn.h"
#include "wal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int each_rec(void *arg, const struct rec *r, struct err *err)
{
    (void)err;
    *(size_t *)arg += r->key_len + r->value_len;
    return 0;
}

static int each_txn(void *arg, uint64_t lsn, const uint8_t *data, size_t len, struct err *err)
{
    (void)lsn;
    return txn_each(data, len, each_rec, arg, err);
}

static void try(const uint8_t *data, size_t size)
{
    struct seg *s, *again;
    struct err err;
    size_t used, sum = 0;

    if (seg_decode(data, size, &s, &used, &err) != 0)
        return;
    /* What was accepted is whole: it can be walked, and decodes again to the same. */
    if (used > size || s->len != used || seg_each_txn(s, each_txn, &sum, &err) != 0)
        abort();
    if (seg_decode(s->bytes, s->padded_len, &again, &used, &err) != 0 ||
        memcmp(s->hash, again->hash, sizeof(s->hash)) != 0)
        abort();
    seg_unref(again);
    seg_unref(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy;
    uint64_t sum;
    XXH3_state_t *state;

    try(data, size);
    if (size <= SEG_HEADER_BYTES || size > (1u << 20))
        return 0;
    copy = malloc(size);
    state = XXH3_createState();
    if (copy == NULL || state == NULL)
        abort();
    memcpy(copy, data, size);
    memcpy(copy, "LSG1", 4);
    for (int i = 0; i < 4; i++)
        copy[4 + i] = (uint8_t)((size - SEG_HEADER_BYTES) >> (8 * i));
    XXH3_64bits_reset(state);
    XXH3_64bits_update(state, copy, 8);
    XXH3_64bits_update(state, copy + SEG_HEADER_BYTES, size - SEG_HEADER_BYTES);
    sum = XXH3_64bits_digest(state);
    for (int i = 0; i < 8; i++)
        copy[8 + i] = (uint8_t)(sum >> (8 * i));
    try(copy, size);
    XXH3_freeState(state);
    free(copy);
    return 0;
}
