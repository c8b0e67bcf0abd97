/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim_know.c - scenarios of what status says: lag is true, the log is kept within its bounds.
 * Numbers are those of the design's list of sequences that break a replicated log.
 */
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static struct engine_status *status_of(struct world *w, int i)
{
    static struct engine_status st[SIM_NODES_MAX];

    engine_status(w->n[i].e, &st[i]);
    return &st[i];
}

static bool whole(struct world *w)
{
    const struct engine_status *st = status_of(w, 0);

    return st->n_peers == 1 && st->peers[0].whole && st->peers[0].connected;
}

static void check_stages(struct world *w, const struct engine_peer *p)
{
    for (int s = 0; s < LAG_STAGES; s++) {
        const struct engine_lag_stage *o = &p->stage[s];

        for (int k = 0; k < LAG_WINDOWS; k++)
            sim_check(w,
                      o->window[k].p50 <= o->window[k].p99 && o->window[k].p99 <= o->window[k].max,
                      "percentiles out of order");
        sim_check(w, (o->behind_lsns == 0) == (o->behind_bytes == 0),
                  "%s: %llu LSNs, %llu bytes behind", lag_stage_name(s),
                  (unsigned long long)o->behind_lsns, (unsigned long long)o->behind_bytes);
        sim_check(w, s == 0 || o->lsn <= p->stage[s - 1].lsn, "%s is before %s", lag_stage_name(s),
                  lag_stage_name(s - 1));
    }
}

/* Lag is what a stopwatch beside the primary would show: idle, under load, through a cut, and
 * whatever the secondary's clock says. */
static void lag_truth(struct world *w)
{
    const int64_t rtt_ms = 40;
    const struct engine_peer *p;
    double behind;
    int64_t cut;

    w->n[1].env.wall_offset_ms = ((int64_t)sim_rand(w, 1200) - 600) * 1000;
    w->delay_ns = rtt_ms / 2 * MS;
    write_many(w, 50);
    enable(w, 0, 1);
    sim_check(w, world_until(w, whole, 60 * SEC), "the secondary does not follow");
    world_run(w, 70 * SEC); /* nobody writes: the canary does */
    p = &status_of(w, 0)->peers[0];
    check_stages(w, p);
    sim_check(w, p->stage[LAG_FLUSHED].window[LAG_1M].count >= 50,
              "an idle system is not measured");
    sim_check(w, p->stage[LAG_SENT].window[LAG_1M].max < 5, "sent after %f ms",
              p->stage[LAG_SENT].window[LAG_1M].max);
    for (int s = LAG_RECEIVED; s < LAG_STAGES; s++) {
        const struct engine_lag *l = &p->stage[s].window[LAG_1M];

        sim_check(w, l->p50 > (double)rtt_ms * 0.9 && l->max < (double)rtt_ms * 2.5,
                  "%s: p50 %f, max %f ms on a line of %d ms", lag_stage_name(s), l->p50, l->max,
                  (int)rtt_ms);
    }
    for (int i = 0; i < 2; i++)
        sim_check(w, status_of(w, i)->peers[0].canary_age_ms < 1500, "node %d: canary of %lld ms",
                  i, (long long)status_of(w, i)->peers[0].canary_age_ms);
    p = &status_of(w, 1)->peers[0];
    sim_check(w,
              p->stage[LAG_APPLIED].window[LAG_1M].count >= 50 &&
                  p->stage[LAG_APPLIED].window[LAG_1M].p50 > (double)rtt_ms * 0.9,
              "the secondary does not know its lag");
    w->partitioned = true;
    cut = w->now_ns;
    write_many(w, 20);
    world_run(w, 5 * SEC); /* the link is silent, and nobody has closed it */
    sim_check(w, secondary_streams(w), "the cut is known");
    p = &status_of(w, 1)->peers[0];
    sim_check(w, p->stage[LAG_APPLIED].behind_ms > 3000, "the secondary says %f ms behind",
              p->stage[LAG_APPLIED].behind_ms);
    world_run(w, 15 * SEC);
    behind = (double)(w->now_ns - cut) / 1e6;
    p = &status_of(w, 0)->peers[0];
    check_stages(w, p);
    for (int s = LAG_RECEIVED; s < LAG_STAGES; s++) {
        const struct engine_lag_stage *o = &p->stage[s];

        sim_check(w, o->behind_ms > behind - 1200 && o->behind_ms < behind + 100,
                  "%s: %f ms behind, cut for %f", lag_stage_name(s), o->behind_ms, behind);
        sim_check(w, o->behind_lsns >= 20 && o->behind_bytes >= 20 * 50, "%s: not behind",
                  lag_stage_name(s));
        sim_check(w, o->window[LAG_1M].max > behind - 2500, "%s: the cut is not in the figures",
                  lag_stage_name(s));
    }
    sim_check(w, p->canary_age_ms > (int64_t)behind - 100, "the canary's age stands still");
    p = &status_of(w, 1)->peers[0];
    sim_check(w, p->stage[LAG_APPLIED].behind_ms > behind - 2000,
              "cut off for %f ms, the secondary says %f", behind, p->stage[LAG_APPLIED].behind_ms);
    w->partitioned = false;
    sim_check(w, world_until(w, whole, 60 * SEC), "the secondary does not come back");
    world_run(w, 5 * SEC);
    p = &status_of(w, 0)->peers[0];
    check_stages(w, p);
    for (int s = 0; s < LAG_STAGES; s++)
        sim_check(w, p->stage[s].behind_ms < 1000 && p->stage[s].behind_lsns < 5, "still behind");
    sim_check(w, p->stage[LAG_FLUSHED].window[LAG_1M].max > 19000, "the cut is forgotten");
    world_run(w, 75 * SEC);
    p = &status_of(w, 0)->peers[0];
    sim_check(w, p->stage[LAG_FLUSHED].window[LAG_1M].max < 1000, "a minute does not forget");
    sim_check(w, p->stage[LAG_FLUSHED].window[LAG_5M].max > 19000, "five minutes forget");
    check_equal(w);
}

