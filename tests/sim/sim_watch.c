/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim_watch.c - what must hold at every moment, looked at after every step of every node.
 *
 *   durable    no power cut takes back what was durable in a node's log
 *   promise    what a mode promised when a write was acknowledged is in the secondary's durable log
 *   committed  a log never cuts what it knows as committed; a promotion keeps the durable tail
 *   order      applied <= min(committed, durable here)
 *   state      a state is the fold over its log up to the applied LSN: all keys, values, LSNs
 *   root       equal running hash, equal Merkle root, whoever computes it and when
 *   prefix     what a whole secondary knows as committed is in the log of its epoch's primary, and
 *              in that of whom it streams from
 *   epochs     who has met a newer epoch, or another one of its number, acknowledges nothing new
 *   verified   who says that it is equal to another was told its own root of that LSN by that one
 *   flush      a node whose flush failed ends itself (sim_faults.c)
 *   unasked    a primary was founded, or asked to be one by the operator (sim_serve.c)
 *   bounds     queues, windows, connections, the kept log and the generations stay within theirs
 *   ends       in calm, a copy, a catch-up and a write come to their end
 *
 * The watch has a random source of its own: looking more or less often changes no run.
 */
#include "sim_private.h"

#include "roles_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CALM_NS (90 * SEC)
#define LOG_SLACK_BYTES ((uint64_t)6 << 20)
#define WINDOW_BYTES ((size_t)(256u << 10)) /* that the nodes are given; and one segment more */
#define EVENTS_BYTES ((size_t)6 << 20)
#define CONNS_BOUND 24u
#define GENERATIONS_BOUND 3u

static unsigned long long ull(uint64_t v)
{
    return (unsigned long long)v;
}

/* ---- places ---- */
static int end_of(struct world *w, int i)
{
    const struct wal *log = w->n[i].e->cur->wal;
    uint8_t hash[WAL_HASH_BYTES];
    int at;

    if (wal_end_lsn(log) == 0)
        return 0;
    wal_end_hash(log, hash);
    at = hist_find(w, hash);
    sim_check(w, at >= 0,
              "node %d: durable: its log ends at LSN %llu in a history that nobody wrote", i,
              ull(wal_end_lsn(log)));
    return at;
}

static int log_at(struct world *w, int i, uint64_t lsn)
{
    int at = hist_at(w, end_of(w, i), lsn);

    sim_check(w, at >= 0, "node %d: LSN %llu is not in its log", i, ull(lsn));
    return at;
}

static int point_at(struct world *w, int i, const struct store_point *p)
{
    int at;

    if (p->lsn == 0)
        return 0;
    at = hist_find(w, p->hash);
    sim_check(w, at >= 0 && hist_lsn(w, at) == p->lsn,
              "node %d: state: LSN %llu of a history that nobody wrote", i, ull(p->lsn));
    return at;
}

static int applied_at(struct world *w, int i)
{
    struct store_point p;

    store_applied(w->n[i].e->store, &p);
    return point_at(w, i, &p);
}

/* New segments are at the end of the ring. */
static void learn(struct world *w, int i)
{
    const struct seg_deque *ring = &w->n[i].e->ring;
    size_t from = ring->n;

    while (from > 0 && hist_find(w, seg_deque_at(ring, from - 1)->hash) < 0)
        from--;
    for (; from < ring->n; from++) {
        const struct seg *s = seg_deque_at(ring, from);

        (void)hist_add(w, s);
        if (s->len > w->segment_bytes_max)
            w->segment_bytes_max = s->len;
    }
}

/* ---- state and root ---- */
static int compare_row(void *arg, const char *key, const uint8_t *value, size_t len, uint64_t lsn,
                       struct err *err)
{
    struct node *n = arg;

    (void)err;
    fold_compare(n->w, n->watch.fold, n->index, key, value, len, lsn);
    return 0;
}

void watch_state(struct world *w, int i)
{
    struct node *n = &w->n[i];
    struct err err;

    if (n->watch.fold == NULL)
        n->watch.fold = fold_new();
    sim_check(w, n->watch.fold != NULL, "out of memory");
    fold_to(w, n->watch.fold, applied_at(w, i));
    fold_compare_begin(n->watch.fold);
    if (engine_scan(n->e, "", NULL, 0, false, compare_row, n, &err) != 0)
        sim_fail(w, "node %d: scan: %s", i, err.msg);
    fold_compare_end(w, n->watch.fold, i);
    n->watch.states++;
}

