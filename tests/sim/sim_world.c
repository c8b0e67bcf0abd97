/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim_world.c - the nodes, the clock, the workload and the checks.
 *
 * The clock moves only when nobody has anything to do, to the next thing that is due; each reading
 * moves it by a microsecond, so that a loop which waits for time ends.
 */
#include "sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- randomness and failure ---- */
static uint64_t next_rand(uint64_t *s)
{
    uint64_t z = (*s += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t sim_rand(struct world *w, uint64_t below)
{
    return next_rand(&w->rng) % below;
}

void sim_bytes(struct world *w, void *out, size_t len)
{
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)out)[i] = (uint8_t)next_rand(&w->rng);
}

void sim_fail(struct world *w, const char *fmt, ...)
{
    va_list ap;

    fprintf(stdout, "FAILED seed %llu scenario %s at %.6f s: ", (unsigned long long)w->seed,
            w->scenario, (double)w->now_ns / 1e9);
    va_start(ap, fmt);
    vfprintf(stdout, fmt, ap);
    va_end(ap);
    fprintf(stdout, "\n");
    fflush(stdout);
    _exit(1);
}

/* ---- clock ---- */
static int64_t env_wall(struct env *env)
{
    struct sim_env *s = (struct sim_env *)env;

    return 1543000000000 + s->w->now_ns / MS + s->wall_offset_ms;
}

static int64_t env_mono(struct env *env)
{
    struct sim_env *s = (struct sim_env *)env;

    return s->w->now_ns += 1000;
}

static void env_bytes(struct env *env, void *out, size_t len)
{
    sim_bytes(((struct sim_env *)env)->w, out, len);
}

static const struct env_ops env_ops = {env_wall, env_mono, env_bytes};

/* ---- nodes ---- */
static void on_fatal(void *arg, const struct err *err)
{
    struct node *n = arg;

    sim_fail(n->w, "node %d: final failure: %s", n->index, err->msg);
}

static void on_role(void *arg, enum engine_role role)
{
    ((struct node *)arg)->role = (int)role;
}

int node_try_open(struct world *w, int i, struct err *err)
{
    struct node *n = &w->n[i];
    static const uint8_t key[32] = {42};
    /* WiredTiger refuses one directory twice in a process, even when it lies on two disks. */
    char path[16];
    struct engine_config cfg = {.path = path,
                                .env = &n->env.env,
                                .log = w->log,
                                .link = &sim_link,
                                .net = n,
                                .deterministic = true,
                                .cache_bytes = 32u << 20,
                                .wal_file_bytes = 1u << 20,
                                .reserve_bytes = 1u << 20,
                                .window_bytes = 256u << 10,
                                .retain_bytes = w->retain_bytes,
                                .copy_page_bytes = 2048,
                                .scrub_interval_ms = 700,
                                .hooks = {.arg = n, .fatal = on_fatal, .role = on_role}};
    struct engine_status st;

    snprintf(path, sizeof(path), "/node%d", i);
    if (w->tune != NULL)
        w->tune(w, i, &cfg);
    n->disk = disk_sim_new(n->image, &n->env.env);
    sim_check(w, n->disk != NULL, "no simulated disk");
    cfg.disk = n->disk;
    cfg.store_disk = n->disk;
    if (engine_open(&cfg, &n->e, err) != 0) {
        disk_free(n->disk);
        n->disk = NULL;
        return -1;
    }
    n->opens++;
    engine_epoch_key(n->e, key);
    engine_status(n->e, &st);
    n->role = (int)st.role;
    return 0;
}

void node_open(struct world *w, int i)
{
    struct node *n = &w->n[i];
    struct engine_status st;
    struct err err = {0};

    if (node_try_open(w, i, &err) != 0)
        sim_fail(w, "node %d does not open: %s", i, err.msg);
    engine_status(n->e, &st);
    /* What was acknowledged before the crash is there before the first step after it. */
    if (st.role == ENGINE_PRIMARY && i == w->primary && !st.unsettled)
        check_acked(w, i);
    check_prefix(w, i);
}

static void node_drop(struct world *w, int i)
{
    struct node *n = &w->n[i];

    engine_close(n->e);
    n->e = NULL;
    disk_free(n->disk);
    n->disk = NULL;
    (void)w;
}

void node_stop(struct world *w, int i)
{
    if (w->n[i].e == NULL)
        return;
    net_forget(w, i);
    node_drop(w, i);
}

/* The image as the crash leaves it is set aside first; the engine then closes on the image that is
 * thrown away. A crash is a power cut, or now and then a kill, after which what was not flushed is
 * read as if it were safe and goes with the next power cut. */