/* ---- retention ---- */
static bool both_follow(struct world *w)
{
    const struct engine_status *st = status_of(w, 0);

    return st->n_peers == 2 && st->peers[0].whole && st->peers[1].whole;
}

void write_files(struct world *w, unsigned rounds)
{
    w->value_min = 4000;
    for (unsigned i = 0; i < rounds; i++) {
        for (int k = 0; k < 10; k++) {
            write_many(w, 20);
            world_run(w, 20 * MS);
        }
        for (int k = 0; k < (int)w->n_nodes; k++)
            if (w->n[k].e != NULL)
                (void)engine_checkpoint_step(w->n[k].e, true);
        world_run(w, 20 * MS);
    }
    w->value_min = 0;
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "writes are not answered");
}

/* 21: the log is kept for a member that is cut off, not only for those that are connected; through
 * a restart of the primary, and by the secondary that takes over. */
static void retention_cut(struct world *w)
{
    uint64_t copies, cursor, floor;
    const struct engine_status *st;

    write_many(w, 50);
    enable(w, 0, 1);
    enable(w, 0, 2);
    sim_check(w, world_until(w, both_follow, 60 * SEC), "a secondary does not follow");
    write_files(w, 2);
    world_run(w, 3 * SEC);
    sim_check(w, status_of(w, 0)->log_first_lsn > 1, "nothing is ever let go of");
    net_partition(w, 0, 2, true);
    cursor = status_of(w, 2)->durable_lsn;
    write_files(w, 4);
    world_run(w, (int64_t)(5 + sim_rand(w, 60)) * SEC);
    write_files(w, 1);
    sim_check(w, status_of(w, 0)->log_first_lsn <= cursor + 1,
              "the log of a member that is cut off is gone");
    floor = status_of(w, 1)->log_first_lsn;
    sim_check(w, floor <= cursor + 1, "the other secondary did not keep what this one needs");
    switch (sim_rand(w, 3)) {
    case 0: /* the primary restarts before the member is back */
        node_crash(w, 0);
        node_open(w, 0);
        write_files(w, 2);
        sim_check(w, status_of(w, 0)->log_first_lsn <= cursor + 1, "forgotten in a restart");
        break;
    case 1: /* the site is lost; the secondary that takes over restarts */
        node_crash(w, 0);
        promote(w, 1);
        write_files(w, 1);
        if (sim_rand(w, 2) == 0) {
            node_crash(w, 1);
            node_open(w, 1);
        }
        write_files(w, 2);
        st = status_of(w, 1);
        sim_check(w, st->log_first_lsn <= cursor + 1,
                  "promoted at a log that begins at %llu, the other secondary has %llu",
                  (unsigned long long)st->log_first_lsn, (unsigned long long)cursor);
        return;
    default:
        break;
    }
    copies = status_of(w, 0)->copies_begun;
    net_heal(w);
    check_equal(w);
    sim_check(w, status_of(w, 0)->copies_begun == copies, "a copy, though the log was kept");
    write_files(w, 2);
    world_run(w, 5 * SEC);
    write_files(w, 1);
    sim_check(w, status_of(w, 0)->log_first_lsn > cursor, "kept for ever");
    check_equal(w);
}

