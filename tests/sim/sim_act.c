/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim_act.c - scenarios of what operators do: fail back, promote under wrong clocks. Numbers are
 * those of the design's list of sequences that break a replicated log.
 */
#include "engine_private.h"
#include "link_msg.h"
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct engine_status *status_of(struct world *w, int i)
{
    static struct engine_status st;

    engine_status(w->n[i].e, &st);
    return &st;
}

/* ---- 20 ---- */
struct found {
    struct world *w;
    uint64_t lsn, fork_lsn;
    bool *has; /* by op */
};

static int found_rec(void *arg, const struct rec *r, struct err *err)
{
    struct found *f = arg;
    struct world *w = f->w;

    (void)err;
    if ((r->kind != REC_PUT && r->kind != REC_DELETE) || r->key_len < 2 ||
        memcmp(r->key, "k/", 2) != 0)
        return 0;
    sim_check(w, f->lsn > f->fork_lsn, "LSN %llu is of before the fork",
              (unsigned long long)f->lsn);
    for (uint32_t i = 0; i < w->n_ops; i++) {
        if (w->ops[i].lsn != f->lsn || (w->ops[i].acked && !w->ops[i].lost))
            continue;
        sim_check(w, w->ops[i].deletes == (r->kind == REC_DELETE), "op %u is another there", i);
        if (r->kind == REC_PUT)
            sim_check(w, r->value_len >= 4 && memcmp(r->value, &w->ops[i].id, 4) == 0,
                      "op %u has another value there", i);
        f->has[i] = true;
    }
    return 0;
}

static int found_txn(void *arg, uint64_t lsn, int64_t commit_ms, const uint8_t *data, size_t len,
                     struct err *err)
{
    struct found *f = arg;

    (void)commit_ms;
    f->lsn = lsn;
    return txn_each(data, len, found_rec, f, err);
}

void check_lost_saved(struct world *w, int i)
{
    struct found f = {.w = w, .has = calloc(w->n_ops + 1, sizeof(bool))};
    struct engine_status *st = status_of(w, i);
    struct engine_lost head;
    struct err err;
    unsigned missed = 0, lost = 0;

    for (size_t k = 0; k < st->n_lost; k++) {
        f.fork_lsn = st->lost[k].fork_lsn;
        sim_check(w, st->lost[k].whole, "a part of the log was released before it was saved");
        if (engine_lost_each(w->n[i].e, st->lost[k].id, 0, &head, found_txn, &f, &err) != 0)
            sim_fail(w, "lost writes: %s", err.msg);
    }
    for (uint32_t k = 0; k < w->n_ops; k++) {
        lost += w->ops[k].acked && w->ops[k].lost;
        missed += w->ops[k].acked && w->ops[k].lost && !f.has[k];
    }
    sim_check(w, lost > 0, "nothing was lost: the scenario shows nothing");
    sim_check(w, missed == 0, "%u of %u lost writes are in no file", missed, lost);
    free(f.has);
}

static void small_files(struct world *w, int i, struct engine_config *cfg)
{
    (void)w, (void)i;
    cfg->wal_file_bytes = 32768;
}

/* Node 1 is promoted without what node 0 wrote alone, and node 0 is back; it may have met it. */
static void lose_writes(struct world *w)
{
    w->tune = small_files;
    pair_again(w); /* with small files from the start */
    pair(w);
    w->value_min = 2000;
    net_partition(w, 0, 1, true);
    write_many(w, 30 + (unsigned)sim_rand(w, 60));
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "an async primary waits");
    if (sim_rand(w, 2) == 0)
        node_crash(w, 0);
    else
        node_stop(w, 0);
    promote(w, 1);
    net_heal(w);
    write_many(w, 40);
    world_run(w, (int64_t)sim_rand(w, 2000) * MS);
    node_open(w, 0);
    world_run(w, (int64_t)sim_rand(w, 3000) * MS); /* it may meet the new epoch */
    while (engine_checkpoint_step(w->n[0].e, true) == 0)
        world_step(w);
    world_run(w, 100 * MS);
}