void node_crash(struct world *w, int i)
{
    struct node *n = &w->n[i];
    struct disk_image *left, *thrown = n->image;
    bool kill = false;

    if (n->e == NULL)
        return;
    if (w->canary && n->stale != NULL) {
        left = n->stale; /* as if every flush since then had been ignored */
        n->stale = NULL;
    } else {
        left = n->cut ? disk_image_take_cut(n->image) : disk_image_clone(n->image);
        kill = !w->canary && sim_rand(w, 3) == 0;
    }
    sim_check(w, left != NULL, "out of memory");
    if (kill)
        disk_image_kill(left);
    else
        disk_image_crash(left);
    net_forget(w, i);
    for (uint32_t k = 0; k < w->n_ops; k++) {
        /* Answers that come while the thrown-away engine closes are not answers. */
        if (i == w->primary && !w->ops[k].acked)
            w->ops[k].w = NULL;
    }
    node_drop(w, i);
    n->image = left;
    disk_image_free(thrown);
    n->crashes++;
    n->cut = false;
}

static void on_cut(void *arg)
{
    ((struct node *)arg)->cut = true;
}

void node_cut_in(struct world *w, int i, uint64_t ops)
{
    disk_image_cut_in(w->n[i].image, ops, on_cut, &w->n[i]);
}

void node_restore(struct world *w, int i, struct disk_image *image)
{
    node_stop(w, i);
    disk_image_free(w->n[i].image);
    w->n[i].image = image;
}

void world_init(struct world *w, uint64_t seed, const char *scenario, unsigned nodes)
{
    sim_check(w, nodes <= SIM_NODES_MAX, "too many nodes");
    w->seed = seed;
    w->rng = seed * 7919 + 1;
    w->scenario = scenario;
    w->now_ns = SEC;
    w->retain_bytes = 64u << 20;
    w->n_nodes = nodes;
    net_heal(w);
    for (int i = 0; i < (int)nodes; i++) {
        struct node *n = &w->n[i];

        n->w = w;
        n->index = i;
        n->follows = -1;
        n->env = (struct sim_env){.env = {.ops = &env_ops}, .w = w};
        n->image = disk_image_new(seed * SIM_NODES_MAX + (uint64_t)i);
        sim_check(w, n->image != NULL, "out of memory");
        memset(n->key_hash, 'a' + i, sizeof(n->key_hash));
        node_open(w, i);
    }
}

void world_fini(struct world *w)
{
    for (int i = 0; i < (int)w->n_nodes; i++) {
        node_stop(w, i);
        disk_image_free(w->n[i].image);
        disk_image_free(w->n[i].stale);
    }
    net_free(w);
}

/* ---- time ---- */
static void check_bounds(struct world *w, int i)
{
    struct engine_status st;

    engine_status(w->n[i].e, &st);
    for (size_t k = 0; k < st.n_peers && !w->faults_in_data; k++)
        sim_check(w,
                  !st.damaged && st.peers[k].verified != ENGINE_DIFFERENT &&
                      st.peers[k].verified != ENGINE_DAMAGED,
                  "node %d: other data than %s, or other rows than its own tree says", i,
                  st.peers[k].id);
    if (st.state[0] == '\0' || strncmp(st.state, "merkle-", 7) == 0)
        return; /* no step yet, or the LSNs are those of a log that is being copied */
    if (st.role == ENGINE_PRIMARY || st.role == ENGINE_SECONDARY) {
        sim_check(w, st.applied_lsn <= st.durable_lsn, "node %d: applied %llu > durable %llu", i,
                  (unsigned long long)st.applied_lsn, (unsigned long long)st.durable_lsn);
        sim_check(w, st.applied_lsn <= st.committed_lsn, "node %d: applied %llu > committed %llu",
                  i, (unsigned long long)st.applied_lsn, (unsigned long long)st.committed_lsn);
    }
    sim_check(w, st.durable_lsn <= st.appended_lsn, "node %d: durable beyond the end", i);
}

static bool step_node(struct world *w, int i)
{
    struct node *n = &w->n[i];
    size_t did = 0;

    if (n->e == NULL)
        return false;
    did += engine_log_step(n->e);
    if (sim_rand(w, 4) != 0)
        did += engine_apply_step(n->e);
    else
        did += 1; /* the apply thread is slow this time */
    if (sim_rand(w, 4) != 0)
        did += engine_scan_step(n->e);
    else
        did += 1;
    if (disk_wait(n->disk, 0) > 0)
        did++;
    if (sim_rand(w, 2000) == 0)
        did += engine_checkpoint_step(n->e, true);
    if (sim_rand(w, 64) == 0)
        check_bounds(w, i);
    return did > 0;
}

