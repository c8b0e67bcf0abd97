/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim_fed.c - scenarios of log that a secondary keeps: for others that may follow it once it is
 * promoted, and for those that follow it now.
 */
#include "engine_private.h"
#include "lag_private.h"
#include "link_msg.h"
#include "sim.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define OWN_BYTES ((uint64_t)24 << 20)

static struct engine_status *status_of(struct world *w, int i)
{
    static struct engine_status st[SIM_NODES_MAX];

    engine_status(w->n[i].e, &st[i]);
    return &st[i];
}

static const struct engine_peer *peer_of(struct world *w, const char *id)
{
    const struct engine_status *st = status_of(w, 0);

    for (size_t i = 0; i < st->n_peers; i++)
        if (strcmp(st->peers[i].id, id) == 0)
            return &st->peers[i];
    sim_fail(w, "the primary does not know %s", id);
    return NULL;
}

static uint64_t wal_behind(struct world *w, int i, uint64_t lsn)
{
    return wal_bytes_after(w->n[i].e->cur->wal, lsn);
}

/* Each node keeps little of the log, as configured. */
static void keep_little(struct world *w, int i, struct engine_config *cfg)
{
    (void)w, (void)i;
    cfg->retain_bytes = (uint64_t)3 << 20;
}

/* Node 0 is followed by all others, which keep little from here on. */
static void begin(struct world *w)
{
    w->tune = keep_little;
    node_stop(w, 0);
    node_open(w, 0);
    for (int i = 1; i < (int)w->n_nodes; i++) {
        node_stop(w, i);
        node_open(w, i);
    }
    write_many(w, 50);
    for (int i = 1; i < (int)w->n_nodes; i++)
        enable(w, 0, i);
    check_equal(w);
    write_files(w, 2);
    world_run(w, 3 * SEC);
}

/* A limit of its own, in its row. */
static void set_limit(struct world *w, int i, uint64_t bytes)
{
    struct member m = {.retain_bytes = bytes};
    struct buf b = {0};
    struct err err = {0};
    char key[128];

    snprintf(m.id, sizeof(m.id), "member-%d", i);
    snprintf(m.cluster_addr, sizeof(m.cluster_addr), "%d", i);
    memcpy(m.key_hash, w->n[i].key_hash, 32);
    snprintf(key, sizeof(key), ENGINE_KEY_MEMBERS "%s", m.id);
    sim_check(w, member_encode(&m, &b, &err) == 0 && put_row(w, 0, key, &b, 60 * SEC), "a row");
    buf_free(&b);
    w->retain_most = bytes;
}

/* A member's own limit, larger than what is configured, counts at each node: what it needs is still
 * there after a promotion. */
static void retention_raised(struct world *w)
{
    uint64_t cursor, first;

    begin(w);
    set_limit(w, 2, OWN_BYTES);
    world_run(w, 2 * SEC);
    net_partition(w, 0, 2, true);
    cursor = status_of(w, 2)->durable_lsn;
    write_files(w, 8);
    world_run(w, 12 * SEC);
    write_files(w, 1);
    sim_check(w, wal_behind(w, 0, cursor) > (uint64_t)4 << 20, "little was written");
    first = status_of(w, 0)->log_first_lsn;
    sim_check(w, first <= cursor + 1, "the primary let it go within its own limit");
    first = status_of(w, 1)->log_first_lsn;
    sim_check(w, first <= cursor + 1, "the log here begins at %llu, the other has %llu",
              (unsigned long long)first, (unsigned long long)cursor);
    node_crash(w, 0);
    promote(w, 1);
    write_files(w, 2);
    first = status_of(w, 1)->log_first_lsn;
    sim_check(w, first <= cursor + 1, "promoted at a log that begins at %llu, the other has %llu",
              (unsigned long long)first, (unsigned long long)cursor);
}