/* Node 0 follows, and has what was lost; also after another power cut. */
static void all_is_saved(struct world *w)
{
    check_equal(w);
    check_lost_saved(w, 0);
    node_crash(w, 0);
    node_open(w, 0);
    check_lost_saved(w, 0);
}

/* 20: what only the old primary has is in a file of it before it follows, whenever it crashes; its
 * log is not released before; and the file holds nothing of the new side. */
static void lost_writes(struct world *w)
{
    lose_writes(w);
    enable(w, 1, 0);
    for (uint64_t k = sim_rand(w, 6); k > 0; k--) {
        for (uint64_t n = sim_rand(w, 600); n > 0; n--)
            world_step(w);
        node_crash(w, 0);
        node_open(w, 0);
    }
    if (!world_until(w, secondary_streams, 120 * SEC))
        sim_fail(w, "the old primary does not rejoin");
    all_is_saved(w);
}

static bool rejoined_or_cut(struct world *w)
{
    return w->n[0].cut || secondary_streams(w);
}

/* 20, with a power cut at any change of its disk: of the file, its name, the note of it, the copy.
 */
static void cut_in_lost_writes(struct world *w)
{
    enum engine_role role;

    lose_writes(w);
    node_cut_in(w, 0, 1 + sim_rand(w, 40));
    enable(w, 1, 0);
    for (uint64_t lives = 1;; lives++) {
        sim_check(w, world_until(w, rejoined_or_cut, 120 * SEC), "the old primary does not rejoin");
        if (!w->n[0].cut)
            break;
        node_crash(w, 0);
        node_cut_in(w, 0, 1 + sim_rand(w, 30 * lives)); /* further each time: it must end */
        node_open(w, 0);
        role = status_of(w, 0)->role;
        if (!w->n[0].cut && role != ENGINE_SECONDARY && role != ENGINE_BOOTSTRAPPING)
            enable(w, 1, 0);
    }
    node_cut_in(w, 0, 0);
    all_is_saved(w);
}

/* ---- 24 ---- */
/* 24: under a secondary's wrong clock, before and after its promotion, commit times never go back,
 * and the skew is told before it. */
static void skewed_promotion(struct world *w)
{
    int64_t skew = (int64_t)sim_rand(w, 1200000) - 600000, before;

    w->n[1].env.wall_offset_ms = skew;
    pair(w);
    write_many(w, 50);
    check_equal(w);
    world_run(w, 3 * SEC);
    sim_check(w, llabs(status_of(w, 1)->peers[0].clock_skew_ms + skew) < 1500,
              "a skew of %lld ms is shown as %lld", (long long)-skew,
              (long long)status_of(w, 1)->peers[0].clock_skew_ms);
    before = status_of(w, 0)->log_end_ms;
    sim_check(w, before > 0, "no commit time");
    node_crash(w, 0);
    promote(w, 1);
    for (int i = 0; i < 20; i++) {
        int64_t now = status_of(w, 1)->log_end_ms;

        sim_check(w, now >= before, "commit time %lld after %lld", (long long)now,
                  (long long)before);
        before = now;
        write_one(w);
        world_run(w, (int64_t)sim_rand(w, 400) * MS);
        if (i == 10)
            w->n[1].env.wall_offset_ms -= 300000;
    }
    check_acked(w, 1);
}

/* ---- 7 ---- */
static bool is_primary(struct world *w, int i)
{
    return w->n[i].e != NULL && !w->n[i].cut && status_of(w, i)->role == ENGINE_PRIMARY;
}

static bool ready(struct world *w)
{
    const struct engine_status *st = status_of(w, 0);

    return st->n_peers == 1 && st->peers[0].ready && st->peers[0].connected;
}