static int64_t next_due(struct world *w)
{
    int64_t due = net_next_due(w);

    for (unsigned i = 0; i < w->n_nodes; i++) {
        int64_t t;

        if (w->n[i].e == NULL)
            continue;
        t = engine_next_deadline_ns(w->n[i].e);
        if (t < due)
            due = t;
        t = disk_sim_next_due_ns(w->n[i].disk);
        if (t >= 0 && w->now_ns + t < due)
            due = w->now_ns + t;
    }
    return due;
}

bool world_step(struct world *w)
{
    unsigned first = (unsigned)sim_rand(w, w->n_nodes);
    bool any = net_deliver(w);

    w->steps++;
    for (unsigned k = 0; k < w->n_nodes; k++)
        any = step_node(w, (int)((first + k) % w->n_nodes)) || any;
    if (!any) {
        int64_t due = next_due(w);

        if (due == INT64_MAX)
            return false;
        if (due > w->now_ns)
            w->now_ns = due;
    }
    return true;
}

void world_run(struct world *w, int64_t ns)
{
    int64_t end = w->now_ns + ns;

    while (w->now_ns < end) {
        if (!world_step(w)) {
            w->now_ns = end;
            break;
        }
    }
}

bool world_until(struct world *w, bool (*cond)(struct world *w), int64_t limit_ns)
{
    int64_t end = w->now_ns + limit_ns;

    while (!cond(w)) {
        if (w->now_ns >= end || !world_step(w))
            return cond(w);
    }
    return true;
}

/* ---- workload ---- */
static void on_answer(void *arg, uint64_t lsn, const struct err *err)
{
    struct op *op = arg;

    if (op->w == NULL)
        return; /* its engine is dead: nobody heard this */
    if (op->w->n[op->w->primary].cut) {
        op->w = NULL;
        return;
    }
    if (err != NULL) {
        op->w->n_refused++;
        op->w = NULL; /* its outcome is not known, or it was refused */
        return;
    }
    op->lsn = lsn;
    op->acked = true;
    op->w->n_acked++;
}

static void key_name(uint32_t key, char out[32])
{
    snprintf(out, 32, "k/%03u", key);
}

