/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * store_diff.c - a copy made from a clone of an older store of ours and the differences to the
 * source's; the phases are those of store_copy.c.
 *
 * The clone's leaves are worked out from its rows anew, so its tree says what is really there: a
 * row that went bad in the older store is a difference like any other.
 *
 * A range of keys is compared by hashes: what the source does not have is deleted, what is missing
 * here is fetched and put. A crash within a range compares it again.
 */
#include "store_private.h"

#include <endian.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define COMPARE_KEYS_MAX 4096u /* looked at, or deleted, in one transaction */

/* ---- the clone ---- */
int store_page_put(struct store *s, const struct store_page *p, const char *after, struct err *err)
{
    struct mp_cursor c = {p->entries, p->end};
    size_t after_len = strlen(after);

    for (uint64_t i = 0; i < p->count; i++) {
        struct store_page_entry e;
        if (!store_page_next(&c, &e))
            return err_set(err, ERR_PROTO, 0, "page: malformed entry");
        if (store_key_compare(e.key, e.key_len, after, after_len) > 0 && store_put(s, &e, err) != 0)
            return -1;
    }
    return 0;
}

static int clone_work(struct store *s, void *arg, struct store_point *next, struct err *err)
{
    const struct store_page *p = arg;
    struct copy_row r;

    (void)next;
    if (store_copy_load(s, s->writer, &r, err) != 0)
        return -1;
    if (r.phase != STORE_CLONE)
        return err_set(err, ERR_ROLE, 0, "clone: the copy is not at it");
    if (store_page_put(s, p, r.last, err) != 0)
        return -1;
    r.keys += p->count;
    r.phase = p->done ? STORE_TREE : STORE_CLONE;
    copy_row_last(&r, p->last, p->done ? 0 : p->last_len); /* the ranges begin at the start */
    return store_copy_save(s, &r, err);
}

int store_clone_page(struct store *s, const uint8_t *page, size_t len, struct err *err)
{
    struct store_page p = {0};

    if (store_page_parse(page, len, &p, err) != 0)
        return -1;
    return store_write(s, clone_work, &p, err);
}

/* ---- the tree ---- */
static int leaves_work(struct store *s, void *arg, struct store_point *next, struct err *err)
{
    const struct store_copy *c = arg;
    struct copy_row r;

    (void)next;
    if (store_copy_load(s, s->writer, &r, err) != 0)
        return -1;
    if (r.phase != STORE_TREE)
        return err_set(err, ERR_ROLE, 0, "leaves: the copy is no clone that waits for them");
    copy_row_answer(&r, c->low_lsn, c->high_lsn);
    r.phase = c->phase == STORE_FOLD ? STORE_FOLD : STORE_RANGES;
    if (store_meta_set(s, s->writer, "leaves", c->leaves, sizeof(c->leaves), err) != 0)
        return -1;
    return store_copy_save(s, &r, err);
}

int store_diff_leaves(struct store *s, const struct store_copy *c, struct err *err)
{
    return store_write(s, leaves_work, (void *)c, err);
}

/* ---- one range compared ---- */
struct known {
    uint8_t hash[STORE_HASH_BYTES];
    uint32_t index;
    bool met;
};

struct compare {
    const char *last;
    bool to_end;           /* the range has no last key */
    const uint8_t *leaves; /* bitmap */
    struct known *known;   /* sorted by hash */
    size_t n;
    struct merkle_hasher hasher;
    char at[TXN_KEY_MAX_BYTES + 1]; /* looked at up to here; moves with the commit */
    char next[TXN_KEY_MAX_BYTES + 1];
    bool done;
    uint64_t deleted, deleted_now;
};

static int by_known(const void *a, const void *b)
{
    return memcmp(((const struct known *)a)->hash, ((const struct known *)b)->hash,
                  STORE_HASH_BYTES);
}

/* 1: the source has it, 0: it has not, -1 */
static int source_has(struct compare *c, const struct store_page_entry *e, struct err *err)
{
    struct known key, *k;

    if (store_hash16(&c->hasher, e, key.hash, err) != 0)
        return -1;
    k = bsearch(&key, c->known, c->n, sizeof(*c->known), by_known);
    if (k == NULL)
        return 0;
    k->met = true;
    return 1;
}

static int compare_work(struct store *s, void *arg, struct store_point *next, struct err *err)
{
    struct compare *c = arg;
    struct store_session *ss = s->writer;
    unsigned looked = 0;
    int found = store_seek(s, ss, c->at, c->at[0] != '\0', err);

    (void)next;
    c->deleted_now = 0;
    c->done = false;
    for (; found == 1 && looked < COMPARE_KEYS_MAX; looked++) {
        struct store_page_entry e;
        int has = 1;
        if (store_entry_here(s, ss, &e, err) != 0)
            return -1;
        if (!c->to_end && strcmp(e.key, c->last) > 0) {
            found = 0;
            break;
        }
        memcpy(c->next, e.key, e.key_len + 1);
        if (store_leaf_wanted(c->leaves, &e))
            has = source_has(c, &e, err);
        if (has < 0 || (has == 0 && store_delete_here(s, err) != 0))
            return -1;
        c->deleted_now += has == 0;
        found = store_next(s, ss, err);
    }
    c->done = found == 0;
    return found < 0 ? -1 : 0;
}

