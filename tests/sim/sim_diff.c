/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim_diff.c - catching up by difference: what it moves, that it ends, and what a crash, a cut or a
 * promotion in the midst of it leaves. Numbers in the promises are those of the design's list.
 */
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "store.h"

#define MANY 3000u

/* ---- more keys than the workload has ---- */
struct filled {
    struct world *w;
    unsigned out;
};
static void on_filled(void *arg, uint64_t lsn, const struct err *err)
{
    struct filled *f = arg;

    (void)lsn;
    if (err != NULL)
        sim_fail(f->w, "a write is refused: %s", err->msg);
    f->out--;
}

static size_t many_name(unsigned i, char out[32])
{
    return (size_t)snprintf(out, 32, "x/%c/%05u", 'a' + (int)(i % 7), i);
}

/* Key and value bytes of keys from..to by step; len 0 deletes. Fifty in a transaction. */
static uint64_t many_write(struct world *w, unsigned from, unsigned to, unsigned step, size_t len)
{
    struct filled f = {.w = w};
    uint8_t value[4096];
    uint64_t bytes = 0;
    struct txn *t = NULL;
    struct err err;

    for (unsigned i = from; i < to; i += step) {
        char key[32];

        bytes += many_name(i, key) + len;
        sim_bytes(w, value, len < 16 ? len : 16);
        if (t == NULL)
            t = txn_new();
        if ((len > 0 ? txn_put(t, key, value, len, &err) : txn_delete(t, key, &err)) != 0)
            sim_fail(w, "transaction: %s", err.msg);
        if (txn_count(t) < 50 && i + step < to)
            continue;
        f.out++;
        if (engine_submit(w->n[w->primary].e, t, on_filled, &f, &err) != 0)
            sim_fail(w, "submit: %s", err.msg);
        t = NULL;
        world_step(w);
    }
    while (f.out > 0)
        sim_check(w, world_step(w), "a write is not answered");
    return bytes;
}

/* The primary no longer keeps what a secondary that is away would need. */
static void forget_log(struct world *w)
{
    uint64_t retained = w->retain_bytes;

    w->retain_bytes = 1;
    node_stop(w, 0);
    node_open(w, 0);
    for (unsigned i = 0; i < 4; i++) {
        many_write(w, 0, MANY, 50, 4000);
        (void)engine_checkpoint_step(w->n[0].e, true);
        world_run(w, 20 * MS);
    }
    w->retain_bytes = retained;
}

static void page_64k(struct world *w, int i, struct engine_config *cfg)
{
    (void)w, (void)i;
    cfg->copy_page_bytes = 64u << 10;
}

static void diff_pair(struct world *w)
{
    many_write(w, 0, MANY, 1, 200);
    pair(w);
    check_equal(w);
}

static uint64_t taken(struct world *w)
{
    struct engine_status st;

    engine_status(w->n[1].e, &st);
    return st.copy_keys;
}

/* 12: at most three times what differs, and 40 bytes for each key in a leaf that does. */
static void diff_bytes(struct world *w)
{
    static bool leaf_differs[MERKLE_LEAVES];
    uint64_t differs, bound, moved, keys = 0, changed = 0;
    char key[32];

    w->tune = page_64k;
    diff_pair(w);
    node_stop(w, 1);
    differs = many_write(w, 0, MANY, 10, 300) + many_write(w, 5, MANY, 50, 0);
    forget_log(w); /* writes every 50th once more, at 4,000 bytes */
    differs += 60 * 3700;
    memset(leaf_differs, 0, sizeof(leaf_differs));
    for (unsigned i = 0; i < MANY; i++) {
        if (i % 10 == 0 || i % 50 == 5) {
            leaf_differs[merkle_leaf_of(key, many_name(i, key))] = true;
            changed++;
        }
    }
    for (unsigned i = 0; i < MANY; i++)
        keys += leaf_differs[merkle_leaf_of(key, many_name(i, key))];
    w->diff_bytes = 0;
    node_open(w, 1);
    check_equal(w);
    moved = w->diff_bytes;
    bound = 3 * differs + 40 * keys;
    sim_check(w, taken(w) > 0 && taken(w) <= changed + 10, "%llu keys came, %llu had changed",
              (unsigned long long)taken(w), (unsigned long long)changed);
    sim_check(w, moved <= bound, "%llu bytes moved, the bound is %llu", (unsigned long long)moved,
              (unsigned long long)bound);
    printf("  %llu keys and %llu bytes differ of %u keys: %llu bytes moved, the bound is %llu\n",
           (unsigned long long)changed, (unsigned long long)differs, MANY,
           (unsigned long long)moved, (unsigned long long)bound);
}