static void watch_root(struct world *w, int i)
{
    uint8_t root[MERKLE_HASH_BYTES];
    struct store_point p;
    struct err err;
    int at;

    if (!gen_applies(w->n[i].e->cur))
        return; /* its tree cannot be read: it says so, and takes a copy (damage.c) */
    if (store_proof(w->n[i].e->store, root, &p, &err) != 0)
        sim_fail(w, "node %d: root: %s", i, err.msg);
    at = point_at(w, i, &p);
    sim_check(w, hist_root(w, at, root), "node %d: root: another one at LSN %llu", i,
              ull(hist_lsn(w, at)));
}

static uint32_t epoch_of(const struct node *n)
{
    const struct epoch_rec *last = epochs_last(&n->e->cur->epochs);

    return last != NULL ? last->number : 0;
}

/* Other data: that of a newer epoch need not have what was acknowledged in an older one, since who
 * was promoted for it was the operator's choice. */
static void other_data(struct world *w, int i)
{
    struct watched *x = &w->n[i].watch;

    if (x->generation != w->n[i].e->cur->number && epoch_of(&w->n[i]) > x->held_epoch &&
        !hist_holds(w, end_of(w, i), x->held))
        x->held = 0;
}

/* ---- one step ---- */
static void watch_log(struct world *w, int i)
{
    struct node *n = &w->n[i];
    struct engine *e = n->e;
    struct watched *x = &n->watch;
    uint64_t durable = wal_durable_lsn(e->cur->wal), applied = atomic_load(&e->applied_lsn);
    bool same = x->opens == n->opens && x->generation == e->cur->number;
    int committed;

    if (e->follow.phase == COPY_SWITCH)
        return; /* the store still is the one before */
    sim_check(w, applied <= durable, "node %d: order: applied %llu, durable %llu", i, ull(applied),
              ull(durable));
    sim_check(w, applied <= e->committed_lsn, "node %d: order: applied %llu, committed %llu", i,
              ull(applied), ull(e->committed_lsn));
    sim_check(w, e->committed_lsn <= durable, "node %d: order: committed %llu, durable %llu", i,
              ull(e->committed_lsn), ull(durable));
    if (same && x->end_lsn == wal_end_lsn(e->cur->wal) && x->durable_lsn == durable &&
        x->committed_lsn == e->committed_lsn)
        return;
    committed = log_at(w, i, e->committed_lsn);
    if (same && n->role != ENGINE_BOOTSTRAPPING)
        sim_check(w, hist_holds(w, committed, x->committed),
                  "node %d: committed: LSN %llu was known as committed and is gone", i,
                  ull(hist_lsn(w, x->committed)));
    other_data(w, i);
    x->opens = n->opens;
    x->generation = e->cur->number;
    x->committed = committed;
    x->durable = log_at(w, i, durable);
    x->end_lsn = wal_end_lsn(e->cur->wal);
    x->durable_lsn = durable;
    x->committed_lsn = e->committed_lsn;
    if (hist_holds(w, x->durable, x->regain))
        x->older = false;
}

/* Of one epoch there is one primary, whoever follows it, and whether it hears it or not. One of a
 * newer epoch may lack what this one knows: then it is copied, or refused, before it streams. */
static bool same_epoch(const struct node *a, const struct node *b)
{
    const struct epoch_rec *x = epochs_last(&a->e->cur->epochs),
                           *y = epochs_last(&b->e->cur->epochs);

    return x != NULL && y != NULL && x->number == y->number &&
           memcmp(x->id, y->id, sizeof(x->id)) == 0;
}

static void watch_prefix(struct world *w, int i)
{
    struct node *n = &w->n[i];
    bool streams = n->e->copy == NULL && n->e->follow.state == FOLLOW_STREAM &&
                   n->e->follow.phase == COPY_NONE;

    /* While a copy comes, what was here before is whole, until the switch. */
    if (n->role != ENGINE_SECONDARY || n->e->follow.phase == COPY_SWITCH)
        return;
    for (int k = 0; k < (int)w->n_nodes; k++) {
        struct node *p = &w->n[k];

        if (!node_up(w, k) || p->role != ENGINE_PRIMARY || p->watch.restored ||
            !(same_epoch(n, p) || (streams && n->follows == k)))
            continue;
        sim_check(w, hist_holds(w, end_of(w, k), n->watch.committed),
                  "node %d: prefix: LSN %llu, committed here, is not in node %d's log, which it "
                  "%s",
                  i, ull(hist_lsn(w, n->watch.committed)), k,
                  n->follows == k ? "follows" : "does not follow, in its epoch");
    }
}

