/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim_storm.c - everything at once, as the seed has it: two to five clusters, faults of every kind,
 * and an operator who promotes, demotes, switches over, copies, rejoins, makes cascades, revokes,
 * brings old images back and sets modes meanwhile. What must hold is in sim_watch.c; at the end all
 * faults stop, and all must come together.
 */
#include "sim_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROUNDS_MIN 12u
#define ROUNDS 36u
#define ANSWER_NS (30 * SEC)

/* ---- the operator ---- */
static void bring_up(struct world *w, int i, bool calm)
{
    struct node *n = &w->n[i];
    struct err err;
    int rc;

    if (n->e != NULL)
        return;
    if (!calm && chance(w, 15)) {
        uint64_t changes = 1 + sim_rand(w, 30);

        node_crash_in(w, i, changes);
        n->cut_as = F_CRASH_OPEN;
        note(w, i, "will lose its power in %llu changes of the disk", (unsigned long long)changes);
    } else if (!calm && chance(w, 15))
        storm_disk_fails(w, i, 25); /* in recovery, most likely */
    rc = node_try_open(w, i, &err);
    if (rc == 0)
        node_crash_in(w, i, 0);
    if (rc >= 0)
        return;
    if (n->fails && !n->damaged) { /* its disk refused something: next time it does not */
        n->fails = false;
        disk_image_mend(n->image);
        return;
    }
    sim_check(w, n->damaged, "node %d does not open: %s", i, err.msg);
    node_replace(w, i); /* damaged, and found out */
    sim_check(w, node_try_open(w, i, &err) == 0, "node %d: a new machine does not open: %s", i,
              err.msg);
    note(w, i, "new machine");
}

static bool primary_up(const struct world *w)
{
    return node_up(w, w->primary) && w->n[w->primary].role == ENGINE_PRIMARY;
}

/* One that was revoked only when there is no other. */
static int candidate(struct world *w)
{
    int first = any_node(w);

    for (int k = 0; k < 2 * (int)w->n_nodes; k++) {
        int i = (first + k) % (int)w->n_nodes;

        if (node_up(w, i) && !w->n[i].damaged && w->n[i].role == ENGINE_SECONDARY &&
            w->n[i].e->promotable && (!w->n[i].revoked || k >= (int)w->n_nodes))
            return i;
    }
    return -1;
}

static void take_over(struct world *w)
{
    int i = candidate(w);
    bool forced;

    if (i < 0)
        return;
    forced = chance(w, 70);
    fault(w, F_PROMOTE, i, "of node %d, which is %s%s", w->primary, primary_up(w) ? "up" : "down",
          forced ? ", by force" : "");
    if (!try_promote(w, i, forced, ANSWER_NS)) {
        /* It may have become one all the same. */
        if (w->n[i].role != ENGINE_PRIMARY)
            return;
        w->n[i].follows = -1;
        if (!node_up(w, i)) /* and fallen: what it has is seen when it is up */
            bring_up(w, i, true);
    }
    w->primary = i;
    if (node_up(w, i))
        mark_lost(w, i);
}

static void join(struct world *w)
{
    int i = any_node(w);
    struct node *n = &w->n[i];

    if (i == w->primary || !node_up(w, i) || !primary_up(w) ||
        (n->follows == w->primary && n->role != ENGINE_FENCED && n->e->reason[0] == '\0' &&
         !chance(w, 5)))
        return;
    fault(w, n->role == ENGINE_PRIMARY ? F_REJOIN : F_COPY, i, "of node %d", w->primary);
    if (!op_admit(w, w->primary, i))
        note(w, i, "did not join within the time");
    else if (chance(w, 35))
        op_leave_copy(w, i);
}

static void set_mode(struct world *w)
{
    static const char *const levels[] = {"async", "flush", "apply"};
    int s = any_node(w);
    /* Few are set when the secondary is ready for one: most of them promise something. */
    struct repl_mode m = {.level = (enum repl_level)(chance(w, 85) ? 1 + sim_rand(w, 2) : 0),
                          .on_limit = chance(w, 80) ? REPL_STRICT : REPL_FALLBACK,
                          .wait_ms = 200 + (uint32_t)sim_rand(w, 4000),
                          .k = 1,
                          .n = 1};
    struct call *c;
    struct err err;
    bool force = chance(w, 40);

    if (s == w->primary || !primary_up(w) || w->n[s].follows != w->primary)
        return;
    snprintf(m.name[0], sizeof(m.name[0]), "member-%d", s);
    c = call_new(w, w->primary);
    if (mode_ask(w, w->primary, m.name[0], &m, force, on_call, c, &err) != 0)
        return;
    fault(w, F_MODE, s, "%s, %s%s", levels[m.level], repl_on_limit_name(m.on_limit),
          force ? ", by force" : "");
    if (chance(w, 60))
        (void)call_wait(w, c, some_ms(w, 4000));
}