static void feed(struct world *w, int i, int by)
{
    struct follow_config f = {.cluster_id = "cluster"};
    struct call *c = call_new(w, i);
    struct err err = {0};

    snprintf(f.member_id, sizeof(f.member_id), "member-%d", i);
    snprintf(f.addrs, sizeof(f.addrs), "%d", by);
    snprintf(f.cluster_addr, sizeof(f.cluster_addr), "%d", i);
    if (engine_retarget(w->n[i].e, &f, false, on_call, c, &err) != 0 || !call_wait(w, c, 60 * SEC))
        sim_fail(w, "node %d: a change of its primary: %s", i, err.msg);
    w->n[i].follows = by;
}

static bool second_is_fed(struct world *w)
{
    return strcmp(peer_of(w, "member-2")->fed_by, "member-1") == 0;
}

static bool second_is_not(struct world *w)
{
    return peer_of(w, "member-2")->fed_by[0] == '\0';
}

static bool second_connected(struct world *w)
{
    return peer_of(w, "member-2")->connected;
}

/* To the primary a member that another one feeds is not away: it is not let go, its lag is told,
 * and an answer that waits for every secondary does not wait for it. Through another one in
 * between, too. All this ends with the connection that said so. */
static void fed_is_not_away(struct world *w)
{
    bool chain = sim_rand(w, 2) == 0;
    const struct engine_peer *p;

    begin(w);
    feed(w, 2, chain ? 3 : 1);
    if (chain) {
        feed(w, 3, 1);
        net_partition(w, 0, 3, true);
    }
    net_partition(w, 0, 2, true);
    sim_check(w, world_until(w, second_is_fed, 30 * SEC), "the primary does not hear of it");
    for (int i = 0; i < 3; i++) {
        write_files(w, 3);
        world_run(w, 3 * SEC);
        p = peer_of(w, "member-2");
        sim_check(w, !p->connected && !p->let_go && p->retain_percent < 50,
                  "%u %% of its log is used", p->retain_percent);
        sim_check(w, p->stage[LAG_FLUSHED].behind_ms < 2500, "%.0f ms behind",
                  p->stage[LAG_FLUSHED].behind_ms);
        sim_check(w, p->durable_lsn + 10 >= status_of(w, 2)->durable_lsn, "durable at %llu",
                  (unsigned long long)p->durable_lsn);
    }
    w->wait = (struct engine_wait){.level = chain ? REPL_FLUSH : REPL_APPLY, .limit_ms = 2000};
    write_many(w, 20);
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "writes are not answered");
    for (uint32_t i = w->n_ops - 20; i < w->n_ops; i++)
        sim_check(w, w->ops[i].acked && w->ops[i].lsn != 0, "it was waited for");
    w->wait = (struct engine_wait){0};
    if (sim_rand(w, 2) == 0) { /* it comes back by the log that was kept */
        uint64_t copies = status_of(w, 0)->copies_begun;

        net_heal(w);
        feed(w, 2, 0);
        sim_check(w, world_until(w, second_connected, 30 * SEC) && second_is_not(w),
                  "it does not follow");
        check_equal(w);
        sim_check(w, status_of(w, 0)->copies_begun == copies, "a copy");
        sim_check(w, chain || status_of(w, 1)->n_fed == 0, "who left is still kept log for");
        return;
    }
    node_crash(w, 1);
    sim_check(w, world_until(w, second_is_not, 30 * SEC), "said by one that is away");
}

static void fresh(struct world *w, const struct engine_peer *p, int64_t limit_ms, const char *what)
{
    sim_check(w, p->canary_age_ms < limit_ms, "%s: a canary of %lld ms", what,
              (long long)p->canary_age_ms);
    for (int s = LAG_FLUSHED; s < LAG_STAGES; s++)
        sim_check(w, p->stage[s].behind_ms < (double)limit_ms, "%s: %s: %.0f ms behind", what,
                  lag_stage_name(s), p->stage[s].behind_ms);
}

/* The line to its new feeder is slow until it has said hello. */
static bool hello_waits(struct world *w, int from, int to, unsigned type)
{
    if (from == 2 && to == 1)
        w->line[2][1].delay_ns = type == MSG_HELLO ? 1500 * MS : 0;
    return true;
}