static size_t list_len(const struct sub_list *l)
{
    size_t n = 0;

    for (const struct sub *s = l->head; s != NULL; s = (const struct sub *)s->node.next)
        n++;
    return n;
}

static void count_generation(void *arg, const char *name)
{
    if (strncmp(name, "gen-", 4) == 0)
        ++*(unsigned *)arg;
}

/* What the log may hold: what is kept for secondaries, and what was applied since a checkpoint must
 * have come: they come every 30 seconds. */
static uint64_t log_bytes_max(struct world *w, int i)
{
    struct engine *e = w->n[i].e;
    struct watched *x = &w->n[i].watch;

    if (x->bound_opens != w->n[i].opens || x->bound_generation != e->cur->number) {
        x->bound_opens = w->n[i].opens;
        x->bound_generation = e->cur->number;
        x->lsn_before = x->lsn_then = 0;
        x->lsn_ns = w->now_ns;
    } else if (w->now_ns > x->lsn_ns + 45 * SEC) {
        x->lsn_before = x->lsn_then;
        x->lsn_then = atomic_load(&e->applied_lsn);
        x->lsn_ns = w->now_ns;
    }
    return (w->retain_most > e->cfg.retain_bytes ? w->retain_most : e->cfg.retain_bytes) +
           LOG_SLACK_BYTES + wal_bytes_after(e->cur->wal, x->lsn_before);
}

/* What the engine itself says of its data, and of its secondaries' data. */
static void watch_verified(struct world *w, int i)
{
    static struct engine_status st;

    engine_status(w->n[i].e, &st);
    sim_check(w, !st.damaged || w->n[i].damaged, "node %d: verified: other rows than its tree says",
              i);
    for (unsigned k = 0; k < w->n_nodes; k++) {
        if (w->n[k].damaged)
            return; /* that one may well be */
    }
    for (size_t k = 0; k < st.n_peers; k++)
        sim_check(
            w, st.peers[k].verified != ENGINE_DIFFERENT && st.peers[k].verified != ENGINE_DAMAGED,
            "node %d: verified: other data than %s", i, st.peers[k].id);
}

/* What is told last of an LSN counts: a log may have been cut there. */
static const uint8_t *own_root(const struct verify *v, uint64_t lsn)
{
    for (uint64_t k = v->n_roots; k > 0 && k + ROOTS_KEPT > v->n_roots; k--) {
        if (v->roots[(k - 1) % ROOTS_KEPT].lsn == lsn)
            return v->roots[(k - 1) % ROOTS_KEPT].root;
    }
    return NULL;
}

/* -1: whom it follows, whoever that is. */
static const struct told_root *root_told(const struct watched *x, int from, uint64_t lsn)
{
    for (size_t k = x->n_told; k > 0 && k + SIM_TOLD_ROOTS > x->n_told; k--) {
        const struct told_root *t = &x->told[(k - 1) % SIM_TOLD_ROOTS];

        if (t->lsn == lsn && (from < 0 || t->from == from))
            return t;
    }
    return NULL;
}

/* The node of that member, by its key; -1: it is whom the engine follows, or it has gone. */
static int node_of(const struct world *w, struct engine *e, const char *id)
{
    struct member m;
    struct err err;

    for (int k = 0; member_read(e, id, &m, &err) == 0 && k < (int)w->n_nodes; k++) {
        if (memcmp(m.key_hash, w->n[k].key_hash, sizeof(m.key_hash)) == 0)
            return k;
    }
    return -1;
}

