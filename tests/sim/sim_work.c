/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim_work.c - the workload, what a scenario checks at its end, and what an operator does.
 */
#include "sim_private.h"

#include "snapshot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- workload ---- */
static void on_answer(void *arg, uint64_t lsn, const struct err *err)
{
    struct op *op = arg;

    if (op->w == NULL || op->w->n[op->node].cut)
        return; /* its engine is dead: nobody heard this */
    if (err != NULL) {
        op->w->n_refused++;
        op->w = NULL; /* its outcome is not known, or it was refused */
        return;
    }
    op->lsn = lsn;
    op->acked = true;
    op->w->n_acked++;
    op->w->n_acked_in_log_step += op->w->n[op->node].in_log_step;
    watch_acked(op->w, op);
}

static void key_name(uint32_t key, char out[32])
{
    snprintf(out, 32, "k/%03u", key);
}

void write_one(struct world *w)
{
    write_to(w, w->primary);
}

void write_to(struct world *w, int i)
{
    struct node *n = &w->n[i];
    struct op *op = &w->ops[w->n_ops];
    char key[32], value[6200];
    size_t len = 8 + w->value_min + sim_rand(w, sim_rand(w, 8) == 0 ? 2000 : 60);
    struct txn *t;
    struct err err;

    if (n->e == NULL || n->role != ENGINE_PRIMARY || n->sealed)
        return;
    sim_check(w, w->n_ops + 1 < SIM_OPS_MAX, "the workload is longer than its table");
    *op = (struct op){.id = w->n_ops,
                      .key = (uint32_t)sim_rand(w, w->keys),
                      .node = i,
                      .issued_ns = w->now_ns,
                      .w = w};
    w->n_ops++;
    memset(value, 'v', sizeof(value));
    memcpy(value, &op->id, sizeof(op->id));
    key_name(op->key, key);
    t = txn_new();
    op->deletes = sim_rand(w, 6) == 0;
    sim_check(w, t != NULL, "out of memory");
    if ((op->deletes ? txn_delete(t, key, &err) : txn_put(t, key, value, len, &err)) != 0)
        sim_fail(w, "cannot build a transaction: %s", err.msg);
    if (engine_submit_wait(n->e, t, &w->wait, on_answer, op, &err) != 0) {
        w->n_refused++;
        op->w = NULL;
    }
}

void write_many(struct world *w, unsigned n)
{
    if (w->canary && w->n[w->primary].stale == NULL && w->n[w->primary].e != NULL)
        w->n[w->primary].stale = disk_image_clone(w->n[w->primary].image);
    for (unsigned i = 0; i < n; i++) {
        write_one(w);
        if (sim_rand(w, 3) == 0)
            world_step(w);
    }
}

bool writes_settled(struct world *w)
{
    for (uint32_t i = w->n_ops; i-- > 0 && i + 4000 > w->n_ops;) {
        if (w->ops[i].w != NULL && !w->ops[i].acked)
            return false;
    }
    return true;
}

/* ---- checks ---- */
struct held {
    struct world *w;
    int node;
    uint32_t op[SIM_KEYS];
    uint64_t lsn[SIM_KEYS];
    bool there[SIM_KEYS];
};

static int hold_one(void *arg, const char *key, const uint8_t *value, size_t len, uint64_t lsn,
                    struct err *err)
{
    struct held *h = arg;
    struct world *w = h->w;
    unsigned k = (unsigned)strtoul(key + 2, NULL, 10);
    uint32_t id;

    (void)err;
    sim_check(w, k < SIM_KEYS && len >= 8, "a key or value that was never written: %s", key);
    memcpy(&id, value, sizeof(id));
    sim_check(w,
              id < w->n_ops && w->ops[id].key == k && !w->ops[id].deletes &&
                  (!w->ops[id].lost || h->node != w->primary),
              "%s holds a value of another write", key);
    h->there[k] = true;
    h->op[k] = id;
    h->lsn[k] = lsn;
    return 0;
}

static void hold(struct world *w, int i, struct held *h)
{
    struct err err;

    memset(h, 0, sizeof(*h));
    h->w = w;
    h->node = i;
    if (engine_scan(w->n[i].e, "k/", NULL, 0, false, hold_one, h, &err) != 0)
        sim_fail(w, "node %d: scan: %s", i, err.msg);
}

