/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * test_store_copy.c - a copy from a clone and differences, from pages, and the log folded over it;
 * source and copy are stores in one process, and what goes over the link is passed by hand.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "link.h"
#include "link_msg.h"
#include "parts.h"
#include "store.h"
#include "txn.h"

#define PAGE 2048u
#define SEGS_MAX 64
#define LSN (1ull << 40) /* nine bytes on the link */
#define SALT 0x9e3779b97f4a7c15u
#define COPY_BYTES 256u /* of heads of messages and first questions, for each copy */

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
static uint64_t rest;     /* of the source, told with the first list */
static unsigned rounds;   /* questions about parts of the tree */

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

/* What a message takes on the link. */
static void count(const struct link_msg *m)
{
    struct buf b = {0};

    cr_assert_eq(link_msg_encode(m, &b, &err), 0);
    moved += LINK_FRAME_HEAD_BYTES + b.len;
    buf_free(&b);
}

/* Which leaves differ, as the log thread finds it out. The source's hashes are those of one moment:
 * all questions but the first find them noted. */
static void compare_trees(void)
{
    static uint64_t theirs[MERKLE_LEAVES];
    struct store_copy c = {0};
    struct parts *p;
    uint64_t lsn;

    cr_assert_eq(parts_new(&p, &err), 0);
    store_leaf_hashes(copy.s, SALT, p->leaf, &lsn);
    store_leaf_hashes(source.s, SALT, theirs, &lsn);
    for (rounds = 0; p->n_open > 0; rounds++) {
        struct link_msg q = {.type = MSG_PARTS_REQUEST}, a = {.type = MSG_PARTS};
        struct buf names = {0}, sums = {0};

        parts_ask(p, &names);
        q.parts_request.level = p->level;
        q.parts_request.below = p->below;
        q.parts_request.salt = p->level == 0 ? SALT : 0;
        q.parts_request.parts = names.data;
        q.parts_request.parts_len = names.len;
        count(&q);
        cr_assert_eq(parts_answer(theirs, p->level, p->below, names.data, names.len, &sums, &err),
                     0);
        a.parts.lsn = p->level == 0 ? lsn : 0;
        a.parts.keys = p->level == 0 ? UINT32_MAX : 0;
        a.parts.sums = sums.data;
        a.parts.len = sums.len;
        count(&a);
        cr_assert_eq(parts_take(p, sums.data, sums.len, &err), 0, "%s", err.msg);
        buf_free(&names);
        buf_free(&sums);
    }
    rest = parts_rest(theirs, p->differ);
    cr_assert_eq(rest, parts_rest(p->leaf, p->differ));
    c.low_lsn = c.high_lsn = lsn;
    c.phase = p->n_differ > 0 ? STORE_RANGES : STORE_FOLD;
    memcpy(c.leaves, p->differ, sizeof(c.leaves));
    cr_assert_eq(store_diff_leaves(copy.s, &c, &err), 0, "%s", err.msg);
    parts_free(p);
}

static void count_list(const struct store_copy *c, const struct store_digest *d)
{
    struct link_msg q = {.type = MSG_LIST_REQUEST}, a = {.type = MSG_LIST};
    bool first = c->last[0] == '\0';
    struct buf leaves = {0};

    if (first)
        parts_put(PARTS_DEPTH, c->leaves, &leaves);
    q.list_request.after = c->last;
    q.list_request.after_len = strlen(c->last);
    q.list_request.leaves = leaves.data;
    q.list_request.leaves_len = leaves.len;
    count(&q);
    a.list.lsn = d->lsn;
    a.list.done = d->done;
    a.list.last = buf_str(&d->last);
    a.list.last_len = d->last.len;
    a.list.hashes = d->hashes.data;
    a.list.n = d->hashes.len / STORE_HASH_BYTES;
    a.list.looked = d->looked;
    a.list.has_rest = first;
    a.list.rest = rest;
    count(&a);
    buf_free(&leaves);
}

static void count_want(const char *after, const char *last, bool done, const struct buf *wanted,
                       const struct buf *page)
{
    struct link_msg q = {.type = MSG_WANT}, a = {.type = MSG_ENTRIES};

    q.want.after = after;
    q.want.after_len = strlen(after);
    q.want.last = last;
    q.want.last_len = strlen(last);
    q.want.to_end = done;
    q.want.wanted = wanted->data;
    q.want.wanted_len = wanted->len;
    count(&q);
    a.body.data = page->data;
    a.body.len = page->len;
    count(&a);
}