static void watch_claim(struct world *w, int i, const struct engine_peer *p)
{
    struct engine *e = w->n[i].e;
    struct watched *x = &w->n[i].watch;
    int of = node_of(w, e, p->id);
    uint64_t *claimed = &x->claimed[of < 0 ? i : of];
    const uint8_t *own = own_root(&e->verify, p->verified_lsn);
    const struct told_root *t = root_told(x, of, p->verified_lsn);
    int at;

    if (p->verified != ENGINE_EQUAL || p->verified_lsn == *claimed || own == NULL)
        return;
    *claimed = p->verified_lsn;
    sim_check(w, t != NULL && memcmp(t->root, own, sizeof(t->root)) == 0,
              "node %d: verified: it is equal to %s at LSN %llu, as it says, and was told %s", i,
              p->id, ull(p->verified_lsn), t == NULL ? "nothing" : "of another root");
    at = hist_at(w, end_of(w, i), p->verified_lsn);
    sim_check(w, at < 0 || w->faults_in_data || hist_root(w, at, own),
              "node %d: root: another one at LSN %llu", i, ull(p->verified_lsn));
}

static void watch_claims(struct world *w, int i)
{
    static struct engine_status st;

    engine_status(w->n[i].e, &st);
    for (size_t k = 0; k < st.n_peers; k++)
        watch_claim(w, i, &st.peers[k]);
}

static void watch_bounds(struct world *w, int i)
{
    struct node *n = &w->n[i];
    struct engine *e = n->e;
    uint64_t log_max = log_bytes_max(w, i);
    unsigned generations = 0;
    struct err err;

    sim_check(w, queue_weight(e->event_q) <= EVENTS_BYTES + w->segment_bytes_max,
              "node %d: bounds: %zu bytes of events", i, queue_weight(e->event_q));
    /* What was fed before the bound was met is on top of it; a frame on disk is padded. */
    sim_check(w,
              engine_unfolded_bytes(e) <=
                  UNFOLDED_BYTES_MAX + 2 * APPLY_AHEAD_BYTES_MAX + 2 * w->segment_bytes_max,
              "node %d: bounds: %zu bytes in memory tables", i, engine_unfolded_bytes(e));
    sim_check(w, e->n_conns <= CONNS_BOUND, "node %d: bounds: %zu connections", i, e->n_conns);
    sim_check(w, e->follow.rx.bytes <= EVENTS_BYTES + w->segment_bytes_max,
              "node %d: bounds: %zu bytes received", i, e->follow.rx.bytes);
    sim_check(w, list_len(&e->waiting) + list_len(&e->pending) <= w->n_ops + 64u,
              "node %d: bounds: more transactions wait than were submitted", i);
    for (size_t k = 0; k < ENGINE_PEERS_MAX; k++)
        sim_check(w, e->peers[k].window_used <= WINDOW_BYTES + w->segment_bytes_max,
                  "node %d: bounds: %zu bytes in the window of %s", i, e->peers[k].window_used,
                  e->peers[k].member.id);
    sim_check(w, wal_bytes(e->cur->wal) <= log_max,
              "node %d: bounds: the log has %llu bytes, %llu are allowed", i,
              ull(wal_bytes(e->cur->wal)), ull(log_max));
    if (n->disk->ops->list(n->disk, n->path, count_generation, &generations, &err) != 0)
        sim_fail(w, "node %d: list: %s", i, err.msg);
    sim_check(w, generations <= GENERATIONS_BOUND, "node %d: bounds: %u generations on the disk", i,
              generations);
}

/* ---- everything comes to its end ---- */
/* It takes nothing until there is room. */
static bool short_of_space(const struct engine *e)
{
    return e->free_bytes != 0 && e->free_bytes < e->cfg.reserve_bytes;
}

static bool disturbed(const struct world *w)
{
    if (w->partitioned || w->refused || w->delay_ns > 20 * MS || w->byte_ns_x1000 > 100000)
        return true;
    for (unsigned i = 0; i < w->n_nodes; i++) {
        if (w->n[i].e == NULL || w->n[i].cut || w->n[i].fails || w->n[i].stalled > 0 ||
            node_still(w, (int)i) || w->n[i].slow_until_ns > 0 ||
            w->n[i].busy_until_ns > w->now_ns || short_of_space(w->n[i].e))
            return true;
        for (unsigned k = 0; k < w->n_nodes; k++) {
            const struct sim_line *l = &w->line[i][k];

            if (l->down || l->delay_ns > 20 * MS || l->byte_ns_x1000 > 100000)
                return true;
        }
    }
    return false;
}