static uint64_t retain_limit_ms;
static void small_retention(struct world *w, int i, struct engine_config *cfg)
{
    (void)w, (void)i;
    cfg->retain_bytes = retain_limit_ms != 0 ? (uint64_t)64 << 20 : (uint64_t)6 << 20;
    cfg->retain_ms = retain_limit_ms;
}

static void ask(struct world *w, int i, bool demotes)
{
    struct follow_config f = {.cluster_id = "cluster", .member_id = "cluster", .addrs = "1"};
    struct call *c = call_new(w, i);
    struct err err = {0};

    snprintf(f.cluster_addr, sizeof(f.cluster_addr), "%d", i);
    if ((demotes ? demote_ask(w, i, on_call, c, &err)
                 : engine_retarget(w->n[i].e, &f, false, on_call, c, &err)) != 0 ||
        !call_wait(w, c, 60 * SEC))
        sim_fail(w, "node %d: a change of its role: %s", i, err.msg);
}

static bool first_is_fenced(struct world *w)
{
    return status_of(w, 0)->role == ENGINE_FENCED;
}

static bool first_streams(struct world *w)
{
    return node_streams(w, 0);
}

/* 21: a promoted cluster keeps its log for the fallen primary, over a restart too, so that it
 * rejoins by log; but not beyond the limits. */
static void retention_fallen(struct world *w)
{
    bool within = sim_rand(w, 2) == 0;
    uint64_t fork;

    pair(w);
    if (!within) {
        retain_limit_ms = 0;
        w->tune = small_retention;
        node_stop(w, 1);
        node_open(w, 1);
    }
    write_files(w, 2);
    check_equal(w);
    node_crash(w, 0);
    fork = status_of(w, 1)->durable_lsn;
    promote(w, 1);
    write_files(w, 3);
    if (sim_rand(w, 2) == 0) {
        node_crash(w, 1);
        node_open(w, 1);
        world_run(w, 12 * SEC);
    }
    write_files(w, within ? 2 : 30);
    world_run(w, 12 * SEC);
    write_files(w, 2);
    sim_check(w, (status_of(w, 1)->log_first_lsn <= fork) == within,
              "the log begins at %llu, the old primary ends at %llu",
              (unsigned long long)status_of(w, 1)->log_first_lsn, (unsigned long long)fork);
    w->n[0].apart = true;
    node_open(w, 0);
    sim_check(w, world_until(w, first_is_fenced, 10 * SEC), "the old primary is not fenced");
    ask(w, 0, true);
    ask(w, 0, false);
    w->n[0].follows = 1;
    w->n[0].named = true;
    sim_check(w, world_until(w, first_streams, 60 * SEC), "the old primary does not follow");
    w->n[0].apart = false;
    sim_check(w, (status_of(w, 1)->copies_begun == 0) == within, "%llu copies",
              (unsigned long long)status_of(w, 1)->copies_begun);
}

static bool said(int fd, const char *text)
{
    static char log[1 << 20];
    ssize_t n = pread(fd, log, sizeof(log) - 1, 0);

    log[n > 0 ? n : 0] = '\0';
    return strstr(log, text) != NULL;
}

static const struct engine_peer *peer_seen(struct world *w)
{
    return &status_of(w, 0)->peers[0];
}

static bool let_go(struct world *w)
{
    return peer_seen(w)->let_go;
}