/* What the source sends for one range; `taken` counts entries. */
static void one_range(unsigned *taken)
{
    struct store_copy c = at();
    struct store_digest d;
    struct buf missing = {0}, wanted = {0};
    char last[4097], next[4097];
    uint64_t deleted, low, high;
    bool more;

    cr_assert_eq(store_digest_read(source.s, c.last, c.leaves, 4 * page_bytes, &d, &err), 0, "%s",
                 err.msg);
    count_list(&c, &d);
    strcpy(last, buf_str(&d.last));
    strcpy(next, c.last);
    cr_assert_eq(store_diff_compare(copy.s, c.last, last, d.done, c.leaves, d.hashes.data,
                                    d.hashes.len / STORE_HASH_BYTES, &missing, &deleted, &err),
                 0, "%s", err.msg);
    low = high = d.lsn;
    for (size_t i = 0; i < 8 * missing.len; i++)
        if ((missing.data[i / 8] >> (i % 8) & 1) != 0)
            buf_add(&wanted, d.hashes.data + i * STORE_HASH_BYTES, STORE_HASH_BYTES);
    for (more = missing.len > 0; more;) {
        struct buf bytes = {0};
        struct store_page p;

        cr_assert_eq(store_fetch_read(source.s, next, last, d.done, c.leaves, wanted.data,
                                      wanted.len / STORE_HASH_BYTES, page_bytes, &bytes, &err),
                     0, "%s", err.msg);
        count_want(next, last, d.done, &missing, &bytes);
        buf_clear(&missing); /* told once */
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
    buf_free(&wanted);
    store_digest_free(&d);
}

static void fold_rest(void)
{
    bool consistent = false;
    uint64_t from = at().folded_lsn;

    for (size_t i = from; i < n_segs; i++)
        cr_assert_eq(store_copy_fold(copy.s, &segs[i], 1, &consistent, &err), 0, "%s", err.msg);
    cr_assert(consistent);
    cr_assert_eq(store_copy_finish(copy.s, NULL, &err), 0, "%s", err.msg);
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

/* As where the source commits nothing more until the copy is whole. */
Test(store_copy, answers_of_one_lsn_are_whole_without_a_segment)
{
    struct seg *s = write_seg(0, 100, 1, 100);
    struct store_point p, there;
    unsigned taken = 0;

    apply(&source, s);
    apply(&old, s);
    apply(&source, write_seg(9, 10, 1, 10));
    cr_assert_eq(store_copy_begin(copy.s, true, &err), 0, "%s", err.msg);
    clone_some(UINT32_MAX);
    compare_trees();
    while (at().phase == STORE_RANGES)
        one_range(&taken);
    cr_assert_neq(store_copy_finish(copy.s, NULL, &err), 0, "of no running hash");
    cr_assert_eq((int)err.code, (int)ERR_ROLE);
    store_folded(source.s, &there);
    p = there;
    p.lsn--;
    cr_assert_neq(store_copy_finish(copy.s, &p, &err), 0, "of another LSN");
    reopen(&copy);
    cr_assert_eq(store_copy_finish(copy.s, &there, &err), 0, "%s", err.msg);
    reopen(&copy);
    store_applied(copy.s, &p);
    cr_assert(p.lsn == there.lsn && p.epoch == there.epoch &&
              memcmp(p.hash, there.hash, sizeof(p.hash)) == 0);
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
    cr_assert_neq(store_copy_finish(copy.s, NULL, &err), 0);
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
/* Of keys of seven bytes with values of one, the differ ones are spread evenly. */
struct shape {
    unsigned keys, differ;
    enum { CHANGED, INSERTED, DELETED } how; /* at the source */
};

static size_t tiny_key(unsigned i, char key[16])
{
    return (size_t)snprintf(key, 16, "%07u", i);
}

/* Is key i (of keys, and then those that are inserted) one that differs? */
static bool differs(const struct shape *sh, unsigned i)
{
    unsigned step = sh->keys / sh->differ;

    if (sh->how == INSERTED)
        return i >= sh->keys;
    return i % step == 0 && i / step < sh->differ;
}

/* What there is at first, or what differs: in segments of some thousand keys. Begins anew when it
 * is not the second. */
static void tiny_write(struct side *d, const struct shape *sh, bool second)
{
    static struct seg_head head;
    unsigned i = 0, all = sh->keys + (sh->how == INSERTED ? sh->differ : 0);
    uint8_t v = second ? 2 : 1;

    if (!second)
        head = (struct seg_head){.epoch = 1, .first_lsn = LSN + 1};
    while (i < all) {
        struct txn *t = txn_new();
        struct seg_txn st;
        struct seg *s;

        for (; i < all && txn_count(t) < 10000; i++) {
            char key[16];

            tiny_key(i, key);
            if (second ? !differs(sh, i) : i >= sh->keys)
                continue;
            if (second && sh->how == DELETED)
                cr_assert_eq(txn_delete(t, key, &err), 0);
            else
                cr_assert_eq(txn_put(t, key, &v, 1, &err), 0);
        }
        if (txn_count(t) > 0) {
            cr_assert_eq(txn_bytes(t, &st.data, &st.len, &err), 0);
            cr_assert_eq(seg_build(&head, &st, 1, &s, &err), 0, "%s", err.msg);
            apply(d, s);
            memcpy(head.prev_hash, s->hash, sizeof(head.prev_hash));
            head.first_lsn++;
            seg_unref(s);
        }
        txn_free(t);
    }
}

/* Three times the bytes that differ, and 40 for each key, on either side, in a leaf that does. */
static uint64_t bound_of(const struct shape *sh)
{
    static bool leaf[MERKLE_LEAVES];
    unsigned all = sh->keys + (sh->how == INSERTED ? sh->differ : 0);
    uint64_t keys = 0;
    char key[16];

    memset(leaf, 0, sizeof(leaf));
    for (unsigned i = 0; i < all; i++)
        if (differs(sh, i))
            leaf[merkle_leaf_of(key, tiny_key(i, key))] = true;
    for (unsigned i = 0; i < all; i++)
        keys += leaf[merkle_leaf_of(key, tiny_key(i, key))];
    return 3 * 8 * (uint64_t)sh->differ + 40 * keys;
}

ParameterizedTestParameters(store_copy, a_difference_of_tiny_keys_moves_what_the_bound_allows)
{
    static struct shape shapes[] = {
        {200000, 200000, CHANGED}, {200000, 20000, CHANGED}, {65536, 65536, CHANGED},
        {65536, 6553, CHANGED},    {65536, 66, CHANGED},     {65536, 10, CHANGED},
        {65536, 2, CHANGED},       {65536, 1, CHANGED},      {5000, 5000, CHANGED},
        {5000, 1000, CHANGED},     {5000, 100, CHANGED},     {5000, 10, CHANGED},
        {5000, 1, CHANGED},        {20000, 2000, INSERTED},  {5000, 100, INSERTED},
        {5000, 10, INSERTED},      {5000, 1, INSERTED},      {20000, 2000, DELETED},
        {5000, 100, DELETED},      {5000, 10, DELETED},      {5000, 1, DELETED},
    };

    return cr_make_param_array(struct shape, shapes, sizeof(shapes) / sizeof(shapes[0]));
}

/* Sequence 12 and decision 7, to the byte; the LSNs are as long as they get. */
ParameterizedTest(struct shape *sh, store_copy,
                  a_difference_of_tiny_keys_moves_what_the_bound_allows)
{
    static const char *const how[] = {"changed", "inserted", "deleted"};
    struct store_point point = {.lsn = LSN, .epoch = 1};
    uint64_t bound = bound_of(sh);
    unsigned taken = 0;

    page_bytes = 1u << 20;
    cr_assert_eq(store_begin(source.s, &point, &err), 0, "%s", err.msg);
    cr_assert_eq(store_begin(old.s, &point, &err), 0, "%s", err.msg);
    tiny_write(&source, sh, false);
    tiny_write(&old, sh, false);
    tiny_write(&source, sh, true);
    cr_assert_eq(store_copy_begin(copy.s, true, &err), 0, "%s", err.msg);
    clone_some(UINT32_MAX);
    moved = 0;
    compare_trees();
    while (at().phase == STORE_RANGES)
        one_range(&taken);
    cr_assert_eq(taken, sh->how == DELETED ? 0 : sh->differ);
    printf("%u of %u %s: %" PRIu64 " bytes, the bound is %" PRIu64 " (%.2f), %u rounds\n",
           sh->differ, sh->keys, how[sh->how], moved, bound, (double)moved / (double)bound, rounds);
    cr_assert_leq(rounds, PARTS_QUESTIONS);
    cr_assert_leq(moved, bound + COPY_BYTES,
                  "%u of %u %s: %" PRIu64 " bytes moved, the bound is %" PRIu64, sh->differ,
                  sh->keys, how[sh->how], moved, bound);
}