/* It ends while the primary writes as fast as it can. */
static void diff_under_load(struct world *w)
{
    int64_t begun;

    diff_pair(w);
    node_stop(w, 1);
    many_write(w, 0, MANY, 3, 250);
    forget_log(w);
    node_open(w, 1);
    begun = w->now_ns;
    for (unsigned i = 0; !secondary_streams(w); i++) {
        sim_check(w, w->now_ns - begun < 60 * SEC, "it does not end while writes go on");
        write_many(w, 5);
        if (i % 3 == 0)
            many_write(w, i % MANY, MANY, 997, 200);
        world_step(w);
    }
    sim_check(w, taken(w) > 0, "it was not a difference");
    check_equal(w);
}

/* 10, 11: crashes and cuts at every moment; each time the state is one that existed. */
static void diff_crash(struct world *w)
{
    diff_pair(w);
    node_stop(w, 1);
    many_write(w, 0, MANY, 2, 150);
    many_write(w, 1, MANY, 9, 0);
    forget_log(w);
    node_open(w, 1);
    for (int i = 0; i < 25; i++) {
        for (unsigned k = (unsigned)sim_rand(w, 400); k > 0; k--)
            world_step(w);
        write_many(w, 3);
        switch (sim_rand(w, 4)) {
        case 0:
            net_cut(w);
            break;
        case 1:
            node_crash(w, 0);
            node_open(w, 0);
            break;
        default:
            node_crash(w, 1);
            node_open(w, 1); /* checks that the state is a prefix */
            break;
        }
    }
    check_equal(w);
}

/* 19: an old primary with writes of its own comes back by the difference, not by all of it. */
static void rejoin_by_difference(struct world *w)
{
    diff_pair(w);
    net_partition(w, 0, 1, true);
    many_write(w, 3, MANY, 100, 180); /* nobody else will ever have these */
    node_crash(w, 0);
    net_heal(w);
    promote(w, 1);
    many_write(w, 7, MANY, 100, 180);
    node_open(w, 0);
    enable(w, 1, 0);
    if (!world_until(w, secondary_streams, 60 * SEC))
        sim_fail(w, "the old primary does not rejoin");
    check_equal(w);
    w->primary = 1;
    struct engine_status st;
    engine_status(w->n[0].e, &st);
    sim_check(w, st.copy_keys > 0 && st.copy_keys < 200, "%llu keys came for 60 that differ",
              (unsigned long long)st.copy_keys);
}

static bool takes_entries(struct world *w)
{
    return node_streams(w, 1) || taken(w) > 20;
}

/* Below the disk reserve nothing is taken, and it goes on from there when there is room. */
static void diff_disk_reserve(struct world *w)
{
    struct engine_status st;
    uint64_t before;

    diff_pair(w);
    node_stop(w, 1);
    many_write(w, 0, MANY, 2, 150);
    forget_log(w);
    w->delay_ns = 5 * MS;
    node_open(w, 1);
    sim_check(w, world_until(w, takes_entries, 30 * SEC) && !node_streams(w, 1),
              "it is over before it began");
    disk_image_free_bytes(w->n[1].image, 1000);
    world_run(w, SEC); /* it is noticed, and what was under way comes in */
    before = taken(w);
    world_run(w, 10 * SEC);
    engine_status(w->n[1].e, &st);
    sim_check(w, st.disk_reserve && st.sync_phase[0] != '\0' && taken(w) == before,
              "it went on below the reserve: %llu keys, then %llu", (unsigned long long)before,
              (unsigned long long)taken(w));
    disk_image_free_bytes(w->n[1].image, (uint64_t)1 << 40);
    check_equal(w);
}

/* One of both is of a program that knows no differences: pages. Or no sums of parts of the tree. */
static void old_program(struct world *w, int i, struct engine_config *cfg)
{
    if (i == (int)(w->seed & 1))
        cfg->link_version = 1 + (w->seed >> 1 & 1);
}

static void diff_old_program(struct world *w)
{
    w->tune = old_program;
    node_stop(w, 0);
    node_stop(w, 1);
    node_open(w, 0);
    node_open(w, 1);
    diff_pair(w);
    node_stop(w, 1);
    many_write(w, 0, MANY, 2, 150);
    forget_log(w);
    node_open(w, 1);
    check_equal(w);
    /* An update in the midst of it. */
    node_stop(w, 1);
    many_write(w, 0, MANY, 3, 150);
    many_write(w, 1, MANY, 90, 0);
    forget_log(w);
    node_open(w, 1);
    for (unsigned k = (unsigned)sim_rand(w, 300); k > 0; k--)
        world_step(w);
    node_stop(w, 1);
    node_stop(w, 0);
    w->tune = NULL;
    node_open(w, 0);
    node_open(w, 1);
    check_equal(w);
}