static int compare_run(struct store *s, struct compare *c, struct err *err)
{
    do {
        memcpy(c->next, c->at, sizeof(c->next));
        if (store_write(s, compare_work, c, err) != 0)
            return -1;
        memcpy(c->at, c->next, sizeof(c->at));
        c->deleted += c->deleted_now;
    } while (!c->done);
    return 0;
}

int store_diff_compare(struct store *s, const char *after, const char *last, bool done,
                       const uint8_t *leaves, const uint8_t *hashes, size_t n, struct buf *missing,
                       uint64_t *deletedp, struct err *err)
{
    struct compare *c = calloc(1, sizeof(*c));
    uint8_t *lacks = calloc(n / 8 + 1, 1); /* bitmap */
    bool any = false;
    int rc = -1;

    if (c != NULL)
        c->known = calloc(n + 1, sizeof(*c->known));
    if (c == NULL || lacks == NULL || c->known == NULL) {
        err_set(err, ERR_NOMEM, 0, "compare %zu entries", n);
        goto out;
    }
    if (strlen(after) > TXN_KEY_MAX_BYTES) {
        err_set(err, ERR_INVAL, 0, "compare: the key to start after is too long");
        goto out;
    }
    memcpy(c->at, after, strlen(after) + 1);
    c->last = last;
    c->to_end = done;
    c->leaves = leaves;
    c->n = n;
    for (size_t i = 0; i < n; i++) {
        memcpy(c->known[i].hash, hashes + i * STORE_HASH_BYTES, STORE_HASH_BYTES);
        c->known[i].index = (uint32_t)i;
    }
    qsort(c->known, n, sizeof(*c->known), by_known);
    if (merkle_hasher_init(&c->hasher, err) != 0)
        goto out;
    rc = compare_run(s, c, err);
    merkle_hasher_fini(&c->hasher);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        const uint32_t at = c->known[i].index; /* in the order of the source's keys */

        if (c->known[i].met)
            continue;
        lacks[at / 8] |= (uint8_t)(1u << (at % 8));
        any = true;
    }
    if (any)
        buf_add(missing, lacks, (n + 7) / 8);
    if (rc == 0)
        rc = buf_check(missing, err);
    *deletedp = c->deleted;
out:
    if (c != NULL)
        free(c->known);
    free(c);
    free(lacks);
    return rc;
}

/* ---- entries ---- */
struct put {
    const struct store_page *page; /* NULL: none */
    const char *after, *last;
    bool ends;                  /* the range ends */
    bool done;                  /* and with it the table */
    uint64_t looked;            /* keys of it */
    uint64_t low_lsn, high_lsn; /* of its answers */
};

static int put_work(struct store *s, void *arg, struct store_point *next, struct err *err)
{
    const struct put *v = arg;
    struct copy_row r;

    (void)next;
    if (store_copy_load(s, s->writer, &r, err) != 0)
        return -1;
    if (r.phase != STORE_RANGES)
        return err_set(err, ERR_ROLE, 0, "range: the copy takes none now");
    if (v->page != NULL && store_page_put(s, v->page, v->after, err) != 0)
        return -1;
    if (!v->ends)
        return 0;
    copy_row_answer(&r, v->low_lsn, v->high_lsn);
    copy_row_last(&r, v->last, strlen(v->last));
    r.looked += v->looked;
    if (v->done)
        r.phase = STORE_FOLD;
    return store_copy_save(s, &r, err);
}

/* Of the range that was asked for, and no other. */
static int check_range(const struct store_page *p, const char *after, const char *last, bool done,
                       struct err *err)
{
    struct mp_cursor c = {p->entries, p->end};
    struct store_page_entry e;

    for (uint64_t i = 0; i < p->count; i++) {
        if (!store_page_next(&c, &e))
            return err_set(err, ERR_PROTO, 0, "page: malformed entry");
        if (store_key_compare(e.key, e.key_len, after, strlen(after)) <= 0 ||
            (!done && store_key_compare(e.key, e.key_len, last, strlen(last)) > 0))
            return err_set(err, ERR_PROTO, 0, "page: entry %" PRIu64 " is not of its range", i);
    }
    return 0;
}

int store_diff_put(struct store *s, const struct store_page *p, const char *after, const char *last,
                   bool done, struct err *err)
{
    struct put v = {.page = p, .after = after};

    if (check_range(p, after, last, done, err) != 0)
        return -1;
    return store_write(s, put_work, &v, err);
}

int store_diff_range(struct store *s, const char *last, bool done, uint64_t looked,
                     uint64_t low_lsn, uint64_t high_lsn, struct err *err)
{
    struct put v = {.last = last,
                    .ends = true,
                    .done = done,
                    .looked = looked,
                    .low_lsn = low_lsn,
                    .high_lsn = high_lsn};

    return store_write(s, put_work, &v, err);
}