bool watch_member(struct world *w, int p, int s)
{
    struct member m;
    struct err err;
    char id[64];

    snprintf(id, sizeof(id), "member-%d", s);
    return member_read(w->n[p].e, id, &m, &err) == 0 && !m.revoked && !revoked_here(w->n[p].e, id);
}

/* Whom it is to follow is, by its key, nobody that it may follow: another machine, or a member of
 * another cluster. */
bool watch_another(struct world *w, int i)
{
    const struct follow_config *cfg = &w->n[i].e->follow.cfg;
    const uint8_t *key_hash = w->n[w->n[i].follows].key_hash;
    struct member m;
    struct err err;

    if (cfg->addrs[0] != '\0')
        return member_by_key(w->n[i].e, key_hash, &m, &err) != 0;
    return memcmp(cfg->primary_key_hash, key_hash, sizeof(cfg->primary_key_hash)) != 0;
}

static void watch_ends(struct world *w, int i)
{
    struct node *n = &w->n[i];
    struct engine *p = n->follows >= 0 ? w->n[n->follows].e : NULL;
    const struct follow *f = &n->e->follow;
    int64_t since = w->disturbed_ns > n->watch.settled_ns ? w->disturbed_ns : n->watch.settled_ns;
    bool settled;

    /* It gave up what its log had (or came back without it): more than that cannot be asked. */
    if (p != NULL && wal_durable_lsn(p->cur->wal) < n->watch.target_lsn)
        n->watch.target_lsn = wal_durable_lsn(p->cur->wal);
    settled = f->state == FOLLOW_STREAM && f->phase == COPY_NONE &&
              atomic_load(&n->e->applied_lsn) >= n->watch.target_lsn;

    if (p == NULL || w->n[n->follows].role != ENGINE_PRIMARY || n->role == ENGINE_PRIMARY ||
        n->role == ENGINE_FENCED || n->e->reason[0] != '\0' || settled) {
        n->watch.settled_ns = w->now_ns;
        n->watch.target_lsn = p != NULL ? p->committed_lsn : 0;
        return;
    }
    if (w->now_ns - since >= CALM_NS && (!watch_member(w, n->follows, i) || watch_another(w, i))) {
        n->watch.settled_ns = w->now_ns; /* a new machine under the old address */
        return;
    }
    sim_check(
        w, w->now_ns - since < CALM_NS,
        "node %d: ends: after %lld s of calm it has applied LSN %llu, not %llu (%s, phase %d): "
        "%s",
        i, (long long)((w->now_ns - since) / SEC), ull(atomic_load(&n->e->applied_lsn)),
        ull(n->watch.target_lsn), f->state == FOLLOW_STREAM ? "streaming" : "no stream",
        (int)f->phase, f->last_error);
}

static void watch_answers(struct world *w)
{
    const struct op *op;

    while (w->first_open < w->n_ops &&
           (w->ops[w->first_open].acked || w->ops[w->first_open].w == NULL))
        w->first_open++;
    if (w->first_open == w->n_ops)
        return;
    op = &w->ops[w->first_open];
    if (engine_strict_wait_ms(w->n[op->node].e) > 0)
        return; /* it may wait for who is away for good */
    sim_check(w, w->now_ns - op->issued_ns < CALM_NS || w->now_ns - w->disturbed_ns < CALM_NS,
              "node %d: ends: write %u of %.3f s is not answered", op->node, op->id,
              (double)op->issued_ns / 1e9);
}

static void watch_met(struct world *w, int i);

void watch_step(struct world *w, int i)
{
    struct node *n = &w->n[i];
    uint64_t dice = sim_look(w, 256);
    bool all = w->plant_struck > 0; /* at once, or another check comes first */

    learn(w, i);
    if (n->cut) { /* the power is off: what it does now is not seen, */
        n->watch.told_epoch =
            n->watch.met_epoch; /* and whom it met in that step may be forgotten */
        return;
    }
    serve_look(w, i);
    watch_log(w, i);
    watch_met(w, i);
    if (n->e->follow.phase != COPY_SWITCH && !w->faults_in_data) {
        int applied = applied_at(w, i);
        bool moved = applied != n->watch.applied;

        if ((moved && dice % 32 == 1) || dice == 33 || all)
            watch_state(w, i);
        if ((moved && dice % 4 == 0) || all)
            watch_root(w, i);
        n->watch.applied = applied;
    }
    if (dice % 16 == 2 || all)
        watch_prefix(w, i);
    if (dice % 64 == 7 && !w->faults_in_data &&
        (w->plant == NULL || planted(w, "false_difference")))
        watch_verified(w, i);
    if (dice % 64 == 8 || all)
        watch_claims(w, i);
    if (dice % 32 == 3)
        watch_bounds(w, i);
    if (dice % 8 == 5)
        watch_ends(w, i);
}

