/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * wal_fixture.h - a log on any disk, and segments that continue it, for tests.
 */
#ifndef LOCKSTEP_WAL_FIXTURE_H
#define LOCKSTEP_WAL_FIXTURE_H

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "txn.h"
#include "wal.h"

#define NO_DURABLE_CLAIM UINT64_MAX

struct log_fixture {
    struct disk *disk;
    struct wal *wal;
    struct wal_config cfg;
    uint64_t durable; /* last LSN that the log reported */
    unsigned failures;
    uint32_t starts; /* of whom writes it, before this one */
    struct err err;
};

static inline void fixture_durable(void *arg, struct seg *seg, const struct err *err)
{
    struct log_fixture *f = arg;

    if (err != NULL) {
        f->failures++;
        return;
    }
    cr_assert_eq(seg->first_lsn, f->durable + 1, "LSN %lu was reported after %lu",
                 (unsigned long)seg->first_lsn, (unsigned long)f->durable);
    f->durable = seg_last_lsn(seg);
}

static inline void fixture_config(struct log_fixture *f, struct disk *disk, const char *dir,
                                  uint64_t file_bytes)
{
    f->disk = disk;
    f->cfg = (struct wal_config){.dir = dir,
                                 .disk = disk,
                                 .env = env_real(),
                                 .file_bytes = file_bytes,
                                 .durable = fixture_durable,
                                 .arg = f};
}

static inline void fixture_create(struct log_fixture *f, const struct wal_base *base)
{
    struct wal_base none = {0};

    cr_assert_eq(wal_create(&f->cfg, base != NULL ? base : &none, &f->wal, &f->err), 0, "%s",
                 f->err.msg);
    f->durable = wal_end_lsn(f->wal);
}

static inline void fixture_open(struct log_fixture *f)
{
    cr_assert_eq(wal_open(&f->cfg, &f->wal, &f->err), 0, "%s", f->err.msg);
    f->durable = wal_end_lsn(f->wal);
}

/* A segment of txns transactions with about bytes of value in each, behind the end of the log. */
static inline struct seg *fixture_seg(struct log_fixture *f, size_t txns, size_t bytes,
                                      uint64_t durable)
{
    struct seg_head h = {.epoch = 1,
                         .minor = 1 + f->starts,
                         .first_lsn = wal_end_lsn(f->wal) + 1,
                         .commit_ms = 1000,
                         .durable_lsn =
                             durable == NO_DURABLE_CLAIM ? wal_durable_lsn(f->wal) : durable,
                         .commit_lsn = wal_durable_lsn(f->wal)};
    struct txn **built = calloc(txns, sizeof(struct txn *));
    struct seg_txn *list = calloc(txns, sizeof(*list));
    uint8_t *value = malloc(bytes + 1);
    struct seg *s;

    wal_end_hash(f->wal, h.prev_hash);
    for (size_t i = 0; i < txns; i++) {
        char key[32];
        snprintf(key, sizeof(key), "k/%lu", (unsigned long)(h.first_lsn + i));
        memset(value, (int)(h.first_lsn + i) | 1, bytes);
        built[i] = txn_new();
        cr_assert_eq(txn_put(built[i], key, value, bytes, &f->err), 0);
        cr_assert_eq(txn_bytes(built[i], &list[i].data, &list[i].len, &f->err), 0);
    }
    cr_assert_eq(seg_build(&h, list, txns, &s, &f->err), 0, "%s", f->err.msg);
    for (size_t i = 0; i < txns; i++)
        txn_free(built[i]);
    free(built);
    free(list);
    free(value);
    return s;
}

static inline void fixture_append(struct log_fixture *f, size_t txns, size_t bytes)
{
    struct seg *s = fixture_seg(f, txns, bytes, NO_DURABLE_CLAIM);

    cr_assert_eq(wal_append(f->wal, s, &f->err), 0, "%s", f->err.msg);
    seg_unref(s);
}

static inline void fixture_flush(struct log_fixture *f)
{
    while (wal_in_flight(f->wal) > 0)
        (void)disk_wait(f->disk, -1);
}

/* n segments of one block each, each durable before the next. */
static inline void fixture_fill(struct log_fixture *f, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        fixture_append(f, 1, 100);
        fixture_flush(f);
    }
}

struct count_arg {
    uint64_t next;
    unsigned n;
};

static inline int fixture_count(void *arg, struct seg *s, struct err *err)
{
    struct count_arg *c = arg;

    (void)err;
    if (c->next != 0)
        cr_assert_eq(s->first_lsn, c->next);
    c->next = seg_last_lsn(s) + 1;
    c->n++;
    return 0;
}

static inline void fixture_retain_after(struct log_fixture *f, uint64_t lsn)
{
    int rc;

    while ((rc = wal_retain_after(f->wal, lsn, &f->err)) > 0)
        ;
    cr_assert_eq(rc, 0, "%s", f->err.msg);
}

#endif