/* Does the state show op or something later on its key? A key that is absent needs a delete. */
static bool shows(const struct world *w, const struct held *h, const struct op *op, uint64_t limit)
{
    if (h->there[op->key])
        return h->op[op->key] >= op->id && h->lsn[op->key] >= op->lsn;
    for (uint32_t k = op->id; k < w->n_ops; k++) {
        const struct op *d = &w->ops[k];

        if (d->key == op->key && d->deletes && !d->lost && d->lsn <= limit)
            return true;
    }
    return false;
}

void check_acked(struct world *w, int i)
{
    struct held h;

    hold(w, i, &h);
    for (uint32_t k = 0; k < w->n_ops; k++) {
        const struct op *op = &w->ops[k];

        if (!op->acked || op->lost)
            continue;
        sim_check(w, shows(w, &h, op, UINT64_MAX),
                  "node %d lost write %u (LSN %llu), which was acknowledged", i, op->id,
                  (unsigned long long)op->lsn);
    }
}

void check_prefix(struct world *w, int i)
{
    struct held h;
    struct engine_status st;

    if (w->n[i].apart || w->n[i].role == ENGINE_BOOTSTRAPPING ||
        (w->n[i].role != ENGINE_SECONDARY && i != w->primary))
        return;
    hold(w, i, &h);
    engine_status(w->n[i].e, &st);
    for (unsigned k = 0; k < SIM_KEYS; k++) {
        if (!h.there[k])
            continue;
        sim_check(w, h.lsn[k] <= st.applied_lsn, "node %d: a value beyond the applied LSN", i);
        sim_check(w,
                  !w->ops[h.op[k]].acked || w->ops[h.op[k]].lost || w->ops[h.op[k]].lsn == h.lsn[k],
                  "node %d: write %u stands at another LSN", i, h.op[k]);
    }
    for (uint32_t k = 0; k < w->n_ops; k++) {
        const struct op *op = &w->ops[k];

        if (!op->acked || op->lost || op->lsn > st.applied_lsn)
            continue;
        sim_check(w, shows(w, &h, op, st.applied_lsn),
                  "node %d: applied LSN is %llu, but write %u of LSN %llu is missing", i,
                  (unsigned long long)st.applied_lsn, op->id, (unsigned long long)op->lsn);
    }
}

bool node_follows(const struct world *w, int i, int p)
{
    for (unsigned hops = 0; i >= 0 && hops < w->n_nodes; hops++) {
        i = w->n[i].follows;
        if (i == p)
            return true;
    }
    return false;
}

bool node_streams(struct world *w, int i)
{
    struct engine_status st;

    if (w->n[i].e == NULL)
        return false;
    engine_status(w->n[i].e, &st);
    return st.role == ENGINE_SECONDARY && strcmp(st.state, "stream-wals") == 0;
}

bool secondary_streams(struct world *w)
{
    for (int i = 0; i < (int)w->n_nodes; i++) {
        if (node_follows(w, i, w->primary) && !node_streams(w, i))
            return false;
    }
    return true;
}

/* However much it is: a root that is compared must be that of the applied LSN. */
static void fold_applied(struct world *w, int i)
{
    engine_fold_to(w->n[i].e, atomic_load(&w->n[i].e->applied_lsn));
}

static bool same_lsn(struct world *w)
{
    struct engine_status a, b;

    if (w->n[w->primary].e == NULL || !secondary_streams(w))
        return false;
    fold_applied(w, w->primary);
    engine_status(w->n[w->primary].e, &a);
    for (int i = 0; i < (int)w->n_nodes; i++) {
        if (!node_follows(w, i, w->primary))
            continue;
        fold_applied(w, i);
        engine_status(w->n[i].e, &b);
        if (a.applied_lsn != b.applied_lsn)
            return false;
    }
    return a.applied_lsn == a.appended_lsn;
}

void show_nodes(struct world *w)
{
    struct engine_status st;

    for (int i = 0; i < (int)w->n_nodes; i++) {
        if (w->n[i].e == NULL) {
            printf("node %d: down\n", i);
            continue;
        }
        engine_status(w->n[i].e, &st);
        printf("node %d: follows %d, role %d, %s %s, epoch %u, durable %llu, committed %llu, "
               "applied %llu, error %s, reason %s\n",
               i, w->n[i].follows, (int)st.role, st.state, st.connection_state, st.epoch,
               (unsigned long long)st.durable_lsn, (unsigned long long)st.committed_lsn,
               (unsigned long long)st.applied_lsn, st.peers[0].last_error, st.reason);
    }
}