void watch_world(struct world *w)
{
    if (disturbed(w))
        w->disturbed_ns = w->now_ns;
    else
        watch_answers(w);
}

/* ---- moments ---- */
void watch_opened(struct world *w, int i)
{
    struct node *n = &w->n[i];
    struct watched *x = &n->watch;
    int end;

    w->disturbed_ns = w->now_ns; /* while all are down nobody looks, and time goes on */
    serve_look(w, i);
    learn(w, i);
    end = end_of(w, i);
    if (x->generation == n->e->cur->number && !x->restored) {
        if (x->half_cut && !hist_holds(w, end, x->durable))
            x->durable = x->committed;
        sim_check(w, hist_holds(w, end, x->durable),
                  "node %d: durable: LSN %llu was durable and is gone, the log ends at %llu", i,
                  ull(hist_lsn(w, x->durable)), ull(hist_lsn(w, end)));
        sim_check(w, hist_holds(w, end, x->held),
                  "node %d: promise: LSN %llu was acknowledged because it is here, and is gone", i,
                  ull(hist_lsn(w, x->held)));
    }
    x->half_cut = false;
    other_data(w, i);
    if (x->generation != n->e->cur->number)
        x->durable = end; /* other data: what was durable in the one before says nothing of it */
    x->generation = n->e->cur->number;
    x->opens = 0; /* of the first look */
    if (n->e->fence.newer.number > x->met_epoch && engine_role(n->e) == ENGINE_FENCED) {
        x->told_epoch = x->met_epoch = n->e->fence.newer.number; /* it was durable after all */
        x->met_lsn = n->e->committed_lsn;
    }
    if (w->faults_in_data)
        return;
    watch_root(w, i);
    watch_state(w, i);
}

/* The engine has come to the end of the step in which its power was cut. A log that was being cut
 * then may or may not have been. */
void watch_crashed(struct world *w, int i)
{
    struct node *n = &w->n[i];
    struct watched *x = &n->watch;

    learn(w, i);
    if (n->e->cur->number != x->generation)
        x->generation = UINT32_MAX; /* the one or the other */
    else if (!hist_holds(w, end_of(w, i), x->durable))
        x->durable = x->committed;
    if (n->role == ENGINE_BOOTSTRAPPING)
        x->held = 0;
}

size_t watch_memory(const struct world *w)
{
    return hist_memory(w);
}

void watch_forget(struct world *w, int i)
{
    struct watched *x = &w->n[i].watch;
    struct fold *f = x->fold;
    int regain = hist_lsn(w, x->durable) > hist_lsn(w, x->regain) ? x->durable : x->regain;

    memset(x, 0, sizeof(*x));
    x->fold = f;
    x->regain = regain;
    x->restored = true;
    modes_forget(w, i);
}

/* What it has counts from its next start on, as that of any other. */
void watch_older(struct world *w, int i)
{
    watch_forget(w, i);
    w->n[i].watch.restored = false;
    w->n[i].watch.older = true;
}

/* It gives up what it has for another's history. */
void watch_given_up(struct world *w, int i)
{
    w->n[i].watch.held = 0;
    w->n[i].watch.restored = w->n[i].watch.older = false;
    w->n[i].watch.met_epoch = w->n[i].watch.told_epoch = 0;
}

void watch_repointed(struct world *w, int i, int p)
{
    struct watched *x = &w->n[i].watch;

    if (p < 0 || !node_up(w, p) || !hist_holds(w, end_of(w, p), x->held))
        x->held = 0;
}

void watch_handed(struct world *w, int from, int to)
{
    int at = w->n[from].watch.committed;

    if (node_up(w, to))
        sim_check(w, hist_holds(w, end_of(w, to), at),
                  "node %d: committed: LSN %llu of node %d is gone with the switchover", to,
                  ull(hist_lsn(w, at)), from);
}