/* What is kept for a member is bounded, by bytes or by age: a warning by name at 50 and at 80 %,
 * then it is let go; a restart forgets none of it, the disk is given back, and it comes back by a
 * copy. */
static void retention_limit(struct world *w)
{
    bool by_age = sim_rand(w, 2) == 0, restarted = false;
    int fd = memfd_create("log", MFD_CLOEXEC);
    uint64_t copies, bytes = 0;
    unsigned percent = 0;

    pair(w);
    retain_limit_ms = by_age ? 100000 : 0;
    w->tune = small_retention;
    w->log = logger_new(fd, LOG_LEVEL_WARN);
    pair_again(w);
    sim_check(w, world_until(w, whole, 60 * SEC), "the secondary does not follow");
    world_run(w, 2 * SEC);
    (void)engine_checkpoint_step(w->n[0].e, true); /* and its cursor in the local file */
    world_run(w, SEC);
    node_stop(w, 1);
    for (int i = 0; !let_go(w); i++) {
        sim_check(w, i < 400, "never let go: %u %% of %llu bytes, %llu ms", percent,
                  (unsigned long long)peer_seen(w)->retain_bytes,
                  (unsigned long long)peer_seen(w)->retain_age_ms);
        if (by_age)
            world_run(w, SEC);
        else {
            w->value_min = 4000;
            write_many(w, 30);
            world_run(w, 1500 * MS);
        }
        sim_check(w, let_go(w) || peer_seen(w)->retain_percent + 3 >= percent,
                  "less is used than before");
        if (percent < 50 && peer_seen(w)->retain_percent < 50)
            sim_check(w, !said(fd, "log_retention"), "warned at %u %%", percent);
        percent = peer_seen(w)->retain_percent;
        if (percent >= 55 && !restarted) { /* the cursor and the limits outlive a power cut */
            sim_check(w, said(fd, "log_retention: member-1: 5"), "no warning at 50 %%");
            sim_check(w, !said(fd, "log_retention: member-1: 8"), "warned of 80 %% at %u", percent);
            node_crash(w, 0);
            node_open(w, 0);
            world_run(w, 2 * SEC);
            sim_check(w, peer_seen(w)->retain_percent + 10 >= percent,
                      "%u %% before a restart, %u after it", percent, peer_seen(w)->retain_percent);
            restarted = true;
        }
        if (percent >= 85 && percent < 100)
            sim_check(w, said(fd, "log_retention: member-1: 8"), "no warning at 80 %%");
    }
    w->value_min = 0;
    sim_check(w, restarted && said(fd, "secondary_let_go: member-1"), "let go without a word");
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "writes are not answered");
    write_files(w, 2);
    for (int i = 0; i < 3; i++) {
        write_files(w, 2);
        if (i == 0)
            bytes = status_of(w, 0)->log_bytes;
        sim_check(w, status_of(w, 0)->log_bytes <= bytes + (2u << 20),
                  "the log goes on growing: %llu bytes",
                  (unsigned long long)status_of(w, 0)->log_bytes);
    }
    if (sim_rand(w, 2) == 0) {
        node_crash(w, 0);
        node_open(w, 0);
        world_run(w, SEC);
        sim_check(w, let_go(w), "a restart forgets that it was let go");
    }
    copies = status_of(w, 0)->copies_begun;
    node_open(w, 1);
    check_equal(w);
    sim_check(w, status_of(w, 0)->copies_begun == copies + 1 && !let_go(w),
              "it did not come back by a copy");
    sim_check(w, status_of(w, 1)->n_lost == 0, "what the primary has was saved as lost");
    for (int i = 0; i < 2; i++) /* they write to the logger until they are closed */
        node_stop(w, i);
    logger_free(w->log);
    w->log = NULL;
    close(fd);
}

static bool no_room(struct world *w)
{
    return status_of(w, 1)->disk_reserve;
}

/* 26, as far as it is the engine's: what would fail at a promotion is known on the secondary
 * before: a disk without room, a wrong clock. It is gone from its status once it is mended, and not
 * before. */
