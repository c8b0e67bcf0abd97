/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim_world.c - the nodes, the clock, the workload and the checks.
 *
 * The clock moves only when nobody has anything to do, to the next thing that is due; each reading
 * moves it by a microsecond, so that a loop which waits for time ends.
 */
#include "sim_private.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BUSY_MAX_NS (10 * SEC) /* of one step on a slow disk */

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

uint64_t sim_look(struct world *w, uint64_t below)
{
    return next_rand(&w->look_rng) % below;
}

void sim_fail(struct world *w, const char *fmt, ...)
{
    char text[600];
    va_list ap;
    bool seen;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    seen = w->plant != NULL && strstr(text, w->plant->seen_by) != NULL;
    if (w->ev != NULL && !seen) {
        events_drain(w, w->fatal_node);
        events_show(w);
    }
    printf("%s seed %llu scenario %s at %.6f s: %s\n", seen ? "SEEN" : "FAILED",
           (unsigned long long)w->seed, w->scenario, (double)w->now_ns / 1e9, text);
    fflush(stdout);
    _exit(seen ? 0 : 1);
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
/* The process would end here. */
static void on_fatal(void *arg, const struct err *err)
{
    struct node *n = arg;

    if ((!n->fails && !n->damaged) || n->w->fatal_node != n->index)
        sim_fail(n->w, "node %d: final failure: %s", n->index, err->msg);
    note(n->w, n->index, "ends itself: %s", err->msg);
    n->watch.told_epoch = n->watch.met_epoch; /* what it met in this step may be forgotten */
    n->watch.half_cut = strncmp(err->msg, "cut the log", strlen("cut the log")) == 0;
    longjmp(n->w->fatal, 1);
}

static void on_role(void *arg, enum engine_role role)
{
    struct node *n = arg;

    if (n->cut)
        return;
    n->role = (int)role;
    note(n->w, n->index, "role %d", (int)role);
}

static void on_cut(void *arg)
{
    struct node *n = arg;

    if (n->cut_as != SIM_FAULTS)
        fault(n->w, n->cut_as, n->index, "is met");
    n->cut_as = SIM_FAULTS;
    n->cut = true;
    note(n->w, n->index, "the power fails at an I/O");
}

void node_cut_in(struct world *w, int i, uint64_t ops)
{
    if (!w->n[i].cut)
        disk_image_cut_in(w->n[i].image, ops, on_cut, &w->n[i]);
}

void node_crash_in(struct world *w, int i, uint64_t ops)
{
    node_cut_in(w, i, ops);
    w->n[i].cut_as = SIM_FAULTS;
    w->n[i].falls = ops > 0;
}

bool node_up(const struct world *w, int i)
{
    return w->n[i].e != NULL && !w->n[i].cut;
}

static const uint8_t barrier_key[32] = {42};

void node_seal(struct world *w, int i)
{
    w->n[i].sealed = true;
    engine_epoch_key(w->n[i].e, NULL);
}

void node_unseal(struct world *w, int i)
{
    struct node *n = &w->n[i];

    if (!n->sealed || !node_up(w, i))
        return;
    n->sealed = false;
    fault(w, F_UNSEAL, i, "as role %d", n->role);
    engine_epoch_key(n->e, barrier_key);
}

/* A start is sealed until somebody has put the shares in. */
static void start_sealed(struct world *w, int i)
{
    struct node *n = &w->n[i];

    n->sealed = w->seals > 0 && chance(w, w->seals);
    if (n->sealed)
        fault(w, F_SEALED, i, "as role %d", (int)engine_role(n->e));
    else
        engine_epoch_key(n->e, barrier_key);
}

/* A sealed one that is superseded follows by itself: what it has counts no more. It may have ended
 * in that step, and be the one or the other when it comes back. */
static void look_at_role(struct world *w, int i, int before, bool sealed)
{
    struct node *n = &w->n[i];

    if (!sealed || before != ENGINE_FENCED || n->role != ENGINE_SECONDARY)
        return;
    fault(w, F_STEPS_DOWN, i, "it has role %d", n->role);
    serve_down(w, i);
    watch_given_up(w, i);
}

bool node_still(const struct world *w, int i)
{
    return w->now_ns < w->n[i].still_until_ns;
}

/* Answers that come from here on are not answers. */
static void forget_answers(struct world *w, int i)
{
    for (uint32_t k = w->first_open; k < w->n_ops; k++) {
        if (w->ops[k].node == i && !w->ops[k].acked)
            w->ops[k].w = NULL;
    }
}

static void new_image(struct node *n, struct disk_image *image)
{
    n->image = image;
    n->left = NULL;
    n->cut = n->falls = n->fails = n->flush_failed = false;
    n->cut_as = SIM_FAULTS;
    n->stalled = 0;
    n->still_until_ns = n->slow_until_ns = n->busy_until_ns = 0;
    disk_image_mend(image);
    disk_image_on_fault(image, fault_met, n);
    disk_image_hold_faults(image, true); /* but for node_does */
    disk_image_cut_in(image, 0, on_cut, n);
}

/* What the disk of a node holds that is gone now. */
static struct disk_image *left_of(struct node *n)
{
    return n->cut ? disk_image_take_cut(n->image) : disk_image_clone(n->image);
}

/* WiredTiger's state of the process, of which its lock is the first. */
extern pthread_mutex_t __wt_process;

/* An engine that ended itself is left as it is, with its disk; WiredTiger keeps the name of its
 * directory, so the node gets another. If that was within wiredtiger_open, it left a lock taken. */
static void node_died(struct world *w, int i)
{
    struct node *n = &w->n[i];
    struct disk_image *left = n->left != NULL ? n->left : left_of(n);
    char to[sizeof(n->path)];
    struct disk *d;
    struct err err;
    bool there;

    sim_check(w, left != NULL, "out of memory");
    (void)pthread_mutex_trylock(&__wt_process);
    pthread_mutex_unlock(&__wt_process);
    w->fatal_node = -1;
    events_drain(w, i);
    if (n->e != NULL && !n->closing)
        watch_crashed(w, i);
    n->closing = false;
    disk_image_crash(left);
    disk_image_mend(left);
    snprintf(to, sizeof(to), "/node%d-%u", i, ++n->deaths);
    d = disk_sim_new(left, &n->env.env);
    sim_check(w, d != NULL, "no simulated disk");
    if (d->ops->exists(d, n->path, &there, &err) != 0 ||
        (there && /* its first start may not have come that far */
         (d->ops->rename(d, n->path, to, &err) != 0 || d->ops->sync_dir(d, "/", &err) != 0)))
        sim_fail(w, "node %d: rename: %s", i, err.msg);
    disk_free(d);
    snprintf(n->path, sizeof(n->path), "%s", to);
    net_forget(w, i);
    forget_answers(w, i);
    n->e = NULL;
    n->disk = NULL;
    n->snapshot = NULL; /* as the engine, it is left as it is */
    buf_free(&n->snapshot_bytes);
    new_image(n, left);
    n->crashes++;
}

/* A watch is no part of the node, so its reads do not fail. */
bool node_looks(struct world *w, int i, void (*fn)(struct node *n))
{
    if (setjmp(w->fatal) != 0) {
        node_died(w, i);
        return false;
    }
    w->fatal_node = i;
    fn(&w->n[i]);
    w->fatal_node = -1;
    events_drain(w, i);
    return true;
}

bool node_does(struct world *w, int i, void (*fn)(struct node *n))
{
    struct disk_image *image = w->n[i].image;
    bool lives;

    disk_image_hold_faults(image, false);
    lives = node_looks(w, i, fn);
    if (lives)
        disk_image_hold_faults(image, true);
    return lives;
}

struct opening {
    struct engine_config cfg;
    struct engine *e;
    int rc;
    struct err err;
};
static struct opening opening; /* one at a time; outlives the jump */

static void do_open(struct node *n)
{
    (void)n;
    opening.e = NULL;
    opening.rc = engine_open(&opening.cfg, &opening.e, &opening.err);
}

static void do_close(struct node *n)
{
    n->closing = true;
    snapshot_end(n);
    engine_close(n->e);
    n->closing = false;
}

/* false: it ended itself meanwhile. */
static bool node_drop(struct world *w, int i)
{
    struct node *n = &w->n[i];

    if (!node_does(w, i, do_close))
        return false;
    n->still_until_ns = n->busy_until_ns = 0;
    n->e = NULL;
    disk_free(n->disk);
    n->disk = NULL;
    return true;
}

/* The watch reads, too: a damaged store ends its process then. */
static void look_opened(struct node *n)
{
    watch_opened(n->w, n->index);
}

static void look_step(struct node *n)
{
    watch_step(n->w, n->index);
}

/* Of several addresses the last is meant, until it streams from one. */
int node_target(const struct world *w, int i)
{
    const struct follow_config *f = &w->n[i].e->follow.cfg;
    const char *last = strrchr(f->addrs, ',');

    if (w->n[i].role == ENGINE_PRIMARY || (f->addrs[0] == '\0' && f->primary_addr[0] == '\0'))
        return -1;
    if (f->addrs[0] == '\0' || w->n[i].e->follow.state == FOLLOW_STREAM)
        return (int)strtol(f->primary_addr, NULL, 10);
    return (int)strtol(last != NULL ? last + 1 : f->addrs, NULL, 10);
}

int node_try_open(struct world *w, int i, struct err *err)
{
    struct node *n = &w->n[i];
    struct engine_status st;
    bool sealed = n->sealed;
    int role = n->role;

    opening.cfg = (struct engine_config){.path = n->path,
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
                                         .sealed_wait_ms = w->sealed_wait_ms,
                                         .hooks = {.arg = n, .fatal = on_fatal, .role = on_role}};
    if (w->tune != NULL)
        w->tune(w, i, &opening.cfg);
    n->disk = disk_sim_new(n->image, &n->env.env);
    sim_check(w, n->disk != NULL, "no simulated disk");
    plant_disk(w, n->disk);
    opening.cfg.disk = opening.cfg.store_disk = n->disk;
    n->flush_failed = false;
    n->flush_steps = 0;
    if (!node_does(w, i, do_open)) {
        err_set(err, ERR_IO, 0, "it ended itself in recovery");
        return n->damaged ? -1 : 1; /* with a damaged disk it would do so again */
    }
    if (opening.rc != 0) {
        *err = opening.err;
        note(w, i, "does not open: %s", err->msg);
        disk_free(n->disk);
        n->disk = NULL;
        if (n->cut) { /* no matter what it said: the power had failed */
            struct disk_image *thrown = n->image, *left = left_of(n);

            disk_image_crash(left);
            new_image(n, left);
            disk_image_free(thrown);
            return 1;
        }
        return -1;
    }
    n->e = opening.e;
    n->opens++;
    engine_link_key(n->e, n->key_hash);
    start_sealed(w, i);
    engine_status(n->e, &st);
    n->role = (int)st.role;
    n->follows = node_target(w, i);
    look_at_role(w, i, role, sealed);
    note(w, i, "is up: role %d, epoch %u, durable %llu, applied %llu", n->role, st.epoch,
         (unsigned long long)st.durable_lsn, (unsigned long long)st.applied_lsn);
    if (n->cut && n->falls) {
        node_crash(w, i);
        return 1;
    }
    if (n->cut)
        return 0;
    if (node_looks(w, i, look_opened))
        return 0;
    err_set(err, ERR_IO, 0, "it ended itself when it was read");
    return -1;
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

/* A crash is a power cut, or now and then a kill, after which what was not flushed is read as if it
 * were safe and goes with the next power cut. */
static void crash_image(struct world *w, struct disk_image *left)
{
    if (!w->canary && sim_rand(w, 3) == 0)
        disk_image_kill(left);
    else
        disk_image_crash(left);
}

void node_stop(struct world *w, int i)
{
    struct node *n = &w->n[i];
    struct disk_image *thrown = n->image, *left;

    if (n->e == NULL)
        return;
    note(w, i, "is stopped");
    net_forget(w, i);
    if (!node_drop(w, i) || !n->cut)
        return;
    note(w, i, "lost its power while it stopped");
    left = left_of(n);
    crash_image(w, left);
    new_image(n, left);
    disk_image_free(thrown);
}

void pair_again(struct world *w)
{
    for (int i = 0; i < 2; i++) {
        node_stop(w, i);
        node_open(w, i);
    }
}

/* The image as the crash leaves it is set aside first; the engine then closes on the image that is
 * thrown away. */
void node_crash(struct world *w, int i)
{
    struct node *n = &w->n[i];
    struct disk_image *left, *thrown = n->image;

    if (n->e == NULL)
        return;
    watch_crashed(w, i);
    if (w->canary && n->stale != NULL) {
        left = n->stale; /* as if every flush since then had been ignored */
        n->stale = NULL;
    } else
        left = left_of(n);
    sim_check(w, left != NULL, "out of memory");
    note(w, i, "loses its power");
    n->cut = true; /* what the engine says while it closes is not heard */
    disk_image_cut_in(n->image, 0, on_cut, n);
    n->left = left;
    net_forget(w, i);
    forget_answers(w, i);
    if (!node_drop(w, i))
        return; /* it ended itself: the disk was taken over there */
    crash_image(w, left);
    new_image(n, left);
    disk_image_free(thrown);
    n->crashes++;
}

void node_take(struct world *w, int i, struct disk_image *image)
{
    if (w->n[i].cut)
        node_crash(w, i); /* its power has failed already */
    node_stop(w, i);
    disk_image_free(w->n[i].image);
    new_image(&w->n[i], image);
    w->n[i].serve.fenced = false;
    w->n[i].sealed = false; /* what it was says nothing of what it is */
}

void node_restore(struct world *w, int i, struct disk_image *image)
{
    node_take(w, i, image);
    watch_forget(w, i);
    serve_restored(w, i);
}

void node_replace(struct world *w, int i)
{
    struct disk_image *image = disk_image_new(w->rng + (uint64_t)i);

    sim_check(w, image != NULL, "out of memory");
    note(w, i, "is replaced by a new machine");
    node_restore(w, i, image);
    w->n[i].damaged = w->n[i].named = false;
    w->n[i].follows = -1;
    serve_founded(w, i);
}

void world_init(struct world *w, uint64_t seed, const char *scenario, unsigned nodes)
{
    w->seed = seed;
    w->rng = seed * 7919 + 1;
    w->look_rng = seed;
    w->scenario = scenario;
    w->fatal_node = -1;
    w->now_ns = SEC;
    w->retain_bytes = 64u << 20;
    w->keys = 48;
    w->n_nodes = nodes == SIM_NODES_SEED ? 2 + (unsigned)sim_rand(w, 4) : nodes;
    sim_check(w, w->n_nodes <= SIM_NODES_MAX, "too many nodes");
    w->canary = w->canary || planted(w, "ignored_flush");
    events_init(w);
    hist_init(w);
    net_heal(w);
    for (int i = 0; i < (int)w->n_nodes; i++) {
        struct node *n = &w->n[i];
        struct disk_image *image = disk_image_new(seed * SIM_NODES_MAX + (uint64_t)i);

        sim_check(w, image != NULL, "out of memory");
        n->w = w;
        n->index = i;
        n->follows = -1;
        snprintf(n->path, sizeof(n->path), "/node%d", i);
        n->env = (struct sim_env){.env = {.ops = &env_ops}, .w = w};
        new_image(n, image);
        memset(n->key_hash, 'a' + i, sizeof(n->key_hash));
        serve_founded(w, i);
        node_open(w, i);
    }
}

void world_fini(struct world *w)
{
    for (int i = 0; i < (int)w->n_nodes; i++) {
        node_stop(w, i);
        disk_image_free(w->n[i].image);
        disk_image_free(w->n[i].stale);
        image_drop(&w->n[i]);
        fold_free(w->n[i].watch.fold);
    }
    net_free(w);
    if (w->snapshot_fd > 0)
        close(w->snapshot_fd);
    while (w->calls != NULL) {
        struct call *c = w->calls;

        w->calls = c->next;
        free(c);
    }
    modes_fini(w);
    serve_fini(w);
    hist_fini(w);
    events_fini(w);
}

/* ---- questions ---- */
struct call *call_new(struct world *w, int i)
{
    struct call *c = calloc(1, sizeof(*c));

    sim_check(w, c != NULL, "out of memory");
    c->node = &w->n[i];
    c->next = w->calls;
    w->calls = c;
    return c;
}

void on_call(void *arg, uint64_t lsn, const struct err *err)
{
    struct call *c = arg;

    if (c->node->cut)
        return; /* nobody hears it */
    c->done = true;
    c->lsn = lsn;
    if (err != NULL)
        c->err = *err;
}

void on_outcome(void *arg, uint64_t lsn, const struct err *err)
{
    struct outcome *o = arg;

    (void)lsn;
    o->done = true;
    if (err != NULL)
        o->err = *err;
}

/* true: it was answered, and well. */
bool call_wait(struct world *w, struct call *c, int64_t limit_ns)
{
    int64_t end = w->now_ns + limit_ns;
    unsigned opens = c->node->opens;

    while (!c->done && w->now_ns < end && node_up(w, c->node->index) && c->node->opens == opens &&
           world_step(w))
        ;
    return c->done && c->err.code == ERR_OK;
}

/* ---- time ---- */
static void do_step(struct node *n)
{
    struct world *w = n->w;

    n->in_log_step = true;
    n->did = engine_log_step(n->e);
    n->in_log_step = false;
    if (w->now_ns < n->busy_until_ns) { /* its other threads wait for the disk */
        n->did += disk_wait(n->disk, 0) > 0;
        return;
    }
    if (plant_holds_apply(w, n->index))
        return;
    if (n->stalled > 0) {
        n->stalled--;
        n->did++;
    } else if (sim_rand(w, 4) != 0)
        n->did += engine_apply_step(n->e);
    else
        n->did++; /* the apply thread is slow this time */
    if (sim_rand(w, 4) != 0)
        n->did += engine_scan_step(n->e);
    else
        n->did++;
    if (sim_rand(w, 4) != 0)
        n->did += engine_fold_step(n->e);
    else
        n->did++;
    if (disk_wait(n->disk, 0) > 0)
        n->did++;
    if (!planted(w, "no_checkpoint"))
        n->did += engine_checkpoint_step(n->e, n->checkpoint || sim_rand(w, 2000) == 0);
    n->checkpoint = false;
}

/* Synchronous calls of a slow disk: whoever made them stands there for that time, from now on. */
static void disk_waited(struct world *w, struct node *n)
{
    int64_t ns = disk_image_take_busy_ns(n->image);

    if (ns > 0)
        n->busy_until_ns = w->now_ns + (ns < BUSY_MAX_NS ? ns : BUSY_MAX_NS);
}

static bool step_node(struct world *w, int i)
{
    struct node *n = &w->n[i];
    int role = n->role;
    bool sealed = n->sealed, lives;

    if (n->e == NULL || node_still(w, i))
        return false;
    if (n->still_until_ns > 0) {
        n->still_until_ns = 0;
        fault(w, F_STILL, i, "and goes on");
    }
    if (n->slow_until_ns > 0 && w->now_ns >= n->slow_until_ns) {
        n->slow_until_ns = 0;
        disk_image_slow(n->image, 0);
        note(w, i, "its disk is as quick as ever");
    }
    lives = node_does(w, i, do_step);
    look_at_role(w, i, role, sealed);
    if (!lives)
        return true;
    if (n->slow_until_ns > 0)
        disk_waited(w, n);
    fault_look(w, i);
    if ((n->role != role && n->role != ENGINE_FENCED) ||
        (n->e->follow.cfg.addrs[0] != '\0' && n->e->follow.state == FOLLOW_STREAM))
        n->follows = node_target(w, i); /* by a handover, too, which nobody here was told of */
    if (w->plant != NULL)
        plant_step(w, i);
    if (!node_looks(w, i, look_step))
        return true;
    if (n->cut && n->falls)
        node_crash(w, i);
    return n->did > 0;
}

static int64_t next_due(struct world *w)
{
    int64_t due = net_next_due(w);

    for (unsigned i = 0; i < w->n_nodes; i++) {
        int64_t t;

        if (w->n[i].e == NULL)
            continue;
        if (node_still(w, (int)i)) {
            due = w->n[i].still_until_ns < due ? w->n[i].still_until_ns : due;
            continue;
        }
        if (w->n[i].busy_until_ns > w->now_ns && w->n[i].busy_until_ns < due)
            due = w->n[i].busy_until_ns;
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
    watch_world(w);
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
