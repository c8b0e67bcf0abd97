/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * test_memtable.c - order, versions and readers beside the writer.
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "memtable.h"
#include "txn.h"

static struct err err;

static void put(struct memtable *m, const char *key, uint64_t lsn, const char *value)
{
    struct rec r = {.kind = value != NULL ? REC_PUT : REC_DELETE,
                    .key = key,
                    .key_len = strlen(key),
                    .value = (const uint8_t *)value,
                    .value_len = value != NULL ? strlen(value) : 0};

    cr_assert_eq(memtable_put(m, &r, lsn, &err), 0, "%s", err.msg);
}

/* What a reader at lsn finds: the value, "-" for a deletion, "" for nothing. */
static const char *got(struct memtable *m, const char *key, uint64_t lsn)
{
    static char out[64];
    struct mementry e;

    if (!memtable_get(m, key, strlen(key), lsn, &e))
        return "";
    cr_assert_str_eq(e.key, key);
    cr_assert_leq(e.lsn, lsn);
    if (e.deleted)
        return "-";
    snprintf(out, sizeof(out), "%.*s", (int)e.len, (const char *)e.value);
    return out;
}

Test(memtable, a_reader_sees_the_newest_version_at_its_lsn)
{
    struct memtable *m = memtable_new();

    put(m, "b", 10, "b10");
    put(m, "a", 11, "a11");
    put(m, "b", 12, "b12");
    put(m, "b", 13, NULL);
    put(m, "bb", 14, "bb14");
    put(m, "b", 15, "b15");
    put(m, "b", 15, "again"); /* of one transaction the later counts */
    cr_assert_str_eq(got(m, "b", 9), "");
    cr_assert_str_eq(got(m, "b", 10), "b10");
    cr_assert_str_eq(got(m, "b", 12), "b12");
    cr_assert_str_eq(got(m, "b", 14), "-");
    cr_assert_str_eq(got(m, "b", UINT64_MAX), "again");
    cr_assert_str_eq(got(m, "bb", 13), "");
    cr_assert_str_eq(got(m, "c", UINT64_MAX), "");
    cr_assert_eq(memtable_keys(m), 3);
    cr_assert_eq(memtable_key_bytes(m), 1 + 5 + 1 + 3 + 2 + 4);
    memtable_unref(m);
}

/* The keys that a walk at lsn meets, joined. */
static void walk(struct memtable *m, const char *from, bool beyond, uint64_t lsn, const char *want)
{
    char out[128] = "";
    struct mementry e;
    struct memiter it;

    memiter_init(&it, m, lsn);
    for (memiter_seek(&it, from, strlen(from), beyond); memiter_entry(&it, &e); memiter_next(&it))
        snprintf(out + strlen(out), sizeof(out) - strlen(out), "%s%s ", e.key,
                 e.deleted ? "-" : "");
    cr_assert_str_eq(out, want, "from \"%s\" at LSN %lu: %s", from, (unsigned long)lsn, out);
}

Test(memtable, a_walk_is_in_key_order_and_meets_each_key_once)
{
    struct memtable *m = memtable_new();

    put(m, "a/b", 1, "1");
    put(m, "a", 2, "2");
    put(m, "a/b", 3, "3");
    put(m, "a0", 4, "4");
    put(m, "a/", 5, "5");
    put(m, "a/b", 6, NULL);
    put(m, "\xff", 7, "7");
    walk(m, "", false, 7, "a a/ a/b- a0 \xff ");
    walk(m, "", false, 4, "a a/b a0 ");
    walk(m, "a", true, 7, "a/ a/b- a0 \xff ");
    walk(m, "a/b", false, 5, "a/b a0 ");
    walk(m, "a/b", true, 5, "a0 ");
    walk(m, "b", false, 6, "");
    walk(m, "", false, 0, "");
    for (uint64_t lsn = 8; lsn < 100; lsn++) /* so many that a walk does not step over each */
        put(m, "a/", lsn, "hot");
    walk(m, "", false, 99, "a a/ a/b- a0 \xff ");
    walk(m, "a", true, 50, "a/ a/b- a0 \xff ");
    walk(m, "a", false, 5, "a a/ a/b a0 ");
    memtable_unref(m);
}

#define KEYS 20000u
struct shared {
    struct memtable *m;
    _Atomic uint64_t lsn;
};

/* While the writer goes on: in order, complete up to the LSN that was told, nothing beyond it. */
static void *read_beside(void *arg)
{
    struct shared *s = arg;
    uint64_t lsn;

    do {
        char last[16] = "";
        struct mementry e;
        struct memiter it;
        uint64_t n = 0;

        lsn = atomic_load(&s->lsn);
        memiter_init(&it, s->m, lsn);
        for (memiter_seek(&it, "", 0, false); memiter_entry(&it, &e); memiter_next(&it), n++) {
            if (strcmp(e.key, last) <= 0 || e.lsn > lsn)
                return "order";
            snprintf(last, sizeof(last), "%s", e.key);
        }
        if (n != lsn)
            return "number";
    } while (lsn < KEYS);
    return NULL;
}

Test(memtable, readers_beside_the_writer, .timeout = 60)
{
    struct shared s = {.m = memtable_new()};
    pthread_t t[2];
    void *bad;

    for (size_t i = 0; i < 2; i++)
        cr_assert_eq(pthread_create(&t[i], NULL, read_beside, &s), 0);
    for (uint64_t lsn = 1; lsn <= KEYS; lsn++) {
        char key[16];

        snprintf(key, sizeof(key), "%08x", (unsigned)(lsn * 2654435761u)); /* each another one */
        put(s.m, key, lsn, "v");
        atomic_store(&s.lsn, lsn);
    }
    for (size_t i = 0; i < 2; i++) {
        pthread_join(t[i], &bad);
        cr_assert_null(bad, "%s", (const char *)bad);
    }
    memtable_unref(s.m);
}