static void known_before(struct world *w)
{
    const int64_t off_ms =
        ((int64_t)sim_rand(w, 2) == 0 ? 1 : -1) * (int64_t)(2000 + sim_rand(w, 600000));
    int64_t skew;

    w->delay_ns = (int64_t)sim_rand(w, 30) * MS;
    pair(w);
    world_run(w, 3 * SEC);
    sim_check(w, !no_room(w) && llabs(status_of(w, 1)->peers[0].clock_skew_ms) < 100,
              "trouble is told where there is none");
    sim_check(w, status_of(w, 1)->free_bytes > status_of(w, 1)->reserve_bytes,
              "no free space told");
    w->n[1].env.wall_offset_ms += off_ms;
    disk_image_free_bytes(w->n[1].image, 1000);
    write_many(w, 20);
    world_run(w, 3 * SEC);
    sim_check(w, no_room(w), "the secondary does not know that its disk is full");
    sim_check(w, status_of(w, 1)->free_bytes <= 1000, "%llu bytes are free",
              (unsigned long long)status_of(w, 1)->free_bytes);
    disk_image_free_bytes(w->n[1].image, (uint64_t)1 << 40);
    sim_check(w, world_until(w, whole, 60 * SEC), "it does not go on when there is room");
    world_run(w, 3 * SEC);
    sim_check(w, !no_room(w), "it goes on saying that there is no room");
    for (int i = 0; i < 2; i++) { /* both sides know it, each from its own side */
        skew = status_of(w, i)->peers[0].clock_skew_ms * (i == 0 ? 1 : -1);
        sim_check(w, llabs(skew - off_ms) < 100,
                  "node %d: the clocks differ by %lld ms, it says %lld", i, (long long)off_ms,
                  (long long)skew);
    }
    w->n[1].env.wall_offset_ms -= off_ms;
    world_run(w, 5 * SEC);
    sim_check(w, llabs(status_of(w, 1)->peers[0].clock_skew_ms) < 100, "it keeps the old skew");
    check_equal(w);
}

static bool all_follow(struct world *w)
{
    const struct engine_status *st = status_of(w, 0);
    unsigned n = 0;

    for (size_t i = 0; i < st->n_peers; i++)
        n += st->peers[i].whole && st->peers[i].connected;
    return n == w->n_nodes - 1;
}

/* As many secondaries as there may be, each with its own cursor and its own lag: half of them lag
 * behind, and none holds up another. */
static void sixteen(struct world *w)
{
    const struct engine_status *st;

    write_many(w, 50);
    for (int i = 1; i < (int)w->n_nodes; i++)
        enable(w, 0, i);
    sim_check(w, world_until(w, all_follow, 60 * SEC), "a secondary does not follow");
    for (int i = 2; i < (int)w->n_nodes; i += 2)
        net_partition(w, 0, i, true);
    write_many(w, 100);
    world_run(w, 8 * SEC);
    st = status_of(w, 0);
    sim_check(w, st->n_peers == ENGINE_PEERS_MAX, "%zu secondaries", st->n_peers);
    for (size_t i = 0; i < st->n_peers; i++) {
        const struct engine_peer *p = &st->peers[i];
        bool away = strtol(p->id + strlen("member-"), NULL, 10) % 2 == 0;

        check_stages(w, p);
        sim_check(w, away == (p->stage[LAG_FLUSHED].behind_ms > 5000), "%s: %f ms behind", p->id,
                  p->stage[LAG_FLUSHED].behind_ms);
        sim_check(w, away || p->stage[LAG_APPLIED].window[LAG_1M].count > 0, "%s: not measured",
                  p->id);
    }
    net_heal(w);
    check_equal(w);
}

const struct scenario scenarios_know[] = {
    {"known_before", known_before, "a secondary knows what would fail before it is promoted", 0},
    {"sixteen", sixteen, "as many secondaries as there may be, each with its own lag", 17},
    {"retention_cut", retention_cut, "the log is kept for a member that is cut off", 3},
    {"retention_fallen", retention_fallen, "the log is kept for a fallen primary, too", 0},
    {"retention_limit", retention_limit, "what is kept for a member is bounded, and it is told", 0},
    {"lag_truth", lag_truth, "lag is true when idle, through a cut, and with any clock", 0},
    {NULL, NULL, NULL, 0},
};
