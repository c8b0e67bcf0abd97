/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * test_store_copy.c - a copy from a clone and differences, from pages, and the log folded over it;
 * source and copy are stores in one process, and what goes over the link is passed by hand.
 */
#include <criterion/criterion.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store.h"
#include "txn.h"

#define PAGE 2048u
#define SEGS_MAX 64
#define MESSAGE 64u /* a frame and the fields of it that are no payload, at most */

struct side {
    char dir[64];
    struct store *s;
};
static char root[] = "/tmp/store-copy-XXXXXX";
static struct side source, old, copy;
static struct err err;
/* The source's log. */
static struct seg *segs[SEGS_MAX];
static size_t n_segs;
static size_t page_bytes; /* of an answer */
static uint64_t moved;    /* bytes of questions and answers */

static void open_side(struct side *d)
{
    struct store_config cfg = {.dir = d->dir, .cache_bytes = 32u << 20};

    cr_assert_eq(store_open(&cfg, &d->s, &err), 0, "%s", err.msg);
}

static void reopen(struct side *d)
{
    store_close(d->s);
    open_side(d);
}

static void setup(void)
{
    struct side *all[] = {&source, &old, &copy};

    page_bytes = PAGE;
    moved = 0;
    cr_assert_not_null(mkdtemp(root));
    for (int i = 0; i < 3; i++) {
        snprintf(all[i]->dir, sizeof(all[i]->dir), "%s/%d", root, i);
        open_side(all[i]);
    }
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

static void teardown(void)
{
    store_close(source.s);
    store_close(old.s);
    store_close(copy.s);
    for (size_t i = 0; i < n_segs; i++)
        seg_unref(segs[i]);
    nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

TestSuite(store_copy, .init = setup, .fini = teardown, .timeout = 60);

/* One segment that writes keys from..to by step (len 0: deletes them), into the source's log. */
static struct seg *write_seg(unsigned from, unsigned to, unsigned step, size_t len)
{
    struct seg_head head = {.epoch = 1, .first_lsn = n_segs + 1};
    struct txn *t = txn_new();
    uint8_t value[512];
    struct seg_txn st;

    memset(value, (int)n_segs, sizeof(value));
    for (unsigned i = from; i < to; i += step) {
        char key[32];

        snprintf(key, sizeof(key), "k/%c/%04u", 'a' + (int)(i % 3), i);
        cr_assert_eq(len > 0 ? txn_put(t, key, value, len, &err) : txn_delete(t, key, &err), 0);
    }
    if (n_segs > 0)
        memcpy(head.prev_hash, segs[n_segs - 1]->hash, sizeof(head.prev_hash));
    cr_assert_eq(txn_bytes(t, &st.data, &st.len, &err), 0);
    cr_assert_eq(seg_build(&head, &st, 1, &segs[n_segs], &err), 0, "%s", err.msg);
    txn_free(t);
    return segs[n_segs++];
}

static void apply(struct side *d, struct seg *s)
{
    cr_assert_eq(store_apply(d->s, &s, 1, &err), 0, "%s", err.msg);
}

static struct store_copy at(void)
{
    static struct store_copy c;

    cr_assert_eq(store_copy_position(copy.s, &c, &err), 0, "%s", err.msg);
    return c;
}

static void clone_some(unsigned pages)
{
    while (at().phase == STORE_CLONE && pages-- > 0) {
        struct buf page = {0};

        cr_assert_eq(store_page_read(old.s, at().last, PAGE, &page, &err), 0, "%s", err.msg);
        cr_assert_eq(store_clone_page(copy.s, page.data, page.len, &err), 0, "%s", err.msg);
        buf_free(&page);
    }
}

static void compare_trees(void)
{
    struct store_copy c = {.phase = STORE_FOLD};
    static uint16_t nodes[4096], next[4096];
    size_t n = 1;

    nodes[0] = 0;
    for (unsigned level = 0; level < STORE_TREE_LEVELS; level++) {
        struct buf ours = {0}, theirs = {0};
        size_t n_next = 0;
        uint64_t lsn;

        cr_assert_eq(store_tree_read(copy.s, level, nodes, n, &ours, &lsn, &err), 0);
        cr_assert_eq(store_tree_read(source.s, level, nodes, n, &theirs, &lsn, &err), 0);
        cr_assert_eq(ours.len, n * 16 * STORE_SUM_BYTES);
        moved += 2 * n + theirs.len + 2 * MESSAGE;
        c.low_lsn = c.low_lsn == 0 || lsn < c.low_lsn ? lsn : c.low_lsn;
        c.high_lsn = lsn;
        for (size_t i = 0; i < n * 16; i++) {
            uint32_t child = nodes[i / 16] * 16u + (uint32_t)(i % 16);

            if (memcmp(ours.data + i * 8, theirs.data + i * 8, 8) == 0)
                continue;
            if (level + 1 < STORE_TREE_LEVELS)
                next[n_next++] = (uint16_t)child;
            else {
                c.leaves[child / 8] |= (uint8_t)(1u << (child % 8));
                c.phase = STORE_RANGES;
            }
        }
        memcpy(nodes, next, sizeof(nodes));
        n = n_next;
        buf_free(&ours);
        buf_free(&theirs);
    }
    cr_assert_eq(store_diff_leaves(copy.s, &c, &err), 0, "%s", err.msg);
}

/* What the source sends for one range; `taken` counts entries. */
static void one_range(unsigned *taken)
{
    struct store_copy c = at();
    struct store_digest d;
    struct buf missing = {0};
    char last[4097], next[4097];
    uint64_t deleted, low, high;
    bool more;

    cr_assert_eq(store_digest_read(source.s, c.last, c.leaves, 4 * page_bytes, &d, &err), 0, "%s",
                 err.msg);
    moved += d.hashes.len + d.last.len + strlen(c.last) + 2 * MESSAGE;
    strcpy(last, buf_str(&d.last));
    strcpy(next, c.last);
    cr_assert_eq(store_diff_compare(copy.s, c.last, last, d.done, c.leaves, d.hashes.data,
                                    d.hashes.len / STORE_HASH_BYTES, &missing, &deleted, &err),
                 0, "%s", err.msg);
    low = high = d.lsn;
    moved += missing.len;
    for (more = missing.len > 0; more;) {
        struct buf bytes = {0};
        struct store_page p;

        cr_assert_eq(store_fetch_read(source.s, next, last, d.done, c.leaves, missing.data,
                                      missing.len / STORE_HASH_BYTES, page_bytes, &bytes, &err),
                     0, "%s", err.msg);
        moved += bytes.len + strlen(next) + strlen(last) + 2 * MESSAGE;
        cr_assert_eq(store_page_parse(bytes.data, bytes.len, &p, &err), 0, "%s", err.msg);
        cr_assert_eq(store_diff_put(copy.s, &p, next, last, d.done, &err), 0, "%s", err.msg);
        *taken += (unsigned)p.count;
        high = p.lsn;
        memcpy(next, p.last, p.last_len);
        next[p.last_len] = '\0';
        more = !p.done;
        buf_free(&bytes);
    }
    cr_assert_eq(store_diff_range(copy.s, last, d.done, d.looked, low, high, &err), 0, "%s",
                 err.msg);
    buf_free(&missing);
    store_digest_free(&d);
}

static void fold_rest(void)
{
    bool consistent = false;
    uint64_t from = at().folded_lsn;

    for (size_t i = from; i < n_segs; i++)
        cr_assert_eq(store_copy_fold(copy.s, &segs[i], 1, &consistent, &err), 0, "%s", err.msg);
    cr_assert(consistent);
    cr_assert_eq(store_copy_finish(copy.s, &err), 0, "%s", err.msg);
}

static void expect_equal(void)
{
    uint8_t a[MERKLE_HASH_BYTES], b[MERKLE_HASH_BYTES];
    uint64_t la, lb;

    cr_assert_eq(store_merkle_root(source.s, a, &la, &err), 0);
    cr_assert_eq(store_merkle_root(copy.s, b, &lb, &err), 0);
    cr_assert_eq(la, lb);
    cr_assert_eq(memcmp(a, b, sizeof(a)), 0);
    cr_assert_eq(store_merkle_check(copy.s, &err), 0, "%s", err.msg);
}

/* The source and an older store that went on in another way from LSN 1 on. */
static void diverge(void)
{
    struct seg *s = write_seg(0, 600, 1, 100), *keep[SEGS_MAX];
    size_t n;

    apply(&source, s);
    apply(&old, s);
    n = n_segs;
    memcpy(keep, segs, sizeof(segs));
    apply(&old, write_seg(5, 900, 37, 50));
    apply(&old, write_seg(1, 600, 41, 0));
    seg_unref(segs[n]);
    seg_unref(segs[n + 1]);
    n_segs = n;
    apply(&source, write_seg(0, 600, 29, 120));
    apply(&source, write_seg(2, 600, 53, 0));
    apply(&source, write_seg(700, 720, 1, 200));
}

Test(store_copy, a_clone_and_the_differences_give_the_sources_state)
{
    unsigned taken = 0;

    diverge();
    cr_assert_eq(store_copy_begin(copy.s, true, &err), 0, "%s", err.msg);
    clone_some(UINT32_MAX);
    compare_trees();
    while (at().phase == STORE_RANGES) {
        one_range(&taken);
        if (n_segs < 20) /* the source goes on between any two */
            apply(&source, write_seg((unsigned)n_segs, 600, 71, n_segs % 3 == 0 ? 0 : 90));
    }
    cr_assert(taken > 20 && taken < 200, "%u entries came", taken);
    apply(&source, write_seg(9, 10, 1, 10));
    fold_rest();
    expect_equal();
}

Test(store_copy, it_goes_on_behind_the_last_range_after_a_restart)
{
    unsigned taken = 0;

    diverge();
    cr_assert_eq(store_copy_begin(copy.s, true, &err), 0, "%s", err.msg);
    clone_some(3);
    reopen(&copy);
    cr_assert_eq(at().phase, STORE_CLONE);
    cr_assert_neq(at().last[0], '\0');
    clone_some(UINT32_MAX);
    reopen(&copy);
    compare_trees();
    one_range(&taken);
    reopen(&copy);
    cr_assert_eq(at().phase, STORE_RANGES);
    cr_assert_neq(at().last[0], '\0');
    while (at().phase == STORE_RANGES)
        one_range(&taken);
    reopen(&copy);
    apply(&source, write_seg(9, 10, 1, 10));
    fold_rest();
    reopen(&copy);
    expect_equal();
}

Test(store_copy, nothing_comes_when_nothing_differs)
{
    struct seg *s = write_seg(0, 100, 1, 100);

    apply(&source, s);
    apply(&old, s);
    cr_assert_eq(store_copy_begin(copy.s, true, &err), 0, "%s", err.msg);
    clone_some(UINT32_MAX);
    compare_trees();
    cr_assert_eq(at().phase, STORE_FOLD);
    apply(&source, write_seg(9, 10, 1, 10));
    fold_rest();
    expect_equal();
}

Test(store_copy, pages_replace_what_a_clone_holds_in_their_range)
{
    diverge();
    cr_assert_eq(store_copy_begin(copy.s, true, &err), 0, "%s", err.msg);
    clone_some(UINT32_MAX);
    while (at().phase != STORE_FOLD) {
        struct buf page = {0};

        cr_assert_eq(store_page_read(source.s, at().last, PAGE, &page, &err), 0, "%s", err.msg);
        cr_assert_eq(store_copy_page(copy.s, page.data, page.len, &err), 0, "%s", err.msg);
        buf_free(&page);
    }
    apply(&source, write_seg(9, 10, 1, 10));
    fold_rest();
    expect_equal();
}

Test(store_copy, a_copy_is_no_state_until_it_is_finished)
{
    struct seg *s = write_seg(0, 10, 1, 10);
    bool consistent;

    cr_assert_eq(store_copy_begin(copy.s, false, &err), 0, "%s", err.msg);
    cr_assert_neq(store_apply(copy.s, &s, 1, &err), 0);
    cr_assert_eq((int)err.code, (int)ERR_ROLE);
    cr_assert_neq(store_copy_fold(copy.s, &s, 1, &consistent, &err), 0);
    cr_assert_neq(store_copy_finish(copy.s, &err), 0);
    cr_assert_neq(store_copy_begin(copy.s, false, &err), 0, "it is one already");
}

/* An entry that a peer puts outside the range that was asked for would be in nobody's view. */
Test(store_copy, entries_of_another_range_are_refused)
{
    struct buf bytes = {0};
    struct store_page p;

    apply(&source, write_seg(0, 100, 1, 10));
    cr_assert_eq(store_copy_begin(copy.s, false, &err), 0, "%s", err.msg);
    cr_assert_eq(store_page_read(source.s, "", 1u << 20, &bytes, &err), 0);
    cr_assert_eq(store_page_parse(bytes.data, bytes.len, &p, &err), 0);
    cr_assert_neq(store_diff_put(copy.s, &p, "", "k/b/0001", false, &err), 0);
    cr_assert_eq((int)err.code, (int)ERR_PROTO);
    cr_assert_neq(store_diff_put(copy.s, &p, "k/a/0003", "", true, &err), 0);
    cr_assert_eq(store_diff_put(copy.s, &p, "", "", true, &err), 0, "%s", err.msg);
    buf_free(&bytes);
}

/* ---- what is moved ---- */
/* Keys 0 to n by step, each of seven bytes, with a value of one. Returns bytes of both. */
static uint64_t tiny_seg(struct side *d, unsigned n, unsigned step, uint8_t v, uint64_t lsn)
{
    static uint8_t before[WAL_HASH_BYTES];
    struct seg_head head = {.epoch = 1, .first_lsn = lsn};
    struct txn *t = txn_new();
    struct seg_txn st;
    struct seg *s;
    uint64_t bytes = 0;

    for (unsigned i = 0; i < n; i += step) {
        char key[8];

        bytes += (uint64_t)snprintf(key, sizeof(key), "%07u", i) + 1;
        cr_assert_eq(txn_put(t, key, &v, 1, &err), 0);
    }
    if (lsn > 1)
        memcpy(head.prev_hash, before, sizeof(before));
    cr_assert_eq(txn_bytes(t, &st.data, &st.len, &err), 0);
    cr_assert_eq(seg_build(&head, &st, 1, &s, &err), 0, "%s", err.msg);
    apply(d, s);
    memcpy(before, s->hash, sizeof(before));
    seg_unref(s);
    txn_free(t);
    return bytes;
}

/* sparse: fewer keys than leaves, so that the parts of the tree that differ count, too. */
static void tiny(unsigned n, unsigned step, bool sparse)
{
    static bool differs[MERKLE_LEAVES];
    uint64_t bytes, keys = 0, leaves = 0, bound, tree;
    unsigned taken = 0;
    char key[8];

    page_bytes = 1u << 20;
    tiny_seg(&source, n, 1, 1, 1);
    tiny_seg(&old, n, 1, 1, 1);
    bytes = tiny_seg(&source, n, step, 2, 2);
    memset(differs, 0, sizeof(differs));
    for (unsigned i = 0; i < n; i += step)
        differs[merkle_leaf_of(key, (size_t)snprintf(key, sizeof(key), "%07u", i))] = true;
    for (unsigned i = 0; i < n; i++)
        keys += differs[merkle_leaf_of(key, (size_t)snprintf(key, sizeof(key), "%07u", i))];
    for (unsigned i = 0; i < MERKLE_LEAVES; i++)
        leaves += differs[i];
    cr_assert_eq(store_copy_begin(copy.s, true, &err), 0, "%s", err.msg);
    clone_some(UINT32_MAX);
    moved = 0;
    compare_trees();
    tree = moved;
    moved += 2 * leaves < 8192 ? 2 * leaves : 8192; /* told once */
    while (at().phase == STORE_RANGES)
        one_range(&taken);
    cr_assert_eq(taken, (n + step - 1) / step);
    bound = 3 * bytes + 40 * keys;
    cr_assert_leq(moved, bound + (sparse ? tree : 0),
                  "%" PRIu64 " bytes moved, the bound is %" PRIu64, moved, bound);
}

/* Sequence 12: three times what differs, and 40 bytes for each key in a leaf that does. */
Test(store_copy, tiny_keys_that_all_differ_move_what_the_bound_allows)
{
    tiny(65536, 1, false);
}

Test(store_copy, some_of_many_tiny_keys_move_what_the_bound_allows)
{
    tiny(200000, 10, false);
}

/* Decision 7 says what a small store pays for its tree. */
Test(store_copy, few_of_few_tiny_keys_move_the_tree_beside_it)
{
    tiny(65536, 1000, true);
}