void watch_promoting(struct world *w, int i)
{
    struct watched *x = &w->n[i].watch;

    /* While a copy is put in place its log already counts, and was not looked at yet. */
    x->before = x->generation == w->n[i].e->cur->number ? x->durable : 0;
}

void watch_promoted(struct world *w, int i)
{
    struct watched *x = &w->n[i].watch;
    int end = end_of(w, i);

    sim_check(w, hist_holds(w, end, x->before),
              "node %d: committed: LSN %llu was durable here before the promotion and is gone", i,
              ull(hist_lsn(w, x->before)));
    sim_check(w, hist_holds(w, end, x->held),
              "node %d: promise: LSN %llu was acknowledged because it is here, and is gone", i,
              ull(hist_lsn(w, x->held)));
}

/* Is the write in what a node has applied? */
bool watch_has(struct world *w, int i, const struct op *op)
{
    return hist_holds(w, applied_at(w, i), op->place);
}

/* ---- epochs ---- */
static bool unrevoked(struct engine *e, const char *id, struct member *m)
{
    struct err err;

    return member_read(e, id, m, &err) == 0 && !m->revoked && !revoked_here(e, id);
}

/* Whether the engine heeds the frame: who asks is a member, who tells was asked. */
static const struct epoch_rec *told_by(struct engine *e, uint64_t conn, const uint8_t *key_hash,
                                       const struct link_msg *m)
{
    const char *who = m->type == MSG_HELLO ? m->hello.member_id : m->epoch.member_id;
    const struct epochs *history = m->type == MSG_HELLO ? &m->hello.epochs : &m->epoch.epochs;
    bool asked = m->type != MSG_EPOCH_TELL;
    struct member row;

    if (m->type != MSG_HELLO && m->type != MSG_EPOCH_ASK && m->type != MSG_EPOCH_TELL)
        return NULL;
    for (size_t k = 0; k < e->meet.n; k++)
        asked = asked || e->meet.m[k].conn_id == conn;
    if (!asked || e->alone || !unrevoked(e, who, &row))
        return NULL;
    if (memcmp(key_hash, row.key_hash, sizeof(row.key_hash)) != 0)
        return NULL; /* a machine of before, under a name that another one has now */
    return epochs_last(history);
}

/* Of its own number, with another id: two were promoted from one epoch. Who began one and serves
 * no longer, but for being fenced itself, leaves it to this one. */
static bool splits(const struct link_msg *m, const struct epoch_rec *ours,
                   const struct epoch_rec *theirs)
{
    return m->type != MSG_HELLO && theirs->number == ours->number &&
           memcmp(theirs->id, ours->id, sizeof(ours->id)) != 0 &&
           (m->epoch.role == ENGINE_PRIMARY || m->epoch.role == ENGINE_FENCED);
}

/* A frame arrives: does it tell a primary of an epoch that is newer than its own, or of a split? */
void watch_frame(struct world *w, int from, int to, uint64_t conn, const void *frame, size_t len)
{
    struct node *n = &w->n[to];
    const uint8_t *key_hash = w->n[from].key_hash;
    const struct epoch_rec *ours, *theirs;
    struct told_root *told;
    struct link_msg m;
    struct err err;

    if (link_msg_decode(frame, len, &m, &err) != 0)
        return;
    if (m.type == MSG_ROOT) {
        told = &n->watch.told[n->watch.n_told++ % SIM_TOLD_ROOTS];
        *told = (struct told_root){.from = from, .lsn = m.root.lsn};
        memcpy(told->root, m.root.root, sizeof(told->root));
    }
    if (n->role != ENGINE_PRIMARY || n->sealed) /* sealed, it may not know what to believe */
        return;
    ours = epochs_last(&n->e->cur->epochs);
    theirs = told_by(n->e, conn, key_hash, &m);
    if (theirs != NULL && ours != NULL && theirs->number > n->watch.told_epoch &&
        (theirs->number > ours->number || splits(&m, ours, theirs))) {
        note(w, to, "is told of epoch %u%s", theirs->number,
             theirs->number == ours->number ? ", which is its own: a split" : "");
        n->watch.told_epoch = theirs->number;
        snprintf(n->watch.told_by, sizeof(n->watch.told_by), "%s",
                 m.type == MSG_HELLO ? m.hello.member_id : m.epoch.member_id);
    }
}

