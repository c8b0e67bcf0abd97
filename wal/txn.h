/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * txn.h - the records of a transaction, in msgpack, as they lie in a segment.
 *
 *     txn    = [record, ...]                     at least one
 *     record = [1, key, value]                   put      (key: str 1..KEY_MAX_BYTES, value: bin)
 *            | [2, key]                          delete
 *            | [3, number, id(bin 16), end_lsn, hash(bin 32), member(str), proof(bin)]   epoch: a
 * promotion | [4, wall_ms]                      mark: the once-a-second canary
 *
 * A txn with an epoch or mark record holds nothing else.
 */
#ifndef LOCKSTEP_TXN_H
#define LOCKSTEP_TXN_H

#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "errors.h"

#define TXN_KEY_MAX_BYTES 4096u
#define TXN_VALUE_MAX_BYTES (48u << 20)

enum rec_kind { REC_PUT = 1, REC_DELETE = 2, REC_EPOCH = 3, REC_MARK = 4 };

struct epoch_rec {
    uint32_t number;
    uint8_t id[16];
    uint64_t end_lsn;  /* of the epoch before */
    uint8_t hash[32];  /* running hash at end_lsn */
    char member[64];   /* who was promoted: member id */
    uint8_t proof[32]; /* HMAC-SHA-256 under a key derived from the barrier; zeros when founding */
};

struct rec { /* a decoded record; pointers into the encoded bytes */
    enum rec_kind kind;
    const char *key; /* not NUL-terminated */
    size_t key_len;
    const uint8_t *value;
    size_t value_len;
    struct epoch_rec epoch;
    int64_t wall_ms;
};

/* A transaction under construction. One thread. */
struct txn;
struct txn *txn_new(void);    /* NULL: out of memory */
void txn_free(struct txn *t); /* takes NULL */
/** key: NUL-terminated text. ERR_INVAL: empty or too long. Later records on a key win. */
CHECKED int txn_put(struct txn *t, const char *key, const void *value, size_t len, struct err *err);
CHECKED int txn_delete(struct txn *t, const char *key, struct err *err);
CHECKED int txn_epoch(struct txn *t, const struct epoch_rec *e, struct err *err);
CHECKED int txn_mark(struct txn *t, int64_t wall_ms, struct err *err);
size_t txn_count(const struct txn *t);
/** The encoded bytes, valid until the next call on t. */
CHECKED int txn_bytes(struct txn *t, const uint8_t **datap, size_t *lenp, struct err *err);

/** Decode and check foreign bytes; calls each for every record in order, stops at the first -1. */
CHECKED int txn_each(const uint8_t *data, size_t len,
                     int (*each)(void *arg, const struct rec *r, struct err *err), void *arg,
                     struct err *err);

#endif