/* One of the two serves, the other follows it. */
static bool settled(struct world *w)
{
    int p = is_primary(w, 0) ? 0 : 1;

    return is_primary(w, p) && !is_primary(w, 1 - p) &&
           strcmp(status_of(w, 1 - p)->state, "stream-wals") == 0 &&
           status_of(w, 1 - p)->epoch == status_of(w, p)->epoch;
}

static void step_alone(struct world *w)
{
    sim_check(w, world_step(w), "nothing will ever happen again");
    sim_check(w, !(is_primary(w, 0) && is_primary(w, 1)), "two primaries at once");
}

static void hand_over(struct world *w, struct outcome *t)
{
    struct err err;

    if (switchover_ask(w, 0, 1, 5000, on_outcome, t, &err) != 0)
        sim_fail(w, "switchover: %s", err.msg);
}

static void begin_switch(struct world *w)
{
    pair(w);
    write_many(w, 50);
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "writes are not answered");
    sim_check(w, world_until(w, ready, 30 * SEC), "the secondary is not ready");
}

static void end_switch(struct world *w, const struct outcome *t)
{
    while (!t->done)
        step_alone(w);
    sim_check(w, t->err.code == ERR_OK, "switchover: %s", t->err.msg);
    w->n[0].follows = 1;
    w->n[1].follows = -1;
    w->primary = 1;
    sim_check(w, world_until(w, settled, 30 * SEC), "the old primary does not follow");
}

/* All goes well: nothing that was acknowledged is lost, and the pause is short. */
static void switchover(struct world *w)
{
    struct outcome t = {0};
    int64_t begin;

    begin_switch(w);
    w->delay_ns = (int64_t)sim_rand(w, 30) * MS + 1000;
    write_many(w, 60); /* in flight */
    begin = w->now_ns;
    hand_over(w, &t);
    while (!is_primary(w, 1))
        step_alone(w);
    sim_check(w, w->now_ns - begin < 2 * SEC, "nobody served for %lld ms",
              (long long)((w->now_ns - begin) / MS));
    end_switch(w, &t);
    check_acked(w, 1);
    write_many(w, 50);
    check_equal(w);
    sim_check(w, status_of(w, 0)->n_lost == 0, "a switchover lost writes");
}

/* Nothing was written for a while, so the last ack covers all: but it is no sign of life. */
static void switchover_silent(struct world *w)
{
    struct outcome t = {0};

    begin_switch(w);
    world_run(w, 2 * SEC + (int64_t)sim_rand(w, 1000) * MS);
    w->n[1].still_until_ns = w->now_ns + 20 * SEC;
    hand_over(w, &t);
    while (!t.done)
        step_alone(w);
    sim_check(w, t.err.code == ERR_TIMEOUT, "handed over to one that says nothing: %s", t.err.msg);
    sim_check(w, is_primary(w, 0), "no primary is left");
    write_many(w, 20);
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "it does not go on");
    world_run(w, 20 * SEC);
    check_equal(w);
}

static bool no_commit_to_1(struct world *w, int from, int to, unsigned type)
{
    (void)w, (void)from;
    return to != 1 || type != MSG_COMMIT;
}

/* It is alive, and far behind: in what it has received, or in what it has applied. Until it has all
 * the primary serves, and at the limit it goes on; nobody waits for a backlog without a primary. */
static void switchover_drains(struct world *w)
{
    struct outcome t = {0}, again = {0};

    begin_switch(w);
    if (sim_rand(w, 2) == 0) {
        w->line[0][1].byte_ns_x1000 = 20000000; /* 50 kB/s */
        w->value_min = 4000;
    } else
        w->passes = no_commit_to_1; /* and has nothing to apply */
    write_many(w, 120);
    w->value_min = 0;
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "an async primary waits");
    hand_over(w, &t);
    while (!t.done) {
        step_alone(w);
        sim_check(w, is_primary(w, 0), "nobody serves, and node 1 lacks something");
    }
    sim_check(w, t.err.code == ERR_TIMEOUT, "handed over to one that is behind: %s", t.err.msg);
    write_many(w, 20);
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "it does not go on");
    w->line[0][1].byte_ns_x1000 = 0;
    w->passes = NULL;
    check_equal(w);
    hand_over(w, &again);
    end_switch(w, &again);
    check_equal(w);
}