void write_one(struct world *w)
{
    struct node *n = &w->n[w->primary];
    struct op *op = &w->ops[w->n_ops];
    char key[32], value[6200];
    size_t len = 8 + w->value_min + sim_rand(w, sim_rand(w, 8) == 0 ? 2000 : 60);
    struct txn *t;
    struct err err;

    if (n->e == NULL || n->role != ENGINE_PRIMARY)
        return;
    sim_check(w, w->n_ops + 1 < SIM_OPS_MAX, "the workload is longer than its table");
    *op = (struct op){.id = w->n_ops, .key = (uint32_t)sim_rand(w, SIM_KEYS), .w = w};
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

static bool same_lsn(struct world *w)
{
    struct engine_status a, b;

    if (w->n[w->primary].e == NULL || !secondary_streams(w))
        return false;
    engine_status(w->n[w->primary].e, &a);
    for (int i = 0; i < (int)w->n_nodes; i++) {
        if (!node_follows(w, i, w->primary))
            continue;
        engine_status(w->n[i].e, &b);
        if (a.applied_lsn != b.applied_lsn)
            return false;
    }
    return a.applied_lsn == a.appended_lsn;
}

void check_equal(struct world *w)
{
    struct engine_status a, b;

    if (!world_until(w, writes_settled, 60 * SEC))
        sim_fail(w, "writes are not answered");
    /* Marks go on for ever; between two of them all stand at one LSN. */
    if (!world_until(w, same_lsn, 120 * SEC)) {
        for (int i = 0; i < (int)w->n_nodes; i++) {
            if (w->n[i].e == NULL)
                continue;
            engine_status(w->n[i].e, &b);
            printf("node %d: follows %d, role %d, %s %s, durable %llu, applied %llu, error %s, "
                   "reason %s\n",
                   i, w->n[i].follows, (int)b.role, b.state, b.connection_state,
                   (unsigned long long)b.durable_lsn, (unsigned long long)b.applied_lsn,
                   b.peers[0].last_error, b.reason);
        }
        sim_fail(w, "a secondary does not catch up");
    }
    engine_status(w->n[w->primary].e, &a);
    for (int i = 0; i < (int)w->n_nodes; i++) {
        if (!node_follows(w, i, w->primary))
            continue;
        engine_status(w->n[i].e, &b);
        sim_check(w, memcmp(a.merkle_root, b.merkle_root, sizeof(a.merkle_root)) == 0,
                  "node %d: another root at LSN %llu", i, (unsigned long long)a.applied_lsn);
        check_prefix(w, i);
    }
    check_acked(w, w->primary);
}

/* ---- roles ---- */
struct once {
    bool done;
    uint64_t lsn;
    struct err err;
};
static void on_once(void *arg, uint64_t lsn, const struct err *err)
{
    struct once *o = arg;

    o->lsn = lsn;
    o->done = true;
    if (err != NULL)
        o->err = *err;
}

static void put_row(struct world *w, int i, const char *key, const struct buf *b)
{
    struct once o = {0};
    struct txn *t = txn_new();
    struct err err = {0};

    sim_check(w, t != NULL && txn_put(t, key, b->data, b->len, &err) == 0, "row");
    if (engine_submit(w->n[i].e, t, on_once, &o, &err) != 0)
        sim_fail(w, "row: %s", err.msg);
    while (!o.done)
        sim_check(w, world_step(w), "a row is not answered");
    sim_check(w, o.err.code == ERR_OK, "row: %s", o.err.msg);
}

/* The founder's id is that of the cluster. */
void put_member(struct world *w, int p, int i, bool revoked)
{
    struct member m = {.id = "cluster", .revoked = revoked, .primary = !w->n[i].named};
    struct buf b = {0};
    struct err err = {0};
    char key[128];

    if (w->n[i].named)
        snprintf(m.id, sizeof(m.id), "member-%d", i);
    snprintf(m.cluster_addr, sizeof(m.cluster_addr), "%d", i);
    memcpy(m.key_hash, w->n[i].key_hash, 32);
    sim_check(w, member_encode(&m, &b, &err) == 0, "row");
    snprintf(key, sizeof(key), ENGINE_KEY_MEMBERS "%s", m.id);
    put_row(w, p, key, &b);
    buf_free(&b);
}

void enable(struct world *w, int p, int s)
{
    struct repl_config rc = {.primary_enabled = true, .cluster_id = "cluster"};
    struct follow_config f = {.member_id = "secondary", .cluster_id = "cluster"};
    struct buf b = {0};
    struct once o = {0};
    struct err err = {0};

    snprintf(f.member_id, sizeof(f.member_id), "member-%d", s);
    snprintf(f.primary_addr, sizeof(f.primary_addr), "%d", p);
    memcpy(f.primary_key_hash, w->n[p].key_hash, 32);
    sim_check(w, repl_config_encode(&rc, &b, &err) == 0, "row");
    put_row(w, p, ENGINE_KEY_CONFIG, &b);
    buf_free(&b);
    if (!w->n[p].named)
        put_member(w, p, p, false);
    w->n[s].named = true;
    put_member(w, p, s, false);
    if (engine_follow(w->n[s].e, &f, on_once, &o, &err) != 0)
        sim_fail(w, "follow: %s", err.msg);
    while (!o.done)
        sim_check(w, world_step(w), "follow is not answered");
    w->n[s].follows = p;
}

/* Node i takes over. */
void promote_keeping(struct world *w, int i, uint64_t had)
{
    struct once o = {0};
    struct err err = {0};
    struct engine_status st;
    struct held h;

    engine_status(w->n[i].e, &st);
    if (engine_promote(w->n[i].e, false, on_once, &o, &err) != 0)
        sim_fail(w, "promote: %s", err.msg);
    while (!o.done)
        sim_check(w, world_step(w), "the promotion is not answered");
    sim_check(w, o.err.code == ERR_OK, "promote: %s", o.err.msg);
    sim_check(w, o.lsn > had, "LSN %llu was durable here, and the new epoch begins at %llu",
              (unsigned long long)had, (unsigned long long)o.lsn);
    hold(w, i, &h);
    for (uint32_t k = 0; k < w->n_ops; k++) {
        struct op *op = &w->ops[k];

        /* Async: this is the loss that the lag allows. A primary that crashed and came back may
         * have written anew at LSNs whose first, never answered writes the secondary still has. */
        if (op->acked &&
            (op->lsn >= o.lsn || (w->n[w->primary].opens > 1 && op->lsn > st.committed_lsn &&
                                  !shows(w, &h, op, o.lsn))))
            op->lost = true;
        if (!op->acked)
            op->w = NULL;
    }
    w->primary = i;
    w->n[i].follows = -1;
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