static void page_4k(struct world *w, int i, struct engine_config *cfg)
{
    (void)w, (void)i;
    cfg->copy_page_bytes = 4u << 10;
}

static struct engine_status *second(struct world *w)
{
    static struct engine_status st;

    engine_status(w->n[1].e, &st);
    return &st;
}

/* A first copy has nothing to fall back to: until it is whole there is no promotion, by force
 * neither, over power cuts; a refused one changes nothing, and the copy comes to its end. */
static void first_copy_refuses(struct world *w)
{
    uint64_t tries = 0;

    w->tune = page_4k;
    pair_again(w);
    many_write(w, 0, MANY, 1, 300);
    w->byte_ns_x1000 = 1000000; /* 1 MB/s */
    enable(w, 0, 1);
    for (int i = 0; i < 6 && second(w)->role == ENGINE_BOOTSTRAPPING; i++, tries++) {
        world_run(w, (int64_t)sim_rand(w, 120) * MS);
        if (sim_rand(w, 3) == 0) {
            node_crash(w, 1);
            node_open(w, 1);
        }
        if (second(w)->role != ENGINE_BOOTSTRAPPING)
            break;
        sim_check(w, !try_promote(w, 1, i % 2 == 1, 60 * SEC), "half a copy was promoted");
        sim_check(w, second(w)->role == ENGINE_BOOTSTRAPPING || second(w)->role == ENGINE_SECONDARY,
                  "a refused promotion left role %d", (int)second(w)->role);
    }
    sim_check(w, tries > 1, "the copy was whole at once: the scenario shows nothing");
    w->byte_ns_x1000 = 1000;
    if (!world_until(w, secondary_streams, 120 * SEC))
        sim_fail(w, "the copy does not end");
    check_equal(w);
    sim_check(w, try_promote(w, 1, false, 60 * SEC), "a whole copy is not promoted");
}

/* What a copy has taken and moved, and since when, is told of the whole of it, over restarts: after
 * an orderly one but for the answer that was under way, after a power cut from its last checkpoint
 * on. */
static void copy_counts(struct world *w)
{
    const uint64_t checkpoint = 64u * (4u << 10), data = (uint64_t)MANY * 1000;
    uint64_t begun = w->diff_bytes;
    int64_t started;

    w->tune = page_4k;
    pair_again(w);
    many_write(w, 0, MANY, 1, 1000);
    w->byte_ns_x1000 = 1000000; /* 1 MB/s */
    enable(w, 0, 1);
    while (second(w)->sync_started_ms == 0)
        sim_check(w, world_step(w), "no copy begins");
    started = second(w)->sync_started_ms;
    for (uint64_t at = 0; at + data / 5 < data; at = second(w)->sync_moved_bytes) {
        bool crash = sim_rand(w, 2) == 0;
        uint64_t moved, keys, slack = (crash ? 2 * checkpoint : 0) + 16384;

        for (uint64_t to = at + data / 5; second(w)->sync_moved_bytes < to;)
            sim_check(w, world_step(w), "the copy does not go on");
        moved = second(w)->sync_moved_bytes;
        keys = second(w)->copy_keys;
        if (crash)
            node_crash(w, 1);
        else
            node_stop(w, 1);
        world_run(w, 5 * SEC);
        node_open(w, 1);
        sim_check(
            w, second(w)->sync_moved_bytes + slack >= moved && second(w)->sync_moved_bytes <= moved,
            "%llu bytes moved, and after a restart %llu", (unsigned long long)moved,
            (unsigned long long)second(w)->sync_moved_bytes);
        sim_check(w, second(w)->copy_keys + slack / 1000 >= keys && second(w)->copy_keys <= keys,
                  "%llu keys taken, and after a restart %llu", (unsigned long long)keys,
                  (unsigned long long)second(w)->copy_keys);
        sim_check(w, second(w)->sync_started_ms == started, "begun at another time");
    }
    if (!world_until(w, secondary_streams, 120 * SEC))
        sim_fail(w, "the copy does not end");
    sim_check(w, second(w)->copy_keys >= MANY, "%llu keys of %u",
              (unsigned long long)second(w)->copy_keys, MANY);
    sim_check(w,
              second(w)->sync_moved_bytes >= data &&
                  second(w)->sync_moved_bytes <= w->diff_bytes - begun,
              "%llu bytes are told of %llu of data, and %llu were moved",
              (unsigned long long)second(w)->sync_moved_bytes, (unsigned long long)data,
              (unsigned long long)(w->diff_bytes - begun));
    w->byte_ns_x1000 = 1000;
    check_equal(w);
}