/* 7: the link is cut, or a site loses power, at any step of it: never are there two primaries, and
 * when all is well again there is one, with all that was acknowledged. */
static void switchover_cut(struct world *w)
{
    struct outcome t = {0};
    static const char *const words[] = {"draining", "handing", "handed_over"};
    const char *word = words[sim_rand(w, 3)];
    uint64_t more = sim_rand(w, 2) == 0 ? sim_rand(w, 4) : sim_rand(w, 60);

    begin_switch(w);
    w->delay_ns = (int64_t)sim_rand(w, 5) * MS + 1000;
    write_many(w, (unsigned)sim_rand(w, 30));
    int fault = (int)sim_rand(w, 8);

    if (fault >= 5) /* at any change of a disk: of the note, the record, the role */
        node_cut_in(w, fault == 7, 1 + sim_rand(w, 24));
    hand_over(w, &t);
    while (fault < 5 && strcmp(status_of(w, 0)->handover, word) != 0 && !t.done)
        step_alone(w);
    for (; fault < 5 && more > 0 && !settled(w); more--)
        step_alone(w);
    for (int64_t end = w->now_ns + 5 * SEC; fault >= 5 && !w->n[fault == 7].cut && w->now_ns < end;)
        step_alone(w);
    switch (fault) {
    case 0:
        net_partition(w, 0, 1, true);
        break;
    case 1:
        w->line[0][1].down = true; /* only what the primary says is lost */
        break;
    case 2:
        w->line[1][0].down = true;
        break;
    case 4:
    case 7:
        node_cut_in(w, 1, 0);
        node_crash(w, 1);
        break;
    default:
        node_cut_in(w, 0, 0);
        node_crash(w, 0);
        break;
    }
    for (int64_t end = w->now_ns + (int64_t)sim_rand(w, 20000) * MS; w->now_ns < end;)
        step_alone(w);
    for (int i = 0; i < 2; i++) {
        if (w->n[i].e == NULL)
            node_open(w, i);
    }
    net_heal(w);
    for (int64_t end = w->now_ns + 120 * SEC; !settled(w) && w->now_ns < end;)
        step_alone(w);
    sim_check(w, settled(w), "there is no primary that the other follows: %s and %s",
              status_of(w, 0)->state, status_of(w, 1)->handover);
    w->primary = is_primary(w, 0) ? 0 : 1;
    w->n[w->primary].follows = -1;
    w->n[1 - w->primary].follows = w->primary;
    check_acked(w, w->primary);
    write_many(w, 30);
    check_equal(w);
}

/* Past the point of no return the other loses its power. */
static void hand_to_the_dead(struct world *w, struct outcome *t)
{
    begin_switch(w);
    hand_over(w, t);
    while (strcmp(status_of(w, 0)->handover, "handed_over") != 0)
        step_alone(w);
    node_crash(w, 1);
}

static void force(struct world *w)
{
    struct outcome forced = {0};
    struct err err;

    if (promote_ask(w, 0, true, on_outcome, &forced, &err) != 0)
        sim_fail(w, "promote: %s", err.msg);
    while (!forced.done)
        step_alone(w);
    sim_check(w, forced.err.code == ERR_OK, "force: %s", forced.err.msg);
    check_acked(w, 0);
    write_many(w, 20);
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "it does not serve");
}