static void set_quorum(struct world *w)
{
    struct repl_mode m = {.level = REPL_FLUSH,
                          .on_limit = chance(w, 70) ? REPL_STRICT : REPL_FALLBACK,
                          .wait_ms = 200 + (uint32_t)sim_rand(w, 4000)};
    struct call *c;
    struct err err;

    if (!primary_up(w))
        return;
    for (int s = 0; s < (int)w->n_nodes; s++) {
        if (s != w->primary && w->n[s].follows == w->primary && chance(w, 80))
            snprintf(m.name[m.n++], sizeof(m.name[0]), "member-%d", s);
    }
    m.k = m.n > 0 ? 1 + (uint32_t)sim_rand(w, m.n) : 0;
    c = call_new(w, w->primary);
    if (mode_ask(w, w->primary, NULL, &m, chance(w, 40), on_call, c, &err) != 0)
        return;
    fault(w, F_MODE, w->primary, "quorum: %u of %u, %s", m.k, m.n, repl_on_limit_name(m.on_limit));
    if (chance(w, 60))
        (void)call_wait(w, c, some_ms(w, 4000));
}

/* sys/seal of one that runs, of whatever role, and its shares again. What it had accepted goes on;
 * a sealed primary takes nothing new (write_to), a sealed secondary goes on receiving. */
static void seal_or_unseal(struct world *w)
{
    int i = any_node(w);

    if (!node_up(w, i))
        return;
    if (w->n[i].sealed) {
        node_unseal(w, i);
        return;
    }
    fault(w, F_SEALS, i, "as role %d", w->n[i].role);
    node_seal(w, i);
}

static void operate(struct world *w)
{
    for (int i = 0; i < (int)w->n_nodes; i++) {
        if (w->n[i].e == NULL && chance(w, 50))
            bring_up(w, i, false);
    }
    op_look(w);
    if (chance(w, primary_up(w) ? 4 : 50))
        take_over(w);
    if (chance(w, 12))
        op_switchover(w);
    if (chance(w, 3))
        op_demote(w);
    if (chance(w, 25))
        op_update(w);
    if (chance(w, 8))
        op_cascade(w);
    for (uint64_t k = sim_rand(w, 4); k > 0; k--)
        op_snapshot(w);
    if (chance(w, 6))
        op_seed(w);
    if (chance(w, 6))
        op_revoke(w);
    if (chance(w, 25))
        op_restate(w);
    if (chance(w, 6))
        op_leave(w);
    if (chance(w, 15))
        op_image(w);
    if (chance(w, 15))
        op_older(w);
    if (chance(w, 30))
        join(w);
    for (uint64_t k = sim_rand(w, 3); k > 0; k--)
        set_mode(w);
    if (chance(w, 8))
        set_quorum(w);
    if (chance(w, 25))
        seal_or_unseal(w);
    if (chance(w, 20)) {
        note(w, -1, "all lines are good again");
        net_heal(w);
    }
}

static void on_bulk(void *arg, uint64_t lsn, const struct err *err)
{
    struct call *c = arg;
    struct node *n = c->node;

    on_call(arg, lsn, err);
    if (c->done && c->err.code == ERR_OK) {
        n->w->n_bulk++;
        watch_bulk_acked(n->w, n->index, lsn);
    }
}

/* Many keys in one transaction, values of any size. */
static void write_bulk(struct world *w)
{
    struct txn *t = txn_new();
    unsigned n = 1 + (unsigned)sim_rand(w, 60);
    static uint8_t value[20000];
    struct err err;
    char key[32];

    if (!primary_up(w) || w->n[w->primary].sealed) {
        txn_free(t);
        return;
    }
    sim_check(w, t != NULL, "out of memory");
    for (unsigned k = 0; k < n; k++) {
        snprintf(key, sizeof(key), "b/%03u", (unsigned)sim_rand(w, 500));
        memset(value, 'a' + (int)sim_rand(w, 26), sizeof(value));
        if ((chance(w, 25)
                 ? txn_delete(t, key, &err)
                 : txn_put(t, key, value, 1 + sim_rand(w, chance(w, 5) ? 20000 : 300), &err)) != 0)
            sim_fail(w, "cannot build a transaction: %s", err.msg);
    }
    if (engine_submit(w->n[w->primary].e, t, on_bulk, call_new(w, w->primary), &err) != 0)
        note(w, w->primary, "bulk: %s", err.msg);
}