/* What is told of one that another one feeds is true while nobody writes, at the primary and there,
 * whatever the clocks of the secondaries say; and it grows when nothing comes any more. */
static void fed_lag_truth(struct world *w)
{
    const int64_t cut_ms = 20000;

    begin(w);
    for (int i = 1; i <= 3; i++)
        w->n[i].env.wall_offset_ms = ((int64_t)sim_rand(w, 1200) - 600) * 1000;
    world_run(w, 15 * SEC);
    w->passes = hello_waits;
    feed(w, 2, 1);
    for (int i = 0; i < 80; i++) { /* from the first word of its new feeder on */
        const struct engine_peer *p;

        world_run(w, 50 * MS);
        p = &status_of(w, 2)->peers[0];
        sim_check(w, p->stage[LAG_FLUSHED].behind_ms < 4000, "%.0f ms behind, just fed",
                  p->stage[LAG_FLUSHED].behind_ms);
    }
    feed(w, 3, 2);
    for (int i = 0; i < 2; i++) {
        sim_check(w, world_until(w, second_is_fed, 30 * SEC), "the primary does not hear of it");
        for (int k = 0; k < 30; k++) {
            world_run(w, (int64_t)sim_rand(w, 3000) * MS);
            if (k < 5)
                continue; /* until each has heard, and pinged */
            fresh(w, &status_of(w, 1)->peers[0], 1500, "node 1");
            fresh(w, &status_of(w, 2)->peers[0], 1500, "node 2");
            fresh(w, &status_of(w, 3)->peers[0], 1500, "node 3");
            fresh(w, peer_of(w, "member-1"), 1500, "node 1, at the primary");
            fresh(w, peer_of(w, "member-2"), 3000, "node 2, at the primary");
            fresh(w, peer_of(w, "member-3"), 4000, "node 3, at the primary");
        }
        if (i == 1)
            break;
        net_partition(w, 1, 2, true);
        world_run(w, cut_ms * MS);
        for (int k = 2; k <= 3; k++)
            sim_check(w,
                      status_of(w, k)->peers[0].canary_age_ms > cut_ms - 2000 &&
                          status_of(w, k)->peers[0].stage[LAG_APPLIED].behind_ms >
                              (double)cut_ms - 3000,
                      "node %d: nothing came for %d ms, and it says %lld", k, (int)cut_ms,
                      (long long)status_of(w, k)->peers[0].canary_age_ms);
        sim_check(w, peer_of(w, "member-2")->canary_age_ms > cut_ms - 4000,
                  "the primary says %lld ms", (long long)peer_of(w, "member-2")->canary_age_ms);
        net_heal(w);
        sim_check(w, world_until(w, secondary_streams, 60 * SEC), "no stream");
    }
}

static bool first_follows(struct world *w)
{
    return node_streams(w, 1);
}

/* For how long node 2 lacks what a feeder has from before its own start is told by the primary's
 * clock, of which the times in the log are, whatever the feeder's own says. */
static void fed_age_truth(struct world *w)
{
    int64_t wrong_ms = (600 + (int64_t)sim_rand(w, 600)) * 1000, since, age, begin_ns;
    uint64_t lsn;

    begin(w);
    feed(w, 2, 1);
    world_run(w, 5 * SEC);
    lsn = status_of(w, 2)->durable_lsn;
    node_stop(w, 2);
    w->n[2].follows = -1;
    begin_ns = w->now_ns;
    write_many(w, 20);
    world_run(w, (5 + (int64_t)sim_rand(w, 20)) * SEC);
    w->n[1].env.wall_offset_ms = sim_rand(w, 2) == 0 ? wrong_ms : -wrong_ms;
    node_stop(w, 1);
    node_open(w, 1);
    for (int i = 0; i < 2000; i++) { /* from its first step on */
        world_step(w);
        since = lag_since_ns(w->n[1].e, lsn);
        age = since == 0 ? 0 : env_mono_ns(&w->n[1].env.env) - since;
        sim_check(w, age <= w->now_ns - begin_ns + 2 * SEC, "%lld s old, after %lld s",
                  (long long)(age / SEC), (long long)((w->now_ns - begin_ns) / SEC));
    }
    sim_check(w, world_until(w, first_follows, 30 * SEC), "it does not follow again");
    world_run(w, 3 * SEC);
    since = lag_since_ns(w->n[1].e, lsn);
    age = since == 0 ? 0 : env_mono_ns(&w->n[1].env.env) - since;
    sim_check(w, age >= w->now_ns - begin_ns - 2 * SEC, "%lld s old, after %lld s",
              (long long)(age / SEC), (long long)((w->now_ns - begin_ns) / SEC));
}