/* The other is lost for good: only force brings the old one back. */
static void switchover_forced(struct world *w)
{
    struct outcome t = {0}, plain = {0};
    struct err err;

    hand_to_the_dead(w, &t);
    if (sim_rand(w, 2) == 0) {
        node_crash(w, 0);
        node_open(w, 0);
        t.done = true; /* its process is gone */
    }
    for (int64_t end = w->now_ns + 40 * SEC; w->now_ns < end;)
        step_alone(w);
    sim_check(w, t.done && t.err.code != ERR_TIMEOUT, "it says that it went back");
    sim_check(w, !is_primary(w, 0), "it serves by itself after the handover");
    if (promote_ask(w, 0, false, on_outcome, &plain, &err) != 0)
        sim_fail(w, "promote: %s", err.msg);
    while (!plain.done)
        step_alone(w);
    sim_check(w, plain.err.code == ERR_DENIED, "promoted without force");
    force(w);
}

/* 7: the other one comes back after an operator forced the old one: the handover that it reads then
 * is over. The line is slow, so that the record and the newer epoch come one after the other. */
static void handover_replayed(struct world *w)
{
    struct outcome t = {0};

    hand_to_the_dead(w, &t);
    while (!t.done)
        step_alone(w);
    force(w);
    w->line[0][1].byte_ns_x1000 = 10000000;
    node_open(w, 1);
    for (int64_t end = w->now_ns + 20 * SEC; w->now_ns < end;)
        step_alone(w);
    w->line[0][1].byte_ns_x1000 = 0;
    check_equal(w);
    sim_check(w, is_primary(w, 0), "the forced one does not serve any more");
    check_acked(w, 0);
}

static bool other_streams(struct world *w)
{
    return node_streams(w, 1);
}

/* 7: the other one is lost, and the operator promotes a third instead. When both follow that one,
 * the old primary by way of the other, it is not told that it has handed over. */
static void handed_past(struct world *w)
{
    struct outcome t = {0};

    write_many(w, 50);
    for (int i = 1; i < 3; i++)
        enable(w, 0, i);
    sim_check(w, world_until(w, secondary_streams, 60 * SEC), "no stream");
    world_run(w, 2 * SEC); /* node 1 has said that it can take over */
    hand_over(w, &t);
    while (strcmp(status_of(w, 0)->handover, "handed_over") != 0)
        step_alone(w);
    node_crash(w, 1);
    promote(w, 2);
    net_partition(w, 0, 1, true);
    node_open(w, 1);
    sim_check(
        w, try_retarget(w, 1, 2, true, false, 5 * SEC) && world_until(w, other_streams, 10 * SEC),
        "node 1 does not follow the chosen one");
    net_heal(w);
    while (!t.done)
        step_alone(w);
    sim_check(w, t.err.code != ERR_OK && strstr(t.err.msg, "instead") != NULL,
              "it is told of the handover: %s", t.err.code == ERR_OK ? "done" : t.err.msg);
    w->n[0].follows = 1;
    check_equal(w);
}

const struct scenario scenarios_act[] = {
    {"switchover", switchover, "a switchover loses nothing and pauses shortly", 0},
    {"switchover_silent", switchover_silent, "to one that says nothing it hands nothing over", 0},
    {"switchover_drains", switchover_drains, "to one that is behind it hands nothing over", 0},
    {"switchover_cut", switchover_cut, "cut anywhere, a switchover never makes two primaries", 0},
    {"switchover_forced", switchover_forced, "after the handover only force makes it serve", 0},
    {"handover_replayed", handover_replayed, "a handover that force ended is over", 0},
    {"handed_past", handed_past, "a handover that another promotion overtook is not done", 3},
    {"lost_writes", lost_writes, "what only the old primary has is saved before it follows", 0},
    {"cut_in_lost_writes", cut_in_lost_writes,
     "a power cut while they are saved leaves them in the log or in the file", 0},
    {"skewed_promotion", skewed_promotion, "commit times never go back, and the skew is told", 0},
    {NULL, NULL, NULL, 0},
};