static void load(struct world *w)
{
    unsigned n = (unsigned)sim_rand(w, chance(w, 20) ? 150 : 30);

    if (chance(w, 25))
        write_bulk(w);
    w->value_min = chance(w, 15) ? sim_rand(w, 4000) : 0;
    for (unsigned k = 0; k < n; k++) {
        /* Not every client knows of a promotion. */
        write_to(w, chance(w, 85) ? w->primary : any_node(w));
        if (sim_rand(w, 3) == 0)
            world_step(w);
    }
}

static void pass_time(struct world *w)
{
    uint64_t kind = sim_rand(w, 20);

    world_run(w, kind < 14 ? some_ms(w, 200) : kind < 19 ? some_ms(w, 5000) : some_ms(w, 120000));
}

/* ---- the end: no more faults ---- */
static bool one_down(struct world *w)
{
    for (int i = 0; i < (int)w->n_nodes; i++) {
        if (!node_up(w, i))
            return true;
    }
    return false;
}

static bool all_follow(struct world *w)
{
    for (int i = 0; i < (int)w->n_nodes; i++) {
        if (i != w->primary && !node_follows(w, i, w->primary))
            return false;
    }
    return secondary_streams(w);
}

static bool followed_or_down(struct world *w)
{
    return one_down(w) || all_follow(w);
}

static void repair_all(struct world *w)
{
    for (int i = 0; i < (int)w->n_nodes; i++) {
        struct node *n = &w->n[i];

        if (n->cut)
            node_crash(w, i); /* its power has failed already */
        node_crash_in(w, i, 0);
        n->stalled = 0;
        n->still_until_ns = n->slow_until_ns = n->busy_until_ns = 0;
        n->fails = false;
        disk_image_mend(n->image);
        disk_image_free_bytes(n->image, (uint64_t)1 << 40);
        if (n->damaged)
            node_replace(w, i); /* found out or not */
        for (int k = 0; k < 3 && n->e == NULL; k++)
            bring_up(w, i, true);
        if (node_up(w, i) && n->role == ENGINE_PRIMARY)
            n->follows = -1; /* it may have become one unheard */
    }
}

/* false: no node has a whole copy; bit flips took the others. */
static bool find_primary(struct world *w)
{
    op_look(w);
    if (!primary_up(w))
        take_over(w);
    op_look(w);
    /* After a split all are fenced: a person chooses. */
    for (int i = 0; i < (int)w->n_nodes && !primary_up(w); i++) {
        if (!node_up(w, i) || w->n[i].role != ENGINE_FENCED)
            continue;
        fault(w, F_PROMOTE, i, "which is fenced, by force");
        if (try_promote(w, i, true, ANSWER_NS)) {
            w->primary = i;
            mark_lost(w, i);
        }
    }
    node_unseal(w, w->primary);
    return primary_up(w);
}

/* A strict mode of who will not come back holds everything: the operator ends them all. */
static void end_modes(struct world *w)
{
    struct repl_mode m = {
        .level = REPL_ASYNC, .on_limit = REPL_STRICT, .wait_ms = 1000, .k = 1, .n = 1};
    struct err err;

    for (int i = -1; i < (int)w->n_nodes; i++) { /* -1: the quorum */
        struct call *c = call_new(w, w->primary);

        snprintf(m.name[0], sizeof(m.name[0]), "member-%d", i);
        m.n = i >= 0;
        if (primary_up(w) &&
            mode_ask(w, w->primary, i >= 0 ? m.name[0] : NULL, &m, true, on_call, c, &err) == 0)
            (void)call_wait(w, c, SEC); /* while another one holds the commits it has no answer */
    }
}