/* Until node 1 streams: what it tells never goes back within a phase, and halfway through the
 * ranges it knows when they will be through. */
static void watch_progress(struct world *w, bool crash)
{
    char phase[sizeof(second(w)->sync_phase)] = "";
    int64_t half_ns = 0, told_ns = 0, left_ns;
    uint64_t before = 0;

    while (!node_streams(w, 1) || second(w)->sync_phase[0] != '\0') {
        const struct engine_status *st;

        sim_check(w, world_step(w), "the copy does not go on");
        st = second(w);
        if (strcmp(phase, "ranges") == 0 && strcmp(st->sync_phase, phase) != 0) {
            left_ns = w->now_ns - half_ns;
            sim_check(w, half_ns != 0 && llabs(told_ns - left_ns) < left_ns / 3,
                      "halfway it was said to take %lld ms more, it took %lld",
                      (long long)(told_ns / MS), (long long)(left_ns / MS));
        }
        if (strcmp(st->sync_phase, phase) != 0)
            before = 0;
        memcpy(phase, st->sync_phase, sizeof(phase));
        sim_check(w, st->sync_done >= before, "%s: %llu, then %llu", phase,
                  (unsigned long long)before, (unsigned long long)st->sync_done);
        before = st->sync_done;
        sim_check(w, st->sync_total == 0 || before <= st->sync_total, "%s: %llu of %llu", phase,
                  (unsigned long long)before, (unsigned long long)st->sync_total);
        if (strcmp(phase, "ranges") != 0 || before < MANY / 4)
            continue;
        sim_check(w, st->sync_total >= MANY && st->sync_total < MANY + 100, "%llu keys in all",
                  (unsigned long long)st->sync_total);
        if (crash) {
            crash = false;
            before = 0; /* from its last checkpoint on */
            node_crash(w, 1);
            node_open(w, 1);
        } else if (half_ns == 0 && before >= MANY / 2) {
            half_ns = w->now_ns;
            told_ns = st->sync_left_ms * MS;
        }
    }
    sim_check(w, half_ns != 0, "no ranges were seen");
}

/* A first copy, of a primary that has not scrubbed yet, and a difference: how far, and how long
 * yet, in status and in the log. */
static void copy_progress(struct world *w)
{
    int fd = memfd_create("log", MFD_CLOEXEC);
    struct logger *mine = logger_new(fd, LOG_LEVEL_INFO), *was = w->log;
    static char log[1 << 20];

    sim_check(w, fd >= 0 && mine != NULL, "no log");
    w->tune = page_4k;
    w->log = mine;
    pair_again(w);
    many_write(w, 0, MANY, 1, 1000);
    w->byte_ns_x1000 = 10000000; /* 100 kB/s */
    enable(w, 0, 1);
    watch_progress(w, sim_rand(w, 2) == 0);
    w->log = was;
    sim_check(w, pread(fd, log, sizeof(log) - 1, 0) > 0, "nothing is in the log");
    sim_check(w, strstr(log, "catching up, ranges: ") != NULL && strstr(log, " s left") != NULL,
              "the log does not tell how long it takes yet");
    w->byte_ns_x1000 = 1000;
    check_equal(w);
    node_stop(w, 1);
    many_write(w, 0, MANY, 3, 900);
    forget_log(w);
    w->byte_ns_x1000 = 10000000;
    node_open(w, 1);
    watch_progress(w, false);
    w->byte_ns_x1000 = 1000;
    check_equal(w);
    for (int i = 0; i < 2; i++) /* they write to the log until they are closed */
        node_stop(w, i);
    logger_free(mine);
    close(fd);
}

const struct scenario scenarios_diff[] = {
    {"copy_progress", copy_progress, "how far a copy is and how long it takes yet is true", 0},
    {"first_copy_refuses", first_copy_refuses, "half a first copy is promoted by nobody", 0},
    {"copy_counts", copy_counts, "what a copy took is counted over restarts", 0},
    {"diff_bytes", diff_bytes, "a difference moves little more than what differs", 0},
    {"diff_under_load", diff_under_load, "catching up ends while the primary writes", 0},
    {"diff_crash", diff_crash, "a crash or cut while catching up leaves a state that existed", 0},
    {"rejoin_by_difference", rejoin_by_difference,
     "an old primary comes back by what differs, and its own writes go", 0},
    {"diff_disk_reserve", diff_disk_reserve, "below the disk reserve catching up waits", 0},
    {"diff_old_program", diff_old_program, "programs of other age catch up, too", 0},
    {NULL, NULL, NULL, 0},
};