/* Marks go on for ever; between two of them all stand at one LSN. */
bool all_equal(struct world *w, int64_t limit_ns)
{
    struct engine_status a, b;

    if (!world_until(w, same_lsn, limit_ns))
        return false;
    engine_status(w->n[w->primary].e, &a);
    for (int i = 0; i < (int)w->n_nodes; i++) {
        if (!node_follows(w, i, w->primary))
            continue;
        engine_status(w->n[i].e, &b);
        sim_check(w, a.merkle_root_lsn == b.merkle_root_lsn,
                  "node %d: root: it is of LSN %llu, not %llu", i,
                  (unsigned long long)b.merkle_root_lsn, (unsigned long long)a.merkle_root_lsn);
        sim_check(w, memcmp(a.merkle_root, b.merkle_root, sizeof(a.merkle_root)) == 0,
                  "node %d: root: another one at LSN %llu", i, (unsigned long long)a.applied_lsn);
        watch_state(w, i);
    }
    return true;
}

void check_equal(struct world *w)
{
    if (!world_until(w, writes_settled, 60 * SEC))
        sim_fail(w, "writes are not answered");
    if (!all_equal(w, 120 * SEC)) {
        show_nodes(w);
        sim_fail(w, "a secondary does not catch up");
    }
    for (int i = 0; i < (int)w->n_nodes; i++) {
        if (node_follows(w, i, w->primary))
            check_prefix(w, i);
    }
    check_acked(w, w->primary);
}

bool only_one_whole(struct world *w)
{
    struct engine_status st;

    engine_status(w->n[0].e, &st);
    return st.n_peers == 1 && st.peers[0].whole && st.peers[0].connected;
}

struct repl_mode mode_of(int i, enum repl_level level, enum repl_on_limit on_limit,
                         uint32_t wait_ms)
{
    struct repl_mode m = {.level = level, .on_limit = on_limit, .wait_ms = wait_ms, .k = 1, .n = 1};

    snprintf(m.name[0], sizeof(m.name[0]), "member-%d", i);
    return m;
}

/* ---- roles ---- */
bool put_row(struct world *w, int i, const char *key, const struct buf *b, int64_t limit_ns)
{
    struct call *c = call_new(w, i);
    struct txn *t = txn_new();
    struct err err = {0};

    sim_check(w, t != NULL && txn_put(t, key, b->data, b->len, &err) == 0, "row");
    node_unseal(w, i);
    return engine_submit(w->n[i].e, t, on_call, c, &err) == 0 && call_wait(w, c, limit_ns);
}

/* The founder's id is that of the cluster. */
bool try_put_member(struct world *w, int p, int i, bool revoked, int64_t limit_ns)
{
    struct member m = {.id = "cluster", .revoked = revoked, .primary = !w->n[i].named};
    struct buf b = {0};
    struct err err = {0};
    char key[128];
    bool ok;

    if (w->n[i].named)
        snprintf(m.id, sizeof(m.id), "member-%d", i);
    snprintf(m.cluster_addr, sizeof(m.cluster_addr), "%d", i);
    memcpy(m.key_hash, w->n[i].key_hash, 32);
    snprintf(key, sizeof(key), ENGINE_KEY_MEMBERS "%s", m.id);
    sim_check(w, member_encode(&m, &b, &err) == 0, "row");
    ok = node_up(w, p) && put_row(w, p, key, &b, limit_ns);
    buf_free(&b);
    return ok;
}

void put_member(struct world *w, int p, int i, bool revoked)
{
    sim_check(w, try_put_member(w, p, i, revoked, 60 * SEC), "a row is not answered");
}

static bool put_rows(struct world *w, int p, int s, int64_t limit_ns)
{
    struct repl_config rc = {.primary_enabled = true, .cluster_id = "cluster"};
    struct buf b = {0};
    struct err err;
    bool ok;

    snprintf(rc.primary_cluster_addr, sizeof(rc.primary_cluster_addr), "%d", p);
    sim_check(w, repl_config_encode(&rc, &b, &err) == 0, "row");
    ok = put_row(w, p, ENGINE_KEY_CONFIG, &b, limit_ns);
    buf_free(&b);
    if (ok && !w->n[p].named)
        ok = try_put_member(w, p, p, false, limit_ns);
    if (ok)
        w->n[s].named = true;
    return ok && try_put_member(w, p, s, false, limit_ns);
}