static void join_all(struct world *w)
{
    for (int i = 0; i < (int)w->n_nodes; i++) {
        struct node *n = &w->n[i];

        if (i == w->primary || !node_up(w, i) || !primary_up(w) ||
            (node_follows(w, i, w->primary) && n->role != ENGINE_FENCED &&
             n->role != ENGINE_PRIMARY && n->e->reason[0] == '\0' && !watch_another(w, i) &&
             watch_member(w, w->primary, i) && !n->revoked && node_up(w, n->follows) &&
             watch_member(w, n->follows, i)))
            continue;
        fault(w, n->role == ENGINE_PRIMARY ? F_REJOIN : F_COPY, i, "of node %d, in the end",
              w->primary);
        if (!op_admit(w, w->primary, i))
            note(w, i, "did not join within the time");
    }
}

static void settle(struct world *w)
{
    note(w, -1, "no more faults");
    net_heal(w);
    for (int i = 0; i < (int)w->n_nodes; i++) {
        if (i != w->primary && chance(w, 30))
            node_stop(w, i);
    }
    for (int k = 0; k < 6; k++) {
        repair_all(w);
        world_run(w, 15 * SEC);
        if (!find_primary(w))
            continue;
        end_modes(w);
        join_all(w);
        if (world_until(w, followed_or_down, 180 * SEC) && !one_down(w))
            break;
    }
    if (!find_primary(w)) {
        if (w->faults[F_FLIP_LOG] + w->faults[F_FLIP_STORE] + w->faults[F_FLIP_OTHER] == 0) {
            show_nodes(w);
            sim_fail(w, "ends: in calm nobody serves, and no disk was damaged");
        }
        note(w, -1, "no whole copy is left");
        return;
    }
    if (!all_follow(w)) {
        show_nodes(w);
        sim_fail(w, "ends: in calm not all follow");
    }
    write_many(w, 20);
    if (!all_equal(w, 180 * SEC)) {
        show_nodes(w);
        sim_fail(w, "ends: in calm not all are equal");
    }
    for (int i = 0; i < (int)w->n_nodes; i++) {
        if (w->n[i].sealed && node_follows(w, i, w->primary))
            fault(w, F_SEALED_END, i, "it is equal all the same");
    }
}

/* Some of the programs are older ones: each start is of one or of the other. */
static void any_version(struct world *w, int i, struct engine_config *cfg)
{
    (void)i;
    cfg->link_version = LINK_VERSION_EPOCHS + (uint32_t)sim_rand(w, 2);
}

/* The log thread applies what it can itself, as it does outside of a simulation. */
static void applies_here(struct world *w, int i, struct engine_config *cfg)
{
    (void)w;
    (void)i;
    cfg->here_transactions = 64;
}

static void applies_here_any_version(struct world *w, int i, struct engine_config *cfg)
{
    any_version(w, i, cfg);
    applies_here(w, i, cfg);
}

static void run_storm(struct world *w, bool here)
{
    unsigned rounds = ROUNDS_MIN + (unsigned)sim_rand(w, ROUNDS);
    unsigned faults = (unsigned)sim_rand(w, 3);

    w->retain_bytes = chance(w, 40) ? 1 : 64u << 20;
    w->keys = chance(w, 50) ? 48 : SIM_KEYS;
    if (chance(w, 40))
        w->tune = here ? applies_here_any_version : any_version;
    else
        w->tune = here ? applies_here : NULL;
    for (int i = 0; here && i < (int)w->n_nodes; i++) { /* they began without */
        node_stop(w, i);
        node_open(w, i);
    }
    write_many(w, 60);
    for (int i = 1; i < (int)w->n_nodes; i++)
        enable(w, 0, i);
    world_run(w, some_ms(w, 3000));
    w->seals = 50;
    w->sealed_wait_ms = 5000;
    for (unsigned r = 0; r < rounds; r++) {
        for (unsigned f = 0; f <= faults; f++)
            storm_fault(w);
        load(w);
        pass_time(w);
        operate(w);
    }
    settle(w);
    sim_check(w, here == (w->n_acked_in_log_step > 0), "the log thread applied what %u waited for",
              w->n_acked_in_log_step);
}

static void storm(struct world *w)
{
    run_storm(w, false);
}

static void storm_here(struct world *w)
{
    run_storm(w, true);
}

const struct scenario scenarios_storm[] = {
    {"storm", storm, "whatever happens, what was promised holds", SIM_NODES_SEED},
    {"storm_here", storm_here, "the same where the log thread applies", SIM_NODES_SEED},
    {NULL, NULL, NULL, 0},
};