/* The step in which the frame was taken is over. */
static void watch_met(struct world *w, int i)
{
    struct watched *x = &w->n[i].watch;

    struct member m;

    if (x->told_epoch <= x->met_epoch)
        return;
    if (!unrevoked(w->n[i].e, x->told_by, &m)) { /* cut off before its word was read */
        x->told_epoch = x->met_epoch;
        return;
    }
    x->met_epoch = x->told_epoch;
    x->met_lsn = w->n[i].e->committed_lsn;
}

/* Promoted past what it met, it may serve again. */
static bool superseded(struct world *w, int i)
{
    const struct epoch_rec *ours = epochs_last(&w->n[i].e->cur->epochs);

    return w->n[i].watch.met_epoch > 0 && ours != NULL && ours->number <= w->n[i].watch.met_epoch;
}

/* ---- promises ---- */
static void promise_to(struct world *w, int p, int s, const struct op *op)
{
    struct node *n = &w->n[s];

    w->n_promised++;
    note(w, p, "write at LSN %llu was promised to be durable at node %d", ull(op->lsn), s);
    if (n->e != NULL && !n->cut) {
        int end = end_of(w, s);

        sim_check(w, hist_holds(w, end, op->place) && wal_durable_lsn(n->e->cur->wal) >= op->lsn,
                  "node %d: promise: LSN %llu was acknowledged by node %d and is not durable here",
                  s, ull(op->lsn), p);
    } else
        sim_check(w, hist_holds(w, n->watch.durable, op->place),
                  "node %d: promise: LSN %llu was acknowledged by node %d and was not durable here "
                  "when the power failed",
                  s, ull(op->lsn), p);
    if (hist_lsn(w, op->place) > hist_lsn(w, n->watch.held)) {
        n->watch.held = op->place;
        n->watch.held_epoch = epoch_of(&w->n[p]);
    }
}

/* Under a quorum k of the named members have it now. */
static void promise_quorum(struct world *w, const struct repl_mode *m, struct op *op)
{
    uint32_t have = 0;

    w->n_promised++;
    for (uint32_t k = 0; k < m->n; k++) {
        unsigned s = (unsigned)strtoul(m->name[k] + strlen("member-"), NULL, 10);
        const struct node *n = &w->n[s];

        if (s >= w->n_nodes)
            continue;
        if ((int)s == op->node || n->watch.restored || n->watch.older)
            have++; /* itself; or it was damaged, and nothing can be said */
        else if (node_up(w, (int)s))
            have += hist_holds(w, end_of(w, (int)s), op->place) &&
                    wal_durable_lsn(n->e->cur->wal) >= op->lsn;
        else
            have += hist_holds(w, n->watch.durable, op->place);
    }
    sim_check(w, have >= m->k,
              "node %d: promise: LSN %llu was acknowledged with %u of %u that must have it",
              op->node, ull(op->lsn), have, m->k);
}

void watch_acked(struct world *w, struct op *op)
{
    struct node *n = &w->n[op->node];
    struct engine *e = n->e;
    const struct repl_mode *quorum;
    char id[64];

    learn(w, op->node); /* this step is not over */
    op->place = log_at(w, op->node, op->lsn);
    sim_check(w, op->lsn <= wal_durable_lsn(e->cur->wal),
              "node %d: durable: LSN %llu was acknowledged before it was", op->node, ull(op->lsn));
    sim_check(w, !superseded(w, op->node) || op->lsn <= n->watch.met_lsn,
              "node %d: epochs: LSN %llu was acknowledged after it had met epoch %u", op->node,
              ull(op->lsn), n->watch.met_epoch);
    quorum = mode_promised(w, op->node, "", op->lsn);
    if (quorum != NULL)
        promise_quorum(w, quorum, op);
    for (int s = 0; s < (int)w->n_nodes; s++) {
        snprintf(id, sizeof(id), "member-%d", s);
        if (w->n[s].follows == op->node && !w->n[s].watch.restored && !w->n[s].watch.older &&
            !w->n[s].revoked && mode_promised(w, op->node, id, op->lsn) != NULL)
            promise_to(w, op->node, s, op);
    }
}

void watch_bulk_acked(struct world *w, int i, uint64_t lsn)
{
    struct op op = {.id = UINT32_MAX, .node = i, .lsn = lsn};

    watch_acked(w, &op);
}