static bool said(int fd, const char *text)
{
    static char log[1 << 20];
    ssize_t n = pread(fd, log, sizeof(log) - 1, 0);

    log[n > 0 ? n : 0] = '\0';
    return strstr(log, text) != NULL;
}

static bool feeds_again(struct world *w)
{
    const struct engine_status *st = status_of(w, 1);

    return st->n_fed == 1 && st->fed[0].connected && node_streams(w, 1) && second_is_fed(w);
}

/* A secondary that feeds one that falls behind warns, lets that one go at its limit, and keeps what
 * another member needs, which is nearer. */
static void fed_falls_behind(struct world *w)
{
    int fd = memfd_create("log", MFD_CLOEXEC);
    struct logger *mine = logger_new(fd, LOG_LEVEL_WARN), *was = w->log;
    uint64_t cursor, first, far;

    begin(w);
    feed(w, 2, 1);
    net_partition(w, 0, 2, true);
    sim_check(w, world_until(w, second_is_fed, 30 * SEC), "the primary does not hear of it");
    w->log = mine;
    node_stop(w, 1);
    node_open(w, 1);
    w->log = was;
    sim_check(w, world_until(w, feeds_again, 30 * SEC), "it does not follow again");
    far = status_of(w, 2)->durable_lsn;
    node_stop(w, 2);
    write_files(w, 2);
    net_partition(w, 0, 3, true); /* away, and needs less */
    cursor = status_of(w, 3)->durable_lsn;
    for (int i = 0; status_of(w, 1)->n_fed == 1 && !status_of(w, 1)->fed[0].let_go; i++) {
        sim_check(w, i < 12, "never let go: %u %%", status_of(w, 1)->fed[0].retain_percent);
        w->value_min = 4000;
        write_many(w, 40);
        world_run(w, 1500 * MS);
        (void)engine_checkpoint_step(w->n[1].e, true);
        first = status_of(w, 1)->log_first_lsn;
        sim_check(w, first <= cursor + 1 || wal_behind(w, 0, cursor) > (uint64_t)3 << 20,
                  "dropped with what is farther away: the log begins at %llu, %llu is needed",
                  (unsigned long long)first, (unsigned long long)cursor);
    }
    w->value_min = 0;
    sim_check(w, status_of(w, 1)->n_fed == 1, "who is fed is not known");
    sim_check(w, said(fd, "log_retention: member-2: ") && said(fd, "secondary_let_go: member-2"),
              "let go without a word");
    write_files(w, 3);
    world_run(w, 3 * SEC);
    write_files(w, 2);
    sim_check(w, status_of(w, 1)->log_first_lsn > far + 1, "kept for ever");
    net_heal(w);
    node_open(w, 2);
    check_equal(w);
    node_stop(w, 1); /* it writes to the logger until it is closed */
    logger_free(mine);
    close(fd);
}

const struct scenario scenarios_fed[] = {
    {"retention_raised", retention_raised, "a member's own limit outlives a promotion", 3},
    {"fed_is_not_away", fed_is_not_away, "a member that another one feeds is not away", 4},
    {"fed_lag_truth", fed_lag_truth, "lag of one that another one feeds is true", 4},
    {"fed_age_truth", fed_age_truth, "and for how long, whatever the feeder's clock says", 4},
    {"fed_falls_behind", fed_falls_behind, "who feeds others keeps their log within limits", 4},
    {NULL, NULL, NULL, 0},
};