bool try_enable_seed(struct world *w, int p, int s, struct engine_seed *seed, int64_t limit_ns)
{
    struct follow_config f = {.cluster_id = "cluster", .keep_old_ms = w->keep_old_ms};
    struct call *c;
    struct err err = {0};

    unsigned opens = w->n[s].opens;

    if (!put_rows(w, p, s, limit_ns) || !node_up(w, s) || w->n[s].opens != opens) {
        if (w->n[s].opens == opens && w->n[s].e != NULL)
            engine_seed_free(seed); /* else it is gone with its engine */
        return false;
    }
    snprintf(f.member_id, sizeof(f.member_id), "member-%d", s);
    snprintf(f.primary_addr, sizeof(f.primary_addr), "%d", p);
    snprintf(f.cluster_addr, sizeof(f.cluster_addr), "%d", s);
    memcpy(f.primary_key_hash, w->n[p].key_hash, 32);
    c = call_new(w, s);
    node_unseal(w, s);
    serve_down(w, s);
    if (engine_follow_seed(w->n[s].e, &f, seed, on_call, c, &err) != 0)
        return false;
    watch_given_up(w, s); /* from the moment of the answer; until then it may be either */
    w->n[s].follows = p;
    return call_wait(w, c, limit_ns);
}

bool try_enable(struct world *w, int p, int s, int64_t limit_ns)
{
    return try_enable_seed(w, p, s, NULL, limit_ns);
}

void enable(struct world *w, int p, int s)
{
    /* One that puts a copy in place at that moment says to come again. */
    for (unsigned tries = 3; !try_enable(w, p, s, 60 * SEC) && !w->n[s].cut; tries--) {
        sim_check(w, tries > 0, "node %d does not become a secondary of node %d", s, p);
        world_run(w, 10 * MS);
    }
}

/* What was acknowledged elsewhere and is not here is lost: with async, what the lag allows. */
void mark_lost(struct world *w, int i)
{
    for (uint32_t k = 0; k < w->n_ops; k++) {
        struct op *op = &w->ops[k];

        if (op->acked && !watch_has(w, i, op))
            op->lost = true;
    }
}

/* Node i takes over. */
bool try_promote(struct world *w, int i, bool force, int64_t limit_ns)
{
    struct call *c = call_new(w, i);
    struct err err = {0};

    watch_promoting(w, i);
    if (promote_ask(w, i, force, on_call, c, &err) != 0 || !call_wait(w, c, limit_ns))
        return false;
    watch_promoted(w, i);
    w->n[i].follows = -1;
    return true;
}

bool try_demote(struct world *w, int i, int64_t limit_ns)
{
    struct call *c = call_new(w, i);
    struct err err;

    return demote_ask(w, i, on_call, c, &err) == 0 && call_wait(w, c, limit_ns);
}

/* The founder's id is that of the cluster. */
void member_id(const struct world *w, int i, char id[64])
{
    if (w->n[i].named)
        snprintf(id, 64, "member-%d", i);
    else
        snprintf(id, 64, "cluster");
}

bool try_retarget(struct world *w, int i, int p, bool by_addrs, bool give_up, int64_t limit_ns)
{
    struct follow_config f = {.cluster_id = "cluster"};
    struct call *c = call_new(w, i);
    struct err err;

    member_id(w, i, f.member_id);
    snprintf(f.cluster_addr, sizeof(f.cluster_addr), "%d", i);
    if (p >= 0 && by_addrs)
        snprintf(f.addrs, sizeof(f.addrs), "%d,%d", (int)w->n_nodes - 1 - p, p);
    else if (p >= 0) {
        snprintf(f.primary_addr, sizeof(f.primary_addr), "%d", p);
        memcpy(f.primary_key_hash, w->n[p].key_hash, 32);
    }
    watch_repointed(w, i, by_addrs ? -1 : p);
    node_unseal(w, i);
    if (engine_retarget(w->n[i].e, &f, give_up, on_call, c, &err) != 0)
        return false;
    w->n[i].follows = p;
    return call_wait(w, c, limit_ns);
}

void promote_keeping(struct world *w, int i, uint64_t had)
{
    struct engine_status st;

    if (!try_promote(w, i, false, 60 * SEC))
        sim_fail(w, "node %d is not promoted", i);
    engine_status(w->n[i].e, &st);
    sim_check(w, st.applied_lsn > had, "LSN %llu was durable here, and the new epoch begins below",
              (unsigned long long)had);
    for (uint32_t k = 0; k < w->n_ops; k++) {
        if (!w->ops[k].acked)
            w->ops[k].w = NULL;
    }
    mark_lost(w, i);
    w->primary = i;
    check_acked(w, i);
    check_prefix(w, i);
}

/* What the secondary had durable must be in the new primary. */
void promote(struct world *w, int i)
{
    struct engine_status st;

    engine_status(w->n[i].e, &st);
    promote_keeping(w, i, st.durable_lsn);
}
